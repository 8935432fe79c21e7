"""Rounds simulated: known variances and entropies, every regime with its evidence, one map however it is called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign.dynamics import LoopPlan, Regime, fixed_point, iterate
from tests.support.rounds import centred, close, divergence_from, round_by_hand
from tests.support.tournaments import (
    CHAIN,
    M4,
    REFERENCE,
    TRAP,
    TRAP_REFERENCE,
    bradley_terry,
    cycle,
    law_of,
    random_preferences,
)

NEAR = np.array([0.01, 0, -0.005])
GENERAL = LoopPlan(0.6, 3.0, 0.7, reference=REFERENCE)
KINDS = [(loss, mix) for loss in ("ipo", "dpo") for mix in ("answers", "pairs")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alpha", "strength", "variance"),
    [(0.5, 3.6, 0), (0.5, 3.8, 0.003874910774), (0.9, 1.8, 0), (0.9, 1.95, 0.009372796488)],
)
def test_a_three_cycle_settles_or_circles_by_its_threshold(alpha, strength, variance):
    """T6: variance over rounds 4,001 to 6,000."""
    found = iterate(cycle(0.4), LoopPlan(alpha, strength), NEAR, steps=6000)
    close(found.time_variance, variance)
    assert found.regime == (Regime.CIRCLING if variance else Regime.RESTING)
    assert variance or found.time_variance < 1e-25


@pytest.mark.parametrize(
    ("alpha", "period", "line"), [(0.3, 4.96, 4.95), (0.5, 5.99, 5.97), (0.8, 9.73, 9.57), (0.95, 19.6, 18.1)]
)
def test_periods_just_above_the_threshold(alpha, period, line):
    """Measured at rho^2 = 1.02, and of the linear map, 2 pi / arccos(alpha / rho)."""
    strength = np.sqrt(1.02 - alpha**2) / (0.4 / np.sqrt(3))
    found = iterate(cycle(0.4), LoopPlan(alpha, strength), NEAR, steps=6000)
    assert found.regime == Regime.CIRCLING
    np.testing.assert_allclose(found.period, period, rtol=6e-3)
    np.testing.assert_allclose(2 * np.pi / np.arccos(alpha / np.sqrt(1.02)), line, atol=0.05)
    assert 0.5 < found.trend < 2 and found.directness < 0.1


@pytest.mark.slow
def test_the_period_of_rounds_that_still_wind_in_is_that_of_their_turns():
    """Moves that shrink by rho a round turn by arccos(alpha / rho): shrinking is not taken for turning."""
    for alpha, square in ((0.5, 0.9), (0.8, 0.97), (0.5, 0.3)):
        strength = np.sqrt(square - alpha**2) / (0.4 / np.sqrt(3))
        found = iterate(cycle(0.4), LoopPlan(alpha, strength), 1e-3 * NEAR, steps=30)
        np.testing.assert_allclose(found.period, 2 * np.pi / np.arccos(alpha / np.sqrt(square)), rtol=0.03)
    straight = iterate(CHAIN, LoopPlan(0.5, 1.0, 0.0), None, steps=30)
    assert straight.period > 1e4


@pytest.mark.slow
def test_collapse_without_a_pull_back():
    """T10: entropies, and log-odds that grow by at least min_k (P_1k - P_2k) a round."""
    plan = LoopPlan(1.0, 1.0)
    for steps, entropy in ((10, 0.9710531884), (50, 0.04503564656), (100, 0.0005896125907), (200, 5.835995773e-08)):
        found = iterate(CHAIN, plan, None, steps=steps, keep=2)
        close(found.entropy, entropy)
        odds = found.kept[:, 0] - found.kept[:, 1]
        rate = (CHAIN[0] - CHAIN[1]).min()
        close(rate, 0.07488548042)
        assert np.diff(odds) >= rate - 1e-12
    assert found.regime == Regime.COLLAPSING and found.last_move > 0.05
    far = iterate(CHAIN, plan, None, steps=12000)
    assert far.regime == Regime.COLLAPSING and np.isfinite(far.log_policy).all() and far.entropy == 0


@pytest.mark.slow
def test_without_a_pull_back_a_cycle_spirals_out_to_the_boundary():
    """KL(pi* || pi_t) never falls: 1e-4 after 1,000 rounds, .05 after 4,000, and no cycle of fixed size."""
    plan, uniform = LoopPlan(1.0, 0.2), np.full(3, -np.log(3))
    found = iterate(cycle(0.4), plan, 0.77 * NEAR, steps=4000, keep=1333)
    kl = divergence_from(uniform, found.kept)
    assert np.all(np.diff(kl) >= -1e-15)
    np.testing.assert_allclose(kl[-1], 0.05, rtol=0.2)
    np.testing.assert_allclose(
        divergence_from(uniform, iterate(cycle(0.4), plan, 0.77 * NEAR, steps=1000).log_policy), 1e-4, rtol=0.2
    )
    assert found.regime == Regime.SPIRALLING and found.trend > 2
    np.testing.assert_allclose(found.period, 2 * np.pi / np.arctan(0.2 * 0.4 / np.sqrt(3)), rtol=0.02)


@pytest.mark.slow
def test_a_cycle_of_three_far_policies_beside_a_fixed_point_that_attracts():
    """T13, to four digits; from uniform, and from close, rounds rest."""
    plan = LoopPlan(0.0, 20.0, reference=TRAP_REFERENCE)
    end = np.exp(fixed_point(TRAP, plan).log_policy)
    starts = np.stack([TRAP_REFERENCE, np.zeros(5), 5 * np.eye(5)[0], np.log(end) + 1e-3 * np.arange(5)])
    found = iterate(np.broadcast_to(TRAP, (4, 5, 5)), plan, starts, steps=2012, keep=12)
    np.testing.assert_array_equal(found.regime, [Regime.CIRCLING, Regime.RESTING, Regime.CIRCLING, Regime.RESTING])
    away = np.abs(np.exp(found.kept) - end).max((1, 2))
    close(away[[0, 2]], 0.9410879316)
    assert np.all(away[[1, 3]] < 1e-12)
    first = np.exp(found.kept[0])
    turn = first[np.argmax(first[:3, 0]) :][:3]
    expected = [
        [0.9747, 0, 0.0001, 0.0183, 0.0069],
        [0.0003, 0.6979, 0.2603, 0.0416, 0],
        [0, 0.0075, 0.0004, 0.0897, 0.9024],
    ]
    np.testing.assert_allclose(turn, expected, atol=6e-5)
    np.testing.assert_allclose(found.period[0], 3, rtol=1e-3)


@pytest.mark.slow
def test_what_is_still_under_way_is_settling():
    found = iterate(M4, LoopPlan(0.999, 0.01, reference=REFERENCE), None, steps=60)
    assert found.regime == Regime.SETTLING and found.directness > 0.9 and found.last_move > 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "mix"), KINDS)
def test_rounds_are_those_written_out(loss, mix):
    """Strong preferences, policies that jump: searches for scores end in every round, from the first on."""
    rng = np.random.default_rng(3)
    base = law_of(rng.uniform(0.1, 1, 6), 4) if mix == "pairs" else rng.normal(size=4)
    for largest, strength in ((0.3, 1.0), (0.495, 4.0)):
        preferences = 0.5 + largest * np.sign(random_preferences(rng, 4) - 0.5)
        plan = LoopPlan(0.3, strength, 0.8, loss=loss, mix=mix, base=base, reference=rng.normal(size=4), temper=0.8)
        x = centred(np.array([3.0, -2, 0, 1]))
        path = []
        for _ in range(12):
            x = round_by_hand(x, preferences, plan)
            path.append(x)
        found = iterate(preferences, plan, np.array([3.0, -2, 0, 1]), steps=12, keep=4)
        np.testing.assert_allclose(centred(found.kept), path[-4:], atol=1e-6)
        assert found.residual < 1e-12
        np.testing.assert_allclose(found.last_move, np.abs(path[-1] - path[-2]).max(), atol=1e-6)
        policies = np.exp(path[-5:]) / np.exp(path[-5:]).sum(1, keepdims=True)
        np.testing.assert_allclose(found.time_variance, policies[1:].var(0).mean(), atol=1e-7)
        moves = np.diff(policies, axis=0)
        squares = (moves**2).sum(1)
        np.testing.assert_allclose(found.trend, squares[2:].max() / squares[:2].max(), rtol=1e-4)
        length = np.sqrt(squares).sum()
        np.testing.assert_allclose(found.directness, np.linalg.norm(policies[-1] - policies[0]) / length, rtol=1e-4)


@pytest.mark.slow
def test_scores_that_do_not_exist_are_told():
    preferences = M4.copy()
    preferences[0, 1:], preferences[1:, 0] = 1, 0
    found = iterate(np.stack([preferences, M4]), LoopPlan(0.5, 0.5, loss="dpo"), None, steps=300)
    np.testing.assert_array_equal(found.regime, [Regime.UNKNOWN, Regime.RESTING])
    assert found.residual[0] == np.inf and found.residual[1] < 1e-12


@pytest.mark.slow
def test_collapse_of_dpo_goes_on_where_shares_underflow():
    for preferences, digits in ((CHAIN, 1e-12), (CHAIN.astype(np.float32), 3e-5)):
        found = iterate(preferences, LoopPlan(1.0, 1.0, loss="dpo"), None, steps=3000)
        np.testing.assert_allclose(found.log_policy, [0, -1200, -2400, -3900], rtol=digits)
        assert found.regime == Regime.COLLAPSING and found.residual < 1e-6


@pytest.mark.slow
def test_the_last_policies_are_kept():
    whole = iterate(M4, GENERAL, None, steps=30, keep=10)
    assert whole.kept.shape == (10, 4)
    np.testing.assert_array_equal(whole.kept[-1], whole.log_policy)
    for steps in (29, 28):
        np.testing.assert_allclose(
            whole.kept[steps - 21], iterate(M4, GENERAL, None, steps=steps).log_policy, atol=1e-14
        )
    assert iterate(M4, GENERAL, None, steps=30).kept.shape == (0, 4)
    one = iterate(M4, GENERAL, None, steps=30, keep=1)
    for name in ("log_policy", "period", "trend", "time_variance", "directness"):
        np.testing.assert_allclose(getattr(one, name), getattr(whole, name), rtol=1e-9)


def test_no_start_is_the_reference():
    np.testing.assert_array_equal(
        iterate(M4, GENERAL, None, steps=6).log_policy, iterate(M4, GENERAL, REFERENCE + 3, steps=6).log_policy
    )


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ipo", pytest.param("dpo", marks=pytest.mark.thorough)])
def test_draws_are_single_runs(loss):
    """More than are simulated together; every draw with a start of its own, or all with one."""
    rng = np.random.default_rng(4)
    draws, starts = random_preferences(rng, 4, 2, 35, largest=0.45), rng.normal(size=(2, 35, 4))
    plan = LoopPlan(0.6, 0.6, 0.7, loss=loss)
    whole = iterate(draws, plan, starts, steps=30, keep=3)
    assert whole.log_policy.shape == (2, 35, 4) and whole.kept.shape == (2, 35, 3, 4) and whole.regime.shape == (2, 35)
    shared = iterate(draws, plan, starts[0, 0], steps=30)
    for k in ((0, 0), (1, 34)):
        one = iterate(draws[k], plan, starts[k], steps=30, keep=3)
        np.testing.assert_allclose(whole.kept[k], one.kept, atol=1e-12)
        assert whole.regime[k] == one.regime
        np.testing.assert_allclose(
            shared.log_policy[k], iterate(draws[k], plan, starts[0, 0], steps=30).log_policy, atol=1e-12
        )


@pytest.mark.slow
def test_single_precision_is_close_and_rests():
    draws = random_preferences(np.random.default_rng(5), 4, 20)
    for plan in (GENERAL, LoopPlan(0.5, 0.4, 0.9, loss="dpo")):
        wide, short = (iterate(draws.astype(dtype), plan, None, steps=300) for dtype in (np.float64, np.float32))
        assert short.log_policy.dtype == np.float32 and wide.log_policy.dtype == np.float64
        np.testing.assert_allclose(short.log_policy, wide.log_policy, atol=2e-5)
        np.testing.assert_allclose(short.entropy, wide.entropy, atol=1e-5)
        np.testing.assert_array_equal(short.regime, Regime.RESTING)
        np.testing.assert_array_equal(wide.regime, Regime.RESTING)


@pytest.mark.slow
def test_plans_are_mapped_over_by_vmap_and_jit():
    preferences = jnp.asarray(M4, jnp.float32)
    alphas, strengths, shares = jnp.array([0.3, 0.6, 1.0]), jnp.array([1.0, 3.0, 0.5]), jnp.array([1.0, 0.7, 0.0])

    @jax.jit
    @jax.vmap
    def ends(alpha, strength, share):
        found = iterate(preferences, LoopPlan(alpha, strength, share, reference=REFERENCE), None, steps=30)
        return found.log_policy, found.regime

    policies, regimes = ends(alphas, strengths, shares)
    for k, numbers in enumerate(((0.3, 1.0, 1.0), (0.6, 3.0, 0.7), (1.0, 0.5, 0.0))):
        alone = iterate(np.asarray(preferences), LoopPlan(*numbers, reference=REFERENCE), None, steps=30)
        np.testing.assert_allclose(policies[k], alone.log_policy, atol=2e-5)
        assert regimes[k] == alone.regime


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1))
def test_two_answers_always_rest(seed):
    rng = np.random.default_rng(seed)
    plan = LoopPlan(rng.uniform(0, 0.9), rng.uniform(0.1, 100), rng.uniform(), reference=rng.normal(size=2))
    found = iterate(random_preferences(rng, 2), plan, 20 * rng.normal(size=2), steps=600)
    assert found.regime == Regime.RESTING


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1))
def test_additive_and_bradley_terry_preferences_come_at_rate_alpha_from_anywhere(seed):
    """No cyclic part: no feedback in IPO and DPO; differences of two runs shrink by alpha a round."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-0.2, 0.2, 4)
    for loss, preferences in (("ipo", 0.5 + scores[:, None] - scores[None, :]), ("dpo", bradley_terry(9 * scores))):
        plan = LoopPlan(0.8, 2.0, loss=loss)
        starts = 3 * rng.normal(size=(2, 4))
        ends = centred(iterate(np.stack([preferences] * 2), plan, starts, steps=12).log_policy)
        np.testing.assert_allclose(ends[0] - ends[1], 0.8**12 * centred(starts[0] - starts[1]), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 5}, "steps=5: expected a whole number of rounds, at least 6"),
        ({"steps": 6.5}, r"steps=6\.5"),
        ({"keep": 4}, "keep=4: expected a whole number from 0 to a third of the steps, 3"),
        ({"keep": -1}, "keep=-1"),
        ({"keep": 0.5}, r"keep=0\.5"),
        ({"start": np.zeros(3)}, r"start: shape \(3,\) found; expected 4"),
        ({"start": [0, 0, 0, -np.inf]}, "start: -inf .* finite"),
        (
            {"start": np.zeros((2, 4)), "preferences": np.stack([M4] * 3)},
            r"start: leading axes \(2,\) of shape \(2, 4\) found; expected those of the draws of preferences, \(3,\)",
        ),
        ({"start": np.zeros((2, 4))}, r"start: leading axes \(2,\) .* preferences, \(\), or none"),
        ({"preferences": M4 + 0.6}, "preferences: .* must be probabilities"),
    ],
)
def test_refusals(change, message):
    given = {"preferences": M4, "plan": GENERAL, "start": None, "steps": 9} | change
    with pytest.raises(ValueError, match=message):
        iterate(given.pop("preferences"), given.pop("plan"), given.pop("start"), **given)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "scores", "expected"),
    [
        (LoopPlan(1 - 1e-9, 1e-9), (0.2, 0.1, -0.1), Regime.SETTLING),  # a billion rounds from its end
        (LoopPlan(1 - 1e-4, 1e3), (0.2, 0.2, -0.1), Regime.SETTLING),  # pi rests while log pi has far to go
        (LoopPlan(0.99, 1e6), (0.2, 0.2, -0.1), Regime.RESTING),  # moves of one unit in the last place
    ],
)
def test_extreme_paces_are_told_apart(plan, scores, expected):
    assert iterate(0.5 + np.subtract.outer(scores, scores), plan, None, steps=3000).regime == expected
