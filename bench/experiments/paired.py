"""Statistics of arms that share their seeds: paired ratios and differences with intervals, and labels saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean, lower and upper limit by Student's t over seeds; NaN limits for fewer than two values."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), float("nan"), float("nan")
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def share_right(truth: np.ndarray, guess: np.ndarray) -> float:
    """Share of nonzero margins whose sign is guessed; a guess of zero is half right."""
    return float(np.mean((1 + np.sign(truth) * np.sign(guess)) / 2))


def labels_saved(own: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    """At each of this arm's counts, labels the other arm needs for this arm's gap, over that count; gaps by count.

    log gap is taken as linear in log labels between the counts tried, and as falling at the rate 1/n beyond the count
    of the smallest gap, the fastest that is possible in the long run, which favours the other arm; NaN where the other
    arm does better at the smallest count already.
    """
    counts = sorted(other)
    logs, gaps = np.log(np.array(counts, float)), np.log([other[n] for n in counts])
    gaps = np.minimum.accumulate(gaps)  # a gap reached once stays reached: noise must not make a curve rise
    first = np.append(True, np.diff(gaps) < 0)
    wanted = np.log([own[n] for n in own])
    needed = np.interp(-wanted, -gaps[first], logs[first])
    needed = np.where(wanted < gaps[-1], logs[first][-1] + gaps[-1] - wanted, needed)
    saved = np.where(wanted > gaps[0], np.nan, np.exp(needed - np.log(np.array(list(own), float))))
    return dict(zip(own, saved.tolist(), strict=True))


def compared(gaps: Mapping[int, Mapping[str, Sequence[float]]], against: str = "random") -> dict[str, dict]:
    """{arm: {"gap": mean by count, "standard_error": ..., "ratio": [mean, low, high] by count, "labels_saved": ...}}.

    Args:
        gaps: {labels: {arm: one gap a seed}}, seeds in the same order for all arms.
        against: the arm that ratios and savings are relative to. The ratio is the mean over seeds of gap / its gap.
    """
    counts = sorted(gaps)
    found: dict[str, dict] = {}
    other = {n: float(np.mean(gaps[n][against])) for n in counts}
    for arm in gaps[counts[0]]:
        means = {n: float(np.mean(gaps[n][arm])) for n in counts}
        ratios = [mean_interval(np.divide(gaps[n][arm], gaps[n][against])) for n in counts]
        found[arm] = {
            "gap": means,
            "standard_error": {n: float(np.std(gaps[n][arm], ddof=1) / len(gaps[n][arm]) ** 0.5) for n in counts},
            "ratio": dict(zip(counts, ratios, strict=True)),
            "labels_saved": labels_saved(means, other),
        }
    return found
