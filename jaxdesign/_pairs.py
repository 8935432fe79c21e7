"""Pairs of completions: which of them are candidates, their names as numbers, lists of them.

A pair is (p, i, j) with i < j, two completions of one prompt. Pairs of copies have z = 0 and are no candidates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxdesign import _arrays
from jaxdesign._arrays import AnyArray
from jaxdesign.pool import CompletionPool, bare_pool


class Allocation(NamedTuple):
    """Labels of pairs: each pair (p, i, j), i < j, once and in order, with how many labels it gets."""

    pairs: Int[np.ndarray, "s 3"]
    labels: Float[np.ndarray, " s"]


def pair_slot(i: Any, j: Any, completions: int) -> Any:
    """Slot i K + j of pair (i, j) within its prompt. (prompt, slot) names a pair; one flat int32 would overflow."""
    return i * completions + j


def slot_pair(slot: Any, completions: int) -> tuple[Any, Any]:
    """Inverse of `pair_slot`: (i, j) of a slot."""
    return slot // completions, slot % completions


@jax.jit
def jitted_first_copies(features, mask):
    """`first_copies` outside of jit, in one program."""
    return first_copies(bare_pool(features, mask))


def first_copies(pool: CompletionPool) -> Int[Array, "p k"]:
    """Index of the first completion of the prompt with bit-identical features; -1 in masked slots.

    Pairs of copies have z = 0 and are no candidates. Rows are compared by two independent 32-bit hashes of their bits
    (-0 counted as +0), so the cost is P K d integer operations and P K^2 comparisons, and no pair is materialised.
    Two different rows of one prompt collide with probability about 2^-64.
    """
    completions = pool.completions

    def chunk(part):
        features, mask = part
        keys = _row_hashes(features)
        same = jnp.all(keys[:, :, None, :] == keys[:, None, :, :], axis=-1) & mask[:, :, None] & mask[:, None, :]
        first = jax.lax.argmax(same, 2, jnp.int32)  # `jnp.argmax` in a float64 scope warns under the caller's jit
        return jnp.where(mask, first, -1)

    length = _arrays.chunk_length(pool.num_prompts, completions, pool.dim)
    return _arrays.map_chunks(chunk, (pool.features, pool.mask), length)


def _row_hashes(features: Float[Array, "p k d"]) -> UInt32[Array, "p k 2"]:
    unsigned = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[features.dtype.itemsize]
    features = jnp.where(features == 0, 0, features)  # -0 to +0; XLA folds the shorter `features + 0` away
    bits = jax.lax.bitcast_convert_type(features, unsigned).astype(jnp.uint32)
    bits = bits.reshape(*features.shape[:2], -1)
    constants = np.random.default_rng(20260619).integers(0, 2**32, (2, 2, bits.shape[-1]), dtype=np.uint32)
    hashes = []
    for offset, factor in constants[:, :, None, None]:  # mixed before summing: low bits of short floats are all zero
        mixed = (bits ^ jnp.asarray(offset)) * np.uint32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
        mixed = (mixed ^ (mixed >> 16)) * jnp.asarray(factor | 1)
        hashes.append(jnp.sum(mixed, axis=-1, dtype=jnp.uint32))
    return jnp.stack(hashes, axis=-1)


def candidate_pairs(copies: Int[Array, "p k"]) -> Bool[Array, "p k k"]:
    """True at (p, i, j), i < j, where both completions exist and their features differ."""
    index = jnp.arange(copies.shape[-1])
    upper = index[:, None] < index[None, :]
    exists = copies >= 0
    differ = copies[..., :, None] != copies[..., None, :]
    return jnp.broadcast_to(upper, differ.shape) & differ & exists[..., :, None] & exists[..., None, :]


def candidate_counts(copies: Int[Array, "p k"]) -> np.ndarray:
    """(P,) number of candidate pairs of each prompt, float64 on the host."""
    return np.asarray(_candidate_counts(copies), dtype=np.float64)


@jax.jit
def _candidate_counts(copies):
    length = _arrays.chunk_length(copies.shape[0], copies.shape[1], copies.shape[1])
    return _arrays.map_chunks(lambda part: jnp.sum(candidate_pairs(part), axis=(1, 2)), copies, length)


def check_pairs(pool: CompletionPool, pairs: Int[_arrays.AnyArray, "s 3"]) -> None:
    """ValueError unless pairs are rows (p, i, j) of existing, different completions of the pool."""
    _check_shape(pairs)
    if not _arrays.is_traced(pool, pairs):
        check_pairs_exist(pool.mask, pairs)


def _check_shape(pairs):
    if np.ndim(pairs) != 2 or np.shape(pairs)[1] != 3:
        raise ValueError(f"pairs: shape {np.shape(pairs)} found; expected (S, 3), one row (prompt, i, j) per pair")


def check_pairs_exist(exists: Bool[AnyArray, "p k"], pairs: Any) -> None:
    """`check_pairs` where it is known which completions there are."""
    _check_shape(pairs)
    pairs = np.asarray(pairs)
    if not np.issubdtype(pairs.dtype, np.integer):
        raise TypeError(f"pairs: dtype {pairs.dtype} found; expected integers")
    limits = np.array([*exists.shape, exists.shape[1]])
    bad = ((pairs < 0) | (pairs >= limits)).any(axis=1) | (pairs[:, 1] == pairs[:, 2])
    if not bad.any():
        mask = np.asarray(exists)
        bad = ~(mask[pairs[:, 0], pairs[:, 1]] & mask[pairs[:, 0], pairs[:, 2]])
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"pairs: row {row} is {tuple(int(v) for v in pairs[row])}; expected two different existing completions of "
            f"one prompt, (p, i, j) within {tuple(int(v) for v in limits)}"
        )


def added_up(pairs: Int[np.ndarray, "n 3"], labels: Float[np.ndarray, " n"]) -> Allocation:
    """Every pair once and in order, with the sum of its labels."""
    ordered, place = np.unique(pairs, axis=0, return_inverse=True)
    return Allocation(ordered.astype(np.int32), np.bincount(place.ravel(), weights=labels, minlength=len(ordered)))


def upper_pairs(pairs: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, "n 3"]:
    """Rows (p, j, i) turned round, so that i < j."""
    return np.concatenate([pairs[:, :1], np.sort(pairs[:, 1:], axis=1)], axis=1).astype(np.int32)


def pair_keys(pairs: Int[np.ndarray, "s 3"], completions: int) -> Int[np.ndarray, " s"]:
    """One int64 per pair, ordered like (p, i, j). Host only: it would overflow int32."""
    p, i, j = pairs.astype(np.int64).T
    return (p * completions + i) * completions + j


def not_among(pairs: Int[np.ndarray, "s 3"], others: Int[np.ndarray, "t 3"], completions: int) -> np.ndarray:
    """True where a pair is not in the other list."""
    return ~np.isin(pair_keys(pairs, completions), pair_keys(others, completions))
