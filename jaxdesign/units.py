"""Units: problems brought to columns of about unit size.

Changing the unit of a feature by a power of two changes no digit of any number, so a problem in other units is the same
problem: with T the diagonal matrix of the units, phi -> phi T, A -> T A T, H -> T H T. What changes is where float32
ends: squares of features above 2^63 or below 2^-63 leave it. Problems are therefore solved in units in which every
column has a spread of about 1 within prompts.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int

from jaxdesign import _arrays
from jaxdesign._centring import less_first
from jaxdesign.pool import CompletionPool, bare_pool, centred_features, kept, with_features
from jaxdesign.pricing.source import Source, Survey, as_survey, surveyed
from jaxdesign.residual import Residual

ORDINARY = 12  # exponents of columns up to which a pool is used as it is, without a copy of its features
EXTREME = {4: 126, 8: 1000}  # largest exponent a factor can have, by size of the dtype


def column_units(pool: CompletionPool) -> Int[np.ndarray, " d"]:
    """Exponents e of the units of the columns: features times 2^e have a root mean square within prompts of 1/2 to 1.

    All 0 where none is above ORDINARY in size: such a pool needs no other units. 0 for a column that is constant within
    every prompt. Kept with the pool.
    """
    return kept(pool, "units", lambda: _column_units(pool))


def _column_units(pool):
    farthest = np.asarray(farthest_rows(pool.features, pool.mask), np.float64)
    if _ordinary(farthest, pool.features.shape[0] * pool.completions):
        return np.zeros(pool.dim, np.int64)
    with _arrays.float64():
        arrays = _arrays.for_algebra((pool.features, pool.mask))
        largest, squares = (np.asarray(part) for part in _column_sizes(*arrays))
    return _exponents(largest, squares, _arrays.compute_dtype(pool.features.dtype))


class Look(NamedTuple):
    """What one pass over a source tells of it.

    Args:
        survey: what is there.
        farthest: (d,) the largest size of each column.
        residual: which variances of margins chunks bring, numbers of no meaning; None: none.
    """

    survey: Survey
    farthest: Float[np.ndarray, " d"]
    residual: Residual | None


def first_look(source: Source) -> Look:
    """Both in one pass: a source may have to be read from a disk."""
    start = jnp.zeros(source.dim, source.dtype)
    farthest, (found, residual) = source.fold(Partial(_looked), start, merge=jnp.maximum)
    return Look(as_survey(*found), np.asarray(farthest, np.float64), residual)


def _looked(chunk, farthest, _):
    spread = None if chunk.margins is None else chunk.margins.spread
    residual = jax.tree.map(lambda rows: rows[:, 0, 0], spread)
    return jnp.maximum(farthest, jnp.max(jnp.abs(chunk.rows), axis=(0, 1))), (surveyed(chunk), residual)


def source_units(source: Source, farthest: Float[np.ndarray, " d"]) -> Int[np.ndarray, " d"]:
    """`column_units` of a source from its `Look`, after another pass where a column may be of unusual size.

    Its rows must be finite in its working dtype.
    """
    if _ordinary(farthest, source.prompts * source.completions):
        return np.zeros(source.dim, np.int64)
    dtype = np.dtype(np.float64) if _arrays.algebra_device() is None else source.dtype
    with _arrays.scope(dtype == np.float64):
        start = np.zeros(source.dim, dtype), np.zeros((), dtype)
        safe = np.where(farthest > 0, farthest, 1).astype(dtype)
        squares, count = (np.asarray(part, np.float64) for part in source.fold(Partial(_add_squares, safe), start)[0])
    return _exponents(farthest, squares / count, source.dtype)


def _add_squares(unit, chunk, totals, _):
    squares, count = totals
    squares += jnp.sum((chunk.rows.astype(unit.dtype) / unit[None, None]) ** 2, axis=(0, 1))
    return (squares, count + jnp.sum(chunk.copies >= 0, dtype=count.dtype)), None


def _ordinary(farthest: Float[np.ndarray, " d"], rows: int) -> bool:
    """A root mean square is at most twice the farthest, and at least half of it over the root of the number of rows."""
    return bool((4 * farthest <= 2.0**ORDINARY).all() and (farthest >= 8 * rows**0.5 * 2.0**-ORDINARY).all())


def _exponents(largest, squares, dtype):
    """From the largest size of each column and its mean square in units of that."""
    some = largest > 0
    exponents = np.zeros(len(largest), np.int64)
    exponents[some] = -np.frexp(largest[some])[1] - np.round(np.log2(squares[some]) / 2).astype(np.int64)
    limit = EXTREME[np.dtype(dtype).itemsize]
    exponents = np.clip(exponents, -limit, limit)
    return exponents if (np.abs(exponents) > ORDINARY).any() else np.zeros_like(exponents)


@jax.jit
def farthest_rows(features, mask):
    """Largest distance in each column from the first row of a prompt: cheap, and tells that columns are ordinary."""

    def of_chunk(part):
        return jnp.max(jnp.abs(less_first(*part)), axis=(0, 1))

    return _arrays.max_chunks(of_chunk, (features, mask), _arrays.chunk_length(*features.shape))


@jax.jit
def _column_sizes(features, mask):
    """Largest size of each centred column, and its mean square in units of that, over existing completions."""
    length = _arrays.chunk_length(*features.shape)

    def centred(part):
        rows, exists = part
        return centred_features(bare_pool(rows, exists), jnp.float64)

    largest = _arrays.max_chunks(lambda part: jnp.max(jnp.abs(centred(part)), axis=(0, 1)), (features, mask), length)
    safe = jnp.where(largest > 0, largest, 1)
    squares = _arrays.sum_chunks(
        lambda part: jnp.sum((centred(part) / safe[None, None]) ** 2, axis=(0, 1)), (features, mask), length
    )
    return largest, squares / jnp.sum(mask, dtype=squares.dtype)


def in_units(pool: CompletionPool, exponents: Int[np.ndarray, " d"]) -> CompletionPool:
    """The pool with features times 2^e; the same pool where all e are 0. Digits do not change."""
    if not exponents.any():
        return pool
    dtype = _arrays.compute_dtype(pool.features.dtype)
    with _arrays.float64() if dtype == np.float64 else nullcontext():
        features = pool.features.astype(dtype) * np.ldexp(np.ones(1, dtype), exponents).astype(dtype)[None, None]
    return with_features(pool, features)


def rescaled(matrix: Float[np.ndarray, "*r d d"], exponents: Int[np.ndarray, " d"]) -> Float[np.ndarray, "*r d d"]:
    """T A T with T = diag(2^e), float64 on the host."""
    return np.ldexp(np.ldexp(np.asarray(matrix, np.float64), exponents[:, None]), exponents[None, :])
