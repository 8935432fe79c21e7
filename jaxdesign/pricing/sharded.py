"""A pool whose prompts are spread over the devices of a mesh, as a source: features stay where they are.

Each device holds a `MemorySource` of its own prompts and scans its chunks; what it carries is then joined with what the
others carry, in the order of the devices. Between devices there travel, over D of them:

- of a fold, at most twice the bytes of its carry, 16 d^2 bytes for a d x d matrix in float64: the carries are joined
  piece by piece, each piece on one device, and then shared. Outputs stay where their prompts are;
- of listed pairs that are scored nothing: they are visited where they lie, and outputs go to the host. Where the rows
  themselves are asked for, they travel once, as they are stored, 4 to 16 d bytes each;
- of a subset, its features: sums over devices of which all but one are zero.

The mesh is the user's, of one process or of several; its axes other than those of the prompts hold copies. Passes run
on the same devices with Auto axes, whatever the types of the user's: outputs can then be computed with anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays
from jaxdesign.pool import CompletionPool, unchecked_pool
from jaxdesign.pricing.layout import Layout, joined, on_devices, one_process
from jaxdesign.pricing.listed import PairKernel, over_pages
from jaxdesign.pricing.memory import MemorySource, chunked, prepared, taken
from jaxdesign.pricing.owned import (
    by_owner,
    by_slot,
    page_ends,
    page_length,
    page_prompts,
    prompts_in_order,
    rows_in_order,
    subset_length,
    visited,
)
from jaxdesign.pricing.projected import projected
from jaxdesign.pricing.source import Derived, Kernel, Merge, PairRows, ranks_among


@dataclass(frozen=True, eq=False)
class ShardedSource:
    """A pool spread over the devices of a mesh: a `Source`, for the host. `sharded_source` makes one.

    Args:
        parts: the sources of all devices, each leaf joined along its leading axis.
        layout: where prompts lie.

    Source: derived; checked by tests/pricing/test_sharded.py against the same pool in memory.
    """

    parts: MemorySource
    layout: Layout

    @property
    def prompts(self) -> int:
        """P, without the empty prompts that make it divide."""
        return self.layout.prompts

    @property
    def completions(self) -> int:
        """K."""
        return self.parts.completions

    @property
    def dim(self) -> int:
        """d."""
        return self.parts.dim

    @property
    def draws(self) -> int:
        """R; 1 without draws."""
        return self.parts.draws

    @property
    def dtype(self) -> np.dtype:
        """Working dtype."""
        return self.parts.dtype

    def fold(self, kernel: Kernel, carry: Any, per_prompt: Any = None, merge: Merge = jnp.add) -> tuple[Any, Any]:
        """See `Source.fold`. Outputs stay on the devices of their prompts.

        Every device has all outputs where P does not divide, where other processes could not read them, and where the
        caller has set a mesh, which may not let them be computed with.
        """
        kernel, carry = jax.tree.map(self.layout.shared, (kernel, carry))
        inputs = jax.tree.map(self.layout.divided, per_prompt)
        own = self.layout.slots == self.prompts and jax.sharding.get_mesh().empty and one_process(self.layout.mesh)
        carry, outputs = self._run(_fold, self.parts, kernel, carry, inputs, merge=merge, own=own)
        return _arrays.in_one_place(carry), outputs if own else _arrays.in_one_place(outputs)

    def rows(self, pairs: Int[np.ndarray, "s 3"]) -> PairRows:
        """See `Source.rows`; on one device. A pair that is listed several times is sent once."""
        once, which = np.unique(pairs, axis=0, return_inverse=True)
        with _arrays.float64():
            (page,) = by_owner(self.layout, once, page_length(self.layout, once))
            place = np.zeros(len(once), np.int32)
            place[page.some] = page.slots
            ends = _arrays.in_one_place(self._run(page_ends, self.parts, page.pairs))
            return rows_in_order(_arrays.for_algebra(ends), place[which])

    def over_pairs(self, kernel: PairKernel, pairs: Int[np.ndarray, "s 3"], per_pair: Any = None) -> Any:
        """See `listed.over_pairs` for kernel, pairs and per_pair.

        Devices visit their own pairs; but where they have no float64, rows are sent to what has.
        """
        if _arrays.algebra_device() is not None:
            return over_pages(self, kernel, pairs, per_pair)
        order, outputs = [], []
        with _arrays.float64():
            kernel = jax.tree.map(self.layout.shared, kernel)
            for page in by_owner(self.layout, pairs, page_length(self.layout, pairs)):
                inputs = jax.tree.map(lambda a, page=page: by_slot(self.layout, page.in_slots(a)), per_pair)
                found = self._run(visited, self.parts, kernel, page.pairs, inputs)
                order.append(page.some)
                outputs.append(jax.tree.map(lambda a, page=page: _arrays.on_host(a)[page.slots], found))
        back = np.argsort(np.concatenate(order))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[back], *outputs)

    def subset(self, prompts: Int[np.ndarray, " m"]) -> MemorySource:
        """See `Source.subset`; on one device."""
        with _arrays.float64():
            pages = by_owner(self.layout, prompts[:, None], subset_length(self.layout, prompts))
            found = ((page, _arrays.in_one_place(self._run(page_prompts, self.parts, page.pairs))) for page in pages)
            some = prompts_in_order(found, len(prompts))
            return chunked(some, _arrays.chunk_length(self.prompts, self.completions, self.dim))

    def in_dtype(self, dtype: Any) -> ShardedSource:
        """The same with another working `dtype`, each device by itself."""
        if np.dtype(dtype) == self.dtype:
            return self
        with _arrays.float64():
            return replace(self, parts=self._run(_in_dtype, self.parts, dtype=np.dtype(dtype)))

    def in_basis(self, basis: Float[np.ndarray, "d r"], dtype: Any) -> Float[Array, "p k r"]:
        """Features in a `basis` and `dtype`, see `projected`, each on the device of its prompt."""
        with _arrays.float64():
            return self._run(_in_basis, self.parts, jnp.asarray(basis), dtype=np.dtype(dtype))

    @property
    def scored(self) -> bool:
        """Whether it has scores."""
        return self.parts.scored

    def with_scores(self, scores: Float[np.ndarray, "p k"]) -> ShardedSource:
        """The same with these scores in place of any it has, each device with those of its prompts."""
        return replace(self, parts=self._run(_with_scores, self.parts, self.layout.divided(scores)))

    @property
    def devices(self) -> int:
        """Devices that have prompts of their own."""
        return self.layout.parts

    def home(self, prompts: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Which of them have these prompts."""
        return prompts // self.layout.run

    def some(self, prompts: Int[np.ndarray, " m"]) -> PickedSource:
        """Some prompts, in any order and any number of times, to fold over: each stays on its device."""
        home = self.home(prompts)
        rank = ranks_among(home)
        length = _arrays.power_of_two(int(rank.max(initial=0)) + 1)
        place, own = home * length + rank, np.full(self.devices * length, -1, np.int32)
        own[place] = prompts % self.layout.run
        with _arrays.float64():
            parts = self._run(_picked, self.parts, self.layout._replace(prompts=len(own)).divided(own))
        return PickedSource(ShardedSource(parts, self.layout._replace(prompts=len(own))), place)

    def _run(self, function, *args, **static):
        with jax.set_mesh(self.layout.mesh):  # another one of the caller's may be set
            return function(self.layout, *args, **static)


