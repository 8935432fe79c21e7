"""Slopes by length find what was put in: 1 where margins are as predicted, falling where long pairs promise more."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

import jaxdesign as jd
from jaxdesign.preference.fit import slopes_by_length as module
from jaxdesign.preference.fit.slopes_by_length import length_slopes
from jaxdesign.preference.labels.labels import as_labels

PROMPTS, COMPLETIONS, DIM = 300, 6, 3
THETA = np.array([1.5, -1.0, 0.5])


def pilot(seed, number=6000, bend=0.0, flip=0.0):
    """Labels of random pairs whose margins are (|z| / median)^bend z . theta."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((PROMPTS, COMPLETIONS, DIM)) * np.exp(0.4 * rng.standard_normal((PROMPTS, 1, 1)))
    p, i = rng.integers(0, PROMPTS, number), rng.integers(0, COMPLETIONS - 1, number)
    j = rng.integers(i + 1, COMPLETIONS)
    z = features[p, i] - features[p, j]
    lengths = np.linalg.norm(z, axis=1)
    chance = (1 - 2 * flip) * expit((z @ THETA) * (lengths / np.median(lengths)) ** bend) + flip
    choices = (rng.random(number) > chance).astype(int)
    pool = jd.CompletionPool(features.astype(np.float32), flip=flip or None)
    return pool, as_labels(np.stack([p, i, j], axis=1), choices)


@pytest.mark.parametrize("flip", [0.0, 0.15])
def test_slopes_are_one_where_margins_are_linear(flip):
    found = length_slopes(*pilot(0, flip=flip), prior=1e-3, groups=5)
    assert (np.diff(found.lengths) > 0).all()
    assert (np.abs(found.slopes - 1) < 4 * found.errors).all() and (found.errors < 0.3).all()
    assert abs(found.trend) < 3 * found.error < 0.5


@pytest.mark.parametrize("bend", [-0.6, 0.6])
def test_a_trend_is_found_with_its_sign(bend):
    found = length_slopes(*pilot(1, bend=bend), prior=1e-3)
    assert found.certain and found.clip == (bend < 0)
    assert np.sign(found.slopes[-3:].mean() - found.slopes[:3].mean()) == np.sign(bend)
    said = found.summary()
    assert ("clip_rows" in said["in words"]) == (bend < 0) and json.loads(json.dumps(said)) == said


@pytest.mark.thorough
def test_errors_are_those_of_repeated_pilots():
    found = [length_slopes(*pilot(seed, number=1500), prior=1e-3, groups=1) for seed in range(40)]
    spread = np.std([one.trend for one in found])
    assert 0.7 < spread / np.mean([one.error for one in found]) < 1.4
    assert np.abs(np.mean([one.trend for one in found])) < 4 * spread / np.sqrt(40)


def test_coefficients_maximise_the_likelihood():
    rng = np.random.default_rng(0)
    columns, counts, flip = rng.standard_normal((80, 2)), rng.integers(1, 4, 80).astype(float), rng.uniform(0, 0.3, 80)
    wins = rng.binomial(counts.astype(int), expit(columns @ [0.8, -0.3])).astype(float)
    parameter, covariance = module._fitted(columns, wins, counts, np.zeros(80))

    def loss(w):
        return -(wins @ log_expit(columns @ w) + (counts - wins) @ log_expit(-columns @ w))

    best = minimize(loss, np.zeros(2), tol=1e-12)
    np.testing.assert_allclose(parameter, best.x, atol=1e-5)
    np.testing.assert_allclose(covariance, best.hess_inv, rtol=0.2, atol=1e-3)
    moved = module._fitted(columns * [1e9, 1e-9], wins, counts, flip)[0]
    np.testing.assert_allclose(moved * [1e9, 1e-9], module._fitted(columns, wins, counts, flip)[0], rtol=1e-6)


def test_what_labels_separate_has_no_slope():
    columns, wins = np.array([[1.0], [2.0]]), np.array([1.0, 1.0])
    parameter, covariance = module._fitted(columns, wins, np.ones(2), np.zeros(2))
    assert np.isnan(parameter).all() and np.isnan(covariance).all()


def test_lengths_have_the_unit_of_the_features_and_slopes_none():
    pool, labels = pilot(2, number=2000)
    found = length_slopes(pool, labels, prior=1.0)
    other = length_slopes(jd.CompletionPool(pool.features * 64), labels, prior=64.0**2)
    np.testing.assert_allclose(other.lengths, 64 * found.lengths, rtol=1e-6)
    np.testing.assert_allclose(other.slopes, found.slopes, rtol=1e-4)
    np.testing.assert_allclose([other.trend, other.error], [found.trend, found.error], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"groups": 0}, "groups=0: expected a whole number"),
        ({"folds": 1}, "folds=1: expected a whole number"),
        ({"folds": 400}, r"labels: of \d+ prompts, fewer than folds=400"),
        ({"groups": 500}, r"labels: of \d+ pairs, fewer than groups=500"),
    ],
)
def test_bad_settings_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        length_slopes(*pilot(3, number=200), prior=1.0, **options)
