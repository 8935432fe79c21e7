"""A pool divided over 1, 2 and 4 virtual devices of this CPU: seconds, memory of a device, bytes exchanged.

Virtual devices share the cores, so seconds say what dividing costs, not what it gains; memory and bytes are those of
any backend. `python -m bench sharded`.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from bench import pools
from bench.exchanged import Program, programs_recorded
from bench.measure import in_child, interleaved
from jaxdesign import Budget, CompletionPool, LogDet, optimize
from jaxdesign.pricing import ShardedSource, Source, memory_source, price, sharded_source
from jaxdesign.pricing.listed import PairKernel

DEVICES = 1, 2, 4
LABELS = 1000.0
SIZES = 25_000, 100_000, 400_000  # prompts of one pass each


def sharded() -> dict[str, Any]:
    """`measured` in a process that has as many devices as it takes."""
    os.environ["JAX_NUM_CPU_DEVICES"] = str(max(DEVICES))
    try:
        return json.loads(in_child("import json, bench.sharded as b; print(json.dumps(b.measured()))"))
    finally:
        del os.environ["JAX_NUM_CPU_DEVICES"]


def measured(prompts: int = 100_000, completions: int = 16, dim: int = 64) -> dict[str, Any]:
    """One pass, and a whole call of `optimize`, of a pool in memory and of the same divided over devices."""
    pool, budget = CompletionPool(pools.heavy_tailed(prompts, completions, dim, seed=0)), Budget(LABELS)
    sources: dict[str, Source] = {"in memory": memory_source(pool)}
    sources |= {f"on {count} devices": on_devices(pool, count) for count in DEVICES}
    result = {
        "problem": {"P": prompts, "K": completions, "d": dim, "labels": LABELS},
        "seconds of a pass": interleaved({name: one_pass(source) for name, source in sources.items()}),
        "seconds of optimize": interleaved(
            {name: lambda s=source: optimize(s, LogDet(), budget).labels for name, source in sources.items()}, 3
        ),
    }
    for name in list(sources)[1:]:
        result[name] = needs(sources[name], budget)
    del sources
    result["seconds of a pass by prompts"] = growing(completions, dim)
    return result


def one_pass(source: Source):
    """A pass over all pairs, to be timed."""
    factors, never = np.eye(source.dim, dtype=np.float32)[None], np.float32(np.inf)
    return lambda: price(source, factors, never)


def on_devices(pool: CompletionPool, count: int) -> ShardedSource:
    """The pool divided over so many devices."""
    mesh = jax.make_mesh((count,), ("prompts",), devices=jax.devices()[:count])
    return sharded_source(pool, mesh, "prompts")


def growing(completions: int, dim: int) -> dict[str, dict[str, float]]:
    """Seconds of a pass in memory by the number of prompts."""
    features = pools.heavy_tailed(max(SIZES), completions, dim, seed=1)
    sizes = {str(size): memory_source(CompletionPool(features[:size])) for size in SIZES}
    return interleaved({name: one_pass(source) for name, source in sizes.items()}, 5)


class Counted(ShardedSource):
    """A divided pool that counts the listed pairs it is asked about."""

    asked = 0

    def over_pairs(self, kernel: PairKernel, pairs: np.ndarray, per_pair: Any = None) -> Any:
        Counted.asked += len(pairs)
        return super().over_pairs(kernel, pairs, per_pair)


def needs(source: ShardedSource, budget: Budget) -> dict[str, Any]:
    """What a call of `optimize` asks of a device: memory of its largest program, and bytes it exchanges.

    Bytes before the certificate of the first working set are those of a call; later ones are of one pass each, with the
    listed pairs that were looked up in it.
    """
    marks = []
    with programs_recorded() as programs:
        counted = Counted(source.parts, source.layout)
        design = optimize(
            counted, LogDet(), budget, tol=1e-6, callback=lambda _: marks.append((len(programs), Counted.asked))
        )
    passes = [
        {"listed": after[1] - before[1], "bytes": received(programs[before[0] : after[0]])}
        for before, after in pairwise(marks)
    ]
    slots = source.parts.copies.shape[0] * source.parts.copies.shape[1]
    return {
        "passes": design.passes,
        "prompts of a device over an even share": slots / source.prompts,  # chunks are filled up with empty prompts
        "MB of a device": max(one.memory for one in programs if one.name == "fold") / 1e6,
        "MB received before the first certificate": received(programs[: marks[0][0]]) / 1e6,
        "by pass": passes,
    }


def received(programs: list[Program]) -> float:
    """Bytes that the device which receives most gets from the others."""
    return sum(one.exchanged for one in programs)
