"""Seeded random projection of a pytree of arrays to D numbers that keeps inner products, without storing the matrix."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key, UInt32

from jaxdesign import _arrays

# Buckets per column. The fold adds 1/SPREAD to the variance of the dense projection; its cost does not depend on it.
SPREAD = 16
CHUNK = 1024  # entries that move together; each leaf is padded to a multiple of it
_DENSE_ROWS = 512  # rows of signs alive at a time in the dense stage


def project(tree: Any, dimension: int, key: Key[Array, ""]) -> Float[Array, " d"]:
    """x -> R^T x with E <R^T x, R^T y> = <x, y>: random signs fold x into C buckets, a dense sign matrix mixes those.

        fold   y = sum over chunks c of shift_{o_c}(s_c x_c),   s_c random signs, o_c uniform on 0 ... C - 1
        mix    phi = D^(-1/2) M^T y,                            M in {-1, +1}^(C x D),   C = 16 D

    The entries of all leaves come in chunks of at most 1,024 consecutive entries of one leaf; shifts are cyclic on the
    C buckets. Entries of different chunks share a bucket with probability 1/C, those of one chunk never: over seeds

        E <phi(x), phi(y)> = <x, y>,   Var <phi(x), phi(y)> <= (1/D + 1/C + 3/(C D)) (|x|^2 |y|^2 + <x, y>^2),

    against (1/D)(...) of a dense N x D sign matrix, which would cost 2 N D flops an example instead of 2 N + 2 C D:
    with 6 N T flops for the gradient of a sequence of T tokens, D / (3 T) times the gradient itself.

    Args:
        tree: arrays of any floating dtype, N numbers in all. Only shapes, the order of the leaves and `key` decide R.
        dimension: D, number of columns.
        key: a `jax.random.key`; the same key, same shapes and same D give the same projection on every call and device.

    Returns:
        (D,) float32. Traceable; under vmap over `tree` the signs are made once for the whole batch.

    Raises:
        TypeError: dimension no integer. ValueError: dimension below 1, or a tree without arrays.

    Numerics: float32 sums whatever the dtype of the leaves.
    Complexity: 2 N + 2 C D flops; scratch 2 C numbers, 512 D signs at a time, and N / 8 bytes of packed signs.
    Source: folding with random signs is the count sketch (Charikar, Chen and Farach-Colton 2002,
    doi:10.1007/3-540-45465-9_59), dense signs are Achlioptas 2003, doi:10.1016/S0022-0000(03)00025-4; the variance of
    their composition is derived; checked by tests/preference/features/test_projection.py.
    """
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise ValueError("tree: holds no array; pass at least one parameter")
    return project_leaves(dict(enumerate(leaves)), dimension, key)


def project_leaves(leaves: dict[int, Array], dimension: int, key: Key[Array, ""]) -> Float[Array, " d"]:
    """`project` of a tree with some leaves only, {index among all leaves: leaf}; the others count as 0."""
    return _project_leaves(leaves, checked_dimension(dimension), key)


@partial(jax.jit, static_argnums=1)  # called eagerly, its scans would be compiled on every call
def _project_leaves(leaves, dimension, key):
    fold_key, mix_key = jax.random.split(key)
    buckets = SPREAD * dimension
    width = min(CHUNK, buckets)
    chunks = {index: -(-leaf.size // width) for index, leaf in leaves.items()}
    # one buffer and one loop for all leaves: a loop for each would be most of the time it takes to compile
    padded = [jnp.pad(jnp.ravel(leaf), (0, chunks[index] * width - leaf.size)) for index, leaf in leaves.items()]
    folded = _fold(jnp.concatenate(padded), _chunk_words(fold_key, chunks, width), buckets)
    return _mix(folded, dimension, mix_key)


def _chunk_words(key, chunks, width):
    """Random words of every chunk, one row each: a shift, then 32 signs a word; N / 8 bytes in all.

    The row of a chunk depends on its leaf's index and its place in the leaf, not on which other leaves there are.
    """
    leaf = np.repeat(np.array(list(chunks), np.uint32), list(chunks.values()))
    place = np.concatenate([np.arange(count, dtype=np.uint32) for count in chunks.values()])

    def row(leaf, place):
        own = jax.random.fold_in(jax.random.fold_in(key, leaf), place)
        return jax.random.bits(own, (1 + -(-width // 32),), jnp.uint32)

    return jax.vmap(row)(leaf, place)


def _fold(entries, words, buckets):
    """(C,) sums of signed, shifted chunks. The buckets lie twice in a row: a shifted chunk is one slice of them."""
    width = entries.shape[0] // words.shape[0]

    def step(total, part):
        number, shift, bits = part
        chunk = lax.dynamic_slice(entries, (number * width,), (width,)).astype(jnp.float32)
        place = lax.dynamic_slice(total, (shift,), (width,))
        return lax.dynamic_update_slice(total, place + chunk * unpacked(bits)[:width], (shift,)), None

    shifts = (words[:, 0] % buckets).astype(jnp.int32)
    parts = jnp.arange(words.shape[0]), shifts, words[:, 1:]
    total, _ = lax.scan(step, jnp.zeros(2 * buckets, jnp.float32), parts)
    return total[:buckets] + total[buckets:]


def _mix(folded, dimension, key):
    """D^(-1/2) M^T y with the rows of M made a block at a time."""
    rows = min(_DENSE_ROWS, folded.shape[0])

    def step(total, number):
        block = signs(jax.random.fold_in(key, number), (rows, dimension))
        part = lax.dynamic_slice(folded, (number * rows,), (rows,))
        return total + _arrays.contract("c,cd->d", part, block), None

    whole = folded.shape[0] // rows
    total, _ = lax.scan(step, jnp.zeros(dimension, jnp.float32), jnp.arange(whole))
    left = folded.shape[0] - whole * rows
    if left:
        block = signs(jax.random.fold_in(key, whole), (left, dimension))
        total = total + _arrays.contract("c,cd->d", folded[whole * rows :], block)
    return total / jnp.sqrt(jnp.float32(dimension))


def signs(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Independent fair signs -1.0 and +1.0, float32: 32 from each random word."""
    count = math.prod(shape)
    return unpacked(jax.random.bits(key, (-(-count // 32),), jnp.uint32))[:count].reshape(shape)


def unpacked(words: UInt32[Array, " n"]) -> Float[Array, " m"]:
    """The 32 bits of every word as signs: the sign bit of 1.0 is set where the bit is."""
    top = (words[:, None] << jnp.arange(32, dtype=jnp.uint32)[None]) & jnp.uint32(0x80000000)
    return lax.bitcast_convert_type(top | jnp.uint32(0x3F800000), jnp.float32).ravel()


def checked_dimension(dimension: Any) -> int:
    """`dimension` as int; TypeError for what is no integer, ValueError below 1."""
    if isinstance(dimension, bool) or not hasattr(dimension, "__index__"):
        raise TypeError(f"dimension={dimension!r}: must be an integer, found {type(dimension).__name__}")
    if dimension < 1:
        raise ValueError(f"dimension={dimension}: must be at least 1")
    return dimension.__index__()
