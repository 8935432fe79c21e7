"""Exact line search over information matrices, traceable and the same for every criterion."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxdesign._linalg import cholesky_and_inverse
from jaxdesign.criteria.protocol import CriterionLike

STEPS = 40  # evaluations at most; Newton needs about six
FLAT = 1e-6  # of the first slope: where the search is over


def exact_step(
    criterion: CriterionLike, matrix: Float[Array, "r d d"], direction: Float[Array, "r d d"], longest: Float[Array, ""]
) -> Float[Array, ""]:
    """t in [0, longest] at which criterion(A + t D) is smallest; 0 where D does not descend.

    Newton's method on the slope phi'(t) = -tr(G(A + t D) D), which grows with t because phi is convex; a bracket keeps
    it safe; where A + t D is not positive definite the slope is NaN and counts as too far. phi'' = tr(K(D) D) with
    K = `curvature`. A prior that is part of A and absent from D is never scaled.
    """

    def slope(t):
        moved = matrix + t * direction
        first = -jnp.mean(jnp.sum(criterion.gradient(moved) * direction, axis=(1, 2)))
        second = jnp.mean(jnp.sum(criterion.curvature(moved)(direction) * direction, axis=(1, 2)))
        definite = jnp.isfinite(cholesky_and_inverse(moved)[0]).all()  # a user's criterion may be finite beyond
        return jnp.where(definite, first, jnp.nan), second

    zero = jnp.zeros_like(longest)
    start, _ = slope(zero)
    whole = slope(longest)[0] <= 0  # False for NaN

    def unfinished(state):
        _, low, high, done, steps = state
        return ~done & (steps < STEPS) & (high - low > 1e-15 * longest)

    def refine(state):
        t, low, high, _, steps = state
        first, second = slope(t)
        too_far = ~(first <= 0)
        low, high = jnp.where(too_far, low, t), jnp.where(too_far, t, high)
        newton = t - first / second
        inside = (newton > low) & (newton < high)  # False for NaN
        done = jnp.abs(first) <= FLAT * jnp.abs(start)
        return jnp.where(done, t, jnp.where(inside, newton, (low + high) / 2)), low, high, done, steps + 1

    settled = whole | ~(start < 0)
    t = lax.while_loop(unfinished, refine, (zero, zero, longest, settled, jnp.zeros((), jnp.int32)))[0]
    return jnp.where(whole, longest, jnp.where(start < 0, t, zero))
