"""Sparse allocations on the host: keys of pairs, merging lists."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jaxdesign.decided import pair_keys


def not_among(pairs: Int[np.ndarray, "s 3"], others: Int[np.ndarray, "t 3"], completions: int) -> np.ndarray:
    """True where a pair is not in the other list."""
    return ~np.isin(pair_keys(pairs, completions), pair_keys(others, completions))


def diverse(
    pairs: Int[np.ndarray, "s 3"], values: Float[np.ndarray, " s"], completions: int, per_completion: int, limit: int
) -> np.ndarray:
    """Indices of the largest values, taking no more than `per_completion` pairs of any first completion."""
    order = np.argsort(-values, kind="stable")
    owner = pairs[order, 0].astype(np.int64) * completions + pairs[order, 1]
    by_owner = np.argsort(owner, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[by_owner] = np.arange(len(order)) - np.searchsorted(owner[by_owner], owner[by_owner], side="left")
    return order[rank < per_completion][:limit]
