"""Column generation: price the pool, merge the violators into a working set, solve the restricted problem, repeat.

Hot start: multiplicative steps with large powers over all pairs find where the support is; projected gradient steps on
a working set of about twice the support clean it. Then each round solves the restricted problem, by projected gradients
while the gap is large and by a Newton step once it is small: each round cuts the gap 5 to 80 times, so a handful of
passes over the pool suffice where first-order methods need hundreds. The working set shrinks from round to round:
pairs that are left at zero leave it, and, with caps, pairs that are at the cap for good, which stay fixed. Within a
restricted problem it does not: of the pairs a gradient phase begins with, 60 to 85% are positive when it ends, so that
no more than 2 to 7% of a call could be saved, for a second copy of the rows.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays
from jaxdesign._pairs import Allocation, not_among, pair_keys
from jaxdesign.analysis import check_rank, exact_sensitivities
from jaxdesign.budget.kinds import LAMINAR
from jaxdesign.budget.limits import capacity
from jaxdesign.budget.oracle import linear_oracle
from jaxdesign.design import Design
from jaxdesign.methods import spectral_gradient
from jaxdesign.methods.projection import project
from jaxdesign.pricing.listed import Held
from jaxdesign.problem import Problem
from jaxdesign.solvers.column_generation import working_set
from jaxdesign.solvers.column_generation.hot_start import (
    HotStart,
    hot_start,
    leading_pairs,
    pairs_at,
    positive_entries,
    starting_level,
)
from jaxdesign.solvers.column_generation.newton import newton_step
from jaxdesign.solvers.states import Scored, SolverState, prompt_levels, solver_state, warm_state

NEWTON_BELOW = 0.08  # relative gap below which the quadratic model is good
BLUR = 1e-3  # share of a level that a pass may be off by without a pair being missed
PRODUCTS = 100  # Hessian products of one Newton step
TOLERANCES = 1e-3, 1e-2  # of its quadratic model


class Restricted(NamedTuple):
    """A restricted problem: the first `at_work` pairs move, the others are fixed."""

    pairs: Int[np.ndarray, "s 3"]
    labels: Float[np.ndarray, " s"]
    at_work: int
    average: float  # sensitivity of a label, on average: the unit of the restricted problem

    @property
    def moving(self) -> Allocation:
        """The pairs that move."""
        return Allocation(self.pairs[: self.at_work], self.labels[: self.at_work])

    @property
    def fixed(self) -> Allocation:
        """The others."""
        return Allocation(self.pairs[self.at_work :], self.labels[self.at_work :])


class ColumnGeneration(NamedTuple):
    """The default solver, with and without caps and quotas.

    Args:
        max_passes: pricing passes after which to stop, where the caller names no limit.
        patience: passes without a smaller gap after which it has stalled.
    """

    max_passes: int = 60
    patience: int = 6
    obeys = LAMINAR

    def init(self, problem: Problem, start: Design | None) -> SolverState:
        if start is not None and (warm := warm_state(problem, start)) is not None:
            return warm
        check_rank(problem)
        hot = hot_start(problem)
        cap = np.minimum(problem.limits.per_pair[hot.prompts], problem.limits.total)
        level = starting_level(hot, cap)
        limit = working_set.capacity(problem) * 3 // 4
        pairs, labels = holding_total(problem, hot, leading_pairs(hot, cap, level, limit))
        average = hot.criterion_slope() / problem.limits.total
        restricted = Restricted(pairs, labels, min(limit, len(pairs)), average)
        held = working_set.at_hand(problem, hot.source, restricted.pairs)
        state = solver_state(problem, Allocation(pairs, by_gradients(problem, restricted, held, 24)), hot.passes)
        return state._replace(held=held, known=hot.known)

    def step(self, problem: Problem, state: SolverState, scored: Scored, tol: float) -> SolverState:
        restricted = merge(problem, state, scored)
        held = working_set.at_hand(problem, problem.source, restricted.pairs, state.held)
        if scored.relative_gap < NEWTON_BELOW:
            labels = by_newton(problem, restricted, held, newton_tolerance(scored.relative_gap, tol))
        else:
            labels = by_gradients(problem, restricted, held, 40)
        return solver_state(problem, Allocation(restricted.pairs, labels), state.passes)._replace(held=held)


def holding_total(problem: Problem, hot: HotStart, allocation: Allocation) -> Allocation:
    """The list, extended until caps and quotas let it hold the whole total; added pairs come last and stay fixed."""
    pairs, labels = allocation
    limits = problem.limits
    counts = np.bincount(pairs[:, 0], minlength=len(limits.per_pair)).astype(np.float64)
    if capacity(limits, counts) >= limits.total * (1 + 1e-9):
        return allocation
    index, values, _ = positive_entries(hot, 0.0)
    positive = pairs_at(hot, index)
    oracle = linear_oracle(limits, positive, values)
    added = (oracle.labels > 0) & not_among(positive, pairs, problem.completions)
    return Allocation(np.concatenate([pairs, positive[added]]), np.concatenate([labels, values[added]]))


def merge(problem: Problem, state: SolverState, scored: Scored) -> Restricted:
    """Working set of the next round: what is not fixed at the cap, and the pairs that violate optimality most."""
    completions, priced = problem.completions, scored.priced
    levels = np.maximum(prompt_levels(problem, state.allocation, scored.sensitivities), 1e-300)
    level, gap = float(levels.min()), min(scored.relative_gap, 1.0)
    limit = 3 * problem.dim + 256
    best, values = entered_above(problem, scored, level * (1 + 0.1 * gap), 4 * limit)
    new, first = np.unique(np.concatenate([priced.pairs, best]), axis=0, return_index=True)
    values = np.concatenate([priced.sensitivities, values])[first]
    entry = entry_levels(problem, state, scored.sensitivities, levels)
    useful = (values > entry[new[:, 0]]) & not_among(new, state.pairs, completions)
    new, values = new[useful], values[useful]
    chosen = diverse(new, values / entry[new[:, 0]], completions, 2, limit)
    new, values = new[chosen], values[chosen]

    rivals = levels.copy()  # a pair at its cap is safe there only if no pair left out of its prompt is better
    np.maximum.at(rivals, new[:, 0], np.where(np.isfinite(problem.limits.per_prompt[new[:, 0]]), values, 0))
    excess = scored.sensitivities / rivals[state.pairs[:, 0]] - 1
    full = state.labels >= problem.limits.per_pair[state.pairs[:, 0]] * (1 - 1e-6)
    fixed = full & (excess > max(0.02, 10 * gap))
    surplus = int((~fixed).sum()) + len(new) - working_set.capacity(problem)
    if surplus > 0:  # too many pairs at work: those furthest from indifference stay as they are
        at_work = np.flatnonzero(~fixed)
        fixed[at_work[np.argsort(-np.abs(excess[at_work]), kind="stable")[:surplus]]] = True
    pairs = np.concatenate([state.pairs[~fixed], new, state.pairs[fixed]])
    labels = np.concatenate([state.labels[~fixed], np.zeros(len(new)), state.labels[fixed]])
    average = float(scored.sensitivities @ state.labels) / problem.limits.total
    return Restricted(pairs, labels, int((~fixed).sum()) + len(new), average)


def entry_levels(
    problem: Problem, state: SolverState, b: Float[np.ndarray, " s"], levels: Float[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    """Sensitivity that a new pair of each prompt has to exceed to be of use.

    A prompt at its quota takes labels for a new pair from its own pairs alone: the worst of them has to be worse. Pairs
    that only exceed the level of the other prompts would take the places of pairs that help.
    """
    prompts, most = state.pairs[:, 0], problem.limits.per_prompt
    worst, spent = np.full(len(most), np.inf), np.bincount(prompts, weights=state.labels, minlength=len(most))
    np.minimum.at(worst, prompts, b)
    return np.where(spent >= most * (1 - 1e-6), np.maximum(levels, worst), levels)


def entered_above(
    problem: Problem, scored: Scored, level: float, number: int
) -> tuple[Int[np.ndarray, "m 3"], Float[np.ndarray, " m"]]:
    """The best pairs that a pass brought back, by their float64 values: what is chosen depends on no rounding of it."""
    swept = scored.priced.swept
    pairs = swept.entered[swept.values > level * (1 - BLUR)][: 2 * number]
    b = exact_sensitivities(problem, pairs, scored.analysis.factors)
    order = np.lexsort((pair_keys(pairs, problem.completions), -b))[:number]
    order = order[b[order] > level]
    return pairs[order], b[order]


def by_gradients(
    problem: Problem, restricted: Restricted, held: Held | None, iterations: int
) -> Float[np.ndarray, " s"]:
    """Labels after at most `iterations` projected gradient steps on the restricted problem."""
    with _arrays.float64():
        ws, criterion, u = _gather(problem, restricted, held)
        return _labels(restricted, ws, _gradients(ws, criterion, u, iterations))


@jax.jit
def _gradients(ws, criterion, u, iterations):
    objective = working_set.objective(ws, criterion)
    return spectral_gradient.minimise(objective, lambda v: project(v, ws.room), u, 0.05, iterations, 5e-5).x


def newton_tolerance(gap: float, tol: float) -> float:
    """Of a Newton step's quadratic model: what is left to gain falls as the square of the gap, which is to reach tol.

    A third of tol is aimed at, because pairs that enter the next pass have their share.
    """
    return float(np.clip((tol / (3 * max(gap, 1e-300))) ** 2, *TOLERANCES))


def by_newton(problem: Problem, restricted: Restricted, held: Held | None, tolerance: float) -> Float[np.ndarray, " s"]:
    """Labels after a Newton step on the restricted problem; for `tolerance` see `newton_step`."""
    with _arrays.float64():
        ws, criterion, u = _gather(problem, restricted, held)
        return _labels(restricted, ws, _newton(ws, criterion, u, PRODUCTS, tolerance))


_newton = jax.jit(newton_step)


def _gather(problem, restricted, held):
    unit = max(restricted.average * problem.limits.total / problem.dim, 1e-300)
    return working_set.gather(problem, restricted.moving, restricted.fixed, unit, held)


def _labels(restricted, ws, u):
    moved = np.asarray(u, np.float64)[: restricted.at_work] * float(ws.scale)
    return np.concatenate([moved, restricted.labels[restricted.at_work :]])


def diverse(
    pairs: Int[np.ndarray, "s 3"], values: Float[np.ndarray, " s"], completions: int, per_completion: int, limit: int
) -> np.ndarray:
    """Indices of the largest values, taking no more than `per_completion` pairs of any first completion."""
    order = np.argsort(-values, kind="stable")
    owner = pairs[order, 0].astype(np.int64) * completions + pairs[order, 1]
    by_owner = np.argsort(owner, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[by_owner] = np.arange(len(order)) - np.searchsorted(owner[by_owner], owner[by_owner], side="left")
    return order[rank < per_completion][:limit]
