"""Whole labels drawn at random from a real-valued design, on the host, under whole caps and quotas."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jaxdesign.budget import Limits
from jaxdesign.exact.rounding import once_each

WHOLE = 1e-9  # a real label count this near a whole number is that number


def dependent(
    limits: Limits, pairs: Int[np.ndarray, "s 3"], labels: Float[np.ndarray, " s"], seed: int
) -> Float[np.ndarray, " s"]:
    """Each label count rounded up or down, up with probability its fraction, so that totals stay what they are.

    n_e = floor(C_e + u) - floor(C_{e-1} + u), C the running sum of the labels over the pairs of one prompt after the
    other, u uniform in (0, 1): E n_e = labels_e, the total is met exactly, and the labels of each prompt are its
    expected number rounded up or down, so that caps and quotas, which are whole, are obeyed. Prompts, and the pairs of
    each, come in random order, or pairs that are neighbours would never be labelled together.

    Args:
        limits: whole total, caps and quotas.
        pairs: (S, 3) pairs of the design.
        labels: (S,) within caps and quotas, summing to the total.
        seed: of NumPy's default generator.

    Source: systematic sampling (Madow 1949, cited from memory), which is dependent rounding for laminar constraints.
    """
    rng = np.random.default_rng(seed)
    place = rng.permutation(len(limits.per_prompt))[pairs[:, 0]]
    order = np.lexsort((rng.random(len(pairs)), place))
    near = np.rint(labels)
    labels = np.where(np.abs(labels - near) <= WHOLE, near, labels)
    ends = np.cumsum(labels[order])
    ends *= limits.total / ends[-1]
    steps = np.floor(np.concatenate([[0.0], ends]) + rng.uniform(WHOLE, 1 - WHOLE) + WHOLE)
    whole = np.empty(len(pairs))
    whole[order] = np.diff(steps)
    return np.clip(whole, np.floor(labels), np.ceil(labels))


def drawn(
    limits: Limits,
    pairs: Int[np.ndarray, "s 3"],
    labels: Float[np.ndarray, " s"],
    seed: int,
    *,
    by_prompt: bool = False,
) -> Float[np.ndarray, " s"] | None:
    """Pairs drawn one after the other without replacement, with probability proportional to their labels in the design.

    The recipe of arXiv 2606.19607. Pairs that would break a quota are passed over; where all pairs have a label, they
    are drawn again as far as their caps allow. It loses most where there are few labels, because labels that the
    design counts on in full are drawn by chance like the others: here for comparison.

    Args:
        limits, pairs, labels, seed: as in `dependent`.
        by_prompt: probabilities renormalised within each prompt, so that every prompt of the design is drawn alike.

    Returns:
        (S,) whole labels; None where the pairs cannot hold the total.
    """
    rng = np.random.default_rng(seed)
    share = labels
    if by_prompt:
        share = labels / np.bincount(pairs[:, 0], weights=labels, minlength=len(limits.per_prompt))[pairs[:, 0]]
    n = np.zeros(len(pairs))
    while (left := limits.total - n.sum()) > 0:
        spent = np.bincount(pairs[:, 0], weights=n, minlength=len(limits.per_prompt))
        room = n < limits.per_pair[pairs[:, 0]]
        keys = np.log(share[room]) + rng.gumbel(size=room.sum())  # the largest keys are such draws, in order
        extra = once_each(left, limits.per_prompt - spent, pairs[room], keys - keys.min() + 1 if len(keys) else keys)
        if not extra.any():
            return None
        n[room] += extra
    return n
