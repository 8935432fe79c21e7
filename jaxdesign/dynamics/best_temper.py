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
        temper: of least risk among those tried.
        tempers: those tried, (T,).
        bias: (T,) regret of the shift that is left against full weights, without its noise and at least 0; unit of the
            reward.
        variance: (T,) regret by the noise of labels, tr(H V_t) / (2 beta).
    """

    temper: float
    tempers: Float[np.ndarray, " t"]
    bias: Float[np.ndarray, " t"]
    variance: Float[np.ndarray, " t"]


def best_temper(
    pool: CompletionPool,
    labels: Labels,
    target_law: Any,
    *,
    beta: float,
    target: Float[np.ndarray, "d d"] | None = None,
    tempers: Any = None,
) -> Tempering:
    """The t of weights (m / q)^t with the least estimated regret (1 / (2 beta)) [s_t^T H s_t + tr(H V_t)].

    s_t = w_t - w_1 is what tempering leaves of the shift, less its own noise; V_t the covariance of w_t by the noise of
    labels. Where the model holds nothing is left, and t = 0, the plain labels, varies least.

    Args:
        pool, labels, target_law, beta, target: as for `sampler_shift`.
        tempers: those to try, numbers in [0, 1]; None: 0, 0.1, ..., 1.

    Returns:
        Tempering; float64, on the host. Where a fit does not exist (labels that can be separated) its risk is NaN and
        it is not chosen; where that of full weights does not, nothing can be compared with it: temper is NaN.

    Raises:
        TypeError, ValueError: as `sampler_shift`; tempers outside of [0, 1].

    Source: derived; checked by tests/dynamics/test_best_temper.py.
    """
    _checks.concrete("dynamics.best_temper", pool, labels, target_law, target)
    beta = _checks.positive_finite(beta, "beta", "the price of KL")
    tried = np.linspace(0, 1, 11) if tempers is None else np.atleast_1d(np.asarray(tempers, np.float64))
    if tried.ndim != 1 or not tried.size or not ((tried >= 0) & (tried <= 1)).all():
        raise ValueError(f"tempers: {tried} found; expected one or more numbers in [0, 1]")
    data, law = as_pair_labels(pool, labels), as_law(pool, target_law)
    metric = as_metric(pool, target, data)
    full = weighted_fit(data, importance_weights(data.pairs, data.counts, law))
    bias, variance = np.empty_like(tried), np.empty_like(tried)
    for place, temper in enumerate(tried):
        fit = weighted_fit(data, importance_weights(data.pairs, data.counts, law, temper=temper))
        left, _ = regret(*difference(data, fit, full), metric, beta)
        bias[place] = np.maximum(left, 0)
        variance[place] = np.sum(metric * (full.reach @ noise(data, (1.0, fit)) @ full.reach)) / (2 * beta)
    risk = bias + variance
    best = float("nan") if np.isnan(risk).all() else float(tried[np.nanargmin(risk)])
    return Tempering(best, tried, bias, variance)
