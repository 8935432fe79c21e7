"""Bradley-Terry fits of the same labels with different weights, and the noise of what is made of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import special

from jaxdesign import _arrays, _checks
from jaxdesign.dynamics.link_fit import fitted_parameter
from jaxdesign.dynamics.links import LINKS
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.labels.labels import Labels, counted
from jaxdesign.targets import policy_target

RANK = 1e-9  # of the largest eigenvalue: less counts as a direction that no label speaks of
NORMAL = 1.959963984540054  # two-sided 95%


class PairLabels(NamedTuple):
    """Labels as a fit needs them.

    Args: pairs: (S, 3); rows: z, (S, d); wins, counts: (S,).
    """

    pairs: np.ndarray
    rows: np.ndarray
    wins: np.ndarray
    counts: np.ndarray


class WeightedFit(NamedTuple):
    """w of weighted labels.

    Args: weights: W, (S,); parameter: w, (d,), NaN where there is none; inverse: H_W^+; chances: sigma(z . w), (S,).
    """

    weights: Float[np.ndarray, " s"]
    parameter: Float[np.ndarray, " d"]
    inverse: Float[np.ndarray, "d d"]
    chances: Float[np.ndarray, " s"]

    @property
    def converged(self) -> bool:
        """Whether w exists: labels that a hyperplane separates have none."""
        return bool(np.isfinite(self.parameter).all())


def as_pair_labels(pool: CompletionPool, labels: Labels) -> PairLabels:
    """Labels of a pool counted by pair, with their differences of features in float64.

    Raises:
        ValueError: no labels, or labels of completions that the pool does not have.
    """
    pairs, wins, counts = counted(labels)
    if not len(pairs):
        raise ValueError("labels: none found (skips do not count); pass labels of pairs of the pool")
    mask, (p, i, j) = np.asarray(pool.mask), pairs.T
    if p.max() >= mask.shape[0] or j.max() >= mask.shape[1] or not (mask[p, i] & mask[p, j]).all():
        raise ValueError("labels.pairs: a completion that the pool does not have; pass the pool the labels belong to")
    features = np.asarray(pool.features)
    rows = features[p, i].astype(np.float64) - features[p, j].astype(np.float64)
    return PairLabels(pairs, rows, wins, counts)


def as_metric(pool: CompletionPool, target: Any) -> Float[np.ndarray, "d d"]:
    """H, checked; that of the pool's own policy for None."""
    if target is None:
        return np.asarray(policy_target(pool), np.float64)
    return _checks.symmetric_psd(target, pool.dim, "target")


def weighted_fit(data: PairLabels, weights: Float[np.ndarray, " s"]) -> WeightedFit:
    """w with sum_e W_e (wins_e - n_e sigma(z_e . w)) z_e = 0, in the range of the rows with weight."""
    with _arrays.float64():
        given = (jnp.asarray(a) for a in (data.rows, data.wins / data.counts, data.counts * weights))
        parameter, converged = _fit(*given)
        parameter = np.where(converged, np.asarray(parameter), np.nan)
    chances = special.expit(data.rows @ parameter)
    if not converged:
        return WeightedFit(weights, parameter, np.full((len(parameter),) * 2, np.nan), chances)
    hessian = (data.rows * (data.counts * weights * chances * (1 - chances))[:, None]).T @ data.rows
    return WeightedFit(weights, parameter, np.linalg.pinv(hessian, rcond=RANK, hermitian=True), chances)


@jax.jit
def _fit(rows, shares, masses):
    return fitted_parameter(rows, shares, masses, LINKS["dpo"])


def noise(data: PairLabels, *parts: tuple[float, WeightedFit]) -> Float[np.ndarray, "d d"]:
    """Covariance of sum_k a_k w_k by the noise of labels: sum over labels of psi psi^T, parts being (a_k, fit).

        psi(y of pair e) = sum_k a_k W_ke H_k^+ z_e (y - sigma(z_e . w_k))

    Source: derived (influence functions, sandwich); checked by tests/dynamics/test_sampler_shift.py.
    """

    def influence(label):
        found = (a * (fit.weights * (label - fit.chances))[:, None] * (data.rows @ fit.inverse) for a, fit in parts)
        return sum(found, np.zeros_like(data.rows))

    won, lost = influence(1.0), influence(0.0)
    return (won * data.wins[:, None]).T @ won + (lost * (data.counts - data.wins)[:, None]).T @ lost


def regret(
    shift: Float[np.ndarray, " d"], covariance: Float[np.ndarray, "d d"], metric: Float[np.ndarray, "d d"], beta: float
) -> tuple[float, tuple[float, float]]:
    """shift^T H shift / (2 beta) without its noise tr(H V) / (2 beta), and 95% limits, at least 0.

    The square's variance is 4 s^T H V H s + 2 tr((H V)^2), s^T H V H s less its own noise tr((H V)^2).
    """
    product = metric @ covariance
    squares = np.sum(product * product.T)
    along = max(float(shift @ product @ metric @ shift) - float(squares), 0.0)
    found = float(shift @ metric @ shift) - float(np.trace(product))
    margin = NORMAL * np.sqrt(4 * along + 2 * float(squares))
    low, high = ((found + sign * margin) / (2 * beta) for sign in (-1, 1))
    return found / (2 * beta), (max(low, 0.0), max(high, 0.0))
