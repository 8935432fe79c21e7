"""Certificates on the device: what `certify` does for listed pairs, for dense allocations inside the caller's jit.

A, G and the sensitivities of all pairs are computed in float64 from the stored features, the sensitivities with a bound
on their rounding error added; the linear oracle is bounded by its dual. In float32 the numbers are rounded to the safe
side. So a certificate is never better than the truth.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign.budget import Limits
from jaxdesign.criteria import CriterionLike, LogDet, Trace
from jaxdesign.design import Certificate
from jaxdesign.pool import CompletionPool, candidate_pairs
from jaxdesign.pricing.memory import MemorySource, chunk_sensitivities, map_chunks, memory_source
from jaxdesign.solvers.dense import dense_information
from jaxdesign.solvers.dense_problem import dense_room
from jaxdesign.solvers.feasible import oracle_bound, rescale
from jaxdesign.worst_case import WorstCase

HELD = 1e-5  # a total missed by more than this share cannot be held by the caps


def finish(
    pool: CompletionPool, criterion: CriterionLike, limits: Limits, prior: Float[Array, "r d d"], labels: Array
) -> tuple[Float[Array, "p k k"], Certificate]:
    """Symmetric allocation (P, K, K) that sums to the total over i < j, and its certificate, in the working dtype.

    Call inside `_arrays.float64()`. Where the caps cannot hold the total or A is singular: value inf, efficiency 0.
    """
    source, dtype = memory_source(pool, np.float64), labels.dtype
    room = dense_room(source, limits)
    exact = rescale(labels.astype(jnp.float64), room)
    allocation = exact[: pool.num_prompts].astype(dtype)
    matrix = prior + dense_information(source, exact)
    G = criterion.gradient(matrix)
    factors = criterion.factors(matrix)
    value = criterion.value(matrix)
    S = oracle_bound(upper_sensitivities(source, factors), room)
    linear = jnp.mean(jnp.sum(G * prior, axis=(1, 2))) + S
    current = jnp.mean(jnp.sum(G * matrix, axis=(1, 2)))
    bound, efficiency = lower_bound(criterion, value, linear, current, pool.dim)
    void = ~(jnp.abs(jnp.sum(exact) - room.total) <= HELD * room.total)
    void |= ~(jnp.isfinite(value) & jnp.isfinite(factors).all() & (bound <= value))
    value, bound = jnp.where(void, jnp.inf, value), jnp.where(void, -jnp.inf, bound)
    efficiency = jnp.where(void, 0.0, efficiency)
    rounded = Certificate(
        _away(value, dtype, jnp.inf), _away(bound, dtype, -jnp.inf),
        _away(jnp.where(void, jnp.inf, value - bound), dtype, jnp.inf), _away(efficiency, dtype, -jnp.inf),
    )  # fmt: skip
    return allocation + jnp.swapaxes(allocation, 1, 2), rounded


def upper_sensitivities(source: MemorySource, factors: Float[Array, "r d d"]) -> Float[Array, "p k k"]:
    """b of candidate pairs plus the bound on its rounding error, 0 elsewhere."""

    def of_chunk(chunk, _):
        b, error = chunk_sensitivities(chunk, factors)
        return jnp.where(candidate_pairs(chunk.copies), jnp.maximum(b, 0) + error[:, None, None], 0)

    b = map_chunks(of_chunk, source)
    return b.reshape(-1, *b.shape[2:])


def lower_bound(criterion: CriterionLike, value: Array, linear: Array, current: Array, dim: int) -> tuple[Array, Array]:
    """Bound on the best value and efficiency; the formulas of `criteria`, traceable.

    A worst case has the bound of its mixture, whose value is `current` (see `worst_case`); any other criterion the
    linear bound, which convexity alone makes valid, and efficiency NaN.
    """
    if isinstance(criterion, LogDet):
        gap = dim * jnp.log(jnp.maximum(linear, dim) / dim)
        return value - gap, jnp.exp(-gap / dim)
    if isinstance(criterion, Trace):
        share = jnp.where(value > 0, value / jnp.maximum(jnp.maximum(linear, value), 1e-300), 1.0)
        return value * share, share
    if isinstance(criterion, WorstCase):
        bound = jnp.where(current > 0, current**2 / jnp.maximum(jnp.maximum(linear, current), 1e-300), 0.0)
        return bound, jnp.where(value > 0, bound / jnp.maximum(value, 1e-300), 1.0)
    return value - jnp.maximum(linear - current, 0.0), jnp.full_like(value, jnp.nan)


def _away(number: Float[Array, ""], dtype, side: float) -> Float[Array, ""]:
    """`number` in a dtype, rounded towards `side`, inf or -inf."""
    cast = number.astype(dtype)
    short = (cast.astype(number.dtype) - number) * np.sign(side) < 0
    return jnp.where(short, jnp.nextafter(cast, jnp.full_like(cast, side)), cast)
