"""Random pairs under a budget: what a choice of pairs is compared with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxdesign._pairs import Allocation, pair_keys
from jaxdesign.budget.budget import Budget, whole_budget
from jaxdesign.budget.constraint import of_share
from jaxdesign.budget.limits import resolve
from jaxdesign.budget.quota import Quota
from jaxdesign.budget.required import decided_pairs
from jaxdesign.exact.by_score import largest_scores
from jaxdesign.pool import CompletionPool


def random_pairs(pool: CompletionPool, budget: Budget, seed: int = 0) -> Allocation:
    """Whole labels on pairs drawn evenly from all pairs of existing completions, without replacement while they last.

    A pair that would break a quota is passed over; where there are more labels than pairs, all get one and the rest are
    drawn again, as far as the caps allow. Quotas of groups, minima and a spend limit are obeyed by taking the drawn
    pairs that come first and obey them together.

    Args:
        pool: the pool; pairs of identical completions are drawn like others, as someone who does not look would.
        budget: a whole total; limits count as rounded to whole labels. Excluded pairs are not drawn, and required ones
            neither: their labels are not part of the result.
        seed: of NumPy's default generator.

    Returns:
        pairs (S, 3) in order and labels (S,), whole, summing to the total less the required labels.

    Raises:
        ValueError: a total that the limits do not allow.

    Complexity: O(N log N) time and 40 bytes for each of the N pairs of the pool.
    """
    mask, budget = np.asarray(pool.mask), whole_budget(budget)
    exists = mask[:, :, None] & mask[:, None, :]
    pairs = np.stack(np.nonzero(np.triu(exists, 1)), axis=1).astype(np.int32)
    decided = decided_pairs(np.asarray(pool.mask), budget)
    if len(decided.closed):
        pairs = pairs[~np.isin(pair_keys(pairs, pool.completions), pair_keys(decided.closed, pool.completions))]
    counts = np.bincount(pairs[:, 0], minlength=pool.num_prompts).astype(np.float64)
    limits = resolve(budget, counts, mask, decided.required)
    rng = np.random.default_rng(seed)
    labels = largest_scores(limits, pairs, lambda: rng.permutation(len(pairs)) + 1.0)
    return Allocation(pairs[labels > 0], labels[labels > 0])


def with_uniform_floor(pool: CompletionPool, budget: Budget, share: float, *, seed: int = 0) -> Budget:
    """The budget with a share of its labels drawn at random beforehand, as required pairs.

    A guard against misspecification: whatever features and target miss, these labels are an honest random sample. Every
    solver then chooses the rest around them, and certificates are against the best such choice.

    Args:
        pool: the pool.
        budget: a whole total. The share is drawn under its caps, and under the same share of its spend limit and, to
            the next whole label, of its quotas, so that the rest can still be chosen.
        share: of the total, in (0, 1); the number of labels is rounded to a whole one, at least 1.
        seed: of NumPy's default generator.

    Returns:
        The budget with these pairs in `required`, after those it has.

    Raises:
        ValueError: a share outside of (0, 1), a budget that does not allow so many labels at random, and as
            `random_pairs`.

    Source: derived; checked by tests/budget/test_quotas.py and tests/preference/test_rounds.py.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share:g}: must be between 0 and 1; it is the part of the labels drawn at random")
    budget = whole_budget(budget)
    closed = decided_pairs(np.asarray(pool.mask), budget).closed
    number = max(round(share * budget.total), 1)
    quotas = []
    for quota in budget.quotas:
        high = np.ceil(share * quota.family().high)
        most = dict(zip(np.unique(quota.of).tolist(), high.tolist(), strict=True))
        quotas.append(Quota(quota.of, at_most=most, name=quota.name))
    constraints = [shared for constraint in budget.constraints if (shared := of_share(constraint, share)) is not None]
    part = replace(
        budget,
        total=number,
        quotas=tuple(quotas),
        constraints=tuple(constraints),
        cost_total=None if budget.cost_total is None else share * budget.cost_total,
        per_prompt_min=None,
        required=None,
        exclude=closed if len(closed) else None,
        labels_per_task=1,
    )
    pairs, labels = random_pairs(pool, part, seed)
    drawn = np.repeat(pairs, labels.astype(int), axis=0)
    required = drawn if budget.required is None else np.concatenate([np.asarray(budget.required), drawn])
    return replace(budget, required=required)
