"""Results on disk: written to a temporary name and renamed, so that a run of an hour is not lost with its last seed."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdesign._files import write_whole

WHERE = ("json", "plot", "lines", "report")  # arguments that change no result


def write_json(results: dict[str, Any], file: str | None) -> None:
    """Write what there is so far; nothing where no file was asked for."""
    if file:
        part = Path(file).with_suffix(".part")
        part.write_text(json.dumps(plain(results), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(file)


def plain(value: Any) -> Any:
    """NumPy's numbers as Python's; NaN and inf, which JSON does not know, as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """The arguments that decide results, which those that say where to write them do not; of files the name alone."""
    return {name: _name(value) for name, value in vars(given).items() if name not in WHERE}


def _name(value: Any) -> Any:
    return Path(value).name if isinstance(value, str | Path) else value


def read_json(file: str | Path) -> dict[str, Any]:
    """What `write_json` wrote."""
    return json.loads(Path(file).read_text(encoding="utf-8"))


def append_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """JSON lines at the end of a file, all of them or none: the file is written anew and renamed."""
    before = path.read_bytes() if path.exists() else b""
    write_whole(path, before + "".join(json.dumps(plain(line)) + "\n" for line in lines).encode())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
