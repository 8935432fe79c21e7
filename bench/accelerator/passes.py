"""A pass over the pool: how long a chunk should be, what the even allocation costs, what lower precision would win."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import jaxdesign as jd
from bench.accelerator.arrays import factor, heavy_tailed
from bench.accelerator.cases import Case
from bench.accelerator.clock import memory, timed_all
from jaxdesign import _arrays
from jaxdesign.door import make_problem
from jaxdesign.pricing.memory import MemorySource, memory_source
from jaxdesign.pricing.passes import pairs_information, price

NEVER = np.float32(np.inf)  # a level that no pair reaches


def cases(small: bool) -> list[Case]:
    """Every shape at every chunk length; the shapes have 65, 33, 33 and 15 million pairs."""
    shapes = [(64, 8, 16)] if small else [(131072, 32, 64), (65536, 32, 256), (16384, 64, 1024), (524288, 8, 64)]
    entries = [2**11] if small else [_arrays.CHUNK_ENTRIES["cpu"], 2**22, 2**24, 2**26]
    return [
        Case("pass", f"{P} x {K}, d = {d}, chunks of {size} entries", 15, partial(chunked, (P, K, d), size))
        for P, K, d in shapes
        for size in entries
    ]


def precision_cases(small: bool) -> list[Case]:
    """Lower precisions against the one in use; best where later cases have few programs in common with earlier ones."""
    shape = (64, 8, 16) if small else (65536, 32, 256)
    return [Case("precision", name, 25, partial(at_precision, shape, name)) for name in ("high", "default")]


def chunked(shape: tuple[int, int, int], entries: int) -> dict[str, Any]:
    """Seconds of pricing, of the even allocation's information, and of making the source, at one chunk length.

    The even information is taken in float64 as the package does, and as float32 products summed in float64, with the
    relative difference (Frobenius norm) between the two.
    """
    prompts, completions, dim = shape
    pairs = prompts * completions * (completions - 1) / 2
    F = factor(dim)
    with mock.patch.dict(_arrays.CHUNK_ENTRIES, {jax.default_backend(): entries}):
        pool = heavy_tailed(*shape)
        problem = make_problem(pool, jd.LogDet(), jd.Budget(5000))
        source = problem.source
        functions = {
            "price": lambda: price(source, F, NEVER),
            "even information": lambda: even_in_float64(source),
            "even information, float32 products": lambda: even_in_float32(source),
            "source": lambda: memory_source(pool),
        }
        found = timed_all(functions, 3)
        length = _arrays.chunk_length(*shape)
        even = np.asarray(even_in_float64(source))[0]
        difference = np.linalg.norm(np.asarray(even_in_float32(source)) - even) / np.linalg.norm(even)
    seconds = found["seconds"]["price"]["median"]
    flops = 2.0 * prompts * completions * dim * (dim + completions)
    return found | {
        "chunks": -(-prompts // length),
        "tflops": flops / seconds / 1e12,
        "pairs_per_second": pairs / seconds,
        "float32_even_information_off": difference,
        "memory_gib": memory(),
    }


def even_in_float64(source: MemorySource) -> jax.Array:
    """The same as the package takes it."""
    with _arrays.float64():
        return pairs_information(source)


def even_in_float32(source: MemorySource) -> jax.Array:
    """sum_e z z^T / 4 over all pairs of a pool without masks: chunks in float32, their sum in float64."""
    with _arrays.float64():
        return source.fold(Partial(_add_in_float32), jnp.zeros((source.dim, source.dim)))[0]


def _add_in_float32(chunk, total, _):
    part = _arrays.contract("pkd,pke->de", chunk.rows, chunk.rows)
    return total + chunk.rows.shape[1] / 4 * part.astype(jnp.float64), None


def at_precision(shape: tuple[int, int, int], name: str) -> dict[str, Any]:
    """Seconds of pricing at a lower precision and its error, against pricing at the precision in use.

    relative_error: the largest among the 1% of completions with the largest sensitivities, which decide;
    error_over_bound: the largest over the bound on rounding that a certificate rests on. Above 1 it would be false.
    """
    pool, F = heavy_tailed(*shape), factor(shape[-1])
    source = memory_source(pool)
    usual = price(source, F, NEVER)
    exact, bound = (np.asarray(a, np.float64) for a in (usual.best[..., 0], usual.error[:, None]))
    found: dict[str, Any] = {"usual": timed_all({"price": lambda: price(source, F, NEVER)}, 3)}
    with computing_at(name):
        found |= timed_all({"price": lambda: price(source, F, NEVER)}, 3)
        best = np.asarray(price(source, F, NEVER).best[..., 0], np.float64)
    top = exact >= np.quantile(exact, 0.99)
    return found | {
        "relative_error": np.max(np.abs(best[top] / exact[top] - 1)),
        "error_over_bound": np.max(np.abs(best - exact) / np.maximum(bound, np.finfo(np.float64).tiny)),
    }


@contextmanager
def computing_at(name: str) -> Iterator[None]:
    """The package's products at a precision of JAX's; it is a constant of programs, so they are all compiled anew."""
    try:
        with mock.patch.object(_arrays, "HIGHEST", jax.lax.Precision[name.upper()]):
            jax.clear_caches()
            yield
    finally:
        jax.clear_caches()
