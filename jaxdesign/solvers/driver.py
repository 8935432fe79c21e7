"""The one loop behind `optimize`: certify, report, stop or step.

A solver is two pure functions, `init` and `step`, over a `SolverState`; the loop prices the pool once per step, keeps
the best lower bound of all passes (each is valid for the same problem) and returns the best allocation met.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

from jaxdesign.certify import Priced, blurred, certify, cold_level, from_bound
from jaxdesign.certify_coupled import certify_coupled
from jaxdesign.criteria import LogDet
from jaxdesign.decided import added_up, with_required
from jaxdesign.design import Design, TraceRow
from jaxdesign.problem import Analysis, Problem, analyse, exact_sensitivities, information, singular, usable
from jaxdesign.status import Status

BLURRED = 1e-10  # relative gap by rounding alone below which no problem is called ill-conditioned
RETREATS = (0, 1e-4, 1e-2, 0.5)  # shares of the best allocation that a singular one is mixed with


class SolverState(NamedTuple):
    """Allocation between two passes."""

    pairs: Int[np.ndarray, "s 3"]  # in order (p, i, j)
    labels: Float[np.ndarray, " s"]  # positive, summing to the total
    passes: int  # over the pool so far, those inside of `init` and `step` included
    memory: Any = None  # the solver's own


class Scored(NamedTuple):
    """An allocation with everything one pass tells about it."""

    matrix: Float[np.ndarray, "r d d"]
    analysis: Analysis
    sensitivities: Float[np.ndarray, " s"]  # of the allocation's pairs, float64
    priced: Priced
    relative_gap: float


class Solver(Protocol):
    """What the loop needs of a solver."""

    max_passes: int  # default limit
    patience: int  # passes without a smaller gap after which it has stalled

    def init(self, problem: Problem, start: Design | None) -> SolverState:
        """First allocation; from an earlier design where one is given."""

    def step(self, problem: Problem, state: SolverState, scored: Scored, tol: float) -> SolverState:
        """A better allocation."""


def run(
    problem: Problem,
    solver: Solver,
    *,
    tol: float,
    max_passes: int | None,
    start: Design | None,
    callback: Callable[[TraceRow], bool | None] | None,
) -> Design:
    """Drive a solver until its relative gap is at most tol; see `optimize` for the arguments."""
    began = time.perf_counter()
    limit = solver.max_passes if max_passes is None else max_passes
    state = solver.init(problem, start)
    bound, trace = -np.inf, []
    best: tuple[SolverState, Analysis] | None = None
    improved_at = 0
    while True:
        state, matrix, analysis = retreated(problem, state, solver if best is None else best[0])
        scored = score(problem, state, matrix, analysis)
        state = state._replace(passes=state.passes + scored.priced.passes)
        bound = max(bound, scored.priced.certificate.lower_bound)
        if best is None or scored.analysis.value < best[1].value:
            best = state, scored.analysis
        now = from_bound(problem, best[1], bound)
        if not trace or now.gap < 0.98 * trace[improved_at].gap:
            improved_at = len(trace)
        trace.append(TraceRow(state.passes, now.value, now.lower_bound, now.gap, time.perf_counter() - began))
        status = None
        if now.relative_gap() <= tol:
            status = Status.CERTIFIED
        if callback is not None and callback(trace[-1]) and status is None:
            status = Status.STOPPED_BY_CALLBACK
        if status is None and state.passes >= limit:
            status = Status.NOT_CERTIFIED
        if status is None and len(trace) - 1 - improved_at >= solver.patience:
            status = Status.PRECISION_LIMIT
        if status in (Status.NOT_CERTIFIED, Status.PRECISION_LIMIT):
            rounding = blurred(problem, best[1])
            if rounding > max(tol / 4, BLURRED) and now.relative_gap() < 20 * rounding:
                status = Status.ILL_CONDITIONED
        if status is not None:
            pairs, labels = with_required(problem.decided, best[0].pairs, best[0].labels)
            return Design(pairs, labels, now, status, state.passes, tuple(trace), problem.skipped_prompts)
        state = solver.step(problem, state, scored, tol)


def retreated(
    problem: Problem, state: SolverState, base: SolverState | Solver
) -> tuple[SolverState, Float[np.ndarray, "r d d"], Analysis]:
    """The state where its information is regular, or else mixed with another one until it is; A, its analysis.

    Where a target leaves directions out, the best information may itself be singular, and steps reach it. The other
    one is the best so far, or, before there is any, what the solver begins LogDet with, which leaves no direction out.

    Raises:
        ValueError: that is singular too.
    """
    for share in RETREATS:
        if share and not isinstance(base, SolverState):
            base = base.init(replace(problem, criterion=LogDet()), None)
        kept = state if share == 0 else mixed_with(state, base, share)
        matrix = information(problem, kept.pairs, kept.labels)
        analysis = analyse(problem, matrix)
        if usable(problem, analysis) and not singular(problem, matrix):
            return kept, matrix, analysis
    matrix = information(problem, base.pairs, base.labels)
    analysis = analyse(problem, matrix)
    if not usable(problem, analysis) or singular(problem, matrix):
        raise ValueError(
            "prior: the information is singular to working precision at a solver's iterate; pass a prior (a ridge), "
            "or a larger one, or use jaxdesign.restrict_to_range(pool, rtol) with a larger rtol"
        )
    return base._replace(passes=state.passes), matrix, analysis


def mixed_with(state: SolverState, best: SolverState, share: float) -> SolverState:
    """The allocation with `share` of its labels given up for another one's; allowed as both are."""
    pairs = np.concatenate([state.pairs, best.pairs])
    pairs, labels = added_up(pairs, np.concatenate([(1 - share) * state.labels, share * best.labels]))
    return state._replace(pairs=pairs, labels=labels)


