"""A pool held in memory, made ready for passes over it in chunks of prompts: no copy of the features.

The features of a `Problem` are in units of about 1 (`jaxdesign.units`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxdesign import _arrays
from jaxdesign._centring import less_first, row_means
from jaxdesign._pairs import candidate_pairs, first_copies
from jaxdesign.information import prompt_major
from jaxdesign.pool import CompletionPool, bare_pool

WORD = 32  # bits of closed pairs that are kept together: on a CPU with AVX-512, LLVM cannot compile reads of 8 bytes


class MemorySource(NamedTuple):
    """A pool made ready for pricing in n chunks of c prompts, the last one padded with empty prompts.

    The features are those of the pool, not a copy: chunks are cut out and centred as they are visited.

    Args:
        features: (P, K, d), as stored.
        last: (c, K, d) features of the last chunk, zero in the padding.
        means: (n, c, d) of the rows `less_first` of each prompt, in the working dtype.
        scores: (n, c, K), or (n, c, R, K) for R draws; None: margins are 0.
        copies: (n, c, K) `first_copies`, -1 where masked.
        flip: as in the pool, (n, c) or (n, c, K, K); None: no noise.
        closed: (n, c, K, w) words of 32 bits; bit j of row i: pair (i, j), i < j, may not be used.
    """

    features: Float[Array, "p k d"]
    last: Float[Array, "c k d"]
    means: Float[Array, "n c d"]
    scores: Float[Array, "n c *r k"] | None
    copies: Int[Array, "n c k"]
    flip: Float[Array, "n c"] | Float[Array, "n c k k"] | None = None
    closed: UInt32[Array, "n c k w"] | None = None

    @property
    def slots(self) -> int:
        """Prompts including the padding of the last chunk."""
        return self.copies.shape[0] * self.copies.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Working dtype."""
        return self.means.dtype

    @property
    def draws(self) -> int:
        """Parameter draws R; 1 without."""
        return self.scores.shape[2] if self.scores is not None and self.scores.ndim == 4 else 1


class Chunk(NamedTuple):
    """Some prompts, centred."""

    rows: Float[Array, "c k d"]
    scores: Float[Array, "c *r k"] | None
    copies: Int[Array, "c k"]
    flip: Float[Array, " c"] | Float[Array, "c k k"] | None
    closed: UInt32[Array, "c k w"] | None


def memory_source(
    pool: CompletionPool, dtype: Any = None, closed: Int[np.ndarray, "s 3"] | None = None
) -> MemorySource:
    """Chunk a pool held in memory.

    Args:
        pool: the pool.
        dtype: working dtype; None: float32, or float64 for float64 features.
        closed: (S, 3) pairs that are no candidates; None: none.

    Returns:
        MemorySource.

    Raises: nothing of its own; the pool is checked already.

    Source: derived; checked by tests/pricing/test_pricing.py.
    """
    dtype = dtype or _arrays.compute_dtype(pool.features.dtype)
    length = _arrays.chunk_length(pool.num_prompts, pool.completions, pool.dim)
    arrays = pool.features, prompt_major(pool.scores), pool.mask, pool.flip
    last, means, scores, copies, flip = _parts(*arrays, dtype=np.dtype(dtype), length=length)
    bits = _closed_bits(closed, copies.shape[:2], pool.completions)
    return MemorySource(pool.features, last, means, scores, copies, flip, bits)


def _closed_bits(closed, chunks, completions) -> Array | None:
    if closed is None or not len(closed):
        return None
    prompts, row = np.unique(closed[:, 0], return_inverse=True)
    rows = np.zeros((len(prompts), completions, -(-completions // WORD) * WORD), bool)
    rows[row, closed[:, 1], closed[:, 2]] = True
    bits = np.zeros((chunks[0] * chunks[1], completions, rows.shape[-1] // WORD), np.uint32)
    bits[prompts] = np.packbits(rows, axis=-1, bitorder="little").view("<u4")
    return jnp.asarray(bits.reshape(*chunks, *bits.shape[1:]))


@jax.jit(static_argnames=("dtype", "length"))
def _parts(features, scores, mask, flip, *, dtype, length):
    def prepare(part):
        rows, exists, u, noise = part
        u = None if u is None else jnp.where(exists if u.ndim == 2 else exists[:, None, :], u, 0)
        return (
            row_means(less_first(rows.astype(dtype), exists), exists),
            u,
            first_copies(bare_pool(rows, exists)),
            noise,
        )

    past = -len(features) % length
    last = jnp.pad(features[len(features) - length + past :], ((0, past), (0, 0), (0, 0)))
    return last, *_arrays.map_padded(prepare, (features, mask, scores, flip), length)


def map_chunks(function: Callable, source: MemorySource, more: Any = None) -> Any:
    """function(chunk, part of `more`) for every chunk; results keep the axes (n, c). `more` has them too."""
    return jax.lax.map(lambda part: function(_chunk(source, part[0]), part[1]), (_visits(source), more))


def sum_chunks(function: Callable, source: MemorySource, start: Array, more: Any = None) -> Array:
    """start plus the sum over the chunks of function(chunk, part of `more`)."""

    def add(total, part):
        return total + function(_chunk(source, part[0]), part[1]), None

    return jax.lax.scan(add, start, (_visits(source), more))[0]


def _visits(source):
    return jnp.arange(len(source.copies), dtype=jnp.int32), source[2:]


def _chunk(source, visit):
    index, (means, scores, copies, flip, closed) = visit
    length, prompts = source.copies.shape[1], len(source.features)
    start = jnp.minimum(index * length, prompts - length)
    rows = jax.lax.dynamic_slice_in_dim(source.features, start, length)
    rows = jnp.where(index == len(source.copies) - 1, source.last, rows).astype(source.dtype)
    exists = copies >= 0
    rows = jnp.where(exists[..., None], less_first(rows, exists) - means[:, None], 0)
    return Chunk(rows, scores, copies, flip, closed)


def open_pairs(chunk: Chunk) -> Bool[Array, "c k k"]:
    """True at the pairs i < j that may be used: both completions exist and differ, and the pair is not closed."""
    candidates = candidate_pairs(chunk.copies)
    if chunk.closed is None:
        return candidates
    bits = (chunk.closed[..., None] >> jnp.arange(WORD, dtype=jnp.uint32)[None, None, None]) & 1
    return candidates & (bits.reshape(*candidates.shape[:-1], -1)[..., : candidates.shape[-1]] == 0)


@jax.jit
def some_prompts(source: MemorySource, slots: Int[Array, "m c"]) -> MemorySource:
    """A source of chunks made of the given prompts, which are named by their slots."""
    length, prompts = source.copies.shape[1], len(source.features)
    features = source.features[jnp.minimum(slots.reshape(-1), prompts - 1)]
    parts = jax.tree.map(lambda a: a[slots // length, slots % length], source[2:])
    return MemorySource(features, features[-length:], *parts)


def open_counts(source: MemorySource) -> Float[np.ndarray, " p"]:
    """Pairs that may be used, of every slot; float64 on the host."""
    return np.asarray(_open_counts(source), dtype=np.float64).reshape(-1)


@jax.jit
def _open_counts(source):
    return map_chunks(lambda chunk, _: jnp.sum(open_pairs(chunk), axis=(1, 2)), source)
