"""Position bias: a closed form, the truth it recovers, and what it does not mind."""

import numpy as np
import pytest
from scipy.optimize import minimize

from jaxdesign import CompletionPool
from jaxdesign.preference.fit.bradley_terry import fit_bradley_terry
from jaxdesign.preference.fit.position_bias import estimate_position_bias
from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE, as_labels

BIAS = np.array([0.0, 0.8, -0.5])
W = np.array([1.0, -0.7, 0.4])


def biased(seed, per_annotator=300, flip=0.0, prompts=60):
    """Labels of three annotators, half of them shown the other way round."""
    rng = np.random.default_rng(seed)
    pool = CompletionPool(rng.standard_normal((prompts, 4, 3)).astype(np.float32))
    n = 3 * per_annotator
    who, swapped = np.repeat(np.arange(3), per_annotator), rng.random(n) < 0.5
    i = rng.integers(0, 3, n)
    pairs = np.column_stack([rng.integers(0, prompts, n), i, rng.integers(i + 1, 4)])
    features = np.asarray(pool.features, np.float64)
    u = (features[pairs[:, 0], pairs[:, 1]] - features[pairs[:, 0], pairs[:, 2]]) @ W
    u = u + np.where(swapped, -1, 1) * BIAS[who]
    chosen = (rng.random(n) < 1 / (1 + np.exp(-u))) ^ (rng.random(n) < flip)
    return pool, as_labels(pairs, np.where(chosen, FIRST, SECOND), who), swapped


def test_between_equals_the_bias_is_the_logarithm_of_the_odds():
    """All differences 0: 7 of 10 for whichever is shown first, in either order."""
    pool = CompletionPool(np.zeros((1, 2, 1), np.float32))
    swapped = np.arange(10) >= 5
    first_shown = np.array([1, 1, 1, 0, 0, 1, 1, 1, 1, 0], bool)
    labels = as_labels([(0, 0, 1)] * 10, np.where(first_shown ^ swapped, FIRST, SECOND))
    found = estimate_position_bias(pool, labels, swapped, prior=1.0, bias_prior=0.0)
    assert found.bias[0] == pytest.approx(np.log(7 / 3), abs=1e-9) and found.converged
    assert found.standard_error[0] == pytest.approx(1 / np.sqrt(10 * 0.7 * 0.3), rel=1e-9)
    assert found.parameter.tolist() == [0.0] and found.information.tolist() == [[1.0]]


@pytest.mark.thorough
@pytest.mark.parametrize("flip", [pytest.param(0.0, marks=pytest.mark.slow), 0.2])
def test_biases_are_recovered_with_errors_as_large_as_stated(flip):
    squares = []
    for seed in range(4):
        pool, labels, swapped = biased(seed, flip=flip)
        found = estimate_position_bias(pool, labels, swapped, prior=1e-3, flip=np.full(len(swapped), flip))
        assert found.converged
        squares.append(((found.bias - BIAS) / found.standard_error) ** 2)
        error = found.parameter - W
        assert error @ found.information @ error < 20  # chi-square of 3 degrees of freedom
    assert (found.standard_error < 0.4).all() and 0.3 < np.mean(squares) < 2.2  # 12 squares: 1 +- 0.4


@pytest.mark.thorough
def test_it_is_the_mode_that_scipy_finds_and_the_schur_complement():
    pool, labels, swapped = biased(1, per_annotator=30)
    labels = labels._replace(choices=np.where(np.arange(90) % 7 == 0, TIE, labels.choices).astype(np.int8))
    labels = labels._replace(choices=np.where(np.arange(90) % 11 == 0, SKIP, labels.choices).astype(np.int8))
    found = estimate_position_bias(pool, labels, swapped, prior=0.3, bias_prior=2.0)
    f, (p, i, j) = np.asarray(pool.features, np.float64), labels.pairs.T
    z = np.column_stack(
        [f[p, i] - f[p, j], np.where(swapped, -1, 1)[:, None] * (labels.annotators[:, None] == range(3))]
    )
    prior = np.diag([0.3] * 3 + [2.0] * 3)
    win = np.array([1, 0, 0.5, 0])[labels.choices]
    counts = (labels.choices != SKIP).astype(float)

    def loss(x):
        u = z @ x
        return np.sum(win * np.logaddexp(0, -u) + (counts - win) * np.logaddexp(0, u)) + x @ prior @ x / 2

    best = minimize(loss, np.zeros(6), tol=1e-10).x
    np.testing.assert_allclose(np.r_[found.parameter, found.bias], best, atol=1e-5)
    chance = 1 / (1 + np.exp(-z @ best))
    covariance = np.linalg.inv(prior + (z.T * counts * chance * (1 - chance)) @ z)
    np.testing.assert_allclose(found.standard_error, np.sqrt(np.diagonal(covariance)[3:]), rtol=1e-4)
    np.testing.assert_allclose(np.linalg.inv(found.information), covariance[:3, :3], rtol=1e-4, atol=1e-8)


