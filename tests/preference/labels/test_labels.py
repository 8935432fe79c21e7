"""Labels: what is accepted, what is refused and how it is said, and the counts per pair."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign import CompletionPool
from jaxdesign.preference.labels import labels, tasks
from jaxdesign.preference.labels.labels import (
    FIRST,
    SECOND,
    SKIP,
    TIE,
    Labels,
    as_labels,
    check_labels,
    concatenated,
    counted,
    counted_by_annotator,
)


def a_pool():
    mask = np.array([[True, True, True], [True, False, True]])
    return CompletionPool(np.random.default_rng(0).standard_normal((2, 3, 2)), mask=mask)


def test_counts_by_hand():
    pairs = [(1, 0, 2), (0, 0, 1), (0, 0, 1), (0, 0, 1), (0, 0, 1), (1, 0, 2), (0, 1, 2)]
    labels = as_labels(pairs, [SECOND, FIRST, FIRST, TIE, SKIP, FIRST, SKIP], [0, 0, 1, 1, 0, 0, 2])
    found, wins, counts = counted(labels)
    assert found.tolist() == [[0, 0, 1], [1, 0, 2]] and found.dtype == np.int32
    assert wins.tolist() == [2.5, 1.0] and counts.tolist() == [3.0, 2.0]
    found, who, wins, counts = counted_by_annotator(labels)
    assert found.tolist() == [[0, 0, 1], [0, 0, 1], [1, 0, 2]] and who.tolist() == [0, 1, 0]
    assert wins.tolist() == [1.0, 1.5, 1.0] and counts.tolist() == [1.0, 2.0, 2.0]


rows = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([(0, 1), (0, 2), (1, 2)]), st.integers(0, 3), st.integers(0, 2)),
    max_size=30,
)


@given(rows)
def test_counts_add_up_whatever_the_order_and_the_grouping(found):
    pairs = np.array([(p, *ij) for p, ij, _, _ in found], np.int32).reshape(-1, 3)
    labels = as_labels(pairs, np.array([c for _, _, c, _ in found], int), np.array([a for *_, a in found], int))
    expected = {}
    for pair, choice in zip(pairs.tolist(), labels.choices.tolist(), strict=True):
        if choice != SKIP:
            w, c = expected.get(tuple(pair), (0, 0))
            expected[tuple(pair)] = (w + {FIRST: 1, SECOND: 0, TIE: 0.5}[choice], c + 1)
    for part in (labels, Labels(*(a[::-1] for a in labels))):
        pairs, wins, counts = counted(part)
        assert list(map(tuple, pairs.tolist())) == sorted(expected)
        assert dict(zip(map(tuple, pairs.tolist()), zip(wins, counts, strict=True), strict=True)) == expected
        _, _, wins_each, counts_each = counted_by_annotator(part)
        assert wins_each.sum() == wins.sum() and counts_each.sum() == counts.sum()


def test_no_labels_are_labels():
    for empty in (as_labels([], []), concatenated(), as_labels(np.zeros((0, 3), np.int32), [], [])):
        assert empty.pairs.shape == (0, 3) and empty.choices.shape == (0,)
        assert [array.dtype for array in empty] == [np.int32, np.int8, np.int32]
        assert counted(empty)[0].shape == (0, 3)


def test_concatenated_keeps_the_order():
    one, two = as_labels([(0, 0, 1)], [FIRST], [4]), as_labels([(1, 0, 2), (0, 1, 2)], [TIE, SKIP])
    both = concatenated(one, two)
    assert both.pairs.tolist() == [[0, 0, 1], [1, 0, 2], [0, 1, 2]]
    assert both.choices.tolist() == [FIRST, TIE, SKIP] and both.annotators.tolist() == [4, 0, 0]
    assert both.choices.dtype == np.int8


def test_labels_pass_through_jit_and_say_why_they_cannot_be_counted_there():
    labels = as_labels([(0, 0, 1)], [FIRST])
    assert jax.jit(lambda given: given)(labels).choices.tolist() == [FIRST]
    for call in (counted, concatenated, lambda given: as_labels(*given), lambda given: check_labels(given)):
        with pytest.raises(TypeError, match="outside of jit"):
            jax.jit(call)(labels)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([(0, 1, 0)], [0]), ValueError, r"labels.pairs: \[0, 1, 0\] in label 0 .*i < j"),
        (([(0, 1, 1)], [0]), ValueError, "i < j"),
        (([(-1, 0, 1)], [0]), ValueError, "0 <= p"),
        (([(0, 0, 1), (0, 0, 2)], [0, 4]), ValueError, r"labels.choices: 4 in label 1 \(1 such.*3 \(skip\)"),
        (([(0, 0, 1)], [-1]), ValueError, "labels.choices: -1"),
        (([(0, 0, 1)], [0, 1]), ValueError, r"labels.choices: shape \(2,\) found; expected \(1,\)"),
        (([(0, 0, 1)], [0], [-1]), ValueError, "labels.annotators: -1"),
        (([(0, 0, 1)], [0], [0, 1]), ValueError, "labels.annotators: shape"),
        (
            ([(2**32, 0, 1), (0, 0, 1)], [0, 1]),
            ValueError,
            r"labels.pairs: \[4294967296, 0, 1\] in label 0 .*2147483647",
        ),
        ((np.array([(0, 0, 2**63)], np.uint64), [0]), ValueError, "labels.pairs: .*indices are from 0 to 2147483647"),
        (([(0, 0, 1)], [0], [1_000_000]), ValueError, "labels.annotators: 1000000 .* from 0 to 999999"),
        (([(0, 1)], [0]), ValueError, r"labels.pairs: shape \(1, 2\)"),
        (([(0, 0, 1.5)], [0]), TypeError, "labels.pairs: dtype float64 found; expected integers"),
        (([(0, 0, 1)], [True]), TypeError, "labels.choices: dtype bool"),
        (([(0, 0, 1)], ["a"]), TypeError, "labels.choices"),
    ],
)
def test_what_is_no_label_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        as_labels(*arguments)


@pytest.mark.parametrize(
    ("pair", "words"),
    [((2, 0, 1), "2 prompts with up to 3"), ((0, 0, 3), "2 prompts"), ((1, 0, 1), "must exist in the pool")],
)
def test_pairs_must_be_in_the_pool(pair, words):
    as_labels([pair], [FIRST])
    with pytest.raises(ValueError, match=words):
        as_labels([pair], [FIRST], pool=a_pool())
    as_labels([(1, 0, 2)], [FIRST], pool=a_pool())


def test_annotators_must_exist():
    labels = as_labels([(0, 0, 1)], [FIRST], [2])
    check_labels(labels, annotators=3)
    with pytest.raises(ValueError, match=r"labels.annotators: 2 .* from 0 to 1"):
        check_labels(labels, annotators=2)


@pytest.mark.parametrize("count", [counted, counted_by_annotator])
def test_labels_of_different_pairs_are_never_added_up(count):
    """Built without `as_labels`: as int32, prompt 2^32 is prompt 0."""
    pairs = np.array([[2**32, 0, 1], [0, 0, 1]])
    with pytest.raises(ValueError, match=r"labels.pairs: .*indices are from 0 to 2147483647"):
        count(Labels(pairs, np.array([0, 1]), np.array([0, 0])))
    largest = as_labels([(2**31 - 1, 0, 1), (0, 0, 1)], [0, 1])
    assert count(largest)[0].tolist() == [[0, 0, 1], [2**31 - 1, 0, 1]]


def test_the_words_are_those_of_the_codes():
    assert [tasks.CHOICES[getattr(labels, word.upper())] for word in tasks.CHOICES] == list(tasks.CHOICES)
