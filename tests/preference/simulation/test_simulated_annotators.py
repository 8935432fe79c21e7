"""Simulated annotators: frequencies against the stated probabilities; labels that depend on their own names alone."""

from itertools import pairwise

import jax
import numpy as np
import pytest

from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE, counted
from jaxdesign.preference.simulation.annotators import choice_probabilities, make_annotators, simulate_labels

CREW = make_annotators(temperature=[1, 0.5, 2], flip=[0, 0.1, 0.3], tie=[0, 0.4, 1.5], skip=[0, 0.05, 0.2])


def rewards(seed=0, prompts=6, completions=4):
    return np.random.default_rng(seed).standard_normal((prompts, completions))


def all_pairs(prompts=6, completions=4):
    i, j = np.triu_indices(completions, 1)
    return np.array([(p, a, b) for p in range(prompts) for a, b in zip(i, j, strict=True)], np.int32)


def as_rows(labels):
    return sorted(
        zip(map(tuple, labels.pairs.tolist()), labels.annotators.tolist(), labels.choices.tolist(), strict=True)
    )


def test_probabilities_by_hand():
    x = np.log(4)  # e^(x/2) = 2
    crew = make_annotators(tie=[0, 0.5, 0.5], flip=[0, 0, 0.25], skip=[0, 0, 0.5])
    found = choice_probabilities(np.full(3, x, np.float32), crew, np.arange(3))
    expected = [[0.8, 0.2, 0, 0], [2 / 3, 1 / 6, 1 / 6, 0], [0.5 * 13 / 24, 0.5 * 7 / 24, 1 / 12, 0.5]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    hot = choice_probabilities(np.full(1, 3 * x, np.float32), make_annotators(temperature=3.0), np.zeros(1, int))
    np.testing.assert_allclose(hot, [[0.8, 0.2, 0, 0]], rtol=1e-6)


def test_probabilities_are_bradley_terry_with_flips_where_nothing_else_is():
    margins = np.linspace(-5, 5, 11).astype(np.float32)
    found = choice_probabilities(margins, make_annotators(flip=0.2), np.zeros(11, int))
    np.testing.assert_allclose(found[:, FIRST], 0.6 / (1 + np.exp(-margins)) + 0.2, rtol=1e-6)


def test_probabilities_sum_to_one_and_mirror_at_any_margin():
    margins = np.array([0, 1e-3, 3, -40, 1e4, -1e30], np.float32)
    margins, who = np.tile(margins, 3), np.repeat(np.arange(3), 6)
    here, mirrored = (np.asarray(choice_probabilities(sign * margins, CREW, who)) for sign in (1, -1))
    np.testing.assert_allclose(here.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(here[:, [SECOND, FIRST, TIE, SKIP]], mirrored, atol=1e-7)
    slopes = jax.jvp(lambda m: choice_probabilities(m, CREW, who), (margins,), (np.ones_like(margins),))[1]
    assert np.isfinite(slopes).all() and (np.asarray(slopes)[:6, FIRST] >= 0).all()


def test_frequencies_are_the_probabilities():
    """Every pair, every annotator, 3,000 repeats: chi-square of each of 108 cells of 4 choices, and of their sum."""
    truth, pairs, repeats = rewards(1), all_pairs(), 3000
    rows = np.repeat(pairs, 3, axis=0)
    who = np.tile(np.arange(3), len(pairs))
    p, i, j = rows.T
    chances = np.asarray(choice_probabilities((truth[p, i] - truth[p, j]).astype(np.float32), CREW, who))
    labels = simulate_labels(jax.random.key(3), truth, np.tile(rows, (repeats, 1)), CREW, who=np.tile(who, repeats))
    choices = np.asarray(labels.choices).reshape(repeats, -1)
    seen = np.stack([(choices == code).sum(axis=0) for code in range(4)], axis=1)
    possible = chances > 0
    assert (seen[~possible] == 0).all()
    expected = repeats * np.where(possible, chances, 1)
    squares = np.where(possible, (seen - repeats * chances) ** 2 / expected, 0).sum(axis=1)
    free = possible.sum(axis=1) - 1
    assert abs(squares.sum() - free.sum()) < 4 * np.sqrt(2 * free.sum())
    assert squares.max() < 30


def test_repeats_are_independent():
    """Neighbouring repeats, annotators and pairs of the same margin agree as often as chance says."""
    zero = np.zeros((4000, 3))
    for rows, who in (
        (np.tile([[0, 0, 1]], (8000, 1)), 0),
        (
            np.repeat(np.column_stack([np.arange(4000), np.zeros(4000, int), np.ones(4000, int)]), 2, axis=0),
            np.arange(8000) % 2,
        ),
        (np.array([(p, *ij) for p in range(4000) for ij in ((0, 1), (0, 2))]), 0),
    ):
        two = make_annotators(flip=[0, 0])
        choices = np.asarray(simulate_labels(jax.random.key(0), zero, rows, two, who=who).choices).reshape(-1, 2)
        assert abs((choices[:, 0] == choices[:, 1]).mean() - 0.5) < 4 * 0.5 / np.sqrt(len(choices))


@pytest.mark.thorough
def test_a_label_does_not_depend_on_the_others_nor_on_their_order():
    truth, key = rewards(2), jax.random.key(5)
    rows = np.concatenate([all_pairs(), all_pairs()[:10], all_pairs()[:10]])
    order = np.random.default_rng(0).permutation(len(rows))
    for who in (None, np.arange(len(rows)) % 3):
        whole = simulate_labels(key, truth, rows, CREW, who=who)
        mixed = simulate_labels(key, truth, rows[order], CREW, who=None if who is None else who[order])
        assert as_rows(whole) == as_rows(mixed)
    # in parts, with the numbers of the repeats given
    whole = simulate_labels(key, truth, rows, CREW)
    numbers = np.array([(rows[:k] == rows[k]).all(axis=1).sum() for k in range(len(rows))])
    for part in (slice(0, 19), slice(19, 36), slice(36, None)):
        piece = simulate_labels(key, truth, rows[part], CREW, repeats=numbers[part])
        for a, b in zip(piece, whole, strict=True):
            np.testing.assert_array_equal(a, b[part])
    # and another seed is another draw
    other = simulate_labels(jax.random.key(6), truth, rows, CREW)
    assert (np.asarray(other.choices) != np.asarray(whole.choices)).any()


def test_labels_move_one_way_as_the_margin_falls():
    rows = np.column_stack([np.arange(2000), np.zeros(2000, int), np.ones(2000, int)])
    place = np.array([0, 2, 1])  # of first, second, tie, from the best
    seen = []
    for margin in (2.0, 0.5, -0.2, -3.0):
        truth = np.tile([[margin, 0.0]], (2000, 1))
        seen.append(
            place[np.asarray(simulate_labels(jax.random.key(1), truth, rows, make_annotators(tie=0.5)).choices)]
        )
    assert all((b >= a).all() and (b > a).any() for a, b in pairwise(seen))


def test_annotators_are_drawn_by_their_shares():
    rows = np.tile([[0, 0, 1]], (6000, 1))
    who = simulate_labels(jax.random.key(2), np.zeros((1, 2)), rows, CREW, shares=np.array([0.5, 0.0, 0.2])).annotators
    counts = np.bincount(who, minlength=3)
    assert counts[1] == 0 and abs(counts[0] / 6000 - 5 / 7) < 4 * np.sqrt(10 / 49 / 6000)
    assert np.bincount(simulate_labels(jax.random.key(2), np.zeros((1, 2)), rows, CREW).annotators).min() > 1850


def test_under_jit_and_with_x64_it_is_the_same_draw():
    truth, rows = rewards(3).astype(np.float32), all_pairs()
    plain = simulate_labels(jax.random.key(4), truth, rows, CREW)
    traced = jax.jit(lambda key, truth, rows: simulate_labels(key, truth, rows, CREW))(jax.random.key(4), truth, rows)
    with jax.enable_x64(True):
        wide = simulate_labels(jax.random.key(4), truth.astype(np.float64), rows, CREW)
    for a, b, c in zip(plain, traced, wide, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
        assert a.dtype == b.dtype == c.dtype
    assert plain.choices.dtype == np.int8


def test_without_noise_the_better_one_wins():
    truth, rows = rewards(4), all_pairs()
    labels = simulate_labels(jax.random.key(0), truth, rows, make_annotators(temperature=1e-6))
    p, i, j = rows.T
    assert (np.asarray(labels.choices) == np.where(truth[p, i] > truth[p, j], FIRST, SECOND)).all()
    pairs, wins, counts = counted(labels)
    assert (counts == 1).all() and len(pairs) == len(rows) and set(wins) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"flip": 0.5}, r"annotators.flip: 0.5 of annotator 0; must be at least 0 and below 1/2"),
        ({"flip": [0, -0.1]}, "annotators.flip: -0.1 of annotator 1"),
        ({"temperature": 0}, "annotators.temperature: 0"),
        ({"tie": -1}, "annotators.tie"),
        ({"tie": np.nan}, "annotators.tie: nan"),
        ({"skip": 1}, "annotators.skip"),
        ({"flip": [0, 0.1], "tie": [0, 0, 0]}, "annotators: shapes"),
        ({"flip": []}, "annotators: shapes"),
    ],
)
def test_parameters_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        make_annotators(**arguments)


