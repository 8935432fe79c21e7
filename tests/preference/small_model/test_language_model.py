"""The transformer policy: probabilities that sum to one, and what must not change them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdesign.preference.small_model.dpo_training import compiled_log_probability
from jaxdesign.preference.small_model.language_model import (
    LanguageModel,
    LanguageModelConfig,
    sequence_log_probability,
    token_log_probabilities,
)
from tests.support.small_policy import every_completion, perturbed, tiny_model

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("tied", [True, False])
def test_probabilities_of_all_completions_sum_to_one(tied):
    model, tokeniser = tiny_model(tied=tied)
    completions = every_completion(tokeniser, 4)
    for prompt in ("a", "bab"):
        prompts = np.repeat(tokeniser.encode_prompts([prompt], 5), len(completions), axis=0)
        law = np.exp(np.asarray(compiled_log_probability(model, prompts, completions), np.float64))
        assert law.sum() == pytest.approx(1, abs=2e-6)
        assert law.max() > 3 * law.mean()  # the check would be weak for an even law


def test_the_prompt_matters():
    model, tokeniser = tiny_model()
    completions = tokeniser.encode_completions(["ab", "ab"], 4)
    found = compiled_log_probability(model, tokeniser.encode_prompts(["aa", "ba"], 4), completions)
    assert abs(found[0] - found[1]) > 1e-2


def test_padding_changes_nothing():
    model, tokeniser = tiny_model()
    prompts, completions = ["a", "bab", ""], ["ab", "", "babb"]
    found = [
        np.asarray(
            compiled_log_probability(
                model, tokeniser.encode_prompts(prompts, p), tokeniser.encode_completions(completions, c)
            )
        )
        for p, c in ((4, 5), (9, 5), (4, 12))
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-5)


def test_other_rows_change_nothing():
    model, tokeniser = tiny_model()
    prompts = tokeniser.encode_prompts(["a", "bab", "b", "ab"], 4)
    completions = tokeniser.encode_completions(["ab", "", "babb", "a"], 6)
    together = compiled_log_probability(model, prompts, completions)
    alone = [compiled_log_probability(model, prompts[k : k + 1], completions[k : k + 1])[0] for k in range(4)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_future_is_not_seen():
    """Log-probabilities of tokens do not depend on the tokens after them."""
    model, tokeniser = tiny_model()
    prompts = jnp.array(tokeniser.encode_prompts(["ab", "ab"], 4))
    completions = jnp.array(tokeniser.encode_completions(["abaa", "abbb"], 6))
    each = nnx.jit(token_log_probabilities)(model, prompts, completions)
    np.testing.assert_allclose(each[0, :2], each[1, :2], atol=1e-6)
    assert abs(each[0, 3] - each[1, 3]) > 1e-3


def test_padding_has_no_gradient():
    """The embedding of padding is never seen, so nothing may flow into it."""
    model, tokeniser = tiny_model()
    definition, parameters = nnx.split(model)
    prompts, completions = tokeniser.encode_prompts(["a", "ba"], 6), tokeniser.encode_completions(["ab", "b"], 6)

    def total(values):
        model = nnx.merge(definition, values)
        return sequence_log_probability(model, jnp.array(prompts), jnp.array(completions)).sum()

    slope = jax.jit(jax.grad(total))(parameters)
    embedding = np.asarray(slope["embedding"]["embedding"][...])
    assert np.isfinite(embedding).all()
    assert np.abs(embedding[tokeniser.pad]).max() == 0
    assert np.abs(embedding[tokeniser.begin]).max() > 1e-3


def test_chunks_change_nothing(monkeypatch):
    from jaxdesign.preference.small_model import dpo_training

    model, tokeniser = tiny_model(seed=1)
    completions = every_completion(tokeniser, 3)
    prompts = np.repeat(tokeniser.encode_prompts(["ab"], 3), len(completions), axis=0)
    whole = compiled_log_probability(model, prompts, completions)
    monkeypatch.setattr(dpo_training, "ROWS", 4)
    in_chunks = dpo_training.compiled_log_probability(model, np.tile(prompts, (2, 1)), np.tile(completions, (2, 1)))
    np.testing.assert_allclose(in_chunks, np.tile(whole, 2), atol=1e-5)


def test_the_default_size_is_about_a_tenth_of_a_million():
    model = nnx.eval_shape(lambda: LanguageModel(LanguageModelConfig(32), rngs=nnx.Rngs(0)))
    size = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model)))
    assert 1e5 <= size <= 2e6


def test_noise_in_parameters_changes_probabilities():
    model, tokeniser = tiny_model()
    prompts, completions = tokeniser.encode_prompts(["a"], 3), tokeniser.encode_completions(["ab"], 3)
    before, after = (compiled_log_probability(m, prompts, completions)[0] for m in (model, perturbed(model, 0)))
    assert abs(before - after) > 1e-4


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"width": 15}, ValueError, "heads=2: must divide width=15"),
        ({"depth": 0}, ValueError, "depth=0: must be at least 1"),
        ({"heads": 1.0}, TypeError, "heads: expected an integer, found float"),
    ],
)
def test_bad_shapes_are_named(change, error, words):
    with pytest.raises(error, match=words):
        LanguageModelConfig(**({"characters": 2, "width": 16, "depth": 1, "heads": 2} | change))


def test_bad_arrays_are_named():
    model, tokeniser = tiny_model()
    prompts, completions = tokeniser.encode_prompts(["a"], 20), tokeniser.encode_completions(["a"], 5)
    with pytest.raises(ValueError, match="20 columns of prompts and 5 of completions found; the model has 24"):
        sequence_log_probability(model, prompts, completions)
    with pytest.raises(ValueError, match="one prompt per completion"):
        sequence_log_probability(model, prompts, completions[None])
    with pytest.raises(TypeError, match="config: expected a LanguageModelConfig, found int"):
        LanguageModel(3, rngs=nnx.Rngs(0))
