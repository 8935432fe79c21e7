"""By what residual rounds are designed: the plan's own, or what the labels of the pilot tell."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks
from jaxdesign._scoring import scored_pool
from jaxdesign.belief import as_belief
from jaxdesign.information import held_information
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.fit.residual_variance import estimate_residual
from jaxdesign.preference.labels.labels import Labels, counted
from jaxdesign.residual import SLOPE, Residual
from jaxdesign.residual_metric import residual_of

CAP, PILOT = "cap", "pilot"


class ResidualUsed(NamedTuple):
    """The residual that rounds are designed with, and what the pilot told of it.

    Args:
        variance: v at the median pair, in squared units of margins, or "cap": what `residual_of` takes. None: none but
            the pool's own.
        estimated: the most likely v by the pilot's labels, whether it is used or not. None, as all that follows: the
            pilot was not asked, or has no labels yet.
        standard_error: of it, inf where the pilot gives none.
        interval: (low, high), 95%; high may be inf.
        told: whether the pilot tells v; where it does not, the cap is used.
    """

    variance: float | str | None
    estimated: float | None = None
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    told: bool | None = None

    @property
    def shrinkage(self) -> float:
        """sqrt(1 + pi v / 8): how many times the fitted reward is too small at the median pair; NaN for the cap."""
        if isinstance(self.variance, str):
            return float("nan")
        return float(np.sqrt(1 + SLOPE * (self.variance or 0.0)))

    def summary(self) -> dict[str, Any]:
        """The same in what JSON can hold: None for inf."""
        low, high = self.interval or (None, None)
        return self._asdict() | {
            "standard_error": _finite(self.standard_error),
            "interval": None if self.interval is None else [low, _finite(high)],
        }


def _finite(value):
    return None if value is None or np.isinf(value) else value


def from_summary(found: dict[str, Any]) -> ResidualUsed:
    """What `ResidualUsed.summary` was made of."""
    used = ResidualUsed(**found)
    if used.interval is None:
        return used
    low, high = used.interval
    error = np.inf if used.standard_error is None else used.standard_error
    return used._replace(standard_error=error, interval=(low, np.inf if high is None else high))


def checked_variance(value: Any) -> float | str | None:
    """What `RoundPlan.residual` may be; ValueError for another word, a variance below 0 or not finite."""
    if value is None or (value in (CAP, PILOT) and isinstance(value, str)):
        return value
    if isinstance(value, str):
        raise ValueError(f"residual={value!r}: expected a variance, 'cap', 'pilot' or None")
    variance = _checks.number(value, "residual")
    if not (np.isfinite(variance) and variance >= 0):
        raise ValueError(f"residual={variance:g}: must be finite and at least 0; it is the variance of a margin")
    return variance


def before_labels(asked: float | str | None) -> ResidualUsed:
    """With no label there: a pilot that is to tell is designed with the cap."""
    return ResidualUsed(CAP if asked == PILOT else asked)


def after_pilot(pool: CompletionPool, labels: Labels, prior: Any) -> ResidualUsed:
    """By the pilot's labels; where all of them were skipped nothing is told."""
    pairs, wins, counts = counted(labels)
    if not len(pairs):
        return ResidualUsed(CAP, told=False)
    found = estimate_residual(pool, pairs, wins, counts, prior=prior)
    return ResidualUsed(
        found.variance if found.told else CAP, found.variance, found.standard_error, found.interval, found.told
    )


def with_residual(pool: CompletionPool, used: ResidualUsed) -> CompletionPool:
    """The pool that rounds are designed on; the same one where there is nothing to add."""
    if used.variance is None or used.variance == 0:
        return pool
    residual = residual_of(pool, used.variance)
    return CompletionPool(pool.features, pool.scores, pool.mask, pool.ids, pool.flip, residual)


def information_left(
    pool: CompletionPool, labels: Labels, prior: Any, parameters: Float[np.ndarray, "*r d"]
) -> Float[np.ndarray, "*s d d"]:
    """prior + sum_e n_e c_e z_e z_e^T of labels that are held, c_e what residuals leave at margins z_e . w.

    Where pairs have a residual, several labels of one count as one: they carry more than that, and less than their sum.

    Args:
        pool: features, flips and residual; its scores do not count.
        labels: labels of its pairs.
        prior: as of `fit_posterior`.
        parameters: w, (d,) or (R, d).

    Returns:
        (d, d) or (R, d, d), float64; (d, d) without labels.

    Raises:
        ValueError: as `held_information` and `as_belief`.

    Source: derived; checked by tests/preference/test_round_residuals.py.
    """
    precision = np.asarray(as_belief(prior, pool.dim).precision)
    pairs, _, counts = counted(labels)
    if not len(pairs):
        return precision
    if isinstance(pool.residual, Residual) and pool.residual.one_label:
        counts = np.ones_like(counts)
    return precision + np.asarray(held_information(scored_pool(pool, parameters), pairs, counts))
