"""A source in other units and with some pairs closed: what a problem makes of the source it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int, UInt32

from jaxdesign import _arrays
from jaxdesign.pricing.listed import PairKernel, over_pairs
from jaxdesign.pricing.memory import MemorySource
from jaxdesign.pricing.source import Derived, Divided, Kernel, Merge, PairRows, as_here, some_of
from jaxdesign.pricing.widened import in_dtype


@dataclass(frozen=True, eq=False)
class AdaptedSource(Derived):
    """Another source with features times `units` (powers of two: no digit changes) and without `closed` pairs.

    The other one is called in the caller's default precision, whatever scope a pass runs in: a user's random numbers,
    say, are others in float64.
    """

    units: Float[np.ndarray, " d"]
    closed: UInt32[np.ndarray, "p k w"] | None = None  # as `Chunk.closed`
    wide: bool = field(default_factory=_arrays.in_float64)  # the caller's default precision is float64

    def fold(self, kernel: Kernel, carry: Any, per_prompt: Any = None, merge: Merge = jnp.add) -> tuple[Any, Any]:
        """See `Source.fold`."""
        kernel, units, carry = jax.tree.map(jnp.asarray, (as_here(kernel), self.units, carry))
        with _arrays.scope(self.wide):
            return self.given.fold(Partial(_adapted, kernel, units), carry, (self.closed, per_prompt), merge=merge)

    def rows(self, pairs: Int[np.ndarray, "s 3"]) -> PairRows:
        """See `Source.rows`."""
        with _arrays.scope(self.wide):
            found = self.given.rows(pairs)
        if (self.units == 1).all():
            return found
        with _arrays.float64():
            return found._replace(differences=jnp.asarray(found.differences) * self.units[None])

    def over_pairs(self, kernel: PairKernel, pairs: Int[np.ndarray, "s 3"], per_pair: Any = None) -> Any:
        """See `listed.over_pairs`."""
        with _arrays.scope(self.wide):
            return over_pairs(self.given, Partial(_adapted_rows, kernel, self.units), pairs, per_pair)

    def subset(self, prompts: Int[np.ndarray, " m"]) -> MemorySource:
        """See `Source.subset`."""
        with _arrays.scope(self.wide):
            found = self.given.subset(prompts)
        return found.adapted(self.units, None if self.closed is None else self.closed[prompts])

    def in_dtype(self, dtype: Any) -> AdaptedSource:
        """The same with another working dtype."""
        found = self.with_given(partial(in_dtype, dtype=dtype))
        return replace(found, wide=self.wide or np.dtype(dtype) == np.float64)

    def with_given(self, change: Callable[[Any], Any]) -> Any:
        """See `Derived.with_given`."""
        with _arrays.scope(self.wide):
            return super().with_given(change)

    def home(self, prompts: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Which of the devices have them."""
        return cast(Divided, self.given).home(prompts)

    def some(self, prompts: Int[np.ndarray, " m"]) -> AdaptedSource:
        """Some prompts to fold over, on their devices."""
        return replace(
            self, given=some_of(self.given, prompts), closed=None if self.closed is None else self.closed[prompts]
        )


def _adapted(kernel, units, chunk, carry, inputs):
    closed, inputs = inputs
    units = units.astype(chunk.rows.dtype)
    rows, resolution = chunk.rows * units[None, None], chunk.resolution
    resolution = None if resolution is None else resolution * units[None]
    return kernel(chunk._replace(rows=rows, closed=closed, resolution=resolution), carry, inputs)


def _adapted_rows(kernel, units, rows, inputs):
    return kernel(rows._replace(differences=rows.differences * units[None]), inputs)
