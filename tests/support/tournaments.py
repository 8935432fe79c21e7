"""Preferences that the truth tables of dynamics are about."""

import numpy as np

REFERENCE = np.log([0.1, 0.2, 0.3, 0.4])
MU = np.array([0.4, 0.3, 0.2, 0.1])
DESIGN = (1, 1, 4, 2, 1, 1)


def antisymmetric(upper, size):
    """A from its entries above the diagonal, row by row."""
    found = np.zeros((size, size))
    found[np.triu_indices(size, 1)] = upper
    return found - found.T


def law_of(upper, size):
    """A symmetric pair law, likewise."""
    return np.abs(antisymmetric(upper, size))


def cycle(size):
    """P of three answers, each preferred to the next by 1/2 + size."""
    return 0.5 + antisymmetric([size, -size, size], 3)


def ring(size, edge):
    """P of answers in a ring, each preferred to the next by 1/2 + edge; the others are equal."""
    ahead = edge * np.roll(np.eye(size), 1, axis=1)
    return 0.5 + ahead - ahead.T


def rotational(size, edge):
    """P of an odd number of answers in a ring, each preferred to all of the half before it by 1/2 + edge."""
    ahead = np.subtract.outer(np.arange(size), np.arange(size)).T % size
    return 0.5 + edge * np.select([ahead == 0, ahead <= size // 2], [0, 1], -1)


def bradley_terry(scores):
    """P_ij = sigma(s_i - s_j)."""
    scores = np.asarray(scores, np.float64)
    return 1 / (1 + np.exp(scores[None, :] - scores[:, None]))


def additive(scores):
    """P_ij = 1/2 + s_i - s_j."""
    scores = np.asarray(scores, np.float64)
    return 0.5 + scores[:, None] - scores[None, :]


def random_preferences(rng, size, *lead, largest=0.5):
    """Entries of A uniform within +-largest."""
    upper = np.triu(rng.uniform(-largest, largest, (*lead, size, size)), 1)
    return 0.5 + upper - upper.swapaxes(-1, -2)


M4 = 0.5 + antisymmetric([0.3, 0.1, -0.2, 0.25, 0.15, 0.35], 4)
TRAP = 0.5 + antisymmetric([-0.4, -0.4, -0.4, 0.2, 0.1, -0.3, -0.4, -0.3, -0.3, 0.1], 5)  # T13
TRAP_REFERENCE = np.array([1.0, 1, 0, -2, -1])
CHAIN = bradley_terry([1, 0.6, 0.2, -0.3])
