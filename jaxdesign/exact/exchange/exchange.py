"""Exchange of whole labels: swap by swap, one label from a pair to another, until no swap in the pool helps.

Three nested searches. The whole pool is searched for pairs that should gain a label (`search`). The best of them
and the labelled pairs that should lose one form a working set of a few thousand, in which swaps are scored by matrix
products. The most promising few hundred pairs of these come on a short list with their Gram matrix, in which swaps are
made one by one, the best first (`rounds`). Then the pool is searched again, until a search that is complete and in
float64 finds no swap that helps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._pairs import Allocation, pair_keys
from jaxdesign.analysis import information
from jaxdesign.certificates.allowed import check_allowed, ordered_allocation
from jaxdesign.criteria.protocol import Gains
from jaxdesign.exact.exchange import rounds, search, swap_gains
from jaxdesign.exact.exchange.allowed import Slack, caps_of, only_full_prompts_forbid, slack_of, uses_of
from jaxdesign.exact.exchange.by_value import exchanged_by_value
from jaxdesign.exact.exchange.listing import listed
from jaxdesign.exact.greedy import trace_forms
from jaxdesign.pricing.listed import listed_rows
from jaxdesign.pricing.source import Source
from jaxdesign.pricing.widened import in_dtype
from jaxdesign.problem import Problem

GAIN = 1e-9  # the least gain that counts: fall of -log det A, or fall of the trace relative to the trace
OTHERS = 3072  # pairs of the working set that were found by searching the pool
SPARE = 2  # times as many are listed in float32
FEW = 0.05  # quick searches end with one that leads to fewer swaps than this share of the labelled pairs
_factors_of = jax.jit(swap_gains.factors_of)


class ExchangeReport(NamedTuple):
    """What an exchange did."""

    value_before: float  # the criterion, float64
    value: float
    swaps: int
    passes: int  # searches of the whole pool
    optimal: bool  # no swap in the pool helps; False where that was not shown


def exchange(
    problem: Problem,
    allocation: Allocation,
    *,
    least_gain: float = GAIN,
    max_swaps: int | None = None,
    max_passes: int | None = None,
    progress: Callable[[str], Any] = lambda detail: None,
) -> tuple[Int[np.ndarray, "s 3"], Float[np.ndarray, " s"], ExchangeReport]:
    """Improve whole labels until no swap, one label taken from a pair and given to another, lowers the criterion.

    Args:
        problem: the pool, the criterion, all limits and the prior. Criteria without a closed form of what swaps gain
            are exchanged by their values (`by_value`), and the report never says `optimal`.
        pairs: (S, 3) rows (p, i, j).
        labels: (S,) whole labels, allowed, required ones left out, with regular information: greedy ones, or a rounded
            design.
        least_gain: a swap helps if it lowers -log det A (mean over draws) by more than this, or the trace by more than
            this share of it. The last passes make few swaps of little gain: 1e-6 saves about half of the passes.
        max_swaps: stop after so many swaps; None for no limit.
        max_passes: stop after so many searches of the pool; None for no limit.
        progress: called before every search of the pool with how many there were and how many swaps they led to.

    Returns:
        pairs (S, 3) in order, whole labels (S,) with the same sum under the same caps and quotas, and a report. With
        `report.optimal`, no allowed swap in the whole pool helps. Where repeats are allowed, without a prior, m labels
        of such a LogDet choice have D-efficiency at least (m - d + 1) / m against the best real-valued design.

    Raises:
        TypeError: limits that are not integers.
        ValueError: labels that are not whole, not allowed, or leave A singular; a least gain that is not positive;
            negative limits.

    Numerics: every swap lowers the criterion as computed in float64 at that moment; A is refactorised once a round and
    summed afresh for every search. float32 (float64 for float64 features) only chooses what to look at. Deterministic.
    Complexity: a quick search takes 2 P K d^2 + 2 P K^2 d operations, a complete one at most 2 P K S d more; a round
    about 8,000 d^2 + 8 million d, a swap a few times 512^2. Twice that for Trace, times the draws.
    Source: Fedorov 1972, Theory of Optimal Experiments, Academic Press; the gains and the bounds that make a
    search complete are derived in `swap_gains` and `search` and checked by enumeration in the tests.
    """
    allocation = ordered_allocation(problem, *allocation)
    check_allowed(problem, allocation)
    labels = allocation.labels
    if (labels != np.rint(labels)).any():
        row = int(np.argmax(labels != np.rint(labels)))
        raise ValueError(f"labels: {labels[row]:g} at row {row}; exchange moves whole labels, so round them first")
    least = _checks.positive_finite(least_gain, "least_gain", "the least gain of a swap that helps")
    limits = _limit(max_swaps, "max_swaps"), _limit(max_passes, "max_passes")
    if problem.criterion.gains is Gains.FIRST_ORDER:
        pairs, labels, counts = exchanged_by_value(problem, allocation, least, *limits, progress)
        return pairs, labels, ExchangeReport(*counts, optimal=False)
    with _arrays.float64():
        batch = _batch(problem, trace_forms.root(problem.criterion), allocation)
        if not np.isfinite(batch.value):
            raise ValueError(
                "labels: their information is singular, so that no swap can be scored; start from other labels, or "
                "pass a prior (a ridge will do)"
            )
        return _exchanged(problem, batch, least, *limits, progress)


def _limit(value: int | None, name: str) -> float:
    if value is None:
        return np.inf
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer or None, found {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name}={value}: must be at least 0; None means no limit")
    return float(value)


class _Batch(NamedTuple):
    """Whole labels with what a search needs, in float64."""

    pairs: Int[np.ndarray, "s 3"]  # in order
    labels: Float[np.ndarray, " s"]
    target_root: Float[Array, "*r d d"] | None
    matrix: Float[np.ndarray, "r d d"]  # A
    factors: swap_gains.Factors
    value: float

    @property
    def allocation(self) -> Allocation:
        """Pairs and labels together."""
        return Allocation(self.pairs, self.labels)


class _Searched(NamedTuple):
    """What a search of the pool tells."""

    labelled: Int[np.ndarray, " s"]  # pairs that should lose a label, the most urgent first
    others: Int[np.ndarray, "n 3"]  # pairs that should gain one, likewise
    gains: Float[np.ndarray, " n"]  # theirs


def _batch(problem: Problem, target_root, allocation: Allocation) -> _Batch:
    pairs, labels = allocation
    matrix = information(problem, allocation)
    value, factors = _factors_of(matrix, target_root)
    return _Batch(pairs, labels, target_root, matrix, factors, float(value))


def _exchanged(problem: Problem, batch: _Batch, least: float, max_swaps: float, max_passes: float, progress: Callable):
    """Quick searches while they pay, then complete ones until nothing helps."""
    rough, before = problem.source, batch.value
    exact = in_dtype(rough, np.float64)
    made, passes, quick, done, optimal = 0, 0, True, False, False
    while made < max_swaps and passes < max_passes and not done:
        passes += 1
        progress(f"search {passes}, {made} swaps so far")
        found, swapped = _search(problem, batch, rough if quick else exact, least, complete=not quick), 0
        if quick or (found.gains > least).any():
            batch, swapped = _swap_among(problem, batch, found, least, max_swaps - made, rough.dtype)
        if not quick and not swapped and (found.gains > least).any():  # float32 did not see it
            batch, swapped = _swap_among(problem, batch, found, least, max_swaps - made, exact.dtype)
        done = not quick and not swapped
        # where more than caps and full prompts forbid swaps, a search says what would help, not what is allowed
        optimal = done and (not (found.gains > least).any() or only_full_prompts_forbid(problem, batch.allocation))
        quick = quick and swapped >= FEW * len(batch.labels)
        made += swapped
    return batch.pairs, batch.labels, ExchangeReport(before, batch.value, made, passes, optimal)


def _search(problem: Problem, batch: _Batch, source: Source, least: float, *, complete: bool) -> _Searched:
    number = len(batch.pairs)
    size = max(_arrays.power_of_two(number), search.BLOCK)  # so that few shapes are ever compiled
    padded = np.zeros((size, 3), np.int32)
    padded[:number] = batch.pairs
    z, c = listed_rows(problem.source, padded)
    removable = search.removable(batch.factors, padded, z, c, np.int64(number), dtype=source.dtype)
    rules = _rules(problem, batch, source, removable)
    order = np.asarray(removable.order)[:number]
    if not complete:
        found = listed(source, search.promising(batch.factors, rules), rules, SPARE * OTHERS, least)
        return _Searched(order, *_first_by_gain(problem, batch, found.pairs))
    kernel = search.improving(batch.factors, removable, rules, np.float64(least))
    found = listed(source, kernel, rules, OTHERS, least)
    losers = found.losers[np.argsort(-found.promised, kind="stable")]
    losers = np.concatenate([losers, np.arange(number)])
    return _Searched(order[losers[np.sort(np.unique(losers, return_index=True)[1])]], found.pairs, found.gains)


def _first_by_gain(problem: Problem, batch: _Batch, pairs) -> tuple[Int[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """OTHERS of the pairs by what a label more of each gains in float64, ties by (prompt, i, j).

    What a search in float32 finds best depends on chunks and devices; which swaps are made must not.
    """
    pairs = pairs[np.argsort(pair_keys(pairs, problem.completions))]
    padded = np.zeros((_arrays.round_up(len(pairs), OTHERS), 3), np.int32)
    padded[: len(pairs)] = pairs
    gains = np.asarray(_gains_of_adding(batch.factors, *listed_rows(problem.source, padded)))[: len(pairs)]
    order = np.argsort(-gains, kind="stable")[:OTHERS]
    return pairs[order], gains[order]


@jax.jit
def _gains_of_adding(factors, z, c):
    return swap_gains.gains_of_adding(swap_gains.norms(swap_gains.whitened(factors, z, c, jnp.float64)))


def _rules(problem: Problem, batch: _Batch, source: Source, removable: search.Removable) -> search.Rules:
    number, order = len(batch.pairs), removable.order
    sensitivities = np.asarray(removable.sensitivities)
    at_cap = batch.labels + 1 > caps_of(problem, batch.pairs)
    closed = np.full((len(sensitivities), 3), search.NO_PROMPT, np.int32)
    closed[: at_cap.sum()] = batch.pairs[at_cap]
    slack = slack_of(problem, batch.allocation)
    has_room, levels = _losers(problem, slack, batch.pairs[np.asarray(order)[:number]], sensitivities[:number])
    return search.Rules(closed, np.arange(problem.prompts, dtype=np.int32), levels.astype(source.dtype), has_room)


def _losers(problem: Problem, slack: Slack, pairs, b):
    """For every prompt whether pairs of others may give it a label, and the smallest sensitivity of those that may.

    Of the families, those that count labels of prompts are looked at; others are left to the swaps themselves.
    """
    prompts = np.arange(problem.prompts)
    some = np.stack([prompts, 0 * prompts, 0 * prompts + 1], axis=1)  # a pair of each prompt
    levels, by_prompt = np.full(len(prompts), -np.inf), [True, *(f.by_prompt for f in problem.limits.families)]
    rows = zip(by_prompt, *slack, uses_of(problem, pairs), uses_of(problem, some), strict=True)
    for same, upper, lower, losing, taking in rows:
        if not same or (taking.amount != 1).any():
            continue
        lost, taken = losing.row[0], taking.row[0]
        own = np.full(len(upper), np.inf)
        np.minimum.at(own, lost, b)
        others = float(np.min(b[lower[lost] >= 1], initial=np.inf))
        levels = np.maximum(levels, np.where(upper[taken] >= 1, np.minimum(own[taken], others), own[taken]))
    return slack.upper[0] >= 1, levels


def _swap_among(
    problem: Problem, batch: _Batch, found: _Searched, least: float, limit: float, dtype
) -> tuple[_Batch, int]:
    """The batch after swaps among the pairs found, until none gains or `limit` are made, and the number of swaps."""
    if not len(found.others):
        return batch, 0
    labelled = batch.pairs[found.labelled[: rounds.LABELLED]]
    pairs = np.unique(np.concatenate([labelled, found.others]), axis=0)
    working = _working_set(problem, batch, pairs)
    swapped, last, earlier = 0, np.inf, (working, 0)
    while swapped < limit:
        remaining = np.int64(min(limit - swapped, 1e9))
        after, made, value = rounds.swap_round(
            working, batch.target_root, np.float64(least), remaining, dtype=np.dtype(dtype)
        )
        made, value = int(made), float(value)
        if not value < last:  # near a singular A, rounding may promise gains for ever
            working, swapped = earlier
            break
        if not made:
            break
        earlier, last = (working, swapped), value
        working, swapped = after, swapped + made
    if not swapped:
        return batch, 0
    rest = _places(problem, batch.pairs, pairs) < 0
    labels = np.asarray(working.labels)[: len(pairs)]
    pairs, labels = np.concatenate([batch.pairs[rest], pairs]), np.concatenate([batch.labels[rest], labels])
    order = np.lexsort(pairs.T[::-1])
    order = order[labels[order] > 0]
    better = _batch(problem, batch.target_root, Allocation(pairs[order], labels[order]))
    return (better, swapped) if better.value < batch.value else (batch, 0)  # rounding can only undo tiny gains


def _working_set(problem: Problem, batch: _Batch, pairs) -> rounds.WorkingSet:
    """The pairs with their labels, padded to a size that depends on the pool's shape and the power of two of labels."""
    most = min(_arrays.power_of_two(len(batch.pairs)), rounds.LABELLED)
    most += min(_arrays.power_of_two(2 * problem.prompts * problem.completions), OTHERS)
    size = _arrays.round_up(most, rounds.BLOCK)
    places = _places(problem, pairs, batch.pairs)
    padded, labels, cap = np.zeros((size, 3), np.int32), np.zeros(size), np.zeros(size)
    padded[: len(pairs)] = pairs
    labels[: len(pairs)] = np.where(places >= 0, batch.labels[places], 0)
    cap[: len(pairs)] = caps_of(problem, pairs)
    z, c = listed_rows(problem.source, padded)
    slack = slack_of(problem, batch.allocation)
    listed, z, c, counts, caps, matrix = (jnp.asarray(a) for a in (padded, z, c, labels, cap, batch.matrix))
    return rounds.WorkingSet(listed, z, c, counts, caps, uses_of(problem, padded), slack, matrix)


def _places(problem: Problem, pairs, among) -> Int[np.ndarray, " s"]:
    """Where in the ordered list `among` pairs are, -1 where they are not."""
    wanted, listed = (pair_keys(p, problem.completions) for p in (pairs, among))
    place = np.minimum(np.searchsorted(listed, wanted), len(listed) - 1)
    return np.where(listed[place] == wanted, place, -1)
