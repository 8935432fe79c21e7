"""Features of completions from the states that a Llama had in them: the last one, and their mean.

Gradients by what is trained come from `jaxdesign.preference.features`: `projected_gradients(function, params,
cache.examples(), parameters=["write"], ...)` with `function, params = split_model(policy, example_log_probability)`,
split once, because a new function is compiled anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxdesign._arrays import AnyArray
from jaxdesign.preference.llama.model import PAD


def mean_states(
    states: Float[AnyArray, "p k states width"], tokens: Int[AnyArray, "p k c"]
) -> Float[np.ndarray, "p k width"]:
    """phi = mean of the states at the tokens of a completion, its end included.

    On SmolLM2's completions of 20 tokens a linear reward on it explains three to five times the variance that one on
    the last state explains.

    Args:
        states: (P, K, c + 1, width) of `Drawn` or `Followed`.
        tokens: (P, K, c) of the same completions.

    Returns:
        (P, K, width) float32; of a completion without tokens the state at the end of its prompt.

    Raises:
        ValueError: shapes that do not fit.

    Source: derived; checked by tests/preference/llama/test_llama_features.py.
    """
    states, tokens = checked_states(states, tokens)
    exists = tokens != PAD
    lengths = exists.sum(axis=2)[..., None]
    # one product instead of a copy of all states in float32
    total = np.einsum("pkcw,pkc->pkw", states[:, :, 1:], exists, dtype=np.float32, casting="unsafe")
    return np.where(lengths > 0, total / np.maximum(lengths, 1), states[:, :, 0]).astype(np.float32)


def last_states(
    states: Float[AnyArray, "p k states width"], tokens: Int[AnyArray, "p k c"]
) -> Float[np.ndarray, "p k width"]:
    """phi = the state at the last token of a completion, its end included.

    Args:
        states, tokens: as in `mean_states`.

    Returns:
        (P, K, width) float32; of a completion without tokens the state at the end of its prompt.

    Raises:
        ValueError: shapes that do not fit.

    Source: arXiv 2606.19607, which designs on such states; checked by tests/preference/llama/test_llama_features.py.
    """
    states, tokens = checked_states(states, tokens)
    last = np.sum(tokens != PAD, axis=2)[..., None, None]
    return np.take_along_axis(states, last, axis=2)[:, :, 0].astype(np.float32)


def checked_states(states: Any, tokens: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as NumPy arrays; ValueError where they are not of the same completions."""
    states, tokens = np.asarray(states), np.asarray(tokens)
    if states.ndim != 4 or states.shape[:3] != (*tokens.shape[:2], tokens.shape[2] + 1):
        raise ValueError(
            f"states: shape {states.shape} found with tokens {tokens.shape}; "
            "expected (P, K, c + 1, width) with (P, K, c), as of Drawn"
        )
    return states, tokens
