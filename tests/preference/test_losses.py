"""Losses: values by hand, the limits in which they coincide, what each is said to leave unchanged, and their slopes."""

import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign.preference import losses
from jaxdesign.preference.losses import LOSSES, implicit_reward, log_ratio_gap, weighted_mean

BETA = 0.3
# what each loss needs besides log-probabilities
OPTIONS = {
    "conservative_dpo": {"beta": BETA, "flip": 0.2},
    "robust_dpo": {"beta": BETA, "flip": 0.2},
    "ipo": {"tau": 0.4},
    "slic_hf": {"delta": 1.5, "regularisation": 0.1},
    "exo": {"beta": BETA, "smoothing": 0.05},
    "rpo": {"beta": BETA, "eta": 0.7},
    "margin_dpo": {"beta": BETA, "offset": 0.6},
    "importance_weighted_dpo": {"beta": BETA, "weights": 2.5},
}
MARGIN_ONLY = sorted(set(LOSSES) - {"slic_hf", "rpo"})  # functions of the log-ratio gap alone


def log_probs(seed=0, size=50):
    return -20 * np.random.default_rng(seed).random((4, size)) - 1


def loss_at_gap(name, gap, **options):
    """The loss of pairs with a given log-ratio gap h, in float64."""
    gap = np.atleast_1d(np.asarray(gap, np.float64))
    with jax.enable_x64(True):
        return np.asarray(LOSSES[name](gap - 3, np.full_like(gap, -5), np.full_like(gap, -4), gap * 0 - 6, **options))


def slope(name, gap, **options):
    """Derivative in the log-ratio gap, in float64."""
    with jax.enable_x64(True):
        zero = jnp.zeros(())
        return float(jax.grad(lambda h: LOSSES[name](h, zero, zero, zero, **options))(jnp.float64(gap)))


def logistic(u):
    return np.logaddexp(0, -np.asarray(u))


def sigmoid(u):
    return 1 / (1 + np.exp(-np.asarray(u)))


