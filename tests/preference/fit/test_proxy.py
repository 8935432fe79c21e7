"""A proxy in the belief: the same reward model in both forms, free of units, trusted as far as labels tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import Belief, CompletionPool, policy_target
from jaxdesign.belief import as_belief
from jaxdesign.preference import as_labels, fit_posterior, pool_with_proxy, proxy_belief

P, K, D = 40, 5, 6
RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((P, K, D)).astype(np.float32)
POOL = CompletionPool(FEATURES)
H = np.asarray(policy_target(POOL), np.float64)
PROXY = FEATURES @ np.array([1, 0, -2, 0, 0.5, 0], np.float32)
few = settings(max_examples=5)


def spread(proxy, mask=None):
    """Standard deviation within prompts, written out."""
    mask = np.ones(proxy.shape, bool) if mask is None else mask
    variances = [np.var(row[there]) for row, there in zip(np.float64(proxy), mask, strict=True)]
    return np.sqrt(np.mean(variances))


@few
@given(st.integers(0, 2**20), st.floats(0.1, 10), st.floats(0.1, 10))
def test_covariance_gains_the_direction_of_the_proxy(seed, ridge, tau):
    weights = np.random.default_rng(seed).standard_normal(D)
    proxy = np.float64(FEATURES) @ weights
    found = proxy_belief(POOL, proxy, ridge, tau=tau)
    t = weights / spread(proxy)
    np.testing.assert_allclose(found.direction, t, rtol=1e-6, atol=1e-8)
    assert found.explained == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(found.belief.covariance, np.eye(D) / ridge + tau**2 * np.outer(t, t), rtol=1e-5)
    assert found.direction @ H @ found.direction == pytest.approx(1, rel=1e-5)


def test_units_signs_and_constants_of_the_proxy_do_not_matter():
    plain = proxy_belief(POOL, PROXY, 2.0)
    for other in (-PROXY, 1e-30 * np.float64(PROXY), 1e30 * PROXY + 1e31 * RNG.standard_normal((P, 1))):
        np.testing.assert_allclose(proxy_belief(POOL, other, 2.0).belief.precision, plain.belief.precision, atol=1e-6)
        wide, expected = pool_with_proxy(POOL, other, 2.0), pool_with_proxy(POOL, PROXY, 2.0)
        np.testing.assert_allclose(np.abs(wide.pool.features), np.abs(expected.pool.features), rtol=1e-4, atol=1e-5)


def test_both_forms_say_the_same_of_margins_where_the_features_explain_the_proxy():
    prior = Belief(RNG.standard_normal(D), np.diag([1.0, 2, 3, 1, 2, 3]))
    inside, wide = proxy_belief(POOL, PROXY, prior, tau=2.0), pool_with_proxy(POOL, PROXY, prior, tau=2.0)
    assert wide.explained == pytest.approx(1, abs=1e-9) and wide.pool.dim == D + 1
    z = np.float64(FEATURES[:, 0] - FEATURES[:, 1])
    widened = np.float64(wide.pool.features[:, 0] - wide.pool.features[:, 1])
    np.testing.assert_allclose(widened @ wide.belief.mean, z @ inside.belief.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        widened @ wide.belief.covariance @ widened.T, z @ inside.belief.covariance @ z.T, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(as_belief(wide, D + 1).precision, wide.belief.precision)
    assert np.asarray(policy_target(wide.pool))[-1, -1] == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_how_much_of_the_proxy_the_features_explain(share):
    """Against least squares on centred rows, written out; masked slots hold NaN."""
    rng = np.random.default_rng(1)
    mask = rng.random((P, K)) < 0.8
    mask[:, :2] = True
    proxy = np.sqrt(share) * PROXY / spread(PROXY) + np.sqrt(1 - share) * rng.standard_normal((P, K))
    pool = CompletionPool(np.where(mask[..., None], FEATURES, np.nan), mask=mask)
    rows, scores = [], []
    for p in range(P):  # each prompt counts once, however many completions it has
        there = mask[p]
        weight = 1 / np.sqrt(there.sum())
        rows.append(weight * np.float64(FEATURES[p, there] - np.float64(FEATURES[p, there]).mean(0)))
        scores.append(weight * (proxy[p, there] - proxy[p, there].mean()))
    rows, scores = np.concatenate(rows), np.concatenate(scores)
    rest = scores - rows @ np.linalg.lstsq(rows, scores, rcond=None)[0]
    explained = 1 - rest @ rest / (scores @ scores)
    found = pool_with_proxy(pool, np.where(mask, proxy, np.nan), 1.0)
    assert found.explained == pytest.approx(explained, abs=1e-6)
    assert spread(np.asarray(found.pool.features)[..., -1], mask) == pytest.approx(1, rel=1e-5)
    assert np.isfinite(found.pool.features).all()
    if share:
        inside = proxy_belief(pool, np.where(mask, proxy, np.nan), 1.0)
        assert inside.explained == pytest.approx(explained, abs=1e-6)
        assert spread(FEATURES @ inside.direction, mask) == pytest.approx(1, rel=1e-5)


def mean_gaps(rho, seeds, number=32):
    """Mean of (w - w*)^T H (w - w*) / 2 of fits to random labels: without and with the proxy, of correlation rho."""
    gaps = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        root = np.linalg.cholesky(np.linalg.inv(H))
        truth, other = np.linalg.qr(rng.standard_normal((D, 2)))[0].T * 1.5
        w, noise = root @ truth, root @ other
        proxy = FEATURES @ (rho * w + np.sqrt(1 - rho**2) * noise)
        pairs = np.stack([rng.integers(0, P, number), *np.sort(np.argsort(rng.random((number, K)))[:, :2]).T], 1)
        p, i, j = pairs.T
        margins = (FEATURES[p, i] - FEATURES[p, j]) @ w
        labels = as_labels(pairs, (rng.random(number) > 1 / (1 + np.exp(-margins))).astype(int))
        found = [fit_posterior(POOL, labels, prior).parameter for prior in (5.0, proxy_belief(POOL, proxy, 5.0))]
        gaps.append([(fit - w) @ H @ (fit - w) / 2 for fit in found])
    return np.mean(gaps, axis=0)


def test_a_good_proxy_is_followed_and_a_useless_one_costs_nothing_to_speak_of():
    without, good = mean_gaps(0.8, range(30))
    same, useless = mean_gaps(0.0, range(30))
    assert same == pytest.approx(without)
    assert good < 0.75 * without
    assert useless < 1.1 * without


@pytest.mark.parametrize("make", [proxy_belief, pool_with_proxy])
@pytest.mark.parametrize(
    ("proxy", "options", "words"),
    [
        (PROXY[:, :3], {}, r"proxy: shape \(40, 3\) found"),
        (np.where(np.arange(K) == 1, np.inf, PROXY), {}, "proxy: inf at prompt 0, completion 1"),
        (np.ones((P, K)) * np.arange(P)[:, None], {}, "proxy: the same score for all completions"),
        (PROXY, {"tau": 0.0}, "tau=0: must be positive"),
    ],
)
def test_what_is_refused(make, proxy, options, words):
    with pytest.raises(ValueError, match=words):
        make(POOL, proxy, 1.0, **options)


def test_a_proxy_of_which_the_features_know_nothing_is_no_direction():
    pool = CompletionPool(np.tile(np.float32([[1, 1, -1, -1]]), (3, 1))[..., None])
    proxy = np.tile([1.0, -1, 1, -1], (3, 1))
    with pytest.raises(ValueError, match="pool_with_proxy adds it as one"):
        proxy_belief(pool, proxy, 1.0)
    assert pool_with_proxy(pool, proxy, 1.0).explained < 1e-12
