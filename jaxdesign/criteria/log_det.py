"""LogDet: D-optimality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdesign._linalg import cholesky_and_inverse, inverse, sandwich
from jaxdesign.criteria.anchors import sum_rounding


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogDet:
    """D-optimality: minimise -log det A.  G = A^-1.

    Bound (Kiefer-Wolfowitz with prior and caps; derived from concavity of det^(1/d), checked by the tests against
    cvxpy): (det A / det A*)^(1/d) >= d / (t + S), so the log-det gap is at most d log((t + S) / d).
    """

    def value(self, information):
        factor, _ = cholesky_and_inverse(jnp.asarray(information))
        return -2 * jnp.mean(jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1))

    def gradient(self, information):
        return inverse(jnp.asarray(information))

    def factors(self, information):
        return jnp.swapaxes(cholesky_and_inverse(jnp.asarray(information))[1], -1, -2)

    def anchor(self, information, factors):
        """log det F F^T, averaged over draws, less a bound on its rounding; F is triangular."""
        logs = jnp.log(jnp.abs(jnp.diagonal(factors, axis1=-2, axis2=-1)))
        return 2 * jnp.mean(jnp.sum(logs, axis=-1)) - sum_rounding(2 * logs + 1, factors.shape[-1])

    def in_basis(self, basis, unit):
        """See `in_basis`: the same criterion, up to a constant."""
        return self

    def curvature(self, information):
        inv = inverse(information)
        return lambda change: sandwich(inv, change, inv)

    def lower_bound(self, value, linear, current, dim):
        return value - dim * np.log(max(linear, dim) / dim)

    def efficiency(self, value, lower_bound, dim):
        return np.exp(-(value - lower_bound) / dim)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogDetInUnits(LogDet):
    """LogDet of features in units of one's own, as it is in other units: -log det A + offset."""

    offset: Any

    def value(self, information):
        return super().value(information) + self.offset

    def anchor(self, information, factors):
        return super().anchor(information, factors) + self.offset - sum_rounding(self.offset, 1)

    def in_basis(self, basis, unit):
        return LogDet()
