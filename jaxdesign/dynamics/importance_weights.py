"""Weights with which labels of a design have the optimum of labels drawn from another law."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _checks
from jaxdesign._arrays import AnyArray


def importance_weights(
    pairs: Any,
    labels: Any,
    target_law: Float[AnyArray, "p k"] | Float[AnyArray, "p k k"],
    *,
    temper: float = 1.0,
    largest: float | None = None,
    drawn_law: Float[AnyArray, "p k"] | Float[AnyArray, "p k k"] | None = None,
) -> Float[np.ndarray, " s"]:
    """W_e = (m_e / q_e)^temper, q_e = n_e / n, n the labels in all: for `preference.importance_weighted_dpo_loss`.

    With temper 1 the expected loss of the labels is, on the pairs that have any, that of labels drawn from m: the same
    optimum, whatever design the labels are of. No weight can reach mass of m on pairs without labels
    (`sampler_shift` reports it). Below 1 the optimum moves part of the way and varies less.

    Where pairs were drawn at random, one label for most, n_e = 1 says little of how likely they were: then `drawn_law`
    is q, and weights reach all pairs that it could have drawn.

    Args:
        pairs: rows (p, i, j) of the labels' pairs; of repeated rows labels are added up.
        labels: n_e, labels of each pair, above 0.
        target_law: m. (P, K): log-probabilities of answers up to a constant per prompt, -inf where there is none; both
            answers of a pair are drawn from them, all prompts count the same. (P, K, K): symmetric masses of pairs, any
            scale. The diagonal does not count.
        temper: t in [0, 1].
        largest: weights above it are cut to it, which bounds their variance at the price of bias; None: none is.
        drawn_law: q, in either form of target_law; None: the labels' own shares n_e / n.

    Returns:
        (S,) float64, one weight per row; their mean over labels is the mass of m on labelled pairs where temper = 1.

    Raises:
        TypeError: traced arguments.
        ValueError: shapes that do not fit, pairs outside of the law, labels not positive, temper outside of [0, 1],
            a labelled pair that drawn_law could not have drawn.

    Source: derived; checked by tests/dynamics/test_importance_weights.py.
    """
    _checks.concrete("dynamics.importance_weights", pairs, labels, target_law, drawn_law)
    pairs, labels = np.asarray(pairs), np.asarray(labels, np.float64)
    masses = target_masses(target_law, pairs)
    _checks.same_shape(labels.shape, (len(pairs),), "labels", "a number per row of pairs")
    if not ((labels > 0) & np.isfinite(labels)).all():
        bad = labels[~((labels > 0) & np.isfinite(labels))][0]
        raise ValueError(f"labels: {bad:g} found; every listed pair must have a finite number above 0: drop the others")
    if not 0 <= temper <= 1:
        raise ValueError(f"temper={temper:g}: must be in [0, 1]; 1 is the full weight, 0 none")
    if largest is not None:
        _checks.positive_finite(largest, "largest", "where weights are cut")
    weights = (masses / _drawn(pairs, labels, drawn_law)) ** temper
    return weights if largest is None else np.minimum(weights, largest)


def _drawn(pairs, labels, drawn_law):
    """q_e of listed pairs."""
    if drawn_law is None:
        ends = np.column_stack([pairs[:, 0], np.sort(pairs[:, 1:], axis=1)])
        _, where = np.unique(ends, axis=0, return_inverse=True)
        return np.bincount(where.ravel(), labels)[where.ravel()] / labels.sum()
    chances = target_masses(drawn_law, pairs, "drawn_law")
    if not (chances > 0).all():
        raise ValueError(
            f"drawn_law: it cannot draw the labelled pair {pairs[chances <= 0][0]}; pass the law it was from"
        )
    return chances


def cost_of_weights(labels: Float[np.ndarray, " s"], weights: Float[np.ndarray, " s"]) -> tuple[float, float]:
    """n_eff / n = (sum n W)^2 / (n sum n W^2), and the largest weight over the mean; 0 and NaN where all are 0."""
    total = labels.sum()
    mean = labels @ weights / total
    if not mean > 0:
        return 0.0, float("nan")
    return float(mean**2 / (labels @ weights**2 / total)), float(weights.max() / mean)


def target_masses(target_law: Any, pairs: Int[np.ndarray, "s 3"], name: str = "target_law") -> Float[np.ndarray, " s"]:
    """m_e of listed pairs under a law as `importance_weights` takes it; all pairs together have mass 1.

    Of (P, K) policies no other pair is ever listed: m_pij = 2 mu_pi mu_pj / sum_p (1 - sum_k mu_pk^2).
    """
    law = np.asarray(target_law, np.float64)
    if pairs.ndim != 2 or pairs.shape[1] != 3 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"pairs: {pairs.dtype} of shape {pairs.shape} found; expected integer rows (p, i, j), (S, 3)")
    if law.ndim not in (2, 3) or (law.ndim == 3 and law.shape[1] != law.shape[2]):
        raise ValueError(f"{name}: shape {law.shape} found; expected (P, K) log-probabilities or (P, K, K) masses")
    p, i, j = pairs.T
    if len(pairs) and not ((pairs >= 0).all() and p.max() < law.shape[0] and max(i.max(), j.max()) < law.shape[1]):
        raise ValueError(f"pairs: index {pairs.max(0)} found; {name} has {law.shape[0]} prompts of {law.shape[1]}")
    if (i == j).any():
        raise ValueError(f"pairs: {pairs[i == j][0]} compares an answer with itself")
    if law.ndim == 3:
        law = np.where(np.eye(law.shape[1], dtype=bool), 0, law)
        if not ((law >= 0) & np.isfinite(law)).all() or not np.allclose(law, law.swapaxes(1, 2), rtol=1e-6, atol=0):
            raise ValueError(f"{name}: masses of pairs must be finite, at least 0 and symmetric")
        total = law.sum()
        if not total > 0:
            raise ValueError(f"{name}: no pair of different answers has any mass")
        return 2 * law[p, i, j] / total
    if np.isnan(law).any() or np.isposinf(law).any():
        raise ValueError(f"{name}: NaN or inf found; expected log-probabilities, -inf where there is no answer")
    top = law.max(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        answers = np.where(np.isneginf(top), 0, np.exp(law - np.where(np.isneginf(top), 0, top)))
    sums = answers.sum(1, keepdims=True)
    answers = answers / np.where(sums > 0, sums, 1)
    # 1 - sum of squares, without cancellation: mu_k times the mass of the others
    order = np.sort(answers, axis=1)
    total = 2 * np.sum(order[:, 1:] * np.cumsum(order, axis=1)[:, :-1])
    if not total > 0:
        raise ValueError(f"{name}: no prompt has two answers with any probability; no pair could be drawn")
    return 2 * answers[p, i] * answers[p, j] / total
