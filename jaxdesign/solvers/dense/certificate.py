"""Certificates on the device: what `certificates.separable` does for listed pairs, for dense allocations inside the
caller's jit.

A, F and the sensitivities of all pairs are computed in float64 from the stored features, the sensitivities with a bound
on their rounding error added; the linear oracle is bounded by its dual. What is counted is what
`certificates.separable` counts. In float32 the numbers are rounded to the safe side: they end where float32 does, at
values of 1e-38 and 1e38.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxdesign import _arrays
from jaxdesign._pairs import candidate_pairs
from jaxdesign.analysis import analysed, value_rounding
from jaxdesign.criteria.protocol import ConvexCriterion
from jaxdesign.design import Certificate
from jaxdesign.methods.room import oracle_bound, rescale
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.memory import MemorySource, memory_source
from jaxdesign.pricing.passes import chunk_sensitivities
from jaxdesign.solvers.dense.allocations import dense_information
from jaxdesign.solvers.dense.problem import DenseLimits, dense_room

MISSED = 1e-5  # share of the total beyond which what is missing does not fit under the caps


def finish(
    pool: CompletionPool, criterion: ConvexCriterion, limits: DenseLimits, prior: Float[Array, "r d d"], labels: Array
) -> tuple[Float[Array, "p k k"], Certificate[Array]]:
    """Symmetric allocation (P, K, K) that sums to the total over i < j, and its certificate, in the working dtype.

    Call inside `_arrays.float64()`. Where the caps cannot hold the total, A is singular or the value is out of
    the dtype's range: value inf, efficiency 0.
    """
    source, dtype = memory_source(pool, np.float64), _arrays.compute_dtype(pool.features.dtype)
    room = dense_room(source, limits)
    exact = rescale(labels, room)
    allocation = exact[: pool.num_prompts].astype(dtype)
    matrix = prior + dense_information(source, exact)
    value, anchor, G, factors = analysed(criterion, matrix)
    eps = float(jnp.finfo(jnp.float64).eps)
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(G, axis1=1, axis2=2), 0))
    terms = size[:, :, None] * size[:, None, :] * jnp.abs(prior)
    S = oracle_bound(upper_sensitivities(source, factors), room)
    linear = jnp.mean(jnp.sum(G * prior + (pool.dim + 10) * eps * terms, axis=(1, 2))) + S
    current = jnp.mean(jnp.sum(G * matrix, axis=(1, 2)))
    bound = criterion.lower_bound(anchor, linear * (1 + 64 * eps), current, pool.dim)
    bound = jnp.minimum(bound, value) - value_rounding(matrix, G)
    efficiency = jnp.clip(criterion.efficiency(value, bound, pool.dim), 0, 1)
    void = ~(jnp.abs(jnp.sum(exact) - room.total) <= MISSED * room.total)
    void |= ~(jnp.isfinite(value) & jnp.isfinite(factors).all() & (bound <= value))
    reach = jnp.finfo(dtype)  # beyond it, and below, the value is no number of that dtype
    void |= (jnp.abs(value) >= float(reach.max)) | ((value != 0) & (jnp.abs(value) < float(reach.tiny)))
    value, bound = jnp.where(void, jnp.inf, value), jnp.where(void, -jnp.inf, bound)
    efficiency = jnp.where(void, 0.0, efficiency)
    rounded = Certificate(
        _away(value, dtype, jnp.inf), _away(bound, dtype, -jnp.inf),
        _away(jnp.where(void, jnp.inf, value - bound), dtype, jnp.inf), _away(efficiency, dtype, -jnp.inf),
    )  # fmt: skip
    return allocation + jnp.swapaxes(allocation, 1, 2), rounded


def upper_sensitivities(source: MemorySource, factors: Float[Array, "r d d"]) -> Float[Array, "p k k"]:
    """b of candidate pairs plus the bound on its rounding error, 0 elsewhere."""
    return source.fold_slots(Partial(_upper_sensitivities, factors), None)[1]


def _upper_sensitivities(factors, chunk, carry, _):
    b, error = chunk_sensitivities(chunk, factors)
    return carry, jnp.where(candidate_pairs(chunk.copies), jnp.maximum(b, 0) + error[:, None, None], 0)


def _away(number: Float[Array, ""], dtype, side: float) -> Float[Array, ""]:
    """`number` in a dtype, rounded towards `side`, inf or -inf."""
    cast = number.astype(dtype)
    short = (cast.astype(number.dtype) - number) * np.sign(side) < 0
    return jnp.where(short, jnp.nextafter(cast, jnp.full_like(cast, side)), cast)
