"""Pieces of Markdown and the numbers in them: tables, hardware, a few digits, limits."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; every row must have a cell for every column."""
    rows = [list(map(str, row)) for row in rows]
    if any(len(row) != len(head) for row in rows):
        raise ValueError(f"rows of {sorted({len(row) for row in rows})} cells under {len(head)} columns")
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def hardware(machine: dict[str, Any], file: str) -> str:
    """What a table was measured on, and the file it is made from."""
    device = f"one {machine['device']}, " if machine["backend"] != "cpu" else ""
    chip = f"{machine['cpu'].replace('(R)', '')}, {machine['cores']} cores"
    versions = f"Python {machine['python']}, JAX {machine['jax']}"
    return f"*{device}{chip}; {versions}; [`results/{file}.json`](results/{file}.json).*"


def digits(x: float, count: int = 2) -> str:
    """x to so many significant digits, without an exponent: 0.0123, 4.0, 250; 1,234,567 whole."""
    if x == 0:
        return "0"
    rounded = float(f"{x:.{count - 1}e}")
    exponent = int(f"{abs(rounded):e}".split("e")[1])
    return f"{rounded:,.{max(0, count - 1 - exponent)}f}"


def seconds(row: dict[str, float]) -> str:
    """Median with the smallest and largest of warm calls."""
    if row["min"] == row["max"]:
        return digits(row["median"])
    return f"{digits(row['median'])} ({digits(row['min'])} to {digits(row['max'])})"


def milliseconds(x: float) -> str:
    """Seconds as milliseconds."""
    return digits(1e3 * x)


def percent(x: float, places: int = 0) -> str:
    return f"{100 * x:.{places}f}%"


def share(x: float) -> str:
    """An efficiency, rounded down so that nothing is called better than it is: 0.9998 of 0.99985; 1 - 7e-7 near 1."""
    if x == 1:
        return "1"
    if 1 - x >= 1e-4:
        return f"{math.floor(x * 1e4) / 1e4:.4f}"
    power = math.floor(math.log10(1 - x))
    digit = math.ceil((1 - x) / 10.0**power)
    return f"1 - {digit}e{power}" if digit < 10 else f"1 - 1e{power + 1}"


def limits(value: float, low: float, high: float, places: int = 2, sign: str = "") -> str:
    """A value with its 95% limits."""
    return f"{value:{sign}.{places}f} [{low:{sign}.{places}f}, {high:{sign}.{places}f}]"


def interval(found: Mapping[str, float], sign: str = "+") -> str:
    """{"mean", "low", "high"} in gains of J, with three places."""
    return limits(*(found[end] for end in ("mean", "low", "high")), places=3, sign=sign)


def wrapped(part: str) -> str:
    """Prose in lines of at most 120 characters; tables, headings, pictures and lists as they are."""
    if part.startswith(("|", "#", "!", "- ", "<")):
        return part
    return textwrap.fill(part, 120, break_long_words=False, break_on_hyphens=False)
