"""Whole labels from a real-valued design, on the host.

Three ways: apportionment for designs whose pairs may be labelled again and again, largest remainders where caps leave
little room, and the best set of pairs to label once each. All obey caps per pair and quotas per prompt, break ties by
sensitivity and then by (prompt, i, j), and return labels for the pairs in the order given.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jaxdesign.budget import Limits, linear_oracle


def adams(
    limits: Limits, pairs: Int[np.ndarray, "s 3"], labels: Float[np.ndarray, " s"]
) -> Float[np.ndarray, " s"] | None:
    """Adams apportionment, which loses least in the worst case: every pair of the design keeps a label.

    n_e = ceil((N - S/2) w_e), w = labels / N; then the pair with the smallest n_e / w_e gains a label, or the one with
    the largest (n_e - 1) / w_e loses one, until they sum to N, the total.

    Args:
        limits: whole total, caps and quotas.
        pairs: (S, 3) pairs of the design.
        labels: (S,) positive, summing to the total, within caps and quotas.

    Returns:
        (S,) whole labels, at least 1 each; None where there are more pairs than labels, or a prompt has more pairs
        than its quota.

    Guarantee: without binding caps n_e >= (1 - S/N) labels_e, so the loss of efficiency is at most S/N for every
    criterion that is homogeneous in A, without a prior.
    Complexity: O(S) for each of at most about S/2 corrections.
    Source: Pukelsheim and Rieder (1992), cited from memory; the bound is tested on random designs.
    """
    total, prompts = int(limits.total), len(limits.per_prompt)
    held = np.bincount(pairs[:, 0], minlength=prompts)
    if len(pairs) > total or (held > limits.per_prompt).any():
        return None
    share = labels / labels.sum()
    cap, owner = np.minimum(limits.per_pair[pairs[:, 0]], total), pairs[:, 0]
    n = np.clip(np.ceil((total - len(pairs) / 2) * share - 1e-9), 1, cap)
    spent = np.bincount(owner, weights=n, minlength=prompts)
    while True:
        over = spent > limits.per_prompt
        if over.any():  # a prompt above its quota gives labels back first
            index = _most(np.where(over[owner] & (n > 1), (n - 1) / share, -1))
        elif n.sum() > total:
            index = _most(np.where(n > 1, (n - 1) / share, -1))
        elif n.sum() < total:
            room = (n < cap) & (spent < limits.per_prompt)[owner]
            if not room.any():
                return None
            index = _most(np.where(room, -n / share, -np.inf))
            n[index] += 2
            spent[owner[index]] += 2
        else:
            return n
        n[index] -= 1
        spent[owner[index]] -= 1
