"""Column generation: price the pool, merge the violators into a working set, solve the restricted problem, repeat.

Hot start: multiplicative steps with large powers over all pairs find where the support is; projected gradient steps on
a working set of about twice the support clean it. Then each round solves the restricted problem, by projected gradients
while the gap is large and by a Newton step once it is small: each round cuts the gap 5 to 80 times, so a handful of
passes over the pool suffice where first-order methods need hundreds. With caps, pairs that are at the cap for good are
fixed and leave the working set.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays
from jaxdesign.budget import capacity, exact_total, linear_oracle
from jaxdesign.certify import certify, cold_level
from jaxdesign.decided import free_part, pair_keys
from jaxdesign.design import Design
from jaxdesign.information import check_pairs
from jaxdesign.pricing.memory import best_pairs
from jaxdesign.problem import Problem, analyse, check_rank, information, usable
from jaxdesign.solvers import spectral, working_set
from jaxdesign.solvers.driver import Scored, SolverState, prompt_levels
from jaxdesign.solvers.feasible import project
from jaxdesign.solvers.hot_start import (
    HotStart,
    hot_start,
    leading_pairs,
    pairs_at,
    positive_entries,
    starting_level,
)
from jaxdesign.solvers.newton import newton_step
from jaxdesign.solvers.support import diverse, not_among

NEWTON_BELOW = 0.02  # relative gap below which the quadratic model is good
PRODUCTS = 100  # Hessian products of one Newton step
DUST = 1e-7  # labels below this share of the mean are dropped


class Restricted(NamedTuple):
    """A restricted problem: the first `at_work` pairs move, the others are fixed."""

    pairs: Int[np.ndarray, "s 3"]
    labels: Float[np.ndarray, " s"]
    at_work: int
    average: float  # sensitivity of a label, on average: the unit of the restricted problem


class ColumnGeneration(NamedTuple):
    """The default solver, with and without caps and quotas."""

    max_passes: int = 60
    patience: int = 6

    def init(self, problem: Problem, start: Design | None) -> SolverState:
        if start is not None and (warm := warm_state(problem, start)) is not None:
            return warm
        check_rank(problem)
        begun = hot_start(problem)
        inside = np.minimum(begun.prompts, problem.pool.num_prompts - 1)
        cap = np.minimum(problem.limits.per_pair[inside], problem.limits.total)
        level = starting_level(begun, cap)
        limit = working_set.capacity(problem) * 3 // 4
        pairs, labels = holding_total(problem, begun, *leading_pairs(begun, cap, level, limit))
        average = begun.criterion_slope() / problem.limits.total
        restricted = Restricted(pairs, labels, min(limit, len(pairs)), average)
        return solver_state(problem, pairs, by_gradients(problem, restricted, 24), begun.passes)

    def step(self, problem: Problem, state: SolverState, scored: Scored, tol: float) -> SolverState:
        restricted = merge(problem, state, scored)
        if scored.relative_gap < NEWTON_BELOW:
            labels = by_newton(problem, restricted)
        else:
            labels = by_gradients(problem, restricted, 40)
        return solver_state(problem, restricted.pairs, labels, state.passes)


def warm_state(problem: Problem, start: Design) -> SolverState | None:
    """An earlier design scaled to this budget, with the best other pairs where its own cannot hold the total.

    None where it leaves A singular, so that the solver starts afresh.
    """
    check_pairs(problem.pool, start.pairs)
    pairs, labels = free_part(problem.decided, start.pairs, start.labels, problem.pool.completions)
    if not len(pairs):
        return None
    matrix = information(problem, pairs, labels)
    analysis = analyse(problem, matrix)
    if not usable(problem, analysis):
        return None
    counts = np.bincount(pairs[:, 0], minlength=len(problem.limits.per_pair)).astype(np.float64)
    passes = 0
    if capacity(problem.limits, counts) < problem.limits.total * (1 - 1e-9):
        priced = certify(problem, matrix, analysis, cold_level(problem, analysis))
        passes, oracle = 2, priced.oracle.labels
        more = (oracle > 0) & not_among(priced.pairs, pairs, problem.pool.completions)
        if capacity(problem.limits, counts) + oracle[more].sum() < problem.limits.total:
            return None
        pairs = np.concatenate([pairs, priced.pairs[more]])
        labels = np.concatenate([labels, 1e-3 * oracle[more]])
    return solver_state(problem, pairs, labels, passes)


def holding_total(
    problem: Problem, begun: HotStart, pairs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The list, extended until caps and quotas let it hold the whole total; added pairs come last and stay fixed."""
    limits = problem.limits
    counts = np.bincount(pairs[:, 0], minlength=len(limits.per_pair)).astype(np.float64)
    if capacity(limits, counts) >= limits.total * (1 + 1e-9):
        return pairs, labels
    index, values, _ = positive_entries(begun, 0.0)
    every = pairs_at(begun, index)
    oracle = linear_oracle(limits, every, values)
    more = (oracle.labels > 0) & not_among(every, pairs, problem.pool.completions)
    return np.concatenate([pairs, every[more]]), np.concatenate([labels, values[more]])


