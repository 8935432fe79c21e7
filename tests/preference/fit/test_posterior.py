"""The posterior of the reward: no units, nothing that is not finite, margins that keep their digits."""

import numpy as np
import pytest

from jaxdesign import CompletionPool, policy_target
from jaxdesign.preference.fit.posterior import (
    Posterior,
    fit_posterior,
    posterior_draws,
    posterior_targets,
    predicted_gap,
    scored_pool,
)
from jaxdesign.preference.labels.labels import as_labels

P, K, D = 12, 5, 4
FEATURES = np.random.default_rng(0).normal(size=(P, K, D)).astype(np.float32)
LABELS = as_labels([(p, 0, 1) for p in range(P)] + [(p, 2, 3) for p in range(P)], np.arange(2 * P) % 2)
PRIOR = np.diag([1.0, 2.0, 0.5, 1.0])


def in_units(units, flip=None):
    units = np.broadcast_to(units, D)
    pool = CompletionPool(FEATURES * units.astype(np.float32), flip=flip)
    return pool, fit_posterior(pool, LABELS, PRIOR * np.outer(units, units)), units


@pytest.mark.thorough(cases=3)
@pytest.mark.parametrize("flip", [None, 0.2])
@pytest.mark.parametrize("units", [2.0**-60, 2.0**60, 2.0 ** np.array([0, 0, 0, 20]), 2.0 ** np.array([-27, 0, 27, 9])])
def test_units_of_columns_do_not_matter(units, flip):
    """A million in one column made the gap infinite."""
    pool, plain, _ = in_units(1.0, flip)
    scaled, found, units = in_units(units, flip)
    assert found.converged
    np.testing.assert_allclose(found.parameter * units, plain.parameter, rtol=1e-9)
    draws = posterior_draws(found, 3, 1)
    np.testing.assert_allclose(draws * units, posterior_draws(plain, 3, 1), rtol=1e-6)
    H, target = (posterior_targets(*given, 0.7) for given in ((pool, draws * units), (scaled, draws)))
    np.testing.assert_allclose(target / np.outer(units, units), H, rtol=1e-4, atol=1e-7)  # float32: 3e-5 in JAX 0.12
    assert predicted_gap(found, target[0], 1.0) == pytest.approx(predicted_gap(plain, H[0], 1.0), rel=1e-5)


def test_the_gap_of_the_report_that_was_infinite():
    pool = CompletionPool(FEATURES * np.float32([1, 1, 1, 1e6]))
    posterior = fit_posterior(pool, LABELS, 1.0)
    H = np.float64(policy_target(pool))
    right = np.trace(np.linalg.inv(posterior.information) @ H) / 2
    assert predicted_gap(posterior, H, 1.0) == pytest.approx(right, rel=1e-6) and right < 1


def test_singular_at_unit_diagonal_is_singular_in_any_units():
    rows = np.random.default_rng(0).standard_normal((3, 4))
    for units in (np.ones(4), np.array([1e8, 1e-8, 1.0, 1e3])):
        singular = Posterior(np.zeros(4), rows.T @ rows * np.outer(units, units), True)
        assert predicted_gap(singular, np.eye(4), 1.0) == np.inf
        with pytest.raises(ValueError, match="singular, so there is nothing to draw from"):
            posterior_draws(singular, 2, 0)
    nothing = Posterior(np.zeros(2), np.diag([1.0, 0.0]), True)
    assert predicted_gap(nothing, np.eye(2), 1.0) == np.inf
    assert predicted_gap(Posterior(np.zeros(2), np.full((2, 2), np.nan), False), np.eye(2), 1.0) == np.inf


def test_margins_keep_the_digits_that_scores_of_one_prompt_share():
    rng = np.random.default_rng(1)
    w = rng.standard_normal(D)
    features = FEATURES + np.float32(4096) * rng.integers(-3, 4, (P, 1, D)).astype(np.float32)
    mask = rng.random((P, K)) < 0.8
    pool = scored_pool(CompletionPool(features, mask=mask), np.stack([w, -w]))
    exact = np.where(mask, features.astype(np.float64) @ w, 0)
    exact = np.where(mask, exact - exact.sum(1, keepdims=True) / np.maximum(mask.sum(1, keepdims=True), 1), 0)
    np.testing.assert_allclose(pool.scores, np.stack([exact, -exact]), rtol=1e-6, atol=1e-6)


# ---- what is refused


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_a_reference_is_seen(dtype, value):
    """It went on into the target. 100,000 values: a maximum over so many drops NaN on CPUs."""
    pool = CompletionPool(np.zeros((25_000, 4, 1), np.float32))
    reference = np.zeros((25_000, 4), dtype)
    reference[17_001, 2] = value
    with pytest.raises(ValueError, match=r"reference: (nan|inf) at prompt 17001, completion 2"):
        posterior_targets(pool, np.zeros(1), 1.0, reference)


def test_other_bad_references_and_parameters():
    pool = CompletionPool(FEATURES)
    reference = np.zeros((P, K))
    reference[3] = -np.inf
    with pytest.raises(ValueError, match="reference: -inf for every completion of prompt 3"):
        posterior_targets(pool, np.zeros(D), 1.0, reference)
    with pytest.raises(ValueError, match=r"reference: shape \(5, 12\) found"):
        posterior_targets(pool, np.zeros(D), 1.0, reference.T)
    for act in (lambda w: posterior_targets(pool, w, 1.0), lambda w: scored_pool(pool, w)):
        with pytest.raises(ValueError, match=r"parameters.*: nan at \[2\]; must be finite"):
            act(np.array([0, 0, np.nan, 0]))
    with pytest.raises(ValueError, match=r"parameters / beta: inf at \[0\]"):
        posterior_targets(pool, np.full(D, 1e300), 1e-10)
    posterior = fit_posterior(pool, LABELS, 1.0)
    for target, words in (
        (np.full((D, D), np.nan), "target: holds NaN"),
        (np.eye(3), "target: shape"),
        (-np.eye(D), "target"),
    ):
        with pytest.raises(ValueError, match=words):
            predicted_gap(posterior, target, 1.0)


def test_masked_slots_of_a_reference_may_hold_anything():
    mask = np.ones((P, K), bool)
    mask[:, 4] = False
    mask[0] = False
    pool = CompletionPool(FEATURES, mask=mask)
    reference = np.where(mask, 0.0, np.nan)
    np.testing.assert_array_equal(
        posterior_targets(pool, np.ones(D), 1.0, reference), posterior_targets(pool, np.ones(D), 1.0)
    )
