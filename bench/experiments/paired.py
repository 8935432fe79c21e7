"""Statistics of arms that share their seeds: paired ratios and differences with intervals, and labels saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from bench.experiments import by_prompt

LIMITS = (0.025, 0.975)


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
    with np.errstate(divide="ignore"):  # no gap is worth endlessly many labels
        wanted = np.log([own[n] for n in own])
    needed = np.interp(-wanted, -gaps[first], logs[first])
    needed = np.where(wanted < gaps[-1], logs[first][-1] + gaps[-1] - wanted, needed)
    saved = np.where(wanted > gaps[0], np.nan, np.exp(needed - np.log(np.array(list(own), float))))
    return dict(zip(own, saved.tolist(), strict=True))


def compared(tables: Mapping[int, Mapping[str, Float[np.ndarray, "s p"]]], against: str) -> dict[str, dict]:
    """{arm: {"gap": mean by count, "ratio": [ratio of means, low, high] by count, "labels_saved": the same}}.

    Limits are over new prompts and splits (`by_prompt`), of labels saved those of the resampled curves: NaN where
    one of them lies above the other arm's at all its numbers of labels. Arms may lack numbers of labels.

    Args:
        tables: {labels: {arm: gaps of splits and prompts, NaN where a prompt was trained on}}.
        against: the arm that ratios and savings are relative to.
    """
    places = [(n, arm) for n in sorted(tables) for arm in tables[n]]
    everything = np.stack([tables[n][arm] for n, arm in places])
    means = np.nansum(everything, axis=(1, 2)) / np.sum(~np.isnan(everything[0]))
    mean = dict(zip(places, means.tolist(), strict=True))
    draws = dict(zip(places, by_prompt.resampled(everything).T, strict=True))
    found: dict[str, dict] = {}
    for n, arm in places:
        row = found.setdefault(arm, {"gap": {}, "ratio": {}, "labels_saved": {}})
        row["gap"][n] = mean[n, arm]
        ratio = np.quantile(draws[n, arm] / draws[n, against], LIMITS)
        row["ratio"][n] = (mean[n, arm] / mean[n, against], *ratio.tolist())
    for arm, row in found.items():
        curves = [_saved(arm, against, {place: draws[place][k] for place in places}) for k in range(by_prompt.DRAWS)]
        for n, value in _saved(arm, against, mean).items():
            drawn = np.array([curve[n] for curve in curves])
            low, high = np.quantile(drawn, LIMITS) if np.isfinite(drawn).all() else (np.nan, np.nan)
            row["labels_saved"][n] = (value, float(low), float(high))
    return found


def _saved(arm: str, against: str, gaps: Mapping[tuple[int, str], float]) -> dict[int, float]:
    own, other = ({n: gap for (n, name), gap in gaps.items() if name == which} for which in (arm, against))
    return labels_saved(own, other)