def solver_state(problem: Problem, pairs: np.ndarray, labels: np.ndarray, passes: int) -> SolverState:
    """State without dust, in the order of the pairs, summing to the total."""
    keep = labels > DUST * problem.limits.total / max(len(labels), 1)
    pairs, labels = pairs[keep], labels[keep]
    order = np.argsort(pair_keys(pairs, problem.pool.completions))
    pairs, labels = pairs[order], labels[order]
    return SolverState(pairs, exact_total(problem.limits, pairs, labels), passes)


def merge(problem: Problem, state: SolverState, scored: Scored) -> Restricted:
    """Working set of the next round: what is not fixed at the cap, and the pairs that violate optimality most."""
    completions, priced = problem.pool.completions, scored.priced
    levels = np.maximum(prompt_levels(problem, state.pairs, state.labels, scored.sensitivities), 1e-300)
    level, gap = float(levels.min()), min(scored.relative_gap, 1.0)
    limit = 3 * problem.dim + 256
    found, values = best_pairs(priced.result, level * (1 + 0.1 * gap), 4 * limit, priced.result.unit)
    new, first = np.unique(np.concatenate([priced.pairs, found]), axis=0, return_index=True)
    values = np.concatenate([priced.sensitivities, values])[first]
    useful = (values > levels[new[:, 0]]) & not_among(new, state.pairs, completions)
    new, values = new[useful], values[useful]
    chosen = diverse(new, values / levels[new[:, 0]], completions, 2, limit)
    new, values = new[chosen], values[chosen]

    rivals = levels.copy()  # a pair at its cap is safe there only if no pair left out of its prompt is better
    np.maximum.at(rivals, new[:, 0], np.where(np.isfinite(problem.limits.per_prompt[new[:, 0]]), values, 0))
    lean = scored.sensitivities / rivals[state.pairs[:, 0]] - 1
    full = state.labels >= problem.limits.per_pair[state.pairs[:, 0]] * (1 - 1e-6)
    fixed = full & (lean > max(0.02, 10 * gap))
    crowd = int((~fixed).sum()) + len(new) - working_set.capacity(problem)
    if crowd > 0:  # too many pairs at work: those whose sensitivity speaks most clearly stay as they are
        at_work = np.flatnonzero(~fixed)
        fixed[at_work[np.argsort(-np.abs(lean[at_work]), kind="stable")[:crowd]]] = True
    pairs = np.concatenate([state.pairs[~fixed], new, state.pairs[fixed]])
    labels = np.concatenate([state.labels[~fixed], np.zeros(len(new)), state.labels[fixed]])
    average = float(scored.sensitivities @ state.labels) / problem.limits.total
    return Restricted(pairs, labels, int((~fixed).sum()) + len(new), average)


def by_gradients(problem: Problem, restricted: Restricted, iterations: int) -> Float[np.ndarray, " s"]:
    """Labels after at most `iterations` projected gradient steps on the restricted problem."""
    with _arrays.float64():
        ws, criterion, u = _gather(problem, restricted)
        return _labels(restricted, ws, _gradients(ws, criterion, u, iterations))


@jax.jit
def _gradients(ws, criterion, u, iterations):
    objective = working_set.objective(ws, criterion)
    return spectral.minimise(objective, lambda v: project(v, ws.room), u, 0.05, iterations, 5e-5).x


def by_newton(problem: Problem, restricted: Restricted) -> Float[np.ndarray, " s"]:
    """Labels after a Newton step on the restricted problem."""
    with _arrays.float64():
        ws, criterion, u = _gather(problem, restricted)
        return _labels(restricted, ws, _newton(ws, criterion, u, PRODUCTS))


_newton = jax.jit(newton_step)


def _gather(problem, restricted):
    pairs, labels, at_work, average = restricted
    unit = max(average * problem.limits.total / problem.dim, 1e-300)
    return working_set.gather(problem, pairs[:at_work], labels[:at_work], (pairs[at_work:], labels[at_work:]), unit)


def _labels(restricted, ws, u):
    moved = np.asarray(u, np.float64)[: restricted.at_work] * float(ws.scale)
    return np.concatenate([moved, restricted.labels[restricted.at_work :]])
