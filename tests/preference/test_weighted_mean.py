"""The weighted mean of losses: weights of any scale, padding, no weight at all, importance weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.preference import losses
from jaxdesign.preference.losses import weighted_mean
from tests.support.losses import BETA, log_probs


def test_weights_are_normalised_by_their_sum():
    values, weights = np.array([1.0, 2.0, 5.0]), np.array([1.0, 3.0, 0.0])
    assert float(weighted_mean(values, weights)) == 7 / 4
    assert float(weighted_mean(values, 8 * weights)) == 7 / 4
    for even in (None, np.full(3, 0.1)):
        np.testing.assert_allclose(weighted_mean(values, even), 8 / 3, rtol=1e-6)


@pytest.mark.parametrize("scale", [-900, -149, -20, 20, 127, 900])
def test_the_scale_of_weights_does_not_matter(scale):
    """Not at 2^-900 and 2^900 in float64, nor at the ends of float32 inside of jit."""
    values, weights = np.random.default_rng(5).random((2, 100)).astype(np.float32)
    right = weighted_mean(values, weights)
    np.testing.assert_allclose(right, values @ weights / weights.sum(), rtol=1e-6)
    np.testing.assert_array_equal(weighted_mean(values, np.float64(weights) * 2.0**scale), right)
    inside = np.float32(2.0) ** np.clip(scale, -110, 127)
    found, slopes = jax.jit(jax.value_and_grad(weighted_mean, argnums=1))(values, weights * inside)
    np.testing.assert_allclose(found, right, rtol=1e-6)
    if inside < 2.0**100:  # beyond, the slopes themselves have no number
        np.testing.assert_allclose(slopes * inside, (values - right) / weights.sum(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("logs", [(-100, -100), (-87, -88), (88.5, 88.5), (700, 699)])
def test_weights_from_large_logarithms(logs):
    right = 1 + 2 / (1 + np.exp(logs[0] - logs[1]))
    assert float(weighted_mean(jnp.array([1.0, 3.0]), np.exp(np.float64(logs)))) == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32])
def test_nan_among_many_weights_and_losses_is_seen(dtype):
    """A maximum over 4,096 values or more drops NaN on CPUs."""
    values, weights = np.ones((2, 100_000), np.float32).astype(dtype)
    weights[77_777] = np.nan
    with pytest.raises(ValueError, match="weights=nan: must be at least 0 and finite"):
        weighted_mean(values, weights)
    assert np.isnan(jax.jit(weighted_mean)(values, weights))
    weights[77_777], values[77_777] = 1, np.nan
    assert np.isnan(weighted_mean(values, weights))
    assert float(weighted_mean(values[:77_777], weights[:77_777])) == 1


def test_padding_of_weight_zero_may_hold_anything():
    values = jnp.array([1.0, np.nan, np.inf])
    weights = jnp.array([2.0, 0.0, 0.0])
    assert float(weighted_mean(values, weights)) == 1
    assert jax.grad(lambda v: weighted_mean(v, weights))(values).tolist() == [1, 0, 0]


def test_no_weight_at_all_is_an_error_outside_of_jit_and_changes_nothing_inside():
    values, weights = jnp.array([1.0, 2.0]), jnp.zeros(2)
    with pytest.raises(ValueError, match="weights: all 2 are 0"):
        weighted_mean(values, weights)
    value, slopes = jax.jit(jax.value_and_grad(weighted_mean, argnums=(0, 1)))(values, weights)
    assert float(value) == 0 and all((np.asarray(s) == 0).all() for s in slopes)


def test_weighting_by_importance_recovers_the_mean_under_the_wanted_law():
    """Pairs drawn by q, weighted by mu / q: exact over all pairs in place of draws."""
    arrays = log_probs(8, 6)
    rng = np.random.default_rng(8)
    mu, q = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    plain = np.asarray(losses.dpo_loss(*arrays, beta=BETA), np.float64)
    weighted = losses.importance_weighted_dpo_loss(*arrays, beta=BETA, weights=mu / q)
    np.testing.assert_allclose(q @ np.asarray(weighted, np.float64), mu @ plain, rtol=1e-6)
    np.testing.assert_allclose(weighted_mean(plain, mu), mu @ plain, rtol=1e-6)
