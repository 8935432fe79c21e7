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
from jaxdesign.preference.labels.labels import SKIP, Labels, counted
from jaxdesign.targets import policy_target

RANK = 1e-9  # of the largest eigenvalue: less counts as a direction that no label speaks of
WORTH = np.array([1.0, 0.0, 0.5])  # y of a label by its code: for the first of its pair, the second, a tie
TINY = np.finfo(np.float64).tiny
NORMAL = 1.959963984540054  # two-sided 95%


class PairLabels(NamedTuple):
    """Labels as a fit needs them, in coordinates v, w = basis v, in which their rows are orthonormal.

    So neither units nor correlation of features decide what counts as rounding.

    Args:
        pairs: (S, 3).
        rows: (z basis), (S, r), rows^T rows = 1; r the rank of z.
        basis: (d, r).
        choices: numbers of labels for the first, for the second, and ties, (S, 3).
    """

    pairs: np.ndarray
    rows: np.ndarray
    basis: np.ndarray
    choices: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """n_e, labels of each pair."""
        return self.choices.sum(1)


class WeightedFit(NamedTuple):
    """v of weighted labels.

    Args: weights: W, (S,); parameter: v, (r,), NaN where there is none; inverse: H_W^+, (r, r); reach: the projector
        onto the rows that have weight, (r, r); chances: sigma(z . w), (S,).
    """

    weights: Float[np.ndarray, " s"]
    parameter: Float[np.ndarray, " r"]
    inverse: Float[np.ndarray, "r r"]
    reach: Float[np.ndarray, "r r"]
    chances: Float[np.ndarray, " s"]

    @property
    def converged(self) -> bool:
        """Whether v exists: labels that a hyperplane separates have none, nor have those without weight."""
        return bool(np.isfinite(self.parameter).all())


def as_pair_labels(pool: CompletionPool, labels: Labels) -> PairLabels:
    """Labels of a pool counted by pair, with their differences of features in float64.

    Directions with less than RANK of the largest eigenvalue of sum z z^T, columns scaled to one length, are rounding.

    Raises:
        ValueError: no labels, labels of completions that the pool does not have, or of equal features only.
    """
    pairs, _, _ = counted(labels)
    if not len(pairs):
        raise ValueError("labels: none found (skips do not count); pass labels of pairs of the pool")
    mask, (p, i, j) = np.asarray(pool.mask), pairs.T
    if p.max() >= mask.shape[0] or j.max() >= mask.shape[1] or not (mask[p, i] & mask[p, j]).all():
        raise ValueError("labels.pairs: a completion that the pool does not have; pass the pool the labels belong to")
    features = np.asarray(pool.features)
    rows = features[p, i].astype(np.float64) - features[p, j].astype(np.float64)
    length = np.linalg.norm(rows, axis=0)
    if not length.any():
        raise ValueError("labels.pairs: completions of equal features only; they teach nothing, label others")
    length = np.where(length > 0, length, 1)
    values, vectors = np.linalg.eigh((rows / length).T @ (rows / length))
    kept = values > RANK * values[-1]
    basis = vectors[:, kept] / np.sqrt(values[kept]) / length[:, None]
    if not kept.all():  # of all w with these margins the shortest
        span = np.linalg.qr(vectors[:, kept] * length[:, None])[0]
        basis = span @ (span.T @ basis)
    codes = np.asarray(labels.choices)
    judged = codes != SKIP
    _, where = np.unique(np.asarray(labels.pairs)[judged], axis=0, return_inverse=True)  # in the order of `counted`
    choices = np.bincount(where.ravel() * len(WORTH) + codes[judged], minlength=len(pairs) * len(WORTH))
    return PairLabels(pairs, rows @ basis, basis, choices.reshape(-1, len(WORTH)).astype(np.float64))


def as_law(pool: CompletionPool, law: Any, name: str) -> Float[np.ndarray, "p k"] | Float[np.ndarray, "p k k"]:
    """A law of pairs, without what it says of completions that the pool does not have."""
    law, mask = np.asarray(law, np.float64), np.asarray(pool.mask)
    _checks.same_shape(law.shape[:2], mask.shape, name, "in front, prompts and completions of the pool")
    if law.ndim == 3 and law.shape[2] == law.shape[1]:
        return np.where(mask[:, :, None] & mask[:, None, :], law, 0)
    return np.where(mask, law, -np.inf) if law.ndim == 2 else law


