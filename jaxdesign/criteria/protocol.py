"""What a criterion is: a convex, decreasing function of the information matrix that a design minimises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float


@runtime_checkable
class CriterionLike(Protocol):
    """What a solver needs of a criterion; a new one is a class with these six methods, registered as a pytree."""

    def value(self, information: Float[Array, "*r d d"]) -> Float[Array, ""]:
        """Criterion of A, averaged over draws; NaN or inf where A is not positive definite."""

    def gradient(self, information: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
        """G = -grad criterion at each draw (not divided by the number of draws)."""

    def factors(self, information: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
        """F with F F^T = G, so that b = c |z F|^2 cannot cancel; `gradient_factors(G)` gives them from any G."""

    def curvature(self, information: Float[Array, "*r d d"]) -> Callable:
        """Linear map from a change of A to -dG at each draw: the Hessian in the labels is z^T curvature z."""

    def lower_bound(self, value: float, linear: float, current: float, dim: int) -> float:
        """Bound below the best value from `linear` = t + S and `current` = tr(G A) = t + sum_e b_e n_e."""

    def efficiency(self, value: float, lower_bound: float, dim: int) -> float:
        """Certified efficiency in (0, 1]; NaN where the criterion has no such formula."""
