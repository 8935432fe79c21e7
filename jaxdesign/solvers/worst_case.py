"""Worst case over targets: a few smooth problems, each started from the solution of the one before.

Each stage minimises a weighted power mean M of the targets (see `criteria.worst_case`) with the solver asked for. Its
own certificate bounds M, and thereby the worst case, from below. After a stage the weights become those that its
targets had in G: at a fixed point of that rule all targets with weight have the same value, whatever the power, so that
a moderate power certifies to any tolerance where one large power would be badly conditioned. It is the method of
multipliers in exponential form (Kort and Bertsekas 1972); checked by tests/solvers/test_worst_case.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from jaxdesign import _arrays
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import analyse, information
from jaxdesign.budget.required import without
from jaxdesign.certificates.separable import from_bound
from jaxdesign.criteria.worst_case import family_of, target_report
from jaxdesign.design import Design, Status, TraceRow
from jaxdesign.problem import Certified, Problem
from jaxdesign.solvers.checkpoint import Checkpoint
from jaxdesign.solvers.driver import run
from jaxdesign.solvers.states import Solver

POWERS = (8.0, 16.0, 64.0)  # the last one stays while it pays
STEEPER = 4.0  # factor of the power after a stage that left more than SLOW of the gap: nearly equal targets need it
SLOW = 0.3
STEEPEST = 1e5
STAGES = 30
PATIENCE = 4  # stages without a smaller gap after which it has stalled
LEAST = 1e-4  # weight that every target keeps (less as the gap falls), so that one left behind can come back


def worst_case_design(
    problem: Problem,
    solver: Solver,
    *,
    tol: float,
    max_passes: int | None,
    start: Design | None,
    callback: Callable[[TraceRow], bool | None] | None,
    checkpoint: Checkpoint | None = None,
) -> Certified:
    """Solve a problem whose criterion is a `WorstCase`; see `optimize` for the arguments.

    One trace row and one call of `callback` a stage. `report` holds, by name of the target, "targets" (its value at the
    design) and "mixture" (the weights that give the bound), and "binding", the names with weight in it.
    """
    began, criterion = time.perf_counter(), family_of(problem.criterion)
    weights = np.full(len(criterion.names), 1.0) if criterion.mixture is None else np.asarray(criterion.mixture)
    bound, gap, passes, trace, improved_at, power = -np.inf, 1.0, 0, [], 0, POWERS[0]
    best = now = status = None
    for stage in range(STAGES):
        weights = np.maximum(weights / weights.sum(), LEAST * min(1.0, 100 * gap))
        mean = criterion.smooth(weights, power)
        aim = tol if len(weights) == 1 else max(tol / 5, min(0.02, gap / 5))
        remaining = None if max_passes is None else max_passes - passes
        smooth = replace(problem, criterion=mean)
        done = checkpoint is not None and stage < len(checkpoint.finished)
        if checkpoint is not None and done:
            design = checkpoint.finished[stage]
        else:
            design = run(
                smooth, solver, tol=aim, max_passes=remaining, start=start, callback=None, checkpoint=checkpoint
            )
            if checkpoint is not None and (remaining is None or design.passes < remaining):
                checkpoint.finish(design)
        start, passes = design, passes + design.passes
        matrix = information(problem, without(problem.decided, Allocation(design.pairs, design.labels)))
        analysis = analyse(problem, matrix)
        with _arrays.float64():
            weights = np.asarray(mean.mixture(matrix))
        bound = max(bound, design.certificate.lower_bound)
        if best is None or analysis.value < best[0].value:
            best = analysis, design, matrix
        now = from_bound(problem, best[0], bound)
        if not trace or now.gap < 0.9 * trace[improved_at].gap:
            improved_at = stage
        trace.append(TraceRow(passes, now.value, now.lower_bound, now.gap, time.perf_counter() - began))
        before, gap = gap, now.relative_gap()
        if stage + 1 < len(POWERS):
            power = POWERS[stage + 1]
        elif gap > SLOW * before:
            power = min(STEEPER * power, STEEPEST)
        status = _status(gap <= tol, not done and callback is not None and callback(trace[-1]), passes, max_passes)
        if status is not None or stage - improved_at >= PATIENCE:
            break
    assert best is not None and now is not None  # there are stages
    mixed = criterion.mixed(weights)
    with _arrays.float64():
        report = target_report(mixed, best[2])
    design = Design(
        best[1].pairs, best[1].labels, now, status or Status.PRECISION_LIMIT, passes, tuple(trace),
        problem.skipped_prompts, report,
    )  # fmt: skip
    return Certified(design, replace(problem, criterion=mixed))


def _status(certified: bool, stopped: bool | None, passes: int, max_passes: int | None) -> Status | None:
    if certified:
        return Status.CERTIFIED
    if stopped:
        return Status.STOPPED_BY_CALLBACK
    return Status.NOT_CERTIFIED if max_passes is not None and passes >= max_passes else None
