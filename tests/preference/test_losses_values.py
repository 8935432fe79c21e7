"""Values of losses by hand, the limits in which losses coincide, what leaves them unchanged, slopes at margin 0."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.preference import losses
from jaxdesign.preference.losses import LOSSES, implicit_reward, log_ratio_gap
from tests.support.losses import BETA, OPTIONS, log_probs, loss_at_gap, sigmoid


def slope(name, gap, **options):
    """Derivative in the log-ratio gap, in float64."""
    with jax.enable_x64(True):
        zero = jnp.zeros(())
        return float(jax.grad(lambda h: LOSSES[name](h, zero, zero, zero, **options))(jnp.float64(gap)))


# ---- values by hand

# log pi(y_c) = -2, log pi(y_r) = -7, reference -3 and -5: h = (-2 + 3) - (-7 + 5) = 3
HAND = {
    "dpo": math.log(1 + math.exp(-0.9)),
    "conservative_dpo": 0.8 * math.log(1 + math.exp(-0.9)) + 0.2 * math.log(1 + math.exp(0.9)),
    "soft_label_dpo": 0.3 * math.log(1 + math.exp(-0.9)) + 0.7 * math.log(1 + math.exp(0.9)),
    "robust_dpo": (0.8 * math.log(1 + math.exp(-0.9)) - 0.2 * math.log(1 + math.exp(0.9))) / 0.6,
    "ipo": (3 - 1.25) ** 2,
    "slic_hf": 0 + 0.1 * 2,  # 1.5 - (-2 + 7) is below 0
    "hinge": 0.1,
    "exo": 0.7109495 * math.log(0.7109495 / 0.95) + 0.2890505 * math.log(0.2890505 / 0.05),
    "rpo": math.log(1 + math.exp(-0.9)) + 0.7 * 0.3 * 2,
    "margin_dpo": math.log(1 + math.exp(-0.3)),
    "importance_weighted_dpo": 2.5 * math.log(1 + math.exp(-0.9)),
    "sigmoid": 0.2890505,
    "ropo": 56 / 225 * math.log(1 + math.exp(-0.9)) + 784 / 225 * 0.2890505,
    "ramp": 0.05,
    "unhinged": 0.1,
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_values_by_hand(name):
    arrays = [np.array([value], np.float32) for value in (-2, -7, -3, -5)]
    found = LOSSES[name](*arrays, **OPTIONS.get(name, {"beta": BETA}))
    assert found.shape == (1,) and found.dtype == np.float32
    np.testing.assert_allclose(found, HAND[name], rtol=2e-6)


def test_the_margin_and_the_score_by_hand():
    assert float(log_ratio_gap(*(jnp.float32(v) for v in (-2, -7, -3, -5)))) == 3
    assert float(implicit_reward(jnp.float32(-2), jnp.float32(-3), beta=0.5)) == 0.5
    a, b, c, d = log_probs()
    gap = implicit_reward(a, c, beta=BETA) - implicit_reward(b, d, beta=BETA)
    np.testing.assert_allclose(gap, BETA * log_ratio_gap(a, b, c, d), atol=1e-5)


def test_log_probabilities_per_token_by_hand():
    """log pi = -6 over 3 tokens and -1 over 2, reference -3 and -2: h = (-2 + 1) - (-0.5 + 1) = -1.5 nats per token."""
    tokens = np.array([3, 2, 3, 2])
    arrays = losses.per_token(np.float32([-6, -1, -3, -2]), tokens)
    np.testing.assert_array_equal(arrays, np.float32([-2, -0.5, -1, -1]))
    assert float(losses.ipo_loss(*arrays, tau=0.25)) == (-1.5 - 2) ** 2
    np.testing.assert_array_equal(losses.per_token(np.float32([-6, -1]), 2), np.float32([-3, -0.5]))


def test_the_supervised_term_of_rpo_per_token_is_eta_over_tokens():
    a, b, c, d = log_probs(10)
    tokens = np.arange(1, 51)
    found = losses.rpo_loss(a, b, c, d, beta=BETA, eta=0.7 / tokens)
    by_hand = losses.dpo_loss(a, b, c, d, beta=BETA) - 0.7 * BETA * losses.per_token(a, tokens)
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)


def test_dpo_is_the_bradley_terry_likelihood():
    a, b, c, d = log_probs(1)
    chance = sigmoid(BETA * ((a - c) - (b - d)))
    np.testing.assert_allclose(losses.dpo_loss(a, b, c, d, beta=BETA), -np.log(chance), rtol=1e-5, atol=1e-6)


# ---- limits in which they coincide

SAME_AS_DPO = {
    "conservative_dpo": {"flip": 0.0},
    "soft_label_dpo": {"label": 1.0},
    "robust_dpo": {"flip": 0.0},
    "rpo": {"eta": 0.0},
    "margin_dpo": {"offset": 0.0},
    "importance_weighted_dpo": {"weights": 1.0},
}


@pytest.mark.parametrize("name", sorted(SAME_AS_DPO))
def test_switched_off_they_are_dpo(name):
    arrays = log_probs(2)
    options = {"beta": BETA, **SAME_AS_DPO[name]}
    np.testing.assert_allclose(LOSSES[name](*arrays, **options), losses.dpo_loss(*arrays, beta=BETA), rtol=1e-6)
    active = LOSSES[name](*arrays, **OPTIONS[name])
    assert not np.allclose(active, losses.dpo_loss(*arrays, beta=BETA), rtol=1e-2)


def test_a_flip_of_one_half_is_a_tie():
    arrays = log_probs(3)
    tie = losses.conservative_dpo_loss(*arrays, beta=BETA, flip=0.5)
    a, b, c, d = arrays
    both = losses.dpo_loss(a, b, c, d, beta=BETA) + losses.dpo_loss(b, a, d, c, beta=BETA)
    np.testing.assert_allclose(tie, both / 2, rtol=1e-6)


@pytest.mark.parametrize("flip", [0.0, 0.2, 0.5])
def test_a_soft_label_is_the_conservative_loss_as_far_as_that_goes(flip):
    arrays = log_probs(3)
    soft = losses.soft_label_dpo_loss(*arrays, beta=BETA, label=1 - flip)
    np.testing.assert_allclose(soft, losses.conservative_dpo_loss(*arrays, beta=BETA, flip=flip), rtol=1e-6)


def test_a_soft_label_turned_round_is_that_of_the_pair_turned_round():
    a, b, c, d = log_probs(3)
    label = np.random.default_rng(3).random(50)
    one = losses.soft_label_dpo_loss(a, b, c, d, beta=BETA, label=label)
    np.testing.assert_allclose(one, losses.soft_label_dpo_loss(b, a, d, c, beta=BETA, label=1 - label), rtol=1e-5)
    wrong = losses.soft_label_dpo_loss(a, b, c, d, beta=BETA, label=0.0)
    np.testing.assert_allclose(wrong, losses.dpo_loss(b, a, d, c, beta=BETA), rtol=1e-6)


@pytest.mark.parametrize("label", [0.05, 0.3, 0.9])
def test_a_soft_label_is_best_told_as_it_is(label):
    """Least at sigma(u) = w, where it is the entropy of the label."""
    best = math.log(label / (1 - label)) / BETA
    assert abs(slope("soft_label_dpo", best, beta=BETA, label=label)) < 1e-15
    least = float(loss_at_gap("soft_label_dpo", best, beta=BETA, label=label)[0])
    np.testing.assert_allclose(least, -label * math.log(label) - (1 - label) * math.log(1 - label))


def test_votes_shared_out_as_a_soft_label_are_their_mean_likelihood():
    arrays = log_probs(11, 1)
    votes = np.array([1, 1, 0, 1, 0])
    a, b, c, d = (np.repeat(array, 5) for array in arrays)
    one_by_one = losses.soft_label_dpo_loss(a, b, c, d, beta=BETA, label=votes)
    np.testing.assert_allclose(
        losses.soft_label_dpo_loss(*arrays, beta=BETA, label=0.6), one_by_one.mean(keepdims=True), rtol=1e-6
    )


def test_ropo_lies_between_dpo_and_the_symmetric_loss():
    h = np.linspace(-20, 20, 9)
    dpo, symmetric = loss_at_gap("dpo", h, beta=BETA), loss_at_gap("sigmoid", h, beta=BETA)
    np.testing.assert_allclose(loss_at_gap("ropo", h, beta=BETA, alpha=1e-9) / 4e-9, dpo, rtol=1e-8)
    np.testing.assert_allclose(loss_at_gap("ropo", h, beta=BETA, alpha=1e9), 4 * symmetric, rtol=1e-7)
    np.testing.assert_allclose(loss_at_gap("ropo", h, beta=BETA, alpha=1.0), dpo + symmetric)
    huge = losses.ropo_loss(*np.zeros((4, 1), np.float32), beta=BETA, alpha=1e30)  # (1 + alpha)^2 is inf in float32
    np.testing.assert_allclose(huge, 2.0, rtol=1e-6)


@pytest.mark.parametrize("alpha", [1.5, 14.0, 100.0])
def test_the_steepest_slope_of_ropo_is_one(alpha):
    """Its factor is chosen so; where the policy is sure of the opposite it keeps 4 a / (1 + a)^2 of it."""
    steepest = math.log((alpha - 1) / (alpha + 1))  # sigma(u) = (a - 1) / (2 a)
    slopes = [slope("ropo", u, beta=1.0, alpha=alpha) for u in (steepest - 0.5, steepest, steepest + 0.5, -60.0)]
    np.testing.assert_allclose(slopes[1], -1, rtol=1e-12)
    assert min(slopes[0], slopes[2]) > -1
    np.testing.assert_allclose(slopes[3], -4 * alpha / (1 + alpha) ** 2, rtol=1e-12)
    assert abs(slope("sigmoid", -60.0, beta=1.0)) < 1e-20


def test_the_hinge_is_unhinged_below_its_kink_and_half_of_it_the_ramp_between_its_two():
    h = np.linspace(-1 / BETA, 1 / BETA, 9)
    hinge, unhinged = loss_at_gap("hinge", h, beta=BETA), loss_at_gap("unhinged", h, beta=BETA)
    np.testing.assert_allclose(hinge, unhinged, atol=1e-12)
    np.testing.assert_allclose(loss_at_gap("ramp", h, beta=BETA), unhinged / 2, atol=1e-12)
    assert loss_at_gap("hinge", 2 / BETA, beta=BETA) == 0 == loss_at_gap("ramp", 2 / BETA, beta=BETA)


def test_slic_hf_in_its_linear_region_is_unhinged_up_to_a_constant():
    h = np.linspace(-4, -1, 7)
    slic = loss_at_gap("slic_hf", h, delta=1.5)
    unhinged = loss_at_gap("unhinged", h, beta=1.0)
    np.testing.assert_allclose(slic - unhinged, (slic - unhinged)[0], atol=1e-12)
    # at an even reference and delta = 1 / beta it is the hinge times 1 / beta
    zero = np.zeros(7)
    with jax.enable_x64(True):
        slic = losses.slic_hf_loss(h, zero, zero, zero, delta=1 / BETA)
        np.testing.assert_allclose(slic, losses.hinge_loss(h, zero, zero, zero, beta=BETA) / BETA, atol=1e-12)


def test_the_reference_does_not_enter_slic_hf():
    a, b, c, d = log_probs(4)
    one, two = losses.slic_hf_loss(a, b, c, d), losses.slic_hf_loss(a, b, d - 3, c)
    np.testing.assert_array_equal(one, two)


def test_ipo_is_least_at_its_target_and_equals_the_square_there():
    tau = 0.35
    assert loss_at_gap("ipo", 1 / (2 * tau), tau=tau)[0] < 1e-30
    assert abs(slope("ipo", 1 / (2 * tau), tau=tau)) < 1e-14
    for step in (-1.0, 0.5):
        np.testing.assert_allclose(loss_at_gap("ipo", 1 / (2 * tau) + step, tau=tau), step**2)


def test_exo_and_conservative_dpo_have_the_same_least_point_by_opposite_divergences():
    eps = 0.2
    best = math.log((1 - eps) / eps)  # sigma(u) = 1 - eps
    assert abs(float(loss_at_gap("exo", best, beta=1.0, smoothing=eps)[0])) < 1e-15
    for name, option in (("exo", "smoothing"), ("conservative_dpo", "flip")):
        assert abs(slope(name, best, beta=1.0, **{option: eps})) < 1e-15
        assert (
            slope(name, best - 0.1, beta=1.0, **{option: eps}) < 0 < slope(name, best + 0.1, beta=1.0, **{option: eps})
        )
    u = np.linspace(-3, 3, 7)
    s = sigmoid(u)
    forward = (1 - eps) * np.log((1 - eps) / s) + eps * np.log(eps / (1 - s))
    entropy = -(1 - eps) * np.log(1 - eps) - eps * np.log(eps)
    np.testing.assert_allclose(loss_at_gap("conservative_dpo", u, beta=1.0, flip=eps), forward + entropy)
    reverse = s * np.log(s / (1 - eps)) + (1 - s) * np.log((1 - s) / eps)
    np.testing.assert_allclose(loss_at_gap("exo", u, beta=1.0, smoothing=eps), reverse, atol=1e-12)
    for u in (-1.0, 0.7):
        np.testing.assert_allclose(slope("exo", u, beta=1.0, smoothing=eps), sigmoid(u) * sigmoid(-u) * (u - best))


def test_the_authors_code_of_exo_is_nearly_exo_at_eps_e_to_the_minus_10():
    """It has log eps = -10 and 0 for log(1 - eps): sigma(u) log(1 - eps) more, 4.6e-5 at most."""
    u = np.linspace(-20, 20, 41)
    s = sigmoid(u)
    code = s * np.log(s) + sigmoid(-u) * (np.log(sigmoid(-u)) + 10)
    apart = loss_at_gap("exo", u, beta=1.0, smoothing=math.exp(-10)) - code
    np.testing.assert_allclose(apart, -s * math.log1p(-math.exp(-10)), atol=1e-13)
    assert 4.5e-5 < apart.max() < 4.6e-5


# ---- slopes at margin 0, and signs

AT_ZERO = {
    "dpo": -BETA / 2,
    "conservative_dpo": -BETA / 2 * (1 - 2 * 0.2),
    "soft_label_dpo": BETA * (0.5 - 0.3),
    "robust_dpo": -BETA / 2 / (1 - 2 * 0.2),
    "ipo": -1 / 0.4,
    "slic_hf": -1 - 0.1,
    "hinge": -BETA,
    "exo": -BETA / 4 * math.log(0.95 / 0.05),
    "rpo": -BETA / 2 - 0.7 * BETA,
    "margin_dpo": -BETA * float(sigmoid(0.6)),
    "importance_weighted_dpo": -2.5 * BETA / 2,
    "sigmoid": -BETA / 4,
    "ropo": -BETA * (56 / 2 + 784 / 4) / 225,
    "ramp": -BETA / 2,
    "unhinged": -BETA,
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_at_margin_zero_all_pull_the_same_way(name):
    found = slope(name, 0.0, **OPTIONS.get(name, {"beta": BETA}))
    np.testing.assert_allclose(found, AT_ZERO[name], rtol=1e-12)
    assert (found < 0) == (name != "soft_label_dpo")  # whose label, 0.3, is for the other completion


def test_robust_dpo_at_zero_is_unbiased():
    """Robust: the mean slope over flips is DPO's. Conservative: it shrinks by (1 - 2 eps) twice."""
    eps = 0.2
    robust, conservative = AT_ZERO["robust_dpo"], AT_ZERO["conservative_dpo"]
    np.testing.assert_allclose((1 - eps) * robust - eps * robust, AT_ZERO["dpo"])
    np.testing.assert_allclose((1 - 2 * eps) * conservative, (1 - 2 * eps) ** 2 * AT_ZERO["dpo"])
