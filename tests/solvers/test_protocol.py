"""Every solver on every criterion and budget, through the one loop: allowed, certified, and right by the reference."""

import functools
import itertools
from importlib.util import find_spec

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import Budget, Criterion, LogDet, Status, Trace, optimize, reference
from jaxdesign.solvers.optimize import SOLVERS
from tests.support.problems import (
    PROMPTS,
    criterion_of,
    frank_wolfe_gap,
    information_of,
    random_pool,
    random_spd,
    written_out,
)

H, HELD, TOL = random_spd(1), random_spd(2), 1e-3
BUDGETS = {
    "total": {"total": 20.0},
    "per pair": {"total": 20.0, "per_pair": 1.0},
    "per prompt": {"total": 20.0, "per_prompt": 6.0},
    "both": {"total": 20.0, "per_pair": 3.0, "per_prompt": 5.0},  # 5 prompts offer 21 labels
    "both by prompt": {"total": 12.5, "per_pair": np.full(PROMPTS, 2.0), "per_prompt": np.array([4, 2, 1, 3, 1, 5.5])},
    "every quota": {"total": 21.0, "per_pair": 3.0, "per_prompt": 5.0},  # the quotas hold no more
    "every pair": {"total": 33.0, "per_pair": 1.0},
}
CRITERIA = {
    "LogDet": LogDet(),
    "Trace": Trace(H),
    "Trace of a low-rank H": Trace(random_spd(3, rank=1)),
    "Criterion": Criterion(lambda A: -jnp.linalg.slogdet(A)[1]),
}
# a criterion and a solver are one or two programs, 2 to 5 s each to compile: LogDet runs every day, others with -m slow
PROBLEMS = [
    pytest.param(
        name, limits, prior, id=f"{name}-{limits}-{prior}", marks=[] if name == "LogDet" else [pytest.mark.slow]
    )
    for name in CRITERIA
    for limits in BUDGETS
    for prior in ("no prior", "prior")
    if (name, prior) != ("Trace of a low-rank H", "no prior")  # then the best A is singular in some directions
]
PRIORS = {"no prior": None, "prior": HELD}


@functools.cache
def best(name, limits, prior):
    """The reference solver's value; a Criterion here is LogDet in disguise."""
    criterion = CRITERIA["LogDet" if name == "Criterion" else name]
    return reference.optimize(random_pool(0), criterion, Budget(**BUDGETS[limits]), PRIORS[prior]).certificate.value


@pytest.mark.thorough
@pytest.mark.skipif(find_spec("cvxpy") is None, reason="the reference solver needs the extra `reference`")
@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize(("name", "limits", "prior"), PROBLEMS)
def test_every_solver_solves_every_problem(name, limits, prior, solver):
    pool, criterion, budget = random_pool(0), CRITERIA[name], Budget(**BUDGETS[limits])
    design = optimize(pool, criterion, budget, prior=PRIORS[prior], solver=solver, tol=TOL)
    assert design.status is Status.CERTIFIED, design.certificate

    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    labels[[index[tuple(pair)] for pair in design.pairs.tolist()]] = design.labels
    caps, quotas = (np.broadcast_to(BUDGETS[limits].get(key, np.inf), PROMPTS) for key in ("per_pair", "per_prompt"))
    assert labels.sum() == pytest.approx(budget.total, rel=1e-12)
    assert (labels <= caps[pairs[:, 0]] * (1 + 1e-12)).all()
    assert (np.bincount(pairs[:, 0], labels, PROMPTS) <= quotas * (1 + 1e-12)).all()

    target = getattr(criterion, "H", None)
    held = 0 if PRIORS[prior] is None else PRIORS[prior]
    value, scale = (
        criterion_of(information_of(z, c, labels, held), target),
        1.0 if target is None else best(name, limits, prior),
    )
    assert design.certificate.value == pytest.approx(value, rel=1e-9)
    assert design.certificate.lower_bound <= best(name, limits, prior) + 1e-9 * scale
    allowed = 4 * TOL * (max(1.0, abs(value)) if name == "Criterion" else scale)  # what tol means for each criterion
    assert value <= best(name, limits, prior) + allowed
    gap = frank_wolfe_gap(pairs, z, c, labels, BUDGETS[limits], held, target)
    assert design.certificate.gap <= gap + 1e-9 * scale or len(design.trace) > 1


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_every_solver_reports_each_pass_and_can_be_stopped(solver):
    pool, budget, rows = random_pool(0), Budget(20), []
    design = optimize(pool, LogDet(), budget, solver=solver, tol=1e-3, callback=rows.append)
    assert tuple(rows) == design.trace and design.passes == rows[-1].passes
    assert all(later.passes > sooner.passes for sooner, later in itertools.pairwise(rows))
    bounds, gaps = [row.lower_bound for row in rows], [row.gap for row in rows]
    assert bounds == sorted(bounds) and gaps == sorted(gaps, reverse=True)
    assert rows[-1].value == design.certificate.value

    stopped = optimize(pool, LogDet(), budget, solver=solver, tol=0.0, callback=lambda row: True)
    assert stopped.status is Status.STOPPED_BY_CALLBACK and len(stopped.trace) == 1
    limited = optimize(pool, LogDet(), budget, solver=solver, tol=0.0, max_passes=1)
    assert limited.status in (Status.NOT_CERTIFIED, Status.CERTIFIED) and len(limited.trace) == 1
    assert limited.certificate.lower_bound <= limited.certificate.value


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_every_solver_repeats_itself_to_the_last_bit(solver):
    first, second = (optimize(random_pool(1), LogDet(), Budget(20), solver=solver) for _ in range(2))
    assert (first.pairs == second.pairs).all() and (first.labels == second.labels).all()
    assert first.certificate == second.certificate


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_every_solver_starts_from_an_earlier_design(solver):
    pool = random_pool(2)
    near = optimize(
        pool, LogDet(), Budget(20, per_pair=3), solver=solver, tol=1e-5 if solver != "multiplicative" else 1e-4
    )
    cold = optimize(pool, LogDet(), Budget(22, per_pair=3), solver=solver, tol=1e-3)
    warm = optimize(pool, LogDet(), Budget(22, per_pair=3), solver=solver, tol=1e-3, start=near)
    assert warm.status is Status.CERTIFIED
    assert warm.passes <= cold.passes


def test_every_solver_has_the_protocol():
    for name, kind in SOLVERS.items():
        solver = kind()
        assert solver.max_passes >= 1 and solver.patience >= 1, name
        assert callable(solver.init) and callable(solver.step), name
