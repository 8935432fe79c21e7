"""Whole labels from a real-valued design, on the host.

Apportionment for designs whose pairs may be labelled again and again, largest remainders where there are more pairs
than labels, the best set of pairs to label once each, and random draws. All obey caps per pair and quotas per prompt,
which must be whole, and return labels for the pairs in the order given, or None where their kind has no allowed
allocation on these pairs.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jaxdesign._pairs import Allocation
from jaxdesign.budget.limits import Limits
from jaxdesign.budget.oracle import linear_oracle

WHOLE = 1e-9  # a real label count this near a whole number is that number


def adams(limits: Limits, allocation: Allocation) -> Float[np.ndarray, " s"] | None:
    """Adams apportionment, which loses least in the worst case: every pair of the design keeps a label.

    n_e = ceil(t labels_e), with t such that they sum to the total; a prompt that reaches its quota has a smaller t of
    its own. Where several pairs would gain their next label at the same t, the smallest n_e / labels_e goes first,
    then the order of the pairs.

    Args:
        limits: whole total, caps and quotas.
        pairs: (S, 3) pairs of the design.
        labels: (S,) positive, summing to the total, within caps and quotas.

    Returns:
        (S,) whole labels, at least 1 each; None where there are more pairs than labels, or than a prompt's quota.

    Guarantee: without binding caps and quotas n_e >= (1 - S / total) labels_e, so the loss of efficiency is at most
    S / total for every criterion that is homogeneous in A, without a prior.
    Source: Pukelsheim and Rieder 1992, doi:10.1093/biomet/79.4.763; the bound is checked by
    tests/exact/test_rounding.py.
    """
    pairs, labels = allocation
    owner, prompts = pairs[:, 0], len(limits.per_prompt)
    quota = np.minimum(limits.per_prompt, limits.total)
    if len(pairs) > limits.total or (np.bincount(owner, minlength=prompts) > quota).any():
        return None
    cap = np.minimum(limits.per_pair[owner], limits.total)

    def rounded(t):
        return np.clip(np.ceil(t[owner] * labels - WHOLE), 1, cap)

    def spent(n):
        return np.bincount(owner, weights=n, minlength=prompts)

    prompt_factor = _largest(lambda t: spent(rounded(t)) <= quota, prompts, limits.total)
    common_factor = _largest(lambda t: rounded(np.minimum(t, prompt_factor)).sum() <= limits.total, 1, limits.total)
    n = rounded(np.minimum(common_factor, prompt_factor))
    if limits.total - n.sum() > len(pairs):  # so many labels that t has no digits for single ones
        return None
    for _ in range(int(limits.total - n.sum())):  # ties: at most one label for each pair, unless caps or quotas bind
        may_gain = (n < cap) & (spent(n) < quota)[owner]
        if not may_gain.any():
            return None
        n[np.argmin(np.where(may_gain, n / labels, np.inf))] += 1
    return n


def _largest(holds, size, high):
    """Largest t in [0, 2 high] for which a monotone condition on each holds, by bisection."""
    low, high = np.zeros(size), np.full(size, 2.0 * high)
    for _ in range(80):
        middle = (low + high) / 2
        ok = holds(middle)
        low, high = np.where(ok, middle, low), np.where(ok, high, middle)
    return low


def largest_remainder(
    limits: Limits,
    allocation: Allocation,
    sensitivities: Float[np.ndarray, " s"],
) -> Float[np.ndarray, " s"] | None:
    """Labels rounded down; what is left over goes to the largest remainders, one each, as far as caps and quotas allow.

    Ties go to the larger sensitivity, then to the first pair. None only where the pairs cannot hold the total.
    """
    pairs, labels = allocation
    n = np.floor(labels + WHOLE)
    order = _places(labels - n, sensitivities)
    while (remaining := limits.total - n.sum()) > 0:
        spent = np.bincount(pairs[:, 0], weights=n, minlength=len(limits.per_prompt))
        below_cap = n < limits.per_pair[pairs[:, 0]]
        extra = once_each(remaining, limits.per_prompt - spent, pairs[below_cap], order[below_cap])
        if not extra.any():
            return None
        n[below_cap] += extra
    return n


def best_set(
    limits: Limits,
    allocation: Allocation,
    sensitivities: Float[np.ndarray, " s"],
) -> Float[np.ndarray, " s"] | None:
    """The pairs with the largest labels, once each; ties go to the larger sensitivity, then to the first pair.

    None where the quotas leave fewer such pairs than labels.
    """
    pairs, labels = allocation
    chosen = once_each(limits.total, limits.per_prompt, pairs, _places(labels, sensitivities))
    return chosen if chosen.sum() == limits.total else None


def _places(*keys):
    """Score by which pairs are taken: largest first key first, ties by the next ones, then by index."""
    scores = np.empty(len(keys[0]))
    scores[np.lexsort([-key for key in reversed(keys)])] = np.arange(len(scores), 0, -1)
    return scores


def once_each(
    total: float, quota: Float[np.ndarray, " p"], pairs: Int[np.ndarray, "s 3"], scores: Float[np.ndarray, " s"]
) -> Float[np.ndarray, " s"]:
    """0 or 1 for each pair: the largest scores, `total` of them or as many as whole quotas allow."""
    return np.round(linear_oracle(Limits(float(total), np.ones(len(quota)), quota), pairs, scores).labels)


def dependent(limits: Limits, allocation: Allocation, seed: int) -> Float[np.ndarray, " s"]:
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

    Source: systematic sampling, Madow 1949, doi:10.1214/aoms/1177729988, which is dependent rounding for laminar
    constraints; checked by tests/exact/test_sampling.py.
    """
    pairs, labels = allocation
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
    allocation: Allocation,
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
    pairs, labels = allocation
    rng = np.random.default_rng(seed)
    share = labels
    if by_prompt:
        share = labels / np.bincount(pairs[:, 0], weights=labels, minlength=len(limits.per_prompt))[pairs[:, 0]]
    n = np.zeros(len(pairs))
    while (remaining := limits.total - n.sum()) > 0:
        spent = np.bincount(pairs[:, 0], weights=n, minlength=len(limits.per_prompt))
        below_cap = n < limits.per_pair[pairs[:, 0]]
        keys = np.log(share[below_cap]) + rng.gumbel(size=below_cap.sum())  # the largest keys are such draws, in order
        scores = keys - keys.min(initial=np.inf) + 1  # positive
        extra = once_each(remaining, limits.per_prompt - spent, pairs[below_cap], scores)
        if not extra.any():
            return None
        n[below_cap] += extra
    return n
