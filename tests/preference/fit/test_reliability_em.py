"""EM of reliability: its steps by hand, the likelihood it climbs, the truth it recovers, whom it tells apart."""

import numpy as np
import pytest
from scipy.optimize import minimize

from jaxdesign import CompletionPool
from jaxdesign.preference.fit.bradley_terry import fit_bradley_terry
from jaxdesign.preference.fit.reliability import estimate_reliability, flip_of
from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE, Labels, as_labels, concatenated, counted
from tests.support.crowds import ETA, a_pool, a_truth, differences, judged, log_likelihood

# ---- the truth is recovered


@pytest.mark.thorough
def test_true_reliabilities_are_recovered(crowd):
    pool, truth, labels, found = crowd
    assert found.converged and found.iterations < 200
    assert (np.abs(found.eta - ETA) < 4 * found.standard_error).all()
    assert (np.abs(found.eta - ETA) < 0.06).all() and (found.standard_error < 0.04).all()
    error = found.parameter - truth
    assert error @ found.information @ error < 20  # chi-square of 4 degrees of freedom
    # who is weighed as reliable gives a better reward than everybody alike
    plain = fit_bradley_terry(differences(pool, counted(labels)[0]), *counted(labels)[1:]).parameter
    assert np.linalg.norm(error) < 0.5 * np.linalg.norm(np.asarray(plain) - truth)


def test_perfect_annotators_are_found_perfect():
    pool = a_pool(3)
    labels = judged(pool, a_truth(pool, 3, size=4.0), [1.0] * 4, 5)
    found = estimate_reliability(pool, labels)
    assert (found.eta > 0.985).all()
    assert np.nanmin(found.responsibilities) > 0.2 and np.nanmean(found.responsibilities) > 0.985


def test_taken_as_perfect_the_fit_is_bradley_terry():
    pool = a_pool(4)
    labels = judged(pool, a_truth(pool, 4), [0.9, 0.8, 0.8, 0.8], 2, tie=0.4)
    found = estimate_reliability(pool, labels, pseudo_labels=(1e12, 0.0), prior=0.3)
    pairs, wins, counts = counted(labels)
    plain = fit_bradley_terry(differences(pool, pairs), wins, counts, prior=0.3)
    np.testing.assert_allclose(found.parameter, plain.parameter, atol=1e-6)
    np.testing.assert_allclose(found.information, plain.information, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.eta, 1, atol=1e-9)
    np.testing.assert_allclose(found.responsibilities[labels.choices < TIE], 1, atol=1e-6)


def test_responsibilities_tell_reversed_labels_from_straight_ones():
    pool = a_pool(7)
    truth = a_truth(pool, 7, size=6.0)
    labels = judged(pool, truth, [0.8] * 4, 1)
    found = estimate_reliability(pool, labels)
    u = differences(pool, labels.pairs) @ truth
    clear = np.abs(u) > 4
    straight = (labels.choices == FIRST) == (u > 0)
    assert (
        found.responsibilities[clear & straight].min() > 0.9 and found.responsibilities[clear & ~straight].max() < 0.3
    )


# ---- the likelihood and the steps


def test_the_likelihood_never_falls(crowd):
    *_, found = crowd
    steps = np.diff(found.log_likelihood)
    assert (steps > -1e-9).all() and steps[0] > 1 and len(steps) == found.iterations


@pytest.mark.thorough
def test_the_likelihood_is_that_of_the_labels_and_its_maximum():
    pool = a_pool(2, prompts=6, dim=3)
    labels = judged(pool, a_truth(pool, 2), [0.95, 0.7], 4, tie=0.3, skip=0.1)
    assert set(labels.choices.tolist()) == {FIRST, SECOND, TIE, SKIP}
    found = estimate_reliability(pool, labels, tol=1e-9, max_iterations=5000)
    np.testing.assert_allclose(found.log_likelihood[-1], log_likelihood(pool, labels, found.parameter, found.eta))

    def loss(x):
        return -log_likelihood(pool, labels, x[:3], 1 / (1 + np.exp(-x[3:])))

    best = minimize(loss, np.array([*found.parameter, 1.0, 1.0]) + 0.1, tol=1e-10)
    np.testing.assert_allclose(best.fun, -found.log_likelihood[-1], rtol=1e-7)
    np.testing.assert_allclose(1 / (1 + np.exp(-best.x[3:])), found.eta, atol=1e-3)


