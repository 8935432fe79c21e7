"""Certificates: what each proves, measured over random pairs of points, and simulated from the worst starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from jaxdesign.dynamics import Evidence, LoopPlan, Regime, fixed_point, iterate, stability
from jaxdesign.dynamics.certificates import certificates, cyclic_norm, locally_safe_for_all, safe_for_all, spread
from tests.support.rounds import centred, close, divergence_from, softmax, used
from tests.support.tournaments import CHAIN, M4, REFERENCE, additive, cycle, random_preferences, rotational

pytestmark = pytest.mark.usefixtures("float64_scope")
SIZES = [3, 8, pytest.param(64, marks=pytest.mark.thorough)]
certified = jax.jit(certificates)
width, norm = jax.jit(spread), jax.jit(cyclic_norm)


def kinds(rng, size):
    """Uniform, extreme, nearly transitive and cyclic preferences."""
    yield random_preferences(rng, size)
    yield 0.5 + 0.5 * np.sign(random_preferences(rng, size) - 0.5)
    order = np.clip(additive(np.sort(rng.uniform(-0.2, 0.2, size))[::-1]), 0, 1)
    yield order + 0.1 * (random_preferences(rng, size) - 0.5)
    yield rotational(size | 1, 0.5)[:size, :size]


def pairs_of_points(rng, size, number=400):
    """Near and far, close to vertices, differing in two answers alone: where contractions are worst."""
    first = rng.choice([0.1, 1, 6], (number, 1)) * rng.normal(size=(number, size))
    away = rng.choice([1e-3, 1, 6], (number, 1)) * rng.normal(size=(number, size))
    signs = np.sign(rng.normal(size=(number, size))) * rng.choice([0.1, 3], (number, 1))
    signs[:, 1] = -signs[:, 0]  # not all alike, which would be no difference
    away = np.where(rng.uniform(size=(number, 1)) < 0.4, signs, away)
    return centred(first), centred(first + away)


def rounds(x, preferences, plan):
    x_ref = np.zeros(x.shape[-1]) if plan.reference is None else plan.reference
    mu = plan.share * softmax(plan.temper * x) + (1 - plan.share) / x.shape[-1]
    return centred(plan.alpha * x + (1 - plan.alpha) * x_ref + plan.strength * mu @ (preferences - 0.5).T)


def test_known_values():
    close([width(cycle(0.4)), norm(cycle(0.4))], [0.3, 0.692820323])  # T6
    close([width(M4), norm(M4)], [0.275, 0.5590169944])
    found = certified(M4, used(LoopPlan(0.6, 3.0, 0.7, reference=REFERENCE), 4))  # T11
    close(found[:3], [1.186967844, 1.1775, 1.389609375], 9)


@pytest.mark.parametrize("size", SIZES)
def test_spread_is_the_largest_of_all_fours_and_no_certificate_needs_more_than_it_says(size):
    rng = np.random.default_rng(size)
    for preferences in kinds(rng, size):
        A = preferences - 0.5
        if size < 10:
            fours = A[:, None, :, None] - A[:, None, None, :] - A[None, :, :, None] + A[None, :, None, :]
            np.testing.assert_allclose(width(preferences), np.abs(fours).max() / 4, rtol=1e-12)
        assert width(preferences) <= np.abs(A).max() + 1e-15 <= 0.5 + 1e-14
        C = np.eye(size) - 1 / size
        np.testing.assert_allclose(norm(preferences), np.linalg.norm(C @ A @ C, 2), rtol=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("temper", [1.0, 0.5])
def test_c1_and_c1r_are_contractions_in_their_norms(size, temper):
    rng = np.random.default_rng(size)
    for preferences in kinds(rng, size):
        plan = LoopPlan(0.4, 2.0, 0.8, temper=temper)
        found = certified(preferences, used(plan, size))
        x, y = pairs_of_points(rng, size)
        before, after = x - y, rounds(x, preferences, plan) - rounds(y, preferences, plan)
        lengths = np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
        ranges = np.ptp(after, axis=1) / np.ptp(before, axis=1)
        assert lengths.max() <= found.c1 * (1 + 1e-9)
        assert ranges.max() <= found.c1r * (1 + 1e-9)
        assert lengths.max() > 0.4 - 1e-6  # alpha at least: the comparison can fail


def test_c1_is_sharp_for_two_nearly_tied_answers_of_a_cycle():
    """At pi = (1/2, 1/2, 0) softmax stretches by 1/2, and the range contracts by exactly a quarter of L's four."""
    plan, preferences = LoopPlan(0.0, 1.0), cycle(0.4)
    x = np.array([0, 0, -40.0])
    moved = rounds(x + np.array([1e-4, -1e-4, 0]), preferences, plan) - rounds(x, preferences, plan)
    np.testing.assert_allclose(np.ptp(moved) / 2e-4, certified(preferences, used(plan, 3)).c1r, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_c2_shrinks_the_divergence_by_alpha_each_round(size):
    rng = np.random.default_rng(size)
    for preferences in kinds(rng, size):
        for alpha in (0.05, 0.5, 0.95):
            strength = np.sqrt(alpha * (1 - alpha)) / float(width(preferences))  # C2 = 1, its edge
            plan = LoopPlan(alpha, strength, 1.0, reference=rng.normal(size=size))
            np.testing.assert_allclose(certified(preferences, used(plan, size)).c2, 1, rtol=1e-12)
            best = fixed_point(preferences, plan).log_policy
            x = best + np.concatenate(pairs_of_points(rng, size))
            after = rounds(x, preferences, plan)
            kl = [divergence_from(best, log_softmax(y, axis=-1)) for y in (x, after)]
            assert np.all(kl[1] <= alpha * kl[0] * (1 + 1e-9) + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, pytest.param(32, marks=pytest.mark.thorough)])
