"""Completions drawn from a policy: K for each prompt, compiled once, with a cache of keys and values."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxdesign._arrays import AnyArray, map_chunks
from jaxdesign._checks import positive_finite
from jaxdesign.preference.small_model.language_model import LanguageModel, check_columns, check_tokens
from jaxdesign.preference.small_model.tokens import END

ROWS = 2_048  # sequences decoded side by side: bounds the memory of the cache, and fills a matrix product


class Samples(NamedTuple):
    """K completions of each of P prompts.

    Args:
        tokens: (P, K, c) int32, ending with END unless cut off, padded on the right.
        lengths: (P, K) tokens of each, END included.
        log_probability: (P, K) float32, of the policy itself, nats.
        tempered_log_probability: (P, K) of the law the tokens were drawn from (equal at temperature 1).
    """

    tokens: Int[Array, "p k c"]
    lengths: Int[Array, "p k"]
    log_probability: Float[Array, "p k"]
    tempered_log_probability: Float[Array, "p k"]


class _Decoding(NamedTuple):
    step: Array
    ended: Array
    logits: Array
    cache: tuple
    tokens: Array
    own: Array
    tempered: Array


def sample_completions(
    model: LanguageModel,
    prompts: Int[AnyArray, "p columns"],
    key: Array,
    *,
    completions: int,
    length: int,
    temperature: float = 1.0,
) -> Samples:
    """Draw K independent completions of every prompt: each token with probability proportional to exp(logit / T).

    Args:
        model: the policy.
        prompts: (P, columns) tokens, padded on the left; prompts of different lengths in one array.
        key: JAX random key, used for nothing else. What is drawn for a prompt depends on it and the prompt's row alone,
            not on how many prompts there are or how they are cut into chunks, up to rounding.
        completions: K.
        length: columns of a completion, END included; one that has not ended by then is cut off.
        temperature: T, at least 1e-30.

    Returns:
        Samples: tokens (P, K, length) int32, lengths (P, K), log-probabilities (P, K) float32 at temperature 1 and T.

    Raises:
        TypeError, ValueError: a temperature, K or length that is not positive; no prompts, or tokens that are none of
            the model's; more columns than its positions.

    Numerics: log-probabilities equal `sequence_log_probability` up to float32 rounding, about 1e-6 per token.
    Complexity: one pass over each prompt, then one token of all K completions a step until all have ended; the cache
        holds 2 depth width floats a column for `ROWS` sequences.

    Source: derived; checked by tests/preference/small_model/test_policy_sampling.py.
    """
    temperature = positive_finite(temperature, "temperature", "what logits are divided by")
    if temperature < 1e-30:
        raise ValueError(f"temperature={temperature:g}: below 1e-30, which float32 cannot divide by; 1e-30 is greedy")
    for name, value in (("completions", completions), ("length", length)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name}={value!r}: must be an integer of at least 1")
    prompts = jnp.asarray(prompts)
    if prompts.ndim != 2:
        raise ValueError(f"prompts: shape {prompts.shape} found; expected (prompts, columns)")
    check_tokens(model.config, prompts, "prompts")
    check_columns(model.config, prompts.shape[1], length)
    if not jnp.issubdtype(jnp.asarray(key).dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(jnp.asarray(key))  # a raw uint32 key
    definition, parameters = nnx.split(model)
    return _sample(definition, parameters, prompts, key, jnp.float32(temperature), int(completions), int(length))


@partial(jax.jit, static_argnames=("definition", "completions", "length"))
def _sample(definition, parameters, prompts, key, temperature, completions, length):
    model = nnx.merge(definition, parameters)

    def some(chunk):
        rows, indices = chunk
        keys = jax.vmap(lambda p: jax.random.split(jax.random.fold_in(key, p), completions))(indices)
        return _decode(model, rows, keys.reshape(-1), temperature, completions, length)

    size = prompts.shape[0]
    chunks = -(-size * completions // ROWS)
    return map_chunks(some, (prompts, jnp.arange(size)), -(-size // max(chunks, 1)))


def _decode(model, prompts, keys, temperature, completions, length):
    """Samples of one chunk; keys (prompts * completions,), one per sequence."""
    columns = prompts.shape[1]
    logits, cache = model.prefill(prompts, columns + length)
    logits, cache = jax.tree.map(lambda array: jnp.repeat(array, completions, axis=0), (logits, cache))
    rows = keys.shape[0]

    def more(state):
        return (state.step < length) & ~jnp.all(state.ended)

    def draw(state):
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, state.step)
        law = jax.nn.log_softmax(state.logits, axis=-1)
        below = state.logits - jnp.max(state.logits, axis=-1, keepdims=True)  # the largest stays 0 at any T
        tempered_law = jax.nn.log_softmax(below / temperature, axis=-1)
        drawn = jax.vmap(jax.random.categorical)(step_keys, tempered_law).astype(jnp.int32)

        def of(values):
            return jnp.where(state.ended, 0.0, jnp.take_along_axis(values, drawn[:, None], axis=1)[:, 0])

        token = jnp.where(state.ended, model.config.pad, drawn)
        logits, cache = model.extend(token, state.cache, columns + state.step)
        return _Decoding(
            state.step + 1,
            state.ended | (token == END),
            logits,
            cache,
            state.tokens.at[:, state.step].set(token),
            state.own + of(law),
            state.tempered + of(tempered_law),
        )

    zeros = jnp.zeros(rows)
    start = _Decoding(
        jnp.int32(0),
        jnp.zeros(rows, bool),
        logits,
        cache,
        jnp.full((rows, length), model.config.pad, jnp.int32),
        zeros,
        zeros,
    )
    end = jax.lax.while_loop(more, draw, start)
    lengths = jnp.sum(end.tokens != model.config.pad, axis=1)
    shaped = (x.reshape(-1, completions, *x.shape[1:]) for x in (end.tokens, lengths, end.own, end.tempered))
    return Samples(*shaped)
