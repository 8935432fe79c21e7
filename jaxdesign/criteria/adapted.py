"""Criteria of a user's own that have the six methods of `CriterionLike` and no more."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxdesign.criteria.protocol import ConvexCriterion, CriterionLike


def adapted(criterion: CriterionLike) -> ConvexCriterion:
    """The criterion with everything that `ConvexCriterion` adds to the six methods."""
    return criterion if isinstance(criterion, ConvexCriterion) else Adapted(criterion)


@jax.tree_util.register_pytree_node_class
class Adapted(ConvexCriterion):
    """A criterion by its six methods; its bound holds inside of jit where its formula can be traced.

    Args:
        criterion: a pytree with the methods of `CriterionLike`.
    """

    def __init__(self, criterion: Any):
        self.criterion = criterion

    def tree_flatten(self):
        return (self.criterion,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)

    def __repr__(self) -> str:
        return repr(self.criterion)

    def value(self, information):
        return self.criterion.value(information)

    def gradient(self, information):
        return self.criterion.gradient(information)

    def factors(self, information):
        return self.criterion.factors(information)

    def curvature(self, information):
        return self.criterion.curvature(information)

    def lower_bound(self, value, linear, current, dim):
        try:
            return self.criterion.lower_bound(value, linear, current, dim)
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
            return value - jnp.maximum(linear - current, 0.0)  # written for numbers: convexity is left

    def efficiency(self, value, lower_bound, dim):
        try:
            return self.criterion.efficiency(value, lower_bound, dim)
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
            return jnp.full_like(value, jnp.nan)
