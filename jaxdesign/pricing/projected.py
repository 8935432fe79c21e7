"""A source in memory with its features in another basis."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float

from jaxdesign import _arrays
from jaxdesign._arrays import AnyArray
from jaxdesign.pricing.memory import MemorySource, last_chunk, row_means_of


def projected(source: MemorySource, basis: Float[AnyArray, "d r"], dtype: Any) -> MemorySource:
    """The same with features (phi - prompt mean) B: as products in its working dtype, then rounded to `dtype`."""
    with _arrays.float64():
        return _projected(source, jnp.asarray(basis, source.dtype), dtype=np.dtype(dtype))


@jax.jit(static_argnames="dtype")
def _projected(source, basis, *, dtype):
    features = source.fold(Partial(_times, basis, jnp.zeros((), dtype)), None)[1]
    means = row_means_of(features, source.copies, dtype)
    return source._replace(features=features, last=last_chunk(features, source.copies.shape[1]), means=means)


def _times(basis, like, chunk, carry, _):
    rows = jnp.matmul(chunk.rows, basis, precision=_arrays.HIGHEST).astype(like.dtype)
    first = jnp.maximum(chunk.copies, 0)[..., None]  # the product may round equal rows differently
    return carry, jnp.where(chunk.copies[..., None] >= 0, jnp.take_along_axis(rows, first, axis=1), 0)
