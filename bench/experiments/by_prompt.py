"""Intervals that speak of new prompts: paired differences kept prompt by prompt, resampled over prompts and splits.

Splits of one set of prompts overlap, so that an interval over splits says how sure the mean over these prompts is and
no more (by about half of what it should be: Nadeau and Bengio 2003, doi:10.1023/A:1024068626366). Here rows are splits
and columns prompts, a number where the prompt was held back and NaN where it was trained on; both are drawn anew with
replacement (the pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122), which is conservative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

DRAWS = 2000


class Interval(NamedTuple):
    """A mean with its 95% limits over new prompts."""

    mean: float
    low: float
    high: float


def laid_out(
    lines: Sequence[dict[str, Any]], key_of: Callable[[dict], Any], values_of: Callable[[dict], Any]
) -> dict[Any, Float[np.ndarray, "s p"]]:
    """Tables by key from lines {"seed", "prompts": those held back, ...}: a row for every seed, NaN where none is."""
    rows = {seed: row for row, seed in enumerate(sorted({line["seed"] for line in lines}))}
    width = 1 + max(max(line["prompts"]) for line in lines)
    tables: dict[Any, np.ndarray] = {}
    for line in lines:
        table = tables.setdefault(key_of(line), np.full((len(rows), width), np.nan))
        table[rows[line["seed"]], line["prompts"]] = values_of(line)
    return tables


def mean_interval(values: Float[np.ndarray, "s p"], seed: int = 0, draws: int = DRAWS) -> Interval:
    """Of the mean of all numbers that are there."""
    return ratio_interval(values, np.where(np.isnan(values), np.nan, 1.0), seed, draws)


def ratio_interval(
    above: Float[np.ndarray, "s p"], below: Float[np.ndarray, "s p"], seed: int = 0, draws: int = DRAWS
) -> Interval:
    """Of the ratio of the sums of two tables that have numbers in the same places: a ratio of means.

    Raises:
        ValueError: tables of different shapes or places, or without a number.
    """
    if above.shape != below.shape:
        raise ValueError(f"above, below: shapes {above.shape} and {below.shape}; expected numbers in the same places")
    sums = resampled(np.stack([above, below]), seed, draws)
    found = sums[sums[:, 1] != 0]
    low, high = np.quantile(found[:, 0] / found[:, 1], [0.025, 0.975])
    return Interval(float(np.nansum(above) / np.nansum(below)), float(low), float(high))


def resampled(tables: Float[np.ndarray, "t s p"], seed: int = 0, draws: int = DRAWS) -> Float[np.ndarray, "r t"]:
    """Sums of tables that have numbers in the same places, splits and prompts drawn anew for all tables together.

    Raises:
        ValueError: tables with other places, or without a number.
    """
    there = ~np.isnan(tables[0])
    if (there != ~np.isnan(tables)).any():
        raise ValueError("tables: expected numbers in the same places")
    if not there.any():
        raise ValueError("tables: no number; at least one prompt of one split must have been held back")
    rng = np.random.default_rng(seed)
    _, splits, prompts = tables.shape
    rows = rng.multinomial(splits, np.full(splits, 1 / splits), draws).astype(np.float64)
    columns = rng.multinomial(prompts, np.full(prompts, 1 / prompts), draws).astype(np.float64)
    return np.stack([np.einsum("rs,rs->r", rows, columns @ np.nan_to_num(table).T) for table in tables], axis=1)
