"""Selectors by chance and by margins of scores: picks by hand."""

import numpy as np

from jaxdesign import Budget, CompletionPool, LogDet
from jaxdesign.baselines import closest_call, first_two, largest_score_gap, random, random_distinct
from jaxdesign.baselines._common import groups
from jaxdesign.exact.random_pairs import random_pairs
from tests.support.by_hand import by_hand, picks
from tests.support.problems import COMPLETIONS, DRAWS, PROMPTS, random_arrays, random_pool

# ---- chance


def test_random_is_random_pairs():
    pool, budget = random_pool(0), Budget(14, per_pair=1, per_prompt=5)
    design = random(pool, LogDet(), budget, prior=1.0, seed=3)
    pairs, labels = random_pairs(pool, budget, 3)
    np.testing.assert_array_equal(design.pairs, pairs)
    np.testing.assert_array_equal(design.labels, labels)


def test_random_distinct_draws_evenly_from_pairs_that_differ():
    features = np.random.default_rng(0).standard_normal((3, 4, 2))
    features[0, 1:] = features[0, :1]  # prompt 0 has no pair, prompt 1 five, prompt 2 six
    features[1, 3] = features[1, 0]
    pool, counts = by_hand(features), {}
    for seed in range(300):
        for pair in picks(random_distinct, pool, 4, seed=seed):
            counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 11 and {p for p, _, _ in counts} == {1, 2} and (1, 0, 3) not in counts
    expected = 300 * 4 / 11
    assert sum((n - expected) ** 2 for n in counts.values()) / expected < 29.6  # chi2 with 10, 0.999
    assert picks(random_distinct, pool, 11) == set(counts)


def test_first_two_by_hand():
    features = np.arange(24.0).reshape(4, 3, 2) ** 1.5
    features[1, 1] = features[1, 0]  # prompt 1: the first two are copies, so its first pair is (0, 2)
    features[2, 1] = features[2, 2]  # prompt 2: (0, 1) and (0, 2)
    pool = by_hand(features)
    pairs = {0: (0, 0, 1), 1: (1, 0, 2), 2: (2, 0, 1), 3: (3, 0, 1)}
    assert picks(first_two, pool, 4) == set(pairs.values())
    assert picks(first_two, pool, 8) == {*pairs.values(), (0, 0, 2), (1, 1, 2), (2, 0, 2), (3, 0, 2)}
    for seed in range(3):
        turn = [p for p in np.random.default_rng(seed).permutation(PROMPTS).tolist() if p < 4]
        for total in (1, 2, 3):
            assert picks(first_two, pool, total, seed=seed) == {pairs[p] for p in turn[:total]}


# ---- margins


def scored_pool():
    # gaps: prompt 0 has 3 (0, 1), 2 (1, 2), 1 (0, 2); prompt 1 has 0 (0, 1), 1 (0, 2), 1 (1, 2)
    return by_hand(np.random.default_rng(0).standard_normal((2, 3, 2)), [[0.0, 3, 1], [5, 5, 4]])


def test_largest_score_gap_by_hand():
    pool = scored_pool()
    order = [(0, 0, 1), (1, 0, 2), (0, 1, 2), (1, 1, 2), (0, 0, 2), (1, 0, 1)]
    for total in range(1, 7):
        assert picks(largest_score_gap, pool, total) == set(order[:total])
    assert picks(largest_score_gap, pool, 2, per_prompt=1) == {(0, 0, 1), (1, 0, 2)}


def test_closest_call_by_hand():
    pool = scored_pool()
    order = [(1, 0, 1), (0, 0, 2), (1, 0, 2), (1, 1, 2), (0, 1, 2), (0, 0, 1)]
    for total in range(1, 7):
        assert picks(closest_call, pool, total) == set(order[:total])
    assert picks(closest_call, pool, 3, per_prompt=2) == {(1, 0, 1), (0, 0, 2), (1, 0, 2)}


def test_margins_are_those_of_the_mean_scores():
    scores = np.zeros((DRAWS, PROMPTS, COMPLETIONS))
    scores[:, 3, :3] = [[0, 2, 7], [0, -2, 1], [0, 0, 4]]  # means 0, 0, 4
    mask = np.arange(PROMPTS)[:, None] == np.full(COMPLETIONS, 3)
    mask[3, 3:] = False
    pool = CompletionPool(random_arrays(0, ragged=False)[0], scores, mask)
    assert picks(closest_call, pool, 1) == {(3, 0, 1)}
    assert picks(largest_score_gap, pool, 1) == {(3, 0, 2)}  # ties with (3, 1, 2)


def test_values_that_differ_by_rounding_are_ties():
    values = np.array([0.1 + 0.2, 1.0, 0.3, 0.3 * (1 - 1e-6), 0.0, -0.0])
    np.testing.assert_array_equal(groups(values), [1, 0, 1, 2, 3, 3])
