"""A pool divided over 1, 2 and 4 virtual devices of this CPU: seconds, memory of a device, bytes exchanged, balance.

Virtual devices share the cores, so seconds say what dividing costs, not what it gains; memory and bytes are those of
any backend. `python -m bench sharded`.
"""

from __future__ import annotations

import json
import os
from typing import Any

import jax
import numpy as np

from bench import pools
from bench.exchanged import Program, programs_recorded
from bench.measure import in_child, interleaved
from jaxdesign import Budget, CompletionPool, LogDet, optimize
from jaxdesign.pricing import ShardedSource, Source, memory_source, price, sharded_source

DEVICES = 1, 2, 4
LABELS = 1000.0


def sharded() -> dict[str, Any]:
    """`measured` in a process that has as many devices as it takes."""
    os.environ["JAX_NUM_CPU_DEVICES"] = str(max(DEVICES))
    try:
        return json.loads(in_child("import json, bench.sharded as b; print(json.dumps(b.measured()))"))
    finally:
        del os.environ["JAX_NUM_CPU_DEVICES"]


def measured(prompts: int = 20_000, completions: int = 16, dim: int = 64) -> dict[str, Any]:
    """One pass, and a whole call of `optimize`, of a pool in memory and of the same divided over devices."""
    pool, budget = CompletionPool(pools.heavy_tailed(prompts, completions, dim, seed=0)), Budget(LABELS)
    sources: dict[str, Source] = {"in memory": memory_source(pool)}
    sources |= {f"on {count} devices": on_devices(pool, count) for count in DEVICES}
    factors, never = np.eye(dim, dtype=np.float32)[None], np.float32(np.inf)
    passes = {name: lambda s=source: price(s, factors, never) for name, source in sources.items()}
    whole = {name: lambda s=source: optimize(s, LogDet(), budget).labels for name, source in sources.items()}
    result = {
        "problem": {"P": prompts, "K": completions, "d": dim, "labels": LABELS},
        "seconds of a pass": interleaved(passes),
        "seconds of optimize": interleaved(whole, 3),
    }
    for name in list(sources)[1:]:
        with programs_recorded() as programs:
            design = optimize(sources[name], LogDet(), budget)
        result[name] = needs(programs, design.passes)
    return result


def on_devices(pool: CompletionPool, count: int) -> ShardedSource:
    """The pool divided over so many devices."""
    mesh = jax.make_mesh((count,), ("prompts",), devices=jax.devices()[:count])
    return sharded_source(pool, mesh, "prompts")


def needs(programs: list[Program], passes: int) -> dict[str, Any]:
    """By kind of program, what the largest asks of a device, and what a device received from the others in all."""
    kinds = {name: [one for one in programs if one.name == name] for name in sorted({one.name for one in programs})}
    return {
        "passes": passes,
        "MB of a device": {name: max(one.memory for one in some) / 1e6 for name, some in kinds.items()},
        "kB received": {name: sum(one.exchanged for one in some) / 1e3 for name, some in kinds.items()},
        "bytes received in a fold, at most": max(one.exchanged for one in kinds["fold"]),
    }
