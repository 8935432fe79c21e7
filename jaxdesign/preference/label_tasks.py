"""Label tasks: one comparison that somebody is asked for, and the label that answers it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

CHOICES = ("first", "second", "tie", "skip")  # words of the codes 0 to 3 of `labels`, which takes them from here


class Task(NamedTuple):
    """One label that is wanted.

    Args:
        task_id: `task_id` of prompt, i, j and repeat: the same in every run.
        round: the round that asks for it, from 0.
        pair: (p, i, j), i < j, into the pool.
        repeat: the number of this task among those of its pair, from 0.
        annotator: who is to label it, from 0; None for anybody.
        swapped: whether it is shown the other way round (completion j as response a), against position bias.
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
        annotator: who gave it, from 0.
        seconds: how long it took, or None.
        confidence: of the annotator, in units of their own, or None.
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
    """Stable name of a task: the first 20 hexadecimal digits of SHA-256 of the JSON list [prompt, i, j, repeat].

    Args:
        prompt: what names the prompt whatever the pool's order: its id or its text; else its index.
        i, j: the completions.
        repeat: the number of the label among those of its pair.

    Returns:
        20 characters; two of 10^9 tasks agree with probability below 10^-6.

    Raises:
        TypeError: a prompt that is no string and no number.
    """
    prompt = prompt.item() if isinstance(prompt, np.generic) else prompt
    if not isinstance(prompt, str | int):
        raise TypeError(f"prompt: {type(prompt).__name__} found; expected its id or text (str) or its index (int)")
    text = json.dumps([prompt, int(i), int(j), int(repeat)], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def make_tasks(
    round: int,
    pairs: Any,
    labels: Any = None,
    *,
    ids: Sequence | None = None,
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
        ValueError: rows that are no pair, numbers of labels that are not whole, lengths that differ, ids that repeat.
    """
    pairs = np.asarray(pair_rows(pairs))
    counts = np.ones(len(pairs)) if labels is None else np.asarray(labels, dtype=np.float64)
    who = [None] * len(pairs) if annotators is None else np.asarray(annotators).tolist()
    if counts.shape != (len(pairs),) or len(who) != len(pairs):
        raise ValueError(f"labels: {counts.shape} and {len(who)} annotators found for {len(pairs)} pairs; one each")
    bad = ~np.isfinite(counts) | (counts != np.round(counts)) | (counts < 0)
    if bad.any():
        raise ValueError(f"labels: {counts[bad][0]:g} found; whole numbers only")
    if ids is not None and len(pairs) and pairs[:, 0].max() >= len(ids):
        raise ValueError(f"pairs: prompt {pairs[:, 0].max()} found; there are {len(ids)} ids")
    if ids is not None and len(set(map(str, ids))) < len(ids):
        name, times = Counter(map(str, ids)).most_common(1)[0]
        raise ValueError(f"ids: {name} found {times} times; tasks are named by the prompt's id, so ids must differ")
    used = Counter(task.pair for task in earlier)
    tasks = []
    for row, count, annotator in zip(pairs.tolist(), counts.astype(int), who, strict=True):
        p, i, j = pair = tuple(int(part) for part in row)
        if not (0 <= p and 0 <= i < j):
            raise ValueError(f"pairs: {list(pair)} found; a pair is (p, i, j) with 0 <= p and 0 <= i < j")
        for _ in range(count):
            name = task_id(p if ids is None else ids[p], i, j, used[pair])
            swapped = swap_seed is not None and _coin(swap_seed, name)
            tasks.append(Task(name, int(round), pair, used[pair], annotator, swapped))
            used[pair] += 1
    return tasks


def answered(
    task: Task, choice: int, annotator: int | None = None, seconds: float | None = None, confidence: float | None = None
) -> LabelRecord:
    """The record of a label of this task.

    Args:
        task: the task.
        choice: code about (i, j), not about the order it was shown in (see `label_files` for that).
        annotator: who gave it; None for whom the task names, and 0 where it names nobody.
        seconds, confidence: as in `LabelRecord`.

    Returns:
        LabelRecord.

    Raises:
        ValueError: a choice that does not exist.
    """
    choice = int(choice)
    if not 0 <= choice < len(CHOICES):
        raise ValueError(f"choice={choice}: allowed are {', '.join(f'{k} ({word})' for k, word in enumerate(CHOICES))}")
    annotator = task.annotator if annotator is None else annotator
    who = 0 if annotator is None else int(annotator)
    return LabelRecord(task.task_id, task.round, task.pair, task.repeat, choice, who, seconds, confidence)


def pair_rows(pairs: Any) -> Any:
    """Pairs as (n, 3) int32, traced or not; ValueError for others: rows cut or rounded would be other pairs."""
    pairs = pairs if hasattr(pairs, "dtype") else np.asarray(pairs)
    if pairs.size == 0:
        return np.zeros((0, 3), np.int32)
    if pairs.ndim != 2 or pairs.shape[1] != 3 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"pairs: shape {pairs.shape} of {pairs.dtype} found; expected (n, 3) integers (p, i, j)")
    return pairs.astype(np.int32)


def check_record(record: LabelRecord) -> None:
    """TypeError or ValueError for what is no label: what is stored stays, so it is looked at before."""
    if not isinstance(record, LabelRecord):
        raise TypeError(f"record: {type(record).__name__} found; expected LabelRecord (`answered` makes them)")
    numbers = (record.round, *record.pair, record.repeat, record.choice, record.annotator)
    if len(record.pair) != 3 or not all(isinstance(number, int | np.integer) for number in numbers):
        raise TypeError(f"record: {record} has something that is no integer where one is expected")
    _, i, j = record.pair
    if min(numbers) < 0 or i >= j:
        raise ValueError(f"record: {record} is of no pair (p, i, j), 0 <= p, 0 <= i < j, or has a negative number")
    if record.choice >= len(CHOICES):
        allowed = ", ".join(f"{k} ({word})" for k, word in enumerate(CHOICES))
        raise ValueError(f"record.choice={record.choice}: allowed are {allowed}")


def check_tasks(tasks: Iterable[Task], ids: Sequence | None = None) -> None:
    """ValueError where a task is not what its id says: the prompts changed, or their order did, since it was made.

    Args:
        tasks: as stored.
        ids: what names the prompts now, as given to `make_tasks`.
    """
    for task in tasks:
        p, i, j = task.pair
        if ids is not None and p >= len(ids):
            raise ValueError(f"task {task.task_id}: prompt {p} found; there are {len(ids)} prompts now")
        if task.task_id != task_id(p if ids is None else ids[p], i, j, task.repeat):
            raise ValueError(
                f"task {task.task_id}: is not of prompt {p}, completions {i} and {j}; the pool has changed since the "
                "task was made. Labels belong to the pool they were given for"
            )


def _coin(seed: int, name: str) -> bool:
    return bool(hashlib.sha256(f"{seed} {name}".encode()).digest()[0] & 1)
