"""Pools of features of the small language model's completions: where its arrays and the generic extractors meet."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxdesign import _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.features.gradients import Selection, projected_gradients
from jaxdesign.preference.features.hidden_states import last_hidden_states, mean_hidden_states
from jaxdesign.preference.features.nnx_policy import split_model
from jaxdesign.preference.small_model.language_model import LanguageModel, sequence_log_probability


class Completed(NamedTuple):
    """A completion beside its prompt; one example, or a leading axis of them."""

    prompt: Int[Array, "*n p"]  # padded on the left
    completion: Int[Array, "*n c"]  # padded on the right


def gradient_pool(
    model: LanguageModel,
    prompts: Int[AnyArray, "p t"],
    completions: Int[AnyArray, "p k c"],
    *,
    dimension: int,
    key: Key[Array, ""],
    parameters: Selection = None,
    scores: Float[AnyArray, "*r p k"] | None = None,
    mask: Any = None,
    microbatch: int = 32,
) -> CompletionPool:
    """The pool whose features are projected gradients of log pi(y | x): see `gradients.projected_gradients`.

    Args:
        model: the policy.
        prompts: (P, t) tokens, padded on the left.
        completions: (P, K, c) tokens, padded on the right.
        dimension, key, parameters, microbatch: as in `projected_gradients`.
        scores, mask: as in `CompletionPool`.

    Returns:
        A pool with features (P, K, dimension) float32.

    Raises:
        ValueError, TypeError: as in `projected_gradients` and `CompletionPool`, or arrays that do not fit together.

    Source: arXiv 2606.19607 (features of a log-linear policy); checked by
    tests/preference/features/test_model_features.py.
    """
    examples = completed(prompts, completions)
    function, params = split_model(model, _log_probability)
    rows = projected_gradients(
        function, params, examples, dimension=dimension, key=key, parameters=parameters, microbatch=microbatch
    )
    return CompletionPool(rows.reshape(*completions.shape[:2], -1), scores=scores, mask=mask)


def hidden_pool(
    model: LanguageModel,
    prompts: Int[AnyArray, "p t"],
    completions: Int[AnyArray, "p k c"],
    *,
    scores: Float[AnyArray, "*r p k"] | None = None,
    mask: Any = None,
    microbatch: int = 32,
) -> CompletionPool:
    """The pool whose features are the last hidden states at the last token of each completion, END included.

    Args:
        model, prompts, completions, scores, mask, microbatch: as in `gradient_pool`.

    Returns:
        A pool with features (P, K, width) float32. An empty completion has the state at the end of its prompt.

    Raises:
        ValueError, TypeError: as in `last_hidden_states` and `CompletionPool`, or arrays that do not fit together.

    Source: arXiv 2606.19607, which designs on such states; checked by tests/preference/features/test_model_features.py.
    """
    tokens, _, lengths = _columns(model, prompts, completions)
    function, params = split_model(model, _hidden)
    rows = last_hidden_states(function, params, tokens, lengths, microbatch=microbatch)
    return CompletionPool(rows.reshape(*completions.shape[:2], -1), scores=scores, mask=mask)


def mean_hidden_pool(
    model: LanguageModel,
    prompts: Int[AnyArray, "p t"],
    completions: Int[AnyArray, "p k c"],
    *,
    scores: Float[AnyArray, "*r p k"] | None = None,
    mask: Any = None,
    microbatch: int = 32,
) -> CompletionPool:
    """The pool whose features are last-layer hidden states averaged over the tokens of each completion, END included.

    Args:
        model, prompts, completions, scores, mask, microbatch: as in `gradient_pool`.

    Returns:
        A pool with features (P, K, width) float32. An empty completion has the state at the end of its prompt.

    Raises:
        ValueError, TypeError: as in `mean_hidden_states` and `CompletionPool`, or arrays that do not fit together.

    Source: derived; checked by tests/preference/features/test_model_features.py.
    """
    tokens, starts, lengths = _columns(model, prompts, completions)
    function, params = split_model(model, _hidden)
    rows = mean_hidden_states(function, params, tokens, starts, lengths, microbatch=microbatch)
    return CompletionPool(rows.reshape(*completions.shape[:2], -1), scores=scores, mask=mask)


def _columns(model, prompts, completions):
    """Tokens of each example, and where its completion starts and ends; the prompt's last column if it is empty."""
    examples = completed(prompts, completions)
    columns = jnp.arange(1, examples.completion.shape[1] + 1)
    own = jnp.max(jnp.where(examples.completion != model.config.pad, columns, 0), axis=1)
    before = examples.prompt.shape[1]
    return jnp.concatenate(examples, axis=1), before - (own == 0).astype(own.dtype), before + own


def completed(prompts: Int[AnyArray, "p t"], completions: Int[AnyArray, "p k c"]) -> Completed:
    """(P K) examples, each completion beside its prompt, in the order of `features.reshape(P K, d)`."""
    if jnp.ndim(completions) != 3:
        raise ValueError(f"completions: shape {jnp.shape(completions)} found; expected (prompts P, K, columns)")
    if jnp.ndim(prompts) != 2:
        raise ValueError(f"prompts: shape {jnp.shape(prompts)} found; expected (prompts P, columns)")
    count, each, columns = jnp.shape(completions)
    _checks.same_shape(jnp.shape(prompts)[:1], (count,), "prompts", "one per row of completions")
    repeated = jnp.repeat(jnp.asarray(prompts), each, axis=0)
    return Completed(repeated, jnp.asarray(completions).reshape(count * each, columns))


def _log_probability(model, example):
    return sequence_log_probability(model, example.prompt[None], example.completion[None])[0]


def _hidden(model, tokens):
    return model(tokens[None]).hidden[0]
