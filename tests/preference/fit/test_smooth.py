"""A smooth belief: rewards of the spread asked for, along what varies, whatever the units and the rotation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import Belief, CompletionPool, policy_target
from jaxdesign.preference import as_labels, fit_posterior, implied_prior, smooth_belief
from jaxdesign.preference.labels.labels import FIRST, SECOND

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((30, 5, 6)) * np.array([4, 2, 1, 1, 0.5, 0.25])
POOL = CompletionPool(FEATURES)
H = np.asarray(policy_target(POOL), np.float64)
few = settings(max_examples=5)


@few
@given(st.floats(1e-3, 1e3))
def test_covariance_is_that_of_completions_at_the_spread_asked_for(tau):
    found = smooth_belief(POOL, tau)
    np.testing.assert_allclose(found.covariance, tau**2 * H / np.sum(H**2), rtol=1e-4, atol=1e-5 * tau**2 / H.max())
    assert np.sum(found.covariance * H) == pytest.approx(tau**2, rel=1e-9) and not found.mean.any()


def test_rewards_drawn_from_it_have_that_spread_within_prompts():
    """By simulation, variances written out."""
    rewards = FEATURES @ smooth_belief(POOL, 3.0).draws(4000, 0).T
    assert np.mean(np.var(rewards, axis=1)) == pytest.approx(9, rel=0.05)


@few
@given(st.floats(1e-12, 1e12), st.integers(0, 99))
def test_margins_do_not_depend_on_the_unit_or_on_a_rotation(unit, seed):
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((6, 6)))[0]
    other = smooth_belief(CompletionPool(unit * FEATURES @ turn), 2.0)
    z = FEATURES[:, 0] - FEATURES[:, 1]
    own, turned = z @ smooth_belief(POOL, 2.0).covariance @ z.T, unit * z @ turn
    np.testing.assert_allclose(turned @ other.covariance @ turned.T, own, rtol=1e-3, atol=1e-3)


def test_what_never_varies_is_held_to_be_about_zero_and_masked_slots_do_not_count():
    features, mask = np.concatenate([FEATURES, np.ones((30, 5, 1))], axis=2), np.ones((30, 5), bool)
    features[2, 3], mask[2, 3] = 1e6, False
    found = smooth_belief(CompletionPool(features, mask=mask)).covariance
    assert found[6, 6] < 1e-4 * np.trace(found) and found[0, 0] > 0.5 * np.trace(found)


def test_it_learns_a_smooth_reward_from_fewer_labels_than_the_ridge_of_the_same_spread():
    """Forty draws of the reward from the belief itself, in which its posterior mode has the least expected error."""
    smooth = smooth_belief(POOL, 1.0)
    flat = Belief.from_ridge(float(np.trace(H)), 6)  # tr(H I / ridge) = 1
    errors = np.zeros(2)
    for seed, w in enumerate(smooth.draws(40, 1)):
        rng = np.random.default_rng(seed)
        p, i = rng.integers(30, size=25), rng.integers(5, size=25)
        ends = np.sort(np.stack([i, (i + rng.integers(1, 5, size=25)) % 5], axis=1), axis=1)
        pairs = np.concatenate([p[:, None], ends], axis=1)
        margin = np.einsum("nd,d->n", FEATURES[p, pairs[:, 1]] - FEATURES[p, pairs[:, 2]], w)
        labels = as_labels(pairs, np.where(rng.random(25) < 1 / (1 + np.exp(-margin)), FIRST, SECOND))
        for k, belief in enumerate((smooth, flat)):
            left = fit_posterior(POOL, labels, belief).parameter - w
            errors[k] += left @ H @ left
    assert errors[0] < 0.95 * errors[1]


def test_its_spread_can_be_taken_from_a_trained_policy():
    """A policy that is the fit with tau = 0.3: `implied_prior` finds the precision 1 / 0.09 of that of tau = 1."""
    rng = np.random.default_rng(5)
    ends = np.sort(np.stack([rng.permutation(5)[:2] for _ in range(30)]), axis=1)
    pairs = np.concatenate([np.arange(30)[:, None], ends], axis=1)
    labels = as_labels(pairs, rng.choice([FIRST, SECOND], size=30))
    policy = FEATURES @ fit_posterior(POOL, labels, smooth_belief(POOL, 0.3)).parameter
    found = implied_prior(policy, POOL, labels, prior=smooth_belief(POOL))
    assert found.ridge == pytest.approx(1 / 0.09, rel=0.02)


def test_refusals_name_the_argument():
    with pytest.raises(ValueError, match="tau"):
        smooth_belief(POOL, 0.0)
    with pytest.raises(ValueError, match="pool"):
        smooth_belief(CompletionPool(np.ones((3, 4, 2))))
