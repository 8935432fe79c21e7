"""Labels: which completion of a pair was preferred, by whom; and their counts per pair."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.labels.tasks import CHOICES, LARGEST_ANNOTATOR, LARGEST_INDEX

FIRST = 0  # completion i of the pair (p, i, j) was preferred
SECOND = 1  # completion j was
TIE = 2  # neither
SKIP = 3  # the annotator gave no judgement


class Labels(NamedTuple):
    """n labels, one row each; several labels of one pair, by the same annotator or others, are normal.

    A pytree of arrays, never validated on construction so that it passes through jit; `as_labels` builds a checked one.

    Args:
        pairs: (n, 3) int32 rows (p, i, j), i < j, into the pool.
        choices: (n,) int8, FIRST = 0 (i preferred), SECOND = 1 (j preferred), TIE = 2, SKIP = 3.
        annotators: (n,) int32, who gave the label, from 0.

    Source: derived; checked by tests/preference/labels/test_labels.py.
    """

    pairs: Int[AnyArray, "n 3"]
    choices: Int[AnyArray, " n"]
    annotators: Int[AnyArray, " n"]


def as_labels(pairs: Any, choices: Any, annotators: Any = 0, *, pool: CompletionPool | None = None) -> Labels:
    """Labels from anything array-like, checked, as NumPy arrays on the host.

    Args:
        pairs: (n, 3) integers (p, i, j), i < j.
        choices: (n,) codes 0 to 3.
        annotators: (n,) integers from 0 to `tasks.LARGEST_ANNOTATOR`, or one for all labels.
        pool: the pool the pairs belong to, or None where it is not at hand.

    Returns:
        Labels of int32, int8 and int32 arrays.

    Raises:
        TypeError: anything but integers.
        ValueError: shapes that differ, codes that do not exist, pairs that are no pair (of the pool).

    Source: derived; checked by tests/preference/labels/test_labels.py.
    """
    pairs = _integers(pairs, "labels.pairs")
    if pairs.size == 0:
        pairs = pairs.reshape(0, 3)
    choices, annotators = _integers(choices, "labels.choices"), _integers(annotators, "labels.annotators")
    annotators = np.broadcast_to(annotators, choices.shape) if annotators.ndim == 0 else annotators
    check_labels(Labels(pairs, choices, annotators), pool)
    return Labels(pairs.astype(np.int32), choices.astype(np.int8), annotators.astype(np.int32))


def check_labels(labels: Labels, pool: CompletionPool | None = None, annotators: int | None = None) -> None:
    """Refuse invalid labels, naming the first.

    Args:
        labels: concrete labels.
        pool: where given, both completions of every pair must exist there.
        annotators: where given, how many annotators there are.

    Raises:
        TypeError: anything but integers.
        ValueError: shapes that differ, codes that do not exist, pairs that are no pair (of the pool), an annotator
            that does not exist.

    Source: derived; checked by tests/preference/labels/test_labels.py.
    """
    pairs, choices, who = (_integers(a, f"labels.{n}") for n, a in zip(Labels._fields, labels, strict=True))
    if pairs.ndim != 2 or pairs.shape[1] != 3:
        raise ValueError(f"labels.pairs: shape {pairs.shape} found; expected (n, 3), rows (p, i, j)")
    _checks.same_shape(choices.shape, pairs.shape[:1], "labels.choices", "(n,), one code per label")
    _checks.same_shape(who.shape, pairs.shape[:1], "labels.annotators", "(n,), one annotator per label")
    words = ", ".join(f"{code} ({word})" for code, word in enumerate(CHOICES))
    _refuse((choices < 0) | (choices > SKIP), choices, "labels.choices", f"allowed are {words}")
    limit = LARGEST_ANNOTATOR if annotators is None else min(annotators - 1, LARGEST_ANNOTATOR)
    _refuse((who < 0) | (who > limit), who, "labels.annotators", f"must be from 0 to {limit}")
    p, i, j = pairs.T
    _refuse((p < 0) | (i < 0) | (i >= j), pairs, "labels.pairs", "a pair is (p, i, j) with 0 <= p, 0 <= i < j")
    _refuse((p > LARGEST_INDEX) | (j > LARGEST_INDEX), pairs, "labels.pairs", f"indices are from 0 to {LARGEST_INDEX}")
    if pool is None:
        return
    prompts, completions = pool.mask.shape
    sizes = f"the pool has {prompts} prompts with up to {completions} completions"
    _refuse((p >= prompts) | (j >= completions), pairs, "labels.pairs", sizes)
    mask = np.asarray(pool.mask)
    _refuse(~(mask[p, i] & mask[p, j]), pairs, "labels.pairs", "both completions must exist in the pool (mask True)")


def concatenated(*parts: Labels) -> Labels:
    """All labels of several sets, in order, as NumPy arrays; no set at all gives no labels.

    Args:
        parts: sets of labels, unchecked.

    Returns:
        Labels.

    Raises:
        TypeError: traced labels, as inside of jit.

    Source: derived; checked by tests/preference/labels/test_labels.py.
    """
    _concrete(parts, "labels")
    if not parts:
        return as_labels(np.zeros((0, 3), np.int32), np.zeros(0, np.int8))
    return Labels(*(np.concatenate([np.asarray(part[k]) for part in parts]) for k in range(len(Labels._fields))))


def counted(labels: Labels) -> tuple[Int[np.ndarray, "s 3"], Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """Labels as counts per pair, all annotators together: what a fit of the Bradley-Terry model needs.

    wins = #FIRST + #TIE / 2, counts = #FIRST + #SECOND + #TIE; skips count nothing, and pairs with nothing but skips
    are left out. Without ties these are sufficient under Bradley-Terry, flip noise common to all labels included. Half
    a win for a tie is a convention: it keeps the sign of a margin and shrinks its size (with Davidson's model of ties
    the mean score is (e^(u/2) + nu/2) / (e^(u/2) + e^(-u/2) + nu), which lies between 1/2 and sigma(u)).

    Args:
        labels: concrete labels.

    Returns:
        pairs (s, 3) int32 in the order of (p, i, j), wins (s,) and counts (s,) float64, on the host.

    Raises:
        TypeError: traced labels.
        TypeError, ValueError: invalid labels (`check_labels`).

    Source: Bradley and Terry 1952, doi:10.2307/2334029; ties, Davidson 1970, doi:10.1080/01621459.1970.10481082;
    checked by tests/preference/labels/test_labels.py.
    """
    pairs, _, wins, counts = counted_by_annotator(labels._replace(annotators=np.zeros(len(labels.choices), np.int32)))
    return pairs, wins, counts


def counted_by_annotator(
    labels: Labels,
) -> tuple[Int[np.ndarray, "s 3"], Int[np.ndarray, " s"], Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """As `counted`, but one row per pair and annotator: where annotators differ in noise, this is sufficient.

    Args:
        labels: concrete labels.

    Returns:
        pairs (s, 3) int32 and annotators (s,) int32 in the order of (p, i, j, annotator), wins and counts (s,) float64.

    Raises:
        TypeError: traced labels.
        TypeError, ValueError: invalid labels (`check_labels`).

    Source: derived; checked by tests/preference/labels/test_labels.py.
    """
    if _arrays.is_traced(labels):
        raise TypeError("labels: counting has results of data-dependent shape; call it outside of jit")
    check_labels(labels)  # a number beyond int32 would wrap, and labels of different pairs be added up
    rows = np.column_stack([np.asarray(labels.pairs), np.asarray(labels.annotators)]).astype(np.int32)
    choices = np.asarray(labels.choices)
    judged = choices != SKIP
    rows, where = np.unique(rows[judged], axis=0, return_inverse=True)
    worth = np.array([1.0, 0.0, 0.5])[choices[judged]]
    wins = np.bincount(where.ravel(), worth, len(rows)).astype(np.float64)  # of no labels, NumPy makes integers
    counts = np.bincount(where.ravel(), minlength=len(rows)).astype(np.float64)
    return rows[:, :3], rows[:, 3], wins, counts


def _concrete(value: Any, name: str) -> None:
    if _arrays.is_traced(value):
        raise TypeError(
            f"{name}: traced; checks look at values, outside of jit (inside, `Labels(...)` builds unchecked)"
        )


def _integers(value: Any, name: str) -> np.ndarray:
    _concrete(value, name)
    value = np.asarray(value)
    if value.size == 0:
        return value.astype(np.int32)
    if not np.issubdtype(value.dtype, np.integer):
        raise TypeError(f"{name}: dtype {value.dtype} found; expected integers")
    return value


def _refuse(bad: np.ndarray, values: np.ndarray, name: str, allowed: str) -> None:
    if bad.any():
        first = int(np.argmax(bad))
        found = values[first].tolist()
        raise ValueError(f"{name}: {found} in label {first} ({int(bad.sum())} such label(s) in all); {allowed}")
