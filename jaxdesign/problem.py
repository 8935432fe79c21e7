"""A design problem: pool, criterion, limits and prior, in units in which columns are of about unit size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign.budget.limits import Limits
from jaxdesign.budget.required import Decided
from jaxdesign.criteria.adapted import adapted
from jaxdesign.criteria.protocol import ConvexCriterion, CriterionLike
from jaxdesign.design import Design
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.memory import MemorySource
from jaxdesign.pricing.passes import pairs_information
from jaxdesign.units import rescaled


@dataclass(frozen=True, eq=False)
class Problem:
    """Pool, criterion, limits and prior, validated, with the pool's pricing source.

    Labels that the budget decides (its required pairs) are part of the prior, and no part of limits and total.
    """

    pool: CompletionPool  # in the problem's units
    criterion: ConvexCriterion  # in these units, like the prior; values are those of the given criterion
    limits: Limits
    prior: Float[np.ndarray, "r d d"]
    source: MemorySource
    pair_counts: Float[np.ndarray, " p"]  # that may be used
    decided: Decided
    exponents: Int[np.ndarray, " d"]  # features here are the given ones times 2^e (`units.column_units`)

    @property
    def dim(self) -> int:
        """d."""
        return self.pool.dim

    @property
    def skipped_prompts(self) -> int:
        """Prompts with fewer than two completions."""
        return int(np.sum(np.asarray(self.pool.mask).sum(axis=1) < 2))

    @cached_property
    def even(self) -> Float[np.ndarray, "r d d"]:
        """Prior plus the information of `total` labels spread evenly over all candidate pairs, caps aside; float64."""
        with _arrays.float64():
            info = np.asarray(pairs_information(self.source))
        return self.prior + info * (self.limits.total / self.pair_counts.sum())

    def given_units(self, matrix: Float[np.ndarray, "*r d d"]) -> Float[np.ndarray, "*r d d"]:
        """An information matrix in the units of the features that were given."""
        return rescaled(matrix, -self.exponents)


class Certified(NamedTuple):
    """A design, and the problem that its certificate holds for: of a worst case with the mixture the bound rests on."""

    design: Design
    problem: Problem


def checked_criterion(pool: Any, criterion: Any) -> ConvexCriterion:
    """The criterion with all that solvers ask of it; traceable.

    Raises:
        TypeError: a pool or criterion of another kind. ValueError: a target of another size.
    """
    if not isinstance(pool, CompletionPool):
        raise TypeError(f"pool: expected jaxdesign.CompletionPool, found {type(pool).__name__}")
    if isinstance(criterion, type) or not isinstance(criterion, CriterionLike):
        raise TypeError(
            f"crit: expected LogDet(), Trace(H), WorstCase(targets) or Criterion(function), found {criterion!r}"
        )
    criterion = adapted(criterion)
    criterion.check(pool.dim, pool.num_draws)
    return criterion


def traceable_prior(prior: Any, pool: CompletionPool) -> Float[Array, "r d d"]:
    """Prior as (R, d, d) float64, traced or not; its values are checked where they are concrete."""
    if not _arrays.is_traced(prior):
        return jnp.asarray(prior_matrix(prior, pool))
    draws, dim = pool.num_draws or 1, pool.dim
    if prior.shape not in ((), (dim, dim), (draws, dim, dim)):
        raise ValueError(f"prior: shape {prior.shape} found; expected a scalar or {(dim, dim)}")
    prior = prior.astype(jnp.float64)
    return jnp.broadcast_to(prior * jnp.eye(dim) if prior.ndim == 0 else prior, (draws, dim, dim))


def prior_matrix(prior: Any, pool: CompletionPool) -> Float[np.ndarray, "r d d"]:
    """Prior information as (R, d, d) float64: zero for None, ridge times I for a scalar."""
    draws = (pool.num_draws or 1,)
    if prior is None:
        prior = 0.0
    if np.ndim(prior) == 0:
        try:
            ridge = float(prior)
        except (TypeError, ValueError) as error:
            raise TypeError(f"prior: expected a number or a (d, d) matrix, found {prior!r}") from error
        if not np.isfinite(ridge) or ridge < 0:
            raise ValueError(f"prior={ridge:g}: a ridge must be finite and at least 0")
        matrix = ridge * np.eye(pool.dim)
    else:
        matrix = _checks.symmetric_psd(prior, pool.dim, "prior", draws)
    return np.broadcast_to(matrix, (*draws, pool.dim, pool.dim)).copy()
