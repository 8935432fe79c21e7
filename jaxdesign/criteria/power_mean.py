"""The weighted power mean of a few traces tr(H_t A^-1): smooth, and below their maximum.

The mean M = (sum_t v_t f_t^p)^(1/p), sum v = 1, is below the maximum. It is a norm of nonnegative convex functions,
hence convex; decreasing in A; of degree -1; and the largest of the tr(H_u A^-1) over the u >= 0 of the dual unit ball,
so that 1/M, as the least of concave functions, is concave. That is all the bound of Trace rests on: M^2 / (t + S) is
below the best M, hence below the best worst case. G = A^-1 (sum_t u_t H_t) A^-1 with u_t = v_t (f_t / M)^(p-1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign._arrays import AnyArray, contract
from jaxdesign._linalg import cholesky_and_inverse, gradient_factors, inverse, inverse_from, sandwich
from jaxdesign.criteria.protocol import ConvexCriterion
from jaxdesign.criteria.trace import trace_anchor, trace_value_and_factors

POWER = 64.0  # where none is given
BELOW = 1 - 1e-12  # what a weight in a bound is lowered by, so that its rounding does no harm


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PowerMean(ConvexCriterion):
    """M = (sum_t v_t f_t^p)^(1/p) with f_t = tr(H_t A^-1) averaged over draws; see the module's text."""

    degree: ClassVar = -1
    infinite_where_singular: ClassVar = True
    decreasing: ClassVar = True

    H: Float[AnyArray, "t d d"]
    weights: Float[AnyArray, " t"]  # v, summing to 1
    power: Float[AnyArray, ""] | np.floating  # p, at least 1

    @property
    def multiplicative_power(self):
        """None, as for the worst case."""
        return None

    def _at(self, inv):
        """f_t, M and the weights u_t of the targets in G."""
        f = traces(self.H, inv)
        largest = jnp.maximum(jnp.max(f), jnp.finfo(f.dtype).tiny)
        share = f / largest
        mean = jnp.sum(self.weights * share**self.power) ** (1 / self.power)
        mean = jnp.maximum(mean, jnp.finfo(f.dtype).tiny)
        return f, largest * mean, (share / mean) ** (self.power - 1) * self.weights

    def value(self, information):
        return self._at(inverse(jnp.asarray(information)))[1]

    def mixture(self, information: Float[AnyArray, "*r d d"]) -> Float[Array, " t"]:
        """Weights of the targets in G, scaled to sum to 1."""
        weights = self._at(inverse(jnp.asarray(information)))[2]
        return weights / jnp.sum(weights)

    def gradient(self, information):
        inv = inverse(jnp.asarray(information))
        return sandwich(inv, mixed(self.H, self._at(inv)[2], inv.dtype), inv)

    def factors(self, information):
        return self.value_and_factors(information)[1]

    def value_and_factors(self, information):
        _, inverse_factor = cholesky_and_inverse(jnp.asarray(information))
        inv = inverse_from(inverse_factor)
        _, mean, weights = self._at(inv)
        _, factors = trace_value_and_factors(inverse_factor, self._root(weights, inv.dtype))
        return mean, factors

    def _root(self, weights, dtype):
        return gradient_factors(mixed(self.H, weights, dtype))

    def anchor(self, information, factors):
        """That of the Trace criterion with H = sum_t u_t H_t, less the rounding of u."""
        inv = inverse(jnp.asarray(information))
        return trace_anchor(information, factors, self._root(self._at(inv)[2], inv.dtype)) * BELOW

    def in_basis(self, basis, unit=1.0):
        return PowerMean(congruent(basis, self.H, unit), self.weights, self.power)

    def curvature(self, information):
        inv = inverse(jnp.asarray(information))
        f, mean, weights = self._at(inv)
        target = mixed(self.H, weights, inv.dtype)

        def apply(change):
            moved = sandwich(inv, change, inv)
            fall = traces(self.H, moved)  # -df
            tilt = weights * (self.power - 1) * (fall / jnp.where(f > 0, f, 1) - jnp.sum(weights * fall) / mean)
            half = sandwich(moved, target, inv)
            return half + jnp.swapaxes(half, -1, -2) + sandwich(inv, mixed(self.H, tilt, inv.dtype), inv)

        return apply


def traces(H, inv) -> Float[Array, " t"]:
    """tr(H_t X), averaged over draws; X is symmetric."""
    traces = contract("tij,...ij->t...", jnp.asarray(H, inv.dtype), inv)
    return traces if traces.ndim == 1 else jnp.mean(traces, axis=1)


def mixed(H, weights, dtype) -> Float[Array, "d d"]:
    return contract("t,tij->ij", jnp.asarray(weights, dtype), jnp.asarray(H, dtype))


def congruent(basis, H, unit) -> Float[Array, "t d d"]:
    """B^T H_t B / unit, symmetric to the last bit."""
    H = contract("ij,tik,kl->tjl", basis, jnp.asarray(H, basis.dtype), basis) / unit
    return (H + jnp.swapaxes(H, -1, -2)) / 2
