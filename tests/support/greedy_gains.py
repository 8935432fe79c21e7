"""Exact gains of one more label, written out in NumPy, and greedy picks held against them."""

import numpy as np
import pytest

from jaxdesign import LogDet, Trace
from jaxdesign.exact.greedy.full import PARTS, REFRESH
from tests.support.problems import DIM, information_of, random_spd, written_out

PRIOR = random_spd(1) + 0.1 * np.eye(DIM)
TARGETS = {"LogDet": None, "Trace": random_spd(2), "Trace of a low-rank H": random_spd(3, rank=1)}
slow = pytest.mark.slow
LOG_DET_DAILY = ["LogDet", pytest.param("Trace", marks=slow)]


def criterion_with(H):
    return LogDet() if H is None else Trace(H)


def gains_of(z, c, matrix, H):
    """(S,) decrease of the criterion by one label of each pair, from fresh inverses."""
    inverse = np.linalg.inv(matrix)
    leverage = c * np.einsum("sd,rde,se->rs", z, inverse, z)
    if H is None:
        return np.mean(np.log1p(leverage), axis=0)
    return np.mean(c * np.einsum("sd,rde,se->rs", z, inverse @ H @ inverse, z) / (1 + leverage), axis=0)


def check_picks(pool, H, picks, prior, per_pair=1.0):
    """Each pick has the largest gain among the pairs still open, up to what float32 can tell apart."""
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels, matrix = np.zeros(len(pairs)), information_of(z, c, np.zeros(len(pairs)), prior)
    mean = information_of(z, c, np.full(len(z), 1 / len(z)))
    renewed = np.clip(len(picks) // PARTS, 1, REFRESH)
    for number, pick in enumerate(picks.tolist()):
        k = index[tuple(pick)]
        is_open = labels + 1 <= per_pair
        to_come = 0 if H is None else len(picks) - number // renewed * renewed - 1
        gains = gains_of(z, c, matrix + to_come * mean, H)
        assert is_open[k]
        assert gains[k] >= (1 - 3e-5) * gains[is_open].max()
        labels[k] += 1
        matrix = matrix + np.einsum("r,d,e->rde", c[:, k], z[k], z[k])
