"""The answer to a disk, or to another one where the first refuses: minutes of work are not lost to a full disk."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdesign.cli.words import message_of
from jaxdesign.io.design_files import write_selection


class Saved(NamedTuple):
    """Where the files are, None where there are none, and whether that is where they were wanted."""

    tasks: Path | None
    report: Path | None
    as_asked: bool


def save(path: str, rows: Sequence[Mapping[str, Any]], report: Mapping[str, Any], overwrite: bool) -> Saved:
    """Write tasks and report; where the disk refuses, into the folder for temporary files, else the tasks to stdout."""
    try:
        return Saved(*write_selection(path, rows, report, overwrite), True)
    except OSError as error:
        refused = message_of(error)
    try:
        found = _in_temporary_folder(Path(path).name, rows, report)
    except OSError as error:
        _complain(f"{refused}; {message_of(error)}; the tasks follow on standard output")
        for row in rows:
            print(json.dumps(row))
        sys.stdout.flush()
        return Saved(None, None, False)
    _complain(f"{refused}; the answer was written to another place: {found[0].parent}")
    return Saved(*found, False)


def _in_temporary_folder(name: str, rows, report) -> tuple[Path, Path]:
    folder = Path(tempfile.mkdtemp(prefix="jaxdesign-"))
    try:
        return write_selection(folder / name, rows, report)
    except OSError:
        folder.rmdir()
        raise


def _complain(what: str) -> None:
    print(f"jaxdesign: error: {what}", file=sys.stderr)
