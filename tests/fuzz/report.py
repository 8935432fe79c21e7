"""Outcomes as lines of JSON, and what they come to: counts by family and by signature."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable

from .outcomes import SEVERITY, Fault, Outcome


def line(outcome: Outcome) -> str:
    return json.dumps(outcome._asdict() | {"faults": [list(fault) for fault in outcome.faults]})


def read(text: str) -> Outcome:
    found = json.loads(text)
    return Outcome(**found | {"faults": [Fault(*fault) for fault in found["faults"]]})


def table(outcomes: Iterable[Outcome]) -> str:
    """Markdown: one row per family, then one per signature with its count and first seeds."""
    outcomes = sorted(outcomes, key=lambda outcome: outcome.seed)
    kinds = list(SEVERITY)
    by_family: dict[str, Counter] = defaultdict(Counter)
    signatures: dict[str, list] = defaultdict(list)
    for outcome in outcomes:
        row = by_family[outcome.family.split(",")[0]]
        row["problems"] += 1
        row["bounds"] += outcome.bounds
        for kind in {fault.kind for fault in outcome.faults}:
            row[kind] += 1
        for signature in {fault.signature for fault in outcome.faults}:
            signatures[signature].append(outcome.seed)
    total = sum(by_family.values(), Counter())
    lines = ["| family | problems | bounds | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 3) + "|"]
    for name, row in [*sorted(by_family.items()), ("all", total)]:
        lines.append(f"| {name} | " + " | ".join(str(row[key]) for key in ("problems", "bounds", *kinds)) + " |")
    said = Counter(f"{outcome.function}: {outcome.said}" for outcome in outcomes)
    lines += ["", ", ".join(f"{name} {count}" for name, count in said.most_common(40)), ""]
    lines += ["| signature | problems | first seeds |", "|---|---|---|"]
    order = {kind: k for k, kind in enumerate(kinds)}
    ranked = sorted(signatures.items(), key=lambda item: (order.get(item[0].split(":")[0], 99), -len(item[1])))
    lines += [f"| {name.replace('|', '/')} | {len(seeds)} | {seeds[:6]} |" for name, seeds in ranked]
    return "\n".join(lines)


def serious(outcomes: Iterable[Outcome]) -> list[tuple[int, Fault]]:
    """Every fault but warnings, with its seed."""
    return [(o.seed, fault) for o in outcomes for fault in o.faults if fault.kind != "warning"]
