"""What a pass over a pool asks of it: the `Source` protocol, and the parts to write one from.

A source gives its prompts chunk by chunk and keeps to itself where features lie: in memory (`pricing.memory`), on disk,
on several devices, or nowhere, made anew for every pass. Passes are kernels, functions of a chunk that know no source.

A source of one's own has the five numbers and the three methods of `Source`. `as_chunk` makes a chunk of a small
`CompletionPool`; `host_fold.folded` is a `fold` that loops over chunks on the host; `pair_rows` answers `rows` from a
pool that holds the prompts asked about; `memory_source` is what `subset` returns. What needs all pairs in float64 gets
them by way of subsets, or from a method in_dtype(dtype) that gives the same source with another working dtype.
tests/extensions/test_new_source.py is an example: features made from a seed, chunk by chunk, and never stored. Where
rows are far away a source may also visit listed pairs itself (`listed.Visiting`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxdesign import _arrays
from jaxdesign._arrays import AnyArray
from jaxdesign._pairs import candidate_pairs
from jaxdesign.information import Margins, listed_label_information, margins_of, pair_differences
from jaxdesign.pool import CompletionPool
from jaxdesign.residual import listed_shrinkage

SUBSET = 2**21  # pair slots of a subset at most
WORD = 32  # bits of closed pairs that are kept together: on a CPU with AVX-512, LLVM cannot compile reads of 8 bytes


class Chunk(NamedTuple):
    """Some consecutive prompts, centred. Slots that hold no completion have rows of 0 and `copies` of -1.

    `Kernel`s must take everything they count from here: a chunk may hold prompts that are no longer, or not yet, to be
    counted, and those have nothing but such slots.

    Args:
        rows: (c, K, d) features less a constant of each prompt, near their mean, in the working dtype.
        copies: (c, K) the smallest index among the completions with bit-identical features, -1 where there is none.
        margins: what label information depends on; None: every margin is 0 and no label is reversed.
        closed: (c, K, w) words of 32 bits; bit j of row i: pair (i, j), i < j, may not be used. None: all may.
        resolution: (c, d) distance of neighbouring numbers of the stored dtype at the largest size of each column in
            the prompt, before anything was taken off. None: not known.
    """

    rows: Float[Array, "c k d"]
    copies: Int[Array, "c k"]
    margins: Margins | None = None
    closed: UInt32[Array, "c k w"] | None = None
    resolution: Float[Array, "c d"] | None = None


class PairRows(NamedTuple):
    """Listed pairs, exactly: float64.

    Args:
        differences: (S, d) z = phi_pi - phi_pj.
        label_info: (R, S) c, one row per draw.
        scale: (S,) what a residual leaves of c, apart from what it does to margins (`residual.Shrinkage`): of c that
            share is no information of a label. Only who reverses labels asks for it. None: there is no residual.
    """

    differences: Float[Array, "s d"]
    label_info: Float[Array, "r s"]
    scale: Float[Array, " s"] | None = None


# kernel(chunk, carry, inputs) -> (carry, outputs): see `Source.fold`
Kernel = Callable[[Chunk, Any, Any], tuple[Any, Any]]
Merge = Callable[[Array, Array], Array]  # of a leaf of the carries of two parts of the prompts: jnp.add, jnp.maximum


@runtime_checkable
class Foldable(Protocol):
    """What a pass needs of a pool, or of some prompts of one."""

    @property
    def prompts(self) -> int:
        """P; a pair (p, i, j) has 0 <= p < P."""
        ...

    @property
    def completions(self) -> int:
        """K."""
        ...

    @property
    def dim(self) -> int:
        """d."""
        ...

    @property
    def draws(self) -> int:
        """R, the number of parameter draws of the scores; 1 without draws or scores."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Of the rows of chunks: float32, or float64."""
        ...

    def fold(self, kernel: Kernel, carry: Any, per_prompt: Any = None, merge: Merge = jnp.add) -> tuple[Any, Any]:
        """(carry, outputs) after kernel(chunk, carry, inputs) -> (carry, outputs) on every chunk in order.

        Args:
            kernel: a pure, traceable function wrapped as `jax.tree_util.Partial`, so that it is a pytree of its arrays:
                a source that loops on the host compiles it once for all chunks.
            carry: a pytree of arrays whose shapes and dtypes the kernel keeps, or None. Where prompts are visited at
                several places at a time, each begins with it: it must be what `merge` changes nothing with.
            per_prompt: a pytree of arrays with a leading axis P, which chunks get their part of as `inputs`, or None.
            merge: joins the leaves of carries of two parts of the prompts, entry by entry, the earlier part first. A
                source that visits one chunk after the other has no use for it.

        Returns:
            The last carry, and the outputs of all chunks joined along their leading axis, which is P.
        """
        ...


