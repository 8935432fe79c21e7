"""Which completions say what one before has said already."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool


def first_of_equals(completions: Any) -> Bool[np.ndarray, "p k"]:
    """Whether none before it in its prompt is equal: the mask of a pool whose pairs can all be told apart.

    A small or a confident model says the same twice. A label of two equal completions tells nothing, and random pairs
    meet many: compare rules with this mask on, or gains are those of leaving out repeats. H and prices of prompts are
    of what the policy draws, repeats included (`policy_target` of a pool without the mask).

    Args:
        completions: (P, K) texts or numbers, or (P, K, c) tokens, padded alike.

    Returns:
        (P, K); pass it as `CompletionPool(mask=)`.

    Raises:
        ValueError: an array of another shape.

    Complexity: K log K comparisons a prompt.
    Source: derived; checked by tests/preference/features/test_equals.py.
    """
    completions = np.asarray(completions)
    if completions.ndim not in (2, 3):
        raise ValueError(
            f"completions: shape {completions.shape} found; expected (P, K) texts or numbers, or (P, K, c) tokens"
        )
    first = np.zeros(completions.shape[:2], bool)
    for row, own in zip(first, completions, strict=True):
        row[np.unique(own, axis=0, return_index=True)[1]] = True
    return first
