"""Criteria in another basis, and in other units of the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign._arrays import HIGHEST, float64
from jaxdesign._linalg import sandwich
from jaxdesign.criteria.log_det import LogDet, LogDetInUnits


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InBasis:
    """Any criterion in another basis and divided by `unit`: at A' = B^T A B it is that of A, G' = B^-1 G B^-T."""

    criterion: Any
    back: Float[Array, "d d"]  # B^-T: A = B^-T A' B^-1
    unit: Float[Array, ""]

    def _given(self, information):
        return sandwich(self.back, information, self.back.T)

    def value(self, information):
        return self.criterion.value(self._given(information)) / self.unit

    def gradient(self, information):
        return sandwich(self.back.T, self.criterion.gradient(self._given(information)), self.back) / self.unit

    def factors(self, information):
        factors = self.criterion.factors(self._given(information))
        return jnp.matmul(self.back.T, factors, precision=HIGHEST) / self.unit**0.5

    def curvature(self, information):
        given = self.criterion.curvature(self._given(information))
        return lambda change: sandwich(self.back.T, given(self._given(change)), self.back) / self.unit

    def lower_bound(self, value, linear, current, dim):
        return self.criterion.lower_bound(value, linear, current, dim)

    def efficiency(self, value, lower_bound, dim):
        return self.criterion.efficiency(value, lower_bound, dim)


def in_basis(criterion: Any, basis: Float[np.ndarray, "d d"], unit: float = 1.0) -> Any:
    """The criterion, over `unit` and up to a constant, of features phi B: A' = B^T A B, H' = B^T H B.

    A criterion class may have a method `in_basis(basis, unit)` of its own; others are wrapped. float64.
    """
    if hasattr(criterion, "in_basis"):
        return criterion.in_basis(basis, unit)
    return InBasis(criterion, jnp.linalg.inv(basis).T, jnp.asarray(unit, basis.dtype))


def in_units(criterion: Any, exponents: Any) -> Any:
    """The criterion, with the same values, of features times 2^e."""
    if not np.any(exponents):
        return criterion
    if isinstance(criterion, LogDet):
        return LogDetInUnits(np.float64(2 * np.log(2.0) * np.sum(exponents)))
    with float64():
        return jax.tree.map(np.asarray, in_basis(criterion, jnp.diag(jnp.asarray(np.ldexp(1.0, exponents)))))
