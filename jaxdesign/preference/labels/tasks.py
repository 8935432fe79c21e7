"""Label tasks: one comparison that somebody is asked for, and the label that answers it.

What a number may be is said here once, for tasks, stores, files and arrays of labels alike.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdesign._checks import check_different

CHOICES = ("first", "second", "tie", "skip")  # words of the codes 0 to 3 of `labels`, which takes them from here
LARGEST_ANNOTATOR = 999_999  # estimates have one entry for every number up to the largest that occurs
LETTER = "t"  # in front of the digits of a task id; stores may hold ids of before it was there
LARGEST_INDEX = 2**31 - 1  # of a prompt or completion: pairs are int32


class Task(NamedTuple):
    """One label that is wanted.

    Args:
        task_id: `task_id` of prompt, i, j and repeat: the same in every run.
        round: the round that asks for it, from 0.
        pair: (p, i, j), i < j, into the pool.
        repeat: the number of this task among those of its pair, from 0.
        annotator: who is to label it, from 0 to LARGEST_ANNOTATOR; None for anybody.
        swapped: whether it is shown the other way round (completion j as response a), against position bias.

    Source: derived; checked by tests/preference/labels/test_tasks.py.
    """

    task_id: str
    round: int
    pair: tuple[int, int, int]
    repeat: int
    annotator: int | None = None
    swapped: bool = False


class LabelRecord(NamedTuple):
    """One label that was given; its choice is about the pair (i, j), whichever way round it was shown.

    Args:
        task_id: of the task.
        round: of the task.
        pair: of the task.
        repeat: of the task.
        choice: FIRST = 0 (i preferred), SECOND = 1, TIE = 2, SKIP = 3.
        annotator: who gave it, from 0 to LARGEST_ANNOTATOR.
        seconds: how long it took, or None.
        confidence: of the annotator, in units of their own, or None.

    Source: derived; checked by tests/preference/labels/test_tasks.py.
    """

    task_id: str
    round: int
    pair: tuple[int, int, int]
    repeat: int
    choice: int
    annotator: int
    seconds: float | None = None
    confidence: float | None = None


def task_id(prompt: Any, i: int, j: int, repeat: int) -> str:
    """Stable name of a task: t and the first 20 hexadecimal digits of SHA-256 of the JSON list [prompt, i, j, repeat].

    The letter in front keeps spreadsheets from reading digits alone, or 123e45, as a number and rounding it.

    Args:
        prompt: what names the prompt whatever the pool's order: its id or its text; else its index.
        i, j: the completions.
        repeat: the number of the label among those of its pair.

    Returns:
        21 characters; two of 10^9 tasks agree with probability below 10^-6.

    Raises:
        TypeError: a prompt that is no string and no number.

    Source: derived; checked by tests/preference/labels/test_tasks.py.
    """
    prompt = prompt.item() if isinstance(prompt, np.generic) else prompt
    if not isinstance(prompt, str | int):
        raise TypeError(f"prompt: {type(prompt).__name__} found; expected its id or text (str) or its index (int)")
    text = json.dumps([prompt, int(i), int(j), int(repeat)], ensure_ascii=True)
    return LETTER + hashlib.sha256(text.encode()).hexdigest()[:20]


def make_tasks(
    round: int,
    pairs: Any,
    labels: Any = None,
    *,
    ids: Sequence[Any] | np.ndarray | None = None,
    annotators: Any = None,
    earlier: Iterable[Task] = (),
    swap_seed: int | None = None,
) -> list[Task]:
    """Tasks of a round: one for each wanted label of each pair, in the order given.

    Args:
        round: its number, from 0.
        pairs: (s, 3) rows (p, i, j); a row may occur several times.
        labels: (s,) whole numbers of labels wanted; None for one each.
        ids: what names the prompts (`pool.ids`); None for their indices.
        annotators: (s,) who labels each pair; None for anybody.
        earlier: tasks of earlier rounds, so that repeats are counted on from there.
        swap_seed: shows about half the tasks the other way round, drawn from this seed and the task id, so that a task
            keeps its order in every run; None shows completion i first always.

    Returns:
        List of Task, with task ids that differ.

    Raises:
        TypeError: a round or an annotator that is no number.
        ValueError: rows that are no pair, numbers of labels that are not whole, lengths that differ, ids that repeat,
            annotators that are nobody (-1 or NaN, as data frames write missing ones: None means anybody).

    Source: derived; checked by tests/preference/labels/test_tasks.py.
    """
    pairs, round = np.asarray(pair_rows(pairs)), _round_number(round)
    counts = np.ones(len(pairs)) if labels is None else np.asarray(labels, dtype=np.float64)
    who = [None] * len(pairs) if annotators is None else np.asarray(annotators).tolist()
    who = [None if number is None else annotator_number(number, "annotators") for number in who]
    if counts.shape != (len(pairs),) or len(who) != len(pairs):
        raise ValueError(f"labels: {counts.shape} and {len(who)} annotators found for {len(pairs)} pairs; one each")
    bad = ~np.isfinite(counts) | (counts != np.round(counts)) | (counts < 0)
    if bad.any():
        raise ValueError(f"labels: {counts[bad][0]:g} found; whole numbers only")
    if ids is not None and len(pairs) and pairs[:, 0].max() >= len(ids):
        raise ValueError(f"pairs: prompt {pairs[:, 0].max()} found; there are {len(ids)} ids")
    if ids is not None:
        check_different(ids, "ids", "tasks are named by the prompt's id, so ids must differ")
    used = Counter(task.pair for task in earlier)
    tasks = []
    for row, count, annotator in zip(pairs.tolist(), counts.astype(int), who, strict=True):
        p, i, j = pair = int(row[0]), int(row[1]), int(row[2])
        if not (0 <= p and 0 <= i < j):
            raise ValueError(f"pairs: {list(pair)} found; a pair is (p, i, j) with 0 <= p and 0 <= i < j")
        for _ in range(count):
            name = task_id(p if ids is None else ids[p], i, j, used[pair])
            swapped = swap_seed is not None and _coin(swap_seed, name)
            tasks.append(Task(name, round, pair, used[pair], annotator, swapped))
            used[pair] += 1
    return tasks


def answered(
    task: Task, choice: int, annotator: int | None = None, seconds: float | None = None, confidence: float | None = None
) -> LabelRecord:
    """The record of a label of this task.

    Args:
        task: the task.
        choice: code about (i, j), not about the order it was shown in (see `task_files` for that).
        annotator: who gave it; None for whom the task names, and 0 where it names nobody.
        seconds, confidence: as in `LabelRecord`.

    Returns:
        LabelRecord.

    Raises:
        TypeError: a choice that is no integer, an annotator, seconds or confidence that is no number.
        ValueError: a choice that does not exist, an annotator out of range, seconds or confidence NaN or infinite.

    Source: derived; checked by tests/preference/labels/test_tasks.py.
    """
    annotator = task.annotator if annotator is None else annotator
    who = 0 if annotator is None else annotator_number(annotator)
    numbers = (_finite_or_none(value, name) for value, name in ((seconds, "seconds"), (confidence, "confidence")))
    return LabelRecord(task.task_id, task.round, task.pair, task.repeat, choice_code(choice), who, *numbers)


def choice_code(value: Any, name: str = "choice") -> int:
    """0 to 3 as an int; TypeError for what is no integer, ValueError for what is no choice."""
    code = _integer(value, name)
    if not 0 <= code < len(CHOICES):
        raise ValueError(f"{name}={code}: allowed are {', '.join(f'{k} ({word})' for k, word in enumerate(CHOICES))}")
    return code


def annotator_number(value: Any, name: str = "annotator") -> int:
    """An annotator's number as an int, exactly; whole floats count, as data frames make them of integers.

    Raises:
        TypeError: what is no number.
        ValueError: not whole, or outside of 0 to LARGEST_ANNOTATOR.
    """
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} {value!r} found; expected a number from 0 to {LARGEST_ANNOTATOR}")
    if not 0 <= value <= LARGEST_ANNOTATOR or value != int(value):
        raise ValueError(
            f"{name} {value!r} found; expected a number from 0 to {LARGEST_ANNOTATOR}, whole: the annotator's place in "
            "a list of all of them (None where nobody is named)"
        )
    return int(value)


def pair_rows(pairs: Any) -> Any:
    """Pairs as (n, 3) int32, traced or not; ValueError for others: rows cut, rounded or wrapped would be other pairs.

    Values of a traced array of more than 32 bits cannot be looked at; keep those within int32.
    """
    pairs = pairs if hasattr(pairs, "dtype") else np.asarray(pairs)
    if pairs.size == 0:
        return np.zeros((0, 3), np.int32)
    if pairs.ndim != 2 or pairs.shape[1] != 3 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"pairs: shape {pairs.shape} of {pairs.dtype} found; expected (n, 3) integers (p, i, j)")
    if not np.can_cast(pairs.dtype, np.int32) and not _is_traced(pairs):
        worst = max((int(pairs.max()), int(pairs.min())), key=abs)
        if not -LARGEST_INDEX <= worst <= LARGEST_INDEX:
            raise ValueError(f"pairs: {worst} found; indices are from 0 to {LARGEST_INDEX} (int32)")
    return pairs.astype(np.int32)


def check_record(record: LabelRecord) -> None:
    """TypeError or ValueError for what is no label: what is stored stays, so it is looked at before."""
    check_kinds(record)
    p, i, j = record.pair
    if min(record.round, p, i, record.repeat) < 0 or i >= j:
        raise ValueError(f"record: {record} is of no pair (p, i, j), 0 <= p, 0 <= i < j, or has a negative number")
    if max(p, j) > LARGEST_INDEX:
        raise ValueError(f"record.pair={record.pair}: indices are from 0 to {LARGEST_INDEX}")
    annotator_number(record.annotator, "record.annotator")
    choice_code(record.choice, "record.choice")
    for name in ("seconds", "confidence"):
        _finite_or_none(getattr(record, name), f"record.{name}")


def check_kinds(record: LabelRecord) -> None:
    """TypeError where a record is none, or holds a text or a fraction where an integer belongs."""
    if not isinstance(record, LabelRecord):
        raise TypeError(f"record: {type(record).__name__} found; expected LabelRecord (`answered` makes them)")
    if not isinstance(record.task_id, str):
        raise TypeError(f"record.task_id: {record.task_id!r} found; expected a text")
    numbers = (record.round, *record.pair, record.repeat, record.choice, record.annotator)
    if len(record.pair) != 3 or not all(_is_integer(number) for number in numbers):
        raise TypeError(f"record: {record} has something that is no integer where one is expected")


def check_tasks(tasks: Iterable[Task], ids: Sequence[Any] | np.ndarray | None = None) -> None:
    """Refuse a task that is not what its id says: the prompts changed, or their order did, since it was made.

    Args:
        tasks: as stored.
        ids: what names the prompts now, as given to `make_tasks`.

    Raises:
        ValueError: a task whose id is not that of its prompt, completions and repeat.

    Source: derived; checked by tests/preference/labels/test_tasks.py.
    """
    for task in tasks:
        p, i, j = task.pair
        if ids is not None and p >= len(ids):
            raise ValueError(f"task {task.task_id}: prompt {p} found; there are {len(ids)} prompts now")
        name = task_id(p if ids is None else ids[p], i, j, task.repeat)
        if task.task_id not in (name, name.removeprefix(LETTER)):
            raise ValueError(
                f"task {task.task_id}: is not of prompt {p}, completions {i} and {j}; the pool has changed since the "
                "task was made. Labels belong to the pool they were given for"
            )


def _coin(seed: int, name: str) -> bool:
    digits = name.removeprefix(LETTER)  # a task that was made before ids had a letter keeps its order
    return bool(hashlib.sha256(f"{seed} {digits}".encode()).digest()[0] & 1)


def _round_number(value: Any) -> int:
    number = _integer(value, "round")
    if number < 0:
        raise ValueError(f"round={number}: rounds are numbered from 0")
    return number


def _integer(value: Any, name: str) -> int:
    value = value.item() if hasattr(value, "item") else value
    if not _is_integer(value):
        raise TypeError(f"{name}={value!r}: expected an integer")
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _finite_or_none(value: Any, name: str) -> float | None:
    """The number as it is: NaN has no place in JSON, and a missing number is None."""
    if value is None:
        return None
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(f"{name}: {number!r} found; expected a number, or None where it is not known")
    if not abs(number) <= sys.float_info.max:  # false of NaN too
        raise ValueError(f"{name}: {number!r} found; expected a finite number, or None where it is not known")
    return value


def _is_traced(array: Any) -> bool:
    if isinstance(array, np.ndarray):
        return False
    from jaxdesign._arrays import is_traced  # loads jax, which whoever has another array has loaded

    return is_traced(array)
