"""Losses at a log-ratio gap, their parameters, and log-probabilities to try them on."""

import jax
import numpy as np

from jaxdesign.preference.losses import LOSSES

BETA = 0.3
# what each loss needs besides log-probabilities
OPTIONS = {
    "conservative_dpo": {"beta": BETA, "flip": 0.2},
    "soft_label_dpo": {"beta": BETA, "label": 0.3},
    "robust_dpo": {"beta": BETA, "flip": 0.2},
    "ipo": {"tau": 0.4},
    "slic_hf": {"delta": 1.5, "regularisation": 0.1},
    "exo": {"beta": BETA, "smoothing": 0.05},
    "rpo": {"beta": BETA, "eta": 0.7},
    "margin_dpo": {"beta": BETA, "offset": 0.6},
    "importance_weighted_dpo": {"beta": BETA, "weights": 2.5},
    "ropo": {"beta": BETA, "alpha": 14.0},
}


def log_probs(seed=0, size=50):
    return -20 * np.random.default_rng(seed).random((4, size)) - 1


def loss_at_gap(name, gap, **options):
    """The loss of pairs with a given log-ratio gap h, in float64."""
    gap = np.atleast_1d(np.asarray(gap, np.float64))
    with jax.enable_x64(True):
        return np.asarray(LOSSES[name](gap - 3, np.full_like(gap, -5), np.full_like(gap, -4), gap * 0 - 6, **options))


def sigmoid(u):
    return 1 / (1 + np.exp(-np.asarray(u)))
