"""A selection written to files: the chosen pairs or their tasks (.jsonl or .csv), beside them a report (.json)."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import enum
import io
import json
import math
import os
import secrets
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdesign.io.pool_files import PoolFile

SUFFIXES = (".jsonl", ".csv")
COLUMNS = ("prompt_id", "prompt", "i", "j", "labels", "prompt_text", "response_i", "response_j")
TASK_COLUMNS = (
    "task_id",
    "prompt_id",
    "prompt",
    "i",
    "j",
    "repeat",
    "a",
    "b",
    "prompt_text",
    "response_a",
    "response_b",
)
_REQUIRED = COLUMNS[1:5]


def report_path(path: str | Path) -> Path:
    """Where the report of the pairs file `path` goes: the same name with the suffix .json.

    Args:
        path: of the pairs file.

    Returns:
        Path.

    Raises: nothing.

    Source: derived; checked by tests/io/test_selections.py.
    """
    return Path(path).with_suffix(".json")


def check_writable(path: str | Path, overwrite: bool = False) -> None:
    """Raises unless `path` and the report beside it can be written; call it before the work, not after.

    Args:
        path: pairs file to be, .jsonl or .csv.
        overwrite: allow either file to exist already.

    Raises:
        ValueError: any other suffix.
        FileExistsError: the pairs file or the report exists and overwrite is False.
        IsADirectoryError: one of them is a directory.
        FileNotFoundError, NotADirectoryError, PermissionError: its directory is missing, not one, or not writable.

    Source: derived; checked by tests/io/test_selections.py.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: suffix {path.suffix!r} is not known; pairs are written to {' or '.join(SUFFIXES)}")
    directory = path.parent
    if not directory.exists():
        raise FileNotFoundError(f"{directory}: the directory of {path.name} does not exist; create it first")
    if not directory.is_dir():
        raise NotADirectoryError(
            f"{directory}: is not a directory, so {path.name} cannot be in it; choose another path"
        )
    for file in (path, report_path(path)):
        if file.is_dir():
            raise IsADirectoryError(f"{file}: is a directory; choose another path")
        if not overwrite and os.path.lexists(file):
            raise FileExistsError(f"{file}: exists already; choose another path, remove it, or pass overwrite=True")
    try:  # by trying, because permission bits do not tell of read-only file systems
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise PermissionError(f"{directory}: cannot be written to ({error.strerror}); choose another path") from error


def selection_rows(
    pairs: np.ndarray, labels: np.ndarray | Sequence[float], pool: PoolFile | None = None
) -> list[dict[str, Any]]:
    """One row per chosen pair, in the order given, with the texts that the pool file knows.

    Args:
        pairs: (S, 3) integers (prompt, i, j), indices into the pool as it was read.
        labels: (S,) labels of each pair; written as integers if all are whole.
        pool: source of prompt_id, prompt_text, response_i and response_j; columns it lacks are left out.

    Returns:
        S dicts of plain Python values with the keys of COLUMNS, in that order.

    Raises:
        ValueError: pairs is not (S, 3) or labels not (S,).
        TypeError: pairs is not of an integer dtype.

    Source: derived; checked by tests/io/test_selections.py.
    """
    pairs, labels = np.asarray(pairs), np.asarray(labels)
    if pairs.ndim != 2 or pairs.shape[1] != 3 or labels.shape != pairs.shape[:1]:
        raise ValueError(f"pairs of shape {pairs.shape}, labels of shape {labels.shape}: must be (S, 3) and (S,)")
    if pairs.dtype.kind not in "iu":
        raise TypeError(f"pairs of dtype {pairs.dtype}: must be integers (prompt, i, j)")
    if np.array_equal(labels, np.rint(labels)):
        labels = labels.astype(np.int64)
    pool = pool or PoolFile()
    return [_row(p, i, j, count, pool) for (p, i, j), count in zip(pairs.tolist(), labels.tolist(), strict=True)]