def test_where_one_holds_rounds_end_at_the_fixed_point_from_the_worst_starts(size):
    """At 0.999 of the largest gain that one allows, with everything that random preferences have."""
    rng = np.random.default_rng(size)
    draws = np.stack([*kinds(rng, size)])
    starts = np.stack([50 * np.eye(size)[0], -50 * np.eye(size)[1], 20 * rng.normal(size=size), np.zeros(size)])
    held = set()
    for alpha in (0.02, 0.5, 0.9):
        for preferences in draws:
            gain = float(certified(preferences, used(LoopPlan(alpha, 1.0), size)).largest_gain)
            plan = LoopPlan(alpha, 0.999 * gain, reference=rng.normal(size=size))
            found = stability(preferences, plan)
            assert found.converges and found.proven == 1 and found.rho < 1
            held.add(Evidence(int(found.evidence)))
            ended = iterate(np.broadcast_to(preferences, (4, size, size)), plan, starts, steps=900)
            np.testing.assert_allclose(
                np.exp(ended.log_policy), np.exp(np.stack([found.fixed_point.log_policy] * 4)), atol=1e-9
            )
            np.testing.assert_array_equal(ended.regime, Regime.RESTING)
    assert {Evidence.C2, Evidence.C1R} <= held | {Evidence.C1 if size < 5 else Evidence.C1R}


@given(seed=st.integers(0, 2**32 - 1), alpha=st.floats(0, 0.99), temper=st.sampled_from([1.0, 1.0, 0.5, 2.0]))
def test_the_largest_gain_is_where_the_last_one_goes(seed, alpha, temper):
    preferences = random_preferences(np.random.default_rng(seed), 4)
    gain = float(certified(preferences, used(LoopPlan(alpha, 1.0, temper=temper), 4)).largest_gain)
    for share in (1.0, 0.3):
        inside, outside = (
            certified(preferences, used(LoopPlan(alpha, factor * gain / share, share, temper=temper), 4))
            for factor in (0.999, 1.001)
        )
        assert min(inside[:3]) < 1 < min(outside[:3])


def test_no_spread_allows_any_gain_even_without_memory():
    for preferences in (additive([0.2, -0.1]), np.full((4, 4), 0.5)):
        for alpha in (0.0, 0.5):
            found = certified(preferences, used(LoopPlan(alpha, 7.0), len(preferences)))
            assert found.largest_gain == np.inf
            np.testing.assert_allclose(found[:2], alpha, atol=1e-12)


def test_at_alpha_one_nothing_holds():
    found = certified(CHAIN, used(LoopPlan(1.0, 1.0), 4))
    assert min(found.c1, found.c1r, found.c2) >= 1 and found.largest_gain == 0


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "mix"), [("dpo", "answers"), ("ipo", "pairs"), ("dpo", "pairs")])
def test_other_loops_have_one_only_without_feedback(loss, mix):
    found = certified(M4, used(LoopPlan(0.5, 1.0, 0.1, loss=loss, mix=mix), 4))
    assert found == (np.inf, np.inf, np.inf, 0)
    for plan in (LoopPlan(0.5, 1.0, 0.0, loss=loss, mix=mix),):
        assert certified(M4, used(plan, 4)).c1 == 0.5
        assert stability(M4, plan).evidence == Evidence.C1
        assert safe_for_all(plan) and locally_safe_for_all(plan)
    assert not safe_for_all(LoopPlan(1.0, 1.0, 0.0, loss=loss, mix=mix))


@given(seed=st.integers(0, 2**32 - 1), temper=st.sampled_from([1.0, 0.5]))
def test_verdicts_for_all_preferences_hold_for_extreme_ones(seed, temper):
    rng = np.random.default_rng(seed)
    preferences = 0.5 + 0.5 * np.sign(random_preferences(rng, 4) - 0.5)
    alpha, share = rng.uniform(0, 0.95), rng.uniform(0.2, 1)
    edge, local = 2 * (1 - alpha) / temper / share, np.pi * np.sqrt(1 - alpha**2) / temper / share
    inside, outside = (LoopPlan(alpha, factor * edge, share, temper=temper) for factor in (0.999, 1.001))
    assert safe_for_all(inside) and not safe_for_all(outside)
    assert certified(preferences, used(inside, 4)).c1r < 1
    inside, outside = (LoopPlan(alpha, factor * local, share, temper=temper) for factor in (0.999, 1.001))
    assert locally_safe_for_all(inside) and not locally_safe_for_all(outside)
    assert stability(preferences, inside).rho < 1


@pytest.mark.slow
def test_single_precision_asks_for_more_room():
    """Evidence needs more than rounding: 1e-3 of float32, 1e-12 of float64."""
    preferences = cycle(0.4)
    plan = LoopPlan(0.5, 0.5 / 0.3 * (1 - 1e-4))
    assert stability(preferences, plan).evidence == Evidence.C1R
    assert stability(preferences.astype(np.float32), plan).evidence == Evidence.NONE
    assert (
        certified(jnp.asarray(preferences, jnp.float32), jax.tree.map(np.float32, used(plan, 3))).c1.dtype == np.float32
    )
