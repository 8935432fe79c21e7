"""Results on disk: written to a temporary name and renamed, so that a run of an hour is not lost with its last seed."""

import argparse
import json
from pathlib import Path
from typing import Any


def write_json(results: dict[str, Any], file: str | None) -> None:
    """Write what there is so far; nothing where no file was asked for."""
    if file:
        part = Path(file).with_suffix(".part")
        part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        part.replace(file)


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """The arguments that decide results, which those that say where to write them do not."""
    return {name: value for name, value in vars(given).items() if name not in ("json", "plot")}
