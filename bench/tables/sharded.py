"""Tables of `python -m bench sharded`: what dividing a pool costs, and what devices exchange."""

from __future__ import annotations

from typing import Any

from bench.tables.markdown import digits, hardware, milliseconds, percent, seconds, table

FILE = "cpu-2-cores-sharded"


def section(results: dict[str, dict[str, Any]]) -> list[str]:
    """Paragraphs and tables; results by file name."""
    found = results[FILE]["sharded"]
    problem = found["problem"]
    return [
        "## Several devices",
        f"`python -m bench sharded --json FILE`. {problem['P']:,} prompts of {problem['K']}, d = {problem['d']}, "
        f"heavy-tailed, {problem['labels']:,.0f} labels with repeats, on virtual devices that share the cores.",
        table(["pool", "a pass, ms", "optimize, s", "MB of a device", "MB received, once"], _rows(found)),
        hardware(results[FILE]["machine"], FILE),
        "MB of a device are arguments, results and scratch of the largest program, those of the pool among them. "
        "Received, by the device that receives most, before the first working set is certified: a sum of d x d "
        "matrices, and features of the prompts that the hot start looks at, which works on one device so that its "
        "choices do not depend on how many there are. They are at most 1,024 d^2 bytes, whatever the pool.",
        f"Every device visits {percent(_last(found)['prompts of a device over an even share'] - 1, 1)} more prompts in "
        "a full pass than an even share of them: those that fill its last chunk up. Devices of one core each would "
        "share a pass evenly; here virtual ones also gain what one program, a scan over chunks, leaves of two cores.",
        *_passes(found, problem["d"]),
        *_growth(found["seconds of a pass by prompts"], problem),
    ]


def _rows(found: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, row in found["seconds of a pass"].items():
        asked = found.get(name)
        cells = ["", ""]
        if asked:
            cells = [digits(asked["MB of a device"], 3), digits(asked["MB received before the first certificate"])]
        rows.append([name, _in_milliseconds(row), seconds(found["seconds of optimize"][name]), *cells])
    return rows


def _in_milliseconds(row: dict[str, float]) -> str:
    return f"{milliseconds(row['median'])} ({milliseconds(row['min'])} to {milliseconds(row['max'])})"


def _last(found: dict[str, Any]) -> dict[str, Any]:
    return found[list(found["seconds of a pass"])[-1]]


def _passes(found: dict[str, Any], dim: int) -> list[str]:
    name = list(found["seconds of a pass"])[-1]
    rows = [
        [number, f"{row['listed']:,}", f"{row['bytes']:,.0f}", f"{16 * dim**2 + 64 * row['listed']:,}"]
        for number, row in enumerate(_last(found)["by pass"], 1)
    ]
    return [
        f"### Exchanged in a pass, {name}",
        table(["pass", "pairs looked up", "bytes received", "16 d^2 + 64 a pair"], rows),
        "Bounds and scores of pairs are worked out where prompts lie and go to the host, 8 to 64 bytes a pair; between "
        "devices only rows of pairs travel that enter the working set, 8 d bytes each, once. The limit of the last "
        "column holds while fewer than 2 d + 8 L / d of L pairs that are looked up enter; at most 3 d + 256 can.",
    ]


def _growth(found: dict[str, dict[str, float]], problem: dict[str, Any]) -> list[str]:
    pairs = problem["K"] * (problem["K"] - 1) // 2
    each = {int(size): row["median"] / (int(size) * pairs) for size, row in found.items()}
    least = min(each.values())
    rows = [
        [f"{size:,}", f"{size * pairs:.1e}", seconds(found[str(size)]), digits(1e9 * one), percent(one / least - 1)]
        for size, one in each.items()
    ]
    return [
        "### A pass by the number of prompts",
        table(["prompts", "pairs", "seconds", "ns a pair", "above the least"], rows),
    ]
