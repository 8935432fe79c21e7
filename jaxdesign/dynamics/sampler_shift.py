"""How far a batch moves what its labels teach, against labels drawn from the law that matters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from jaxdesign import _checks
from jaxdesign.dynamics.importance_weights import cost_of_weights, importance_weights, target_masses
from jaxdesign.dynamics.weighted_fits import (
    RANK,
    TINY,
    as_law,
    as_metric,
    as_pair_labels,
    difference,
    noise,
    regret,
    weighted_fit,
)
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.labels.labels import Labels

SAME = 1e-12  # of their covariance apart: two fits of which no less is left are one, but for rounding


class SamplerShift(NamedTuple):
    """What `sampler_shift` found; w is the reward parameter, a completion's score phi . w.

    Args:
        plain: w of the labels as they are, (d,).
        weighted: w of the labels with their weights, (d,).
        shift: weighted - plain, (d,), in the directions that labels with weight speak of.
        covariance: of the shift by the noise of labels, (d, d).
        statistic: T = shift^T covariance^+ shift.
        degrees: of freedom: directions in which weights can move the fit at all, none where they are all equal or each
            pair has a parameter to itself.
        p_value: of T under chi^2: small where the model is wrong in a way that the pairs' law brings out.
        gap: shift^T H shift / (2 beta) less its noise tr(H covariance) / (2 beta): regret of the plain policy for the
            weighted one, unit of the reward; below 0 where there is nothing but noise.
        gap_interval: 95% limits of the gap, at least 0.
        effective: n_eff / n = (sum n W)^2 / (n sum n W^2), in (0, 1]: what the weights leave of the labels; 0 where
            none has weight.
        uncovered: mass of the target law on pairs without labels, or that could not be drawn: no weight reaches it.
        largest_weight: of all labels, in units of their mean; NaN where none has weight.
        converged: whether both fits exist; else labels can be separated, or none has weight: no parameter, shift, gap
            or statistic is known then, and those are NaN.
    """

    plain: Float[np.ndarray, " d"]
    weighted: Float[np.ndarray, " d"]
    shift: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]
    statistic: float
    degrees: int
    p_value: float
    gap: float
    gap_interval: tuple[float, float]
    effective: float
    uncovered: float
    largest_weight: float
    converged: bool


def sampler_shift(
    pool: CompletionPool,
    labels: Labels,
    target_law: Any,
    *,
    beta: float,
    target: Float[np.ndarray, "d d"] | None = None,
    temper: float = 1.0,
    drawn_law: Any = None,
) -> SamplerShift:
    """The shift of DPO's optimum by weighting labels to a target law, its noise, and whether the model explains it.

    Two fits of P = sigma(z . w) to the same labels: as they are, and with weights W_e = (m_e / q_e)^temper. Where the
    model holds both estimate the same w, and their difference has the influence function of label y of pair e

        psi = W_e H_W^-1 z_e (y - sigma(z_e . w_W)) - H_1^-1 z_e (y - sigma(z_e . w_1))

    with H_W = sum_e n_e W_e sigma' z z^T and y = 1, 0, or 1/2 for a tie, so that T = shift^T (sum psi psi^T)^-1 shift
    is chi^2: the test of DuMouchel and Duncan, and of Hausman. A shift that noise does not explain says that the answer
    depends on which pairs are labelled: the features or the Bradley-Terry model are wrong, and the design decides in
    which direction. The chi^2 is that of many labels: several times as many as features, none with most of the weight.

    Args:
        pool: the labels' pool; its features in the basis of w, its scores and flips are not used.
        labels: `preference.Labels` of pairs of the pool.
        target_law: law of pairs that matters, as in `importance_weights`.
        beta: the price of KL, above 0.
        target: H, (d, d), for the gap; None: `policy_target(pool)`.
        temper: of the weights.
        drawn_law: q, the law that pairs were drawn from, as in `importance_weights`; None: q_e = n_e / n.

    Returns:
        SamplerShift; float64, on the host.

    Raises:
        TypeError: traced arguments.
        ValueError: no labels, labels outside of the pool, a law or target of another shape, beta not positive.

    Source: DuMouchel and Duncan 1983, doi:10.1080/01621459.1983.10478006; Hausman 1978, doi:10.2307/1913827; the form
    for labels of pairs derived; checked by tests/dynamics/test_sampler_shift.py.
    """
    _checks.concrete("dynamics.sampler_shift", pool, labels, target_law, target, drawn_law)
    beta = _checks.positive_finite(beta, "beta", "the price of KL")
    data, law = as_pair_labels(pool, labels), as_law(pool, target_law, "target_law")
    drawn = None if drawn_law is None else as_law(pool, drawn_law, "drawn_law")
    metric, basis = as_metric(pool, target, data), data.basis
    weights = importance_weights(data.pairs, data.counts, law, temper=temper, drawn_law=drawn)
    plain, weighted = weighted_fit(data, np.ones_like(weights)), weighted_fit(data, weights)
    shift, covariance = difference(data, weighted, plain)
    converged = plain.converged and weighted.converged
    apart = noise(data, (1.0, weighted)) + noise(data, (1.0, plain))
    statistic, degrees, p_value = chi_square(shift, covariance, apart) if converged else (np.nan, 0, np.nan)
    gap, interval = regret(shift, covariance, metric, beta)
    effective, largest = cost_of_weights(data.counts, weights)
    return SamplerShift(
        plain=basis @ plain.parameter,
        weighted=basis @ weighted.parameter,
        shift=basis @ shift,
        covariance=basis @ covariance @ basis.T,
        statistic=statistic,
        degrees=degrees,
        p_value=p_value,
        gap=gap,
        gap_interval=interval,
        effective=effective,
        uncovered=max(0.0, 1 - float(target_masses(law, data.pairs if drawn is None else _possible(drawn)).sum())),
        largest_weight=largest,
        converged=converged,
    )


def _possible(law):
    """Pairs that a law can draw."""
    there = law > 0 if law.ndim == 3 else (law > -np.inf)[:, :, None] & (law > -np.inf)[:, None, :]
    return np.argwhere(np.triu(there, 1))


def chi_square(shift, covariance, apart) -> tuple[float, int, float]:
    """T = s^T V^+ s, its degrees of freedom and its p-value.

    Directions count in which V is more than rounding of `apart`, the covariance that two independent fits would have.
    """
    values, vectors = np.linalg.eigh(apart)
    kept = values > RANK * max(values[-1], TINY)
    whitened = vectors[:, kept] / np.sqrt(values[kept])
    values, vectors = np.linalg.eigh(whitened.T @ covariance @ whitened)
    kept = values > SAME
    statistic = float(np.sum((vectors.T @ (whitened.T @ shift))[kept] ** 2 / values[kept]))
    degrees = int(kept.sum())
    return statistic, degrees, float(special.chdtrc(degrees, statistic)) if degrees else 1.0
