"""Criteria: convex, decreasing functions of the information matrix that a design minimises.

A criterion works on one matrix (d, d) or on a stack (R, d, d) of parameter draws, over which it averages. Its methods
are traceable and keep the dtype they are given; solvers call them in float64.

Bounds that no rounding of A^-1 can make false. Let F be any matrix, M = F F^T, t = tr(M prior), and S a bound on the
linear oracle at M, so that tr(M A(n')) = t + sum_e c_e |z_e F|^2 n'_e <= t + S for every allowed n'. Then for all n'

    LogDet   -log det A(n') >= log det M - d log((t + S) / d)      log det(M A) <= d log(tr(M A) / d)
    Trace    tr(K K^T A(n')^-1) >= tr(F^T K)^2 / (t + S)           tr(X^T K)^2 <= tr(X^T A X) tr(K^T A^-1 K)

whatever F is: F = L^-T or A^-1 K, as computed, need not be accurate, only known exactly, which what is stored in
float64 is. The first factors of the right-hand sides are the criterion's `anchor`; at exact F they are its value (for
Trace its square over the value). What is left to count is the rounding of t, S and the anchor, a few units in the last
place times sums of absolute values, and that of the value itself, for which see `problem.value_rounding`. For other
criteria the bound is that of convexity, f(A') >= f(A) - tr(G (A' - A)), and rests on G as computed.
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
from jaxdesign._arrays import HIGHEST, aligned, contract, float64
from jaxdesign._cholesky import cholesky_and_inverse
from jaxdesign.ranks import unit_diagonal


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

    def anchor(self, information, factors):
        """log det F F^T, averaged over draws, less a bound on its rounding; F is triangular."""
        logs = jnp.log(jnp.abs(jnp.diagonal(factors, axis1=-2, axis2=-1)))
        return 2 * jnp.mean(jnp.sum(logs, axis=-1)) - _rounding(2 * logs + 1, factors.shape[-1])

    def in_basis(self, basis, unit):
        """See `in_basis`: the same criterion, up to a constant."""
        return self

    def curvature(self, information):
        inv = inverse(information)
        return lambda change: _sandwich(inv, change, inv)

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
        return super().anchor(information, factors) + self.offset - _rounding(self.offset, 1)

    def in_basis(self, basis, unit):
        return LogDet()


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Trace:
    """Minimise tr(H A^-1): A-optimality at H = I, V/L-optimality for a target H (arXiv 2606.19607). G = A^-1 H A^-1.

    Bound (Cauchy-Schwarz; Elfving): f*/f >= f / (t + S), so the lower bound is f^2 / (t + S).

    Args:
        H: (d, d) symmetric positive semidefinite, kept in float64; or (R, d, d), one per parameter draw of the pool's
            scores, because a draw changes the target as it changes the label information: then the mean of
            tr(H_r A_r^-1) is minimised. Asymmetry up to 1e-5 of the largest entry is averaged away, eigenvalues down to
            -1e-6 of the largest are accepted and set to 0.

    Raises:
        ValueError: H not square, not symmetric, indefinite or not finite.

    Numerics: everything is computed from a root K K^T = H, found in units in which H has a unit diagonal.
    """

    H: Any
    root: Any = field(default=None, init=False, repr=False)  # K, like H; None where H is traced

    def __post_init__(self):
        if isinstance(self.H, jax.core.Tracer):
            return
        H = _checks.as_float_array(self.H, "H")
        if H.ndim not in (2, 3) or H.shape[-1] != H.shape[-2]:
            raise ValueError(f"H: shape {H.shape} found; expected a square matrix (d, d), or (draws, d, d)")
        H, root = semidefinite(_checks.symmetric_psd(H, H.shape[-1], "H", H.shape[:-2]))
        object.__setattr__(self, "H", H)
        object.__setattr__(self, "root", root)

    def tree_flatten(self):
        return (self.H, self.root), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        criterion = object.__new__(cls)  # never validates: transformations unflatten with placeholders
        object.__setattr__(criterion, "H", leaves[0])
        object.__setattr__(criterion, "root", leaves[1])
        return criterion

    def _root(self, dtype):
        if self.root is None:
            return gradient_factors(jnp.asarray(self.H, dtype))
        return jnp.asarray(self.root, dtype)

    def value(self, information):
        return trace_value(information, self._root(jnp.asarray(information).dtype))

    def gradient(self, information):
        factors = self.factors(information)
        return contract("...ik,...jk->...ij", factors, factors)

    def factors(self, information):
        return trace_factors(information, self._root(jnp.asarray(information).dtype))

    def anchor(self, information, factors):
        """tr(F^T K), averaged over draws, less bounds on its rounding."""
        return trace_anchor(information, factors, self._root(factors.dtype))

    def in_basis(self, basis, unit):
        """See `in_basis`: H becomes B^T H B / unit."""
        root = contract("ij,...ik->...jk", basis, self._root(basis.dtype)) / unit**0.5
        return Trace.tree_unflatten(None, (contract("...ik,...jk->...ij", root, root), root))

    def curvature(self, information):
        inv, G = inverse(information), self.gradient(information)

        def apply(change):
            half = _sandwich(inv, change, G)
            return half + jnp.swapaxes(half, -1, -2)

        return apply

    def lower_bound(self, value, linear, current, dim):
        return value * (value / max(linear, value)) if value > 0 else 0.0

    def efficiency(self, value, lower_bound, dim):
        return lower_bound / value if value > 0 else 1.0


def semidefinite(H: Float[np.ndarray, "*r d d"]) -> tuple[Float[np.ndarray, "*r d d"], Float[np.ndarray, "*r d d"]]:
    """H with what rounding left below zero set to zero, and K with K K^T = H; float64 on the host.

    Eigenvectors are those of H scaled to a unit diagonal, so that columns in different units keep their digits. An H
    that is semidefinite to rounding is returned as it is.
    """
    scaled, size = unit_diagonal(H)
    spectrum, vectors = np.linalg.eigh(scaled)
    root = size[..., :, None] * vectors * np.sqrt(np.maximum(spectrum, 0))[..., None, :]
    if spectrum.min() < -4 * H.shape[-1] * np.finfo(np.float64).eps:
        H = root @ root.swapaxes(-1, -2)
        H = (H + H.swapaxes(-1, -2)) / 2
    return H, root


def trace_value(information: Float[Array, "*r d d"], root: Float[Array, "*#r d q"]) -> Float[Array, ""]:
    """tr(K K^T A^-1) = |L^-1 K|^2, averaged over draws: a sum of squares, which cannot cancel."""
    _, inverse_factor = cholesky_and_inverse(jnp.asarray(information))
    half = jnp.matmul(inverse_factor, root, precision=HIGHEST)
    return jnp.mean(jnp.sum(half * half, axis=(-2, -1)))


def trace_factors(information: Float[Array, "*r d d"], root: Float[Array, "*#r d q"]) -> Float[Array, "*r d q"]:
    """F = A^-1 K, so that F F^T = A^-1 K K^T A^-1."""
    _, inverse_factor = cholesky_and_inverse(jnp.asarray(information))
    half = jnp.matmul(inverse_factor, root, precision=HIGHEST)
    return jnp.matmul(jnp.swapaxes(inverse_factor, -1, -2), half, precision=HIGHEST)


def trace_anchor(information, factors: Float[Array, "*r d q"], root: Float[Array, "*#r d q"]) -> Float[Array, ""]:
    """tr(F^T K), averaged over draws, less bounds on its rounding and on that of K K^T = H.

    The second is 4 d eps tr(diag(H) A^-1): exact arithmetic on H instead of K K^T would change the criterion by so
    much, where H is singular and A nearly so. (Taken at A, it is measured, not proven, for other A.)
    """
    factors, root = aligned(factors, root)
    products = factors * root
    _, inverse_factor = cholesky_and_inverse(jnp.asarray(information))
    variances = jnp.sum(inverse_factor**2, axis=-2)
    blurred = (
        4 * root.shape[-2] * jnp.finfo(factors.dtype).eps * jnp.sum(jnp.sum(root**2, axis=-1) * variances, axis=-1)
    )
    rounding = _rounding(products, root.shape[-1])
    return jnp.mean(jnp.sum(products, axis=(-2, -1))) - rounding - jnp.mean(blurred)


def _rounding(terms: Any, length: int) -> Any:
    """Bound on the rounding error of the mean over draws of sums of these terms, each computed with `length` sums."""
    terms = jnp.asarray(terms)
    share = (length + 8) * jnp.finfo(terms.dtype).eps
    return share * jnp.sum(jnp.abs(terms)) / (terms.shape[0] if terms.ndim == 3 else 1)


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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InBasis:
    """Any criterion in another basis and divided by `unit`: at A' = B^T A B it is that of A, G' = B^-1 G B^-T."""

    criterion: Any
    back: Float[Array, "d d"]  # B^-T: A = B^-T A' B^-1
    unit: Float[Array, ""]

    def _given(self, information):
        return _sandwich(self.back, information, self.back.T)

    def value(self, information):
        return self.criterion.value(self._given(information)) / self.unit

    def gradient(self, information):
        return _sandwich(self.back.T, self.criterion.gradient(self._given(information)), self.back) / self.unit

    def factors(self, information):
        factors = self.criterion.factors(self._given(information))
        return jnp.matmul(self.back.T, factors, precision=HIGHEST) / self.unit**0.5

    def curvature(self, information):
        given = self.criterion.curvature(self._given(information))
        return lambda change: _sandwich(self.back.T, given(self._given(change)), self.back) / self.unit

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