@dataclass(frozen=True, eq=False)
class PickedSource(Derived):
    """Some prompts of a divided pool as a source to fold over.

    Args:
        given: what the devices have of them, as many slots each, some empty.
        place: (m,) the slots of the prompts.
    """

    given: ShardedSource
    place: Int[np.ndarray, " m"]

    @property
    def prompts(self) -> int:
        """m."""
        return len(self.place)

    def fold(self, kernel: Kernel, carry: Any, per_prompt: Any = None, merge: Merge = jnp.add) -> tuple[Any, Any]:
        """See `Source.fold`; outputs are on the host."""
        carry, outputs = self.given.fold(kernel, carry, jax.tree.map(self._in_slots, per_prompt), merge)
        return carry, jax.tree.map(lambda a: _arrays.on_host(a)[self.place], outputs)

    def _in_slots(self, array):
        array = np.asarray(array)
        slots = np.zeros((self.given.prompts, *array.shape[1:]), array.dtype)
        slots[self.place] = array
        return slots


def sharded_source(
    pool: CompletionPool, mesh: Mesh | None = None, axis: str | Sequence[str] | None = None, dtype: Any = None
) -> ShardedSource:
    """A pool whose prompts are spread over the devices of a mesh.

    Args:
        pool: the pool. Arrays that lie over these axes already stay where they are, others are put there.
        mesh: the devices, of this process or of several; None: those of the features.
        axis: the axis, or axes, of the mesh along which prompts are divided; None: that of the features.
        dtype: working dtype; None: float32, or float64 for float64 features.

    Returns:
        ShardedSource. Where P does not divide, the last devices have empty prompts; P stays what it is.

    Raises:
        ValueError: an axis that the mesh does not have; no mesh, and features that are not spread over prompts.

    Source: derived; checked by tests/pricing/test_sharded.py.
    """
    if mesh is None or axis is None:
        lying = _arrays.over_prompts(pool.features)
        if lying is None:
            raise ValueError("pool: its features are not divided over prompts; pass the mesh and its axis")
        mesh, axis = lying
    axes = (axis,) if isinstance(axis, str) else tuple(axis)
    unknown = [name for name in axes if name not in mesh.axis_names]
    if unknown or not axes:
        raise ValueError(f"axis={axis!r}: expected axes of the mesh, which has {', '.join(mesh.axis_names)}")
    layout = Layout(Mesh(mesh.devices, mesh.axis_names), axes, pool.num_prompts)
    pool = _divided_pool(layout, pool)
    length = _arrays.chunk_length(layout.run, pool.completions, pool.dim)
    with jax.set_mesh(layout.mesh):
        last, means, copies, margins = _prepared(layout, pool, dtype=dtype, length=length)
    return ShardedSource(MemorySource(pool.features, last, means, copies, margins, None), layout)


