"""Seeded random projection of a pytree of arrays to D numbers that keeps inner products, without storing the matrix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from jaxdesign import _arrays

# Buckets per column. The fold adds 1/SPREAD to the variance of the dense projection; its cost does not depend on it.
SPREAD = 16
_DENSE_ROWS = 512  # rows of signs alive at a time in the dense stage


def project(tree: Any, dimension: int, key: Key[Array, ""]) -> Float[Array, " d"]:
    """x -> R^T x with E <R^T x, R^T y> = <x, y>: random signs fold x into C buckets, a dense sign matrix mixes those.

        fold   y = sum over chunks c of shift_{o_c}(s_c x_c),   s_c in {-1, +1}^C, o_c uniform on 0 ... C - 1
        mix    phi = D^(-1/2) M^T y,                            M in {-1, +1}^(C x D),   C = 16 D

    The entries of all leaves, end to end, in chunks of at most C consecutive entries of one leaf; shift is cyclic. Two
    entries of different chunks share a bucket with probability 1/C, two of one chunk never, so that over seeds

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
    Complexity: 2 N + 2 C D flops; scratch 2 C numbers, and 512 D signs at a time.
    Source: folding with random signs is the count sketch (Charikar, Chen, Farach-Colton 2002), dense signs are
    Achlioptas (2003), both from memory; the variance of their composition is derived and checked by
    tests/test_projection.py.
    """
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise ValueError("tree: holds no array; pass at least one parameter")
    return project_leaves(dict(enumerate(leaves)), dimension, key)


def project_leaves(leaves: dict[int, Array], dimension: int, key: Key[Array, ""]) -> Float[Array, " d"]:
    """`project` of a tree with some leaves only, {index among all leaves: leaf}; the others count as 0."""
    dimension = checked_dimension(dimension)
    buckets = SPREAD * dimension
    fold_key, mix_key = jax.random.split(key)
    total = jnp.zeros(2 * buckets, jnp.float32)
    for index, leaf in leaves.items():
        total = _fold_leaf(total, jnp.ravel(leaf), jax.random.fold_in(fold_key, index))
    return _mix(total[:buckets] + total[buckets:], dimension, mix_key)


def _fold_leaf(total, entries, key):
    """Add one flat leaf to the buckets, which lie twice in a row: a shifted chunk is one contiguous slice there."""
    buckets = total.shape[0] // 2
    whole = entries.shape[0] // buckets
    shifts = jax.random.randint(jax.random.fold_in(key, 0), (whole + 1,), 0, buckets)
    sign_key = jax.random.fold_in(key, 1)

    def add(total, chunk, number):
        signed = chunk.astype(jnp.float32) * signs(jax.random.fold_in(sign_key, number), chunk.shape)
        place = lax.dynamic_slice(total, (shifts[number],), chunk.shape)
        return lax.dynamic_update_slice(total, place + signed, (shifts[number],))

    def step(total, number):
        return add(total, lax.dynamic_slice(entries, (number * buckets,), (buckets,)), number), None

    if whole:
        total, _ = lax.scan(step, total, jnp.arange(whole))
    if entries.shape[0] % buckets:
        total = add(total, entries[whole * buckets :], whole)
    return total


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
    count = 1
    for size in shape:
        count *= size
    words = jax.random.bits(key, (-(-count // 32), 1), jnp.uint32)
    top = (words << jnp.arange(32, dtype=jnp.uint32)) & jnp.uint32(0x80000000)
    ones = jnp.uint32(0x3F800000)  # the bits of 1.0, to which the sign bit is added
    return lax.bitcast_convert_type(top | ones, jnp.float32).ravel()[:count].reshape(shape)


def checked_dimension(dimension: Any) -> int:
    """`dimension` as int; TypeError for what is no integer, ValueError below 1."""
    if isinstance(dimension, bool) or not hasattr(dimension, "__index__"):
        raise TypeError(f"dimension={dimension!r}: must be an integer, found {type(dimension).__name__}")
    if dimension < 1:
        raise ValueError(f"dimension={dimension}: must be at least 1")
    return dimension.__index__()
