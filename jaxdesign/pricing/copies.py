"""Which completions of a chunk have the same features: kept from the first pass, as most have none that are alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Copies(NamedTuple):
    """Where a chunk has completions with the same features: prompts, counted in the chunk, and their `first_copies`."""

    prompts: Int[np.ndarray, " n"]
    first: Int[np.ndarray, "n k"]


def default_copies(mask: Bool[np.ndarray, "m k"]) -> Int[np.ndarray, "m k"]:
    """`first_copies` where no completions are alike."""
    return np.where(mask, np.arange(mask.shape[1], dtype=np.int32), np.int32(-1))


def copies_among(first: Int[np.ndarray, "m k"]) -> Copies:
    """What is not `default_copies`."""
    prompts = np.flatnonzero((first != default_copies(first >= 0)).any(axis=1))
    return Copies(prompts, first[prompts])
