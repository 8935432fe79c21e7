"""A design problem: source, criterion, limits and prior, in units in which columns are of about unit size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign.belief import precision_of
from jaxdesign.budget.limits import Limits
from jaxdesign.budget.required import Decided
from jaxdesign.criteria.adapted import adapted
from jaxdesign.criteria.protocol import ConvexCriterion, CriterionLike
from jaxdesign.design import Design
from jaxdesign.pool import CompletionPool, kept, prompts_of, with_flip
from jaxdesign.pricing.passes import all_information
from jaxdesign.pricing.some_prompts import pool_of
from jaxdesign.pricing.source import Source
from jaxdesign.pricing.widened import at_algebra
from jaxdesign.units import rescaled

NEEDS_ALL = (
    "pool: this needs all features in memory, and a source was given; pass a CompletionPool. On sources "
    "jaxdesign.optimize, with its default solver or 'interior_point', evaluate, select_pairs, label_curve, "
    "restrict_to_range, policy_target and second_moment work"
)


@dataclass(frozen=True, eq=False)
class Problem:
    """A source of completions, criterion, limits and prior, validated, in the problem's units.

    Labels that the budget decides (its required pairs) are part of the prior, and no part of limits and total.
    """

    source: Source  # without the pairs that the budget closes
    criterion: ConvexCriterion  # in these units, like the prior; values are those of the given criterion
    limits: Limits
    prior: Float[np.ndarray, "r d d"]
    exists: Bool[np.ndarray, "p k"]  # which completions there are
    pair_counts: Float[np.ndarray, " p"]  # that may be used
    decided: Decided
    exponents: Int[np.ndarray, " d"]  # features here are the given ones times 2^e (`units.column_units`)
    whole: CompletionPool | None = None  # the pool, if that is what was given, without annotators
    flip: Float[np.ndarray, "a q"] | None = None  # of every annotator; P is then A times the number of given prompts

    @property
    def pool(self) -> CompletionPool:
        """The whole pool, for what cannot do without it; with annotators, a copy of the features for each.

        Raises:
            TypeError: a source that is no pool in memory was given.
        """
        return self._part(self.gathered, np.arange(self.prompts))

    @property
    def pools(self) -> list[CompletionPool]:
        """The given pool as each annotator sees it, features shared; alone where there are none. Raises like `pool`."""
        if self.flip is None:
            return [self.gathered]
        return [with_flip(self.gathered, jnp.asarray(flip)) for flip in self.flip]

    @cached_property
    def gathered(self) -> CompletionPool:
        """`whole`, on one device where it was divided over several. Raises like `pool`."""
        if self.whole is None:
            raise TypeError(NEEDS_ALL)
        return _arrays.in_one_place(self.whole) if self.divided else self.whole

    @property
    def divided(self) -> bool:
        """Whether the pool is divided over devices, so that passes should go through the source."""
        return self.whole is not None and _arrays.over_prompts(self.whole.features) is not None

    @property
    def at_hand(self) -> bool:
        """Whether the pool is as a whole where float64 is computed, so that rows of pairs cost next to nothing."""
        return self.whole is not None and not self.divided and _arrays.algebra_device() is None

    def part(self, prompts: Int[np.ndarray, " m"]) -> CompletionPool:
        """Some prompts as a pool in memory, in order; of a source a copy of their features."""
        if self.whole is None or self.divided:
            return pool_of(self.source, prompts)
        return self._part(self.whole, prompts)

    def _part(self, whole: CompletionPool, prompts: Int[np.ndarray, " m"]) -> CompletionPool:
        if self.flip is None and len(prompts) == whole.num_prompts:
            return whole
        who, given = np.divmod(prompts, whole.num_prompts)
        part = prompts_of(whole, given)
        return part if self.flip is None else with_flip(part, jnp.asarray(self.flip[who, given]))

    @property
    def dim(self) -> int:
        """d."""
        return self.source.dim

    @property
    def prompts(self) -> int:
        """P."""
        return self.source.prompts

    @property
    def completions(self) -> int:
        """K."""
        return self.source.completions

    @property
    def skipped_prompts(self) -> int:
        """Prompts with fewer than two completions."""
        return int(np.sum(self.exists.sum(axis=1) < 2))

    @cached_property
    def even(self) -> Float[np.ndarray, "r d d"]:
        """Prior plus the information of `total` labels spread evenly over all candidate pairs, caps aside; float64."""
        if self.whole is None or self.flip is not None or len(self.decided.closed):
            info = all_information(self.source)
        else:
            info = kept(self.whole, "information", lambda: all_information(self.source))
        return self.prior + info * (self.limits.total / self.pair_counts.sum())

    def at_algebra(self) -> Problem:
        """The problem with its passes, and parts of its pool, where float64 is computed."""
        if _arrays.algebra_device() is None:
            return self
        return replace(self, whole=None, source=at_algebra(self.source))

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
    return criterion_for(criterion, pool.dim, pool.num_draws)


def criterion_for(criterion: Any, dim: int, draws: int | None) -> ConvexCriterion:
    """`checked_criterion` for so many dimensions and draws; None: scores have no axis of draws."""
    if isinstance(criterion, type) or not isinstance(criterion, CriterionLike):
        raise TypeError(
            f"crit: expected LogDet(), Trace(H), WorstCase(targets) or Criterion(function), found {criterion!r}"
        )
    criterion = adapted(criterion)
    criterion.check(dim, draws)
    return criterion


def traceable_prior(prior: Any, pool: CompletionPool) -> Float[Array, "r d d"]:
    """Prior as (R, d, d) float64, traced or not; its values are checked where they are concrete."""
    draws, dim = pool.num_draws or 1, pool.dim
    prior = precision_of(prior, dim)
    if not _arrays.is_traced(prior):
        return jnp.asarray(prior_matrix(prior, dim, draws))
    if prior.shape not in ((), (dim, dim), (draws, dim, dim)):
        raise ValueError(f"prior: shape {prior.shape} found; expected a scalar or {(dim, dim)}")
    prior = prior.astype(jnp.float64)
    return jnp.broadcast_to(prior * jnp.eye(dim) if prior.ndim == 0 else prior, (draws, dim, dim))


def prior_matrix(prior: Any, dim: int, draws: int) -> Float[np.ndarray, "r d d"]:
    """Prior information as (R, d, d) float64: zero for None, ridge times I for a scalar, the precision of a belief."""
    prior = precision_of(prior, dim)
    if prior is None:
        prior = 0.0
    if np.ndim(prior) == 0:
        try:
            ridge = float(prior)
        except (TypeError, ValueError) as error:
            raise TypeError(f"prior: expected a number or a (d, d) matrix, found {prior!r}") from error
        if not np.isfinite(ridge) or ridge < 0:
            raise ValueError(f"prior={ridge:g}: a ridge must be finite and at least 0")
        matrix = ridge * np.eye(dim)
    else:
        matrix = _checks.symmetric_psd(prior, dim, "prior", (draws,))
    return np.broadcast_to(matrix, (draws, dim, dim)).copy()