@runtime_checkable
class Source(Foldable, Protocol):
    """A pool as passes see it. Anything with these attributes can be priced, optimised and evaluated on.

    Every fold must visit all prompts once, in order, and the same numbers every time: certificates say of all pairs
    that were not listed that a pass has seen them.

    Source: derived; checked by tests/extensions/test_new_source.py, where a source of generated features gives the
    designs and certificates of the same pool in memory.
    """

    def rows(self, pairs: Int[np.ndarray, "s 3"]) -> PairRows:
        """Listed pairs from the features as stored, nothing rounded before the difference. S is `listed.PAGE`."""
        ...

    def subset(self, prompts: Int[np.ndarray, " m"]) -> Any:
        """The given prompts, ascending, as a source in memory (`memory_source`): at most 2^21 / K^2 of them."""
        ...


@runtime_checkable
class Divided(Source, Protocol):
    """A source of which each device has some prompts, so that passes over a few of them can be made where they lie."""

    @property
    def devices(self) -> int:
        """How many devices have prompts of their own; what follows is not asked of a source on one device."""
        ...

    def home(self, prompts: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Which of the devices have these prompts."""
        ...

    def some(self, prompts: Int[np.ndarray, " m"]) -> Foldable:
        """These prompts, in any order and any number of times, as what can be folded over."""
        ...


@dataclass(frozen=True, eq=False)
class Derived:
    """What a source that shows another one otherwise has in common with it."""

    given: Any  # a source, or some prompts of one, which can be folded over and no more

    @property
    def prompts(self) -> int:
        """P."""
        return self.given.prompts

    @property
    def completions(self) -> int:
        """K."""
        return self.given.completions

    @property
    def dim(self) -> int:
        """d."""
        return self.given.dim

    @property
    def draws(self) -> int:
        """R."""
        return self.given.draws

    @property
    def dtype(self) -> np.dtype:
        """Working dtype."""
        return np.dtype(self.given.dtype)

    @property
    def devices(self) -> int:
        """Devices that have prompts of their own."""
        return devices_of(self.given)

    @property
    def as_stored(self) -> bool:
        """Whether subsets have the rows of listed pairs to the last digit, as those of features as stored do."""
        return getattr(self.given, "as_stored", True)

    def with_given(self, change: Callable[[Any], Any]) -> Any:
        """The same of change(given)."""
        return replace(self, given=change(self.given))


def as_here(kernel: Callable) -> Partial:
    """A kernel to be called elsewhere, in the precision that is the default here."""
    return Partial(_in_float64 if _arrays.in_float64() else _in_float32, kernel)


def _in_float64(kernel, *args):
    with _arrays.float64():
        return kernel(*args)


def _in_float32(kernel, *args):
    with _arrays.scope(False):
        return kernel(*args)


def devices_of(source: Source) -> int:
    """How many devices have prompts of their own; 1 for a source that does not say."""
    return getattr(source, "devices", 1)


def in_turn(source: Source, prompts: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """The prompts in an order in which every few of them are on as many devices as can be; on one device as given."""
    if devices_of(source) == 1:
        return prompts
    home = cast(Divided, source).home(prompts)
    return prompts[np.lexsort((home, ranks_among(home)))]


def ranks_among(groups: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """How many entries before each are of its own group."""
    order = np.argsort(groups, kind="stable")
    ordered, ranks = groups[order], np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered, side="left")
    return ranks


def some_of(source: Source, prompts: Int[np.ndarray, " m"]) -> Foldable:
    """Some prompts to fold over, where they lie: on their devices, or in memory."""
    return source.subset(prompts) if devices_of(source) == 1 else cast(Divided, source).some(prompts)


def pair_rows(pool: CompletionPool, pairs: Int[np.ndarray, "s 3"]) -> PairRows:
    """`Source.rows` from a pool in memory.

    Args:
        pool: a pool that holds at least the prompts asked about.
        pairs: (S, 3) rows (p, i, j), prompts named by their place in `pool`.

    Returns:
        PairRows, float64 from the features as they are stored.

    Raises: nothing; pairs are not checked.

    Source: derived; checked by tests/extensions/test_new_source.py.
    """
    with _arrays.float64():
        return _pair_rows(_arrays.for_algebra(pool), pairs)


@jax.jit
def _pair_rows(pool, pairs):
    return listed_pairs(pair_differences(pool, pairs), margins_of(pool), pairs)


def listed_pairs(differences: Float[Array, "s d"], margins: Margins | None, pairs: Int[Array, "s 3"]) -> PairRows:
    """Rows of listed pairs with these differences, of completions with these margins; traceable, in a float64 scope."""
    info = listed_label_information(margins, pairs)
    if margins is None or margins.spread is None:
        return PairRows(differences, info)
    return PairRows(differences, info, listed_shrinkage(margins.spread, pairs, info.dtype).scale)


def open_pairs(chunk: Chunk) -> Bool[Array, "c k k"]:
    """True at the pairs i < j that may be used: both completions exist and differ, and the pair is not closed."""
    candidates = candidate_pairs(chunk.copies)
    if chunk.closed is None:
        return candidates
    bits = (chunk.closed[..., None] >> jnp.arange(WORD, dtype=jnp.uint32)[None, None, None]) & 1
    return candidates & (bits.reshape(*candidates.shape[:-1], -1)[..., : candidates.shape[-1]] == 0)


def closed_bits(
    closed: Int[np.ndarray, "s 3"] | None, prompts: int, completions: int
) -> UInt32[np.ndarray, "p k w"] | None:
    """Pairs i < j that may not be used as `Chunk.closed` of all prompts; None where there are none."""
    if closed is None or not len(closed):
        return None
    some, row = np.unique(closed[:, 0], return_inverse=True)
    rows = np.zeros((len(some), completions, -(-completions // WORD) * WORD), bool)
    rows[row, closed[:, 1], closed[:, 2]] = True
    bits = np.zeros((prompts, completions, rows.shape[-1] // WORD), np.uint32)
    bits[some] = np.packbits(rows, axis=-1, bitorder="little").view("<u4")
    return bits


class Survey(NamedTuple):
    """What is there, on the host."""

    exists: Bool[np.ndarray, "p k"]
    pair_counts: Float[np.ndarray, " p"]  # that may be used


def survey(source: Source) -> Survey:
    """Which completions there are and how many pairs may be used, in one pass."""
    return as_survey(*source.fold(Partial(_surveyed), None)[1])


def _surveyed(chunk, carry, _):
    return carry, surveyed(chunk)


def surveyed(chunk: Chunk) -> tuple[Bool[Array, "c k"], Int[Array, " c"]]:
    """`Survey` of a chunk; traceable."""
    return chunk.copies >= 0, jnp.sum(open_pairs(chunk), axis=(1, 2))


def as_survey(exists: AnyArray, counts: AnyArray) -> Survey:
    """What a fold joined of `surveyed`."""
    return Survey(np.asarray(exists), np.asarray(counts, np.float64))
