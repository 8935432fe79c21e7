"""The picture of `bench.growth`: seconds and memory against P, K, d and m, measured and modelled."""

from __future__ import annotations

from typing import Any

from bench.experiments import plots

AXES = {"P": ("prompts", "prompts P"), "K": ("completions", "completions a prompt K"), "d": ("dim", "dimensions d")}
AXES |= {"m": ("labels", "labels m")}
CALL, FOLDS, MODEL = "#1f77b4", "#ff7f0e", "black"


def plot_growth(found: dict[str, Any], file: str) -> None:
    """Two rows of panels: seconds of a call and its folds beside operations over the rate; bytes beside the model."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(AXES), figsize=(12, 5.4), sharey="row", layout="constrained")
    rate = found["rate"]["flops"]
    for (key, (field, label)), (upper, lower) in zip(AXES.items(), axes.T, strict=True):
        rows = found[key]
        at = [row[field] for row in rows]
        _median(upper, at, rows)
        upper.plot(at, [row["seconds_of_folds"] for row in rows], "s-", color=FOLDS, label="its folds")
        upper.plot(at, [row["operations"] / rate for row in rows], "--", color=MODEL, label="operations / rate")
        lower.plot(at, [_mega(row["bytes_above_the_pool"]) for row in rows], "o-", color=CALL, label="measured")
        lower.plot(at, [_mega(row["bytes_modelled"]) for row in rows], "--", color=MODEL, label="model")
        for axis in (upper, lower):
            axis.set(xscale="log", yscale="log", xlabel=label)
            axis.set_xticks(at, [f"{x:,}" for x in at], minor=False, fontsize=8)
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    streamed = found["file"]
    axes[0, 0].plot(streamed["prompts"], streamed["seconds"], "*", color=CALL, markersize=10, label="from a file")
    axes[0, 0].set_xticks([2_000, 20_000, 200_000, streamed["prompts"]], ["2,000", "20,000", "200,000", "2.1 M"])
    axes[1, 0].set_yticks([20, 50, 100, 200], ["20", "50", "100", "200"])
    axes[0, 0].set_ylabel("seconds of a call")
    axes[1, 0].set_ylabel("MB above the pool")
    for row in axes:
        row[0].legend(fontsize=8, frameon=False)
    plots.save(figure, file)


def _median(axis, at, rows):
    middle = [row["seconds"]["median"] for row in rows]
    spread = [[m - row["seconds"]["min"] for m, row in zip(middle, rows, strict=True)]]
    spread += [[row["seconds"]["max"] - m for m, row in zip(middle, rows, strict=True)]]
    axis.errorbar(at, middle, yerr=spread, fmt="o-", color=CALL, capsize=2, label="a call")


def _mega(size: float) -> float:
    return max(size, 1e5) / 1e6  # where a call needs no more than was free before, the axis ends
