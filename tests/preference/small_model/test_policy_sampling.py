"""Completions drawn from the transformer policy: their law, their log-probabilities, and what they depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdesign.preference.small_model import sampling
from jaxdesign.preference.small_model.dpo_training import compiled_log_probability
from jaxdesign.preference.small_model.language_model import token_logits
from jaxdesign.preference.small_model.sampling import sample_completions
from jaxdesign.preference.small_model.tokens import END
from tests.support.small_policy import every_completion, tiny_model

pytestmark = pytest.mark.slow

MODEL, TOKENISER = tiny_model("abc", seed=2)
PROMPTS = TOKENISER.encode_prompts(["a", "bab", "", "cc", "b"], 5)
LENGTH = 6
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def samples():
    return sample_completions(MODEL, PROMPTS, jax.random.key(3), completions=7, length=LENGTH, temperature=TEMPERATURE)


def flat(samples):
    """Prompts repeated for each completion, and completions."""
    tokens = np.asarray(samples.tokens)
    return np.repeat(PROMPTS[: len(tokens)], tokens.shape[1], axis=0), tokens.reshape(-1, LENGTH)


def test_log_probabilities_are_those_of_the_forward_pass(samples):
    expected = compiled_log_probability(MODEL, *flat(samples))
    np.testing.assert_allclose(samples.log_probability.reshape(-1), expected, atol=2e-5)


def test_tempered_log_probabilities_are_those_of_divided_logits(samples):
    prompts, completions = flat(samples)
    logits = nnx.jit(token_logits)(MODEL, jnp.array(prompts), jnp.array(completions))
    law = jax.nn.log_softmax(logits / TEMPERATURE, axis=-1)
    exists = completions != TOKENISER.pad
    each = np.take_along_axis(np.asarray(law), np.where(exists, completions, 0)[..., None], axis=-1)[..., 0]
    expected = np.where(exists, each, 0).sum(axis=1)
    np.testing.assert_allclose(samples.tempered_log_probability.reshape(-1), expected, atol=2e-5)
    assert np.abs(samples.tempered_log_probability - samples.log_probability).max() > 0.1


def test_completions_end_and_are_padded(samples):
    tokens, lengths = np.asarray(samples.tokens), np.asarray(samples.lengths)
    assert tokens.shape == (5, 7, LENGTH) and lengths.shape == (5, 7)
    assert len(np.unique(lengths)) > 2
    for row, length in zip(tokens.reshape(-1, LENGTH), lengths.reshape(-1), strict=True):
        assert (row[length:] == TOKENISER.pad).all()
        assert (row[: length - 1] >= 1).all() and (row[:length] <= TOKENISER.characters).all()
        assert row[length - 1] == END or length == LENGTH


def test_completions_depend_on_their_prompt_and_key_alone(samples, monkeypatch):
    options = {"completions": 7, "length": LENGTH, "temperature": TEMPERATURE}
    fewer = sample_completions(MODEL, PROMPTS[:2], jax.random.key(3), **options)
    np.testing.assert_array_equal(fewer.tokens, samples.tokens[:2])
    monkeypatch.setattr(sampling, "ROWS", 16)
    six = np.concatenate([PROMPTS, PROMPTS[:1]])  # a shape of its own, so that it is compiled with the new chunks
    chunked = sample_completions(MODEL, six, jax.random.key(3), **options)
    np.testing.assert_array_equal(chunked.tokens[:5], samples.tokens)
    np.testing.assert_allclose(chunked.log_probability[:5], samples.log_probability, atol=2e-5)
    assert (chunked.tokens[5] != samples.tokens[0]).any()  # a prompt that comes twice is drawn for anew


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_completions_follow_the_law(temperature):
    """Frequencies of all 15 completions of at most 3 tokens against their probabilities, by chi squared."""
    model, tokeniser = tiny_model("ab", seed=4, sharpness=2.0)
    completions = every_completion(tokeniser, 3)
    prompts = np.repeat(tokeniser.encode_prompts(["ab"], 3), len(completions), axis=0)
    logits = nnx.jit(token_logits)(model, jnp.array(prompts), jnp.array(completions))
    law = np.asarray(jax.nn.log_softmax(logits / temperature, axis=-1))
    exists = completions != tokeniser.pad
    each = np.take_along_axis(law, np.where(exists, completions, 0)[..., None], axis=-1)[..., 0]
    expected = 20_000 * np.exp(np.where(exists, each, 0).sum(axis=1))
    drawn = sample_completions(
        model, prompts[:1], jax.random.key(5), completions=20_000, length=3, temperature=temperature
    )
    found = (np.asarray(drawn.tokens)[0][:, None] == completions[None]).all(axis=-1).sum(axis=0)
    assert found.sum() == 20_000
    usual = expected > 5
    squared = ((found - expected)[usual] ** 2 / expected[usual]).sum()
    assert usual.sum() >= 6 and squared < 40  # 14 degrees of freedom: above 40 once in 4,000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.0}, "temperature=0: must be positive"),
        ({"completions": 0}, "completions=0: must be an integer of at least 1"),
        ({"length": 30}, "the model has 24 positions"),
    ],
)
def test_bad_input_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        sample_completions(MODEL, PROMPTS, jax.random.key(0), **({"completions": 2, "length": 4} | change))


def test_any_small_temperature_takes_the_most_probable_token():
    greedy = sample_completions(MODEL, PROMPTS, jax.random.key(0), completions=2, length=LENGTH, temperature=1e-3)
    for temperature in (1e-20, 1e-30):
        found = sample_completions(
            MODEL, PROMPTS, jax.random.key(1), completions=2, length=LENGTH, temperature=temperature
        )
        np.testing.assert_array_equal(found.tokens, greedy.tokens)
        np.testing.assert_array_equal(found.tempered_log_probability, 0)


def test_raw_keys_are_keys():
    given = {"completions": np.int64(2), "length": LENGTH}
    typed = sample_completions(MODEL, PROMPTS, jax.random.key(4), **given)
    raw = sample_completions(MODEL, PROMPTS, jax.random.PRNGKey(4), **given)
    np.testing.assert_array_equal(typed.tokens, raw.tokens)


@pytest.mark.parametrize("token", [-1, 77])
def test_tokens_that_are_none_of_the_models_are_refused(token):
    wrong = PROMPTS.copy()
    wrong[0, -1] = token
    with pytest.raises(ValueError, match=rf"prompts: \[{token}\] found"):
        sample_completions(MODEL, wrong, jax.random.key(0), completions=2, length=LENGTH)
    with pytest.raises(ValueError, match=rf"prompts: \[{token}\] found"):
        compiled_log_probability(MODEL, wrong, wrong)
    with pytest.raises(ValueError, match="prompts: no rows found"):
        compiled_log_probability(MODEL, wrong[:0], wrong[:0])
