"""Which completions say what one before has said already: no candidates of any arm but those that do not look."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool


def first_of_equals(completions: np.ndarray) -> Bool[np.ndarray, "p k"]:
    """Whether none before it in the prompt is equal; completions (P, K) texts or numbers, or (P, K, c) tokens."""
    prompts, number = completions.shape[:2]
    first = np.zeros((prompts, number), bool)
    for row, own in zip(first, completions, strict=True):
        row[np.unique(own, axis=0, return_index=True)[1]] = True
    return first
