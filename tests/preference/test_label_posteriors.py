"""Probability that a label is right: by hand, for every loss, as an E-step, at any margin; and its M-step."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import CompletionPool
from jaxdesign.preference import estimate_reliability, losses
from jaxdesign.preference.label_posteriors import label_log_odds, label_posterior, updated_reliability
from jaxdesign.preference.labels.labels import Labels
from jaxdesign.preference.losses import LOSSES
from tests.support.losses import BETA, OPTIONS, log_probs, sigmoid


def test_posteriors_by_hand():
    """p = 3/4: at eta = .9, .675 / (.675 + .025); at 1/2 the policy's own opinion; at 1/4 neither side wins."""
    margin = np.full(3, math.log(3))
    with jax.enable_x64(True):
        np.testing.assert_allclose(label_posterior(margin, np.array([0.9, 0.5, 0.25])), [27 / 28, 0.75, 0.5])
        np.testing.assert_allclose(label_posterior(np.zeros(2), 0.9), 0.9)


def test_log_odds_of_dpo_and_ipo_are_u_and_two_h_over_tau():
    arrays = log_probs(1)
    gap = losses.log_ratio_gap(*arrays)
    np.testing.assert_allclose(
        label_log_odds(losses.dpo_loss, *arrays, beta=BETA), BETA * np.asarray(gap), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        label_log_odds(losses.ipo_loss, *arrays, tau=0.4), 2 * np.asarray(gap) / 0.4, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_gives_opposite_odds_to_the_pair_turned_round(name):
    a, b, c, d = log_probs(2)
    options = OPTIONS.get(name, {"beta": BETA})
    odds = np.asarray(label_log_odds(LOSSES[name], a, b, c, d, **options))
    np.testing.assert_allclose(odds, -label_log_odds(LOSSES[name], b, a, d, c, **options), rtol=1e-6)
    likelihoods = [np.exp(-np.float64(LOSSES[name](*p, **options))) for p in ((a, b, c, d), (b, a, d, c))]
    if np.all(np.array(likelihoods) > 1e-30):  # sigma of a difference of logs is a share
        np.testing.assert_allclose(sigmoid(odds), likelihoods[0] / sum(likelihoods), rtol=1e-4)


@pytest.mark.slow
def test_the_weighted_loss_has_the_slope_of_the_likelihood_with_flips():
    """Fisher's identity, which makes EM ascend: the M-step loss at the current w has the gradient of the likelihood."""
    with jax.enable_x64(True):
        u, eta, zero = jnp.linspace(-6, 6, 13), 0.8, jnp.zeros(13)

        def m_step(u):
            odds = label_log_odds(losses.dpo_loss, u, zero, zero, zero, beta=1.0)
            return losses.soft_label_dpo_loss(u, zero, zero, zero, beta=1.0, label=label_posterior(odds, eta)).sum()

        def minus_log_likelihood(u):
            return -jnp.sum(jnp.log(eta * jax.nn.sigmoid(u) + (1 - eta) * jax.nn.sigmoid(-u)))

        np.testing.assert_allclose(jax.grad(m_step)(u), jax.grad(minus_log_likelihood)(u), atol=1e-14)


def test_posteriors_at_any_margin_and_reliability():
    odds = np.float32([-1e30, -200, 0, 200, 1e30])
    for eta in (0.0, 1e-9, 0.5, 1 - 1e-9, 1.0):
        found = np.asarray(label_posterior(odds, eta))
        assert np.isfinite(found).all() and (np.diff(found) >= 0).all()
        if eta in (0, 1):
            assert (found == eta).all()
    # 1 - 1e-9 is 1 in float32, its logit is 20.7 all the same
    np.testing.assert_allclose(label_posterior(np.float32([-20.7232658]), 1 - 1e-9), 0.5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32])
def test_posteriors_traced_mapped_and_in_half_precision(dtype):
    odds, eta = np.linspace(-3, 3, 7).astype(dtype), np.linspace(0.1, 0.9, 7)
    plain = label_posterior(odds, eta)
    assert plain.dtype == np.float32
    np.testing.assert_allclose(plain, sigmoid(np.float64(odds) + np.log(eta / (1 - eta))), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(label_posterior)(odds, eta), plain, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(label_posterior)(odds, jnp.asarray(eta)), plain, rtol=1e-5)


