"""Label tasks out to people and their labels back: JSON lines or CSV, with the order of showing undone.

Out: task_id, prompt, response_a, response_b, annotator. Back: task_id, choice in {a, b, tie, skip}, and where known
annotator, seconds, confidence; further columns are left alone.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdesign._checks import check_different
from jaxdesign.preference.labels.row_files import read_rows, write_rows
from jaxdesign.preference.labels.tasks import LETTER, LabelRecord, Task, annotator_number, answered

COLUMNS = ("task_id", "prompt", "response_a", "response_b", "annotator")
NEEDED = ("task_id", "choice")
WORDS = {"a": 0, "b": 1, "tie": 2, "skip": 3}  # codes where the task was shown in the order of its pair
LISTED = 50  # faults of a file that a message lists


def write_tasks(
    path: str | os.PathLike[str],
    tasks: Iterable[Task],
    prompts: Sequence[str],
    completions: Sequence[Sequence[str]],
    *,
    annotators: Sequence[str] | None = None,
    overwrite: bool = False,
) -> int:
    """Write tasks to be labelled, each with its texts in the order it is to be shown in.

    Args:
        path: .jsonl or .csv, UTF-8; written whole or not at all.
        tasks: of a round.
        prompts: (P,) texts.
        completions: texts of each prompt's completions.
        annotators: their names, which differ; None to write numbers.
        overwrite: replace a file that holds something else (people may have written their answers into it). Writing
            the same tasks again does nothing.

    Returns:
        Number of tasks.

    Raises:
        ValueError: another suffix, a task of a prompt or completion without a text, or of an annotator without a name.
        FileExistsError: the file exists with something else in it.
        FileNotFoundError: its folder does not.

    Source: derived; checked by tests/preference/labels/test_task_files.py and test_files_on_disk.py beside it.
    """
    path, rows = Path(path), []
    names = None if annotators is None else list(_numbers(annotators))
    for task in tasks:
        p, i, j = task.pair
        if p >= len(prompts) or j >= len(completions[p]):
            raise ValueError(f"task {task.task_id}: there is no text for prompt {p}, completions {i} and {j}")
        shown = (j, i) if task.swapped else (i, j)
        texts = [prompts[p], *(completions[p][k] for k in shown)]
        rows.append(dict(zip(COLUMNS, [task.task_id, *texts, _name(task, names)], strict=True)))
    write_rows(path, rows, COLUMNS, overwrite)
    return len(rows)


def read_answers(
    path: str | os.PathLike[str],
    tasks: Iterable[Task],
    *,
    annotators: Sequence[str] | None = None,
    words: Mapping[Any, str] | None = None,
    on_fault: Callable[[str], Any] | None = None,
) -> list[LabelRecord]:
    """Read labels that came back, about the pair (i, j) whichever way round it was shown.

    Args:
        path: .jsonl or .csv with one label per line.
        tasks: those that were sent out; further ones do no harm.
        annotators: names of the annotators, which differ and whose places in the list are their numbers; None where
            numbers are written, 0 to `tasks.LARGEST_ANNOTATOR`.
        words: what else the file says for a choice: {"left": "a", "right": "b", "equal": "tie"}; upper and lower case
            are the same, and so are 1, "1" and 1.0.
        on_fault: called with one sentence for every bad row, which is then left out (`faults.append`, `print`,
            `warnings.warn`). None: the good rows are not given either, so that none of the others is forgotten.

    Returns:
        Records in the order of the file, for `LabelStore.append`; `LabelStore.not_held` leaves out known ones.

    Raises:
        TypeError: names or words that are no texts.
        ValueError: telling of every bad row with its line: no such task, choice, annotator or number; a task for
            another annotator; a task that the same annotator has answered before. And, whatever `on_fault`, for a file
            in another encoding, without its columns, or with other separators.

    Source: derived; checked by tests/preference/labels/test_task_files.py and test_answer_faults.py beside it.
    """
    path = Path(path)
    known = {task.task_id: task for task in tasks}
    names, vocabulary = None if annotators is None else _numbers(annotators), _vocabulary(words)
    records, faults, lines = [], [], {}
    for line, row in read_rows(path, NEEDED):
        try:
            record = _record(row, known, names, vocabulary)
            first = lines.setdefault((record.task_id, record.annotator), line)
            if first != line:
                raise ValueError(
                    f"task {record.task_id} was answered by annotator {record.annotator} on line {first} already; keep "
                    "one of the two, or say who gave each label"
                )
        except (TypeError, ValueError) as error:
            faults.append(f"{path.name}, line {line}: {error}")
        else:
            records.append(record)
    if on_fault is not None:
        for fault in faults:
            on_fault(fault)
    elif faults:
        raise ValueError(_summarised(faults, len(records)))
    return records


def _name(task: Task, names: list[str] | None) -> str | int | None:
    if names is None or task.annotator is None:
        return task.annotator
    if not 0 <= task.annotator < len(names):
        raise ValueError(
            f"task {task.task_id}: is for annotator {task.annotator}; there are {len(names)} names, from 0"
        )
    return names[task.annotator]


def _numbers(annotators: Sequence[str]) -> dict[str, int]:
    """Number of every name, checked."""
    if isinstance(annotators, str) or not all(isinstance(name, str) for name in annotators):
        raise TypeError(f"annotators: {annotators!r} found; expected a list of names, which are texts")
    check_different(annotators, "annotators", "names must differ, as the place in the list is the annotator's number")
    return {name: number for number, name in enumerate(annotators)}


def _vocabulary(words: Mapping[Any, str] | None) -> dict[str, int]:
    found = dict(WORDS)
    for word, choice in (words or {}).items():
        if not isinstance(choice, str) or choice not in WORDS:
            raise ValueError(f"words: {word!r} stands for {choice!r}; allowed are {', '.join(WORDS)}")
        if found.setdefault(_plain(word), WORDS[choice]) != WORDS[choice]:
            raise ValueError(f"words: {word!r} stands for two things, {choice!r} is one of them; give it one meaning")
    return found


def _plain(word: Any) -> str:
    return str(word).strip().lower().removesuffix(".0")


def _summarised(faults: list[str], good: int) -> str:
    if len(faults) == 1 and not good:
        return faults[0]
    more = [f"and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
    last = f"({len(faults)} such row(s); to have the other {good}, pass on_fault, which is called with each)"
    return "\n".join([*faults[:LISTED], *more, last])


def _record(row: dict | str, known: dict, names: dict | None, vocabulary: dict) -> LabelRecord:
    if isinstance(row, str):
        raise ValueError(row)
    for column in NEEDED:
        if column not in row:
            raise ValueError(f"has no {column}; found are {sorted(row)}")
    task = _task(row["task_id"], known)
    code = vocabulary.get(_plain(row["choice"]))
    if code is None:
        raise ValueError(f"choice {row['choice']!r} found; allowed are {', '.join(vocabulary)}")
    code = code ^ 1 if task.swapped and code in (WORDS["a"], WORDS["b"]) else code
    seconds, confidence = (_number(row.get(column), column) for column in ("seconds", "confidence"))
    who = _annotator(row.get("annotator"), names)
    if who is not None and task.annotator is not None and who != task.annotator:
        raise ValueError(f"annotator {row['annotator']!r} found; the task is for number {task.annotator}")
    return answered(task, code, who, seconds, confidence)


def _task(name: Any, known: dict[str, Task]) -> Task:
    if not isinstance(name, str):
        raise ValueError(f"task_id {name!r} is no text; expected it as it was written out")
    name = name.strip()
    task = known.get(name) or known.get(LETTER + name)  # sent out before ids had a letter
    if task is None:
        raise ValueError(f"task_id {name!r} is none of the {len(known)} tasks given")
    return task


def _annotator(value: Any, names: dict[str, int] | None) -> int | None:
    if value is None:
        return None
    if names is None:
        if isinstance(value, str):
            if not re.fullmatch(r"[0-9]{1,30}(\.0*)?", value.strip()):
                raise ValueError(
                    f"annotator {value!r} found; expected a number; give `annotators`, names in order of their numbers"
                )
            value = int(value.strip().split(".")[0])  # never through a float, which would round it to another
        return annotator_number(value)
    if not isinstance(value, str):
        kind = "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
        raise ValueError(f"annotator {value!r} is a {kind} and names are texts; write the name, in quotation marks")
    number = names.get(value, names.get(value.strip()))
    if number is None:
        shown = [*names][:10] + ["..."] * (len(names) > 10)
        raise ValueError(f"annotator {value!r} found; known are {', '.join(shown)}")
    return number


def _number(value: Any, column: str) -> float | None:
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{column} {value!r} found; expected a number")
    return number
