"""Plots of experiments, from their results or from the file these were written to."""

from __future__ import annotations

from math import isfinite
from typing import Any

LOOK = {  # the arms that are drawn where there are many, in this order
    "random": {"color": "black", "linestyle": "--"},
    "random_distinct": {"color": "grey", "linestyle": "--"},
    "trace": {"color": "C3", "linewidth": 2},
    "trace_two_rounds": {"color": "C1", "linewidth": 2},
    "rounds": {"color": "C6", "linewidth": 2},
    "logdet": {"color": "C0"},
    "adpo": {"color": "C4"},
    "first_two": {"color": "C5"},
    "largest_distance": {"color": "C7"},
    "square_root": {"color": "C2"},
}
POINTS = {"marker": "o", "markersize": 3, "capsize": 2}


def plot_gaps(cases: dict[str, Any], file: str) -> None:
    """Policy gap (standard errors over seeds) and its ratio to that of random pairs (95% limits), case by case."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(2, len(cases), figsize=(4 * len(cases), 7), squeeze=False, sharex=True)
    for (top, bottom), (case, found) in zip(axes.T, cases.items(), strict=True):
        for place, arm in enumerate(arm for arm in LOOK if arm in found["arms"]):
            row = found["arms"][arm]
            counts = [int(n) * 1.02**place for n in row["gap"]]  # side by side
            gaps, errors = list(row["gap"].values()), list(row["standard_error"].values())
            top.errorbar(counts, gaps, errors, label=arm, **POINTS, **LOOK[arm])
            mean, low, high = zip(*row["ratio"].values(), strict=True)
            limits = [[m - a for m, a in zip(mean, low, strict=True)], [b - m for m, b in zip(mean, high, strict=True)]]
            bottom.errorbar(counts, mean, limits, **POINTS, **LOOK[arm])
        top.axhline(found["ends"]["reference"], color="grey", linewidth=0.8, label="reference policy")
        if found["ends"]["limit"] > 1e-9:
            top.axhline(found["ends"]["limit"], color="grey", linestyle=":", label="labels of all pairs")
        top.set(xscale="log", yscale="log", title=case)
        bottom.set(xlabel="labels")
        _plain_numbers(top)
    axes[0, 0].set_ylabel("policy gap on held-back prompts")
    axes[1, 0].set_ylabel("its ratio to that of random pairs")
    axes[0, -1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    _saved(figure, file)


def plot_gains(results: dict[str, Any], file: str) -> None:
    """Gain in J of `language_model`, standard errors over seeds, and the difference to random pairs, 95% limits."""
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    for place, arm in enumerate(arm for arm in LOOK if arm in results["arms"]):
        rows = [row for row in results["summary"] if row["arm"] == arm]
        counts = [row["labels"] * 1.02**place for row in rows]
        left.errorbar(
            counts, [r["gain"] for r in rows], [r["standard_error"] for r in rows], label=arm, **POINTS, **LOOK[arm]
        )
        if "interval" in rows[0]:
            means = [row["difference"] for row in rows]
            half = [row["interval"][1] - row["difference"] for row in rows]
            right.errorbar(counts, means, half, label=arm, **POINTS, **LOOK[arm])
    right.axhline(0, **LOOK["random"])
    left.set(xscale="log", xlabel="labels", ylabel="gain in reward - beta KL by DPO")
    right.set(xscale="log", xlabel="labels", ylabel="difference to random pairs")
    left.legend(fontsize=8)
    _saved(figure, file)


def plot_predictions(problems: dict[str, Any], file: str) -> None:
    """Simulated against predicted gap of every design of `log_linear`, and the labels it saves against random."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(2, len(problems), figsize=(5 * len(problems), 8), squeeze=False)
    for (top, bottom), (problem, found) in zip(axes.T, problems.items(), strict=True):
        for design, rows in found["rows"].items():
            points = [(row["predicted"], row["simulated"]) for row in rows.values() if row and row["simulated"]]
            if points:
                top.plot(*zip(*points, strict=True), "o-", markersize=3, linewidth=0.6, label=design)
        top.axline((1e-3, 1e-3), (1e-2, 1e-2), color="grey", linewidth=0.8)
        top.set(xscale="log", yscale="log", title=problem, xlabel="predicted gap", ylabel="simulated gap")
        counts = sorted(int(n) for n in found["rows"]["random"])
        middle = counts[len(counts) // 2]
        every = found["labels_saved_simulated"].items()
        known = [(x, name) for name, row in every for n, x in row.items() if int(n) == middle and x and isfinite(x)]
        saved = {name: x for x, name in sorted(known)}
        bottom.barh(list(saved), list(saved.values()), color=["C3" if "trace" in name else "C0" for name in saved])
        bottom.axvline(1, color="black", linewidth=0.8)
        bottom.set(xlabel=f"labels random pairs need for the gap of {middle:,} / {middle:,}")
    axes[0, -1].legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
    _saved(figure, file)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _plain_numbers(axis) -> None:
    """0.5 instead of 5 x 10^-1, and few of them."""
    from matplotlib import ticker

    axis.yaxis.set_major_locator(ticker.MaxNLocator(5))
    axis.yaxis.set_major_formatter(ticker.ScalarFormatter())
    axis.yaxis.set_minor_locator(ticker.NullLocator())


def _saved(figure, file: str) -> None:
    figure.tight_layout()
    figure.savefig(file, dpi=100)
    _pyplot().close(figure)
