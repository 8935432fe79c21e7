"""What reversed labels do to losses: which keep their mean, their sum or their best margin."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.support.losses import BETA, OPTIONS, loss_at_gap


def logistic(u):
    return np.logaddexp(0, -np.asarray(u))


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
