"""Rows of completions less what those of a prompt have in common, which no pair sees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def centred(rows: Float[Array, "*p k d"], exists: Bool[Array, "*p k"]) -> Float[Array, "*p k d"]:
    """Rows minus the mean of those that exist, 0 elsewhere: `less_first`, then the mean of what is left."""
    rows = less_first(rows, exists)
    return jnp.where(exists[..., None], rows - row_means(rows, exists)[..., None, :], 0)


def less_first(rows: Float[Array, "*p k d"], exists: Bool[Array, "*p k"]) -> Float[Array, "*p k d"]:
    """Rows minus the first one that exists, 0 elsewhere: takes off what rows have in common, whatever its size.

    Compilers work such a difference out anew for every use of the rows, always with the same result. A mean they may
    sum in another order each time, and by units in the last place of a large common offset the uses then disagree.
    """
    first = jax.lax.argmax(exists, exists.ndim - 1, jnp.int32)[..., None, None]
    return jnp.where(exists[..., None], rows - jnp.take_along_axis(rows, first, axis=-2), 0)


def row_means(rows: Float[Array, "*p k d"], exists: Bool[Array, "*p k"]) -> Float[Array, "*p d"]:
    """Mean of the rows that exist, 0 where there is none; all others must be 0."""
    return jnp.sum(rows, axis=-2) / jnp.maximum(jnp.sum(exists, axis=-1), 1).astype(rows.dtype)[..., None]
