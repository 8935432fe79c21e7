"""Label noise of a pool: the probability that a label is reversed, brought to one number per prompt or per pair."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxdesign import _arrays, _checks


def as_flips(flip: Any, exists: Bool[Array, "p k"]) -> Float[Array, " p"] | Float[Array, "p k k"]:
    """`flip` as (P,) or symmetric (P, K, K) on the device, at least float32, 0 where there is no pair.

    Raises:
        TypeError: no floating array. ValueError: another shape; outside of jit also values outside of [0, 1/2), or not
            symmetric.
    """
    if isinstance(flip, int | float) and not isinstance(flip, bool):
        flip = np.float64(flip)
    flip = _checks.as_float_array(flip, "flip")
    prompts, completions = exists.shape
    _checks.rank(flip, (0, 1, 3), "flip", "(), (P,) or (P, K, K)")
    shape = {0: (), 1: (prompts,), 3: (prompts, completions, completions)}[flip.ndim]
    _checks.same_shape(flip.shape, shape, "flip", "(prompts,), or (prompts, completions, completions), as in features")
    if not isinstance(flip, jax.Array):  # a copy, so that later changes to a NumPy array do not reach the pool
        flip = jax.device_put(flip, may_alias=False)
    paired = exists[:, :, None] & exists[:, None, :] & ~jnp.eye(completions, dtype=bool)[None]
    if flip.ndim < 3:
        paired = jnp.any(paired, axis=(1, 2))
    if not _arrays.is_traced(flip, paired):
        _checks.flips(np.broadcast_to(np.asarray(flip), paired.shape), paired)
    # cleared before anything is computed: what is no pair may hold NaN, which `jax_debug_nans` would stop at
    flip = jnp.where(paired, flip, 0).astype(_arrays.compute_dtype(flip.dtype))
    return (flip + jnp.swapaxes(flip, 1, 2)) / 2 if flip.ndim == 3 else flip  # the check lets rounding pass
