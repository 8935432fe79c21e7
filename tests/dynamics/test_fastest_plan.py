"""The same limit, sooner: known to ten digits, measured on rounds, and best among all that keep the limit."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign.dynamics import LoopPlan, fastest_plan, fixed_point, iterate, stability
from tests.support.rounds import close
from tests.support.tournaments import M4, REFERENCE, cycle, random_preferences

GENERAL = LoopPlan(0.6, 3.0, 0.7, reference=REFERENCE)


def test_known_plan():
    """T12."""
    found = fastest_plan(GENERAL, stability(M4, GENERAL).omega)
    close([found.plan.alpha, found.plan.strength, found.rho], [0.3234130325, 5.074402256, 0.5686941467])
    close(found.plan.alpha, 1 - found.step * 0.4, 14)
    close(found.plan.strength, found.step * 3, 14)
    np.testing.assert_array_equal(found.plan.reference, REFERENCE)
    assert found.plan.share == 0.7


def test_its_rounds_come_as_near_as_it_says():
    found = fastest_plan(GENERAL, stability(M4, GENERAL).omega)
    end = fixed_point(M4, GENERAL).log_policy
    path = iterate(M4, found.plan, np.zeros(4), steps=42, keep=14).kept
    away = np.linalg.norm(path - end, axis=1)
    measured = (away[-1] / away[0]) ** (1 / 13)
    np.testing.assert_allclose(measured, 0.5687, atol=5e-3)
    slower = iterate(M4, GENERAL, np.zeros(4), steps=42, keep=14).kept
    assert np.linalg.norm(slower[-1] - end) > 10 * away[-1]


@given(seed=st.integers(0, 2**32 - 1), temper=st.sampled_from([1.0, 0.5]))
def test_the_limit_is_kept_and_nothing_that_keeps_it_is_faster(seed, temper):
    rng = np.random.default_rng(seed)
    preferences = random_preferences(rng, 4)
    plan = LoopPlan(
        rng.uniform(0, 0.95), rng.uniform(0.1, 5), rng.uniform(), reference=rng.normal(size=4), temper=temper
    )
    before = stability(preferences, plan)
    found = fastest_plan(plan, before.omega)
    after = stability(preferences, found.plan)
    np.testing.assert_allclose(after.fixed_point.log_policy, before.fixed_point.log_policy, atol=1e-9)
    np.testing.assert_allclose(after.rho, found.rho, rtol=1e-8, atol=1e-9)
    assert found.rho < 1 and found.rho <= before.rho + 1e-12
    for step in (0.9 * found.step, 1.1 * found.step):
        if step * (1 - plan.alpha) <= 1:
            other = replace(plan, alpha=1 - step * (1 - plan.alpha), strength=step * plan.strength)
            assert stability(preferences, other).rho >= found.rho - 1e-10


def test_a_loop_that_circles_has_a_plan_that_does_not():
    plan = LoopPlan(0.5, 3.8)  # T6: rho > 1
    found = fastest_plan(plan, stability(cycle(0.4), plan).omega)
    x = iterate(cycle(0.4), found.plan, np.array([0.01, 0, -0.005]), steps=300)
    np.testing.assert_allclose(np.exp(x.log_policy), 1 / 3, atol=1e-12)


def test_without_turning_one_round_is_enough():
    found = fastest_plan(LoopPlan(0.75, 1.0), 0.0)
    assert (found.plan.alpha, found.plan.strength, found.rho, found.step) == (0, 4, 0, 4)


@pytest.mark.parametrize(
    ("plan", "omega", "error", "message"),
    [
        (LoopPlan(1.0, 2.0), 0.1, ValueError, "plan.alpha=1: .* alpha below 1"),
        (LoopPlan(0.5, 2.0, loss="dpo"), 0.1, ValueError, "loss='dpo', mix='answers' found; expected 'ipo'"),
        (LoopPlan(0.5, 2.0, mix="pairs"), 0.1, ValueError, "mix='pairs' found"),
        (LoopPlan(0.5, 2.0), -0.1, ValueError, "omega=-0.1: expected a number, at least 0"),
        (LoopPlan(0.5, 2.0), np.nan, ValueError, "omega=nan"),
        (LoopPlan(0.5, 2.0), np.array([0.1, 0.2]), ValueError, "of several draws the largest"),
        (LoopPlan(np.array([0.5, 0.6]), 2.0), 0.1, ValueError, r"alpha: shape \(2,\)"),
    ],
)
def test_refusals(plan, omega, error, message):
    with pytest.raises(error, match=message):
        fastest_plan(plan, omega)


def test_traced_gains_are_refused():
    with pytest.raises(TypeError, match="plan or omega: is traced"):
        jax.jit(lambda omega: fastest_plan(GENERAL, omega).rho)(0.1)
