"""How a loss reads a preference: the probability that a margin of scores stands for, with its slope and integral.

Both losses ask for scores u whose residuals P_ij - mean(u_i - u_j) have no divergence under the pair law,
sum_j q_ij (P_ij - mean(u_i - u_j)) = 0, and differ by the mean alone:

    ipo   mean(m) = 1/2 + m       least squares of P - 1/2; the log-ratios are strength u, strength = 1 / tau
    dpo   mean(m) = sigma(m)      Bradley-Terry's likelihood; the log-ratios are strength u, strength = 1 / beta

Source: arXiv 2310.12036 (IPO), 2305.18290 (DPO); one form for both derived; checked by
tests/dynamics/test_round_optimum.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Link(NamedTuple):
    """Functions of a margin."""

    mean: Callable[[Any], Any]
    slope: Callable[[Any], Any]  # mean'
    integral: Callable[[Any], Any]  # the convex function whose derivative is the mean
    bounded: bool  # whether preferences of 0 and 1 lie at infinite margins


def _logistic_slope(margin):
    return jax.nn.sigmoid(margin) * jax.nn.sigmoid(-margin)


LINKS = {
    "ipo": Link(lambda m: 0.5 + m, jnp.ones_like, lambda m: (m + m * m) / 2, False),
    "dpo": Link(jax.nn.sigmoid, _logistic_slope, jax.nn.softplus, True),
}
