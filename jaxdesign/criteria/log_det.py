"""LogDet: D-optimality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdesign._linalg import cholesky_and_inverse, inverse, sandwich
from jaxdesign.criteria.anchors import sum_rounding
from jaxdesign.criteria.protocol import ConvexCriterion, Gains


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogDet(ConvexCriterion):
    """D-optimality: minimise -log det A.  G = A^-1.

    Bound, from concavity of det^(1/d): (det A / det A*)^(1/d) >= d / (t + S), so the log-det gap is at most
    d log((t + S) / d).

    Source: Kiefer and Wolfowitz 1960, doi:10.4153/CJM-1960-030-4; with prior and caps derived; checked by
    tests/criteria/test_criteria.py and against cvxpy by tests/test_reference.py.
    """

    degree: ClassVar = 0
    gains: ClassVar = Gains.LOG_DET
    infinite_where_singular: ClassVar = True
    decreasing: ClassVar = True

    def value(self, information):
        return self.value_and_factors(information)[0]

    def gradient(self, information):
        return inverse(jnp.asarray(information))

    def factors(self, information):
        return self.value_and_factors(information)[1]

    def value_and_factors(self, information):
        factor, inverse_factor = cholesky_and_inverse(jnp.asarray(information))
        logs = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1))
        return -2 * jnp.mean(jnp.sum(logs, axis=-1)), jnp.swapaxes(inverse_factor, -1, -2)

    def anchor(self, information, factors):
        """log det F F^T, averaged over draws, less a bound on its rounding; F is triangular."""
        logs = jnp.log(jnp.abs(jnp.diagonal(factors, axis1=-2, axis2=-1)))
        return 2 * jnp.mean(jnp.sum(logs, axis=-1)) - sum_rounding(2 * logs + 1, factors.shape[-1])

    def in_basis(self, basis, unit=1.0):
        """The same criterion, up to a constant."""
        return LogDet()

    def in_units(self, exponents):
        return LogDetInUnits(np.float64(2 * np.log(2.0) * np.sum(exponents))) if np.any(exponents) else self

    def curvature(self, information):
        inv = inverse(information)
        return lambda change: sandwich(inv, change, inv)

    def expression(self, cvxpy, information):
        return -cvxpy.log_det(information), []


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LogDetInUnits(LogDet):
    """LogDet of features in units of one's own, as it is in other units: -log det A + offset."""

    offset: Any

    def __eq__(self, other: object) -> bool:
        return self is other  # that of LogDet compares no offsets

    __hash__ = object.__hash__

    def value_and_factors(self, information):
        value, factors = super().value_and_factors(information)
        return value + self.offset, factors

    def anchor(self, information, factors):
        return super().anchor(information, factors) + self.offset - sum_rounding(self.offset, 1)
