"""`optimize`: the best real-valued allocation of a label budget, with its certificate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxdesign import _checks
from jaxdesign.annotators import Annotators, asked
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.kinds import EVERY_KIND, check_obeyed, obeying
from jaxdesign.budget.limits import Limits
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Design, TraceRow
from jaxdesign.door import make_problem
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.source import Source
from jaxdesign.problem import Certified, Problem
from jaxdesign.solvers.atoms.coupled_atoms import CoupledAtoms
from jaxdesign.solvers.atoms.matrix_atoms import MatrixAtoms
from jaxdesign.solvers.checkpoint import Checkpoint
from jaxdesign.solvers.column_generation.interior_point import InteriorPoint
from jaxdesign.solvers.column_generation.solver import ColumnGeneration
from jaxdesign.solvers.dense.host import FrankWolfe, Multiplicative
from jaxdesign.solvers.driver import run
from jaxdesign.solvers.states import Solver
from jaxdesign.solvers.worst_case import worst_case_design

SOLVERS: dict[str, Callable[[], Solver]] = {
    "column_generation": ColumnGeneration,
    "frank_wolfe": FrankWolfe,
    "interior_point": InteriorPoint,
    "matrix_atoms": MatrixAtoms,
    "multiplicative": Multiplicative,
}
DEFAULTS = (ColumnGeneration(), CoupledAtoms())  # of which the first that obeys the budget is taken


def optimize(
    pool: CompletionPool | Source,
    crit: CriterionLike,
    budget: Budget,
    *,
    prior: Any = None,
    tol: float = 1e-3,
    solver: str | Solver | None = None,
    max_passes: int | None = None,
    start: Design | None = None,
    callback: Callable[[TraceRow], bool | None] | None = None,
    annotators: Annotators | None = None,
    checkpoint: str | Path | None = None,
) -> Design:
    """Minimise a criterion of A(n) = prior + sum_e n_e c_e z_e z_e^T over the allocations n a budget allows.

    Args:
        pool: the completions, or a `pricing.Source` of them; candidate pairs are never materialised. Features that
            are divided over prompts on the devices of a mesh stay there, but for a solver that needs them all.
        crit: `LogDet()`, `Trace(H)`, `WorstCase(targets)` or `Criterion(function)`.
        budget: total labels, caps per pair, quotas per prompt and per group, costs, excluded and required pairs.
        prior: information already held, (d, d) (or one per draw), or a scalar ridge for ridge x I; or a
            `Belief`, whose precision it is, and whose mean m gives a pool without scores the margins z . m
            (at the mean; to average over the belief pass `residual_of(pool, 0.0, belief=...)`, or its v).
        tol: stop when 1 - certificate.efficiency <= tol (gap <= tol max(1, |value|) for a `Criterion`).
        solver: None for column generation, or `CoupledAtoms` where the budget ties prompts to one another; or a name:
            "column_generation", "interior_point", "matrix_atoms", "frank_wolfe", "multiplicative"; or any object with
            the `Solver` protocol.
        max_passes: pricing passes after which to stop; None for the solver's own limit.
        start: an earlier design to start from, for instance of the same pool with another budget or prior.
        callback: called after every pass with (passes, value, lower_bound, gap, seconds); True stops the solver.
        annotators: who can label; the design then says who labels which pair. None: labels are all alike.
        checkpoint: a file that the run is written to after every pass, and from which a run that is started again with
            the same arguments (but for max_passes and callback) goes on, to the same design to the last bit; None for
            no file. It stays when the run is over.

    Returns:
        Design: pairs (S, 3), labels (S,) that sum to the total, certificate, status, passes, trace. `status` says
        whether tol was certified; the certificate is valid whether or not it was.

    Raises:
        TypeError: arguments of another kind.
        FileNotFoundError: checkpoint is in a folder that does not exist.
        ValueError: a checkpoint that is damaged or of another problem, an infeasible budget, singular information
            without a prior, a prior or target of the wrong shape or indefinite, an unknown solver name, a solver that
            does not obey such a budget, tol or max_passes out of range.

    Numerics: pools are priced in float32 (float64 for float64 features); everything a certificate rests on is float64.

    Source: derived from column generation and Frank-Wolfe certificates (Frank and Wolfe 1956,
    doi:10.1002/nav.3800030109); checked by tests/test_reference.py and tests/solvers/test_protocol.py.
    """
    options = checked_options(tol, max_passes, callback)
    if start is not None and not isinstance(start, Design):
        raise TypeError(f"start: expected a jaxdesign.Design, found {type(start).__name__}")
    if solver is not None:
        named_solver(solver)
    if annotators is not None and start is not None:
        raise ValueError("start: a design that says who labels what cannot be continued; pass start=None")
    joint = asked(pool, budget, annotators)
    problem = make_problem(joint.pool, crit, joint.budget, prior, flip=joint.flip)
    return joint.answer(solve(problem, solver, options, start, checkpoint).design)


class Options(NamedTuple):
    """When a solver stops."""

    tol: float
    max_passes: int | None
    callback: Callable[[TraceRow], bool | None] | None


def checked_options(tol: Any, max_passes: Any, callback: Callable[[TraceRow], bool | None] | None) -> Options:
    """TypeError or ValueError for what `optimize` does not take."""
    tol = _checks.number(tol, "tol")
    if not 0 <= tol < 1:
        raise ValueError(f"tol={tol:g}: must be at least 0 and below 1; it is the relative gap to stop at")
    if max_passes is not None:
        max_passes = _checks.whole_number(max_passes, "max_passes", 1)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a function of a TraceRow, found {type(callback).__name__}")
    return Options(tol, max_passes, callback)


def solve(
    problem: Problem,
    solver: str | Solver | None,
    options: Options,
    start: Design | None = None,
    checkpoint: str | Path | None = None,
) -> Certified:
    """The best real-valued design of a problem; see `optimize`."""
    chosen, stopping = solver_for(problem.limits, solver), options._asdict()
    file = None if checkpoint is None else Checkpoint(checkpoint, problem, chosen, options.tol, start)
    if problem.criterion.family:
        return worst_case_design(problem, chosen, start=start, checkpoint=file, **stopping)
    return Certified(run(problem, chosen, start=start, checkpoint=file, **stopping), problem)


def solver_for(limits: Limits, solver: str | Solver | None) -> Solver:
    """The solver asked for, None the first of DEFAULTS that obeys the limits; ValueError for one that does not."""
    if solver is None:
        return obeying(limits.kinds, DEFAULTS)[0]
    chosen = named_solver(solver)
    check_obeyed(limits.kinds, getattr(chosen, "obeys", EVERY_KIND), f"solver={solver!r}:", "use solver=None")
    return chosen


def named_solver(solver: str | Solver) -> Solver:
    """The solver of a name, or the object itself; TypeError for what is no solver, ValueError for an unknown name."""
    if not isinstance(solver, str):
        if not (hasattr(solver, "init") and hasattr(solver, "step")):
            raise TypeError(f"solver: expected a name or an object with init and step, found {type(solver).__name__}")
        return solver
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r}: unknown; choose one of {', '.join(sorted(SOLVERS))}")
    return SOLVERS[solver]()
