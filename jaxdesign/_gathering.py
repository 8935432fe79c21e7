"""An array of several devices as a whole on one of them, its parts sent from device to device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding


def brought_together(array: jax.Array, place: SingleDeviceSharding) -> jax.Array:
    """The array on one device; its devices are all of this process. Each part travels once.

    `jax.device_put` of the whole goes by way of the host. So do arrays here that are divided along several axes.
    """
    shape = array.shape
    divided = [axis for axis, n in enumerate(array.sharding.shard_shape(shape)) if n < shape[axis]]
    if len(divided) != 1:
        return jax.device_put(array, place)
    (axis,) = divided
    parts = {shard.index[axis].indices(shape[axis])[0]: shard.data for shard in array.addressable_shards}
    return _joined([jax.device_put(parts[start], place) for start in sorted(parts)], axis=axis)


_joined = jax.jit(jnp.concatenate, static_argnames="axis")
