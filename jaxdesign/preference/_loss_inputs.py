"""What losses are given: log-probabilities in the dtype they are computed in, and parameters that are allowed there.

Shapes are always looked at, values where they are not traced.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray

N = Float[AnyArray, "*n"]  # what losses take
Loss = Float[Array, "*n"]  # and give
ALLOWED = {
    "a number": np.isfinite,
    "above 0": lambda v: v > 0,
    "at least 0": lambda v: v >= 0,
    "at least 1": lambda v: v >= 1,
    "in [0, 1]": lambda v: (v >= 0) & (v <= 1),
    "in (0, 1]": lambda v: (v > 0) & (v <= 1),
    "in [0, 1/2]": lambda v: (v >= 0) & (v <= 0.5),
    "in [0, 1/2)": lambda v: (v >= 0) & (v < 0.5),
    "in (0, 1/2]": lambda v: (v > 0) & (v <= 0.5),
}


def four(chosen: Any, rejected: Any, ref_chosen: Any, ref_rejected: Any) -> list[Array]:
    """The log-probabilities of a pair under the policy and the reference."""
    return computed(chosen=chosen, rejected=rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected)


def computed(each: str = "pair", **arrays: Any) -> list[Array]:
    """The arrays in their computing dtype, all of one shape."""
    out = {name: jnp.asarray(_checks.as_float_array(array, name)) for name, array in arrays.items()}
    first = next(iter(out))
    for name, array in out.items():
        _checks.same_shape(array.shape, out[first].shape, name, f"as {first}: one per {each}")
    dtype = np.result_type(*(_arrays.compute_dtype(array.dtype) for array in out.values()))
    return [array.astype(dtype) for array in out.values()]


def parameter(value: Any, name: str, allowed: str, like: Array, each: str = "pair") -> Any:
    """A parameter in the dtype of `like`; ValueError unless a number or of its shape, finite and as allowed."""
    if np.ndim(value) and np.shape(value) != like.shape:
        raise ValueError(f"{name}: shape {np.shape(value)} found; pass a number, or {like.shape} with one per {each}")
    if _arrays.is_traced(value):
        return jnp.asarray(value).astype(like.dtype)
    seen = allowed_values(value, name, allowed)
    with np.errstate(over="ignore"):
        found = seen.astype(like.dtype)
    bad = ~_are(found, allowed)
    if bad.any():
        where = np.unravel_index(np.argmax(bad), bad.shape)
        raise ValueError(
            f"{name}={seen[where]:.9g}: is {found[where]:g} in {like.dtype}; must be {allowed} and finite there"
        )
    return found


def allowed_values(value: Any, name: str, allowed: str) -> np.ndarray:
    """float64 on the host; ValueError that names the first that is not finite or not allowed."""
    try:
        seen = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}={value!r}: expected numbers") from error
    bad = ~_are(seen, allowed)
    if bad.any():
        raise ValueError(f"{name}={seen[bad].ravel()[0]:g}: must be {allowed} and finite")
    return seen


def _are(values, allowed):
    return np.isfinite(values) & ALLOWED[allowed](values)