def test_reliability_by_hand():
    """Annotator 0 has w of 1 and .5, annotator 2 one of .2, annotator 1 nothing in this batch."""
    posteriors, who = np.float32([1, 0.2, 0.5]), np.array([0, 2, 0])
    found = updated_reliability(np.float32([0.9, 0.7, 0.5]), posteriors, who, rate=0.1)
    np.testing.assert_allclose(found, [0.885, 0.7, 0.47], rtol=1e-6)
    jitted = jax.jit(updated_reliability)(np.float32([0.9, 0.7, 0.5]), posteriors, who)
    np.testing.assert_allclose(jitted, found, rtol=1e-6)
    np.testing.assert_allclose(
        updated_reliability(np.float32([0.9, 0.7, 0.5]), posteriors, who, rate=1.0), [0.75, 0.7, 0.2]
    )


@pytest.mark.slow
def test_steps_by_hand_end_where_estimate_reliability_does():
    """Tabular policy of 3 prompts with 2 completions; log-ratios by Newton. The fixed point is that of plain EM."""
    rng = np.random.default_rng(4)
    reliable = np.array([0.95, 0.9, 0.8, 0.3])[:, None]
    first = rng.random((3, 4, 30)) < reliable  # prompt, annotator, label; the first completion is the better one
    prompt, who = (index.ravel() for index in np.indices(first.shape)[:2])
    sign = np.where(first.ravel(), 1.0, -1.0)
    pool = CompletionPool(np.stack([np.eye(3), np.zeros((3, 3))], axis=1).astype(np.float32))
    pairs = np.column_stack([prompt, np.zeros_like(prompt), np.ones_like(prompt)])
    judged = estimate_reliability(pool, Labels(pairs, np.where(sign > 0, 0, 1), who), prior=0.5, tol=1e-10)
    with jax.enable_x64(True):

        def loss(theta, label):
            u, zero = theta[prompt] * sign, jnp.zeros(len(prompt))
            value = losses.soft_label_dpo_loss(u, zero, zero, zero, beta=1.0, label=label)
            return value.sum() + 0.25 * jnp.sum(theta**2)

        def step(_, state):
            theta, eta, _ = state
            w = label_posterior(theta[prompt] * sign, eta[who])
            for _ in range(3):
                theta = theta - jnp.linalg.solve(jax.hessian(loss)(theta, w), jax.grad(loss)(theta, w))
            return theta, updated_reliability(eta, w, who, rate=1.0), w

        start = jnp.zeros(3), jnp.full(4, 0.9), jnp.zeros(len(prompt))
        theta, eta, w = jax.jit(lambda start: jax.lax.fori_loop(0, 600, step, start))(start)
    np.testing.assert_allclose(theta, judged.parameter, atol=1e-5)
    np.testing.assert_allclose(eta, judged.eta, atol=1e-5)
    np.testing.assert_allclose(w, judged.responsibilities, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: label_posterior(np.zeros(2), 1.5), ValueError, r"reliability=1.5: must be in \[0, 1\]"),
        (lambda: label_posterior(np.zeros(2), np.array([0.5, np.nan])), ValueError, "reliability=nan"),
        (lambda: label_posterior(np.zeros(2), np.ones(3)), ValueError, r"reliability: shape \(3,\) found"),
        (lambda: label_posterior(np.zeros(2, int), 0.5), TypeError, "log_odds: dtype int64"),
        (
            lambda: updated_reliability(np.ones(2), np.ones(1), np.array([2])),
            ValueError,
            "annotators: 2 found; .*0 to 1",
        ),
        (lambda: updated_reliability(np.ones(2), np.ones(1), np.array([-1])), ValueError, "annotators: -1 found"),
        (lambda: updated_reliability(np.ones(2), np.ones(1), np.array([0.0])), TypeError, "annotators: dtype float64"),
        (lambda: updated_reliability(np.ones(2), np.ones(1), np.array([0, 1])), ValueError, "annotators: shape"),
        (lambda: updated_reliability(np.ones(2), 2 * np.ones(1), np.array([0])), ValueError, "posteriors=2"),
        (lambda: updated_reliability(-np.ones(2), np.ones(1), np.array([0])), ValueError, "reliability=-1"),
        (
            lambda: updated_reliability(np.ones(2), np.ones(1), np.array([0]), rate=0.0),
            ValueError,
            "rate=0: must be in",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
