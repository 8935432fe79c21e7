"""Trace: A-optimality, and V-optimality for a target H."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxdesign import _checks
from jaxdesign._arrays import HIGHEST, aligned, contract
from jaxdesign._linalg import cholesky_and_inverse, gradient_factors, inverse_from, sandwich, unit_diagonal
from jaxdesign.criteria.anchors import sum_rounding
from jaxdesign.criteria.protocol import ConvexCriterion, Gains


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Trace(ConvexCriterion):
    """Minimise tr(H A^-1): A-optimality at H = I, V- or L-optimality for a target H.  G = A^-1 H A^-1.

    Bound (Cauchy-Schwarz): f*/f >= f / (t + S), so the lower bound is f^2 / (t + S).

    Args:
        H: (d, d) symmetric positive semidefinite, kept in float64; or (R, d, d), one per parameter draw of the pool's
            scores, because a draw changes the target as it changes the label information: then the mean of
            tr(H_r A_r^-1) is minimised. Asymmetry up to 1e-5 of the largest entry is averaged away, eigenvalues down to
            -1e-6 of the largest are accepted and set to 0.

    Raises:
        ValueError: H not square, not symmetric, indefinite or not finite.

    Numerics: everything is computed from a root K K^T = H, found in units in which H has a unit diagonal.

    Source: arXiv 2606.19607 for the target H; the bound is derived; checked by tests/criteria/test_criteria.py and
    against cvxpy by tests/test_reference.py.
    """

    degree: ClassVar = -1
    gains: ClassVar = Gains.TRACE
    infinite_where_singular: ClassVar = True
    decreasing: ClassVar = True

    H: Any
    root: Any = field(default=None, init=False, repr=False)  # K, like H; None where H is traced

    def __post_init__(self):
        if isinstance(self.H, Tracer):
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

    @property
    def target(self):
        """H."""
        return self.H

    def check(self, dim, draws):
        shapes = [(dim, dim)] + [(count, dim, dim) for count in (draws,) if count is not None]
        if np.shape(self.H) not in shapes:
            allowed = " or ".join(map(str, shapes))
            raise ValueError(f"H: shape {np.shape(self.H)} found; expected {allowed}, as the features and draws")

    def of_draw(self, draw):
        if np.ndim(self.H) == 2:
            return self
        return Trace.tree_unflatten(None, jax.tree.map(lambda leaf: leaf[draw], (self.H, self.root)))

    def _root(self, dtype):
        if self.root is None:
            return gradient_factors(jnp.asarray(self.H, dtype))
        return jnp.asarray(self.root, dtype)

    def value(self, information):
        return self.value_and_factors(information)[0]

    def gradient(self, information):
        factors = self.factors(information)
        return contract("...ik,...jk->...ij", factors, factors)

    def factors(self, information):
        return self.value_and_factors(information)[1]

    def value_and_factors(self, information):
        _, inverse_factor = cholesky_and_inverse(jnp.asarray(information))
        return trace_value_and_factors(inverse_factor, self._root(inverse_factor.dtype))

    def anchor(self, information, factors):
        """tr(F^T K), averaged over draws, less bounds on its rounding."""
        return trace_anchor(information, factors, self._root(factors.dtype))

    def in_basis(self, basis, unit=1.0):
        """H becomes B^T H B / unit."""
        root = contract("ij,...ik->...jk", basis, self._root(basis.dtype)) / unit**0.5
        return Trace.tree_unflatten(None, (contract("...ik,...jk->...ij", root, root), root))

    def curvature(self, information):
        _, inverse_factor = cholesky_and_inverse(jnp.asarray(information))
        inv = inverse_from(inverse_factor)
        _, factors = trace_value_and_factors(inverse_factor, self._root(inv.dtype))
        G = contract("...ik,...jk->...ij", factors, factors)

        def apply(change):
            half = sandwich(inv, change, G)
            return half + jnp.swapaxes(half, -1, -2)

        return apply

    def expression(self, cvxpy, information):
        """tr(K^T A^-1 K), K K^T = H."""
        root = np.asarray(self._root(np.float64))
        root = root[:, np.abs(root).max(axis=0) > 0]
        return cvxpy.matrix_frac(root, information) if root.size else cvxpy.Constant(0.0), []


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


def trace_value_and_factors(
    inverse_factor: Float[Array, "*r d d"], root: Float[Array, "*#r d q"]
) -> tuple[Float[Array, ""], Float[Array, "*r d q"]]:
    """tr(K K^T A^-1) = |L^-1 K|^2, averaged over draws, and F = A^-1 K with F F^T = A^-1 K K^T A^-1, from L^-1.

    The value is a sum of squares, which cannot cancel.
    """
    half = jnp.matmul(inverse_factor, root, precision=HIGHEST)
    value = jnp.mean(jnp.sum(half * half, axis=(-2, -1)))
    return value, jnp.matmul(jnp.swapaxes(inverse_factor, -1, -2), half, precision=HIGHEST)


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
    rounding = sum_rounding(products, root.shape[-1])
    return jnp.mean(jnp.sum(products, axis=(-2, -1))) - rounding - jnp.mean(blurred)
