"""`ratio_of_means` against scipy's bootstrap, and against ratios that are known."""

import numpy as np
import pytest
from scipy import stats

from jaxdesign.dynamics import ratio_of_means as module
from jaxdesign.dynamics.ratio_of_means import ratio_of_means

SETTINGS = {"level": 0.05, "resamples": 10_000, "seed": 0}


def skewed(units, seed, correlation=0.6):
    """Two log-normal numbers of each unit, correlated; the ratio of their means is 1.5."""
    rng = np.random.default_rng(seed)
    common, own = rng.standard_normal((2, units))
    below = np.exp(common)
    return 1.5 * np.exp(correlation * common + (1 - correlation**2) ** 0.5 * own), below


@pytest.mark.parametrize("units", [12, 80])
def test_interval_is_that_of_scipy(units):
    above, below = skewed(units, seed=units)
    found = ratio_of_means(above, below, **SETTINGS | {"resamples": 40_000})
    theirs = stats.bootstrap(
        (above, below),
        lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=40_000,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    plain = np.quantile(module._resampled(above, below, 40_000, 0), [0.025, 0.975])
    assert found.ratio == pytest.approx(above.mean() / below.mean(), rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(theirs), rel=0.02)
    assert np.abs(np.array(found[1:]) / plain - 1).max() > 0.02  # the correction is of a size that is seen here


def test_coverage_of_a_known_ratio():
    held = [low <= 1.5 <= high for _, low, high in (
        ratio_of_means(*skewed(100, seed), level=0.1, resamples=500, seed=seed) for seed in range(400)
    )]  # fmt: skip
    assert 0.84 < np.mean(held) < 0.94


def test_pairing_of_units_matters():
    above, below = skewed(200, seed=1, correlation=0.99)
    paired = ratio_of_means(above, below, **SETTINGS)
    apart = ratio_of_means(above, np.roll(below, 1), **SETTINGS)
    assert paired.ratio == pytest.approx(apart.ratio, rel=1e-12)
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low)


def test_the_same_numbers_have_ratio_one_without_doubt():
    _, below = skewed(30, seed=2)
    assert ratio_of_means(below, below, **SETTINGS) == (1, 1, 1)
    assert ratio_of_means(3 * below, below, **SETTINGS) == pytest.approx((3, 3, 3), rel=1e-12)


def test_order_empty_units_and_batches_change_nothing(monkeypatch):
    above, below = skewed(40, seed=3)
    order = np.random.default_rng(0).permutation(40)
    found = ratio_of_means(above, below, **SETTINGS)
    assert ratio_of_means(above[order], below[order], **SETTINGS) == found
    assert ratio_of_means(np.append(above, 0), np.append(below, 0), **SETTINGS) == found
    monkeypatch.setattr(module, "BATCH", 40 * 7)
    assert ratio_of_means(above, below, **SETTINGS) == found


def test_where_most_units_are_worth_nothing_below_the_interval_is_open_above():
    above, below = np.ones(20), np.zeros(20)
    below[0] = 1
    found = ratio_of_means(above, below, **SETTINGS)
    assert found.ratio == 20 and 1 < found.low < 20 and found.high == np.inf


def test_one_unit_says_nothing():
    assert ratio_of_means(np.array([3.0, 0]), np.array([2.0, 0]), **SETTINGS) == (1.5, 0, np.inf)
