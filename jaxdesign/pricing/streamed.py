"""A pool larger than memory as a source: its features are read anew, a chunk at a time, for every pass.

A pass asks for the next chunk while devices work on the one before (`host_fold.visited`), so that reading costs time
only where it takes longer than the work. A chunk becomes a small `MemorySource`: kernels see the rows, to the last bit,
that they see of the same pool in memory, and compile once for all chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._centring import less_first, row_means
from jaxdesign._pairs import first_copies
from jaxdesign.information import Margins, margins_of
from jaxdesign.pool import CompletionPool, bare_pool, on_device, rounded_late, unchecked_pool, with_features
from jaxdesign.pricing.copies import Copies, copies_among, default_copies
from jaxdesign.pricing.host_fold import Part, visited
from jaxdesign.pricing.memory import MemorySource, last_chunk, memory_source
from jaxdesign.pricing.source import Kernel, Merge, PairRows, pair_rows
from jaxdesign.pricing.stored.protocol import Stored
from jaxdesign.residual import Residual, check_rows, residual_rows

# A chunk that is read has so many of the chunks that kernels work on (`_arrays.CHUNK_ENTRIES`): on a CPU one, which is
# then still in the cache when the kernel comes to it; elsewhere more, as between two of them the host works for about a
# millisecond.
CHUNKS = {"cpu": 1, "gpu": 4, "tpu": 4}


@dataclass(frozen=True, eq=False)
class StreamedSource:
    """A `Source` of features that are read a chunk at a time; `streamed_source` makes one.

    Args:
        features: where they are read from.
        scores: (P, K) or (R, P, K); None: all margins are 0.
        mask: (P, K), True where the completion exists; None: all do.
        flip: (P,) or (P, K, K); None: no label is reversed.
        length: prompts of a chunk.
        wide: whether JAX computed in float64 when it was made: float64 features, scores and flips are then kept as such
            and else rounded to float32, as those of a pool in memory are.
        residual: factors of variances of margins; None: none.
        copies: what the first pass found, by the number of the chunk.
        working: working dtype; None: that of the features, as of a pool in memory.

    Source: derived; checked by tests/pricing/test_streamed.py.
    """

    features: Stored
    scores: Float[np.ndarray, "*r p k"] | None
    mask: Bool[np.ndarray, "p k"] | None
    flip: Float[np.ndarray, " p"] | Float[np.ndarray, "p k k"] | None
    length: int
    wide: bool
    residual: Residual | None = None
    copies: dict[int, Copies] = field(default_factory=dict)
    working: np.dtype | None = None

    @property
    def prompts(self) -> int:
        """P."""
        return self.features.shape[0]

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
        return len(self.scores) if self.scores is not None and self.scores.ndim == 3 else 1

    @property
    def dtype(self) -> np.dtype:
        """Working dtype."""
        return self._own_dtype if self.working is None else self.working

    @property
    def _own_dtype(self) -> np.dtype:
        return np.dtype(np.float64 if self.wide and self.features.dtype == np.float64 else np.float32)

    def fold(self, kernel: Kernel, carry: Any, per_prompt: Any = None, merge: Merge = jnp.add) -> tuple[Any, Any]:
        """See `Source.fold`; outputs are on the host.

        Raises:
            ValueError: in the first pass, NaN or inf among features or scores, flips out of range.
        """
        kernel = jax.tree.map(jnp.asarray, kernel)
        return visited(self._chunks(), lambda held, *rest: held.fold(kernel, *rest), carry, per_prompt)

    def rows(self, pairs: Int[np.ndarray, "s 3"]) -> PairRows:
        """See `Source.rows`; no other completions are read, but for those of float64 that become float32."""
        p, i, j = pairs.T
        exists = np.ones((len(pairs), 2), bool) if self.mask is None else self.mask[p[:, None], pairs[:, 1:]]
        features = self._completions(np.repeat(p, 2), pairs[:, 1:].ravel()).reshape(len(pairs), 2, self.dim)
        features = np.where(exists[..., None], features, 0)
        scores = None if self.scores is None else self._narrow(self.scores[..., p[:, None], pairs[:, 1:]])
        flip = self.flip
        if flip is not None:
            flip = self._working(flip[p]) if flip.ndim == 1 else self._mean(flip[p, i, j], flip[p, j, i])
            flip = np.where(exists.all(axis=1) & (i != j), flip, 0)
        place = np.arange(len(pairs), dtype=np.int32)
        listed = np.stack([place, np.zeros_like(place), np.ones_like(place)], axis=1)
        residual = None if self.residual is None else self._spread(features, exists)
        return pair_rows(bare_pool(features, exists, scores, flip, residual), listed)

    def subset(self, prompts: Int[np.ndarray, " m"]) -> MemorySource:
        """See `Source.subset`."""
        mask = self._exists(prompts)
        features = self._rounded(self.features.take(prompts), mask)
        scores = None if self.scores is None else self._narrow(self.scores[..., prompts, :])
        with _arrays.scope(self.wide):
            pool = jax.tree.map(on_device, _zeroed(features, mask, scores, self._flip(prompts, mask)))
            pool = self._with_residual(pool)
            found = memory_source(pool)
        return found.in_dtype(self.dtype)

    def in_dtype(self, dtype: Any) -> StreamedSource:
        """The same with another working dtype; what was found in a pass is kept by both."""
        return replace(self, working=np.dtype(dtype))

    @property
    def scored(self) -> bool:
        """Whether it has scores."""
        return self.scores is not None

    def with_scores(self, scores: Float[np.ndarray, "p k"]) -> StreamedSource:
        """The same with these scores in place of any it has."""
        return replace(self, scores=scores)

    def _chunks(self) -> Iterator[Part]:
        for number, start in enumerate(range(0, self.prompts, self.length)):
            size = min(self.length, self.prompts - start)
            with _arrays.scope(self.wide):
                held = self._chunk(number, slice(start, start + size))
            yield Part(held.in_dtype(self.dtype), self.length, size)
            del held

    def _chunk(self, number: int, part: slice) -> MemorySource:
        """A chunk as a source, filled up with prompts that have no completions."""
        mask, new = self._exists(part), number not in self.copies
        features = self._rounded(self.features.between(part.start, part.stop), mask)
        scores = None if self.scores is None else self._narrow(np.asarray(self.scores[..., part, :]))
        if new:
            check(features, scores, None if self.flip is None else self.flip[part], mask, part.start)
        pool = _zeroed(features, mask, scores, self._flip(part, mask))
        length = _arrays.chunk_length(self.length, self.completions, self.dim)
        if len(mask) < self.length:
            pool = _filled_up(pool, self.length - len(mask))
        copies, pool = default_copies(np.asarray(pool.mask)), jax.tree.map(on_device, pool)
        pool = self._with_residual(pool)
        if new:
            check_rows(pool.residual, part.start)
            self.copies[number] = copies_among(np.asarray(_first_copies(pool)))
        copies[self.copies[number].prompts] = self.copies[number].first
        copies = np.pad(copies, ((0, -len(copies) % length), (0, 0)), constant_values=-1)
        features = _cast(pool.features, dtype=self._own_dtype)
        last, means, margins = _prepared(with_features(pool, features), length=length)
        chunked = jnp.asarray(copies.reshape(-1, length, self.completions))
        if self.working is not None:  # rows and what they resolve are then those of the features as stored
            features, last = pool.features, _last_chunk(pool.features, length=length)
        return MemorySource(features, last, means, chunked, margins, None)

    def _with_residual(self, pool: CompletionPool) -> CompletionPool:
        if self.residual is None:
            return pool
        return unchecked_pool(
            pool.features, pool.scores, pool.mask, pool.flip, self._spread(pool.features, pool.mask), pool.ids
        )

    def _spread(self, features: _arrays.AnyArray, mask: _arrays.AnyArray) -> Residual | None:
        """Rows of residuals, as those of a pool in memory: from features as stored, in the dtype of the pool."""
        with _arrays.scope(self.wide):
            return residual_rows(self.residual, on_device(features), on_device(mask))

    def _exists(self, prompts: Any) -> Bool[np.ndarray, "m k"]:
        if self.mask is not None:
            return np.asarray(self.mask[prompts])
        count = len(prompts) if isinstance(prompts, np.ndarray) else prompts.stop - prompts.start
        return np.ones((count, self.completions), bool)

    def _flip(self, prompts: Any, mask: Bool[np.ndarray, "m k"]) -> np.ndarray | None:
        """Flips of some prompts as `pool.as_flips` makes them."""
        if self.flip is None:
            return None
        flip = np.asarray(self.flip[prompts])
        if flip.ndim == 1:
            return np.where(mask.sum(axis=1) > 1, self._working(flip), 0)
        flip = np.where(paired(mask), flip, 0)
        return self._mean(flip, flip.swapaxes(1, 2))

    def _working(self, flip: np.ndarray) -> np.ndarray:
        return flip.astype(np.float64 if self.wide and flip.dtype == np.float64 else np.float32)

    def _mean(self, flip: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (self._working(flip) + self._working(other)) / 2

    def _completions(self, prompts: Int[np.ndarray, " s"], completions: Int[np.ndarray, " s"]) -> np.ndarray:
        """(S, d) features of listed completions, as stored."""
        if self.features.dtype != np.float64 or self.wide:
            return self.features.take(prompts, completions)
        found = np.empty((len(prompts), self.dim), np.float32)
        some, place = np.unique(prompts, return_inverse=True)
        for start in range(0, len(some), self.length):  # whole prompts, which are rounded together
            here, those = place // self.length == start // self.length, some[start : start + self.length]
            rows = self._rounded(self.features.take(those), self._exists(those))
            found[here] = rows[place[here] - start, completions[here]]
        return found

    def _rounded(self, features: np.ndarray, mask: Bool[np.ndarray, "m k"]) -> np.ndarray:
        """Float64 features in the dtype in which they are kept."""
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, which is refused
            return features if self.wide else rounded_late(features, mask)

    def _narrow(self, array: np.ndarray | None) -> np.ndarray | None:
        """Float64 numbers in the dtype in which they are kept."""
        return array.astype(np.float32) if array is not None and array.dtype == np.float64 and not self.wide else array


def chunk_length(shape: tuple[int, int, int], length: int | None = None) -> int:
    """Prompts of a chunk; None for a length by backend: equal parts of whole chunks of the kernels'."""
    prompts, completions, dim = shape
    if length is None:
        inner = _arrays.chunk_length(prompts, completions, dim)
        parts = -(-prompts // (CHUNKS.get(jax.default_backend(), CHUNKS["cpu"]) * inner))
        length = _arrays.round_up(-(-prompts // parts), inner)
    return min(length, prompts)


def check(features: np.ndarray, scores: np.ndarray | None, flip: np.ndarray | None, mask: np.ndarray, start: int):
    """ValueError as from `CompletionPool` for a chunk that begins with prompt `start`."""
    axes, partial = ("prompt", "completion", "dimension"), not mask.all()
    _checks.finite(features, "features", mask[..., None] if partial else None, axes, start)
    if scores is not None:
        axes = ("draw", "prompt", "completion")[-scores.ndim :]
        _checks.finite(scores, "scores", mask if partial else None, axes, start)
    if flip is not None:
        _checks.flips(flip, mask.sum(axis=1) > 1 if flip.ndim == 1 else paired(mask), start)


def paired(mask: Bool[np.ndarray, "m k"]) -> Bool[np.ndarray, "m k k"]:
    """Where there is a pair."""
    return mask[:, :, None] & mask[:, None, :] & ~np.eye(mask.shape[1], dtype=bool)


def _zeroed(features, mask, scores, flip):
    """A pool, unchecked, with zeros where there is no completion: 0 x NaN is NaN."""
    if not mask.all():
        features = np.where(mask[..., None], features, 0)
        scores = None if scores is None else np.where(mask, scores, 0)
    return bare_pool(features, mask, scores, flip)


def _filled_up(pool, missing):
    """With empty prompts at the end."""

    def filled(array, axis=0):
        widths = [(0, 0)] * array.ndim
        widths[axis] = (0, missing)
        return np.pad(array, widths)

    scores = None if pool.scores is None else filled(pool.scores, -2)
    return bare_pool(filled(pool.features), filled(pool.mask), scores, None if pool.flip is None else filled(pool.flip))


_first_copies = jax.jit(first_copies)
_last_chunk = jax.jit(last_chunk, static_argnames="length")


@jax.jit(static_argnames="dtype")
def _cast(features, *, dtype):
    """Apart: on CPUs a cast of float16 inside of a sum over rows takes as long as pricing them."""
    return features.astype(dtype)


@jax.jit(static_argnames="length")
def _prepared(pool, *, length) -> tuple[Array, Array, Margins]:
    """The last chunk of the features, means and margins as `MemorySource` has them, in a program before the kernel's:
    means that a program works out where it uses them, compilers may round differently."""
    margins = _arrays.map_padded(lambda part: part, margins_of(pool), length)
    means = _arrays.map_padded(lambda part: row_means(less_first(*part), part[1]), (pool.features, pool.mask), length)
    return last_chunk(pool.features, length), means, margins
