"""The cyclic share: no bias by enumeration of all labels, projections written out, known matrices, its error."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from jaxdesign.dynamics.cyclic_share import cyclic_share
from jaxdesign.dynamics.tournaments import cyclic_part
from tests.support.preference_tables import completed, labelled, sampled, tables


def projected(matrix, used):
    """The rest of least squares by scores, on the pairs used: (entries, projector Pi), by a dense basis."""
    size = len(matrix)
    rows, columns = np.nonzero(np.triu(used, 1))
    differences = np.eye(size)[rows] - np.eye(size)[columns]
    projector = np.eye(len(rows)) - differences @ np.linalg.pinv(differences)
    return matrix[rows, columns], projector


def every_outcome(preferences, counts):
    """(probability, wins) of everything that labels can say."""
    rows, columns = np.nonzero(np.triu(counts, 1))
    labels = counts[rows, columns].astype(int)
    chances = [binom.pmf(range(n + 1), n, p) for n, p in zip(labels, preferences[rows, columns], strict=True)]
    for won in product(*(range(n + 1) for n in labels)):
        wins = np.zeros_like(counts)
        wins[rows, columns] = won
        wins[columns, rows] = labels - won
        yield np.prod([chance[k] for chance, k in zip(chances, won, strict=True)]), wins


@pytest.mark.parametrize(
    "above",
    [[3, 2, 4], [2, 5, 3, 2, 2, 2], [2, 0, 3, 3, 2, 0], [2, 1, 3, 3, 2, 0]],
    ids=["three answers", "four answers", "a square of four", "one label says nothing"],
)
def test_sums_have_no_bias_over_everything_that_labels_can_say(above):
    size = 3 if len(above) == 3 else 4
    preferences = completed(np.random.default_rng(len(above)).random(len(above)), size)
    _, counts = tables(above, np.zeros(len(above)), size)
    used = counts >= 2
    signal, projector = projected(preferences - 0.5, used)
    chances, wins = zip(*every_outcome(preferences, counts), strict=True)
    found = cyclic_share(np.stack(wins), np.broadcast_to(counts, (len(wins), size, size)))
    assert np.sum(chances) == pytest.approx(1, abs=1e-12)
    assert chances @ found.cyclic == pytest.approx(signal @ projector @ signal, abs=1e-13)
    assert chances @ found.total == pytest.approx(signal @ signal, abs=1e-13)


@given(labelled(least=3))
def test_share_and_error_are_those_of_dense_projections(labels):
    wins, counts = labels
    used = counts >= 2
    if not used.any():
        return
    frequency = np.where(used, wins / np.maximum(counts, 1), 0.5)
    a, projector = projected(frequency - 0.5, used)
    n = counts[np.nonzero(np.triu(used, 1))]
    v = (0.25 - a**2) / (n - 1)
    cyclic, total = a @ projector @ a - np.diagonal(projector) @ v, a @ a - v.sum()
    found = cyclic_share(wins, counts)
    assert found.cyclic == pytest.approx(cyclic, abs=1e-12) and found.total == pytest.approx(total, abs=1e-12)
    if total <= 1e-9:
        assert total > -1e-9 or np.isnan([found.share, found.standard_error]).all()
        return
    m = projector - cyclic / total * np.eye(len(a))
    squared = m**2 @ v
    linear = np.maximum((m @ a) ** 2 - squared, 0)
    variance = v @ (4 * linear + 2 * squared + 2 * np.diagonal(m) ** 2 * v / (n - 1))
    assert found.share == pytest.approx(np.clip(cyclic / total, 0, 1), abs=1e-9)
    assert found.standard_error == pytest.approx(np.sqrt(max(variance, 0)) / total, rel=1e-6, abs=1e-6)


@given(st.integers(3, 7), st.integers(0, 99))
def test_noise_of_complete_tables_is_k_minus_2_over_k_of_all(size, seed):
    rng = np.random.default_rng(seed)
    pairs = size * (size - 1) // 2
    n = rng.integers(2, 9, pairs)
    wins, counts = tables(n, rng.binomial(n, 0.5), size)
    frequency = np.where(counts > 0, wins / np.maximum(counts, 1), 0.5)
    noise = np.triu(frequency * (1 - frequency) / np.maximum(counts - 1, 1), 1)
    expected = (cyclic_part(frequency) ** 2).sum() / 2 - noise.sum() * (size - 2) / size
    assert cyclic_share(wins, counts).cyclic == pytest.approx(expected, abs=1e-12)


MANY = 1e12  # labels a pair: no noise


@pytest.mark.parametrize(
    ("above", "share"),
    [
        ([0.9, 0.1, 0.9], 1),  # a cycle alone
        ([0.6, 0.8, 0.7], 0),  # additive
        ([0.9, 0.5, 0.5], 1 / 3),  # one pair of three answers: (K - 2) / K of its square
        ([0.9, 0.5, 0.5, 0.5, 0.5, 0.5], 1 / 2),
    ],
)
def test_shares_known_by_hand(above, share):
    size = 3 if len(above) == 3 else 4
    counts = np.full(len(above), MANY)
    found = cyclic_share(*tables(counts, counts * above, size))
    assert found.share == pytest.approx(share, abs=1e-6) and found.standard_error < 1e-4


def test_a_tree_of_pairs_has_no_cycle():
    found = cyclic_share(*tables([8, 8, 0, 0, 0, 8], [7, 2, 0, 0, 0, 8], 4))
    assert found.share == pytest.approx(0, abs=1e-12) and found.cyclic == pytest.approx(0, abs=1e-12)


def test_no_share_is_given_where_no_pair_has_two_labels_or_labels_show_nothing():
    for wins, counts in (tables([1, 1, 1], [1, 0, 1], 3), tables([4, 4, 4], [2, 2, 2], 3)):
        found = cyclic_share(wins, counts)
        assert np.isnan(found.share) and np.isnan(found.standard_error) and found.total <= 0


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("preferences", "labels"),
    [
        (completed([0.75, 0.35, 0.6, 0.7, 0.6, 0.55], 4), 400),
        (completed(0.5 + 0.3 * np.sin(np.arange(15)), 6), 25),
        (completed(np.random.default_rng(3).uniform(0.2, 0.8, 28), 8), 60),
    ],
    ids=["four", "six", "eight"],
)
def test_standard_error_is_the_spread_of_shares_and_covers(preferences, labels):
    size = len(preferences)
    counts = labels * (1 - np.eye(size))
    wins = sampled(preferences, np.broadcast_to(counts, (4_000, size, size)), np.random.default_rng(0))
    found = cyclic_share(wins, np.broadcast_to(counts, wins.shape))
    truth = (cyclic_part(preferences) ** 2).sum() / ((preferences - 0.5) ** 2).sum()
    assert found.share.mean() == pytest.approx(truth, abs=0.01)
    assert np.sqrt(np.mean(found.standard_error**2)) == pytest.approx(found.share.std(), rel=0.08)
    covered = np.abs(found.share - truth) <= 1.96 * found.standard_error
    assert 0.93 <= covered.mean() <= 0.97


@pytest.mark.thorough
def test_what_noise_adds_to_the_plain_sum_is_what_is_taken_out():
    """64 answers, 4 labels a pair, no preference at all: the plain sum is of the size of the noise, the other of 0."""
    size, runs = 64, 60
    counts = 4 * (1 - np.eye(size))
    wins = sampled(np.full((size, size), 0.5), np.broadcast_to(counts, (runs, size, size)), np.random.default_rng(1))
    plain = (cyclic_part(np.where(counts > 0, wins / 4, 0.5)) ** 2).sum(axis=(1, 2)) / 2
    noise = size * (size - 1) / 2 / 16 * (size - 2) / size
    assert plain.mean() == pytest.approx(noise, rel=0.01)
    found = cyclic_share(wins, np.broadcast_to(counts, wins.shape)).cyclic
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(runs) < 0.03 * noise
