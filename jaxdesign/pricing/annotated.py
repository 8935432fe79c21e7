"""A source seen once by every annotator, without a copy of its features.

A label of pair e by annotator a has the information of a label with a probability of reversal of a's own. The joint
choice of pairs and annotators is a design on A P prompts, prompt p as annotator a sees it being a P + p: they share
rows, products and Gram matrices, and differ in c alone. A pass therefore visits every chunk of the given source once
and there runs its kernel once for each annotator, in a loop out of which the compiler takes all that does not depend on
the annotator: of the 2 P K d^2 + 2 P K^2 d operations of a pass none is done twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays
from jaxdesign.information import Margins, reversed_information
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.adapted import AdaptedSource
from jaxdesign.pricing.listed import PairKernel, over_pairs
from jaxdesign.pricing.memory import MemorySource, memory_source
from jaxdesign.pricing.source import Chunk, Derived, Divided, Kernel, Merge, PairRows, Source, closed_bits, some_of
from jaxdesign.pricing.widened import in_dtype


@dataclass(frozen=True, eq=False)
class AnnotatedSource(Derived):
    """Another source, whose labels are not reversed, as annotators with these probabilities of reversal see it."""

    flip: Float[np.ndarray, "a p"]

    @property
    def prompts(self) -> int:
        """A P."""
        return self.flip.size

    def fold(self, kernel: Kernel, carry: Any, per_prompt: Any = None, merge: Merge = jnp.add) -> tuple[Any, Any]:
        """See `Source.fold`; the prompts of a chunk are visited once for each annotator before those of the next."""
        annotators, prompts = self.flip.shape
        inputs = jax.tree.map(lambda a: _swapped(a.reshape(annotators, prompts, *a.shape[1:])), per_prompt)
        carry, outputs = self.given.fold(Partial(_by_annotator, kernel), carry, (self.flip.T, inputs), merge=merge)
        on_host = all(isinstance(a, np.ndarray) for a in jax.tree.leaves(outputs))
        return carry, (_in_order if on_host else _in_order_on_device)(outputs)

    def rows(self, pairs: Int[np.ndarray, "s 3"]) -> PairRows:
        """See `Source.rows`."""
        given, flip = self._given(pairs)
        found = self.given.rows(given)
        with _arrays.float64():
            info = _reversed(jnp.asarray(found.label_info), flip[None], found.scale)
        return found._replace(label_info=info)

    def over_pairs(self, kernel: PairKernel, pairs: Int[np.ndarray, "s 3"], per_pair: Any = None) -> Any:
        """See `listed.over_pairs`."""
        given, flip = self._given(pairs)
        return over_pairs(self.given, Partial(_reversed_rows, kernel), given, (flip, per_pair))

    def _given(self, pairs):
        """The pairs of the given source, and the probability that a label of each is reversed."""
        who, prompts = np.divmod(pairs[:, 0], self.flip.shape[1])
        given = np.concatenate([prompts[:, None], pairs[:, 1:]], axis=1).astype(np.int32)
        return given, self.flip[who, prompts].astype(np.float64)

    def subset(self, prompts: Int[np.ndarray, " m"]) -> MemorySource:
        """See `Source.subset`; a prompt that several annotators see is there several times."""
        who, given = np.divmod(prompts, self.flip.shape[1])
        once, place = np.unique(given, return_inverse=True)
        return self.given.subset(once).subset(place).reversed(self.flip[who, given])

    def in_dtype(self, dtype: Any) -> AnnotatedSource:
        """The same with another working dtype."""
        return self.with_given(partial(in_dtype, dtype=dtype))

    def home(self, prompts: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Which of the devices have them."""
        return cast(Divided, self.given).home(prompts % self.flip.shape[1])

    def some(self, prompts: Int[np.ndarray, " m"]) -> ReversedSource:
        """Some prompts to fold over, on their devices; one that several annotators see is there several times."""
        who, given = np.divmod(prompts, self.flip.shape[1])
        return ReversedSource(some_of(self.given, given), self.flip[who, given])


@dataclass(frozen=True, eq=False)
class ReversedSource(Derived):
    """Another source, whose labels are not reversed, to fold over where they are: by prompt."""

    flip: Float[np.ndarray, " p"]

    def fold(self, kernel: Kernel, carry: Any, per_prompt: Any = None, merge: Merge = jnp.add) -> tuple[Any, Any]:
        """See `Source.fold`."""
        return self.given.fold(Partial(_reversed_by_prompt, kernel), carry, (self.flip, per_prompt), merge=merge)


def pool_source(
    pool: CompletionPool,
    flip: Float[np.ndarray, "a p"] | None = None,
    dtype: Any = None,
    closed: Int[np.ndarray, "s 3"] | None = None,
) -> Source:
    """A pool held in memory as a source; `flip`: as annotators with these probabilities of reversal see it.

    Args:
        pool: the pool, without flips of its own where annotators bring them.
        flip: (A, P); None: no annotators.
        dtype: working dtype; None: float32, or float64 for float64 features.
        closed: (S, 3) pairs that are no candidates, of the A P prompts where there are annotators; None: none.
    """
    if flip is None:
        return memory_source(pool, dtype, closed)
    source = AnnotatedSource(memory_source(pool, dtype), flip)
    bits = closed_bits(closed, source.prompts, source.completions)
    return source if bits is None else AdaptedSource(source, np.ones(source.dim), bits)


def _by_annotator(kernel, chunk: Chunk, carry, inputs):
    flips, inputs = inputs

    def visit(carry, part):
        flip, one = part
        return kernel(_seen(chunk, flip), carry, one)

    carry, outputs = lax.scan(visit, carry, jax.tree.map(_swapped, (flips, inputs)))
    return carry, jax.tree.map(_swapped, outputs)


def _reversed_by_prompt(kernel, chunk: Chunk, carry, inputs):
    flip, inputs = inputs
    return kernel(_seen(chunk, flip), carry, inputs)


def _seen(chunk: Chunk, flip: Float[Array, " c"]) -> Chunk:
    """A chunk whose labels are reversed with these probabilities."""
    scores, _, spread = chunk.margins or (None, None, None)
    return chunk._replace(margins=Margins(scores, flip[:, None, None], spread))


def _reversed_rows(kernel, rows: PairRows, inputs):
    flip, inputs = inputs
    return kernel(rows._replace(label_info=_reversed(rows.label_info, flip[None], rows.scale)), inputs)


def _swapped(array):
    return array.swapaxes(0, 1)


def _in_order(outputs):
    """(P, A, ...) to (A P, ...)."""
    return jax.tree.map(lambda a: _swapped(a).reshape(-1, *a.shape[2:]), outputs)


_in_order_on_device = jax.jit(_in_order)


@jax.jit
def _reversed(info, flip, scale):
    """Information of labels that are reversed from that of labels that are not."""
    if scale is None:
        return reversed_information(info, flip)
    return reversed_information(info / scale[None], flip) * scale[None]
