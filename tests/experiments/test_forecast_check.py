"""Forecasts of measured gains: by simulation of what they are derived for, and what counts as right."""

import numpy as np
import pytest

from bench.experiments.forecast_check import expected_gain, learned, shares


def test_the_gain_of_the_best_multiple_is_that_of_fits_in_a_linear_world():
    rng = np.random.default_rng(0)
    z, dim, ridge = rng.standard_normal((30, 4)), 4, 3.0
    S, H, slopes = np.diag([0.5, 0.2, 0.1, 0.1]), np.eye(dim) + 0.3, rng.uniform(0.1, 0.25, 30)
    w = rng.multivariate_normal(np.zeros(dim), S, 200_000)
    labels = (w @ z.T) * slopes + rng.standard_normal((len(w), 30)) / 2
    fits = labels @ z @ np.linalg.inv(ridge * np.eye(dim) + z.T @ z / 4)
    along, square = np.mean(np.sum(fits @ H * w, axis=1)), np.mean(np.sum(fits @ H * fits, axis=1))
    assert expected_gain(H, S, ridge, z, slopes) == pytest.approx(along**2 / (2 * square), rel=0.02)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_what_rewards_leave_and_where_their_signal_lies_is_learned(power):
    rng = np.random.default_rng(1)
    features = rng.standard_normal((150, 20, 24)) * np.sqrt(np.linspace(4, 0.2, 24))
    features -= features.mean(axis=1, keepdims=True)
    w = rng.choice([-1.0, 1.0], 24) * np.where(np.arange(24) < 1, 2.0, 0.1) ** power * 0.2
    rewards = features @ w + np.sqrt(0.7) * rng.standard_normal((150, 20))
    rewards -= rewards.mean(axis=1, keepdims=True)
    found = learned(features, rewards)
    assert found.variance == pytest.approx(2 * 0.7 * 0.95, rel=0.1)  # a twentieth is the mean of the prompt
    assert found.explained == pytest.approx(np.mean((features @ w) ** 2), rel=0.1)
    moment = np.einsum("pkd,pke->de", features, features) / (150 * 20)
    for covariance in found.covariances.values():
        assert np.sum(covariance * moment) == pytest.approx(found.explained, rel=1e-6)
    top = found.covariances["bands"][0, 0] / found.covariances["spread"][0, 0]
    assert top > 2 if power else 0 < top < 6


def row(low, high, forecast):
    mean = (low + high) / 2
    return {
        "measured": {"difference": {"mean": mean, "low": low, "high": high}},
        "forecast": {"spread": {"difference": forecast}},
        "asked": low > 0 or high < 0,
        "right": {"spread": 0.5 <= forecast / mean <= 2},
    }


def test_shares_are_of_the_intervals_that_exclude_zero():
    rows = [row(0.01, 0.03, 0.035), row(0.01, 0.03, 0.05), row(-0.03, -0.01, 0.02), row(-0.01, 0.03, 0.02)]
    found = shares(rows)
    assert (found["cells"], found["asked"]) == (4, 3)
    assert found["right"]["spread"] == pytest.approx(1 / 3)
    assert found["inside the interval"]["spread"] == pytest.approx(1 / 4)
    assert shares([rows[-1]])["right"]["spread"] is None
