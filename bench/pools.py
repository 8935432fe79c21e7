"""The pools the benchmarks run on, and their pairs materialised for the competitors that need them."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

DATA_VARIABLE = "JAXDESIGN_DATA"


class RealPool(NamedTuple):
    """A real pool, or the sentence that says why there is none."""

    features: np.ndarray | None  # (P, K, d) float32, zero where the mask is False
    mask: np.ndarray | None  # (P, K) bool
    reason: str  # empty when the pool was found


def heavy_tailed(P, K, d, seed=0):
    """Gaussian features with a heavy-tailed scale per prompt: phi_pk = |t_p| x_pk, t_p Student t(3), x_pk N(0, I).

    Prompts then differ widely in how much their pairs can say, as real prompts do, and few of them carry the design.
    Returns: (P, K, d) float32, the same for the same seed. Memory: the result and nothing of its size besides.
    """
    rng = np.random.default_rng(seed)
    scale = np.abs(rng.standard_t(3, P)).astype(np.float32)
    features = rng.standard_normal((P, K, d), dtype=np.float32)
    features *= scale[:, None, None]
    return features


def real_pool(name):
    """The features of $JAXDESIGN_DATA/name as a RealPool; features None and a reason when they are not there.

    A folder whose features are flat, (N, d) with `prompt_index.npy`, is padded to (P, K, d), prompts in order of their
    index and completions in order of their rows. Rank is left as it is: restrict a deficient pool before a solver that
    has no prior.
    """
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        return RealPool(None, None, f"{DATA_VARIABLE} is not set; point it at the folder that holds {name}/")
    path = Path(root) / name / "features.npy"
    if not path.is_file():
        return RealPool(None, None, f"{DATA_VARIABLE} holds no {name}/features.npy")
    features = np.load(path)  # float16 as it is: what its last bit leaves of a dead column is no dimension
    if features.ndim == 3:
        return RealPool(features, np.ones(features.shape[:2], bool), "")
    return RealPool(*_padded(features, np.load(path.with_name("prompt_index.npy"))), "")


def materialise_pairs(features, mask=None):
    """Z (N, d) float32, rows phi_pi - phi_pj over valid pairs i < j, ordered by (prompt, i, j).

    Differences are taken in float32 (exactly those of float16 input) and prompt by prompt, so scratch memory is that
    of one prompt. Memory: 4 N d bytes, N = sum_p K_p (K_p - 1)/2.
    """
    P, K, d = features.shape
    mask = np.ones((P, K), bool) if mask is None else np.asarray(mask)
    counts = mask.sum(1)
    ends = np.cumsum(counts * (counts - 1) // 2)
    Z = np.empty((int(ends[-1]), d), np.float32)
    for p, end in enumerate(ends):
        rows = np.asarray(features[p][mask[p]], np.float32)
        i, j = np.triu_indices(len(rows), 1)
        np.subtract(rows[i], rows[j], out=Z[end - len(i) : end])
    return Z


def _padded(features, prompt_index):
    """Flat features (N, d) as (P, K, d) and mask (P, K)."""
    order = np.argsort(prompt_index, kind="stable")
    _, prompt, counts = np.unique(prompt_index[order], return_inverse=True, return_counts=True)
    slot = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    padded = np.zeros((len(counts), counts.max(), features.shape[1]), features.dtype)
    mask = np.zeros(padded.shape[:2], bool)
    padded[prompt, slot], mask[prompt, slot] = features[order], True
    return padded, mask
