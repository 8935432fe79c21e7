"""Listed pairs of a source: visited where they lie, or brought to one place.

Scores of listed pairs are kernels, functions of their rows that know no source. A source that has its prompts in
several places runs them there (`Visiting`), so that numbers travel and rows do not; of any other one the rows are asked
for, a page at a time. Sums over listed pairs are always made in one place, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int

from jaxdesign import _arrays
from jaxdesign._pairs import pair_keys
from jaxdesign.pricing.host_fold import Part, visited
from jaxdesign.pricing.source import Derived, PairRows, Source

PAGE = 4096  # listed pairs looked up at a time: one compilation whatever their number

# kernel(rows, inputs) -> outputs: see `over_pairs`
PairKernel = Callable[[PairRows, Any], Any]


@runtime_checkable
class Rows(Protocol):
    """What has rows of listed pairs: every source."""

    def rows(self, pairs: Int[np.ndarray, "s 3"]) -> PairRows:
        """See `Source.rows`."""
        ...


@runtime_checkable
class Visiting(Protocol):
    """A source that visits listed pairs where they lie. No source has to: `over_pairs` asks any other for the rows."""

    def over_pairs(self, kernel: PairKernel, pairs: Int[np.ndarray, "s 3"], per_pair: Any = None) -> Any:
        """See the function of this name."""
        ...


def over_pairs(source: Source, kernel: PairKernel, pairs: Int[np.ndarray, "s 3"], per_pair: Any = None) -> Any:
    """What kernel(rows, inputs) says of listed pairs, some at a time: numbers a pair, which depend on no other pair.

    Args:
        source: the pool.
        kernel: a pure, traceable function wrapped as `jax.tree_util.Partial`, as of `Source.fold`; traced in a float64
            scope. Rows that fill up a page have a difference of 0, and inputs of 0.
        pairs: (S, 3).
        per_pair: a pytree of NumPy arrays with a leading axis S, which the kernel gets its part of, or None.

    Returns:
        The outputs of all pairs in their order, on the host; None where there are no pairs.

    Raises: nothing; pairs are not checked.

    Source: derived; checked by tests/pricing/test_listed.py.
    """
    if not len(pairs):
        return None
    if isinstance(source, Visiting):
        return source.over_pairs(kernel, pairs, per_pair)
    return over_pages(source, kernel, pairs, per_pair)


def over_pages(source: Rows, kernel: PairKernel, pairs: Int[np.ndarray, "s 3"], per_pair: Any = None) -> Any:
    """`over_pairs` of rows that are brought to where float64 is computed."""
    return by_pages(source, Partial(_without_carry, kernel), None, pairs, per_pair)[1]


def _without_carry(kernel, rows, carry, inputs):
    return carry, kernel(rows, inputs)


def by_pages(
    source: Rows, kernel: Callable, carry: Any, pairs: Int[np.ndarray, "s 3"], per_pair: Any = None
) -> tuple[Any, Any]:
    """(carry, outputs) after kernel(rows, carry, inputs) -> (carry, outputs) on listed pairs in order, page by page.

    Rows are brought to where float64 is computed. A page is filled up with rows and inputs of 0, which must add nothing
    to the carry; of no pairs there is the carry, and None.
    """
    if not len(pairs):
        return carry, None
    given = _arrays.in_float64()
    with _arrays.float64():
        parts = _parts(source, pairs, given)
        return visited(parts, Partial(_visit, jax.tree.map(jnp.asarray, kernel)), carry, per_pair)


def _parts(source, pairs, wide):
    """Pages as parts of the list; rows are asked for in the caller's default precision, whatever this is visited in."""
    found = pages(source, pairs)
    for _ in range(0, len(pairs), PAGE):
        with _arrays.scope(wide):
            part, rows = next(found)
        yield Part(rows, PAGE, part.stop - part.start)
        del rows


@jax.jit
def _visit(kernel, rows, carry, inputs):
    return kernel(rows, carry, inputs)


def in_slots(array: np.ndarray, place: Int[np.ndarray, " m"], slots: int) -> np.ndarray:
    """Entries of an array in so many slots, 0 in the others."""
    filled = np.zeros((slots, *array.shape[1:]), array.dtype)
    filled[place] = array
    return filled


def pages(source: Rows, pairs: Int[np.ndarray, "s 3"]) -> Iterator[tuple[slice, PairRows]]:
    """Listed pairs, PAGE at a time: where they are in the list, and that many rows, 0 past the end."""
    for start in range(0, len(pairs), PAGE):
        some = pairs[start : start + PAGE]  # filled up by the pair (0, 0, 0), whose difference is zero
        page = in_slots(some.astype(np.int32), np.arange(len(some)), PAGE)
        yield slice(start, start + len(some)), source.rows(page)


