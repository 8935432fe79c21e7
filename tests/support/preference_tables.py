"""Random preference matrices, with ties, and labels of them."""

import numpy as np
from hypothesis import strategies as st


def completed(above, size):
    """P with these entries above the diagonal."""
    matrix = np.full((size, size), 0.5)
    rows, columns = np.triu_indices(size, 1)
    matrix[rows, columns] = above
    matrix[columns, rows] = 1 - np.asarray(above)
    return matrix


def tables(counts_above, wins_above, size):
    """(wins, counts) as square matrices from numbers per pair i < j."""
    wins, counts = np.zeros((size, size)), np.zeros((size, size))
    rows, columns = np.triu_indices(size, 1)
    wins[rows, columns] = wins_above
    counts[rows, columns] = counts_above
    wins[columns, rows] = np.asarray(counts_above) - np.asarray(wins_above)
    return wins, counts + counts.T


def sampled(preferences, counts, rng):
    """wins (R, K, K) from counts (R, K, K) labels: binomial for every pair i < j."""
    above = np.triu(counts, 1).astype(int)
    won = rng.binomial(above, preferences)
    return (won + (above - won).swapaxes(-1, -2)).astype(float)


@st.composite
def tournaments(draw, least=2, most=6):
    """P of 2 to 6 answers in quarters: a fifth of the pairs is tied."""
    size = draw(st.integers(least, most))
    pairs = size * (size - 1) // 2
    above = draw(st.lists(st.integers(0, 4), min_size=pairs, max_size=pairs))
    return completed(np.array(above) / 4, size)


@st.composite
def labelled(draw, least=2, most=5, labels=4):
    """(wins, counts) of 2 to 5 answers with 0 to 4 labels a pair."""
    size = draw(st.integers(least, most))
    pairs = size * (size - 1) // 2
    counts = draw(st.lists(st.integers(0, labels), min_size=pairs, max_size=pairs))
    wins = [draw(st.integers(0, n)) for n in counts]
    return tables(counts, wins, size)
