"""Lines of experiments on the real language model, one for every arm and split, as rows with limits over prompts."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from bench.experiments.by_prompt import laid_out, mean_interval
from bench.experiments.gain_plots import plot_differences
from bench.experiments.llama_cases import VARIANTS

BY_SLOPE = "by_slope"  # the variant that a pilot's slope asks for


def summary(
    lines: Sequence[dict[str, Any]], gain: str = "gains", against: str = "random_distinct"
) -> list[dict[str, Any]]:
    """Mean gain of every arm and its difference to random pairs of different texts, with limits over new prompts."""
    counts = sorted({line["labels"] for line in lines} - {0})
    keys = ("variant", "K", "reward", "labels", "arm")
    tables = laid_out(lines, lambda line: tuple(line[key] for key in keys), itemgetter(gain))
    rows = []
    for (*place, number, arm), table in tables.items():
        for labels in counts if arm == "ceiling" else [number]:
            row = dict(zip(keys, (*place, labels, arm), strict=True))
            row["gain"] = mean_interval(table)._asdict()
            other = tables.get((*place, labels, against))
            if other is not None and arm != against:
                row["difference"] = mean_interval(table - other)._asdict()
            rows.append(row)
    return rows


def panels_of(rows: Sequence[dict[str, Any]], completions: int) -> dict[str, list[dict[str, Any]]]:
    """For `plot_differences`: one panel for every kind of rows and reward, with so many completions.

    What is in the rows that a pilot's slope asks for stands in the panels of both kinds, under a name of its own.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    own = [row for row in rows if row["K"] == completions and "difference" in row]
    for variant in VARIANTS:
        for row in own:
            if row["variant"] in (variant, BY_SLOPE):
                panel = found.setdefault(f"{row['reward'].replace('_', ' ')}, {variant}", [])
                arm = row["arm"] if row["variant"] == variant else f"{row['arm']}_{BY_SLOPE}"
                panel.append({"arm": arm, "labels": row["labels"], "difference": tuple(row["difference"].values())})
    return found


def plot_gains(rows: Sequence[dict[str, Any]], completions: int, file: str) -> None:
    """What arms gain with so many completions: a column for every reward, a line of panels for every kind of rows."""
    panels = panels_of(rows, completions)
    plot_differences(panels, file, len(panels) // len(VARIANTS))
