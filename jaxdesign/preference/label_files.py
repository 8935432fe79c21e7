"""Label tasks out to people and their labels back: JSON lines or CSV, with the order of showing undone.

Out: task_id, prompt, response_a, response_b, annotator. Back: task_id, choice in {a, b, tie, skip}, and where known
annotator, seconds, confidence; further columns are left alone.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxdesign.preference.label_tasks import LabelRecord, Task, answered

SUFFIXES = (".jsonl", ".csv")
COLUMNS = ("task_id", "prompt", "response_a", "response_b", "annotator")
WORDS = {"a": 0, "b": 1, "tie": 2, "skip": 3}  # codes where the task was shown in the order of its pair


def write_tasks(
    path: str | os.PathLike,
    tasks: Iterable[Task],
    prompts: Sequence[str],
    completions: Sequence[Sequence[str]],
    *,
    annotators: Sequence[str] | None = None,
) -> int:
    """Write tasks to be labelled, each with its texts in the order it is to be shown in.

    Args:
        path: .jsonl or .csv; written to a temporary name and renamed.
        tasks: of a round.
        prompts: (P,) texts.
        completions: texts of each prompt's completions.
        annotators: their names; None to write numbers.

    Returns:
        Number of tasks.

    Raises:
        ValueError: another suffix, a task of a prompt or completion without a text.
    """
    path, rows = Path(path), []
    _check_suffix(path)
    for task in tasks:
        p, i, j = task.pair
        if p >= len(prompts) or j >= len(completions[p]):
            raise ValueError(f"task {task.task_id}: there is no text for prompt {p}, completions {i} and {j}")
        shown = (j, i) if task.swapped else (i, j)
        texts = [prompts[p], *(completions[p][k] for k in shown)]
        who = task.annotator if annotators is None or task.annotator is None else annotators[task.annotator]
        rows.append(dict(zip(COLUMNS, [task.task_id, *texts, who], strict=True)))
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".csv":
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    os.replace(temporary, path)
    return len(rows)


def read_answers(
    path: str | os.PathLike, tasks: Iterable[Task], *, annotators: Sequence[str] | None = None
) -> list[LabelRecord]:
    """Read labels that came back, about the pair (i, j) whichever way round it was shown.

    Args:
        path: .jsonl or .csv with one label per line.
        tasks: those that were sent out; further ones do no harm.
        annotators: names of the annotators, whose places in the list are their numbers; None where numbers are written.

    Returns:
        Records in the order of the file, for `LabelStore.append`; `LabelStore.not_held` leaves out known ones.

    Raises:
        ValueError: naming file and line: no such task, choice, annotator or number; a task for another annotator.
    """
    path = Path(path)
    _check_suffix(path)
    known = {task.task_id: task for task in tasks}
    names = None if annotators is None else {name: number for number, name in enumerate(annotators)}
    return [_record(row, known, names, f"{path.name}, line {line}") for line, row in _rows(path)]


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: suffix {path.suffix!r} is not known; use {' or '.join(SUFFIXES)}")


def _rows(path: Path):
    """Line numbers and dicts; empty cells count as absent."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() == ".csv":
            reader = csv.DictReader(file)
            for row in reader:
                yield reader.line_num, {key: value for key, value in row.items() if value not in ("", None)}
            return
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path.name}, line {number}: is no JSON ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path.name}, line {number}: {type(row).__name__} found; expected an object per line")
            yield number, {key: value for key, value in row.items() if value is not None}


def _record(row: dict, known: dict, names: dict | None, where: str) -> LabelRecord:
    for column in ("task_id", "choice"):
        if column not in row:
            raise ValueError(f"{where}: has no {column}; found are {sorted(map(str, row))}")
    task = known.get(row["task_id"])
    if task is None:
        raise ValueError(f"{where}: task_id {row['task_id']!r} is none of the {len(known)} tasks given")
    word = str(row["choice"]).strip().lower()
    if word not in WORDS:
        raise ValueError(f"{where}: choice {row['choice']!r} found; allowed are {', '.join(WORDS)}")
    code = WORDS[word] ^ 1 if task.swapped and word in ("a", "b") else WORDS[word]
    seconds, confidence = (_number(row.get(column), column, where) for column in ("seconds", "confidence"))
    who = _annotator(row.get("annotator"), names, where)
    if who is not None and task.annotator is not None and who != task.annotator:
        raise ValueError(f"{where}: annotator {row['annotator']!r} found; the task is for number {task.annotator}")
    return answered(task, code, who, seconds, confidence)


def _annotator(value: Any, names: dict | None, where: str) -> int | None:
    if value is None:
        return None
    if names is not None:
        if value not in names:
            raise ValueError(f"{where}: annotator {value!r} found; known are {', '.join(map(str, names))}")
        return names[value]
    number = _number(value, "annotator", where)
    if number != int(number) or number < 0:
        raise ValueError(f"{where}: annotator {value!r} found; expected a number from 0, or give `annotators` names")
    return int(number)


def _number(value: Any, column: str, where: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        hint = "; give `annotators`, the names in order of their numbers" if column == "annotator" else ""
        raise ValueError(f"{where}: {column} {value!r} found; expected a number{hint}")
    return number
