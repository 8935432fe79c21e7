"""Is the next round safe: the exact local rate, and that nothing is called safe on its strength alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign.dynamics import Evidence, LoopPlan, Regime, fixed_point, iterate, stability
from jaxdesign.dynamics.loop_gain import eigenvalues
from jaxdesign.dynamics.one_round import jacobian
from tests.support.rounds import close, used
from tests.support.tournaments import (
    CHAIN,
    M4,
    REFERENCE,
    TRAP,
    TRAP_REFERENCE,
    antisymmetric,
    bradley_terry,
    cycle,
    random_preferences,
)

GENERAL = LoopPlan(0.6, 3.0, 0.7, reference=REFERENCE)  # T11
LOCAL = LoopPlan(0.0, 20.0, reference=TRAP_REFERENCE)  # T13


@pytest.mark.parametrize(
    ("preferences", "plan", "rho"),
    [
        pytest.param(cycle(0.4), LoopPlan(0.5, 3.6), 0.9701546269, id="T6 settles"),
        pytest.param(cycle(0.4), LoopPlan(0.5, 3.8), 1.010016502, id="T6 circles"),
        pytest.param(cycle(0.4), LoopPlan(0.9, 1.8), 0.9913626985, id="T6 settles slowly"),
        pytest.param(cycle(0.4), LoopPlan(0.9, 1.95), 1.00637965, id="T6 circles slowly"),
        pytest.param(0.5 + antisymmetric([0.1, -0.4, 0.2], 3), LoopPlan(0.5, 4.0), 0.697409924, id="T7"),
        pytest.param(CHAIN, LoopPlan(0.5, 1.0), 0.5000204481, id="T9"),
        pytest.param(CHAIN, LoopPlan(0.9, 1.0), 0.9000028555, id="T9 near"),
        pytest.param(CHAIN, LoopPlan(0.99, 1.0), 0.99, id="T9 nearer"),
        pytest.param(CHAIN, LoopPlan(0.99, 1.0, 0.0), 0.99, id="T9 no feedback"),
        pytest.param(M4, GENERAL, 0.6606671289, id="T11"),
        pytest.param(TRAP, LOCAL, 0.8208411926, id="T13"),
        pytest.param(M4, LoopPlan(0.5, 0.5, loss="dpo", reference=REFERENCE), 0.5710885415, id="T14 all own"),
        pytest.param(M4, LoopPlan(0.5, 0.5, 0.5, loss="dpo", reference=REFERENCE), 0.5178907732, id="T14 half"),
        pytest.param(M4, replace(GENERAL, mix="pairs"), 0.6474091155, id="T15"),
    ],
)
def test_known_rates(preferences, plan, rho):
    found = stability(preferences, plan)
    close(found.rho, rho)
    assert found.probability == (rho < 1)


def test_known_gains_and_certificates():
    found = stability(M4, GENERAL)
    close(found.omega, 0.1316914686)
    close(found.certificates[:3], [1.186967844, 1.1775, 1.389609375])
    assert found.evidence == Evidence.NONE and not found.converges


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, (0.5, 0.5 + 0.2759386204j, 0.5 - 0.2759386204j)), (0.5, (0.5, 0.5003992922 + 0.1334593618j))],
)
def test_dpo_s_eigenvalues(share, expected, float64_scope):
    """T14: real parts are alpha where all answers are the policy's own, and move where not."""
    plan = LoopPlan(0.5, 0.5, share, loss="dpo", reference=REFERENCE)
    found = eigenvalues(np.asarray(jacobian(fixed_point(M4, plan).log_policy, M4, used(plan, 4))))
    for value in expected:
        close(np.abs(found - value).min(), 0, 9)


