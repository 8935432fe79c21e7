"""What training and features need of completions, computed once: streams where the frozen part of a Llama ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int

from jaxdesign._arrays import AnyArray
from jaxdesign._checks import whole_number
from jaxdesign.preference.llama.blocks import through_completions, through_prompt
from jaxdesign.preference.llama.features import checked_states
from jaxdesign.preference.llama.law import TokenLaw, check_completions
from jaxdesign.preference.llama.model import PAD, Llama
from jaxdesign.preference.llama.sampling import ROWS, in_batches


class HeadCache(NamedTuple):
    """States that the head reads: all of a model but its head is frozen.

    Args:
        states: (P, K, c, width) after the last norm, before each token; any floating dtype.
        tokens: (P, K, c), PAD on the right.
    """

    states: Float[AnyArray, "p k c width"]
    tokens: Int[AnyArray, "p k c"]

    def picked(self, prompts: Int[AnyArray, " n"], columns: Int[AnyArray, "n m"]) -> HeadCache:
        """m completions, by their `columns`, of each of n `prompts`, as a cache of n prompts; traceable."""
        return jax.tree.map(lambda array: array[prompts[:, None], columns], self)

    def examples(self) -> HeadCache:
        """The completions as (P K) caches of one, one after the other along the leading axis."""
        return jax.tree.map(lambda array: array.reshape(-1, 1, 1, *array.shape[2:]), self)


class TailCache(NamedTuple):
    """Streams that enter the last blocks: the blocks before them are frozen.

    Args:
        prompts: (P, t, width); any floating dtype.
        exists: (P, t), False at padding.
        completions: (P, K, c, width).
        tokens: (P, K, c), PAD on the right.
    """

    prompts: Float[AnyArray, "p t width"]
    exists: Bool[AnyArray, "p t"]
    completions: Float[AnyArray, "p k c width"]
    tokens: Int[AnyArray, "p k c"]

    def picked(self, prompts: Int[AnyArray, " n"], columns: Int[AnyArray, "n m"]) -> TailCache:
        """m completions, by their `columns`, of each of n `prompts`, as a cache of n prompts; traceable."""
        some = (array[prompts[:, None], columns] for array in self[2:])
        return TailCache(self.prompts[prompts], self.exists[prompts], *some)

    def examples(self) -> TailCache:
        """The completions as (P K) caches of one, one after the other along the leading axis."""
        each = self.tokens.shape[1]
        read = (array.repeat(each, axis=0)[:, None] for array in self[:2])
        return TailCache(*read, *(array.reshape(-1, 1, 1, *array.shape[2:]) for array in self[2:]))


def head_cache(
    states: Float[AnyArray, "p k states width"], tokens: Int[AnyArray, "p k c"], *, dtype: Any = None
) -> HeadCache:
    """The cache of completions that were drawn or followed, whose states are at hand.

    Args:
        states: (P, K, c + 1, width) of `Drawn` or `Followed`.
        tokens: (P, K, c) of the same completions.
        dtype: to keep them in; None leaves them. In float16 they take half the room, and log-probabilities are off by
            up to 0.02 a completion: compare with references that are computed from the same cache.

    Returns:
        HeadCache.

    Raises:
        ValueError: shapes that do not fit.

    Source: derived; checked by tests/preference/llama/test_llama_policies.py.
    """
    states, tokens = checked_states(states, tokens)
    return HeadCache(np.ascontiguousarray(states[:, :, :-1], dtype or states.dtype), tokens)


def tail_cache(
    model: Llama,
    prompts: Int[AnyArray, "p t"],
    completions: Int[AnyArray, "p k c"],
    *,
    blocks: int,
    dtype: Any = None,
    rows: int = ROWS,
    callback: Callable[[int], Any] | None = None,
) -> TailCache:
    """The cache of completions for training, or features of, the last `blocks` blocks of a model.

    Args:
        model: the policy.
        prompts: (P, t) tokens, padded on the left with PAD.
        completions: (P, K, c) tokens, padded on the right with PAD.
        blocks: how many are not frozen, 1 to the model's depth.
        dtype: to keep streams in; None for the model's.
        rows, callback: as in `draw_completions`.

    Returns:
        TailCache, NumPy arrays.

    Raises:
        TypeError, ValueError: tokens that are none of the model's, shapes that do not fit, more blocks than there are.

    Source: derived; checked by tests/preference/llama/test_llama_policies.py.
    """
    blocks = checked_blocks(model, blocks)
    check_completions(completions, prompts, TokenLaw(), model.config)
    definition, parameters = nnx.split(model)
    arrays = np.asarray(prompts, np.int32), np.asarray(completions, np.int32)

    def some(batch):
        streams = _enter(definition, parameters, *batch, blocks=blocks)
        return jax.tree.map(lambda stream: stream.astype(dtype or stream.dtype), streams)

    read, written = in_batches(some, arrays, rows, completions.shape[1], callback)
    return TailCache(read, arrays[0] != PAD, written, arrays[1])


@partial(jax.jit, static_argnames=("definition", "blocks"))
def _enter(definition, parameters, prompts, completions, *, blocks):
    model = nnx.merge(definition, parameters)
    frozen = model.blocks[: model.config.depth - blocks]
    x, prefix = through_prompt(model.config, frozen, model.embed(prompts), prompts != PAD)
    return x, through_completions(model.config, frozen, model.embed(completions), prefix)[0]


def checked_blocks(model: Llama, blocks: int) -> int:
    """`blocks` as int; ValueError unless between 1 and the model's depth."""
    blocks = whole_number(blocks, "blocks", 1)
    if blocks > model.config.depth:
        raise ValueError(f"blocks={blocks}: the model has {model.config.depth}")
    return blocks
