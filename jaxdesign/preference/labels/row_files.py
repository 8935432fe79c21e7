"""Rows in files that people and programs exchange: JSON lines or CSV, UTF-8.

Written whole or not at all, and never over something else without a word. Read so that no bad row hides another: what
spoils the whole file (its encoding, its columns) is raised, with advice; what spoils one row stands in its place.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxdesign._checks import check_different
from jaxdesign._files import write_whole

SUFFIXES = (".jsonl", ".csv")
UTF_8 = "save it as UTF-8 (spreadsheets call it 'CSV UTF-8')"
_CSV_LIMIT = threading.Lock()


def check_suffix(path: Path) -> None:
    """ValueError for a file that is neither .jsonl nor .csv."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: suffix {path.suffix!r} is not known; use {' or '.join(SUFFIXES)}")


def write_rows(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str], overwrite: bool) -> None:
    """Write rows of these columns. Half a surrogate pair, which a text may hold and a file may not, becomes \\uXXXX.

    Args:
        path: .jsonl or .csv; a file that holds the same already is left as it is.
        rows: dicts with these columns.
        columns: their order, and the header of a CSV file.
        overwrite: replace a file that holds something else.

    Raises:
        ValueError: another suffix.
        FileExistsError: the file exists with something else in it, and overwrite is False.
        FileNotFoundError: its folder does not exist.
    """
    check_suffix(path)
    data = _as_text(rows, columns, path.suffix.lower()).encode("utf-8", "backslashreplace")
    if path.exists() and not overwrite:
        if path.read_bytes() == data:
            return
        raise FileExistsError(
            f"{path}: exists already, with something else in it; choose another path or overwrite=True"
        )
    write_whole(path, data)


def read_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Every row with the number of its first line: a dict without what is absent, or a sentence on what is wrong.

    Args:
        path: .jsonl, an object per line, or .csv with a header.
        needed: columns without which no row of a CSV file can be read.

    Raises:
        ValueError: another suffix or encoding; a header without the needed columns, or with one of them twice.
    """
    check_suffix(path)
    text = _text(path)
    return _csv_rows(path.name, text, needed) if path.suffix.lower() == ".csv" else _json_rows(text)


def _as_text(rows: Sequence[dict[str, Any]], columns: Sequence[str], suffix: str) -> str:
    if suffix != ".csv":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _text(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:2]:
        raise ValueError(f"{path.name}: is UTF-16 text; {UTF_8}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path.name}, line {line}: byte 0x{data[error.start]:02x} is no UTF-8 (perhaps cp1252, from Windows); "
            f"{UTF_8}"
        ) from error


def _csv_rows(name: str, text: str, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    rows = [(line, cells) for line, cells in _cells(text) if isinstance(cells, str) or any(map(str.strip, cells))]
    if not rows:
        return iter(())
    line, header = rows[0]
    if isinstance(header, str):
        raise ValueError(f"{name}, line {line}: {header}")
    columns = [cell.strip() for cell in header]
    lacking = [column for column in needed if column not in columns]
    if lacking:
        mark = next((mark for mark in (";", "\t") if mark in header[0]), None)
        if len(header) == 1 and mark:
            raise ValueError(f"{name}: columns are separated by {mark!r}; save it with commas (comma-separated CSV)")
        raise ValueError(f"{name}: has no {' and no '.join(lacking)}; found are {columns}")
    check_different([column for column in columns if column], f"{name}, columns", "each may occur once")
    return ((line, _named(columns, cells)) for line, cells in rows[1:])


def _named(columns: list[str], cells: list[str] | str) -> dict[str, Any] | str:
    if isinstance(cells, str):
        return cells
    if any(map(str.strip, cells[len(columns) :])):
        return f"has {len(cells)} cells for {len(columns)} columns; put texts that hold commas in quotation marks"
    return {column: cell for column, cell in zip(columns, cells, strict=False) if column and cell.strip()}


def _cells(text: str) -> list[tuple[int, list[str] | str]]:
    """First lines and cells of all rows, however long a cell is.

    The csv module's limit of 131,072 characters belongs to the whole process, so it is lifted for this call alone.
    Quotation marks are read strictly: leniently, one that is never closed swallows the rows after it without a word.
    """
    rows: list[tuple[int, list[str] | str]] = []
    with _CSV_LIMIT:
        before = csv.field_size_limit(2**31 - 1)
        try:
            reader = csv.reader(io.StringIO(text, newline=""), strict=True)
            while True:
                line = reader.line_num + 1
                try:
                    rows.append((line, next(reader)))
                except StopIteration:
                    return rows
                except csv.Error as error:
                    to = f", lines {line} to {reader.line_num} read as one" if reader.line_num > line else ""
                    rows.append((line, f"has a quotation mark that is not closed, or not doubled ({error}{to})"))
        finally:
            csv.field_size_limit(before)


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _object(line)


def _object(line: str) -> dict[str, Any] | str:
    try:
        row = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # ValueError: also a name twice, and integers of too many digits
        return f"is no JSON ({error})"
    if not isinstance(row, dict):
        return f"{type(row).__name__} found; expected an object per line"
    return {key: value for key, value in row.items() if value is not None}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    check_different([key for key, _ in pairs], "names", "each may occur once")
    return dict(pairs)
