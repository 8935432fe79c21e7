"""What a greedy choice asks of the devices that its prompts are divided among: a few numbers a pick, no features.

Each device has a run of consecutive prompts, as many as any other, and compares their pairs; which is best of all, and
its features, every device is then told. All devices get the same numbers, to the last bit: they decide by them when
their loops end.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxdesign.information import draw_label_information, pair_differences
from jaxdesign.pool import CompletionPool


@dataclass(frozen=True)
class Peers:
    """The devices along these axes of the mesh that the caller's `shard_map` is over; none: one device has all prompts.

    Methods take what this device has, and are traceable.
    """

    axes: tuple[str, ...] = ()

    def places(self, prompts: int) -> Int[Array, " p"]:
        """Where the prompts of this device are in the whole pool."""
        own = jnp.arange(prompts, dtype=jnp.int32)
        return own + lax.axis_index(self.axes).astype(jnp.int32) * prompts if self.axes else own

    def own(self, place: Int[Array, "*n"], prompts: int) -> tuple[Bool[Array, "*n"], Int[Array, "*n"]]:
        """Whether this device has prompts that are here in the whole pool, and where it has them; 0 where not."""
        index = place - self.places(1)[0] * prompts
        there = (index >= 0) & (index < prompts)
        return there, jnp.where(there, index, 0)

    def of_owner(self, there: Bool[Array, "*n"], values):
        """The values of the device that has the prompts, exactly; the last axes are those of `there`."""
        if not self.axes:
            return values

        def told(array):
            mask = there.reshape(*[1] * (array.ndim - there.ndim), *there.shape)
            return lax.psum(jnp.where(mask, array, jnp.zeros((), array.dtype)), self.axes)

        return jax.tree.map(told, values)

    def total(self, values):
        """Sums over devices, in their order."""
        if not self.axes:
            return values
        return jax.tree.map(lambda a: jnp.sum(lax.all_gather(a, self.axes), axis=0, dtype=a.dtype), values)

    def largest(self, value: Array) -> Array:
        """The largest of all devices'."""
        return lax.pmax(value, self.axes) if self.axes else value

    def first(self, holds: Bool[Array, " p"]) -> Int[Array, ""]:
        """The place of the first True of all devices', int32; the last place where there is none."""
        places = self.places(len(holds))
        if not self.axes:
            return jnp.min(jnp.where(holds, places, len(holds) - 1))
        last = len(holds) * lax.axis_size(self.axes) - 1
        return lax.pmin(jnp.min(jnp.where(holds, places, last)), self.axes)

    def any(self, holds: Bool[Array, ""]) -> Bool[Array, ""]:
        """Whether it holds on any device."""
        return self.largest(holds.astype(jnp.int32)) > 0 if self.axes else holds


ALONE = Peers()


def listed_rows(
    pool: CompletionPool, pairs: Int[Array, "s 3"], peers: Peers
) -> tuple[Float[Array, "s d"], Float[Array, "r s"]]:
    """z and c of pairs of the whole pool, of which this device has a part."""
    there, place = peers.own(pairs[:, 0], pool.num_prompts)
    pairs = jnp.concatenate([place[:, None], pairs[:, 1:]], axis=1)
    rows = pair_differences(pool, pairs).T, draw_label_information(pool, pairs)
    z, c = peers.of_owner(there, rows)
    return z.T, c
