"""Listed pairs of a divided pool, each on the device that has its prompt.

A list is cut into pages of as many slots on every device, in which pairs stand by their owners; the slots that are left
hold a pair whose difference is 0. Kernels visit a page where it lies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int

from jaxdesign import _arrays
from jaxdesign.pricing.ends import Ends, rows_between
from jaxdesign.pricing.layout import Layout, on_devices
from jaxdesign.pricing.listed import PAGE, PairKernel, in_slots
from jaxdesign.pricing.memory import MemorySource, Taken, taken
from jaxdesign.pricing.source import PairRows, ranks_among

FEW = 8  # slots of a device at least


class Page(NamedTuple):
    """Some of the listed pairs.

    Args:
        some: which of the list, in its order.
        slots: where they stand, those of one device after those of another.
        pairs: (D L, 3) int32 of all slots on their devices, prompts counted in what each of them has.
    """

    some: Int[np.ndarray, " m"]
    slots: Int[np.ndarray, " m"]
    pairs: Array

    def in_slots(self, array: np.ndarray) -> np.ndarray:
        """What the list has of every pair, in slots; 0 in empty ones."""
        return in_slots(array[self.some], self.slots, len(self.pairs))


def by_owner(layout: Layout, pairs: Int[np.ndarray, "s n"], length: int) -> list[Page]:
    """A list of pairs, or of prompts, (S, 1), in pages of so many slots on every device, at least one page."""
    home = pairs[:, 0] // layout.run
    rank = ranks_among(home)
    here = np.column_stack([pairs[:, 0] % layout.run, pairs[:, 1:]]).astype(np.int32)
    found = []
    for number in range(int(rank.max(initial=0)) // length + 1):
        some = np.flatnonzero(rank // length == number)
        slots = home[some] * length + rank[some] % length
        found.append(Page(some, slots, by_slot(layout, in_slots(here[some], slots, layout.parts * length))))
    return found


def page_length(layout: Layout, pairs: Int[np.ndarray, "s 3"]) -> int:
    """Slots of a device in the pages of listed pairs: one of a few numbers."""
    return int(np.clip(_arrays.power_of_two(_most(layout, pairs[:, 0])), FEW, PAGE))


def subset_length(layout: Layout, prompts: Int[np.ndarray, " m"]) -> int:
    """Slots of a device in the pages of a subset: an eighth at most stays empty where devices have about as many of its
    prompts; where one has most of them, there are several pages, so that none is much larger than the subset."""
    most = min(_most(layout, prompts), max(2 * -(-len(prompts) // layout.parts), 1))
    return _arrays.round_up(most, max(_arrays.power_of_two(most) // 16, 1))


def _most(layout, prompts):
    """Of the entries of a list, on any one device."""
    return max(int(np.bincount(prompts // layout.run).max(initial=0)), 1)


def by_slot(layout: Layout, array: np.ndarray) -> Array:
    """An array with a leading axis of slots, each on its device."""
    return layout._replace(prompts=len(array)).divided(array)


@jax.jit(static_argnames="layout")
def page_ends(layout: Layout, parts: MemorySource, pairs: Int[Array, "n 3"]) -> Ends:
    """What rows of a page are made of, on their devices."""
    return on_devices(MemorySource.ends, (layout.by_prompt, layout.by_prompt), layout.by_prompt)(parts, pairs)


@jax.jit(static_argnames="layout")
def page_prompts(layout: Layout, parts: MemorySource, prompts: Int[Array, "n 1"]) -> Taken:
    """What sources have of the prompts of a page, on their devices."""

    def look(part, prompts):
        return taken(part, prompts[:, 0])

    return on_devices(look, (layout.by_prompt, layout.by_prompt), layout.by_prompt)(parts, prompts)


def prompts_in_order(pages: Iterable[tuple[Page, Taken]], size: int) -> Taken:
    """What was taken of so many prompts, page by page, in their order."""
    rows = None
    for page, found in pages:
        place = np.full(len(page.pairs), size, np.int32)  # past the end: dropped
        place[page.slots] = page.some
        rows = _placed(_zeros(found, size) if rows is None else rows, place, found)
    return cast(Taken, rows)


@jax.jit(static_argnums=1)
def _zeros(page, size):
    return jax.tree.map(lambda a: jnp.zeros((size, *a.shape[1:]), a.dtype), page)


@jax.jit(donate_argnums=0)  # filled in place
def _placed(rows, place, page):
    return jax.tree.map(lambda a, part: a.at[place].set(part, mode="drop"), rows, page)


@jax.jit
def rows_in_order(ends: Ends, place: Int[Array, " s"]) -> PairRows:
    """Rows of the pairs at some places, inside of `_arrays.float64()`."""
    return rows_between(jax.tree.map(lambda a: a[place], ends))


@jax.jit(static_argnames="layout")
def visited(layout: Layout, parts: MemorySource, kernel: PairKernel, pairs: Int[Array, "n 3"], inputs: Any) -> Any:
    """Outputs of a page, on their devices.

    Kernels see PAGE slots, as of any other source: products of other lengths are rounded in other ways, and what is
    chosen by the last bits of scores would depend on how many devices there are.
    """

    def look(part, kernel, pairs, inputs):
        slots = len(pairs)
        pairs, inputs = jax.tree.map(lambda a: _arrays.filled_up(a, PAGE - slots), (pairs, inputs))
        # a barrier, or the compiler would multiply no more rows than are kept
        outputs = lax.optimization_barrier(kernel(rows_between(part.ends(pairs)), inputs))
        return jax.tree.map(lambda a: a[:slots], outputs)

    ours = layout.by_prompt
    return on_devices(look, (ours, PartitionSpec(), ours, ours), ours)(parts, kernel, pairs, inputs)
