"""Three targets, and the worst value of an allocation over targets, from pairs written out."""

import numpy as np

from tests.support.problems import DIM, criterion_of, information_of, random_spd, written_out

RIDGE = 0.1 * np.eye(DIM)
THREE = {"maths": random_spd(1), "code": random_spd(2, rank=1), "chat": 2 * random_spd(3, rank=2)}


def worst(pool, targets, pairs, labels, prior=RIDGE):
    """The worst value of an allocation, from pairs written out."""
    every, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(every.tolist())}
    n = np.zeros(len(every))
    n[[index[tuple(pair)] for pair in np.asarray(pairs).tolist()]] = labels
    matrix = information_of(z, c, n, prior)
    return max(
        criterion_of(matrix, np.asarray(H)) for H in (targets.values() if isinstance(targets, dict) else targets)
    )