@pytest.mark.slow
def test_dpo_circles_where_a_cycle_s_formula_says():
    """alpha^2 + (16/3) (a share b)^2 > 1 on the symmetric three-cycle."""
    for alpha, below, above in ((0.5, 0.97, 1.02), (0.9, 0.99, 1.01)):
        for square in (below, above):
            strength = np.sqrt((square - alpha**2) * 3 / 16) / 0.4
            found = stability(cycle(0.4), LoopPlan(alpha, strength, loss="dpo"))
            np.testing.assert_allclose(found.rho**2, square, rtol=1e-9)
            x = iterate(cycle(0.4), LoopPlan(alpha, strength, loss="dpo"), np.array([0.01, 0, -0.005]), steps=900)
            assert (x.time_variance > 1e-5) == (square > 1)


def test_a_fixed_point_that_attracts_may_not_be_where_rounds_end():
    """T13: rho = .82, and from the reference itself rounds go round three policies for ever."""
    alone = stability(TRAP, LOCAL)
    assert alone.rho < 1 and alone.evidence == Evidence.NONE and not alone.converges and alone.simulated is None
    from_reference = stability(TRAP, LOCAL, TRAP_REFERENCE, steps=2012)
    assert from_reference.evidence == Evidence.NONE and not from_reference.converges
    assert from_reference.simulated.regime == Regime.CIRCLING
    from_uniform = stability(TRAP, LOCAL, np.zeros(5), steps=2012)
    assert from_uniform.evidence == Evidence.SIMULATED and from_uniform.converges and from_uniform.proven == 0
    both = stability(np.stack([TRAP, TRAP]), LOCAL, np.stack([TRAP_REFERENCE, np.zeros(5)]), steps=2012)
    np.testing.assert_array_equal(both.evidence, [Evidence.NONE, Evidence.SIMULATED])


def test_rounds_that_begin_at_an_unstable_point_prove_nothing():
    """The uniform policy of a symmetric cycle is left by no round, and by every disturbance."""
    found = stability(cycle(0.4), LoopPlan(0.5, 3.8), np.zeros(3))
    assert found.rho > 1 and not found.converges
    np.testing.assert_allclose(found.simulated.log_policy, found.fixed_point.log_policy, atol=1e-12)
    assert stability(cycle(0.4), LoopPlan(0.5, 3.6), np.zeros(3)).evidence == Evidence.SIMULATED


@given(seed=st.integers(0, 2**32 - 1), loss=st.sampled_from(["ipo", "dpo"]))
def test_convergence_is_never_said_for_the_rate_alone(seed, loss):
    rng = np.random.default_rng(seed)
    preferences = random_preferences(rng, 4, largest=0.45)
    plan = LoopPlan(rng.uniform(0, 0.9), rng.uniform(0.2, 4), rng.uniform(), loss=loss)
    found = stability(preferences, plan)
    holds = min(found.certificates[:3]) < 1
    assert found.converges == holds == (found.evidence > Evidence.SIMULATED) == bool(found.proven)
    assert not holds or found.rho < 1


@given(seed=st.integers(0, 2**32 - 1), alpha=st.floats(0, 0.95), share=st.sampled_from([0.2, 1.0]))
def test_largest_share_and_strength_are_where_certificates_end(seed, alpha, share):
    preferences = random_preferences(np.random.default_rng(seed), 4)
    found = stability(preferences, LoopPlan(alpha, 2.0, share))
    for factor, holds in ((0.999, True), (1.001, False)):
        assert stability(preferences, LoopPlan(alpha, factor * found.largest_strength, share)).proven == holds
        if found.largest_share < 1:
            assert stability(preferences, LoopPlan(alpha, 2.0, factor * found.largest_share)).proven == holds
    assert found.largest_share < 1 or stability(preferences, LoopPlan(alpha, 2.0 * 0.999, 1.0)).proven


@pytest.mark.slow
def test_without_feedback_any_strength_is_safe():
    for loss, mix in (("ipo", "answers"), ("dpo", "answers"), ("ipo", "pairs"), ("dpo", "pairs")):
        found = stability(M4, LoopPlan(0.5, 50.0, 0.0, loss=loss, mix=mix))
        assert found.largest_strength == np.inf and found.evidence == Evidence.C1 and found.period == np.inf
        close(found.rho, 0.5)
        assert found.safe_for_all and found.locally_safe_for_all


