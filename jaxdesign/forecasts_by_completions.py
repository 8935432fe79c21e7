"""What more completions would be worth: forecasts on random subsets of those that are there, and beyond them.

More completions of a prompt offer longer and more varied pairs. Random pairs hardly profit, designs do. Subsets of 2,
4, 8, ... completions say how much so far; what lies beyond is extrapolated in two ways, one that levels off, a + b / k,
and one that goes on, a + b log k, fitted to the logarithms of the gaps. Leaving the largest number out tells which
serves better and how far it is off, and the two ways part the further the longer they go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdesign import _checks
from jaxdesign._forecast_words import table
from jaxdesign.belief import held_belief
from jaxdesign.budget.budget import Budget
from jaxdesign.forecasts import Forecast, checked_beta, checked_totals, forecast
from jaxdesign.pool import CompletionPool
from jaxdesign.problem import NEEDS_ALL
from jaxdesign.targets import policy_target

FIGURES = ("random", "least", "design")
WAYS: dict[str, Callable] = {"levels off": lambda k: 1 / k, "goes on": np.log}
POINTS = 3  # numbers of completions that a line is fitted to, so that one of four can be left out


@dataclass(frozen=True, eq=False)
class CompletionsForecast:
    """What `forecast_by_completions` found; gaps in units of J.

    Args:
        completions: (k,) numbers of completions a prompt, rising, the last one all of them.
        totals: (n,) numbers of labels.
        gaps: "random", "least", "design" -> (k, n) as in `Forecast`, averaged over subsets; NaN where so few
            completions have fewer pairs than labels.
        beyond: (b,) larger numbers of completions.
        extrapolated: the same -> (b, n) what more completions would leave; NaN where fewer than four numbers were
            there to learn from.
        error: the same -> (b, n): the larger of the error made on the largest number when it is left out, and the
            distance to the other way of extrapolating.
        way: "levels off" or "goes on", whichever missed the largest number by less.

    Source: derived; checked by tests/test_forecasts_by_completions.py.
    """

    completions: Int[np.ndarray, " k"]
    totals: Float[np.ndarray, " n"]
    gaps: dict[str, Float[np.ndarray, "k n"]]
    beyond: Int[np.ndarray, " b"]
    extrapolated: dict[str, Float[np.ndarray, "b n"]]
    error: dict[str, Float[np.ndarray, "b n"]]
    way: dict[str, str]

    def summary(self) -> str:
        """A table for every number of labels: what random pairs leave, the least, and the design, by completions."""
        lines = []
        for place, total in enumerate(self.totals):
            known = all(np.isfinite(self.extrapolated[name][:, place]).all() for name in FIGURES)
            sizes = np.asarray([*self.completions, *self.beyond] if known else self.completions, np.float64)
            columns = {}
            for name in FIGURES:
                cells = ["" if np.isnan(gap) else f"{gap:.4g}" for gap in self.gaps[name][:, place]]
                if known:
                    found = zip(self.extrapolated[name][:, place], self.error[name][:, place], strict=True)
                    cells += [f"{value:.3g} +- {error:.1g}" for value, error in found]
                columns[f"{name}, {self.way[name]}" if known else name] = cells
            lines += [f"{total:g} labels, gap in units of J, by completions a prompt"]
            lines += table(sizes, columns, "completions")
            if not known:
                lines.append(f"Nothing is said of more: that takes {POINTS + 1} rows with room for {total:g} labels.")
        return "\n".join(lines)


def forecast_by_completions(
    pool: CompletionPool,
    budget: Budget,
    totals: Sequence[float] | Float[np.ndarray, " n"],
    *,
    prior: Any,
    completions: Sequence[int] | None = None,
    beyond: Sequence[int] | None = None,
    subsets: int = 2,
    target: Any = None,
    beta: float = 1.0,
    draws: int = 4,
    seed: int = 0,
) -> CompletionsForecast:
    """`forecast` with k of the K completions of each prompt drawn at random, and extrapolated to more than K.

    Subsets are nested: of one order of the completions of each prompt the first k are taken. H stays that of all
    completions, since more of them do not change which errors matter.

    Args:
        pool: the pool in memory. A prompt with fewer than k completions has all of its own.
        budget, totals, prior, target, beta, draws, seed: as in `forecast`.
        completions: numbers k of completions to try, rising, from 2; None: 2, 4, 8 and so on, and K.
        beyond: larger numbers to extrapolate to; None: 2 K and 4 K.
        subsets: orders of completions to average over, at least 1; all completions are tried once.

    Returns:
        CompletionsForecast.

    Raises:
        TypeError: a source. ValueError: numbers that do not rise or are not between 2 and K, or not beyond K; subsets
            below 1; and as `forecast`.

    Complexity: that of `forecast`, subsets times the number of k.
    Source: derived; checked by tests/test_forecasts_by_completions.py.
    """
    if not isinstance(pool, CompletionPool):
        raise TypeError(NEEDS_ALL)
    totals, beta, K = checked_totals(totals), checked_beta(beta), pool.completions
    sizes = _sizes("completions", completions, [*(2**k for k in range(1, K.bit_length()) if 2**k < K), K], 2, K)
    further = _sizes("beyond", beyond, [2 * K, 4 * K], K + 1, None)
    if subsets < 1:
        raise ValueError(f"subsets={subsets}: at least one order of the completions is needed")
    _checks.seed(seed)
    if target is None:
        target = policy_target(pool, belief=held_belief(prior), beta=beta)
    found = {name: np.full((len(sizes), len(totals)), np.nan) for name in FIGURES}
    for row, size in enumerate(sizes):
        one = []
        for subset in range(subsets if size < K else 1):
            part = with_completions(pool, int(size), seed + subset)
            held = totals[[_holds(part, budget, total) for total in totals]]
            settings = {"prior": prior, "target": target, "beta": beta, "draws": draws, "seed": seed + draws * subset}
            one.append(None if not len(held) else forecast(part, budget, held, **settings))
        for name in FIGURES:
            found[name][row] = np.mean([_spread(name, each, len(totals)) for each in one], axis=0)
    told = {name: _beyond(sizes, found[name], further) for name in FIGURES}
    values, errors = ({name: getattr(one, part) for name, one in told.items()} for part in ("values", "errors"))
    return CompletionsForecast(sizes, totals, found, further, values, errors, {name: told[name].way for name in told})


def with_completions(pool: CompletionPool, number: int, seed: int) -> CompletionPool:
    """The pool with at most `number` completions of each prompt, drawn at random; the others are masked.

    Masked and not taken out, so that all numbers of completions run the same compiled programs.
    """
    mask = np.asarray(pool.mask)
    order = np.where(mask, np.random.default_rng(seed).random(mask.shape), 2.0)
    kept = mask & (np.argsort(np.argsort(order, axis=1), axis=1) < number)
    return CompletionPool(pool.features, pool.scores, kept, pool.ids, pool.flip, pool.residual)


def _sizes(name, given, default, least, most) -> Int[np.ndarray, " k"]:
    sizes = np.asarray(default if given is None else given)
    allowed = f"rising whole numbers of at least {least}" + (f", at most {most}" if most else "")
    if sizes.ndim != 1 or not len(sizes) or not np.issubdtype(sizes.dtype, np.integer) or (np.diff(sizes) <= 0).any():
        raise ValueError(f"{name}={sizes.tolist()}: expected {allowed}")
    if sizes[0] < least or (most is not None and sizes[-1] > most):
        raise ValueError(f"{name}={sizes.tolist()}: expected {allowed}")
    return sizes.astype(np.int64)


def _holds(pool, budget: Budget, total: float) -> bool:
    """Whether caps and quotas leave room for so many labels; a subset may have too few pairs."""
    number = np.asarray(pool.mask).sum(axis=1)
    pairs = number * (number - 1) / 2
    room = pairs * (np.inf if budget.per_pair is None else budget.per_pair)
    room = np.where(pairs > 0, np.minimum(room, np.inf if budget.per_prompt is None else budget.per_prompt), 0)
    return bool(room.sum() >= total)


def _spread(name: str, found: Forecast | None, number: int) -> Float[np.ndarray, " n"]:
    """Those of the first totals, which are the ones that have room; NaN for the others."""
    values = np.full(number, np.nan)
    if found is not None:
        values[: len(found.totals)] = getattr(found, name)
    return values


class _Beyond(NamedTuple):
    """Values (b, n), their errors, and the way they were extrapolated."""

    values: Float[np.ndarray, "b n"]
    errors: Float[np.ndarray, "b n"]
    way: str


def _beyond(sizes, gaps, further) -> _Beyond:
    """Values, errors and the way of one figure; logarithms are fitted, since gaps stay above 0."""
    values, errors = np.full((2, len(further), gaps.shape[1]), np.nan)
    logs = np.log(np.maximum(gaps, np.finfo(np.float64).tiny))
    known = np.isfinite(logs)
    enough = np.flatnonzero(known.sum(axis=0) > POINTS)
    missed = {name: [_missed(sizes, logs[:, n], known[:, n], way) for n in enough] for name, way in WAYS.items()}
    best = min(WAYS, key=lambda name: float(np.sum(np.abs(missed[name]))))
    for place, n in enumerate(enough):
        some = known[:, n]
        line = {name: np.exp(_line(sizes[some], logs[some, n], further, way)) for name, way in WAYS.items()}
        values[:, n] = line[best]
        apart = np.max([np.abs(other - line[best]) for other in line.values()], axis=0)
        errors[:, n] = np.maximum(apart, np.expm1(abs(missed[best][place])) * line[best])
    return _Beyond(values, errors, best)


def _missed(sizes, logs, known: Bool[np.ndarray, " k"], way) -> float:
    """By how much a line through all but the largest number misses it, in logarithms."""
    where = np.flatnonzero(known)
    return float(_line(sizes[where[:-1]], logs[where[:-1]], sizes[where[-1:]], way)[0] - logs[where[-1]])


def _line(sizes, logs, at, way):
    """A line in way(k) through the last POINTS numbers: small subsets say least of large ones."""
    slope, start = np.polyfit(way(sizes[-POINTS:].astype(float)), logs[-POINTS:], 1)
    return start + slope * way(at.astype(float))
