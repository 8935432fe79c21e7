"""Features of completions from a policy: hidden states of its last layer, at the last token or averaged over tokens.

For a policy whose last layer is log-linear in its hidden state this is what grad log pi is made of, for one token; over
a whole completion it is a stand-in, cheaper than `gradients`. The last token is the choice of arXiv 2606.19607; the
mean over the completion keeps what stands in all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.preference.features.microbatches import checked_examples, gathered, map_examples, mesh_of, spread


def last_hidden_states(
    hidden: Callable[[Any, Array], Array],
    params: Any,
    tokens: Int[AnyArray, "n t"],
    lengths: Int[AnyArray, " n"],
    *,
    microbatch: int = 32,
    mesh: Mesh | None = None,
) -> Float[Array, "n d"]:
    """phi_n = hidden(params, tokens_n)[lengths_n - 1], the state at the last token that is no padding.

    Args:
        hidden: (params, tokens (T,)) -> (T, d), causal: what stands after a position has no influence on it. Compiled
            once per function object.
        params: pytree of the policy's parameters.
        tokens: (n, T) prompt and completion of each example, padded on the right with anything. What stands on the
            left, padding too, is for hidden to handle.
        lengths: (n,) columns up to and including the last token that is no padding, 1 to T.
        microbatch: examples in flight at a time on each device.
        mesh: spread the examples over all of its devices; None: that of tokens on one.

    Returns:
        (n, d) float32. States at padding, NaN included, do not reach it.

    Raises:
        TypeError: tokens or lengths no integers. ValueError: wrong shapes, lengths outside of 1 to T (not checked
            inside of jit), or hidden that does not return one row per token.

    Source: arXiv 2606.19607, which designs on such states; checked by
    tests/preference/features/test_hidden_features.py.
    """
    examples = _checked(tokens, lengths=lengths)
    return _spread_states(hidden, params, examples, _last, microbatch, mesh)


def mean_hidden_states(
    hidden: Callable[[Any, Array], Array],
    params: Any,
    tokens: Int[AnyArray, "n t"],
    starts: Int[AnyArray, " n"],
    lengths: Int[AnyArray, " n"],
    *,
    microbatch: int = 32,
    mesh: Mesh | None = None,
) -> Float[Array, "n d"]:
    """phi_n = mean over starts_n <= t < lengths_n of hidden(params, tokens_n)[t]: of the tokens of the completion.

    Args:
        hidden, params, tokens, lengths, microbatch, mesh: as in `last_hidden_states`.
        starts: (n,) column of the completion's first token, 0 to lengths - 1.

    Returns:
        (n, d) float32; sums are of float32. States outside of the completion, NaN included, do not reach it.

    Raises:
        TypeError: tokens, starts or lengths no integers. ValueError: wrong shapes, lengths outside of 1 to T or starts
            outside of 0 to lengths - 1 (not checked inside of jit), or hidden that does not return one row per token.

    Source: derived; checked by tests/preference/features/test_hidden_features.py.
    """
    examples = _checked(tokens, lengths=lengths, starts=starts)
    return _spread_states(hidden, params, examples, _mean, microbatch, mesh)


def _checked(tokens, **columns):
    """Tokens and columns of each example as arrays: lengths, and starts where there are any."""
    for name, value in {"tokens": tokens, **columns}.items():
        if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
            raise TypeError(f"{name}: dtype {jnp.result_type(value)} found; expected integers")
    if jnp.ndim(tokens) != 2:
        raise ValueError(f"tokens: shape {jnp.shape(tokens)} found; expected axes (examples n, positions T)")
    for name, value in columns.items():
        _checks.same_shape(jnp.shape(value), jnp.shape(tokens)[:1], name, "one per example")
    if not _arrays.is_traced(columns):
        known = {name: np.asarray(value) for name, value in columns.items()}
        lengths, starts = known["lengths"], known.get("starts", np.zeros(len(known["lengths"])))
        if bad := np.flatnonzero((lengths < 1) | (lengths > tokens.shape[1])).tolist():
            raise ValueError(
                f"lengths: {lengths[bad[0]]} at example {bad[0]}; must be between 1 and the {tokens.shape[1]} positions"
            )
        if bad := np.flatnonzero((starts < 0) | (starts >= lengths)).tolist():
            raise ValueError(
                f"starts: {starts[bad[0]]} at example {bad[0]}; must be at least 0 and below its length "
                f"{lengths[bad[0]]}"
            )
    return tuple(map(jnp.asarray, (tokens, *columns.values())))


def _spread_states(hidden, params, examples, reduce, microbatch, mesh):
    count = checked_examples(examples, microbatch)
    mesh = mesh or mesh_of(examples)
    params, examples = spread(params, examples, mesh)
    return gathered(_jitted_states(params, examples, hidden, reduce, min(int(microbatch), count), mesh), count, mesh)


def _last(states, length):
    return states[length - 1].astype(jnp.float32)


def _mean(states, length, start):
    place = jnp.arange(len(states))
    own = (place >= start) & (place < length)
    total = jnp.sum(jnp.where(own[:, None], states.astype(jnp.float32), 0), axis=0)
    return total / (length - start).astype(jnp.float32)


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _jitted_states(params, examples, hidden, reduce, microbatch, mesh):
    def one(params, example):
        tokens, *columns = example
        states = hidden(params, tokens)
        if states.ndim != 2 or states.shape[0] != tokens.shape[0]:
            raise ValueError(f"hidden: returned shape {states.shape} for {tokens.shape[0]} tokens; expected (T, d)")
        return reduce(states, *columns)

    return map_examples(one, params, examples, microbatch, mesh)
