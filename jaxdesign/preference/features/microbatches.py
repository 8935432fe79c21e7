"""A function of one example applied to many: vmapped in microbatches, over the devices of a mesh where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array


def map_examples(function: Callable, shared: Any, examples: Any, microbatch: int, mesh: Mesh | None) -> Any:
    """function(shared, example) for every example along the leading axis; only `microbatch` at a time are in flight.

    With a mesh, over which `spread` has laid out the arguments, every device walks through its own microbatches and
    nothing is communicated. Results depend neither on that nor on `microbatch`, up to rounding. Traceable.
    """
    if mesh is None:
        return _map_locally(function, shared, examples, microbatch)

    def local(shared, examples):
        return _map_locally(function, shared, examples, microbatch)

    # no collective runs inside, so the check of varying axes could find nothing; it would refuse scans whose carries
    # start from constants
    rows = PartitionSpec(mesh.axis_names)
    return jax.shard_map(local, mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=rows, check_vma=False)(
        shared, examples
    )


def spread(shared: Any, examples: Any, mesh: Mesh | None) -> tuple[Any, Any]:
    """`shared` on every device of the mesh, the examples divided among all of them; both as they are without a mesh.

    Where the devices do not divide the number of examples the last one is repeated; `gathered` drops the surplus.
    """
    if mesh is None:
        return shared, examples
    past = -jax.tree.leaves(examples)[0].shape[0] % mesh.size
    if past:
        examples = jax.tree.map(lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], past, axis=0)]), examples)
    copied, divided = PartitionSpec(), PartitionSpec(mesh.axis_names)
    return jax.device_put(shared, NamedSharding(mesh, copied)), jax.device_put(examples, NamedSharding(mesh, divided))


def gathered(rows: Array, count: int, mesh: Mesh | None) -> Array:
    """The first `count` rows: still spread where that is all of them, else copied to every device first."""
    if mesh is None or rows.shape[0] == count:  # without a mesh there is no surplus
        return rows
    return jax.device_put(rows, NamedSharding(mesh, PartitionSpec()))[:count]


def _map_locally(function, shared, examples, microbatch):
    count = jax.tree.leaves(examples)[0].shape[0]
    length = min(microbatch, count)
    batches = -(-count // length)

    def one(start):
        batch = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, length), examples)
        return jax.vmap(function, in_axes=(None, 0))(shared, batch)

    # the last microbatch begins early enough to be full, so that no padding ever reaches the function
    rows = lax.map(one, jnp.minimum(jnp.arange(batches) * length, count - length))
    left = count - (batches - 1) * length

    def join(a):
        return jnp.concatenate([a[:-1].reshape(-1, *a.shape[2:]), a[-1, length - left :]])

    return jax.tree.map(join, rows)


def mesh_of(examples: Any) -> Mesh | None:
    """The mesh over which concrete examples are spread already; None for one device."""
    for leaf in jax.tree.leaves(examples):
        sharding = None if isinstance(leaf, Tracer) else getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh) and sharding.mesh.size > 1:
            return sharding.mesh
    return None


def checked_examples(examples: Any, microbatch: Any) -> int:
    """The number of examples; TypeError or ValueError where there is none, lengths differ or microbatch is no count."""
    if isinstance(microbatch, bool) or not hasattr(microbatch, "__index__"):
        raise TypeError(f"microbatch={microbatch!r}: must be an integer, found {type(microbatch).__name__}")
    if microbatch < 1:
        raise ValueError(f"microbatch={microbatch}: must be at least 1")
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(examples)]
    if not shapes or () in shapes:
        found = "a scalar" if shapes else "no array"
        raise ValueError(f"examples: {found} found; expected arrays with one example per row of their leading axis")
    lengths = sorted({shape[0] for shape in shapes})
    if len(lengths) > 1 or lengths[0] == 0:
        raise ValueError(f"examples: leading axes of length {lengths} found; all must be the same, at least 1")
    return lengths[0]
