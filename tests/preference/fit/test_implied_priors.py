"""The ridge that a trained policy implies: found again where it is known, and free of units, constants and scale."""

import numpy as np
import pytest

from jaxdesign import Belief, CompletionPool
from jaxdesign.belief import as_belief
from jaxdesign.preference import as_labels, fit_posterior, implied_prior

P, K, D = 30, 5, 4
RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((P, K, D)).astype(np.float32)
REWARDS = FEATURES @ np.array([1.0, -2.0, 0.5, 1.5], np.float32)
PAIRS = np.array([(p, i, i + 1) for p in range(P) for i in (0, 2)])
MARGINS = REWARDS[PAIRS[:, 0], PAIRS[:, 1]] - REWARDS[PAIRS[:, 0], PAIRS[:, 2]]
LABELS = as_labels(PAIRS, (RNG.random(len(PAIRS)) > 1 / (1 + np.exp(-MARGINS))).astype(int))
POOL = CompletionPool(FEATURES)


def policy_of(pool, prior, labels=LABELS):
    return np.asarray(pool.features, np.float64) @ fit_posterior(pool, labels, prior).parameter


@pytest.mark.thorough
@pytest.mark.parametrize("ridge", [0.3, 5.0, 60.0])
def test_the_ridge_of_a_fit_is_found_again(ridge):
    found = implied_prior(policy_of(POOL, ridge), POOL, LABELS)
    assert found.ridge == pytest.approx(ridge, rel=0.01)
    assert found.interval[0] <= found.ridge <= found.interval[1] and not found.at_edge
    assert found.correlation == pytest.approx(1, abs=1e-6) and found.scale == pytest.approx(1, rel=0.01)
    z = FEATURES[PAIRS[:, 0], PAIRS[:, 1]] - FEATURES[PAIRS[:, 0], PAIRS[:, 2]]
    each = np.mean(np.sum(np.float64(z) ** 2, axis=1)) / 4
    assert found.labels_worth == pytest.approx(found.ridge * D / each, rel=1e-6)
    np.testing.assert_allclose(as_belief(found, D).precision, found.ridge * np.eye(D))


@pytest.mark.thorough
def test_correlation_and_scale_are_those_over_pairs_without_a_label():
    """Written out pair by pair; masked slots hold NaN, one prompt has a single completion."""
    mask = np.random.default_rng(1).random((P, K)) < 0.8
    mask[0] = [True, False, False, False, False]
    mask[PAIRS[2:, 0], PAIRS[2:, 1]] = mask[PAIRS[2:, 0], PAIRS[2:, 2]] = True
    labels = as_labels(LABELS.pairs[2:], LABELS.choices[2:])
    policy = np.where(mask, REWARDS + 0.5 * np.random.default_rng(2).standard_normal((P, K)), np.nan)
    found = implied_prior(policy, CompletionPool(np.where(mask[..., None], FEATURES, np.nan), mask=mask), labels)
    w = fit_posterior(CompletionPool(FEATURES, mask=mask), labels, found.ridge).parameter
    listed = {tuple(pair) for pair in labels.pairs.tolist()}
    pairs = [(p, i, j) for p in range(P) for i in range(K) for j in range(i + 1, K)]
    pairs = [(p, i, j) for p, i, j in pairs if mask[p, i] and mask[p, j] and (p, i, j) not in listed]
    own = np.array([policy[p, i] - policy[p, j] for p, i, j in pairs])
    fitted = np.array([FEATURES[p, i] - FEATURES[p, j] for p, i, j in pairs]) @ w
    assert found.correlation == pytest.approx(own @ fitted / np.sqrt(own @ own * (fitted @ fitted)), rel=1e-5)
    assert found.scale == pytest.approx(own @ fitted / (fitted @ fitted), rel=1e-5)


