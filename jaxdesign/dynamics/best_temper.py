"""How far weights should go: between the plain labels' bias and the full weights' variance."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks
from jaxdesign.dynamics.importance_weights import importance_weights
from jaxdesign.dynamics.weighted_fits import as_law, as_metric, as_pair_labels, difference, noise, regret, weighted_fit
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.labels.labels import Labels


class Tempering(NamedTuple):
    """What `best_temper` found.

    Args:
        temper: with the least sum of `certain` and `variance` among those tried, the first of equals.
        tempers: those tried, (T,), in the order given.
        bias: (T,) regret by the shift that is left against full weights, s_t^T H s_t / (2 beta) without its noise and
            at least 0; unit of the reward.
        variance: (T,) regret by the noise of labels, tr(H V_t) / (2 beta), in the directions that full weights reach.
        certain: (T,) lower 95% limit of the bias.
    """

    temper: float
    tempers: Float[np.ndarray, " t"]
    bias: Float[np.ndarray, " t"]
    variance: Float[np.ndarray, " t"]
    certain: Float[np.ndarray, " t"]


def best_temper(
    pool: CompletionPool,
    labels: Labels,
    target_law: Any,
    *,
    beta: float,
    target: Float[np.ndarray, "d d"] | None = None,
    tempers: Any = None,
    drawn_law: Any = None,
) -> Tempering:
    """The t of weights (m / q)^t with the least regret (1 / (2 beta)) [s_t^T H s_t + tr(H V_t)], so far as is certain.

    s_t = w_t - w_1 is what tempering leaves of the shift, V_t the covariance of w_t by the noise of labels. Where the
    model holds nothing is left, and t = 0, the plain labels, varies least. Of the first part the lower limit is taken,
    `regret` in weighted_fits: full weights are noisiest, and an estimate would choose them whenever their own noise
    looks like a shift, just when it is largest. The price is that weights come a little late, when there are labels
    enough to show what they undo.

    Args:
        pool, labels, target_law, beta, target, drawn_law: as for `sampler_shift`.
        tempers: those to try, numbers in [0, 1]; None: 0, 0.1, ..., 1.

    Returns:
        Tempering; float64, on the host. Where a fit does not exist (labels that can be separated) its risk is NaN and
        it is not chosen; where that of full weights does not, nothing can be compared with it: temper is NaN.

    Raises:
        TypeError, ValueError: as `sampler_shift`; tempers outside of [0, 1].

    Source: derived; checked by tests/dynamics/test_best_temper.py.
    """
    _checks.concrete("dynamics.best_temper", pool, labels, target_law, target, drawn_law)
    beta = _checks.positive_finite(beta, "beta", "the price of KL")
    tried = np.linspace(0, 1, 11) if tempers is None else np.atleast_1d(np.asarray(tempers, np.float64))
    if tried.ndim != 1 or not tried.size or not ((tried >= 0) & (tried <= 1)).all():
        raise ValueError(f"tempers: {tried} found; expected one or more numbers in [0, 1]")
    data, law = as_pair_labels(pool, labels), as_law(pool, target_law, "target_law")
    drawn = None if drawn_law is None else as_law(pool, drawn_law, "drawn_law")
    metric = as_metric(pool, target, data)

    def tempered(temper):
        return weighted_fit(data, importance_weights(data.pairs, data.counts, law, temper=temper, drawn_law=drawn))

    full = tempered(1.0)
    parts = [_parts(data, tempered(temper), full, metric, beta) for temper in tried]
    bias, variance, certain = np.array(parts).T
    risk = certain + variance
    best = float("nan") if np.isnan(risk).all() else float(tried[np.nanargmin(risk)])
    return Tempering(best, tried, bias, variance, certain)


def _parts(data, fit, full, metric, beta):
    """Of one fit: bias, variance, and how much of the bias is certain."""
    left, (certain, _) = regret(*difference(data, fit, full), metric, beta)
    covariance = full.reach @ noise(data, (1.0, fit)) @ full.reach
    return np.maximum(left, 0), np.sum(metric * covariance) / (2 * beta), certain
