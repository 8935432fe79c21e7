"""Ranks and singularity of semidefinite matrices, judged at unit diagonal: units of single columns do not matter."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

RANK = 1e-12  # eigenvalues of a unit-diagonal matrix below this share of the largest count as zero


def unit_diagonal(matrix: Float[np.ndarray, "*r d d"]) -> tuple[Float[np.ndarray, "*r d d"], Float[np.ndarray, "*r d"]]:
    """S^-1 A S^-1 with a diagonal of 1 (0 where A has no positive one), and the diagonal of S."""
    size = np.sqrt(np.maximum(np.diagonal(matrix, axis1=-2, axis2=-1), 0))
    inverse = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0)
    return matrix * inverse[..., :, None] * inverse[..., None, :], size


def numerical_rank(matrix: Float[np.ndarray, "d d"], share: float = RANK) -> int:
    """Rank of a positive semidefinite matrix scaled to a unit diagonal, which makes it a property of no units."""
    spectrum = np.linalg.eigvalsh(unit_diagonal(np.asarray(matrix, np.float64))[0])
    return int(np.sum(spectrum > share * max(spectrum[-1], 0.0)))
