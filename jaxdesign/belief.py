"""Belief: what is held to be known of the reward parameter before labels, as one normal distribution.

w = beta theta, so that a completion's reward is phi . w up to a constant per prompt. A belief N(m, Lambda^-1) is what
designs call a prior (its precision Lambda is information already held), what a fit is pulled towards (its mean m and
precision), and what the labels of earlier rounds leave (their posterior). Every function that takes a `prior` takes a
belief; None, a ridge and a matrix are beliefs with mean 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign._linalg import unit_diagonal
from jaxdesign._scoring import all_finite

SINGULAR = 1e-12  # smallest over largest eigenvalue at unit diagonal, below which a matrix counts as singular
NULL = 1e-10  # the same of directions that are dropped with a change of basis: nothing is known along them


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, init=False, eq=False, repr=False)
class Belief:
    """N(mean, precision^-1) for the reward parameter w = beta theta: float64 NumPy, checked; a pytree.

    Args:
        mean: m, (d,), in the unit of the reward over that of the features.
        precision: Lambda, (d, d), in the units of information matrices. It may be singular: nothing is held to be known
            along its null space, and the mean there means nothing.

    Raises:
        TypeError: no floating arrays.
        ValueError: shapes that do not fit, entries that are not finite, a precision that is not symmetric positive
            semidefinite. Values are not checked where they are traced.

    Source: the conjugate prior of a linear model with normal noise; checked by tests/test_belief.py.
    """

    mean: Float[AnyArray, " d"]
    precision: Float[AnyArray, "d d"]

    def __init__(self, mean: Any, precision: Any):
        if not _arrays.is_traced(mean, precision):
            mean = np.array(_checks.as_float_array(mean, "mean"), np.float64)
            _checks.rank(mean, (1,), "mean", "(d,), one number per feature")
            all_finite(mean, "mean")
            precision = _checks.symmetric_psd(precision, len(mean), "precision")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "precision", precision)

    @classmethod
    def from_ridge(cls, ridge: float, dim: int, mean: Any = None) -> Belief:
        """N(mean, I / ridge) of d = dim parameters; mean None: 0. ValueError for a ridge below 0 or not finite."""
        ridge = _checks.number(ridge, "ridge")
        if not (np.isfinite(ridge) and ridge >= 0):
            raise ValueError(f"ridge={ridge:g}: must be finite and at least 0")
        return cls(np.zeros(dim) if mean is None else mean, ridge * np.eye(dim))

    @classmethod
    def from_covariance(cls, covariance: Any, mean: Any = None) -> Belief:
        """N(mean, covariance); mean None: 0. ValueError for a covariance that is singular at unit diagonal."""
        covariance = np.asarray(_checks.as_float_array(covariance, "covariance"), np.float64)
        _checks.rank(covariance, (2,), "covariance", "(d, d)")
        covariance = _checks.symmetric_psd(covariance, len(covariance), "covariance")
        precision = inverse_of(covariance)
        if precision is None:
            raise ValueError(
                "covariance: singular, as if some combination of parameters were known exactly; add a small multiple "
                "of the identity, or leave that combination out of the features"
            )
        return cls(np.zeros(len(covariance)) if mean is None else mean, precision)

    def __repr__(self) -> str:
        around = "" if _arrays.is_traced(self.mean) or np.any(self.mean) else ", around 0"
        return f"Belief(dim={self.dim}{around})"

    def tree_flatten_with_keys(self):
        return tuple((jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in ("mean", "precision")), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return unchecked_belief(*leaves)  # transformations unflatten with placeholders

    @property
    def dim(self) -> int:
        """d."""
        return self.precision.shape[-1]

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """precision^-1; ValueError where that is singular at unit diagonal (condition above 1e12)."""
        found = inverse_of(np.asarray(self.precision))
        if found is None:
            raise ValueError("precision: singular, so there is no covariance; add a ridge")
        return found

    def draws(self, number: int, seed: int) -> Float[np.ndarray, "r d"]:
        """`number` draws of w, (R, d) float64: m + L^-T e with Lambda = L L^T, whatever the units of the features.

        ValueError for a number below 1, and where the precision is singular at unit diagonal.
        """
        if number < 1:
            raise ValueError(f"number={number}: at least one draw is needed")
        found = at_unit_diagonal(self.precision)
        if found is None:
            raise ValueError("precision: singular, so there is nothing to draw from; pass a prior")
        size, correlation = found
        noise = np.random.default_rng(seed).standard_normal((len(size), number))
        return np.asarray(self.mean) + np.linalg.solve(np.linalg.cholesky(correlation).T, noise).T / size

    def around_zero(self) -> Belief:
        """The belief with mean 0 and the same second moment S + m m^T: precision L - L m m^T L / (1 + m^T L m).

        Of all fits that are pulled towards 0, as DPO is that starts at the reference policy, the one with this
        precision has the smallest expected gap where w ~ N(m, S) (`expected_gap`, tests/test_expected_gaps.py).
        """
        pull = self.precision @ self.mean
        return Belief(np.zeros(self.dim), self.precision - np.outer(pull, pull) / (1 + self.mean @ pull))

    def in_basis(self, basis: Float[AnyArray, "d r"]) -> Belief:
        """The belief about the parameters w' of features phi B: margins z . w = z' . w' for all z in the span of B.

        For `pool, B = restrict_to_range(pool)`, and for other units with B = diag(units). It is the marginal of
        w' = B^+ w: mean B^+ m, precision the Schur complement of B^T L B over the complement of the span of B, which
        is B^T L B for a ridge and for square B.

        Args:
            basis: B, (d, r), of full column rank.

        Returns:
            Belief about r parameters.

        Raises:
            ValueError: a basis of another dimension, or with dependent columns.

        Source: derived (block matrices); checked by tests/test_belief.py.
        """
        basis = np.asarray(_checks.as_float_array(basis, "basis"), np.float64)
        if basis.ndim != 2 or basis.shape[0] != self.dim or not 0 < basis.shape[1] <= self.dim:
            raise ValueError(f"basis: shape {basis.shape} found; expected ({self.dim}, r), 1 <= r <= {self.dim}")
        size = np.linalg.norm(basis, axis=0)
        if not (np.isfinite(size).all() and (size > 0).all()):
            raise ValueError("basis: a column is 0 or not finite; leave it out")
        directions, spread, turned = np.linalg.svd(basis / size)
        rank = basis.shape[1]
        if spread[-1] <= NULL * spread[0]:
            raise ValueError("basis: its columns are linearly dependent; leave out those that the others span")
        mean = (turned.T @ ((directions[:, :rank].T @ self.mean) / spread)) / size
        precision, beyond = basis.T @ self.precision @ basis, directions[:, rank:]
        across = basis.T @ self.precision @ beyond
        if across.any():
            correlation, size = unit_diagonal(beyond.T @ self.precision @ beyond)
            scaled = across / np.where(size > 0, size, 1)  # where the size is 0, so is the column
            precision = precision - scaled @ np.linalg.pinv(correlation, NULL, hermitian=True) @ scaled.T
        return Belief(mean, (precision + precision.T) / 2)


def unchecked_belief(mean: Any, precision: Any) -> Belief:
    """A belief of these leaves, whatever they are."""
    belief = object.__new__(Belief)
    object.__setattr__(belief, "mean", mean)
    object.__setattr__(belief, "precision", precision)
    return belief


def held_belief(prior: Any) -> Belief | None:
    """The belief that a prior is, or holds as its attribute `belief` (a posterior does); None for all others."""
    found = prior if isinstance(prior, Belief) else getattr(prior, "belief", None)
    return found if isinstance(found, Belief) else None


def as_belief(prior: Any, dim: int) -> Belief:
    """What users pass as `prior` as a belief about d = dim parameters.

    Args:
        prior: None (nothing is known), a ridge, a precision matrix (d, d), a Belief, or what holds one as its attribute
            `belief`: the posterior of an earlier round, an `ImpliedPrior`, a `ProxyBelief`.
        dim: d.

    Returns:
        Belief; with mean 0 for the first three.

    Raises:
        ValueError: a belief about another number of parameters, a matrix of another shape or not positive semidefinite.

    Source: derived; checked by tests/test_belief.py.
    """
    belief = held_belief(prior)
    if belief is not None:
        check_dim(belief, dim)
        on_host = all(isinstance(leaf, np.ndarray) and leaf.dtype == np.float64 for leaf in jax.tree.leaves(belief))
        if on_host or _arrays.is_traced(belief):
            return belief
        return Belief(np.asarray(belief.mean, np.float64), np.asarray(belief.precision, np.float64))
    matrix = np.asarray(0.0 if prior is None else prior, np.float64)
    matrix = float(matrix) * np.eye(dim) if matrix.ndim == 0 else matrix
    return unchecked_belief(np.zeros(dim), _checks.symmetric_psd(matrix, dim, "prior"))


def check_dim(belief: Belief, dim: int) -> None:
    """ValueError for a belief about another number of parameters than the features have."""
    if belief.dim != dim:
        raise ValueError(
            f"prior: a belief about {belief.dim} parameters found for {dim} features; belief.in_basis(B) brings it "
            "into the basis B of `restrict_to_range`"
        )


def precision_of(prior: Any, dim: int) -> Any:
    """The precision of a belief about `dim` parameters; any other prior as it is."""
    belief = held_belief(prior)
    if belief is None:
        return prior
    check_dim(belief, dim)
    return belief.precision


def at_unit_diagonal(matrix: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """s and C with A = diag(s) C diag(s), C of unit diagonal; None where C is singular (condition above 1e12)."""
    matrix = np.asarray(matrix, np.float64)
    diagonal = np.diagonal(matrix)
    if not (np.isfinite(matrix).all() and (diagonal > 0).all()):
        return None
    size = np.sqrt(diagonal)
    correlation = matrix / size[:, None] / size
    spectrum = np.linalg.eigvalsh(correlation)
    return (size, correlation) if spectrum[0] > SINGULAR * spectrum[-1] else None


def inverse_of(matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"] | None:
    """The inverse, computed at unit diagonal so that units do not matter; None where that is singular."""
    found = at_unit_diagonal(matrix)
    if found is None:
        return None
    size, correlation = found
    inverse = np.linalg.inv(correlation) / size[:, None] / size
    return (inverse + inverse.T) / 2
