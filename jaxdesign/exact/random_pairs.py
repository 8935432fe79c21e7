"""Random pairs under a budget: what a choice of pairs is compared with."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jaxdesign.budget import Budget, Limits, resolve
from jaxdesign.exact.rounding import once_each
from jaxdesign.pool import CompletionPool


def random_pairs(
    pool: CompletionPool, budget: Budget, seed: int = 0
) -> tuple[Int[np.ndarray, "s 3"], Float[np.ndarray, " s"]]:
    """Whole labels on pairs drawn evenly from all pairs of existing completions, without replacement while they last.

    A pair that would break a quota is passed over; where there are more labels than pairs, all get one and the rest are
    drawn again, as far as the caps allow.

    Args:
        pool: the pool; pairs of identical completions are drawn like others, as someone who does not look would.
        budget: a whole total; caps and quotas count as rounded down.
        seed: of NumPy's default generator.

    Returns:
        pairs (S, 3) in order and labels (S,), whole, summing to the total.

    Raises:
        ValueError: a total that the caps do not allow.

    Complexity: O(N log N) time and 40 bytes for each of the N pairs of the pool.
    """
    mask = np.asarray(pool.mask)
    exists = mask[:, :, None] & mask[:, None, :]
    pairs = np.stack(np.nonzero(np.triu(exists, 1)), axis=1).astype(np.int32)
    limits = resolve(budget, np.bincount(pairs[:, 0], minlength=pool.num_prompts).astype(np.float64))
    whole = Limits(limits.total, np.floor(limits.per_pair), np.floor(limits.per_prompt))
    rng = np.random.default_rng(seed)
    labels = np.zeros(len(pairs))
    while (left := whole.total - labels.sum()) > 0:
        spent = np.bincount(pairs[:, 0], weights=labels, minlength=pool.num_prompts)
        room = labels < whole.per_pair[pairs[:, 0]]
        extra = once_each(left, whole.per_prompt - spent, pairs[room], rng.permutation(room.sum()) + 1.0)
        if not extra.any():
            raise ValueError(f"budget.total={budget.total:g}: more than whole labels under these caps can make up")
        labels[room] += extra
    return pairs[labels > 0], labels[labels > 0]