def listed_rows(
    source: Any, pairs: Int[np.ndarray, "s 3"]
) -> tuple[Float[np.ndarray, "s d"], Float[np.ndarray, "r s"]]:
    """z and c of all listed pairs of a source, on the host."""
    z, c = np.zeros((len(pairs), source.dim)), np.zeros((source.draws, len(pairs)))
    for part, rows in pages(source, pairs):
        z[part] = np.asarray(rows.differences)[: part.stop - part.start]
        c[:, part] = np.asarray(rows.label_info)[:, : part.stop - part.start]
    return z, c


class Held(NamedTuple):
    """Listed pairs with their rows in one place, so that only others have to be brought there the next time.

    Args:
        pairs: (S, 3).
        rows: theirs in order, float64, and more rows of 0.
    """

    pairs: Int[np.ndarray, "s 3"]
    rows: PairRows


def holding(source: Source, held: Held | None) -> Rows:
    """The source, with what is at hand of it."""
    return source if held is None else Holding(source, held)


def held_rows(
    source: Source | PromptsHeld, pairs: Int[np.ndarray, "s 3"], size: int, before: Held | None = None
) -> Held:
    """Rows of at most `size` distinct pairs; of the source only those are asked for that were not held `before`."""
    known = np.zeros((0, 3), np.int32) if before is None else before.pairs
    keys = [pair_keys(some, source.completions) for some in (known, pairs)]
    _, place, was = np.intersect1d(keys[1], keys[0], assume_unique=True, return_indices=True)
    index = np.full(size, -1, np.int32)
    index[place] = was
    with _arrays.float64():
        rows = _empty(size, source.dim, source.draws) if before is None else _taken(before.rows, index)
        new = np.flatnonzero(index[: len(pairs)] < 0)
        for part, page in pages(source, pairs[new]):
            places = np.full(PAGE, size, np.int32)  # past the end: dropped
            places[: part.stop - part.start] = new[part]
            rows = _placed(rows, places, page)
    return Held(pairs, rows)


@dataclass(frozen=True, eq=False)
class Holding(Derived):
    """A source with rows of some pairs at hand: pages of nothing but those are not asked of it."""

    held: Held

    def rows(self, pairs: Int[np.ndarray, "s 3"]) -> PairRows:
        """See `Source.rows`."""
        known, asked = (pair_keys(some, self.completions) for some in (self.held.pairs, pairs))
        order = np.argsort(known)
        place = order[np.minimum(np.searchsorted(known, asked, sorter=order), len(known) - 1)]
        index = np.where(pairs[:, 1] == pairs[:, 2], -1, place).astype(np.int32)  # what fills a page up has no row
        if (known[place] != asked)[index >= 0].any():
            return self.given.rows(pairs)
        with _arrays.float64():
            return _taken(self.held.rows, index)


@dataclass(frozen=True, eq=False)
class PromptsHeld(Derived):
    """A source with some of its prompts at hand: rows of nothing but their pairs are not asked of it.

    Args:
        given: the source.
        prompts_held: (m,) which, ascending.
        held: its subset of them.
    """

    prompts_held: Int[np.ndarray, " m"]
    held: Source

    def rows(self, pairs: Int[np.ndarray, "s 3"]) -> PairRows:
        """See `Source.rows`."""
        place = np.searchsorted(self.prompts_held, pairs[:, 0])
        place = np.minimum(place, len(self.prompts_held) - 1)
        same = pairs[:, 1] == pairs[:, 2]  # what fills a page up: of whichever prompt
        if ((self.prompts_held[place] != pairs[:, 0]) & ~same).any():
            return self.given.rows(pairs)
        return self.held.rows(np.column_stack([place, pairs[:, 1:]]).astype(np.int32))


@jax.jit(static_argnums=(0, 1, 2))
def _empty(size, dim, draws):
    return PairRows(jnp.zeros((size, dim)), jnp.zeros((draws, size)))


@jax.jit
def _taken(rows, index):
    there = index >= 0
    differences, label_info = rows.differences[jnp.maximum(index, 0)], rows.label_info[:, jnp.maximum(index, 0)]
    return PairRows(jnp.where(there[:, None], differences, 0), jnp.where(there[None], label_info, 0))


@jax.jit(donate_argnums=0)  # filled in place
def _placed(rows, places, page):
    return PairRows(
        rows.differences.at[places].set(page.differences, mode="drop"),
        rows.label_info.at[:, places].set(page.label_info, mode="drop"),
    )
