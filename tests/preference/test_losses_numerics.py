"""Losses as arrays: finite at any margin, digits, dtypes, one parameter per pair, traced and mapped."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.preference import losses
from jaxdesign.preference.losses import LOSSES
from tests.support.losses import BETA, OPTIONS, log_probs

MARGIN_ONLY = sorted(set(LOSSES) - {"slic_hf", "rpo"})  # functions of the log-ratio gap alone


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_losses_and_slopes_are_finite_at_any_margin(name, dtype):
    loss = LOSSES[name]
    options = OPTIONS.get(name, {"beta": BETA})
    chosen = np.array([-1e6, -3e3, -300.0, -1.0, -1e-3]).astype(dtype)
    for rejected in (chosen[::-1], np.full_like(chosen, -1e5), np.full_like(chosen, -1e-3)):
        zeros = np.zeros_like(chosen)
        values = loss(chosen, rejected, zeros, zeros, **options)
        assert values.dtype == np.float32 and np.isfinite(values).all()
        slopes = jax.grad(lambda c, r, zeros=zeros: loss(c, r, zeros, zeros, **options).sum(), argnums=(0, 1))(
            jnp.asarray(chosen), jnp.asarray(rejected)
        )
        assert all(np.isfinite(np.asarray(s, np.float32)).all() for s in slopes)


def test_small_losses_keep_their_digits():
    """l(u) = e^-u at large u: 1 - sigma(u) would be 0 in float32."""
    np.testing.assert_allclose(losses.dpo_loss(*np.float32([[40], [0], [0], [0]]), beta=1.0), math.exp(-40), rtol=1e-5)
    np.testing.assert_allclose(
        losses.sigmoid_loss(*np.float32([[40], [0], [0], [0]]), beta=1.0), math.exp(-40), rtol=1e-5
    )


@pytest.mark.parametrize("name", MARGIN_ONLY)
def test_a_constant_on_policy_and_reference_changes_nothing(name):
    a, b, c, d = log_probs(6)
    options = OPTIONS.get(name, {"beta": BETA})
    np.testing.assert_allclose(
        LOSSES[name](a, b, c, d, **options), LOSSES[name](a + 4, b - 7, c + 4, d - 7, **options), rtol=1e-4, atol=1e-5
    )


def test_parameters_may_differ_by_pair():
    arrays = log_probs(5, 3)
    eps = np.array([0.0, 0.1, 0.4])
    each = [losses.robust_dpo_loss(*arrays[:, [k]], beta=BETA, flip=eps[k])[0] for k in range(3)]
    np.testing.assert_allclose(losses.robust_dpo_loss(*arrays, beta=BETA, flip=eps), each, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_traced_and_mapped_they_are_the_same(name):
    arrays = jnp.asarray(log_probs(7), jnp.float32)
    options = OPTIONS.get(name, {"beta": BETA})
    plain = LOSSES[name](*arrays, **options)
    traced = jax.jit(lambda arrays, options: LOSSES[name](*arrays, **options))(arrays, options)
    mapped = jax.vmap(lambda a, b, c, d: LOSSES[name](a, b, c, d, **options))(*arrays)
    np.testing.assert_allclose(traced, plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mapped, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_parameters_do_not_change_the_dtype(name):
    """float64 numbers beside float32 log-probabilities where x64 is on."""
    options = {option: np.full(2, value) for option, value in OPTIONS.get(name, {"beta": BETA}).items()}
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert LOSSES[name](*np.zeros((4, 2), np.float32), **options).dtype == np.float32
        assert jax.jit(LOSSES[name])(*np.zeros((4, 2), np.float32), **options).dtype == np.float32
