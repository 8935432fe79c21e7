"""The best pairs that a search of the pool finds, and no more of the rest than a number a prompt.

Of a small pool everything is looked at once. Of a large one every prompt first tells its best, and only the prompts
that may hold a pair of the list are then brought together, a page at a time, and looked at pair by pair.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays
from jaxdesign._pairs import pair_keys
from jaxdesign.exact.exchange import search
from jaxdesign.exact.exchange.swap_gains import NEVER
from jaxdesign.pricing.passes import best_pairs
from jaxdesign.pricing.source import Kernel, Source, devices_of, in_turn, some_of

LARGE = 2**21  # pair slots up to which a pool is looked at as a whole


class Listing(NamedTuple):
    """What a search found: pairs with their gains, largest first, and the pairs that should give them a label."""

    pairs: Int[np.ndarray, "n 3"]
    gains: Float[np.ndarray, " n"]
    losers: Int[np.ndarray, " m"]  # some several times
    promised: Float[np.ndarray, " m"]  # what each of these gains


NONE = Listing(np.zeros((0, 3), np.int32), np.zeros(0), np.zeros(0, np.int32), np.zeros(0))


def listed(source: Source, kernel: Kernel, rules: search.Rules, number: int, least: float) -> Listing:
    """At most `number` pairs with the largest gains, ties by (prompt, i, j); losers of those above `least`.

    Of every completion the pairs are listed that the search keeps. Memory: O(P) and the pairs of a page of prompts.
    """
    if source.prompts * source.completions**2 <= LARGE:
        return _of(search.found(source, kernel, rules), rules, number, least)
    best = _arrays.on_host(search.highest(source, kernel, rules))
    some = np.flatnonzero(best >= np.partition(best, -number)[-number]) if number < len(best) else np.arange(len(best))
    some = some[best[some] > NEVER]
    length, found = devices_of(source) * _arrays.chunk_length(source.prompts, source.completions, source.dim), []
    some = in_turn(source, some)
    for start in range(0, len(some), length):
        prompts = np.sort(some[start : start + length])
        missing = length - len(prompts) if devices_of(source) == 1 else 0  # devices fill up their own
        page = np.concatenate([prompts, np.full(missing, prompts[-1])])
        theirs = rules.of(page)
        again = np.arange(len(page)) >= len(prompts)  # the last one is not to be listed again
        theirs = theirs._replace(levels=np.where(again, np.asarray(np.inf, theirs.levels.dtype), theirs.levels))
        found.append(_of(search.found(some_of(source, page), kernel, theirs), theirs, number, least))
    return _together(found, source.completions, number)


def _of(found: search.Found, rules: search.Rules, number: int, least: float) -> Listing:
    pairs, gains = best_pairs(found, NEVER, number)
    prompts = np.asarray(rules.prompts)[pairs[:, 0]]
    pairs = np.concatenate([prompts[:, None], pairs[:, 1:]], axis=1).astype(np.int32)
    if found.loser is None:
        return Listing(pairs, gains, *NONE[2:])
    best, loser = np.asarray(found.best), np.asarray(found.loser)
    return Listing(pairs, gains, loser[best > least], best[best > least])


def _together(found: list[Listing], completions: int, number: int) -> Listing:
    """Lists of several pages as one."""
    pairs, gains, *losers = (np.concatenate(parts) for parts in zip(NONE, *found, strict=True))
    order = np.lexsort((pair_keys(pairs, completions), -gains))[:number]
    return Listing(pairs[order], gains[order], *losers)
