"""Features of a Llama's completions: states as written out, gradients as differences of log-probabilities."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdesign.preference import gradient_rows, split_model
from jaxdesign.preference.llama import (
    HeadEdit,
    Tail,
    TokenLaw,
    cached_log_probabilities,
    example_log_probability,
    follow_completions,
    head_cache,
    last_states,
    mean_states,
    tail_cache,
    with_adapters,
)
from tests.support.tiny_llama import tiny_llama

MODEL = tiny_llama(0)
PROMPTS = np.array([[-1, -1, 5, 6, 7], [9, 250, 11, 12, 1]], np.int32)
COMPLETIONS = np.array([[[5, 9, 3], [8, 3, -1]], [[1, 2, 3], [10, -1, -1]]], np.int32)
LAW = TokenLaw(outputs=40, temperature=3.0)


@pytest.fixture(scope="module")
def states():
    return follow_completions(MODEL, PROMPTS, COMPLETIONS, LAW).states


@pytest.mark.parametrize("dtype", ["float32", "float16", jnp.bfloat16])
def test_states_of_completions(dtype):
    rng = np.random.default_rng(0)
    states = rng.normal(size=(2, 3, 4, 5)).astype(dtype)
    tokens = np.array([[[1, 2, 3], [1, 2, -1], [-1, -1, -1]]] * 2)
    wide = states.astype(np.float32)
    mean, last = mean_states(states, tokens), last_states(states, tokens)
    assert mean.dtype == last.dtype == np.float32
    for p in range(2):
        np.testing.assert_allclose(mean[p, 0], wide[p, 0, 1:].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(mean[p, 1], wide[p, 1, 1:3].mean(axis=0), atol=1e-6)
        np.testing.assert_array_equal(mean[p, 2], wide[p, 2, 0])
        np.testing.assert_array_equal(last[p], wide[p, [0, 1, 2], [3, 2, 0]])
    with pytest.raises(ValueError, match=r"states: shape \(2, 3, 3, 5\) found"):
        mean_states(states[:, :, 1:], tokens)


def differences(policy, cache, variable, directions, step=1e-2):
    """Central differences of log pi of every completion along directions of one variable, (n, directions)."""
    out, start = [], variable[...]
    for direction in directions:
        ends = []
        for sign in (1, -1):
            variable[...] = start + sign * step * direction
            ends.append(cached_log_probabilities(policy, cache).ravel().astype(np.float64))
        out.append((ends[0] - ends[1]) / (2 * step))
    variable[...] = start
    return np.stack(out, axis=1)


@pytest.mark.thorough
def test_gradients_by_the_bias_and_the_edit_are_those_of_log_probabilities(states):
    policy = HeadEdit(MODEL, LAW, rank=2, rngs=nnx.Rngs(0))
    cache = head_cache(states, COMPLETIONS)
    function, params = split_model(policy, example_log_probability)
    rng = np.random.default_rng(0)
    for name in ("bias", "write"):
        variable = getattr(policy, name)
        directions = rng.normal(size=(3, *variable.shape)).astype(np.float32)
        rows = gradient_rows(function, params, cache.examples(), parameters=[name])
        expected = differences(policy, cache, variable, directions)
        np.testing.assert_allclose(rows @ directions.reshape(3, -1).T, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.thorough
def test_gradients_by_adapters_of_the_last_block():
    tail = with_adapters(Tail(MODEL, LAW, blocks=1), rank=2, rngs=nnx.Rngs(0), layers=["query", "value"])
    cache = tail_cache(MODEL, PROMPTS, COMPLETIONS, blocks=1)
    function, params = split_model(tail, example_log_probability)
    rows = gradient_rows(function, params, cache.examples(), parameters=["*/value/adapter_out"])
    variable = tail.blocks[0].attention.value.adapter_out
    directions = np.random.default_rng(0).normal(size=(3, *variable.shape)).astype(np.float32)
    expected = differences(tail, cache, variable, directions)
    np.testing.assert_allclose(rows @ directions.reshape(3, -1).T, expected, atol=2e-3 * np.abs(expected).max())