def task_rows(tasks: Iterable[Any], pool: PoolFile | None = None) -> list[dict[str, Any]]:
    """One row per wanted label, in the order given: who is asked sees completion a first, then b.

    Args:
        tasks: as from `jaxdesign.preference.make_tasks`, whose ids name the same label in every run.
        pool: source of prompt_id, prompt_text, response_a and response_b; columns it lacks are left out.

    Returns:
        Dicts of plain Python values with the keys of TASK_COLUMNS, in that order; a and b are i and j, or j and i where
        the task is swapped.

    Raises: nothing of its own; what is no `Task` of the pool is an error of Python.

    Source: derived; checked by tests/io/test_selections.py.
    """
    pool = pool or PoolFile()
    return [_task_row(task, pool) for task in tasks]


def write_selection(
    path: str | Path, rows: Sequence[Mapping[str, Any]], report: Mapping[str, Any], overwrite: bool = False
) -> tuple[Path, Path]:
    """Writes the pairs to `path` and the report beside it, both in full under other names before either is renamed.

    Args:
        path: pairs file, .jsonl (one JSON object a line) or .csv (a header, then one line a pair), UTF-8.
        rows: as from `selection_rows` or `task_rows`; for .csv all with the same keys.
        report: certificate, settings, version, seed ...: dicts, sequences, strings, numbers, arrays, dataclasses, named
            tuples and enum members (written as their value). NaN and infinity become null, which JSON can hold.
        overwrite: replace existing files.

    Returns:
        The two paths written, pairs and report.

    Raises:
        Whatever `check_writable` raises; TypeError for a value that JSON cannot hold; OSError that names the file which
        could not be written (no space left, for instance), and then no half of the two is left.

    Numerics: floats are written with all their digits and read back unchanged.

    Source: derived; checked by tests/io/test_selections.py.
    """
    check_writable(path, overwrite)
    path = Path(path)
    pairs_text = _csv(rows) if path.suffix.lower() == ".csv" else "".join(_json(row) + "\n" for row in rows)
    # The report is renamed first, so that whoever waits for the pairs file finds its report there.
    _replace_together({report_path(path): _json(report, indent=2) + "\n", path: pairs_text})
    return path, report_path(path)


def _row(prompt: int, i: int, j: int, count: float, pool: PoolFile) -> dict[str, Any]:
    row: dict[str, Any] = {} if pool.ids is None else {"prompt_id": pool.ids[prompt]}
    row |= zip(_REQUIRED, (prompt, i, j, count), strict=True)
    if pool.prompts is not None:
        row["prompt_text"] = pool.prompts[prompt]
    if pool.completions is not None:
        row |= {"response_i": pool.completions[prompt][i], "response_j": pool.completions[prompt][j]}
    return row


def _task_row(task: Any, pool: PoolFile) -> dict[str, Any]:
    prompt, i, j = (int(part) for part in task.pair)
    shown = (j, i) if task.swapped else (i, j)
    row: dict[str, Any] = {"task_id": task.task_id} | ({} if pool.ids is None else {"prompt_id": pool.ids[prompt]})
    row |= {"prompt": prompt, "i": i, "j": j, "repeat": int(task.repeat)} | dict(zip("ab", shown, strict=True))
    if pool.prompts is not None:
        row["prompt_text"] = pool.prompts[prompt]
    if pool.completions is not None:
        row |= {f"response_{name}": pool.completions[prompt][index] for name, index in zip("ab", shown, strict=True)}
    return row


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else _REQUIRED, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """The value in terms of what JSON has: dict, list, str, int, float, bool, None."""
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if hasattr(value, "__array__"):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    raise TypeError(f"report or row value {value!r} of type {type(value).__name__}: cannot be written as JSON")


def _replace_together(texts: Mapping[Path, str]) -> None:
    """Writes every text under a temporary name in its own directory, and only then renames them, in order."""
    temporary = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.part") for path in texts}
    path, renamed = next(iter(texts)), []
    try:
        for path, text in texts.items():
            # newline="" keeps \r inside CSV texts; a lone surrogate, legal in JSON, is written as its \uXXXX escape
            with open(temporary[path], "x", encoding="utf-8", errors="backslashreplace", newline="") as file:
                file.write(text)
        for path in texts:
            os.replace(temporary[path], path)
            renamed.append(path)
    except OSError as error:  # a full disk is reported without a name, others with the temporary one
        for file in renamed:  # a report without its pairs
            file.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        for file in temporary.values():
            with contextlib.suppress(OSError):  # a disk that refuses may refuse this too; the reason is raised already
                file.unlink(missing_ok=True)