def score(problem: Problem, state: SolverState, matrix: Float[np.ndarray, "r d d"], analysis: Analysis) -> Scored:
    """Certify an allocation, with its information and that one's analysis, in one pass."""
    on_support = exact_sensitivities(problem, state.pairs, analysis.factors)
    if problem.limits.coupling is not None:
        priced = certify_coupled(problem, matrix, analysis, state.pairs, state.labels)
        return Scored(matrix, analysis, on_support, priced, priced.certificate.relative_gap())
    level = listing_level(problem, state, on_support)
    priced = certify(problem, matrix, analysis, level)
    if priced.oracle.labels.sum() < 0.99 * problem.limits.total:  # the guess was too high to certify well
        priced = certify(problem, matrix, analysis, cold_level(problem, analysis))
    return Scored(matrix, analysis, on_support, priced, priced.certificate.relative_gap())


def listing_level(problem: Problem, state: SolverState, b: Float[np.ndarray, " s"]) -> float:
    """Sensitivity down to which pairs are listed: what the oracle will need, judged from the allocation's own pairs."""
    limits = problem.limits
    if not limits.has_caps and not limits.has_quotas:
        return float(b.max())
    levels = prompt_levels(problem, state.pairs, state.labels, b)
    off = np.abs(b / np.maximum(levels[state.pairs[:, 0]], 1e-300) - 1)
    spread = np.average(off, weights=movable(problem, state.pairs, state.labels) + 1e-12)
    return float(levels.min() * (1 - min(0.5, 2e-6 + 2 * spread)))


def movable(problem: Problem, pairs: np.ndarray, labels: np.ndarray) -> Float[np.ndarray, " s"]:
    """Labels a pair could both lose and gain; 0 at the cap."""
    cap = problem.limits.per_pair[pairs[:, 0]]
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(cap), labels, labels * np.maximum(1 - labels / cap, 0))


def prompt_levels(
    problem: Problem, pairs: np.ndarray, labels: np.ndarray, b: Float[np.ndarray, " s"]
) -> Float[np.ndarray, " p"]:
    """Sensitivity at which a pair would be indifferent: one for all prompts, more for a prompt held by its quota."""
    limits, prompts = problem.limits, pairs[:, 0]
    weight, size = movable(problem, pairs, labels), len(limits.per_prompt)
    level = free_level(problem, pairs, labels, b)
    held = np.bincount(prompts, weights=labels, minlength=size) >= limits.per_prompt * (1 - 1e-6)
    mass = np.bincount(prompts, weights=weight, minlength=size)
    mean = np.bincount(prompts, weights=weight * b, minlength=size) / np.maximum(mass, 1e-300)
    own = held & (mass > 1e-6 * np.minimum(limits.per_prompt, limits.total))
    return np.where(own, np.maximum(mean, level), level)


def free_level(problem: Problem, pairs: np.ndarray, labels: np.ndarray, b: Float[np.ndarray, " s"]) -> float:
    """Mean sensitivity of the pairs that are free to move in prompts below their quota.

    Where there is none, the level lies anywhere below all pairs with labels: the smallest of theirs.
    """
    limits, prompts = problem.limits, pairs[:, 0]
    spent = np.bincount(prompts, weights=labels, minlength=len(limits.per_prompt))
    loose = (spent < limits.per_prompt * (1 - 1e-6))[prompts]
    weight = movable(problem, pairs, labels) * loose
    if weight.sum() > 1e-9 * limits.total:
        return float(weight @ b / weight.sum())
    return float(b.min())
