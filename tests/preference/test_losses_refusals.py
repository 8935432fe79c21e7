"""How losses are called, and parameters that are refused: out of range, of another shape, lost to rounding."""

import inspect
import re

import jax
import numpy as np
import pytest

from jaxdesign.preference import losses
from jaxdesign.preference.losses import LOSSES, weighted_mean
from tests.support.losses import BETA, OPTIONS, log_probs


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_is_called_alike_and_documented(name):
    parameters = list(inspect.signature(LOSSES[name]).parameters.values())
    assert [p.name for p in parameters[:4]] == ["chosen", "rejected", "ref_chosen", "ref_rejected"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[4:])
    documentation = inspect.getdoc(LOSSES[name])
    assert "ource" in documentation or "Derived from" in documentation
    assert set(OPTIONS.get(name, {"beta"})) == {p.name for p in parameters[4:]}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda a: losses.dpo_loss(*a, beta=0.0), ValueError, "beta=0: must be above 0 and finite"),
        (lambda a: losses.dpo_loss(*a, beta=np.nan), ValueError, "beta=nan"),
        (lambda a: losses.dpo_loss(a[0], a[1][:2], *a[2:], beta=1.0), ValueError, r"rejected: shape \(2,\) found"),
        (lambda a: losses.dpo_loss(a[0], a[1], a[2], a[3].astype(int), beta=1.0), TypeError, "ref_rejected: dtype"),
        (lambda a: losses.conservative_dpo_loss(*a, beta=1.0, flip=0.6), ValueError, r"flip=0.6: .*in \[0, 1/2\] and"),
        (lambda a: losses.soft_label_dpo_loss(*a, beta=1.0, label=1.1), ValueError, r"label=1.1: must be in \[0, 1\]"),
        (lambda a: losses.soft_label_dpo_loss(*a, beta=1.0, label=-0.1), ValueError, r"label=-0.1"),
        (lambda a: losses.ropo_loss(*a, beta=1.0, alpha=0.0), ValueError, "alpha=0: must be above 0"),
        (lambda a: losses.per_token(a[0], np.array([3, 0, 2])), ValueError, "tokens=0: must be at least 1 and finite"),
        (lambda a: losses.per_token(a[0], np.ones(2)), ValueError, r"tokens: shape \(2,\) found; .*one per completion"),
        (lambda a: losses.per_token(a[0].astype(int), 3), TypeError, "log_prob: dtype"),
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
