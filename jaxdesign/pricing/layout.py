"""Where the prompts of a divided pool lie, and how what devices have of them is put there and brought together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxdesign import _arrays
from jaxdesign.pricing.source import Merge


class Layout(NamedTuple):
    """Where prompts lie: P of them in equal runs over the devices along some axes of a mesh, empty ones at the end."""

    mesh: Mesh  # Auto axes
    axes: tuple[str, ...]
    prompts: int

    @property
    def parts(self) -> int:
        """Runs of prompts."""
        return int(np.prod([self.mesh.shape[axis] for axis in self.axes]))

    @property
    def slots(self) -> int:
        """Prompts with the empty ones: each device has as many."""
        return _arrays.round_up(self.prompts, self.parts)

    @property
    def run(self) -> int:
        """Slots of a device."""
        return self.slots // self.parts

    @property
    def by_prompt(self) -> PartitionSpec:
        """Of arrays with a leading axis of prompts, or of what each device has of something."""
        return PartitionSpec(self.axes)

    def sharding(self, before: int = 0) -> NamedSharding:
        """Of arrays whose prompts are the axis after `before` others."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * before, self.axes))

    def divided(self, array: Any, before: int = 0) -> Array:
        """An array with an axis of prompts, filled up with zeros, each part on its device and no part elsewhere."""
        sharding, missing = self.sharding(before), self.slots - array.shape[before]
        if isinstance(array, jax.Array) and array.sharding.device_set == sharding.device_set and not missing:
            return jax.device_put(array, sharding)  # no copy where it lies so already
        shape = *array.shape[:before], self.slots, *array.shape[before + 1 :]

        def part(index):
            some = np.asarray(array[index])
            return np.pad(some, [(0, _length(i, n) - m) for i, n, m in zip(index, shape, some.shape, strict=True)])

        return _made(array, shape, sharding, part)

    def shared(self, leaf: Any) -> Any:
        """An array as a copy on every device; NumPy arrays are sent there by whatever takes them."""
        whole = NamedSharding(self.mesh, PartitionSpec())
        if not isinstance(leaf, jax.Array) or leaf.sharding.device_set == whole.device_set:
            return leaf
        return _made(leaf, leaf.shape, whole, lambda _: np.asarray(leaf))


def _made(array: Any, shape: tuple[int, ...], sharding: NamedSharding, part: Any) -> Array:
    """An array of parts, of the dtype that JAX has for this one here."""
    dtype = array.dtype if isinstance(array, jax.Array) else jax.dtypes.canonicalize_dtype(array.dtype)
    with _arrays.float64():
        return jax.make_array_from_callback(shape, sharding, lambda index: part(index).astype(dtype), dtype=dtype)


def _length(index: slice, size: int) -> int:
    start, stop, _ = index.indices(size)
    return stop - start


def joined(leaf: Array, axes: tuple[str, ...], merge: Merge) -> Array:
    """The carries of all devices along some axes merged in their order, to the same bits on all of them every time.

    Each device merges its piece of all carries and sends it to the others: 2 (D - 1) / D of the leaf's bytes. To be
    called inside of a `jax.shard_map`.
    """
    count = lax.axis_size(axes)
    if count == 1:
        return leaf
    flat = _arrays.filled_up(leaf.reshape(-1), -leaf.size % count)
    pieces = lax.all_to_all(flat.reshape(count, -1), axes, 0, 0)
    with _arrays.float64():  # numbers keep their dtype whatever the caller's default
        piece = functools.reduce(merge, list(pieces))
    return lax.all_gather(piece, axes, tiled=True)[: leaf.size].reshape(leaf.shape)


def on_devices(function: Callable, ins: Any, outs: Any) -> Callable:
    """The function of what each device has, on all of the mesh that is set; copies are taken to be alike."""
    return jax.shard_map(function, in_specs=ins, out_specs=outs, check_vma=False)


def one_process(mesh: Mesh) -> bool:
    """Whether this process can read all devices of the mesh."""
    return len({device.process_index for device in mesh.devices.flat}) == 1
