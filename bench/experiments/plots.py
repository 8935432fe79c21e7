"""Pictures of experiments, from their results or from the files these were written to.

All are of one kind: a line for every rule of choosing, its name at the left and its colour of `bench.rules`, a point
with limits for every number of labels, larger points for more labels. A rule that has no number has a word instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite, sqrt
from typing import Any, NamedTuple

from bench.experiments import paired
from bench.rules import PROBLEMS, RULES, TUNED, in_order

NORMAL = 1.96  # standard errors of 95% limits
MARK = 1.2  # inches of a mark of the legend
LEAST = 1e-3  # a ratio below which is none


class Point(NamedTuple):
    """A value with its limits; hollow where it is the mean of a part only, the trainings that had a maximum."""

    value: float
    low: float
    high: float
    hollow: bool = False


def forest(axis, rows: Mapping[str, Sequence[Point | None] | str], order: Sequence[str], even: float) -> None:
    """Draw rows {rule: its points, or the word that says why there are none} as lines in this order; even: no effect.

    A point that is None was not measured, and its place is left free.

    Axis labels and title are left to the caller; rules of `order` that rows lack are said not to have been run.
    """
    axis.axvline(even, color=RULES["random"].colour, linewidth=0.8, linestyle="--")
    for line, rule in enumerate(order):
        axis.axhspan(line - 0.5, line + 0.5, color="black", alpha=0.04 * (line % 2), linewidth=0)
        points = rows.get(rule, "not run")
        if isinstance(points, str):
            place = {"transform": axis.get_yaxis_transform(), "ha": "center", "va": "center", "fontsize": 7}
            background = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            axis.text(0.5, line, points, color="grey", bbox=background, **place)
            continue
        for k, point in enumerate(points):
            if point is None:
                continue
            place = line + 0.6 * ((k + 0.5) / len(points) - 0.5)
            limits = [[point.value - point.low], [point.high - point.value]]
            style = {"color": RULES[rule].colour, "marker": "o", "markersize": _size(k, len(points)), "capsize": 1.5}
            fill = {"markerfacecolor": "white"} if point.hollow else {}
            axis.errorbar([point.value], [place], xerr=limits, linestyle="", elinewidth=1, **style, **fill)
    axis.set(ylim=(len(order) - 0.5, -0.5))
    axis.set_yticks(range(len(order)), [RULES[rule].name for rule in order], fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)


def plot_gaps(cases: dict[str, Any], file: str) -> None:
    """Of `real_pools`: policy gap on held-back prompts over that of random pairs, 95% limits over new prompts.

    Above with the multiple of the fitted parameter tuned for every rule, below with its ridge as well.
    """
    _plot_ratios(cases, _is_proxy, file)


def plot_proxies(case: dict[str, Any], file: str) -> None:
    """Of `real_pools` with a linear reward: arms with a proxy in the belief, and the same without."""
    bases = {name.split("_proxy_")[0] for name in case["given"] if _is_proxy(name)}
    _plot_ratios({"well_specified": case}, lambda name: name.split("_proxy_")[0] not in bases, file)


def _is_proxy(name: str) -> bool:
    return "_proxy_" in name


def _plot_ratios(cases: dict[str, dict[str, Any]], left_out: Callable[[str], bool], file: str) -> None:
    """A column for every case, a row for every way of tuning: ratios of arms by number of labels."""
    order = in_order({arm for case in cases.values() for arm in case["given"] if not left_out(arm)})
    counts = sorted({int(n) for case in cases.values() for row in case["given"].values() for n in row["ratio"]})
    figure, axes = panels(len(cases), len(order), len(TUNED))
    for line, (tuning, words) in zip(axes.reshape(len(TUNED), -1), TUNED.items(), strict=True):
        for axis, (case, found) in zip(line, cases.items(), strict=True):
            rows = {arm: ratios(row, counts) for arm, row in found[tuning].items() if not left_out(arm)}
            forest(axis, rows, order, 1)
            axis.set(xscale="log", title=PROBLEMS[case], xlabel=f"gap / that of random pairs, {words}")
            plain_numbers(axis)
    label_sizes(figure, counts)
    save(figure, file)


def ratios(row: Mapping[str, Any], counts: Sequence[int]) -> list[Point | None] | str:
    """Of an arm of `real_pools`, by these numbers of labels; a word where nothing is left."""
    found = {int(n): Point(*value) for n, value in row["ratio"].items()}
    asked = [found.get(n) for n in counts]
    if not any(asked):
        return "not run"
    return "no gap" if all(point.value < LEAST for point in asked if point) else asked


def differences(table: Sequence[dict], against: str) -> dict[str, list[Point] | str]:
    """{rule: its differences, by number of labels} of a summary of `transformer`."""
    rows: dict[str, list[Point] | str] = {}
    for row in sorted(table, key=lambda row: row["labels"]):
        if row["arm"] == against:
            rows[against] = "what others are compared with"
        elif "interval" in row:
            rows.setdefault(row["arm"], []).append(Point(row["difference"], *row["interval"]))
        else:
            rows[row["arm"]] = "one seed: no limits"
    return rows


def plot_predictions(problems: dict[str, Any], file: str) -> None:
    """Of `log_linear`: simulated over predicted gap at every number of labels, and labels saved at the middle one."""
    order = in_order({rule for found in problems.values() for rule in found["rows"]})
    figure, axes = panels(len(problems), len(order), 2)
    counts = sorted(int(n) for n in next(iter(problems.values()))["rows"]["random"])
    middle = counts[len(counts) // 2]
    for (top, bottom), (problem, found) in zip(axes.reshape(2, -1).T, problems.items(), strict=True):
        forest(top, {rule: _agreement(rows) for rule, rows in found["rows"].items()}, order, 1)
        top.set(title=PROBLEMS[problem], xlabel="simulated gap / predicted", xscale="log")
        forest(bottom, {rule: saved(found["rows"], rule, middle) for rule in found["rows"]}, order, 1)
        bottom.set(xlabel=f"labels random pairs need / {middle:,} of this rule", xscale="log")
        for axis in (top, bottom):
            plain_numbers(axis)
    label_sizes(figure, counts)
    save(figure, file)


def saved(rows: Mapping[str, Any], rule: str, labels: int) -> list[Point] | str:
    """`paired.labels_saved` of a rule of `log_linear` at a number of labels, both gaps' standard errors in its limits.

    The limits are the labels saved with a gap that is larger or smaller by 1.96 sqrt(a^2 + b^2), a and b the relative
    standard errors of this gap and random's at the same number.
    """
    own = rows[rule][str(labels)]
    if own is None or own["simulated"] is None:
        return "singular: no gap"
    if own["fitted"] < 1:
        return "not all trainings have a maximum"
    known = {int(n): row["simulated"] for n, row in rows["random"].items() if row["fitted"] == 1}
    relative = [row["standard_error"] / row["simulated"] for row in (own, rows["random"][str(labels)])]
    half = NORMAL * sqrt(sum(x * x for x in relative)) if rule != "random" else 0.0
    factors = (1.0, 1 + half, 1 - half)
    value, low, high = (paired.labels_saved({labels: own["simulated"] * f}, known)[labels] for f in factors)
    if not all(isfinite(x) for x in (value, low, high)):
        return f"gap {own['simulated'] / known[labels]:.0f} times random's"
    return [Point(value, low, high)]


def _agreement(rows: Mapping[str, Any]) -> list[Point] | str:
    """Simulated over predicted gaps, by number of labels; hollow where not all trainings had a maximum."""
    points = []
    for row in rows.values():
        if row and row["simulated"]:
            half = NORMAL * row["standard_error"]
            limits = ((row["simulated"] + x) / row["predicted"] for x in (0, -half, half))
            points.append(Point(*limits, hollow=row["fitted"] < 1))
    return points or "singular: no gap"


def plot_excess(problems: dict[str, Any], file: str) -> None:
    """Of `weighted_labels`: excess gap over that of random pairs, 95% limits over seeds."""
    order = in_order({rule for found in problems.values() for rule in found["rows"]})
    figure, axes = panels(len(problems), len(order))
    for axis, (problem, found) in zip(axes, problems.items(), strict=True):
        rows = {rule: [Point(*row["ratio"]) for row in row.values()] for rule, row in found["rows"].items()}
        forest(axis, rows, order, 1)
        axis.set(xscale="log", title=PROBLEMS[problem], xlabel="excess gap / that of random pairs")
        plain_numbers(axis)
    label_sizes(figure, [int(n) for n in next(iter(found["rows"].values()))])
    save(figure, file)


def plot_votes(results: dict[str, Any], file: str) -> None:
    """Of `human_votes`: log loss of votes on other prompts less that of random pairs, 95% limits over new prompts."""
    order = in_order({row["arm"] for row in results["table"]})
    counts = results["settings"]["labels"]
    rows = {arm: [Point(*r["difference"]) for r in results["table"] if r["arm"] == arm] for arm in order}
    figure, (axis,) = panels(1, len(order))
    forest(axis, rows, order, 0)
    axis.set(xlabel="log loss - that of random pairs")
    axis.locator_params(axis="x", nbins=4)
    label_sizes(figure, counts)
    save(figure, file)


def panels(columns: int, lines: int, stacked: int = 1, width: float = 2.9):
    """Panels side by side that share their lines."""
    size = (2.2 + width * columns, stacked * (1.1 + 0.24 * lines))
    figure, axes = _pyplot().subplots(stacked, columns, figsize=size, squeeze=False, sharey=True)
    return figure, axes.ravel()


def _size(k: int, number: int) -> float:
    return 4.5 if number == 1 else 2.5 + 3 * k / (number - 1)


def label_sizes(figure, counts: Sequence[int]) -> None:
    """Below the panels, which point belongs to which number of labels."""
    from matplotlib.lines import Line2D

    style = {"color": "grey", "marker": "o", "linestyle": ""}
    marks = [
        Line2D([], [], markersize=_size(k, len(counts)), label=f"{n:,} labels", **style) for k, n in enumerate(counts)
    ]
    columns = min(len(counts), int(figure.get_figwidth() / MARK))
    figure.legend(handles=marks, ncols=columns, loc="outside lower center", fontsize=8, frameon=False)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams |= {"figure.constrained_layout.use": True, "axes.titlesize": 9, "axes.labelsize": 8}
    return pyplot


def plain_numbers(axis) -> None:
    """0.5 instead of 5 x 10^-1, and few of them."""
    from matplotlib import ticker

    low, high = axis.get_xlim()
    wide = high / low > 5
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)) if wide else ticker.MaxNLocator(4))
    axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.xaxis.set_minor_locator(ticker.NullLocator())


def save(figure, file: str) -> None:
    figure.savefig(file, dpi=110)
    _pyplot().close(figure)
