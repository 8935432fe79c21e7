"""Pictures of what arms gain in J over random pairs of different texts, with limits, and of what there was to gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.experiments import plots
from bench.rules import in_order


def plot_differences(tables: Mapping[str, Sequence[Mapping[str, Any]]], file: str, columns: int = 3) -> None:
    """A panel for every table of rows {"arm", "labels", "difference": (mean, low, high)}; all share their lines."""
    order = in_order({row["arm"] for rows in tables.values() for row in rows})
    columns = min(columns, len(tables))
    figure, axes = plots.panels(columns, len(order), -(-len(tables) // columns))
    for axis in axes[len(tables) :]:
        axis.set_visible(False)
    for axis, (title, rows) in zip(axes[: len(tables)], tables.items(), strict=True):
        points: dict[str, list[plots.Point]] = {}
        for row in sorted(rows, key=lambda row: row["labels"]):
            points.setdefault(row["arm"], []).append(plots.Point(*row["difference"]))
        plots.forest(axis, points, order, 0)
        axis.set(title=title, xlabel="gain in J - that of random, different texts")
    plots.label_sizes(figure, sorted({row["labels"] for rows in tables.values() for row in rows}))
    plots.save(figure, file)
