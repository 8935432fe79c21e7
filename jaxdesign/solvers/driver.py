"""The one loop behind `optimize`: certify, report, stop or step.

The loop prices the pool once per step, keeps the best lower bound of all passes (each is valid for the same problem)
and returns the best allocation met.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float

from jaxdesign._pairs import Allocation, added_up
from jaxdesign.analysis import Analysis, analyse, exact_sensitivities, information, sound
from jaxdesign.budget.required import with_required
from jaxdesign.certificates.coupled import certify_allocation
from jaxdesign.certificates.separable import Pass, blurred, from_bound
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.design import Design, Status, TraceRow
from jaxdesign.problem import Problem
from jaxdesign.solvers.checkpoint import Checkpoint, Progress
from jaxdesign.solvers.states import Scored, Solver, SolverState, movable, prompt_levels

BLURRED = 1e-10  # relative gap by rounding alone below which no problem is called ill-conditioned
ENTERED = 64  # best pairs of completions that a pass brings back, for each dimension
RETREATS = (1e-4, 1e-2, 0.5)  # shares of the best allocation that a singular one is mixed with


def run(
    problem: Problem,
    solver: Solver,
    *,
    tol: float,
    max_passes: int | None,
    start: Design | None,
    callback: Callable[[TraceRow], bool | None] | None,
    checkpoint: Checkpoint | None = None,
) -> Design:
    """Drive a solver until its relative gap is at most tol; see `optimize` for the arguments."""
    began = time.perf_counter()
    limit = solver.max_passes if max_passes is None else max_passes
    progress = None if checkpoint is None else checkpoint.progress(problem)
    if progress is None:
        progress = Progress(solver.init(problem, start))
        if checkpoint is not None:
            checkpoint.keep(progress)
    state, found, bound, trace, improved_at = progress
    best: tuple[SolverState, Analysis] | None = None
    if found is not None:
        best = found, analyse(problem, information(problem, found.allocation, found.held))
        began -= trace[-1].seconds
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
        seconds = time.perf_counter() - began
        trace = (*trace, TraceRow(state.passes, now.value, now.lower_bound, now.gap, seconds))
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
            pairs, labels = with_required(problem.decided, Allocation(best[0].pairs, best[0].labels))
            return Design(pairs, labels, now, status, state.passes, trace, problem.skipped_prompts)
        state = solver.step(problem, state, scored, tol)._replace(known=scored.priced.swept.ceilings)
        if checkpoint is not None:
            checkpoint.keep(Progress(state, best[0], bound, trace, improved_at))


def retreated(
    problem: Problem, state: SolverState, base: SolverState | Solver
) -> tuple[SolverState, Float[np.ndarray, "r d d"], Analysis]:
    """The state where its information is regular, or else mixed with another one until it is; A, its analysis.

    Where a target leaves directions out, the best information may itself be singular, and steps reach it. The other
    one is the best so far, or, before there is any, what the solver begins LogDet with, which leaves no direction out.

    Raises:
        ValueError: that is singular too.
    """

    def analysed(candidate: SolverState):
        matrix = information(problem, candidate.allocation, candidate.held)
        return candidate, matrix, analyse(problem, matrix)

    tried = analysed(state)
    if sound(problem, *tried[1:]):
        return tried
    other = base if isinstance(base, SolverState) else base.init(replace(problem, criterion=LogDet()), None)
    for share in RETREATS:
        tried = analysed(mixed_with(state, other, share))
        if sound(problem, *tried[1:]):
            return tried
    tried = analysed(other._replace(passes=state.passes, known=state.known, held=state.held))
    if not sound(problem, *tried[1:]):
        raise ValueError(
            "prior: the information is singular to working precision at a solver's iterate; pass a prior (a ridge), "
            "or a larger one, or use jaxdesign.restrict_to_range(pool, rtol) with a larger rtol"
        )
    return tried


def mixed_with(state: SolverState, best: SolverState, share: float) -> SolverState:
    """The allocation with `share` of its labels given up for another one's; allowed as both are."""
    pairs = np.concatenate([state.pairs, best.pairs])
    pairs, labels = added_up(pairs, np.concatenate([(1 - share) * state.labels, share * best.labels]))
    return state._replace(pairs=pairs, labels=labels)


def score(problem: Problem, state: SolverState, matrix: Float[np.ndarray, "r d d"], analysis: Analysis) -> Scored:
    """Certify an allocation, with its information and that one's analysis, in one pass."""
    on_support = exact_sensitivities(problem, state.pairs, analysis.factors)
    levels = prompt_levels(problem, state.allocation, on_support)
    guess = partial(listing_level, problem, state, on_support, levels)
    asked = Pass(float(levels.min()), ENTERED * problem.dim, state.known)
    priced = certify_allocation(problem, matrix, analysis, state.allocation, guess, asked)
    return Scored(matrix, analysis, on_support, priced, priced.certificate.relative_gap())


def listing_level(
    problem: Problem, state: SolverState, b: Float[np.ndarray, " s"], levels: Float[np.ndarray, " p"]
) -> float:
    """Sensitivity down to which pairs are listed: what the oracle will need, judged from the allocation's own pairs."""
    limits = problem.limits
    if not limits.has_caps and not limits.has_quotas:
        return float(b.max())
    off = np.abs(b / np.maximum(levels[state.pairs[:, 0]], 1e-300) - 1)
    spread = np.average(off, weights=movable(problem, state.allocation) + 1e-12)
    return float(levels.min() * (1 - min(0.5, 2e-6 + 2 * spread)))
