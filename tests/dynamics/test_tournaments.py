"""Tournaments against their definitions: every subset, every order of three, projections written out."""

from itertools import combinations, pairwise, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdesign.dynamics.tournaments import (
    borda_scores,
    condorcet_winner,
    cyclic_part,
    smith_set,
    transitivity_violations,
)
from tests.support.preference_tables import completed, tournaments

CYCLE = completed([0.9, 0.2, 0.7], 3)  # 0 > 1 > 2 > 0


def dominating(preferences):
    """Every set whose members beat all outsiders, smallest first."""
    size = len(preferences)
    for count in range(1, size + 1):
        for inside in combinations(range(size), count):
            outside = [j for j in range(size) if j not in inside]
            if all(preferences[i, j] > 0.5 for i in inside for j in outside):
                yield set(inside)


@settings(max_examples=300)
@given(tournaments())
def test_smith_set_is_the_smallest_of_all_sets_that_beat_the_rest(preferences):
    assert set(np.flatnonzero(smith_set(preferences))) == next(dominating(preferences))


@given(tournaments())
def test_sets_that_beat_the_rest_are_nested_so_that_the_smallest_is_the_only_one(preferences):
    nested = list(dominating(preferences))
    assert all(small < large for small, large in pairwise(nested))


@settings(max_examples=100)
@given(tournaments())
def test_condorcet_winner_beats_all_and_is_then_the_smith_set(preferences):
    beats = preferences > 0.5
    np.fill_diagonal(beats, True)
    np.testing.assert_array_equal(condorcet_winner(preferences), beats.all(axis=1))
    if beats.all(axis=1).any():
        np.testing.assert_array_equal(smith_set(preferences), condorcet_winner(preferences))


def test_ties_of_all_answers_leave_all_in_the_smith_set_and_no_winner():
    tied = np.full((4, 4), 0.5)
    assert smith_set(tied).all() and not condorcet_winner(tied).any()


def test_a_tie_keeps_an_answer_in_the_smith_set():
    preferences = completed([0.5, 0.9, 0.6], 3)  # 0 ties 1; both beat 2
    assert smith_set(preferences).tolist() == [True, True, False]
    assert not condorcet_winner(preferences).any()


def test_a_difference_that_rounding_hides_from_the_mirror_image_is_a_win():
    """1 - (1/2 - 2^-54) is 1/2 in float64; the pair is compared with itself mirrored, so that nothing is lost."""
    preferences = completed([0.5 - 2.0**-54], 2)
    assert preferences[1, 0] == 0.5
    assert condorcet_winner(preferences).tolist() == smith_set(preferences).tolist() == [False, True]


@pytest.mark.parametrize("function", [condorcet_winner, smith_set, borda_scores, cyclic_part])
def test_jax_gives_what_numpy_does_under_jit_and_vmap(function):
    rng = np.random.default_rng(0)
    stack = np.stack([completed(rng.integers(0, 5, 10) / 4, 5) for _ in range(6)]).reshape(2, 3, 5, 5)
    expected = function(stack)
    assert isinstance(expected, np.ndarray)
    single = jnp.asarray(stack, jnp.float32)
    traced = jax.jit(jax.vmap(jax.vmap(function)))(single), jax.jit(function)(single)
    assert all(isinstance(found, jax.Array) for found in traced)
    for found in (function(single), *traced):
        assert found.dtype in (jnp.float32, bool)
        np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), atol=1e-6)


@given(tournaments())
def test_cyclic_part_is_the_double_centred_matrix_and_scores_explain_the_rest(preferences):
    size = len(preferences)
    centre = np.eye(size) - 1 / size
    np.testing.assert_allclose(cyclic_part(preferences), centre @ (preferences - 0.5) @ centre, atol=1e-15)
    scores = borda_scores(preferences)
    np.testing.assert_allclose(scores, (preferences - 0.5).sum(axis=1) / size, atol=1e-15)
    additive = 0.5 + (scores[:, None] - scores[None]) / 2
    np.testing.assert_allclose(cyclic_part(additive), 0, atol=1e-15)
    np.testing.assert_allclose(borda_scores(additive), scores / 2, atol=1e-15)


def violations_by_hand(preferences, seen):
    triples, judged, largest = 0, 0, 0.0
    for three in combinations(range(len(preferences)), 3):
        if not all(seen[i, j] for i, j in combinations(three, 2)):
            continue
        judged += 1
        sizes = [
            max(preferences[i, j], preferences[j, k]) - preferences[i, k]
            for i, j, k in permutations(three)
            if preferences[i, j] >= 0.5 and preferences[j, k] >= 0.5
        ]
        triples += max(sizes) > 0
        largest = max(largest, *sizes)
    return triples, judged, largest


@settings(max_examples=100)
@given(tournaments())
def test_strong_transitivity_is_judged_by_every_order_of_every_triple(preferences):
    seen = np.abs(preferences - 0.25) > 0.1  # some pairs, not in both directions alike
    seen &= seen.T
    for given_mask, mask in ((None, np.ones_like(seen)), (seen, seen)):
        found = transitivity_violations(preferences, given_mask)
        assert (int(found.triples), int(found.judged), float(found.largest)) == violations_by_hand(preferences, mask)


def test_violations_known_by_hand():
    weak = completed([0.8, 0.7, 0.6], 3)  # 0 > 1 > 2 and P_02 = .7 < P_01 = .8
    strong = completed([0.7, 0.9, 0.6], 3)
    found = transitivity_violations(np.stack([CYCLE, weak, strong]))
    assert found.triples.tolist() == [1, 1, 0] and found.judged.tolist() == [1, 1, 1]
    np.testing.assert_allclose(found.largest, [0.9 - 0.2, 0.1, 0], atol=1e-15)


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        (np.zeros((2, 3)), r"preferences: shape \(2, 3\) found"),
        (np.full((3, 3), 0.4), r"preferences\[i, j\] \+ preferences\[j, i\]: 0.8 at \(0, 1\)"),
        (completed([1.5], 2), r"preferences: 1.5 at \(0, 1\)"),
    ],
)
@pytest.mark.parametrize("function", [condorcet_winner, smith_set, borda_scores, cyclic_part, transitivity_violations])
def test_what_are_no_preferences_is_refused(function, value, fragment):
    with pytest.raises(ValueError, match=fragment):
        function(value)


@pytest.mark.parametrize("function", [condorcet_winner, smith_set, borda_scores, cyclic_part])
def test_the_diagonal_is_ignored(function):
    np.testing.assert_array_equal(function(CYCLE + np.diag([0.5, -0.5, 0.1])), function(CYCLE))


def test_violations_refuse_traced_input_and_another_mask():
    with pytest.raises(TypeError, match="preferences: is traced"):
        jax.jit(lambda p: transitivity_violations(p).largest)(jnp.full((3, 3), 0.5))
    with pytest.raises(ValueError, match="observed: shape"):
        transitivity_violations(CYCLE, np.ones((2, 2), bool))
