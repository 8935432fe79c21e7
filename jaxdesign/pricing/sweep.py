"""A pass over a pool that looks closely only where it matters, and brings no more to the host than what it finds.

First every prompt gets a bound on its sensitivities: from earlier passes (`pricing.ceilings`) and, where most prompts
could still matter, from a fold over the whole pool that keeps two numbers a prompt. Prompts whose bound reaches the
level asked for are then brought together, a chunk at a time, and their pairs priced one by one (`passes.price`). What a
pass leaves behind is O(P) numbers and the pairs it lists.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays, _coarse
from jaxdesign._pairs import pair_keys
from jaxdesign.pricing.ceilings import Ceilings, ceilings_at, no_ceilings, with_ceilings
from jaxdesign.pricing.largest import largest
from jaxdesign.pricing.passes import Charges, PassResult, best_pairs, price, reaching_pairs
from jaxdesign.pricing.source import Source, devices_of, in_turn, some_of

MOST = 0.5  # share of the prompts above which bounds are not worth their while
LARGE = 2**21  # pair slots up to which a pool is looked at as a whole where most of it matters


class Factored(NamedTuple):
    """What sensitivities are |z F|^2 c of: F, (R, d, q) float64, and the same in pricing units (`in_pricing_units`)."""

    exact: Float[np.ndarray, "r d q"]
    scaled: Float[np.ndarray, "r d q"]
    unit: float


class Wanted(NamedTuple):
    """What a sweep looks for; levels are net of charges.

    Args:
        listed: pairs whose sensitivity may be at least this are listed.
        entered: of pairs above this, those that are among the two best of one of their completions are entered.
        most_listed: if more pairs than this are listed, they are counted and not kept.
        most_entered: so many, the best of them, are kept.
    """

    listed: float
    entered: float = np.inf
    most_listed: float = np.inf
    most_entered: int = 0


class Swept(NamedTuple):
    """What a sweep found, on the host.

    Args:
        upper: (P,) no pair of the prompt is above it, net of charges.
        counts: (P,) pairs listed.
        pairs: (S, 3) those, ordered by (prompt, i, j); none where there were too many.
        complete: whether there were not.
        entered: (m, 3) the best pairs of completions, largest first by their value, ties by (prompt, i, j).
        values: (m,) theirs, with the rounding of the working dtype.
        ceilings: what is now known of every prompt.
        looked: prompts that were looked at closely.
    """

    upper: Float[np.ndarray, " p"]
    counts: Int[np.ndarray, " p"]
    pairs: Int[np.ndarray, "s 3"]
    complete: bool
    entered: Int[np.ndarray, "m 3"]
    values: Float[np.ndarray, " m"]
    ceilings: Ceilings
    looked: int


def sweep(
    source: Source,
    at: Factored,
    wanted: Wanted,
    ranks: Float[np.ndarray, " p"] | None = None,
    charges: Charges | None = None,
    known: Ceilings | None = None,
) -> Swept:
    """One pass over the pool.

    Args:
        source: the pool.
        at: the factors.
        wanted: what to look for.
        ranks, charges: as for `passes.price`; charges in units of sensitivities, float64.
        known: of earlier passes over the same pool; None: nothing.

    Returns:
        Swept. Every pair that could reach `wanted.listed`, the rounding error of its sensitivity given, is listed, but
        for those that `ranks` leave out.

    Raises: nothing.

    Numerics: bounds hold for the stored features and the float64 factors; `known` with its rounding, see `growth`.
    Complexity: 2 P K d^2 + 2 P K^2 d operations where bounds are of no help, and the same again for the prompts that
    are looked at; else for these alone.
    Source: derived; checked by tests/pricing/test_sweep.py against passes over the whole pool.
    """
    known = no_ceilings(source.prompts) if known is None else known
    everything = np.arange(source.prompts)
    if known.factors and known.mattered > MOST * source.prompts:
        some, upper = everything, np.full(source.prompts, np.inf)  # bounds would leave out too few to be worth it
    else:
        upper = ceilings_at(known, at.exact)
        some = to_look_at(upper, wanted, charges)
        for kind in _kinds(source):
            if len(some) > max(MOST * source.prompts, _page(source)):
                known, upper, _ = bounded(source, at, known, kind)
                some = to_look_at(upper, wanted, charges)
        if len(some) > MOST * source.prompts and len(everything) <= _at_once(source):
            some = everything
    return _looked_at(source, at, wanted, ranks, charges, known, upper, some)


class Bounded(NamedTuple):
    """What one fold over all prompts tells: what is now known, the bounds (P,), and the rounding in them (P,)."""

    known: Ceilings
    upper: Float[np.ndarray, " p"]
    error: Float[np.ndarray, " p"]


def _kinds(source: Source) -> tuple[_coarse.Coarse | None, ...]:
    """Formats to bound prompts in, one after the other while most of them could still matter."""
    coarse = _coarse.ranked_in()
    return (None,) if coarse is None or source.dtype == np.float64 else (coarse, None)


def bounded(source: Source, at: Factored, known: Ceilings, kind: _coarse.Coarse | None = None) -> Bounded:
    """Bounds on the sensitivities of every prompt, by one fold, its products in the working dtype or a coarser one."""
    highest, error = (np.asarray(part, np.float64) for part in largest(source, at.scaled, kind))
    upper = np.maximum(np.nextafter((highest + error) * at.unit, np.inf), 0)  # 0 where a prompt has no pair
    upper = np.minimum(ceilings_at(known, at.exact), upper)
    return Bounded(with_ceilings(known, np.arange(source.prompts), upper, at.exact), upper, error * at.unit)


def look(source: Source, at: Factored, wanted: Wanted, found: Bounded, prompts: Int[np.ndarray, " q"]) -> Swept:
    """Only some prompts, in order, closely."""
    return _looked_at(source, at, wanted, None, None, found.known, found.upper, prompts)


def to_look_at(upper: Float[np.ndarray, " p"], wanted: Wanted, charges: Charges | None) -> Int[np.ndarray, " q"]:
    """The prompts, in order, that may have a pair that is wanted."""
    level = min(wanted.listed, wanted.entered)
    if charges is None:
        return np.flatnonzero(upper >= level)
    of = np.asarray(charges.of)
    return np.flatnonzero((upper - 2 * of.min(axis=1) >= level) | (np.asarray(charges.listed) > 0))


def _page(source: Source) -> int:
    """Prompts that are looked at together: those of a chunk on every device."""
    return devices_of(source) * _arrays.chunk_length(source.prompts, source.completions, source.dim)


def _at_once(source: Source) -> int:
    """Prompts of a pool that is never taken apart."""
    return max(LARGE // source.completions**2, 1)


def _looked_at(source, at, wanted, ranks, charges, known, upper, some) -> Swept:
    """`sweep` once it is known which prompts to look at: every page leaves its pairs, counts and bounds."""
    threshold = rounded_down(wanted.listed / at.unit, at.scaled.dtype)
    net, raw = upper if charges is None else upper - 2 * np.asarray(charges.of).min(axis=1), upper
    net, raw, counts = net.copy(), raw.copy(), np.zeros(source.prompts, np.int64)
    listed, entered, total = [], [], 0
    length = len(some) if len(some) == source.prompts <= _at_once(source) else _page(source)
    some = in_turn(source, some) if len(some) > length else some
    for start in range(0, len(some), max(length, 1)):
        prompts = np.sort(some[start : start + length])
        result = _page_result(source, at, threshold, ranks, charges, prompts, length)
        highest = np.nextafter((_numbers(result.highest) + _numbers(result.error)) * at.unit, np.inf)
        most = 0.0 if charges is None else 2 * np.asarray(charges.of)[prompts].max(axis=1)
        net[prompts] = np.minimum(net[prompts], highest)
        raw[prompts] = np.minimum(raw[prompts], np.maximum(highest + most, 0))
        counts[prompts] = np.asarray(result.reaching)
        total += int(counts[prompts].sum())
        if total <= wanted.most_listed:
            listed.append(_in_pool(reaching_pairs(result, source.completions), prompts))
        if wanted.most_entered:
            entered = _best(entered, result, prompts, at, wanted, source.completions)
    complete = total <= wanted.most_listed
    pairs = np.concatenate([np.zeros((0, 3), np.int32), *(listed if complete else [])])
    pairs = pairs[np.argsort(pair_keys(pairs, source.completions), kind="stable")]
    best, values = _best_of(entered, source.completions, wanted.most_entered)
    known = with_ceilings(known, some, raw[some], at.exact)
    mattered = len(to_look_at(raw, wanted, charges))
    return Swept(net, counts, pairs, complete, best, values, known._replace(mattered=mattered), len(some))


def _page_result(source, at, threshold, ranks, charges, prompts, length) -> PassResult:
    """Some prompts priced pair by pair; the page is filled up with the last of them again, and the results are not."""
    missing = length - len(prompts) if devices_of(source) == 1 else 0  # devices fill up their own
    page = np.concatenate([prompts, np.full(missing, prompts[-1])]).astype(np.int64)
    whole = len(prompts) == source.prompts
    ranks = None if ranks is None else ranks[page]
    if charges is not None:
        of = np.asarray(charges.of)[page] / at.unit
        charges = Charges(jnp.asarray(of, at.scaled.dtype), np.asarray(charges.listed)[page])
    result = price(source if whole else some_of(source, page), at.scaled, threshold, ranks, charges)
    # of these three numbers a prompt only those are kept: what is filled up is looked at no further
    kept = (np.asarray(a)[: len(prompts)] for a in (result.highest, result.error, result.reaching))
    return result._replace(**dict(zip(("highest", "error", "reaching"), kept, strict=True)))


def _numbers(array):
    return np.asarray(array, np.float64)


def _in_pool(pairs, prompts):
    return np.concatenate([prompts[pairs[:, :1]], pairs[:, 1:]], axis=1).astype(np.int32)


def _best(entered, result, prompts, at, wanted, completions):
    """What was entered so far, and the best pairs of a page; no more than a few times those that are kept."""
    pairs, values = best_pairs(result, wanted.entered, wanted.most_entered, at.unit)
    entered = [*entered, (_in_pool(pairs, prompts), values)]
    if sum(len(values) for _, values in entered) > 4 * wanted.most_entered:
        entered = [_best_of(entered, completions, wanted.most_entered)]
    return entered


def _best_of(entered, completions, number):
    pairs = np.concatenate([np.zeros((0, 3), np.int32), *(pairs for pairs, _ in entered)])
    values = np.concatenate([np.zeros(0), *(values for _, values in entered)])
    order = np.lexsort((pair_keys(pairs, completions), -values))[:number]
    return pairs[order], values[order]


def rounded_down(level: float, dtype: np.dtype) -> np.ndarray | np.floating:
    """`level` in a pricing dtype, rounded down, so that a listing reaches it."""
    with np.errstate(over="ignore"):
        rounded = np.asarray(level, dtype)
    return rounded if float(rounded) <= level else np.nextafter(rounded, np.asarray(-np.inf, dtype))