def as_metric(pool: CompletionPool, target: Any, data: PairLabels) -> Float[np.ndarray, "r r"]:
    """H in the coordinates of the labels, checked; that of the pool's own policy for None."""
    if target is None:
        with _arrays.float64():
            target = policy_target(pool)
    return data.basis.T @ _checks.symmetric_psd(target, pool.dim, "target") @ data.basis


def weighted_fit(data: PairLabels, weights: Float[np.ndarray, " s"]) -> WeightedFit:
    """v with sum W (y - sigma(z . w)) z = 0, in the range of the rows with weight."""
    masses = data.counts * weights
    values, vectors = np.linalg.eigh((data.rows * (masses / max(masses.max(), TINY))[:, None]).T @ data.rows)
    span = vectors[:, values > RANK * values[-1]]
    with _arrays.float64():
        worth = data.choices @ WORTH / data.counts
        extra = _arrays.power_of_two(len(masses)) - len(masses)
        given = (np.pad(a, [(0, extra)] + [(0, 0)] * (a.ndim - 1)) for a in (data.rows, worth, masses))
        parameter, converged = _fit(*(jnp.asarray(a) for a in given))
        parameter = np.where(converged & (span.shape[1] > 0), np.asarray(parameter), np.nan)
    chances = special.expit(data.rows @ parameter)
    rows = data.rows @ span
    hessian = (rows * (masses * chances * (1 - chances))[:, None]).T @ rows
    inverse = np.linalg.inv(hessian) if np.isfinite(hessian).all() else np.full_like(hessian, np.nan)
    return WeightedFit(weights, parameter, span @ inverse @ span.T, span @ span.T, chances)


@jax.jit
def _fit(rows, worth, masses):
    return fitted_parameter(rows, worth, masses, LINKS["dpo"])


def noise(data: PairLabels, *parts: tuple[float, WeightedFit]) -> Float[np.ndarray, "r r"]:
    """Covariance of sum_k a_k v_k by the noise of labels: sum over labels of psi psi^T, parts being (a_k, fit).

        psi(y of pair e) = sum_k a_k W_ke H_k^+ z_e (y - sigma(z_e . w_k))

    Pairs count as drawn along with their labels, as every sandwich has it: of a fixed allocation it is too large where
    the model is wrong, by the squares of its misfits against P (1 - P).

    Source: derived (influence functions, sandwich); checked by tests/dynamics/test_sampler_shift.py.
    """
    found = np.zeros_like(parts[0][1].inverse)
    for place, worth in enumerate(WORTH):
        influence = sum(
            (a * (fit.weights * (worth - fit.chances))[:, None] * (data.rows @ fit.inverse) for a, fit in parts),
            np.zeros_like(data.rows),
        )
        found += (influence * data.choices[:, place, None]).T @ influence
    return found


def difference(
    data: PairLabels, fit: WeightedFit, other: WeightedFit
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "r r"]]:
    """fit - other with its covariance, in the directions that both speak of: those of one are among the other's."""
    common = fit.reach @ other.reach
    return common @ (fit.parameter - other.parameter), common @ noise(data, (1.0, fit), (-1.0, other)) @ common.T


def regret(
    shift: Float[np.ndarray, " d"], covariance: Float[np.ndarray, "d d"], metric: Float[np.ndarray, "d d"], beta: float
) -> tuple[float, tuple[float, float]]:
    """g = shift^T H shift / (2 beta) without its noise tr(H V) / (2 beta), and 95% limits, at least 0.

    The square f = s^T H s - tr(H V) estimates g with variance 4 kappa g + 2 tr((H V)^2), kappa = s^T H V H s / s^T H s:
    limits are the g that solve (f - g)^2 = 1.96^2 (4 kappa g + 2 tr((H V)^2)), as Wilson's for a proportion. With the
    variance taken at f instead of g they would cover as little as 79%.

    Source: derived; checked by tests/dynamics/test_sampler_shift.py.
    """
    product = metric @ covariance
    square = float(shift @ metric @ shift)
    found, spread = square - float(np.trace(product)), float(np.sum(product * product.T))
    kappa = float(shift @ product @ metric @ shift) / square if square > 0 else square
    centre = found + 2 * NORMAL**2 * kappa
    margin = NORMAL * np.sqrt(np.maximum(4 * kappa * found + 4 * NORMAL**2 * kappa**2 + 2 * spread, 0))
    low, high = (float(np.maximum(centre + sign * margin, 0)) / (2 * beta) for sign in (-1, 1))
    return found / (2 * beta), (low, high)
