"""How much of what labels prefer is cyclic, with the share that label noise adds taken out.

Frequencies p_ij of n_ij labels have the noise v_ij = P_ij (1 - P_ij) / n_ij, whose unbiased estimate is p (1 - p) /
(n - 1). Least squares splits A = p - 1/2 on the pairs into differences of scores and a cyclic rest A_c = Pi A. Noise
adds Pi_ee v_e to the expected square of the rest and v_e to that of A. With L the graph Laplacian of the pairs, Pi_ee =
1 - (L^+_ii + L^+_jj - 2 L^+_ij), which is (K - 2) / K where all pairs are there. So

    N = sum_e [(A_c)_e^2 - Pi_ee v_e],   D = sum_e [A_e^2 - v_e],   share = N / D

have no bias (N and D) or little (the share). With M = Pi - share I, N - share D is a quadratic form in independent
frequencies, whose variance is

    sum_e v_e [4 (M A)_e^2 + 2 (M V M)_ee + 2 M_ee^2 v_e / (n_e - 1)],   V = diag(v), A without noise

and its root over D is the standard error of the share. Derived; checked by tests/dynamics/test_cyclic_share.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign.dynamics import comparison_graph as graph


class CyclicShare(NamedTuple):
    """The cyclic part of preferences on the pairs with at least two labels, noise removed, per prompt.

    Args:
        share: cyclic / total, brought into [0, 1]; NaN where total is not above 0, so that the labels show no
            preference beyond their noise, or where no pair has two labels.
        standard_error: of the share before it is brought into [0, 1], by the delta method; NaN where the share is.
        cyclic: N = sum over pairs of (A_c)^2 without noise; unbiased, so that it may be below 0.
        total: D = sum over pairs of A^2 without noise; unbiased, so that it may be below 0.
    """

    share: Float[np.ndarray, "*n"]
    standard_error: Float[np.ndarray, "*n"]
    cyclic: Float[np.ndarray, "*n"]
    total: Float[np.ndarray, "*n"]


def cyclic_share(wins: Float[np.ndarray, "*n k k"], counts: Float[np.ndarray, "*n k k"]) -> CyclicShare:
    """N / D of the head of this file with its standard error.

    Pairs with one label are left out: the square of one label says nothing about its noise. Where ties count half the
    noise is less than what is taken out, and the sums come out low.

    Args:
        wins: (..., K, K) labels that preferred i to j, wins + wins^T = counts, diagonal 0.
        counts: (..., K, K) labels of each pair.

    Returns:
        CyclicShare.

    Raises:
        Nothing: `estimate_preferences` checks its input.

    Source: HodgeRank, doi:10.1007/s10107-010-0419-x; noise and error are derived; checked by
    tests/dynamics/test_cyclic_share.py.
    """
    used = counts >= 2
    labels = np.where(used, counts, 2)
    frequency = np.where(used, wins / labels, 0.5)
    signal = frequency - 0.5
    noise = np.where(used, frequency * (1 - frequency) / (labels - 1), 0)

    inverse = graph.laplacian_inverse(used.astype(float), graph.reachable(used))
    scores = (inverse @ signal.sum(axis=-1)[..., None])[..., 0]
    rest = np.where(used, signal - (scores[..., :, None] - scores[..., None, :]), 0)
    fitted = _on_pairs(inverse)
    cyclic = _sum(rest**2 - noise * (1 - fitted))
    total = _sum(signal**2 - noise)

    known = total > 0
    positive = np.where(known, total, 1)
    ratio = (cyclic / positive)[..., None, None]
    own = 1 - ratio - fitted  # M_ee
    shared = _on_pairs(inverse @ graph.laplacian(noise) @ inverse)
    spread = (
        noise * ((1 - ratio) ** 2 - 2 * (1 - ratio) * fitted) + shared
    )  # (M V M)_ee, by which (M A)_e^2 is too large
    linear = np.maximum((rest - ratio * signal) ** 2 - spread, 0)
    variance = _sum(noise * (4 * linear + 2 * spread + 2 * own**2 * noise / (labels - 1)))
    share = np.where(known, np.clip(ratio[..., 0, 0], 0, 1), np.nan)
    error = np.where(known, np.sqrt(variance) / positive, np.nan)
    return CyclicShare(share, error, np.asarray(cyclic), np.asarray(total))


def _on_pairs(matrix):
    """z^T matrix z of every pair, z = e_i - e_j."""
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    return diagonal[..., :, None] + diagonal[..., None, :] - matrix - np.swapaxes(matrix, -1, -2)


def _sum(symmetric):
    """Over pairs i < j."""
    return symmetric.sum(axis=(-1, -2)) / 2