def test_one_step_by_hand():
    """One pair, z = 1: five say first, two say second, by two annotators; eta starts at 0.8 and 0.6."""
    pool = CompletionPool(np.array([[[1.0], [0.0]]]))
    labels = as_labels([(0, 0, 1)] * 7, [FIRST] * 4 + [SECOND] + [FIRST, SECOND], [0] * 5 + [1] * 2)
    found = estimate_reliability(pool, labels, start=[0.8, 0.6], max_iterations=1)
    p = 5 / 7  # the first fit of w takes the labels as they are
    right = {
        (e, c): (q := p if c == FIRST else 1 - p) * e / (q * e + (1 - q) * (1 - e)) for e in (0.8, 0.6) for c in (0, 1)
    }
    np.testing.assert_allclose(found.eta[0], (4 * right[0.8, FIRST] + right[0.8, SECOND]) / 5)
    np.testing.assert_allclose(found.eta[1], (right[0.6, FIRST] + right[0.6, SECOND]) / 2)
    wins = 4 * right[0.8, FIRST] + 1 - right[0.8, SECOND] + right[0.6, FIRST] + 1 - right[0.6, SECOND]
    np.testing.assert_allclose(found.parameter, np.log(wins / (7 - wins)), rtol=1e-6)
    assert found.iterations == 1 and not found.converged


def test_an_average_over_steps_leads_to_the_same_place_slowly(crowd):
    pool, _, labels, plain = crowd
    found = estimate_reliability(pool, labels, ema=0.3, max_iterations=2000)
    assert found.converged and found.iterations > plain.iterations
    np.testing.assert_allclose(found.eta, plain.eta, atol=2e-4)


def test_the_mirror_image_is_as_likely_and_the_start_chooses(crowd):
    pool, _, labels, found = crowd
    mirrored = Labels(labels.pairs, 1 - labels.choices, labels.annotators)
    other = estimate_reliability(pool, mirrored)
    np.testing.assert_allclose(other.parameter, -found.parameter, atol=1e-5)
    np.testing.assert_allclose(other.eta, found.eta, atol=1e-5)
    same = log_likelihood(pool, labels, -found.parameter, 1 - found.eta)
    np.testing.assert_allclose(same, log_likelihood(pool, labels, found.parameter, found.eta))


# ---- labels that say little


def test_ties_and_skips_say_nothing_about_reliability(crowd):
    pool, _, labels, found = crowd
    pairs = labels.pairs[:6]
    skips = as_labels(pairs, [SKIP] * 6, [0] * 6)
    again = estimate_reliability(pool, concatenated(labels, skips))
    np.testing.assert_allclose(again.eta, found.eta, atol=1e-7)
    assert np.isnan(again.responsibilities[-6:]).all() and np.isfinite(again.responsibilities[:-6]).all()
    silent = estimate_reliability(pool, concatenated(labels, as_labels(pairs, [TIE] * 6, [5] * 6)), annotators=7)
    assert np.isnan(silent.eta[4:]).all() and silent.annotators.tolist() == list(range(7))
    np.testing.assert_allclose(silent.standard_error[4:], 1 / np.sqrt(12))  # the flat prior's
    np.testing.assert_allclose(silent.posterior_mean[4:], 0.5)
    assert (flip_of(silent.eta)[4:] == 0.49).all()
    np.testing.assert_allclose(silent.eta[:4], found.eta, atol=0.01)


def test_pseudo_labels_keep_the_few_from_the_ends():
    pool = a_pool(6)
    labels = judged(pool, a_truth(pool, 6, size=4.0), [1.0, 0.8], 2)
    few = as_labels(labels.pairs[:1], [labels.choices[0]], [2])
    held = estimate_reliability(pool, concatenated(labels, few), pseudo_labels=(9.0, 1.0))
    assert 0.85 < held.eta[2] < 0.95 and (np.diff(held.log_likelihood) > -1e-9).all()
    assert abs(held.eta[1] - 0.8) < 0.07