def _divided_pool(layout: Layout, pool: CompletionPool) -> CompletionPool:
    """The pool over the devices; prompts that were added have no completions."""
    draws = 0 if pool.num_draws is None else 1
    scores = None if pool.scores is None else layout.divided(pool.scores, draws)
    flip = None if pool.flip is None else layout.divided(pool.flip)
    residual = jax.tree.map(layout.divided, pool.residual)
    return unchecked_pool(layout.divided(pool.features), scores, layout.divided(pool.mask), flip, residual)


@jax.jit(static_argnames=("layout", "dtype", "length"))
def _prepared(layout, pool, *, dtype, length):
    by_prompt = layout.by_prompt
    scores = None if pool.scores is None else layout.sharding(pool.scores.ndim - 2).spec
    flip, residual = (None if part is None else by_prompt for part in (pool.flip, pool.residual))
    specs = unchecked_pool(by_prompt, scores, by_prompt, flip, residual)
    return on_devices(lambda part: prepared(part, dtype, length), (specs,), by_prompt)(pool)


@jax.jit(static_argnames=("layout", "merge", "own"))
def _fold(layout, parts, kernel, carry, inputs, *, merge, own):
    def visit(part, kernel, carry, inputs):
        carry, outputs = part.fold(kernel, carry, inputs)
        return jax.tree.map(lambda leaf: joined(leaf, layout.axes, merge), carry), outputs

    by_prompt, everywhere = layout.by_prompt, PartitionSpec()
    specs = (by_prompt, everywhere, everywhere, by_prompt), (everywhere, by_prompt)
    carry, outputs = on_devices(visit, *specs)(parts, kernel, carry, inputs)
    if own:
        return carry, outputs
    whole = NamedSharding(layout.mesh, everywhere)
    return carry, jax.tree.map(lambda a: lax.with_sharding_constraint(a[: layout.prompts], whole), outputs)


@jax.jit(static_argnames=("layout", "dtype"))
def _in_dtype(layout, parts, *, dtype):
    return on_devices(lambda part: part.in_dtype(dtype), (layout.by_prompt,), layout.by_prompt)(parts)


@jax.jit(static_argnames="layout")
def _with_scores(layout, parts, scores):
    specs = (layout.by_prompt,) * 2
    return on_devices(lambda part, own: part.with_scores(own), specs, layout.by_prompt)(parts, scores)


@jax.jit(static_argnames=("layout", "dtype"))
def _in_basis(layout, parts, basis, *, dtype):
    def project(part, basis):
        return projected(part, basis, dtype).features

    return on_devices(project, (layout.by_prompt, PartitionSpec()), layout.by_prompt)(parts, basis)


@jax.jit(static_argnames="layout")
def _picked(layout, parts, own):
    def look(part, own):
        features, means, copies, *rest = taken(part, jnp.maximum(own, 0))
        copies = jnp.where((own >= 0)[:, None], copies, -1)
        return chunked((features, means, copies, *rest), part.copies.shape[1])

    return on_devices(look, (layout.by_prompt, layout.by_prompt), layout.by_prompt)(parts, own)
