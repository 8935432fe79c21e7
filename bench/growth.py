"""How time and memory grow: `python -m bench.growth --json FILE`; with `--file POOL.npy` that of `bench.streamed` too.

Designs to 0.999 (log det, repeats; one label a pair where m changes) of heavy-tailed pools in memory, one of P, K, d
and m changing at a time, each in a process of its own: seconds of a call and of its folds over the pool, their work,
and the peak of anonymous memory. The cost model that they are held against is `work` and `memory` below: nothing in it
is fitted to these figures. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxdesign as jd
from bench.measure import anonymous_bytes, anonymous_peak, in_child, machine, timed
from bench.pools import heavy_tailed
from bench.streamed import streamed
from jaxdesign import _arrays
from jaxdesign.pricing.memory import MemorySource
from jaxdesign.solvers.column_generation.hot_start import START

REPEATS = 3


class Shape(NamedTuple):
    """A problem: P prompts of K completions in d dimensions, m labels, so many a pair at most."""

    prompts: int
    completions: int = 32
    dim: int = 64
    labels: int = 5000
    per_pair: float | None = None

    @property
    def pairs(self) -> int:
        return self.prompts * self.completions * (self.completions - 1) // 2


BASE = Shape(20_160)
GRID = {
    "P": [BASE._replace(prompts=p) for p in (202, 2_016, 20_160, 201_600)],  # 10^5 to 10^8 pairs
    "K": [BASE._replace(prompts=645_120 // k, completions=k) for k in (4, 8, 16, 32, 64, 128)],  # as many completions
    "d": [BASE._replace(dim=d) for d in (16, 32, 64, 128, 256)],
    "m": [BASE._replace(labels=m, per_pair=1.0) for m in (1_000, 3_000, 10_000, 30_000, 100_000)],
}
HOST = Shape(20_161_291, 2, 2)  # as many prompts as 10^10 pairs of 32 have, and next to nothing to compute
CUBED = 1024  # of the product that gives the machine's rate


class Fold(NamedTuple):
    """One pass over prompts, whole pool or some: which kernel, of how many, seconds."""

    kernel: str
    prompts: int
    seconds: float


def work(shape: Shape, kernel: str, prompts: int) -> float:
    """Floating-point operations of a fold: 2 P K d^2 of products with a d x d matrix, 2 P K^2 d of Gram matrices.

    Even information is the first alone, bounds and pricing are both; a survey has neither.
    """
    rows = 2.0 * prompts * shape.completions * shape.dim
    return {"information": rows * shape.dim, "survey": 0.0}.get(kernel, rows * (shape.dim + shape.completions))


def memory(shape: Shape, listed: int) -> float:
    """Bytes besides the features: two chunks of scratch, numbers of prompts and completions, pairs, d x d matrices.

    A chunk's scratch is its rows, their product and K x K numbers; a prompt has 8 numbers and its mean, a completion
    its index and whether it exists; a pair of the design a column of d and 16 numbers; 16 matrices d x d are held.
    """
    prompts, k, d = shape.prompts, shape.completions, shape.dim
    chunk = _arrays.chunk_length(prompts, k, d) * 4 * (2 * k * d + 4 * k * k)
    taken = 12 * d * min(START * d, prompts * k)
    return 2 * chunk + prompts * (8 * 8 + 4 * d + 5 * k) + listed * 8 * (d + 16) + 16 * 8 * d * d + taken


@contextmanager
def folds_recorded() -> Iterator[list[Fold]]:
    """Every fold of sources in memory inside of the block, waited for."""
    fold, found = MemorySource.fold, []

    def recorded(self: MemorySource, kernel: Any, *args: Any, **named: Any) -> Any:
        began = time.perf_counter()
        result = jax.block_until_ready(fold(self, kernel, *args, **named))
        found.append(Fold(_kind(kernel.func), self.prompts, time.perf_counter() - began))
        return result

    MemorySource.fold = recorded
    try:
        yield found
    finally:
        MemorySource.fold = fold


def _kind(function: Any) -> str:
    """Even information, a survey, or a pass that prices or bounds pairs."""
    name = function.__name__
    return "information" if "information" in name else "survey" if "survey" in name else "pass"


def measured(shape: Shape) -> dict[str, Any]:
    """One problem in this process: the second and later calls, each of a pool that has not been seen before."""
    features = heavy_tailed(shape.prompts, shape.completions, shape.dim)
    budget, calls, design, pool = jd.Budget(float(shape.labels), per_pair=shape.per_pair), [], None, None
    for call in range(REPEATS + 1):
        pool = None
        _let_go()
        pool = jax.block_until_ready(jd.CompletionPool(features))
        _let_go()
        with folds_recorded() as folds:
            before, began = anonymous_bytes(), time.perf_counter()
            design, peak = anonymous_peak(lambda pool=pool: jd.optimize(pool, jd.LogDet(), budget))
            spent = time.perf_counter() - began
        if call:
            calls.append((spent, sum(fold.seconds for fold in folds), peak - before))
    whole = [fold for fold in folds if fold.prompts == shape.prompts]
    seconds, in_folds, above = (statistics.median(column) for column in zip(*calls, strict=True))
    return {
        **shape._asdict(),
        "pairs": shape.pairs,
        "seconds": {"median": seconds, "min": min(c[0] for c in calls), "max": max(c[0] for c in calls)},
        "seconds_of_folds": in_folds,
        "bytes_above_the_pool": above,
        "bytes_modelled": memory(shape, len(design.pairs)),
        "sweeps": sum(fold.kernel != "survey" for fold in whole),
        "looked_at": sum(fold.prompts for fold in folds if fold.prompts < shape.prompts) / shape.prompts,
        "operations": sum(work(shape, fold.kernel, fold.prompts) for fold in folds),
        "passes": design.passes,
        "efficiency": design.certificate.efficiency,
        "support": len(design.pairs),
    }


def _let_go() -> None:
    """Gives back what earlier calls no longer need, so that a call that gets it again is seen to."""
    gc.collect()
    time.sleep(0.3)  # buffers are freed by threads of the runtime
    ctypes.CDLL(None).malloc_trim(0)


def rate() -> dict[str, Any]:
    """Operations a second of a float32 product, the machine's own."""
    square = jnp.asarray(np.random.default_rng(0).standard_normal((CUBED, CUBED)), jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    seconds = timed(lambda: product(square), 15)
    return {"cubed": CUBED, "seconds": seconds, "flops": 2.0 * CUBED**3 / seconds["median"]}


def child(shape: Shape) -> dict[str, Any]:
    """`measured` in a process of its own."""
    code = f"import json, bench.growth as g; print(json.dumps(g.measured(g.{shape!r})))"
    return json.loads(in_child(code))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--only", choices=[*GRID, "host", "file"], nargs="*", help="parts; default all")
    parser.add_argument("--file", type=Path, help="a pool made by bench.streamed, read from the disk")
    parser.add_argument("--json", metavar="FILE", help="write the results here as well; parts measured before are kept")
    chosen = parser.parse_args()
    parts = chosen.only or [*GRID, "host", *(["file"] if chosen.file else [])]
    kept = Path(chosen.json) if chosen.json else None
    results = json.loads(kept.read_text(encoding="utf-8")) if kept and kept.exists() else {}
    results |= {"machine": machine(), "rate": rate()}
    for part in parts:
        if part == "file":
            results["file"] = streamed(chosen.file, 0.01, None)
        elif part == "host":
            results["host"] = child(HOST)
        else:
            results[part] = [child(shape) for shape in GRID[part]]
        print(json.dumps({part: results[part]}, indent=1), flush=True)
        if kept:
            kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
