"""The residual of a pool: a variance of margins that grows with the length of the pair, in units of the median pair."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._linalg import gram_sensitivities, unit_diagonal
from jaxdesign.belief import held_belief
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.adapted import AdaptedSource
from jaxdesign.pricing.annotated import pool_source
from jaxdesign.pricing.checked import checked
from jaxdesign.pricing.source import Source, open_pairs
from jaxdesign.pricing.widened import at_algebra
from jaxdesign.residual import Residual
from jaxdesign.targets import second_moment
from jaxdesign.units import column_units, first_look, in_units, rescaled, source_units

RTOL = 1e-10  # directions of less than this share of the largest eigenvalue, at a unit diagonal, are not counted
OUTSIDE = 1e-6  # share of the pool's differences, at a unit diagonal, that may lie where a target says nothing
DIGITS = ((20, 11), (10, 10), (0, 10))  # of the bits of a positive float32: lowest bit, number of bits


def residual_of(
    pool: CompletionPool | Source,
    variance: float | str,
    *,
    target: Float[_arrays.AnyArray, "d d"] | None = None,
    belief: Any = None,
) -> Residual:
    """Factors of a residual variance v l_e of margins, l_e = z_e^T H^-1 z_e over its median in the pool; or a cap.

    A pair of the median length then has residual variance v, longer ones more: with k^2 = 1 + pi v l_e / 8 a label has
    the information c = sigma'(m / k) / k^2, at m = 0 that is 1 / (4 + (pi / 2) v l_e). "cap": c min(1, 1 / l_e), by
    which no pair counts for more than one of the median length, for rewards that may be far from linear in the
    features. In one direction a longer pair never tells less: c l_e rises with l_e to 2 / (pi v), and with the cap it
    is 1/4 from the median on. Pass it on as `CompletionPool(..., residual=...)`, with one label a pair
    (`Budget(per_pair=1)`). What is certified is then the best allocation for these c: a surrogate, as good as v l_e
    describes what features miss.

    Args:
        pool: the pool, concrete, or a `pricing.Source`; closed pairs of a source do not count.
        variance: v >= 0, squared units of margins (`estimate_residual` says which), or "cap".
        target: H, (d, d), in units of the pool's features; None: the pool's own second moment.
        belief: what is believed of the parameter whose mean gives the scores, to average information over it as well: a
            `Belief`, what holds one, such as a posterior, or its covariance (d, d). The mean of information is what
            designs then hold, at no cost; scores of several draws average the criterion instead, and where the belief
            is wide other pairs are best for that (`preference.next_batch`).

    Returns:
        Residual of factors (d, r), float64 NumPy; without any for v = 0.

    Raises:
        TypeError: no pool. ValueError: a variance below 0 or not finite, another word than "cap", a target or belief of
            another shape or indefinite, a target that is singular where completions differ, only identical
            completions, or a few so far out that the median pair has no length beside theirs.

    Numerics: factors in float64, whatever the units of the features. The median is that of all pairs, the smallest
    length that half of them do not exceed, exact but for the rounding of lengths in the working dtype and to float32
    (about 1e-6).
    Complexity: one pass for units where the pool is a source, one for the second moment and three for the median,
    2 P K d r + 2 P K^2 r operations each.
    Source: derived; checked by tests/test_residual.py.
    """
    capped = isinstance(variance, str)
    if capped and variance != "cap":
        raise ValueError(f"variance={variance!r}: expected a number or 'cap'")
    v = 1.0 if capped else _checks.number(variance, "variance")
    if not (np.isfinite(v) and v >= 0):
        raise ValueError(f"variance={v:g}: must be finite and at least 0; it is that of a margin")
    pool = checked(pool)
    _checks.concrete("residual_of", pool)
    known = None if belief is None else _root(_checks.symmetric_psd(_covariance(belief), pool.dim, "belief"))
    H = None if target is None else _checks.symmetric_psd(target, pool.dim, "target")
    if v == 0:
        return Residual(belief=known)
    source, exponents = _in_units(pool)
    moment = np.asarray(second_moment(source), np.float64)
    factor = inverse_root(moment if H is None else rescaled(H, exponents), moment)
    median = median_length(source, factor)
    if median == 0:
        raise ValueError(
            "features: the median pair has no length beside the longest ones, 1e-19 of theirs or less; look at the "
            "completions with the largest features, and leave them out or shorten them (`clip_rows`)"
        )
    with np.errstate(over="ignore"):  # inf, which no pool takes
        factor = np.ldexp(np.sqrt(v) * factor / np.sqrt(median), exponents[:, None])
    return Residual(belief=known, cap=factor) if capped else Residual(factor, known)


def _covariance(belief):
    held = held_belief(belief)
    return belief if held is None else held.covariance


def _in_units(pool: CompletionPool | Source) -> tuple[Source, Int[np.ndarray, " d"]]:
    """The source with features times 2^e, whose squares float32 and float64 hold, and e."""
    if not isinstance(pool, CompletionPool):
        exponents = source_units(pool, first_look(pool).farthest)
        return AdaptedSource(pool, np.ldexp(1.0, exponents)), exponents
    held: CompletionPool = _arrays.in_one_place(pool)
    exponents = column_units(held)
    return pool_source(in_units(held, exponents)), exponents


def inverse_root(H: Float[np.ndarray, "d d"], moment: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d r"]:
    """F with z^T F F^T z = z^T H^+ z on the range of H, whatever the units of columns.

    With H = S R S, R of unit diagonal, F = S^-1 U Lambda^(-1/2) of the eigenvalues of R above RTOL of the largest.

    Raises:
        ValueError: H says nothing of directions in which completions differ, whose second `moment` is given.
    """
    if not np.diagonal(moment).any():
        raise ValueError("features: the completions of every prompt are identical, so no pair has a length")
    scaled, size = unit_diagonal(H)
    spectrum, vectors = np.linalg.eigh(scaled)
    kept = spectrum > RTOL * max(spectrum[-1], 0)
    # what of the pool lies outside of the range of R, in its units; a column that H lacks may not vary
    units = np.diagonal(moment)
    inside = vectors[:, kept]
    inverse = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0)
    ours = moment * inverse[:, None] * inverse[None, :]
    left = np.trace(ours) - np.sum(inside * (ours @ inside))
    missing = (size == 0) & (units > 0)
    if missing.any() or left > OUTSIDE * np.trace(ours):
        raise ValueError(
            "target: singular in directions in which completions differ, so those pairs have no length; add a ridge to "
            "it, or pass None for the pool's own second moment"
        )
    return inverse[:, None] * inside / np.sqrt(spectrum[kept])[None]


def _root(matrix):
    """F with F F^T = S."""
    scaled, size = unit_diagonal(matrix)
    spectrum, vectors = np.linalg.eigh(scaled)
    return size[:, None] * vectors * np.sqrt(np.maximum(spectrum, 0))[None]


def median_length(source: Source, factor: Float[np.ndarray, "d r"]) -> float:
    """The smallest |z F|^2 that at least half of the pairs of a source do not exceed, in float32; three passes.

    By the digits of the number: each pass counts the pairs that share those known so far by their next one.
    """
    source = at_algebra(source)
    least, rank = 0, None
    for shift, width in DIGITS:
        counts = _counts(source, factor, least, shift, width)
        rank = (counts.sum() + 1) // 2 if rank is None else rank
        digit = int(np.searchsorted(np.cumsum(counts), rank))
        rank -= int(counts[:digit].sum())
        least = (least << width) | digit
    return float(np.array(least, np.int32).view(np.float32))


def _counts(source, factor, known, shift, width):
    with _arrays.float64():
        kernel = Partial(_counted, factor, np.int32(known), np.int32(shift), np.int32(width))
        return np.asarray(source.fold(kernel, np.zeros(1 << 11, np.int64))[0])


def _counted(factor, known, shift, width, chunk, counts, _):
    rows = chunk.rows
    y = jnp.matmul(rows.reshape(-1, rows.shape[-1]), factor.astype(rows.dtype), precision=_arrays.HIGHEST)
    y = y.reshape(*rows.shape[:2], -1)
    lengths = jnp.maximum(gram_sensitivities(y, y), 0).astype(jnp.float32)
    bits = lax.bitcast_convert_type(lengths, jnp.int32)
    same = open_pairs(chunk) & ((bits >> (shift + width)) == known)
    digits = (bits >> shift) & ((1 << width) - 1)
    return counts.at[digits.reshape(-1)].add(same.reshape(-1).astype(counts.dtype)), None
