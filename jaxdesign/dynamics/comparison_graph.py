"""Which answers are compared at all, directly or by way of others: the graphs of many prompts, and their least squares.

In NumPy and for all prompts at once; `graphs` has the same of one matrix for what is traced.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def reachable(arrows: Bool[np.ndarray, "*n k k"]) -> Bool[np.ndarray, "*n k k"]:
    """Which answers can be reached from which along arrows, itself included: (I + arrows)^(K-1) by squaring."""
    size = arrows.shape[-1]
    paths = (arrows | np.eye(size, dtype=bool)).astype(np.float32)
    for _ in range(max(size - 2, 0).bit_length()):
        paths = (paths @ paths > 0).astype(np.float32)  # sums of at most K ones: exact
    return paths > 0


def component_count(joined: Bool[np.ndarray, "*n k k"]) -> Float[np.ndarray, "*n"]:
    """Components of an undirected graph whose `reachable` is given: every answer counts 1 / (size of its own)."""
    return np.asarray(np.round((1 / joined.sum(axis=-1)).sum(axis=-1)))


def laplacian(weights: Float[np.ndarray, "*n k k"]) -> Float[np.ndarray, "*n k k"]:
    """L = diag(weights 1) - weights, for symmetric weights with zero diagonal."""
    return weights.sum(axis=-1)[..., None] * np.eye(weights.shape[-1]) - weights


def laplacian_inverse(
    weights: Float[np.ndarray, "*n k k"], joined: Bool[np.ndarray, "*n k k"]
) -> Float[np.ndarray, "*n k k"]:
    """L^+ = (L + J)^-1 - J, J the projector on constants of each component, in a scale where the weights are about 1.

    The weights must be above zero on a graph whose components are those of `joined`.
    """
    scale = weights.max(axis=(-1, -2), keepdims=True, initial=0)
    scale = np.where(scale > 0, scale, 1)
    projector = joined / joined.sum(axis=-1)[..., None]
    return (np.linalg.inv(laplacian(weights / scale) + projector) - projector) / scale