@pytest.mark.slow
def test_two_answers_are_safe_with_any_plan():
    for alpha in (0.0, 0.9):
        found = stability(bradley_terry([1.0, -1]), LoopPlan(alpha, 100.0))
        assert found.converges and found.largest_share == 1 and found.largest_strength == np.inf
        close(found.rho, alpha)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), temper=st.sampled_from([1.0, 0.5]))
def test_rho_is_the_rate_of_simulated_rounds(seed, temper):
    """Of distances to the fixed point, over many rounds near it; the period is that of its turns."""
    rng = np.random.default_rng(seed)
    preferences, reference = random_preferences(rng, 4), rng.normal(size=4)
    plan = LoopPlan(0.6, rng.uniform(1, 5), 0.9, reference=reference, temper=temper)
    found = stability(preferences, plan)
    start = found.fixed_point.log_policy + 1e-3 * rng.normal(size=4)
    if found.rho < 0.97:
        path = iterate(preferences, plan, start, steps=36, keep=12).kept
        away = np.linalg.norm(np.exp(path) - np.exp(found.fixed_point.log_policy), axis=1)
        np.testing.assert_allclose((away[-1] / away[0]) ** (1 / 11), found.rho, rtol=0.15)
    np.testing.assert_allclose(found.rho**2, 0.6**2 + (plan.strength * 0.9 * found.omega) ** 2, rtol=1e-12)
    np.testing.assert_allclose(found.period, 2 * np.pi / np.arccos(0.6 / found.rho), rtol=1e-9)


@pytest.mark.slow
def test_draws_come_with_probabilities():
    draws = random_preferences(np.random.default_rng(0), 4, 2, 50)
    plan = LoopPlan(0.8, 3.0)
    found = stability(draws, plan)
    assert found.rho.shape == found.evidence.shape == found.largest_share.shape == (2, 50)
    assert 0 < found.probability < 1 and found.probability == np.mean(found.rho < 1)
    assert 0 < found.proven < found.probability and found.proven == np.mean(found.converges)
    alone = stability(draws[1, 7], plan)
    np.testing.assert_allclose(found.rho[1, 7], alone.rho, rtol=1e-10)
    assert found.evidence[1, 7] == alone.evidence
    mixed = stability(draws, replace(plan, mix="pairs"))
    np.testing.assert_allclose(mixed.rho[1, 7], stability(draws[1, 7], replace(plan, mix="pairs")).rho, rtol=1e-9)
    np.testing.assert_allclose(mixed.rho, found.rho, rtol=1e-6)  # all answers are the policy's own: the mixes are one


@pytest.mark.slow
def test_where_no_fixed_point_is_found_nothing_is_said():
    preferences = M4.copy()
    preferences[0, 1:], preferences[1:, 0] = 1, 0
    for share in (1.0, 0.0):
        found = stability(np.stack([preferences, M4]), LoopPlan(0.5, 0.5, share, loss="dpo"))
        np.testing.assert_array_equal(np.isnan([found.rho, found.omega, found.period])[:, 0], True)
        assert found.evidence[0] == Evidence.NONE and found.probability == 0.5
        assert found.rho[1] < 1


def test_refusals():
    with pytest.raises(TypeError, match="preferences, plan or start: is traced"):
        jax.jit(lambda P: stability(P, GENERAL).rho)(jnp.asarray(M4))
    with pytest.raises(ValueError, match=r"plan.alpha=1"):
        stability(M4, LoopPlan(1.0, 1.0))
    with pytest.raises(ValueError, match=r"start: shape \(3,\)"):
        stability(M4, GENERAL, np.zeros(3))
    safe = LoopPlan(0.1, 0.1)  # proven: nothing is simulated, and the start is looked at all the same
    with pytest.raises(ValueError, match=r"start: leading axes \(2,\) .* draws of preferences, \(3,\)"):
        stability(np.stack([M4] * 3), safe, np.zeros((2, 4)))
    with pytest.raises(ValueError, match="steps=2"):
        stability(M4, GENERAL, np.zeros(4), steps=2)
