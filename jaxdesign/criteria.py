"""Criteria: convex, decreasing functions of the information matrix that a design minimises.

A criterion works on one matrix (d, d) or on a stack (R, d, d) of parameter draws, over which it averages. Its methods
are traceable and keep the dtype they are given; solvers call them in float64.

Derivation of the bounds: for any allowed allocation n', with G = -grad criterion and b_e the sensitivities,
tr(G A(n')) = t + sum_e b_e n'_e <= t + S, where t = tr(G prior) and S is the linear oracle's value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign import _checks
from jaxdesign._arrays import HIGHEST, contract
from jaxdesign._cholesky import cholesky_and_inverse


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

    def curvature(self, information):
        inv = inverse(information)
        return lambda change: _sandwich(inv, change, inv)

    def lower_bound(self, value, linear, current, dim):
        return value - dim * np.log(max(linear, dim) / dim)

    def efficiency(self, value, lower_bound, dim):
        return np.exp(-(value - lower_bound) / dim)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Trace:
    """Minimise tr(H A^-1): A-optimality at H = I, V/L-optimality for a target H (arXiv 2606.19607). G = A^-1 H A^-1.

    Bound (Cauchy-Schwarz; Elfving): f*/f >= f / (t + S), so the lower bound is f^2 / (t + S).

    Args:
        H: (d, d) symmetric positive semidefinite, kept in float64; or (R, d, d), one per parameter draw of the pool's
            scores, because a draw changes the target as it changes the label information: then the mean of
            tr(H_r A_r^-1) is minimised. Asymmetry up to 1e-5 of the largest entry is averaged away, eigenvalues down to
            -1e-6 of the largest are accepted.

    Raises:
        ValueError: H not square, not symmetric, indefinite or not finite.
    """

    H: Any

    def __post_init__(self):
        if isinstance(self.H, jax.core.Tracer):
            return
        H = _checks.as_float_array(self.H, "H")
        if H.ndim not in (2, 3) or H.shape[-1] != H.shape[-2]:
            raise ValueError(f"H: shape {H.shape} found; expected a square matrix (d, d), or (draws, d, d)")
        object.__setattr__(self, "H", _checks.symmetric_psd(H, H.shape[-1], "H", H.shape[:-2]))

    def tree_flatten(self):
        return (self.H,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        criterion = object.__new__(cls)  # never validates: transformations unflatten with placeholders
        object.__setattr__(criterion, "H", leaves[0])
        return criterion

    def value(self, information):
        information = jnp.asarray(information)
        target = jnp.asarray(self.H, information.dtype)
        return jnp.mean(jnp.sum(target * inverse(information), axis=(-2, -1)))

    def gradient(self, information):
        information = jnp.asarray(information)
        inv = inverse(information)
        return _sandwich(inv, jnp.asarray(self.H, information.dtype), inv)

    def factors(self, information):
        return gradient_factors(self.gradient(information))

    def curvature(self, information):
        inv, G = inverse(information), self.gradient(information)

        def apply(change):
            half = _sandwich(inv, change, G)
            return half + jnp.swapaxes(half, -1, -2)

        return apply

    def lower_bound(self, value, linear, current, dim):
        return value * value / max(linear, value) if value > 0 else 0.0

    def efficiency(self, value, lower_bound, dim):
        return lower_bound / value if value > 0 else 1.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Criterion:
    """Any differentiable function of one information matrix; G comes from `jax.grad`.

    Args:
        function: traceable (d, d) -> scalar. It must be convex and decreasing in A (in the Loewner order) for the
            bound to hold; this cannot be checked here. Averaged over draws.

    The gap is S - sum_e b_e n_e (Frank-Wolfe), the efficiency NaN, and solvers stop on gap <= tol max(1, |value|).
    """

    function: Callable = field(metadata={"static": True})

    def value(self, information):
        return jnp.mean(_over_draws(self.function, information))

    def gradient(self, information):
        grad = _over_draws(jax.grad(self.function), information)
        return -(grad + jnp.swapaxes(grad, -1, -2)) / 2

    def factors(self, information):
        return gradient_factors(self.gradient(information))

    def curvature(self, information):
        slope = jax.linearize(self.gradient, information)[1]
        return lambda change: -slope(change)

    def lower_bound(self, value, linear, current, dim):
        return value - max(linear - current, 0.0)

    def efficiency(self, value, lower_bound, dim):
        return float("nan")


def _over_draws(function, information):
    information = jnp.asarray(information)
    return jax.vmap(function)(information) if information.ndim == 3 else function(information)


def _sandwich(left, middle, right):
    """Matrix products two at a time: a three-operand einsum would not use matrix products on every backend."""
    return jnp.matmul(jnp.matmul(left, middle, precision=HIGHEST), right, precision=HIGHEST)


def inverse(information: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
    """A^-1 by Cholesky, symmetric to the last bit; NaN where A is not positive definite."""
    _, root = cholesky_and_inverse(information)
    inv = contract("...ki,...kj->...ij", root, root)
    return (inv + jnp.swapaxes(inv, -1, -2)) / 2


def gradient_factors(G: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
    """F with F F^T = G, which may be singular (Trace with a low-rank H).

    Cholesky, or where that fails the spectral factor V sqrt(max(Lambda, 0)) of G scaled to a unit diagonal. Both are
    accurate to rounding times sqrt(G_kk G_ll) entry by entry, so badly scaled features cost no accuracy; a shift of
    the diagonal would raise small sensitivities.
    """
    factors, _ = cholesky_and_inverse(G)
    return jax.lax.cond(jnp.isfinite(factors).all(), lambda _: factors, _spectral_factors, G)


def _spectral_factors(G: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
    scale = jnp.sqrt(jnp.maximum(jnp.diagonal(G, axis1=-2, axis2=-1), 0))
    inverse_scale = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 0)
    spectrum, vectors = jnp.linalg.eigh(G * inverse_scale[..., :, None] * inverse_scale[..., None, :])
    return scale[..., :, None] * vectors * jnp.sqrt(jnp.maximum(spectrum, 0))[..., None, :]
