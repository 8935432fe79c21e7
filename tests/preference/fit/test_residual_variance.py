"""The variance of residuals, from simulated pilots: intervals cover, and the likelihood is that of quadrature."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign.preference.fit import estimate_residual
from jaxdesign.preference.fit.residual_variance import GRID, _likelihoods, _Pilot, _told

PROMPTS, COMPLETIONS, DIM, PAIRS = 60, 8, 4, 200
POOL = jd.CompletionPool(np.random.default_rng(0).standard_normal((PROMPTS, COMPLETIONS, DIM)).astype(np.float32))
EVERY = np.array([(p, i, j) for p in range(PROMPTS) for i in range(COMPLETIONS) for j in range(i + 1, COMPLETIONS)])


def pilot(seed, variance, repeats, size=PAIRS):
    """Labels of random pairs by a reward of standard normal parameter, and residuals by length."""
    rng = np.random.default_rng([seed, repeats])
    pairs = EVERY[rng.choice(len(EVERY), size, replace=False)]
    features = np.asarray(POOL.features, np.float64)
    z = features[pairs[:, 0], pairs[:, 1]] - features[pairs[:, 0], pairs[:, 2]]
    C = np.asarray(jd.second_moment(POOL))
    every = features[EVERY[:, 0], EVERY[:, 1]] - features[EVERY[:, 0], EVERY[:, 2]]
    lengths, median = (np.einsum("nd,de,ne->n", one, np.linalg.inv(C), one) for one in (z, every))
    spread = np.sqrt(variance * lengths / np.median(median))
    margins = z @ rng.standard_normal(DIM) + spread * rng.standard_normal(size)
    return pairs, rng.binomial(repeats, 1 / (1 + np.exp(-margins))).astype(float), np.full(size, float(repeats))


@pytest.mark.parametrize(
    ("variance", "repeats", "number"),
    [
        pytest.param(2.0, 3, 1),
        pytest.param(0.0, 2, 60, marks=pytest.mark.slow),
        pytest.param(1.0, 2, 60, marks=pytest.mark.slow),
        pytest.param(4.0, 3, 60, marks=pytest.mark.slow),
        pytest.param(4.0, 1, 60, marks=pytest.mark.slow),
        pytest.param(30.0, 3, 60, marks=pytest.mark.slow),
    ],
)
def test_intervals_cover(variance, repeats, number):
    """95%; of 60 at least 52 with probability 0.997."""
    found = [estimate_residual(POOL, *pilot(seed, variance, repeats), prior=1.0) for seed in range(number)]
    covered = sum(one.interval[0] <= variance <= one.interval[1] for one in found)
    assert covered >= (52 if number == 60 else 1)
    assert all((one.residual.cap is None) == one.told for one in found)
    if number == 60 and repeats > 1 and variance > 0:
        assert np.median([one.variance for one in found]) == pytest.approx(variance, rel=0.35)
        within = [abs(one.variance - variance) <= 2.5 * one.standard_error for one in found]
        assert np.mean(within) >= 0.85


def test_a_pilot_that_cannot_tell_gets_the_cap():
    found = _told(POOL, None, GRID, -1e-3 * (GRID - 2) ** 2 / (1 + GRID))
    assert not found.told and found.residual.cap is not None and found.residual.noise is None
    assert found.interval == (0, np.inf) and found.variance == 2
    large = _told(POOL, None, GRID, -5.0 / (1 + GRID))
    assert large.interval[0] > 0.25 and large.interval[1] == np.inf and not large.told and large.residual.noise is None
    told = _told(POOL, None, GRID, -0.5 * (GRID - 2) ** 2 / (1 + GRID))
    assert told.told and told.residual.cap is None and 0 < told.interval[0] < 2 < told.interval[1] < 25
    assert told.standard_error == pytest.approx(np.sqrt(3), rel=0.1)
    np.testing.assert_allclose(told.residual.noise, jd.residual_of(POOL, told.variance).noise)


@pytest.mark.parametrize("spread", [0.0, 0.3, 4.0, 400.0])
def test_likelihoods_are_those_of_quadrature(spread):
    """Against sums of 20,001 terms, slopes and curvatures against differences."""
    wins, counts, margins = np.array([0.0, 1.0, 2.0, 5.0]), np.array([1.0, 1.0, 4.0, 5.0]), np.array([-3.0, 0.5, 2, 9])
    x = np.linspace(-10, 10, 20001)

    def truth(margins):
        u = margins[:, None] + np.sqrt(spread) * x
        terms = -wins[:, None] * np.logaddexp(0, -u) - (counts - wins)[:, None] * np.logaddexp(0, u)
        return np.log(np.sum(np.exp(terms - x**2 / 2), axis=1) * (x[1] - x[0]) / np.sqrt(2 * np.pi))

    with _arrays.float64():
        half = (np.diag(margins) / 2, np.full(4, spread), wins, counts, np.eye(4), margins / 2)
        given = _Pilot(*(jnp.asarray(a) for a in half))
        value, slope, curvature = (np.asarray(a) for a in _likelihoods(given, jnp.asarray(1.0), jnp.ones(4)))
    shift = np.log(16 * np.sqrt(2 * np.pi))  # nodes are 1/16 apart, and not normalised
    np.testing.assert_allclose(value - shift, truth(margins), atol=3e-4 if spread > 100 else 1e-8)
    h = 1e-3
    up, here, down = (truth(margins + step) for step in (h, 0, -h))
    np.testing.assert_allclose(slope, (up - down) / (2 * h), atol=1e-3 if spread > 100 else 2e-5)
    np.testing.assert_allclose(curvature, -(up - 2 * here + down) / h**2, atol=3e-3 if spread > 100 else 2e-4)


def test_a_belief_says_where_margins_are():
    """A sure one: margins are known, and v is the maximum of likelihoods integrated on a grid. A ridge is one too."""
    truth = np.array([1.0, -2.0, 0.5, 0.0])
    rng, (pairs, _, counts) = np.random.default_rng(3), pilot(0, 0.0, 2)
    features = np.asarray(POOL.features, np.float64)
    z = features[pairs[:, 0], pairs[:, 1]] - features[pairs[:, 0], pairs[:, 2]]
    spread = np.sum((z @ jd.residual_of(POOL, 1.0).noise) ** 2, axis=1)
    margins = z @ truth + np.sqrt(4 * spread) * rng.standard_normal(len(z))
    wins = rng.binomial(2, 1 / (1 + np.exp(-margins))).astype(float)
    found = estimate_residual(POOL, pairs, wins, counts, prior=jd.Belief(truth, 1e8 * np.eye(DIM)))
    x, w = np.polynomial.hermite_e.hermegauss(80)

    def evidence(v):
        chance = 1 / (1 + np.exp(-(z @ truth)[:, None] - np.sqrt(v * spread)[:, None] * x))
        return np.sum(np.log((chance ** wins[:, None] * (1 - chance) ** (counts - wins)[:, None]) @ w))

    grid = np.geomspace(0.1, 100, 400)
    values = np.array([evidence(v) for v in grid])
    assert found.variance == pytest.approx(grid[np.argmax(values)], rel=0.06)
    inside = grid[values >= values.max() - 1.92]
    np.testing.assert_allclose(found.interval, [inside[0], inside[-1]], rtol=0.15)
    same = (
        estimate_residual(POOL, pairs, wins, counts, prior=prior) for prior in (2.0, jd.Belief.from_ridge(2.0, DIM))
    )
    assert len({one[:4] for one in same}) == 1


def test_what_is_no_pilot_is_refused():
    pairs, wins, counts = pilot(0, 1.0, 2)
    cases = [
        ((np.repeat(pairs[:1], 2, axis=0), wins[:2], counts[:2]), "pairs: a pair is listed twice"),
        ((pairs, wins[1:], counts), "wins: shape"),
        ((pairs, counts + 1, counts), "wins: 3 of 2 labels found"),
        ((pairs, 0 * wins, 0 * counts), "wins: 0 of 0 labels found"),
        ((pairs[:0], wins[:0], counts[:0]), "wins: no labels found"),
    ]
    for given, words in cases:
        with pytest.raises(ValueError, match=words):
            estimate_residual(POOL, *given, prior=1.0)
    flat = jd.CompletionPool(np.asarray(POOL.features) * np.array([1, 1, 1, 0], np.float32))
    with pytest.raises(ValueError, match="prior: with the labels it leaves a direction unknown"):
        estimate_residual(flat, pairs, wins, counts, prior=0.0)
