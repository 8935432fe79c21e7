"""Completions drawn from a Llama: K of each prompt, which is read once; and states and log-probabilities of any."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxdesign._arrays import AnyArray
from jaxdesign._checks import whole_number
from jaxdesign.preference.llama.law import TokenLaw, check_completions, check_law, check_prompts
from jaxdesign.preference.llama.model import PAD, Llama

ROWS = 256  # completions side by side: fills a matrix product, and bounds what a batch holds


class Drawn(NamedTuple):
    """K completions of each of P prompts, with what the model saw in them.

    Args:
        tokens: (P, K, c) int32, PAD after an end.
        log_probability: (P, K) float32, under the law they were drawn from, nats.
        states: (P, K, c + 1, width) in the model's dtype, after the last norm: at the prompt's last token, then at each
            token of the completion. Those at PAD mean nothing.
    """

    tokens: Int[AnyArray, "p k c"]
    log_probability: Float[AnyArray, "p k"]
    states: Float[AnyArray, "p k states width"]


class Followed(NamedTuple):
    """Given completions as the model sees them: fields as of `Drawn`.

    Args:
        log_probability: (P, K) float32, nats.
        states: (P, K, c + 1, width).
    """

    log_probability: Float[AnyArray, "p k"]
    states: Float[AnyArray, "p k states width"]


def draw_completions(
    model: Llama,
    prompts: Int[AnyArray, "p t"],
    key: Array,
    law: TokenLaw,
    *,
    completions: int,
    length: int,
    rows: int = ROWS,
    callback: Callable[[int], Any] | None = None,
) -> Drawn:
    """Draw K completions of every prompt, independently, each token from the law.

    Args:
        model: the policy.
        prompts: (P, t) tokens, padded on the left with PAD (`LlamaTokeniser.encode_prompts`).
        key: JAX random key, used for nothing else. What is drawn for a prompt depends on it and the prompt's row alone,
            not on how prompts are cut into batches, up to rounding.
        law: what tokens are drawn from.
        completions: K.
        length: c, tokens of a completion, its end included; one that has not ended by then is cut off.
        rows: completions drawn side by side, in whole prompts; all batches run one compiled program.
        callback: called with the number of prompts done after every batch.

    Returns:
        Drawn, NumPy arrays.

    Raises:
        TypeError, ValueError: K, length or rows no integer of at least 1; tokens or a law that are none of the model's;
            padding on the right; prompts too long for the model.

    Numerics: log-probabilities equal those of `follow_completions` up to rounding, about 1e-5 a token in float32.
    Complexity: one pass over each prompt, then c steps of one token for all completions of a batch, which share the
        keys and values of their prompt: 2 depth kv_heads head_size (t + K c) numbers a prompt.

    Source: derived; checked by tests/preference/llama/test_llama_sampling.py.
    """
    completions, length = whole_number(completions, "completions", 1), whole_number(length, "length", 1)
    check_law(law, model.config)
    check_prompts(prompts, model.config, length)
    if not jnp.issubdtype(jnp.asarray(key).dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(jnp.asarray(key))  # a raw uint32 key
    definition, parameters = nnx.split(model)
    arrays = np.asarray(prompts, np.int32), np.arange(len(prompts), dtype=np.int32)
    options = {"law": law, "completions": completions, "length": length}
    return in_batches(
        lambda some: _draw(definition, parameters, key, *some, **options), arrays, rows, completions, callback
    )


def follow_completions(
    model: Llama,
    prompts: Int[AnyArray, "p t"],
    completions: Int[AnyArray, "p k c"],
    law: TokenLaw,
    *,
    rows: int = ROWS,
    callback: Callable[[int], Any] | None = None,
) -> Followed:
    """log pi(y | x) of given completions under a law, and the states the model has in them; prompts are read once.

    Args:
        model: the policy.
        prompts: (P, t) tokens, padded on the left with PAD.
        completions: (P, K, c) tokens, padded on the right with PAD.
        law: whose probabilities are meant.
        rows, callback: as in `draw_completions`.

    Returns:
        Followed, NumPy arrays. A completion without an end counts as cut off there.

    Raises:
        TypeError, ValueError: as `draw_completions`; completions of other shapes, with tokens that the law bans.

    Source: derived; checked by tests/preference/llama/test_llama_sampling.py.
    """
    check_completions(completions, prompts, law, model.config)
    definition, parameters = nnx.split(model)
    arrays = np.asarray(prompts, np.int32), np.asarray(completions, np.int32)
    return in_batches(
        lambda some: _follow(definition, parameters, *some, law=law), arrays, rows, completions.shape[1], callback
    )


def in_batches(
    function: Callable, arrays: tuple, rows: int, each: int, callback: Callable[[int], Any] | None = None
) -> Any:
    """function of prompts' arrays, as many at a time as make `rows` completions; results end to end on the host.

    Every batch has the same shape, so that one program serves all: the last begins early enough to be full.
    """
    size = len(arrays[0])
    batch = min(size, max(1, whole_number(rows, "rows", 1) // each))
    parts = []
    for first in range(0, size, batch):
        start = min(first, size - batch)
        out = jax.device_get(function(tuple(array[start : start + batch] for array in arrays)))
        parts.append(jax.tree.map(lambda part, skip=first - start: part[skip:], out))
        if callback is not None:
            callback(min(first + batch, size))
    return jax.tree.map(lambda *every: np.concatenate(every), *parts)


def followed(model: Llama, prompts: Int[Array, "p t"], completions: Int[Array, "p k c"]) -> Array:
    """(P, K, c + 1, width): the states at the prompts' last tokens and at the completions' own; traceable."""
    last, prefix = model.prompt_stream(prompts)
    own = model.completion_stream(completions, prefix)
    first = jnp.broadcast_to(last[:, None, -1:], (*own.shape[:2], 1, own.shape[3]))
    return jnp.concatenate([first, own], axis=2)


@partial(jax.jit, static_argnames=("definition", "law"))
def _follow(definition, parameters, prompts, completions, *, law):
    model = nnx.merge(definition, parameters)
    states = followed(model, prompts, completions)
    each = law.token_log_probabilities(states[:, :, :-1], completions, model.head_rows(law.outputs))
    return Followed(jnp.sum(each, axis=-1), states)


class _Drawing(NamedTuple):
    ended: Array
    hidden: Array
    cache: Any
    total: Array


@partial(jax.jit, static_argnames=("definition", "law", "completions", "length"))
def _draw(definition, parameters, key, prompts, numbers, *, law, completions, length):
    model = nnx.merge(definition, parameters)
    head = model.head_rows(law.outputs)
    last, prefix = model.prompt_stream(prompts)
    hidden = jnp.broadcast_to(last[:, None, -1], (len(prompts), completions, last.shape[-1]))
    keys = jax.vmap(lambda number: jax.random.split(jax.random.fold_in(key, number), completions))(numbers)

    def step(state, column):
        step_keys = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (0, None))(keys, column)
        log_law = law.log_law(model.logits(state.hidden, head))
        drawn = jax.vmap(jax.vmap(jax.random.categorical))(step_keys, log_law).astype(jnp.int32)
        own = jnp.take_along_axis(log_law, drawn[..., None], axis=-1)[..., 0]
        token = jnp.where(state.ended, PAD, drawn)
        hidden, cache = model.extend(token, prefix, state.cache, column)
        ended = state.ended | law.is_end(token)
        total = state.total + jnp.where(state.ended, 0.0, own)
        return _Drawing(ended, hidden, cache, total), (token, hidden)

    none = jnp.zeros(hidden.shape[:2], bool)
    start = _Drawing(none, hidden, model.empty_cache(prefix, completions, length), jnp.zeros(none.shape))
    end, (tokens, states) = jax.lax.scan(step, start, jnp.arange(length))
    states = jnp.concatenate([hidden[None], states])
    return Drawn(jnp.moveaxis(tokens, 0, -1), end.total, jnp.moveaxis(states, 0, 2))
