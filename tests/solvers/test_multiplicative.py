"""Multiplicative steps: monotone at the powers that are said to be, allowed at all, and right behind `optimize`."""

from importlib.util import find_spec

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import Budget, Criterion, LogDet, Status, Trace, _arrays, evaluate, optimize, reference
from jaxdesign.door import make_problem
from jaxdesign.solvers import multiplicative
from jaxdesign.solvers.dense.multiplicative import default_power, multiplicative_steps
from jaxdesign.solvers.dense.problem import dense_of, even_allocation
from tests.support.problems import PROMPTS, random_pool, random_spd, written_out

seeds = st.integers(0, 2**32 - 1)
H = random_spd(1)
needs_cvxpy = pytest.mark.skipif(find_spec("cvxpy") is None, reason="the reference solver needs the extra `reference`")
step = jax.jit(lambda dense, labels, power: multiplicative_steps(dense, labels, 1, power))
value = jax.jit(lambda dense, matrix: dense.criterion.value(matrix))
# quotas make another program, 3 s each to compile; the caps and the prior do not
BUDGETS = {"caps": {"total": 20.0, "per_pair": 3.0}, "quotas": {"total": 20.0, "per_pair": 3.0, "per_prompt": 5.0}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("criterion", "name"),
    [
        pytest.param(LogDet(), "caps", id="LogDet-caps"),
        pytest.param(LogDet(), "quotas", id="LogDet-quotas", marks=pytest.mark.slow),
        pytest.param(Trace(H), "caps", id="Trace-caps", marks=pytest.mark.slow),
        pytest.param(Trace(H), "quotas", id="Trace-quotas"),
    ],
)
@settings(max_examples=6)
@given(
    seed=seeds,
    ridge=st.sampled_from([0.0, 0.3, 5.0]),
    total=st.sampled_from([6.0, 20.0]),
    cap=st.sampled_from([1.0, 3.0]),
)
def test_no_step_raises_the_criterion(criterion, name, seed, ridge, total, cap):
    budget = Budget(**{**BUDGETS[name], "total": total, "per_pair": cap})
    problem = make_problem(random_pool(seed, "no"), criterion, budget, ridge)
    with _arrays.float64():
        dense = dense_of(problem)
        labels, values = even_allocation(dense), []
        for _ in range(15):
            state = step(dense, labels, np.float64(default_power(criterion)))
            values.append(float(value(dense, state.matrix)))
            labels = state.labels
            taken = np.asarray(labels, np.float64)[:PROMPTS] * float(dense.labels)
            assert taken.sum() == pytest.approx(total, rel=1e-5)
            assert taken.max() <= cap * (1 + 1e-6)
            assert taken.sum(axis=(1, 2)).max() <= (5 if name == "quotas" else np.inf) * (1 + 1e-5)
    assert np.diff(values).max() <= 1e-5 * (1 + abs(values[0]))  # float32 passes


@pytest.mark.thorough
def test_a_larger_power_takes_about_half_the_passes():
    pool, budget = random_pool(2, "no"), Budget(20)
    certificates = [multiplicative(pool, LogDet(), budget, passes=k, power=p)[1] for k, p in ((60, 1.0), (33, 1.8))]
    gaps = [1 - float(certificate.efficiency) for certificate in certificates]
    assert gaps[1] <= 1.1 * gaps[0] and gaps[0] < 0.05


def test_powers_must_be_positive():
    with pytest.raises(ValueError, match=r"power=-1: must be positive; 1 \(LogDet\) and 1/2 \(Trace\) are monotone"):
        multiplicative(random_pool(0), LogDet(), Budget(20), power=-1)


@needs_cvxpy
@pytest.mark.parametrize("criterion", [LogDet(), Trace(H)], ids=["LogDet", "Trace"])
def test_optimize_reaches_its_tolerance(criterion):
    pool, budget = random_pool(4), Budget(20, per_pair=3)
    design = optimize(pool, criterion, budget, prior=0.1, solver="multiplicative", tol=1e-3)
    best = reference.optimize(pool, criterion, budget, 0.1)
    assert design.status is Status.CERTIFIED
    assert best.certificate.lower_bound <= design.certificate.value
    assert design.certificate.lower_bound <= best.certificate.value
    assert design.labels.sum() == pytest.approx(20, rel=1e-13)
    assert [row.passes for row in design.trace] == sorted({row.passes for row in design.trace})
    assert design.passes == design.trace[-1].passes <= 200


@needs_cvxpy
def test_a_start_saves_passes_and_forgets_nothing():
    pool, budget = random_pool(6), Budget(20, per_pair=3)
    near = optimize(pool, LogDet(), budget, prior=0.1, tol=1e-6)
    cold = optimize(pool, LogDet(), budget, prior=0.1, solver="multiplicative", tol=1e-3)
    warm = optimize(pool, LogDet(), budget, prior=0.1, solver="multiplicative", tol=1e-3, start=near)
    assert warm.status is Status.CERTIFIED and warm.passes < cold.passes
    # a start on a few pairs keeps no pair out
    pairs = written_out(pool)[0][::4]
    few = evaluate(pool, LogDet(), Budget(len(pairs)), pairs, np.ones(len(pairs)), 0.1)
    assert optimize(pool, LogDet(), budget, prior=0.1, solver="multiplicative", start=few).status is Status.CERTIFIED


@needs_cvxpy
@pytest.mark.slow
def test_a_criterion_of_the_users():
    user = Criterion(lambda A: -jax.numpy.linalg.slogdet(A)[1])
    design = optimize(random_pool(1), user, Budget(20, per_pair=3), prior=0.1, solver="multiplicative", tol=1e-3)
    assert design.status is Status.CERTIFIED and np.isnan(design.certificate.efficiency)
    exact = reference.optimize(random_pool(1), LogDet(), Budget(20, per_pair=3), 0.1)
    assert design.certificate.lower_bound <= exact.certificate.value <= design.certificate.value + 1e-9
