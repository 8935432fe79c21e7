"""EXO on lists: the truth table, lists of two, its least point, padding, derivatives, dtypes, refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.preference import exo_loss, optimal_policy
from jaxdesign.preference.list_losses import listwise_exo_loss
from tests.support.losses import BETA


def lists(seed=0, size=6, completions=5):
    rng = np.random.default_rng(seed)
    return (
        -20 * rng.random((size, completions)) - 1,
        -20 * rng.random((size, completions)) - 1,
        rng.normal(size=(size, 5)),
    )


def test_the_loss_by_hand_and_of_the_truth_table():
    """Log-ratios (.3, -.2, .1) and rewards (1, 0, 2), beta .5 and 2."""
    ratios, rewards = np.array([0.3, -0.2, 0.1]), np.array([1.0, 0.0, 2.0])
    f, r = (np.exp(x) / np.exp(x).sum() for x in (0.5 * ratios, rewards / 2))
    with jax.enable_x64(True):
        found = float(listwise_exo_loss(ratios - 7, np.full(3, -7.0), rewards, beta=0.5, reward_beta=2.0))
    np.testing.assert_allclose(found, 0.06334618506, atol=5e-12)
    np.testing.assert_allclose(found, np.sum(f * np.log(f / r)))


@pytest.mark.slow
def test_a_list_of_two_is_the_loss_of_a_pair():
    """The chosen one ahead by r in reward: smoothing sigma(-r / reward_beta)."""
    log_probs, ref_log_probs, _ = (a[:, :2] for a in lists(1))
    for ahead in (0.0, 0.4, 5.0):
        rewards = np.tile([ahead + 1, 1.0], (6, 1))
        pairs = exo_loss(*log_probs.T, *ref_log_probs.T, beta=BETA, smoothing=1 / (1 + math.exp(ahead / 0.7)))
        lists_ = listwise_exo_loss(log_probs, ref_log_probs, rewards, beta=BETA, reward_beta=0.7)
        np.testing.assert_allclose(lists_, pairs, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_it_is_least_at_the_optimal_policy_for_the_product_of_both_betas():
    rng = np.random.default_rng(2)
    reference, rewards = np.log(rng.dirichlet(np.ones(4), 3)), rng.normal(size=(3, 4))
    with jax.enable_x64(True):
        best = optimal_policy(rewards, 0.3 * 2.0, np.ones((3, 4), bool), reference)

        def loss(log_probs):
            return listwise_exo_loss(log_probs, reference, rewards, beta=0.3, reward_beta=2.0)

        np.testing.assert_allclose(loss(best), 0, atol=1e-15)
        np.testing.assert_allclose(jax.grad(lambda x: loss(x).sum())(best), 0, atol=1e-15)
        assert (np.asarray(loss(best + rng.normal(size=(3, 4)))) > 1e-4).all()


def test_constants_of_a_list_and_its_order_change_nothing():
    log_probs, ref_log_probs, rewards = lists(3)
    plain = listwise_exo_loss(log_probs, ref_log_probs, rewards, beta=BETA)
    moved = listwise_exo_loss(log_probs + 3, ref_log_probs - 2, rewards + 5, beta=BETA)
    turned = listwise_exo_loss(*(a[:, [2, 0, 4, 1, 3]] for a in (log_probs, ref_log_probs, rewards)), beta=BETA)
    np.testing.assert_allclose(moved, plain, rtol=1e-4)
    np.testing.assert_allclose(turned, plain, rtol=1e-5)


@pytest.mark.slow
def test_padding_may_hold_anything_and_has_no_derivative():
    log_probs, ref_log_probs, rewards = lists(4)
    mask = np.arange(5) < np.array([5, 4, 3, 2, 1, 0])[:, None]
    padded = [np.where(mask, a, np.nan).astype(np.float32) for a in (log_probs, ref_log_probs, rewards)]
    found = listwise_exo_loss(*padded, beta=BETA, mask=mask)
    for k in range(6):
        there = mask[k]
        alone = listwise_exo_loss(*(a[k, there] for a in padded), beta=BETA) if there.any() else 0.0
        np.testing.assert_allclose(found[k], alone, rtol=1e-5, atol=1e-7)
    assert found[4] == 0 == found[5]
    with jax.debug_nans(True):  # no NaN on the way either
        np.testing.assert_array_equal(listwise_exo_loss(*map(jnp.nan_to_num, padded), beta=BETA, mask=mask), found)
    slopes = jax.grad(lambda *a: listwise_exo_loss(*a, beta=BETA, mask=mask).sum(), argnums=(0, 1, 2))(*padded)
    for slope in map(np.asarray, slopes):
        assert np.isfinite(slope).all() and (slope[~mask] == 0).all() and (np.abs(slope[:4]).max(axis=1) > 0).all()
        np.testing.assert_allclose(slope.sum(axis=1), 0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32])
def test_losses_of_lists_and_slopes_are_finite_at_any_margin(dtype):
    largest = 6e4 if dtype == np.float16 else 1e6
    log_probs = np.array([[-largest, -3e3, -1.0], [-1e-3, -largest, -300], [-1, -1, -1]]).astype(dtype)
    rewards = np.array([[0, 1e3, -1e4], [0, 0, 0], [1e4, 0, 0]]).astype(dtype)

    def loss(log_probs):
        return listwise_exo_loss(log_probs, np.zeros_like(rewards), rewards, beta=BETA)

    values, slopes = loss(log_probs), jax.grad(lambda x: loss(x).sum())(jnp.asarray(log_probs))
    assert values.dtype == np.float32 and np.isfinite(values).all() and (np.asarray(values) > 0.1).all()
    assert np.isfinite(np.asarray(slopes, np.float32)).all()


@pytest.mark.slow
def test_traced_and_mapped_it_is_the_same_with_parameters_by_list():
    arrays = [jnp.asarray(a, jnp.float32) for a in lists(5)]
    betas, reward_betas = jnp.linspace(0.1, 1, 6), jnp.linspace(2, 1, 6)
    plain = listwise_exo_loss(*arrays, beta=betas, reward_beta=reward_betas)
    each = [listwise_exo_loss(*(a[k] for a in arrays), beta=betas[k], reward_beta=reward_betas[k]) for k in range(6)]

    def loss(a, b, c, beta, reward_beta):
        return listwise_exo_loss(a, b, c, beta=beta, reward_beta=reward_beta)

    np.testing.assert_allclose(each, plain, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(loss)(*arrays, betas, reward_betas), plain, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(loss)(*arrays, betas, reward_betas), plain, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"beta": 0.0}, ValueError, "beta=0: must be above 0"),
        ({"beta": 1.0, "reward_beta": -1.0}, ValueError, "reward_beta=-1"),
        ({"beta": np.ones(5)}, ValueError, r"beta: shape \(5,\) found; pass a number, or \(6,\) with one per list"),
        ({"beta": 1.0, "mask": np.ones(5, bool)}, ValueError, r"mask: shape \(5,\) found; expected \(6, 5\)"),
    ],
)
def test_bad_parameters_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        listwise_exo_loss(*lists(), **options)


def test_bad_arrays_are_refused():
    a, b, c = lists()
    with pytest.raises(ValueError, match=r"rewards: shape \(6, 4\) found; .*one per completion"):
        listwise_exo_loss(a, b, c[:, :4], beta=1.0)
    with pytest.raises(TypeError, match="rewards: dtype int64"):
        listwise_exo_loss(a, b, c.astype(int), beta=1.0)
    with pytest.raises(ValueError, match=r"log_probs: shape \(\) found"):
        listwise_exo_loss(*(x[0, 0] for x in (a, b, c)), beta=1.0)