@pytest.mark.parametrize(
    ("pairs", "options", "words"),
    [
        ([(6, 0, 1)], {}, r"pairs: \[6, 0, 1\] found; rewards have shape \(6, 4\)"),
        ([(0, 0, 4)], {}, "pairs"),
        ([(0, 1, 0)], {}, "i < j"),
        ([(5, 2, 3)], {}, "rewards: not finite at a completion of pair"),
        ([(0, 0, 1)], {"who": 3}, "labels.annotators: 3"),
        ([(0, 0, 1)], {"who": 0, "shares": np.ones(3)}, "shares: has no meaning"),
        ([(0, 0, 1)], {"shares": np.zeros(3)}, "shares"),
        ([(0, 0, 1)], {"shares": np.ones(2)}, "shares: shape"),
        ([(0, 0, 1)], {"repeats": np.zeros(2, int)}, "repeats: shape"),
    ],
)
def test_what_cannot_be_labelled_is_refused(pairs, options, words):
    truth = rewards()
    truth[5, 3] = np.nan
    with pytest.raises(ValueError, match=words):
        simulate_labels(jax.random.key(0), truth, pairs, CREW, **options)


@pytest.mark.parametrize("pairs", [[[0, 1], [2, 3], [4, 5]], [[0, 1.9, 2.9]], [0, 1, 2]])
def test_pairs_are_rows_of_three_integers(pairs):
    with pytest.raises(ValueError, match=r"pairs: shape .* found"):
        simulate_labels(jax.random.key(0), np.zeros((6, 6)), pairs)
