"""Log-linear and tabular policies against the identities that define them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign.preference.log_linear import (
    kl_divergence,
    log_policy,
    normalised,
    optimal_policy,
    policy_gap,
    policy_value,
    tabular_pool,
)


def ragged(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((5, 4)) < 0.8
    mask[:, :2] = True
    mask[4] = False  # a prompt without completions counts for nothing
    return rng, jd.CompletionPool(rng.standard_normal((5, 4, 3)), mask=mask)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 3.0))
def test_the_gap_is_what_the_optimal_policy_is_better_by(seed, beta):
    """J(pi*) - J(pi) = beta E KL(pi || pi*), exactly, for any reward and any policy."""
    with _arrays.float64():
        rng, pool = ragged(seed)
        rewards, reference = jnp.asarray(rng.standard_normal((5, 4))), jnp.asarray(rng.standard_normal((5, 4)))
        reference = normalised(reference, pool.mask)
        best = optimal_policy(rewards, beta, pool.mask, reference)
        found = log_policy(pool, jnp.asarray(rng.standard_normal(3)), reference)
        better = policy_value(best, rewards, beta, reference) - policy_value(found, rewards, beta, reference)
        assert float(policy_gap(found, best, beta)) == pytest.approx(float(better), abs=1e-10)
        assert float(better) >= -1e-12


def test_linear_rewards_are_reached_at_w_over_beta():
    with _arrays.float64():
        rng, pool = ragged(1)
        w = rng.standard_normal(3)
        rewards = jnp.asarray(pool.features, jnp.float64) @ w
        best = optimal_policy(rewards, 0.3, pool.mask)
        np.testing.assert_allclose(log_policy(pool, w / 0.3), best, atol=1e-12)
        many = log_policy(pool, np.stack([w / 0.3, 0 * w]))
        np.testing.assert_allclose(policy_gap(many, best, 0.3)[0], 0, atol=1e-12)
        assert policy_gap(many, best, 0.3)[1] > 0


@pytest.mark.thorough
def test_curvature_of_the_gap_is_the_policy_target():
    """The Hessian of the gap about theta at the optimum is beta H, H = policy_target at pi*."""
    with _arrays.float64():
        rng, pool = ragged(2)
        w, beta = rng.standard_normal(3), 0.7
        best = log_policy(pool, w / beta)

        def gap(theta):
            logits = jnp.where(pool.mask, jnp.asarray(pool.features, jnp.float64) @ theta, -1e9)[:4]
            mine = jax.nn.log_softmax(logits)
            return beta * jnp.mean(jnp.sum(jnp.exp(mine) * jnp.where(pool.mask[:4], mine - best[:4], 0), axis=1))

        hessian = jax.hessian(gap)(jnp.asarray(w / beta))
        H = jd.policy_target(pool, np.where(np.asarray(pool.mask), np.asarray(best), 0))
    np.testing.assert_allclose(hessian, beta * np.asarray(H), atol=1e-6)


def test_a_tabular_policy_can_be_any_policy():
    pool = tabular_pool(2, 3)
    logs = np.log(np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]], np.float32))
    np.testing.assert_allclose(log_policy(pool, logs.ravel()), logs, rtol=1e-5)
    restricted, _ = jd.restrict_to_range(pool)
    assert restricted.dim == 4  # P (K - 1)
    assert float(kl_divergence(logs, logs)) == pytest.approx(0, abs=1e-7)


def test_shapes_are_checked():
    _, pool = ragged(3)
    with pytest.raises(ValueError, match="theta"):
        log_policy(pool, np.zeros(2))
    with pytest.raises(ValueError, match="reference"):
        log_policy(pool, np.zeros(3), np.zeros((4, 4)))


def test_completions_that_do_not_exist_count_nothing_and_nan_stays_nan():
    logs, other = np.log([[0.5, 0.5, 1.0]]), np.log([[0.9, 0.1, 0.3]])
    logs[0, 2] = -np.inf
    expected = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    assert float(kl_divergence(logs, other)) == pytest.approx(expected, rel=1e-6)
    logs[0, 0] = np.nan
    assert np.isnan(kl_divergence(logs, other))
