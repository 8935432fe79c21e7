"""The only place that knows precision flags, the float64 scope and chunking.

Every matrix product of the package states its precision: at JAX's default, float32 products run in bfloat16 on TPU
and in TF32 on recent NVIDIA GPUs, which is too coarse for a certificate.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

HIGHEST = lax.Precision.HIGHEST

# A chunk of prompts should fit the last-level cache of one CPU core complex (features in, products out) and still be
# tall enough for the matrix product to run at full rate; 2,048 rows x 256 float32 was best of 512 ... 16,384 measured.
CHUNK_ENTRIES = 2_048 * 256


def float64():
    """Scope in which JAX computes in float64, whatever the caller's global flag; the flag itself is never touched."""
    return jax.enable_x64(True)


def compute_dtype(dtype: Any) -> np.dtype:
    """Working dtype for stored features: float32 for float16, bfloat16 and float32; float64 for float64."""
    return np.dtype(np.float64) if np.dtype(dtype) == np.float64 else np.dtype(np.float32)


def contract(subscripts: str, *operands, dtype: Any = None) -> jax.Array:
    """`jnp.einsum` at full precision of its inputs, accumulating in `dtype` (default: that of the inputs)."""
    return jnp.einsum(subscripts, *operands, precision=HIGHEST, preferred_element_type=dtype)


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is a tracer, so that values cannot be looked at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def chunk_length(num_prompts: int, completions: int, dim: int) -> int:
    """Prompts per chunk: a static function of the shapes, so that chunking never causes a recompilation."""
    rows = max(1, CHUNK_ENTRIES // max(dim, completions, 1))
    return int(max(1, min(num_prompts, rows // max(completions, 1))))


def split_chunks(array: jax.Array, length: int) -> jax.Array:
    """Reshape the leading axis P to (chunks, length), padding the last chunk with zeros where P is no multiple."""
    size = array.shape[0]
    chunks = -(-size // length)
    if chunks * length != size:
        array = jnp.pad(array, [(0, chunks * length - size)] + [(0, 0)] * (array.ndim - 1))
    return array.reshape(chunks, length, *array.shape[1:])


def map_chunks(function: Callable, arrays: Any, length: int) -> Any:
    """Apply `function` to chunks of `length` prompts of every leaf and join the results along the leading axis."""
    size = jax.tree.leaves(arrays)[0].shape[0]
    if length >= size:
        return function(arrays)
    out = lax.map(function, jax.tree.map(lambda a: split_chunks(a, length), arrays))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:size], out)


def sum_chunks(function: Callable, arrays: Any, length: int) -> Any:
    """Sum of `function` over chunks of prompts; `function` must return zero for the zero padding of the last chunk."""
    size = jax.tree.leaves(arrays)[0].shape[0]
    if length >= size:
        return function(arrays)
    parts = jax.tree.map(lambda a: split_chunks(a, length), arrays)
    first = jax.tree.map(lambda a: a[0], parts)
    rest = jax.tree.map(lambda a: a[1:], parts)
    return lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, function(part)), None), function(first), rest)[0]


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least `value`."""
    return -(-int(value) // multiple) * multiple