@pytest.mark.thorough
def test_a_bias_in_one_order_is_kept_out_of_the_reward():
    """The better completion is always shown second: a fit without the bias sees less reward than there is."""
    rng = np.random.default_rng(2)
    rows = np.zeros((400, 2, 1), np.float32)
    rows[:, 0, 0] = np.repeat([1.0, 0.2], 200)
    pool = CompletionPool(rows)
    swapped = np.ones(8000, bool)
    p = rng.integers(0, 400, 8000)
    u = 2.0 * rows[p, 0, 0] - 1.0
    labels = as_labels(np.column_stack([p, 0 * p, 0 * p + 1]), np.where(rng.random(8000) < 1 / (1 + np.exp(-u)), 0, 1))
    found = estimate_position_bias(pool, labels, swapped, prior=1e-6, bias_prior=1e-6)
    assert abs(found.parameter[0] - 2) < 0.25 and abs(found.bias[0] - 1) < 0.15
    plain = fit_bradley_terry(rows[p, 0], labels.choices == FIRST, np.ones(8000))
    assert float(plain.parameter[0]) < 1.2


@pytest.mark.thorough
def test_order_of_labels_numbers_of_annotators_and_units_do_not_matter():
    pool, labels, swapped = biased(3, per_annotator=100)
    plain = estimate_position_bias(pool, labels, swapped, prior=0.1)
    turned = np.random.default_rng(0).permutation(300)
    mixed = type(labels)(*(a[turned] for a in labels))
    mixed = mixed._replace(annotators=np.array([7, 8, 900_000])[mixed.annotators])
    units = np.float32([2.0**-40, 1, 2.0**30])
    scaled = CompletionPool(np.asarray(pool.features) * units)
    prior = 0.1 * np.diag(np.float64(units) ** 2)
    found = estimate_position_bias(scaled, mixed, swapped[turned], prior=prior)
    np.testing.assert_allclose(found.bias, plain.bias, rtol=1e-9)
    np.testing.assert_allclose(found.standard_error, plain.standard_error, rtol=1e-9)
    np.testing.assert_allclose(found.parameter * units, plain.parameter, rtol=1e-9)
    assert found.annotators.tolist() == [7, 8, 900_000] and plain.annotators.tolist() == [0, 1, 2]
    # everything shown the other way round: the bias changes its sign, the reward stays
    other = estimate_position_bias(pool, labels, ~swapped, prior=0.1)
    np.testing.assert_allclose(other.bias, -plain.bias, rtol=1e-9)
    np.testing.assert_allclose(other.parameter, plain.parameter, rtol=1e-9)


def test_what_cannot_be_told_apart_is_not_converged():
    pool = CompletionPool(np.array([[[1.0], [0.0]]], np.float32))
    labels = as_labels([(0, 0, 1)] * 4, [FIRST, SECOND, FIRST, FIRST])
    found = estimate_position_bias(pool, labels, np.zeros(4, bool), prior=0.0, bias_prior=0.0)
    assert not found.converged and np.isnan(found.standard_error).all()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"swapped": [0, 1]}, TypeError, "swapped: dtype int64"),
        ({"swapped": [True]}, ValueError, r"swapped: shape \(1,\) found"),
        ({"bias_prior": -1.0}, ValueError, "bias_prior=-1"),
        ({"bias_prior": np.nan}, ValueError, "bias_prior=nan"),
        ({"prior": -1.0}, ValueError, "prior"),
        ({"flip": 0.5}, ValueError, "flip"),
        ({"flip": [0.1]}, ValueError, r"flip: shape \(1,\)"),
        ({"labels": as_labels([(0, 0, 1)] * 2, [SKIP] * 2)}, ValueError, "no judgement found"),
        ({"labels": as_labels([(9, 0, 1)] * 2, [FIRST] * 2)}, ValueError, "the pool has 1 prompts"),
    ],
)
def test_bad_input_is_refused(change, error, words):
    given = {"labels": as_labels([(0, 0, 1)] * 2, [FIRST, SECOND]), "swapped": [True, False], "prior": 1.0} | change
    with pytest.raises(error, match=words):
        estimate_position_bias(CompletionPool(np.eye(2)[None]), **given)
