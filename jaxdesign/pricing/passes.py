"""Passes over all pairs of a source: scratch memory is bounded whatever P is.

With F F^T = G, a chunk's rows are multiplied by F once and the sensitivities of its pairs read off their Gram matrix:
b_ij = c_ij |y_i - y_j|^2, y = phi F. The factored form keeps b >= 0 up to rounding and squares away half of the
condition number of G. A pass keeps, per completion, its two best partners, and one bit per pair: whether its
sensitivity may reach a given threshold.

Units. Sums of squares leave float32 where features, G or labels are in extreme units. Factors are therefore divided by
a power of two (`in_pricing_units`), which changes no digit, and what a pass returns is in units of its square.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxdesign import _arrays
from jaxdesign._arrays import AnyArray
from jaxdesign._linalg import gram_sensitivities
from jaxdesign._pairs import candidate_pairs, pair_keys
from jaxdesign.information import laplacian_information, prompt_forms, prompt_label_information
from jaxdesign.pricing.rows_on_host import rows_on_host
from jaxdesign.pricing.source import Chunk, Foldable, Source, open_pairs
from jaxdesign.pricing.widened import at_algebra
from jaxdesign.residual import shrinkage_error

# Rounding error of a priced sensitivity over the bound of `rounding_error`: measured at most 0.7 / ERROR_MARGIN over
# random pools of condition number 1 to 1e10, d = 3 to 128; the certificate relies on it being at most 1.
ERROR_MARGIN = 2.0


class Charges(NamedTuple):
    """What is taken from sensitivities: `of` both completions of a pair."""

    of: Float[_arrays.AnyArray, "p k"]
    listed: Float[_arrays.AnyArray, " p"]


class PassResult(NamedTuple):
    """What one pass says of every prompt; all device arrays.

    Args:
        best: (p, K, 2) the two largest sensitivities of each completion; where there is none -1, net of charges -inf.
        partner: (p, K, 2) the completions they are reached with.
        highest: (p,) the largest of `best`.
        error: (p,) bound on the rounding error of the prompt's sensitivities; inf where one is not finite.
        reaches: (p, K, bytes) bit j of row i: pair (i, j), i < j, may reach the threshold.
        reaching: (p,) how many do.
        unit: of `best` and `error`, a power of two; None for 1.
    """

    best: Float[Array, "p k 2"]
    partner: Int[Array, "p k 2"]
    highest: Float[Array, " p"]
    error: Float[Array, " p"]
    reaches: UInt8[Array, "p k b"]
    reaching: Int[Array, " p"]
    unit: float | None = None

    @property
    def scale(self) -> float:
        """The unit as a number."""
        return 1.0 if self.unit is None else self.unit


@runtime_checkable
class BestPartners(Protocol):
    """For every completion the best pairs it is part of, as a `PassResult` and a search for swaps have them."""

    @property
    def best(self) -> Float[Array, "p k n"]: ...

    @property
    def partner(self) -> Int[Array, "p k n"]: ...

    @property
    def highest(self) -> Float[Array, " p"]: ...


def chunk_sensitivities(
    chunk: Chunk, factors: Float[Array, "r d d"]
) -> tuple[Float[Array, "c k k"], Float[Array, " c"]]:
    """b of all pairs of some prompts, averaged over draws, and a bound on its rounding error per prompt."""
    rows, margins = chunk.rows, chunk.margins
    flat = rows.reshape(-1, rows.shape[-1])
    products = [jnp.matmul(flat, factor, precision=_arrays.HIGHEST).reshape(rows.shape) for factor in factors]
    total, error = jnp.zeros((), rows.dtype), jnp.zeros((), rows.dtype)
    slack = None if margins is None else shrinkage_error(margins.spread, rows.dtype)
    for b, y, factor in zip(prompt_forms([(y, y) for y in products], margins), products, factors, strict=True):
        total += b
        error += with_slack(rounding_error(flat, y, factor), slack, gram_sensitivities, y, chunk.copies)
    if margins is not None:
        error *= largest_share(margins.flip, chunk.copies).astype(rows.dtype)
    return total / len(factors), error / len(factors)


def with_slack(
    error: Float[Array, " c"], slack: Float[Array, "c k k"] | None, gram: Callable, y: Float[Array, "c k q"], copies
) -> Float[Array, " c"]:
    """The error of c g, g = |y_i - y_j|^2, where c itself is off by at most `slack` (`residual.shrinkage_error`).

    |c' g' - c g| <= c |g' - g| + g' |c' - c|, and g is off by four times what c <= 1/4 makes of it at most.
    """
    if slack is None:
        return error
    moved = jnp.where(candidate_pairs(copies), jnp.maximum(gram(y, y), 0) * slack, 0)
    return error * (1 + 4 * jnp.max(slack, axis=(1, 2))) + jnp.max(moved, axis=(1, 2))


def largest_share(flip, copies) -> Float[Array, " c"]:
    """(1 - 2 eps)^2 of the least noisy pair of each prompt: c is at most a quarter of that, its error too."""
    share = (1 - 2 * flip) ** 2
    if share.shape[-1] == 1:
        return share[:, 0, 0]
    return jnp.max(jnp.where(candidate_pairs(copies), share, 0), axis=(1, 2))


def rounding_error(
    flat: Float[Array, "n d"], y: Float[Array, "c k d"], factor: Float[Array, "d q"]
) -> Float[Array, " c"]:
    """Bound on the rounding error of c |y_i - y_j|^2, c <= 1/4, per prompt: the only place that says why it holds.

    Exact values are meant for the stored features and scores and the float64 factors F, which are cast to the working
    dtype, unit roundoff u = eps / 2. Rounding leaves in y_i = phi_i F an error of at most (d + 2) u |phi_i| |F| by
    components, and, as roundings are independent, hardly ever more than 4 u sqrt(d + 16) s_i in length, with s_i^2 =
    sum_k phi_ik^2 G_kk (Higham and Mary 2019, doi 10.1137/18M1226312): more than eps |y_i| where the terms of phi F
    cancel (badly conditioned features). So |y_i - y_j|^2 is off by a multiple of |y| s, the Gram form adds eps |y|^2,
    and c, from margins that are differences of stored scores and have a relative error of u each, |u| sigma'(u) < 1/4
    times that: less than what the Gram form adds. The constant is measured, see ERROR_MARGIN; the last term is for
    what float32 flushes to zero. What residuals make c be off by comes on top, see `with_slack`.
    """
    dim = flat.shape[-1]
    diagonal = jnp.sum(factor * factor, axis=-1)[None]
    spread = jnp.max(jnp.sum(flat * flat * diagonal, axis=-1).reshape(y.shape[:-1]), axis=-1)
    largest = jnp.max(jnp.sum(y * y, axis=-1), axis=-1)
    eps = float(jnp.finfo(y.dtype).eps)
    first = ERROR_MARGIN * eps * (dim + 16) ** 0.5 * jnp.sqrt(largest) * jnp.sqrt(jnp.maximum(spread, largest))
    return first + (dim + 16) * 2.0**-52 * spread + (dim + 16) * float(jnp.finfo(y.dtype).tiny)


def in_pricing_units(factors: Float[np.ndarray, "r d q"], dtype: Any) -> tuple[Float[np.ndarray, "r d q"], float]:
    """Factors divided by the power of two next to their largest entry, in a working dtype; and its square, the unit."""
    largest = float(np.max(np.abs(factors), initial=0.0))
    if not (np.isfinite(largest) and largest > 0):
        return factors.astype(dtype), 1.0
    exponent = int(np.clip(np.frexp(largest)[1], -500, 500))  # so that the square is a float64
    return np.ldexp(factors, -exponent).astype(dtype), float(np.ldexp(1.0, 2 * exponent))


def all_finite(b, error, upper):
    """Not by maxima, which drop NaN on CPUs."""
    return jnp.isfinite(error) & jnp.all(jnp.isfinite(b) | ~upper, axis=(1, 2))


def price(
    source: Foldable,
    factors: Float[AnyArray, "r d d"],
    threshold: Float[AnyArray, ""] | np.floating,
    ranks: Float[AnyArray, " p"] | None = None,
    charges: Charges | None = None,
) -> PassResult:
    """One pass over b = c |z F|^2 of all pairs: the best of every completion, and which may reach a threshold.

    Args:
        source: the pool.
        factors: F with F F^T = G, one per draw, in the working dtype and in its units (`in_pricing_units`).
        threshold: pairs whose sensitivity could be at least this, given the rounding error, have their bit set.
        ranks: with quotas per prompt, only pairs that could be among the `ranks[p]` best of their prompt get a bit;
            None: no such limit.
        charges: what is taken from every sensitivity, and how many of its best pairs each prompt has listed whatever
            the threshold. Sensitivities, threshold and results are then net of charges. None: nothing.

    Returns:
        PassResult, in units of the factors.

    Raises: nothing; traceable.

    Numerics: the working dtype, with a bound on the rounding error of every prompt.
    Complexity: 2 P K d^2 + 2 P K^2 d floating-point operations for each draw; results of 1/8 byte per pair slot.
    Source: derived; checked by tests/pricing/test_pricing.py.
    """
    return source.fold(Partial(_priced, factors, threshold), None, (ranks, charges))[1]


def _priced(factors, threshold, chunk, carry, limits):
    rank, charge = limits
    none = -1 if charge is None else -jnp.inf
    b, error = chunk_sensitivities(chunk, factors)
    upper = open_pairs(chunk)
    finite = all_finite(b, error, upper)
    b, error = jnp.where(finite[:, None, None], b, 0), jnp.where(finite, error, jnp.inf)
    if charge is not None:
        error += 2 * float(jnp.finfo(b.dtype).eps) * (jnp.max(b, axis=(1, 2)) + 4 * jnp.max(abs(charge.of), axis=1))
        b -= charge.of[:, :, None] + charge.of[:, None, :]
    b_all = jnp.where(upper | jnp.swapaxes(upper, 1, 2), b, none)
    best, partner = _two_best(b_all, none)
    slack = 2 * float(jnp.finfo(b.dtype).eps) * jnp.where(jnp.isfinite(threshold), abs(threshold), 0)
    level = jnp.broadcast_to(threshold - error - slack, error.shape)  # rounding of the comparison itself
    if rank is not None:
        level = jnp.maximum(level, _ranked_level(upper, b, rank) - 2 * error)
    if charge is not None:
        always = jnp.where(charge.listed > 0, _ranked_level(upper, b, charge.listed) - 2 * error, jnp.inf)
        level = jnp.minimum(level, always)
    reaches = upper & ((b >= level[:, None, None]) | ~finite[:, None, None])
    reaching = jnp.sum(reaches, axis=(1, 2), dtype=jnp.int32)
    highest = jnp.max(best[..., 0], axis=1)
    return carry, PassResult(best, partner, highest, error, jnp.packbits(reaches, axis=-1), reaching)


def _two_best(b: Float[Array, "c k k"], none: float) -> tuple[Float[Array, "c k 2"], Int[Array, "c k 2"]]:
    """Two largest entries of each row and where they are; ties go to the smaller index. Faster here than `top_k`."""
    index = jnp.arange(b.shape[-1], dtype=jnp.int32)
    values, places = [], []
    for _ in range(2):
        value = jnp.max(b, axis=-1)
        place = jnp.min(jnp.where(b == value[..., None], index, b.shape[-1] - 1), axis=-1)
        values.append(value)
        places.append(place)
        b = jnp.where(index[None, None] == place[..., None], none, b)
    return jnp.stack(values, axis=-1), jnp.stack(places, axis=-1)


def _ranked_level(
    upper: Bool[Array, "c k k"], b: Float[Array, "c k k"], rank: Float[Array, " c"]
) -> Float[Array, " c"]:
    """A level just below the rank-th largest entry of each prompt, by bisection; below all where it has fewer."""
    high = jnp.max(jnp.where(upper, b, -jnp.inf), axis=(1, 2))
    low = jnp.min(jnp.where(upper, b, jnp.inf), axis=(1, 2)) - 1
    low, high = jnp.where(jnp.isfinite(low), low, -1), jnp.where(jnp.isfinite(high), high, -1)
    b = jnp.where(upper, b, -jnp.inf)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        enough = jnp.sum(b >= middle[:, None, None], axis=(1, 2)).astype(rank.dtype) >= rank
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    return jax.lax.fori_loop(0, 32, halve, (low, high))[0]


def reaching_pairs(result: PassResult, completions: int) -> Int[np.ndarray, "s 3"]:
    """The pairs whose bit is set, on the host, ordered by (prompt, i, j)."""
    prompts = np.flatnonzero(np.asarray(result.reaching))  # almost all have none
    packed = rows_on_host(result.reaches, prompts)
    held = np.flatnonzero(packed.reshape(-1) != 0)  # bytes, of which few are set
    byte, bit = np.nonzero(np.unpackbits(packed.reshape(-1)[held, None], axis=-1))
    row, within = np.divmod(held[byte], packed.shape[-1])
    place, i = np.divmod(row, completions)
    return np.stack([prompts[place], i, 8 * within + bit], axis=1).astype(np.int32)


def best_pairs(
    result: BestPartners, above: float, limit: int, unit: float = 1.0
) -> tuple[Int[np.ndarray, "s 3"], Float[np.ndarray, " s"]]:
    """At most `limit` pairs with sensitivity above a level, from the two best partners of every completion.

    `unit` is that of the result; the level and what is returned have none.

    Largest first, ties by (prompt, i, j). Two partners per completion keep the list diverse: the best pairs of a pool
    are often many near-copies around one extreme completion.
    """
    prompts = np.flatnonzero(np.asarray(result.highest) > above / unit)
    best, partner = (rows_on_host(array, prompts) for array in (result.best, result.partner))
    completions, ranks = best.shape[1:]
    found = np.flatnonzero(best.reshape(-1) > above / unit)
    values = best.reshape(-1)[found]
    if len(values) > 4 * limit:  # every pair is listed at most twice
        keep = np.sort(np.argpartition(-values, 2 * limit)[: 2 * limit])
        found, values = found[keep], values[keep]
    place, i = np.divmod(found // ranks, completions)
    j = partner.reshape(-1)[found]
    pairs = np.stack([prompts[place], np.minimum(i, j), np.maximum(i, j)], axis=1).astype(np.int32)
    first = np.unique(pair_keys(pairs, completions), return_index=True)[1]
    pairs, values = pairs[first], values[first]
    order = np.argsort(-values, kind="stable")[:limit]
    return pairs[order], values[order].astype(np.float64) * unit


def pairs_information(source: Source) -> Float[Array, "r d d"]:
    """sum_e c_e z_e z_e^T over all pairs that may be used, per draw; traceable, inside `_arrays.float64()`."""
    start = np.zeros((source.draws, source.dim, source.dim))  # of NumPy: nothing to compile
    return source.fold(Partial(_add_information), start)[0]


def all_information(source: Source) -> Float[np.ndarray, "r d d"]:
    """`pairs_information` on the host, wherever float64 is computed."""
    source = at_algebra(source)
    with _arrays.float64():
        return np.asarray(pairs_information(source))


def _add_information(chunk, total, _):
    rows = chunk.rows.astype(jnp.float64)
    info = prompt_label_information(chunk.margins, rows.dtype)
    if chunk.closed is None and info.shape[2:] in ((), (1, 1)):  # one c for all pairs of a prompt
        # copies have z = 0, so all pairs count: sum_{i<j} z z^T = K sum_i phi phi^T, phi centred
        count = jnp.sum(chunk.copies >= 0, axis=1, dtype=jnp.float64)[:, None, None]
        weight = count * (info if info.ndim == 0 else info[0])
        rows, weighted = (a.reshape(-1, rows.shape[-1]) for a in (rows, weight * rows))  # one flat product
        return total + jnp.matmul(weighted.T, rows, precision=_arrays.HIGHEST)[None], None
    return total + labelled_information(chunk._replace(rows=rows), open_pairs(chunk).astype(jnp.float64)), None


def labelled_information(chunk: Chunk, labels: Float[Array, "c k k"]) -> Float[Array, "r d d"]:
    """sum_e n_e c_e z_e z_e^T over the pairs i < j of some prompts, per draw, in the dtype of the rows."""
    symmetric = (labels + jnp.swapaxes(labels, 1, 2))[None]
    return laplacian_information(chunk.rows, symmetric, prompt_label_information(chunk.margins, chunk.rows.dtype))
