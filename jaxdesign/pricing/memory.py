"""A pool held in memory as a source, in chunks of prompts: no copy of the features.

The features of a `Problem` are in units of about 1 (`jaxdesign.units`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from jaxdesign import _arrays
from jaxdesign._centring import less_first, row_means
from jaxdesign._pairs import first_copies
from jaxdesign.information import Margins, margins_of
from jaxdesign.pool import CompletionPool, bare_pool, kept
from jaxdesign.pricing.ends import Ends, ends_of, rows_between
from jaxdesign.pricing.source import Chunk, Kernel, Merge, PairRows, closed_bits

# features, means, copies, margins and closed pairs of some prompts, one row each
Taken = tuple[Array, Array, Array, Margins | None, Array | None]


class MemorySource(NamedTuple):
    """A pool with what passes need of it besides: a `Source` and a pytree. `memory_source` makes one.

    Prompts lie in n chunks of c, the last one filled up with empty prompts. The features are those of the pool, not a
    copy: chunks are cut out and centred as they are visited. A fold is one program, a scan over chunks, and can be part
    of the caller's. What is laid out by slots, empty prompts included, goes through `fold_slots` without a copy.

    Args:
        features: (P, K, d), as stored.
        last: (c, K, d) features of the last chunk, zero in empty prompts.
        means: (n, c, d) of the rows `less_first` of each prompt, in the working dtype.
        copies: (n, c, K) `first_copies`, -1 where masked.
        margins: with axes (n, c); None: margins are 0 and no label is reversed.
        closed: (n, c, K, w) words of 32 bits; bit j of row i: pair (i, j), i < j, may not be used.
    """

    features: Float[Array, "p k d"]
    last: Float[Array, "c k d"]
    means: Float[Array, "n c d"]
    copies: Int[Array, "n c k"]
    margins: Margins | None
    closed: UInt32[Array, "n c k w"] | None

    @property
    def prompts(self) -> int:
        """P."""
        return self.features.shape[0]

    @property
    def slots(self) -> int:
        """n c, empty prompts included."""
        return self.copies.shape[0] * self.copies.shape[1]

    @property
    def completions(self) -> int:
        """K."""
        return self.features.shape[1]

    @property
    def dim(self) -> int:
        """d."""
        return self.features.shape[2]

    @property
    def draws(self) -> int:
        """R; 1 without draws."""
        return 1 if self.margins is None else self.margins.draws

    @property
    def dtype(self) -> np.dtype:
        """Working dtype."""
        return self.means.dtype

    def fold(self, kernel: Kernel, carry: Any, per_prompt: Any = None, merge: Merge = jnp.add) -> tuple[Any, Any]:
        """See `Source.fold`; traceable."""
        return _fold(self, kernel, carry, per_prompt)

    def fold_slots(self, kernel: Kernel, carry: Any, per_slot: Any = None) -> tuple[Any, Any]:
        """`fold` (see there for kernel and carry) where inputs `per_slot` and outputs have a leading axis of slots."""
        return _fold_slots(self, kernel, carry, per_slot)

    def rows(self, pairs: Int[_arrays.AnyArray, "s 3"]) -> PairRows:
        """See `Source.rows`; where float64 is computed."""
        if _arrays.algebra_device() is None:
            with _arrays.float64():
                return _rows(self, pairs)  # one program
        with _arrays.scope(True):  # dtypes stay as they are
            found = _ends(self, pairs)
        with _arrays.float64():
            return rows_between(_arrays.for_algebra(found))

    def ends(self, pairs: Int[_arrays.AnyArray, "s 3"]) -> Ends:
        """What rows are made of, as it is stored; traceable."""
        return _ends(self, pairs)

    def subset(self, prompts: Int[np.ndarray, " m"]) -> MemorySource:
        """See `Source.subset`."""
        return _subset(self, prompts)

    def in_dtype(self, dtype: Any) -> MemorySource:
        """The same with another working `dtype`: rows from the features as stored."""
        if np.dtype(dtype) == self.dtype:
            return self
        with _arrays.float64():
            return _in_dtype(self, dtype=np.dtype(dtype))

    def reversed(self, flip: Float[np.ndarray, " p"]) -> MemorySource:
        """The same where labels of each prompt are reversed with a probability; none are in this one."""
        scores, _, spread = self.margins or (None, None, None)
        return self._replace(margins=Margins(scores, _by_chunk(self, flip, 1, 1), spread))

    @property
    def scored(self) -> bool:
        """Whether it has scores."""
        return self.margins is not None and self.margins.scores is not None

    def with_scores(self, scores: Float[_arrays.AnyArray, "p k"]) -> MemorySource:
        """The same with these scores in place of any it has; traceable."""
        _, flip, spread = self.margins or (None, _by_chunk(self, jnp.zeros(self.prompts, jnp.float32), 1, 1), None)
        return self._replace(margins=Margins(_by_chunk(self, scores, 1, self.completions), flip, spread))

    def adapted(self, units: Float[np.ndarray, " d"], closed: UInt32[np.ndarray, "m k w"] | None) -> MemorySource:
        """The same with features times `units`, (d,) powers of two, and `closed` pairs as (P, K, w) words."""
        with _arrays.scope(True):  # dtypes stay as they are
            return _adapted(self, units.astype(self.dtype), closed)


def memory_source(
    pool: CompletionPool, dtype: Any = None, closed: Int[np.ndarray, "s 3"] | None = None
) -> MemorySource:
    """A pool held in memory as a source, kept with the pool: a second call costs nothing.

    Args:
        pool: the pool.
        dtype: working dtype; None: float32, or float64 for float64 features.
        closed: (S, 3) pairs that are no candidates; None: none.

    Returns:
        MemorySource.

    Raises: nothing of its own; the pool is checked already.

    Source: derived; checked by tests/pricing/test_pricing.py.
    """
    dtype = np.dtype(dtype or _arrays.compute_dtype(pool.features.dtype))
    length = _arrays.chunk_length(pool.num_prompts, pool.completions, pool.dim)
    source = kept(pool, ("source", dtype.name, length), lambda: _in_chunks(pool, dtype, length))
    bits = closed_bits(closed, source.slots, pool.completions)
    if bits is None:
        return source
    return source._replace(closed=jnp.asarray(bits.reshape(*source.copies.shape[:2], *bits.shape[1:])))


def as_chunk(pool: CompletionPool, dtype: Any = None) -> Chunk:
    """The prompts of a pool as one chunk.

    In two programs, so that rows are those of the pool in memory to the last bit: means that a program works out where
    it uses them, compilers may round differently.

    Args:
        pool: (P, K, d) the prompts.
        dtype: working dtype; None: float32, or float64 for float64 features.

    Returns:
        Chunk of the P prompts.

    Raises: nothing of its own; the pool is checked already.

    Source: derived; checked by tests/extensions/test_new_source.py.
    """
    return _one_chunk(_in_chunks(pool, dtype, pool.num_prompts))


@jax.jit
def _one_chunk(source):
    return _chunk(source, 0, jax.tree.map(lambda a: a[0], source[2:]))


def _in_chunks(pool, dtype, length) -> MemorySource:
    return MemorySource(pool.features, *prepared(pool, dtype, length), None)


def prepared(pool: CompletionPool, dtype: Any, length: int) -> tuple[Array, Array, Array, Margins]:
    """`last`, `means`, `copies` and `margins` of a `MemorySource` in chunks of `length` prompts; traceable."""
    dtype = np.dtype(dtype or _arrays.compute_dtype(pool.features.dtype))
    margins = _chunked_margins(pool, length=length)
    return *_parts(pool.features, pool.mask, dtype=dtype, length=length), margins


@jax.jit(static_argnames=("dtype", "length"))
def _parts(features, mask, *, dtype, length):
    def prepare(part):
        return row_means(less_first(part[0].astype(dtype), part[1]), part[1]), first_copies(bare_pool(*part))

    return last_chunk(features, length), *_arrays.map_padded(prepare, (features, mask), length)


@jax.jit(static_argnames="length")  # apart: what has other margins has the same rows
def _chunked_margins(pool, *, length):
    return _arrays.map_padded(lambda margins: margins, margins_of(pool), length)


def last_chunk(array, length):
    """The last chunk of an array, filled up with zeros."""
    missing = -len(array) % length
    return _arrays.filled_up(array[len(array) - length + missing :], missing)


@jax.jit
def _fold(source, kernel, carry, per_prompt):
    missing = source.slots - source.prompts
    filled = jax.tree.map(lambda a: _arrays.filled_up(a, missing), per_prompt)
    carry, outputs = _fold_slots(source, kernel, carry, filled)
    return carry, jax.tree.map(lambda a: a[: source.prompts], outputs)


@jax.jit
def _fold_slots(source, kernel, carry, per_slot):
    chunks, length = source.copies.shape[:2]

    def visit(carry, part):
        index, prepared, inputs = part
        return kernel(_chunk(source, index, prepared), carry, inputs)

    inputs = jax.tree.map(lambda a: a.reshape(chunks, length, *a.shape[1:]), per_slot)
    visits = jnp.arange(chunks, dtype=jnp.int32), source[2:], inputs
    carry, outputs = lax.scan(visit, carry, visits)
    return carry, jax.tree.map(_flat, outputs)


def _chunk(source, index, prepared) -> Chunk:
    means, copies, margins, closed = prepared
    length = source.copies.shape[1]
    start = jnp.minimum(index * length, source.prompts - length)
    rows = lax.dynamic_slice_in_dim(source.features, start, length)
    rows = jnp.where(index == len(source.copies) - 1, source.last, rows)
    resolution, rows = _resolution(rows, source.dtype), rows.astype(source.dtype)
    exists = copies >= 0
    rows = jnp.where(exists[..., None], less_first(rows, exists) - means[:, None], 0)
    return Chunk(rows, copies, margins, closed, resolution)


def _resolution(rows, dtype):
    kind = jnp.finfo(rows.dtype)
    largest = jnp.max(jnp.abs(rows), axis=1).astype(dtype)
    return jnp.maximum(largest * float(kind.eps), float(kind.smallest_subnormal))


def _by_chunk(source, array, *shape):
    """Entries of prompts, of a shape, where a source has its own."""
    return _arrays.filled_up(jnp.asarray(array), source.slots - len(array)).reshape(*source.copies.shape[:2], *shape)


def _flat(array):
    return array.reshape(-1, *array.shape[2:])


@jax.jit
def _ends(source, pairs):
    return ends_of(source.features, jax.tree.map(_flat, source.margins), pairs)


@jax.jit
def _rows(source, pairs):
    return rows_between(_ends(source, pairs))


@jax.jit
def _subset(source, prompts):
    return chunked(taken(source, prompts), source.copies.shape[1])


def taken(source: MemorySource, prompts: Int[Array, " m"]) -> Taken:
    """What a source has of some prompts; traceable."""
    return source.features[prompts], *jax.tree.map(lambda a: _flat(a)[prompts], source[2:])


@jax.jit(static_argnames="length")
def chunked(rows: Taken, length: int) -> MemorySource:
    """What was `taken` of some prompts as a source, in chunks of `length` prompts if there are as many."""
    features, length = rows[0], min(length, len(rows[0]))
    missing = -len(features) % length

    def in_chunks(array):
        return _arrays.filled_up(array, missing).reshape(-1, length, *array.shape[1:])

    means, copies, margins, closed = jax.tree.map(in_chunks, rows[1:])
    there = jnp.arange(copies.size // copies.shape[-1]).reshape(copies.shape[:2]) < len(features)
    copies = jnp.where(there[..., None], copies, -1)
    return MemorySource(features, last_chunk(features, length), means, copies, margins, closed)


@jax.jit
def _adapted(source, units, closed):
    features, last = (a.astype(units.dtype) * units[None, None] for a in (source.features, source.last))
    closed = None if closed is None else _by_chunk(source, closed, *closed.shape[1:])
    means = source.means * units[None, None]
    return source._replace(features=features, last=last, means=means, closed=closed)


@jax.jit(static_argnames="dtype")
def _in_dtype(source, *, dtype):
    return source._replace(means=row_means_of(source.features, source.copies, dtype))


def row_means_of(features, copies, dtype):
    """`MemorySource.means` of features whose `copies` are known."""
    exists = copies.reshape(-1, copies.shape[-1])[: len(features)] >= 0

    def of_part(part):
        return row_means(less_first(part[0].astype(dtype), part[1]), part[1])

    return _arrays.map_padded(of_part, (features, exists), copies.shape[1])
