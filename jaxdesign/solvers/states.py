"""What a solver is, and what passes between its steps: allocations, what a pass tells about them, levels.

A solver is two pure functions, `init` and `step`, over a `SolverState`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdesign._pairs import Allocation, check_pairs_exist, not_among, pair_keys
from jaxdesign.analysis import Analysis, analyse, information, usable
from jaxdesign.budget.limits import capacity
from jaxdesign.budget.oracle import exact_total
from jaxdesign.budget.required import free_part
from jaxdesign.certificates.separable import Priced, certify, cold_level
from jaxdesign.design import Design
from jaxdesign.pricing.ceilings import Ceilings
from jaxdesign.pricing.listed import Held
from jaxdesign.problem import Problem


class SolverState(NamedTuple):
    """Allocation between two passes.

    Args:
        pairs: (S, 3) int32, in order (p, i, j).
        labels: (S,) float64, positive, summing to the total.
        passes: over the pool so far, those inside of `init` and `step` included.
        memory: the solver's own.
        known: what passes so far say of every prompt; the loop keeps it up.
        held: rows of pairs that are at hand, of a pool that lies elsewhere; None: none, all can be asked for again.
    """

    pairs: Int[np.ndarray, "s 3"]
    labels: Float[np.ndarray, " s"]
    passes: int
    memory: Any = None
    known: Ceilings | None = None
    held: Held | None = None

    @property
    def allocation(self) -> Allocation:
        """Pairs and labels together."""
        return Allocation(self.pairs, self.labels)


class Scored(NamedTuple):
    """An allocation with everything one pass says about it.

    Args:
        matrix: A, (R, d, d) float64.
        analysis: value, gradient and factors at A.
        sensitivities: (S,) float64, of the allocation's pairs.
        priced: the listed pairs, the linear oracle and the bound.
        relative_gap: 1 - efficiency, as `Certificate.relative_gap`.
    """

    matrix: Float[np.ndarray, "r d d"]
    analysis: Analysis
    sensitivities: Float[np.ndarray, " s"]
    priced: Priced
    relative_gap: float


@runtime_checkable
class Solver(Protocol):
    """What the loop needs of a solver.

    `max_passes` and `patience` may be attributes. One more, `obeys`, may name the fields of `Budget` whose limits all
    allocations of the solver obey (`budget.kinds`), so that it is refused where a budget sets others; without it the
    solver is taken to obey them all.

    A solver whose states have a memory may have `memory_arrays(memory)`, a dict of NumPy arrays that holds it, and
    `memory_from(problem, arrays)`, the same memory again: runs of its own can then be written to a checkpoint.

    Source: derived; checked by tests/extensions/test_new_solver.py, which adds one.
    """

    @property
    def max_passes(self) -> int:
        """Passes over the pool after which to stop, where the caller sets no limit."""
        ...

    @property
    def patience(self) -> int:
        """Passes without a smaller gap after which it has stalled."""
        ...

    def init(self, problem: Problem, start: Design | None) -> SolverState:
        """First allocation.

        Args:
            problem: what is solved.
            start: an earlier design to begin with; None: the solver's own beginning.

        Returns:
            SolverState of an allowed allocation with regular information.
        """
        ...

    def step(self, problem: Problem, state: SolverState, scored: Scored, tol: float) -> SolverState:
        """A better allocation.

        Args:
            problem: what is solved.
            state: the last allocation.
            scored: what a pass said about it.
            tol: relative gap asked for.

        Returns:
            SolverState of an allowed allocation.
        """
        ...


def movable(problem: Problem, allocation: Allocation) -> Float[np.ndarray, " s"]:
    """Labels a pair could both lose and gain; 0 at the cap."""
    pairs, labels = allocation
    cap = problem.limits.per_pair[pairs[:, 0]]
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(cap), labels, labels * np.maximum(1 - labels / cap, 0))


def prompt_levels(problem: Problem, allocation: Allocation, b: Float[np.ndarray, " s"]) -> Float[np.ndarray, " p"]:
    """Sensitivity at which a pair would be indifferent: one for all prompts, more for a prompt at its quota."""
    pairs, labels = allocation
    limits, prompts = problem.limits, pairs[:, 0]
    weight, size = movable(problem, allocation), len(limits.per_prompt)
    level = free_level(problem, allocation, b)
    at_quota = np.bincount(prompts, weights=labels, minlength=size) >= limits.per_prompt * (1 - 1e-6)
    mass = np.bincount(prompts, weights=weight, minlength=size)
    mean = np.bincount(prompts, weights=weight * b, minlength=size) / np.maximum(mass, 1e-300)
    has_level = at_quota & (mass > 1e-6 * np.minimum(limits.per_prompt, limits.total))
    return np.where(has_level, np.maximum(mean, level), level)


def free_level(problem: Problem, allocation: Allocation, b: Float[np.ndarray, " s"]) -> float:
    """Mean sensitivity of the pairs that are free to move in prompts below their quota.

    Where there is none, the level lies anywhere below all pairs with labels: the smallest of theirs.
    """
    pairs, labels = allocation
    limits, prompts = problem.limits, pairs[:, 0]
    spent = np.bincount(prompts, weights=labels, minlength=len(limits.per_prompt))
    below_quota = (spent < limits.per_prompt * (1 - 1e-6))[prompts]
    weight = movable(problem, allocation) * below_quota
    if weight.sum() > 1e-9 * limits.total:
        return float(weight @ b / weight.sum())
    return float(b.min())


DROPPED = 1e-7  # labels below this share of the mean are dropped


def warm_state(problem: Problem, start: Design) -> SolverState | None:
    """An earlier design scaled to this budget, with the best other pairs where its own cannot hold the total.

    None where it leaves A singular, so that the solver starts afresh.
    """
    check_pairs_exist(problem.exists, start.pairs)
    pairs, labels = free_part(problem.decided, Allocation(start.pairs, start.labels), problem.completions)
    if not len(pairs):
        return None
    matrix = information(problem, Allocation(pairs, labels))
    analysis = analyse(problem, matrix)
    if not usable(problem, analysis):
        return None
    counts = np.bincount(pairs[:, 0], minlength=len(problem.limits.per_pair)).astype(np.float64)
    passes = 0
    if capacity(problem.limits, counts) < problem.limits.total * (1 - 1e-9):
        priced = certify(problem, matrix, analysis, cold_level(problem, analysis))
        passes, oracle = 2, priced.oracle.labels
        added = (oracle > 0) & not_among(priced.pairs, pairs, problem.completions)
        if capacity(problem.limits, counts) + oracle[added].sum() < problem.limits.total:
            return None
        pairs = np.concatenate([pairs, priced.pairs[added]])
        labels = np.concatenate([labels, 1e-3 * oracle[added]])
    return solver_state(problem, Allocation(pairs, labels), passes)


def solver_state(problem: Problem, allocation: Allocation, passes: int) -> SolverState:
    """State of the labels that are not dropped, in the order of the pairs, summing to the total."""
    pairs, labels = allocation
    keep = labels > DROPPED * problem.limits.total / max(len(labels), 1)
    pairs, labels = pairs[keep], labels[keep]
    order = np.argsort(pair_keys(pairs, problem.completions))
    pairs, labels = pairs[order], labels[order]
    return SolverState(pairs, exact_total(problem.limits, Allocation(pairs, labels)), passes)


def all_but_smallest(problem: Problem, allocation: Allocation, share: float) -> Bool[np.ndarray, " s"]:
    """True for all but the smallest labels, of at most `share` of the total, if the caps let the rest hold it."""
    pairs, labels = allocation
    order = np.argsort(labels, kind="stable")
    keep = np.ones(len(labels), bool)
    keep[order[np.cumsum(labels[order]) <= share * problem.limits.total]] = False
    counts = np.bincount(pairs[keep, 0], minlength=problem.prompts).astype(np.float64)
    return keep if capacity(problem.limits, counts) >= problem.limits.total * (1 + 1e-9) else np.ones(len(labels), bool)