# log pi(y_c) = -2, log pi(y_r) = -7, reference -3 and -5: h = (-2 + 3) - (-7 + 5) = 3
HAND = {
    "dpo": math.log(1 + math.exp(-0.9)),
    "conservative_dpo": 0.8 * math.log(1 + math.exp(-0.9)) + 0.2 * math.log(1 + math.exp(0.9)),
    "robust_dpo": (0.8 * math.log(1 + math.exp(-0.9)) - 0.2 * math.log(1 + math.exp(0.9))) / 0.6,
    "ipo": (3 - 1.25) ** 2,
    "slic_hf": 0 + 0.1 * 2,  # 1.5 - (-2 + 7) is below 0
    "hinge": 0.1,
    "exo": 0.7109495 * math.log(0.7109495 / 0.95) + 0.2890505 * math.log(0.2890505 / 0.05),
    "rpo": math.log(1 + math.exp(-0.9)) + 0.7 * 0.3 * 2,
    "margin_dpo": math.log(1 + math.exp(-0.3)),
    "importance_weighted_dpo": 2.5 * math.log(1 + math.exp(-0.9)),
    "sigmoid": 0.2890505,
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
    assert float(log_ratio_gap(*(np.float32(v) for v in (-2, -7, -3, -5)))) == 3
    assert float(implicit_reward(np.float32(-2), np.float32(-3), beta=0.5)) == 0.5
    a, b, c, d = log_probs()
    gap = implicit_reward(a, c, beta=BETA) - implicit_reward(b, d, beta=BETA)
    np.testing.assert_allclose(gap, BETA * log_ratio_gap(a, b, c, d), atol=1e-5)


def test_dpo_is_the_bradley_terry_likelihood():
    a, b, c, d = log_probs(1)
    chance = sigmoid(BETA * ((a - c) - (b - d)))
    np.testing.assert_allclose(losses.dpo_loss(a, b, c, d, beta=BETA), -np.log(chance), rtol=1e-5, atol=1e-6)


# ---- limits in which they coincide

SAME_AS_DPO = {
    "conservative_dpo": {"flip": 0.0},
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


# ---- slopes at margin 0, and signs

AT_ZERO = {
    "dpo": -BETA / 2,
    "conservative_dpo": -BETA / 2 * (1 - 2 * 0.2),
    "robust_dpo": -BETA / 2 / (1 - 2 * 0.2),
    "ipo": -1 / 0.4,
    "slic_hf": -1 - 0.1,
    "hinge": -BETA,
    "exo": -BETA / 4 * math.log(0.95 / 0.05),
    "rpo": -BETA / 2 - 0.7 * BETA,
    "margin_dpo": -BETA * float(sigmoid(0.6)),
    "importance_weighted_dpo": -2.5 * BETA / 2,
    "sigmoid": -BETA / 4,
    "ramp": -BETA / 2,
    "unhinged": -BETA,
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_at_margin_zero_all_pull_the_same_way(name):
    found = slope(name, 0.0, **OPTIONS.get(name, {"beta": BETA}))
    np.testing.assert_allclose(found, AT_ZERO[name], rtol=1e-12)
    assert found < 0


def test_robust_dpo_at_zero_is_unbiased():
    """Robust: the mean slope over flips is DPO's. Conservative: it shrinks by (1 - 2 eps) twice."""
    eps = 0.2
    robust, conservative = AT_ZERO["robust_dpo"], AT_ZERO["conservative_dpo"]
    np.testing.assert_allclose((1 - eps) * robust - eps * robust, AT_ZERO["dpo"])
    np.testing.assert_allclose((1 - 2 * eps) * conservative, (1 - 2 * eps) ** 2 * AT_ZERO["dpo"])


# ---- what flips do

gaps = st.floats(-30, 30)
flips = st.floats(0, 0.45)


@given(gaps, flips)
def test_the_mean_of_robust_dpo_over_flips_is_the_clean_loss(gap, eps):
    """The identity of arXiv 2403.00409, lemma on unbiasedness: (1 - eps) L(u) + eps L(-u) = l(u)."""
    straight, flipped = loss_at_gap("robust_dpo", [gap, -gap], beta=BETA, flip=eps)
    np.testing.assert_allclose((1 - eps) * straight + eps * flipped, logistic(BETA * gap), rtol=1e-9, atol=1e-9)


@given(gaps)
def test_symmetric_losses_add_up_to_a_constant(gap):
    for name, constant in (("sigmoid", 1), ("ramp", 1), ("unhinged", 2)):
        np.testing.assert_allclose(loss_at_gap(name, [gap, -gap], beta=BETA).sum(), constant, atol=1e-12)


def test_other_losses_are_not_symmetric():
    for name in ("dpo", "hinge", "exo", "ipo"):
        apart = loss_at_gap(name, [4 / BETA, -4 / BETA], **OPTIONS.get(name, {"beta": BETA})).sum()
        assert abs(apart - 2 * loss_at_gap(name, 0, **OPTIONS.get(name, {"beta": BETA}))[0]) > 0.1


def test_symmetric_losses_keep_their_best_margin_under_flips_and_dpo_does_not():
    """Two-thirds of the clean labels say yes; a fifth of all labels is reversed. Best margin on a grid."""
    h, yes, eps = np.linspace(-4, 4, 161), 2 / 3, 0.2
    noisy = yes * (1 - eps) + (1 - yes) * eps
    for name, moves in (("sigmoid", False), ("ramp", False), ("unhinged", False), ("dpo", True)):
        up, down = loss_at_gap(name, h, beta=1.0), loss_at_gap(name, -h, beta=1.0)
        clean, reversed_ = (np.argmin(q * up + (1 - q) * down) for q in (yes, noisy))
        assert (clean != reversed_) == moves
    # and the robust loss, told the rate, puts DPO's best margin back
    up, down = (loss_at_gap("robust_dpo", sign * h, beta=1.0, flip=eps) for sign in (1, -1))
    best = np.argmin(yes * loss_at_gap("dpo", h, beta=1.0) + (1 - yes) * loss_at_gap("dpo", -h, beta=1.0))
    assert np.argmin(noisy * up + (1 - noisy) * down) == best


def test_parameters_may_differ_by_pair():
    arrays = log_probs(5, 3)
    eps = np.array([0.0, 0.1, 0.4])
    each = [losses.robust_dpo_loss(*arrays[:, [k]], beta=BETA, flip=eps[k])[0] for k in range(3)]
    np.testing.assert_allclose(losses.robust_dpo_loss(*arrays, beta=BETA, flip=eps), each, rtol=1e-6)


# ---- numerics


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
def test_every_loss_is_called_alike_and_documented(name):
    parameters = list(inspect.signature(LOSSES[name]).parameters.values())
    assert [p.name for p in parameters[:4]] == ["chosen", "rejected", "ref_chosen", "ref_rejected"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[4:])
    documentation = inspect.getdoc(LOSSES[name])
    assert "ource" in documentation or "Derived from" in documentation
    assert set(OPTIONS.get(name, {"beta"})) == {p.name for p in parameters[4:]}


# ---- weighted mean


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


# ---- refusals


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda a: losses.dpo_loss(*a, beta=0.0), ValueError, "beta=0: must be above 0 and finite"),
        (lambda a: losses.dpo_loss(*a, beta=np.nan), ValueError, "beta=nan"),
        (lambda a: losses.dpo_loss(a[0], a[1][:2], *a[2:], beta=1.0), ValueError, r"rejected: shape \(2,\) found"),
        (lambda a: losses.dpo_loss(a[0], a[1], a[2], a[3].astype(int), beta=1.0), TypeError, "ref_rejected: dtype"),
        (lambda a: losses.conservative_dpo_loss(*a, beta=1.0, flip=0.6), ValueError, r"flip=0.6: .*in \[0, 1/2\] and"),
        (lambda a: losses.robust_dpo_loss(*a, beta=1.0, flip=0.5), ValueError, r"flip=0.5: must be in \[0, 1/2\) and"),
        (lambda a: losses.robust_dpo_loss(*a, beta=1.0, flip=np.array([0.1, 0.1, 0.7])), ValueError, "flip=0.7"),
        (lambda a: losses.ipo_loss(*a, tau=-1.0), ValueError, "tau=-1"),
        (lambda a: losses.exo_loss(*a, beta=1.0, smoothing=0.0), ValueError, r"smoothing=0: must be in \(0, 1/2\]"),
        (lambda a: losses.rpo_loss(*a, beta=1.0, eta=-0.1), ValueError, "eta=-0.1: must be at least 0"),
        (lambda a: losses.margin_dpo_loss(*a, beta=1.0, offset=np.inf), ValueError, "offset=inf"),
        (lambda a: losses.slic_hf_loss(*a, delta=0.0), ValueError, "delta=0"),
        (lambda a: losses.importance_weighted_dpo_loss(*a, beta=1.0, weights=-1.0), ValueError, "weights=-1"),
        (lambda a: weighted_mean(a[0], -a[0] * 0 - 1), ValueError, "weights=-1: must be at least 0"),
        (lambda a: weighted_mean(a[0], a[0][:2]), ValueError, r"weights: shape \(2,\) found; expected \(3,\)"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(log_probs(9, 3))


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("traced", [False, True])
def test_parameters_of_another_shape_are_refused(name, traced):
    """They would broadcast: beta (3,) made three losses of one pair. One number, or one per pair."""
    options = OPTIONS.get(name, {"beta": BETA})
    for option, value in options.items():
        for shape in ((3,), (1,), (1, 1), (2, 1)):
            wrong = np.full(shape, value)

            def call(given, option=option):
                return LOSSES[name](*np.zeros((4, 2), np.float32), **options | {option: given})

            with pytest.raises(ValueError, match=re.escape(f"{option}: shape {shape} found")):
                (jax.jit(call) if traced else call)(wrong)
        assert call(np.full(2, value)).shape == call(value).shape == (2,)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_parameters_do_not_change_the_dtype(name):
    """float64 numbers beside float32 log-probabilities where x64 is on."""
    options = {option: np.full(2, value) for option, value in OPTIONS.get(name, {"beta": BETA}).items()}
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert LOSSES[name](*np.zeros((4, 2), np.float32), **options).dtype == np.float32
        assert jax.jit(LOSSES[name])(*np.zeros((4, 2), np.float32), **options).dtype == np.float32


@pytest.mark.parametrize(
    ("name", "option", "value", "words"),
    [
        ("robust_dpo", "flip", 0.5 - 1e-9, "flip=0.499999999: is 0.5 in float32"),  # 1 / (1 - 2 eps)
        ("exo", "smoothing", 1e-50, "smoothing=1e-50: is 0 in float32"),  # log eps
        ("ipo", "tau", 1e-60, "tau=1e-60: is 0 in float32"),
        ("importance_weighted_dpo", "weights", 1e60, "weights=1e[+]60: is inf in float32"),
    ],
)
def test_parameters_that_rounding_makes_others_are_refused(name, option, value, words):
    options = OPTIONS[name] | {option: value}
    with pytest.raises(ValueError, match=words):
        LOSSES[name](*np.zeros((4, 2), np.float32), **options)
    with jax.enable_x64(True):
        assert np.isfinite(LOSSES[name](*np.zeros((4, 2)), **options)).all()
