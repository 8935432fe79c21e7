"""Policies on cached streams: as made they are the model; what is changed in them is what the whole model would do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdesign.preference.llama import (
    HeadEdit,
    Tail,
    TokenLaw,
    cached_log_probabilities,
    follow_completions,
    head_cache,
    tail_cache,
    with_adapters,
)
from tests.support.tiny_llama import log_probability_in_numpy, tensors, tiny_llama

pytestmark = pytest.mark.thorough

WEIGHTS, MODEL = tensors(0), tiny_llama(0)
PROMPTS = np.array([[-1, -1, 5, 6, 7], [9, 250, 11, 12, 1]], np.int32)
COMPLETIONS = np.array([[[5, 9, 3], [30, 31, 32], [8, 3, -1]], [[1, 2, 3], [4, 4, 4], [10, 11, -1]]], np.int32)
LAW = TokenLaw(outputs=40, banned=(0,), ends=(3,), temperature=3.0)


@pytest.fixture(scope="module")
def followed():
    return follow_completions(MODEL, PROMPTS, COMPLETIONS, LAW)


@pytest.fixture(scope="module")
def cache():
    return tail_cache(MODEL, PROMPTS, COMPLETIONS, blocks=1)


def in_numpy(weights):
    pairs = [(prompt, row) for prompt, some in zip(PROMPTS, COMPLETIONS, strict=True) for row in some]
    each = [log_probability_in_numpy(weights, p[p != -1], c[c != -1], LAW) for p, c in pairs]
    return np.reshape(each, (2, 3))


def test_an_edit_as_made_is_the_model(followed):
    policy = HeadEdit(MODEL, LAW, rank=2, rngs=nnx.Rngs(0))
    found = cached_log_probabilities(policy, head_cache(followed.states, COMPLETIONS))
    np.testing.assert_allclose(found, in_numpy(WEIGHTS), atol=3e-5)
    rough = cached_log_probabilities(policy, head_cache(followed.states, COMPLETIONS, dtype="float16"), rows=3)
    assert 0 < np.abs(rough - found).max() < 0.05


def test_an_edit_changes_the_states_that_the_head_reads(followed):
    policy = HeadEdit(MODEL, LAW, rank=2, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    policy.bias[...], policy.write[...] = (
        jnp.asarray(rng.normal(size=value.shape), jnp.float32) for value in (policy.bias, policy.write)
    )
    states = followed.states[:, :, :-1].astype(np.float64)
    edited = (
        states + np.asarray(policy.bias[...]) + states @ np.asarray(policy.read[...]) @ np.asarray(policy.write[...])
    )
    scaled = edited @ WEIGHTS["lm_head.weight"][:40].T.astype(np.float64) / LAW.temperature
    scaled[..., 0] = -np.inf
    law = scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    each = np.take_along_axis(law, np.maximum(COMPLETIONS, 0)[..., None], axis=-1)[..., 0]
    expected = np.where(COMPLETIONS >= 0, each, 0).sum(axis=-1)
    np.testing.assert_allclose(
        cached_log_probabilities(policy, head_cache(followed.states, COMPLETIONS)), expected, atol=3e-4
    )


def test_last_blocks_as_made_are_the_model(cache):
    for blocks in (1, 2):
        some = cache if blocks == 1 else tail_cache(MODEL, PROMPTS, COMPLETIONS, blocks=2, rows=3)
        found = cached_log_probabilities(Tail(MODEL, LAW, blocks=blocks), some)
        np.testing.assert_allclose(found, in_numpy(WEIGHTS), atol=3e-5)


def test_adapters_add_a_product_to_their_matrix(cache):
    tail = Tail(MODEL, LAW, blocks=1)
    policy = with_adapters(tail, rank=2, rngs=nnx.Rngs(0), layers=["query", "down"])
    np.testing.assert_allclose(cached_log_probabilities(policy, cache), in_numpy(WEIGHTS), atol=3e-5)
    rng, changed = np.random.default_rng(1), dict(WEIGHTS)
    for layer, name in (
        (policy.blocks[0].attention.query, "self_attn.q_proj"),
        (policy.blocks[0].down, "mlp.down_proj"),
    ):
        layer.adapter_out[...] = jnp.asarray(0.3 * rng.normal(size=layer.adapter_out.shape), jnp.float32)
        product = np.asarray(layer.adapter_in[...]) @ np.asarray(layer.adapter_out[...])
        changed[f"model.layers.1.{name}.weight"] = WEIGHTS[f"model.layers.1.{name}.weight"] + product.T
    expected = in_numpy(changed)
    assert np.abs(expected - in_numpy(WEIGHTS)).max() > 0.1
    np.testing.assert_allclose(cached_log_probabilities(policy, cache), expected, atol=1e-4)
    np.testing.assert_allclose(cached_log_probabilities(tail, cache), in_numpy(WEIGHTS), atol=3e-5)
    assert not isinstance(tail.blocks[0].down, type(policy.blocks[0].down))


def test_caches_are_picked_and_divided_by_completion(cache, followed):
    for some in (cache, head_cache(followed.states, COMPLETIONS)):
        picked = some.picked(np.array([1, 0, 1]), np.array([[2, 0], [1, 1], [0, 2]]))
        np.testing.assert_array_equal(picked.tokens, COMPLETIONS[[[1], [0], [1]], [[2, 0], [1, 1], [0, 2]]])
        examples = some.examples()
        assert {array.shape[0] for array in examples} == {6}
        np.testing.assert_array_equal(examples.tokens[:, 0, 0], COMPLETIONS.reshape(6, 3))
    picked, examples = cache.picked(np.array([1]), np.array([[2]])), cache.examples()
    for one, same in zip(jax.tree.map(lambda array: array[5], examples), picked, strict=True):
        np.testing.assert_array_equal(one, same)


def test_what_does_not_fit_is_named(cache, followed):
    with pytest.raises(TypeError, match="expected a HeadCache for a HeadEdit, found TailCache"):
        cached_log_probabilities(HeadEdit(MODEL, LAW, rank=1, rngs=nnx.Rngs(0)), cache)
    with pytest.raises(TypeError, match="expected a HeadEdit or a Tail, found Llama"):
        cached_log_probabilities(MODEL, cache)
    with pytest.raises(ValueError, match="blocks=3: the model has 2"):
        Tail(MODEL, LAW, blocks=3)
    with pytest.raises(ValueError, match=r"states: shape .* expected \(P, K, c \+ 1, width\)"):
        head_cache(followed.states, COMPLETIONS[:, :, :2])
    with pytest.raises(ValueError, match=r"layers: \['head'\] found; allowed are query"):
        with_adapters(Tail(MODEL, LAW, blocks=1), rank=1, rngs=nnx.Rngs(0), layers=["head"])
    with pytest.raises(TypeError, match="must be a list of names"):
        with_adapters(Tail(MODEL, LAW, blocks=1), rank=1, rngs=nnx.Rngs(0), layers="query")
