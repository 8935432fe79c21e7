"""Labels as tables of wins, one per prompt: what `estimate_preferences` takes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks
from jaxdesign.preference.labels.labels import Labels, counted


def win_tables(
    labels: Labels, prompts: int, completions: int
) -> tuple[Float[np.ndarray, "p k k"], Float[np.ndarray, "p k k"]]:
    """wins_pij, labels that preferred answer i to j of prompt p, a tie counting half each way; and labels of each pair.

    Args:
        labels: `preference.Labels`; skips count nothing.
        prompts: P, at least as many as labels name.
        completions: K, likewise.

    Returns:
        wins, counts: (P, K, K) float64, wins + wins^T = counts. Slices of them are arguments of `estimate_preferences`.

    Raises:
        TypeError, ValueError: invalid labels, labels beyond P prompts or K completions.

    Source: derived; checked by tests/dynamics/test_win_tables.py.
    """
    prompts, completions = (
        _checks.whole_number(value, name, least)
        for value, name, least in ((prompts, "prompts", 1), (completions, "completions", 2))
    )
    pairs, won, number = counted(labels)
    beyond = (pairs[:, 0] >= prompts) | (pairs[:, 2] >= completions)
    if beyond.any():
        found = tuple(pairs[np.argmax(beyond)].tolist())
        raise ValueError(f"labels: pair {found} found; tables have {prompts} prompts of {completions} completions")
    wins, counts = np.zeros((2, prompts, completions, completions))
    p, i, j = pairs.T
    wins[p, i, j], wins[p, j, i] = won, number - won
    counts[p, i, j] = counts[p, j, i] = number
    return wins, counts