@pytest.mark.thorough
def test_constants_of_prompts_and_the_scale_of_the_policy_do_not_matter():
    policy = policy_of(POOL, 5.0)
    plain = implied_prior(policy, POOL, LABELS)
    other = implied_prior(3 * policy + 100 * RNG.standard_normal((P, 1)), POOL, LABELS)
    assert other.ridge == pytest.approx(plain.ridge, rel=1e-6)
    assert other.scale == pytest.approx(3 * plain.scale, rel=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("held_back", [1.0, 0.25])
def test_where_labels_say_little_the_pull_tells_what_the_ridge_does_not(held_back):
    """Ten thousand times the labels' information: the match is flat from there on, and only the size is told."""
    ridge = 1e4
    found = implied_prior(held_back * policy_of(POOL, ridge), POOL, LABELS)
    assert found.interval[1] > 10 * found.interval[0]
    assert found.pull == pytest.approx(ridge / held_back, rel=0.02)
    assert found.pull == found.ridge / found.scale
    wrong = implied_prior(-policy_of(POOL, ridge), POOL, LABELS)  # ranks pairs the other way: no prior does that
    assert wrong.scale < 0 and wrong.pull == np.inf


@pytest.mark.thorough
def test_units_of_features_do_not_matter_where_the_shape_has_them():
    units = 2.0 ** np.array([-9, 0, 20, 3])
    pool, shape = CompletionPool(FEATURES * units.astype(np.float32)), np.diag(units**2)
    found = implied_prior(policy_of(POOL, 5.0), pool, LABELS, prior=shape)
    assert found.ridge == pytest.approx(5.0, rel=0.01)
    np.testing.assert_allclose(found.belief.precision, found.ridge * shape)


@pytest.mark.thorough
def test_the_mean_of_the_shape_is_where_fits_are_pulled():
    shape = Belief(np.array([2.0, 0.0, -1.0, 0.0]), np.diag([1.0, 2.0, 1.0, 3.0]))
    policy = policy_of(POOL, Belief(shape.mean, 4 * shape.precision))
    found = implied_prior(policy, POOL, LABELS, prior=shape)
    assert found.ridge == pytest.approx(4.0, rel=0.02)
    np.testing.assert_array_equal(found.belief.mean, shape.mean)


@pytest.mark.thorough
def test_a_policy_that_goes_one_way_with_the_labels_ends_at_the_edge():
    """The first step from the reference: the fit of an infinite ridge."""
    z = FEATURES[PAIRS[:, 0], PAIRS[:, 1]] - FEATURES[PAIRS[:, 0], PAIRS[:, 2]]
    step = (0.5 - np.asarray(LABELS.choices)) @ np.float64(z)
    found = implied_prior(1e-3 * FEATURES @ step, POOL, LABELS)
    assert found.at_edge and found.labels_worth > 5_000
    assert found.correlation == pytest.approx(1, abs=1e-4)


@pytest.mark.thorough
def test_flips_of_the_pool_are_the_noise_of_the_fit():
    noisy = CompletionPool(FEATURES, flip=0.15)
    found = implied_prior(policy_of(noisy, 5.0), noisy, LABELS)
    assert found.ridge == pytest.approx(5.0, rel=0.02)
    assert abs(np.log(implied_prior(policy_of(noisy, 5.0), POOL, LABELS).ridge / 5.0)) > 0.05


ALL = as_labels([(p, i, j) for p in range(P) for i in range(K) for j in range(i + 1, K)], [0] * (10 * P))


@pytest.mark.parametrize(
    ("policy", "labels", "prior", "words"),
    [
        (REWARDS[:, :3], LABELS, 1.0, r"policy: shape \(30, 3\) found"),
        (np.where(np.arange(K) == 2, np.nan, REWARDS), LABELS, 1.0, "policy: nan at prompt 0, completion 2"),
        (np.ones((P, K)), LABELS, 1.0, "was it trained"),
        (REWARDS, ALL, 1.0, "every pair of different completions has one"),
        (REWARDS, as_labels(PAIRS[:2], [3, 3]), 1.0, "labels: none found"),
        (REWARDS, LABELS, None, "prior: without precision"),
    ],
)
def test_what_is_refused(policy, labels, prior, words):
    with pytest.raises(ValueError, match=words):
        implied_prior(policy, POOL, labels, prior=prior)
