"""A source with another working dtype, for what has to see all pairs in float64, and where that is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxdesign import _arrays
from jaxdesign.pricing.host_fold import Part, visited
from jaxdesign.pricing.memory import MemorySource
from jaxdesign.pricing.scores import has_scores, with_scores
from jaxdesign.pricing.source import SUBSET, Derived, Kernel, Merge, PairRows, Source


def in_dtype(source: Source, dtype: Any) -> Source:
    """The same pool with another working dtype, rows worked out from the features as they are stored.

    By the source's own method `in_dtype(dtype)` where it has one, or else by way of its subsets; in float64 where that
    is computed (`at_algebra`).
    """
    source = at_algebra(source) if np.dtype(dtype) == np.float64 else source
    own = getattr(source, "in_dtype", None)
    if own is not None:
        return own(dtype)
    return source if np.dtype(source.dtype) == np.dtype(dtype) else SubsetSource(source, np.dtype(dtype))


def at_algebra(source: Source) -> Source:
    """The same pool where float64 is computed: itself where that is where it lies, or else by way of its subsets."""
    if _arrays.algebra_device() is None or isinstance(source, SubsetSource):
        return source
    if isinstance(source, MemorySource):
        return _arrays.for_algebra(source)
    if isinstance(source, Derived):
        return source.with_given(at_algebra)
    return SubsetSource(source, np.dtype(source.dtype))


@dataclass(frozen=True, eq=False)
class SubsetSource(Derived):
    """Another source that is folded over a subset at a time, each in memory where float64 is computed, in any dtype.

    The other one is called in the precision that was the default when this one was made.
    """

    working: np.dtype
    wide: bool = field(default_factory=_arrays.in_float64)

    @property
    def dtype(self) -> np.dtype:
        """Working dtype."""
        return self.working

    @property
    def devices(self) -> int:
        """One: subsets are in one place."""
        return 1

    def fold(self, kernel: Kernel, carry: Any, per_prompt: Any = None, merge: Merge = jnp.add) -> tuple[Any, Any]:
        """See `Source.fold`; outputs are on the host."""
        kernel = jax.tree.map(jnp.asarray, kernel)
        return visited(self._parts(), lambda held, *rest: held.fold(kernel, *rest), carry, per_prompt)

    def rows(self, pairs: Int[np.ndarray, "s 3"]) -> PairRows:
        """See `Source.rows`."""
        with _arrays.scope(self.wide):
            return self.given.rows(pairs)

    def subset(self, prompts: Int[np.ndarray, " m"]) -> MemorySource:
        """See `Source.subset`."""
        with _arrays.scope(self.wide):
            found = self.given.subset(prompts)
        return _arrays.for_algebra(found).in_dtype(self.working)

    @property
    def scored(self) -> bool:
        """Whether it has scores."""
        return has_scores(self.given)

    def with_scores(self, scores: Any) -> SubsetSource:
        """The same with these scores in place of any it has."""
        return self.with_given(partial(with_scores, scores=scores))

    def in_dtype(self, dtype: Any) -> SubsetSource:
        """The same with another working dtype."""
        return replace(self, working=np.dtype(dtype))

    def _parts(self) -> Iterator[Part]:
        length = _arrays.chunk_length(self.prompts, self.completions, self.dim)
        length = max(min(length, SUBSET // self.completions**2), 1)
        for start in range(0, self.prompts, length):
            size = min(length, self.prompts - start)
            last = np.full(length - size, self.prompts - 1)  # again and again, to be seen by none
            held = self.subset(np.concatenate([np.arange(start, start + size), last]))
            copies = held.copies.reshape(-1, self.completions)
            copies = jnp.where((jnp.arange(len(copies)) < size)[:, None], copies, -1).reshape(held.copies.shape)
            yield Part(held._replace(copies=copies), length, size)
            del held
