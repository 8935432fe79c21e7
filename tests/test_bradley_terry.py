"""The Bradley-Terry fit against SciPy, closed forms and the laws of maximum likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from jaxdesign import _arrays
from jaxdesign.preference.bradley_terry import fit_bradley_terry, log_choice


def problem(seed, flip=0.0, rows=60, dim=4):
    rng = np.random.default_rng(seed)
    z, w = rng.standard_normal((rows, dim)), rng.standard_normal(dim)
    counts = rng.integers(1, 6, rows).astype(float)
    wins = rng.binomial(counts.astype(int), (1 - 2 * flip) / (1 + np.exp(-z @ w)) + flip).astype(float)
    return z, wins, counts


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.15]))
def test_the_fit_is_the_minimum_that_scipy_finds(seed, flip):
    z, wins, counts = problem(seed, flip)
    prior = np.diag([0.2, 0.5, 1.0, 2.0])

    def loss(w):
        p = (1 - 2 * flip) / (1 + np.exp(-z @ w)) + flip
        return -np.sum(wins * np.log(p) + (counts - wins) * np.log(1 - p)) + w @ prior @ w / 2

    found = fit_bradley_terry(z, wins, counts, prior=prior, flip=flip)
    assert found.converged and found.parameter.dtype == np.float64
    best = minimize(loss, np.asarray(found.parameter), method="BFGS", options={"gtol": 1e-9})
    assert loss(np.asarray(found.parameter)) <= best.fun + 1e-9
    np.testing.assert_allclose(found.parameter, best.x, atol=1e-4)
    data = -float(found.log_likelihood)
    assert data + np.asarray(found.parameter) @ prior @ np.asarray(found.parameter) / 2 == pytest.approx(best.fun)


def test_information_is_the_hessian_without_flips():
    z, wins, counts = problem(3)
    found = fit_bradley_terry(z, wins, counts, prior=0.3)
    with _arrays.float64():

        def loss(w):
            u = jnp.asarray(z) @ w
            return -jnp.sum(wins * jax.nn.log_sigmoid(u) + (counts - wins) * jax.nn.log_sigmoid(-u)) + 0.15 * w @ w

        hessian = jax.hessian(loss)(found.parameter)
    np.testing.assert_allclose(found.information, hessian, rtol=1e-9)


def test_one_pair_has_a_closed_form():
    found = fit_bradley_terry([[2.0]], [3.0], [4.0])
    assert float(found.parameter[0]) == pytest.approx(np.log(3) / 2, abs=1e-8)
    noisy = fit_bradley_terry([[2.0]], [3.0], [4.0], flip=0.1)  # 0.75 = 0.8 sigma + 0.1
    assert float(noisy.parameter[0]) == pytest.approx(np.log(0.8125 / 0.1875) / 2, abs=1e-7)


def test_repeated_rows_padding_and_turned_pairs_change_nothing():
    z, wins, counts = problem(5)
    found = fit_bradley_terry(z, wins, counts, prior=0.1).parameter
    twice = fit_bradley_terry(np.r_[z, z], np.r_[wins, 0 * wins], np.r_[counts, 0 * counts], prior=0.1)
    turned = fit_bradley_terry(-z, counts - wins, counts, prior=0.1)
    np.testing.assert_allclose(twice.parameter, found, rtol=1e-9)
    np.testing.assert_allclose(turned.parameter, found, rtol=1e-9)


def test_labels_that_can_be_separated_and_singular_information_are_not_called_converged():
    z, _, counts = problem(7)
    separated = fit_bradley_terry(z, counts * (z[:, 0] > 0), counts)
    assert not separated.converged
    assert fit_bradley_terry(z, counts * (z[:, 0] > 0), counts, prior=0.01).converged
    for wins in (counts / 2, np.minimum(counts, 1)):
        assert not fit_bradley_terry(np.c_[z, z[:, :1]], wins, counts).converged


def test_traceable_and_vmapped_over_repetitions():
    z, wins, counts = problem(9)
    other = counts - wins
    with _arrays.float64():
        together = jax.jit(jax.vmap(lambda k: fit_bradley_terry(z, k, counts, prior=0.5)))(jnp.stack([wins, other]))
    for row, k in enumerate((wins, other)):
        np.testing.assert_allclose(
            together.parameter[row], fit_bradley_terry(z, k, counts, prior=0.5).parameter, rtol=1e-8, atol=1e-12
        )


def test_log_choice_stays_finite_at_large_margins():
    u = jnp.asarray([-300.0, -5.0, 0.0, 5.0, 300.0])
    np.testing.assert_allclose(log_choice(u, 0.2)[0], np.log(0.2), rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(log_choice(u, 0.2)) + jnp.exp(log_choice(-u, 0.2)), 1, rtol=1e-5)
    assert np.isfinite(jax.vmap(jax.grad(lambda v: log_choice(v, 0.0)))(u)).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"wins": [2.0]}, "wins: 2 of 1"),
        ({"wins": [np.nan]}, "wins"),
        ({"differences": [[np.inf, 0.0]]}, "differences"),
        ({"counts": [1.0, 1.0]}, "counts"),
        ({"flip": 0.5}, "flip"),
        ({"prior": -1.0}, "prior"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"differences": [[1.0, 0.0]], "wins": [1.0], "counts": [1.0]} | change
    with pytest.raises(ValueError, match=message):
        fit_bradley_terry(**given)


def test_float32_inside_of_jit_converges():
    rng = np.random.default_rng(0)
    z, w = rng.standard_normal((1000, 16)).astype(np.float32), rng.standard_normal(16)
    wins = (rng.random(1000) < 1 / (1 + np.exp(-z @ w))).astype(np.float32)
    found = jax.jit(lambda wins: fit_bradley_terry(z, wins, np.ones(1000), prior=0.1))(wins)
    exact = fit_bradley_terry(z.astype(np.float64), wins, np.ones(1000), prior=0.1)
    assert found.parameter.dtype == np.float32 and found.converged and found.steps < 12
    np.testing.assert_allclose(found.parameter, exact.parameter, atol=2e-5)


def test_without_rows_the_fit_is_the_prior():
    found = fit_bradley_terry(np.zeros((0, 3)), [], [], prior=2.0)
    assert found.converged
    np.testing.assert_array_equal(found.parameter, 0)
    np.testing.assert_allclose(found.information, 2 * np.eye(3))
