"""Completions of a Llama: drawn from the law that is meant, with log-probabilities of a forward pass written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.preference.llama import TokenLaw, draw_completions, follow_completions, sampling
from tests.support.tiny_llama import SHAPE, log_law_in_numpy, log_probability_in_numpy, tensors, tiny_llama

WEIGHTS, MODEL = tensors(0), tiny_llama(0)
PROMPTS = np.array([[-1, -1, 5, 6, 7], [9, 250, 11, 12, 1], [-1, -1, -1, -1, 299], [-1, 1, 2, 3, 4]], np.int32)
LAW = TokenLaw(outputs=40, banned=(0, 7, 21), ends=(3, 4, 5, 6, 8, 9), temperature=4.0)
LENGTH = 6


def bare(row):
    return row[row != -1]


def in_numpy(tokens, law=LAW):
    pairs = [(prompt, completion) for prompt, some in zip(PROMPTS, tokens, strict=True) for completion in some]
    each = [log_probability_in_numpy(WEIGHTS, bare(p), bare(c), law) for p, c in pairs]
    return np.reshape(each, tokens.shape[:2])


@pytest.fixture(scope="module")
def drawn():
    return draw_completions(MODEL, PROMPTS, jax.random.key(3), LAW, completions=5, length=LENGTH, rows=10)


def test_log_probabilities_are_those_of_the_whole_text_without_a_cache(drawn):
    np.testing.assert_allclose(drawn.log_probability, in_numpy(drawn.tokens), atol=3e-5)


def test_completions_end_and_use_allowed_tokens_only(drawn):
    assert drawn.tokens.shape == (4, 5, LENGTH) and drawn.states.shape == (4, 5, LENGTH + 1, SHAPE["width"])
    lengths = np.sum(drawn.tokens != -1, axis=-1)
    assert len(np.unique(lengths)) > 2
    for row, length in zip(drawn.tokens.reshape(-1, LENGTH), lengths.ravel(), strict=True):
        assert (row[length:] == -1).all() and not np.isin(row[:length], LAW.banned).any() and row.max() < 40
        assert not np.isin(row[: length - 1], LAW.ends).any() and (row[length - 1] in LAW.ends or length == LENGTH)


def test_following_completions_sees_what_drawing_them_saw(drawn):
    found = follow_completions(MODEL, PROMPTS, drawn.tokens, LAW, rows=10)
    np.testing.assert_allclose(found.log_probability, drawn.log_probability, atol=3e-5)
    seen = np.concatenate([np.ones((4, 5, 1), bool), drawn.tokens != -1], axis=-1)
    np.testing.assert_allclose(found.states[seen], drawn.states[seen], atol=1e-4)


def test_one_program_serves_all_batches(drawn):
    before = sampling._draw._cache_size()
    again = draw_completions(MODEL, PROMPTS[:3], jax.random.key(3), LAW, completions=5, length=LENGTH, rows=10)
    other = draw_completions(tiny_llama(1), PROMPTS, jax.random.key(4), LAW, completions=5, length=LENGTH, rows=14)
    assert sampling._draw._cache_size() == before and before >= 1
    np.testing.assert_array_equal(again.tokens, drawn.tokens[:3])  # neither other prompts nor batches matter
    np.testing.assert_allclose(again.log_probability, drawn.log_probability[:3], atol=1e-5)
    assert (other.tokens != drawn.tokens).any()


def test_the_number_of_prompts_done_is_reported():
    done = []
    draw_completions(
        MODEL, PROMPTS, jax.random.key(3), LAW, completions=5, length=LENGTH, rows=10, callback=done.append
    )
    assert done == [2, 4]


@pytest.mark.thorough
def test_tokens_come_with_the_probabilities_of_the_law():
    """Two tokens of one prompt, 20,000 times, against all pairs of tokens that the law can give."""
    law, count = TokenLaw(outputs=5, banned=(2,), ends=(1,), temperature=3.0), 20_000
    drawn = draw_completions(MODEL, PROMPTS[:1], jax.random.key(0), law, completions=count, length=2, rows=count)
    first = np.exp(log_law_in_numpy(WEIGHTS, bare(PROMPTS[0]), law)[-1])
    expected = {(1, -1): first[1]}
    for token in (0, 3, 4):
        after = np.exp(log_law_in_numpy(WEIGHTS, np.append(bare(PROMPTS[0]), token), law)[-1])
        expected |= {(token, k): first[token] * after[k] for k in (0, 1, 3, 4)}
    assert sum(expected.values()) == pytest.approx(1)
    pairs, times = np.unique(drawn.tokens[0], axis=0, return_counts=True)
    assert set(map(tuple, pairs.tolist())) <= set(expected)
    p = np.array([expected[tuple(pair)] for pair in pairs.tolist()])
    chi = np.sum((times - count * p) ** 2 / (count * p))
    assert chi < 40 and p.max() < 0.7  # 12 degrees of freedom: 1 in 10^4


@pytest.mark.thorough
def test_the_whole_vocabulary_at_temperature_one_in_bfloat16():
    """In bfloat16 log-probabilities are those of its own law, with and without a cache, near those of float64."""
    model, law = tiny_llama(0, dtype="bfloat16"), TokenLaw()
    drawn = draw_completions(model, PROMPTS, jax.random.key(1), law, completions=3, length=LENGTH)
    assert drawn.states.dtype == jnp.bfloat16 and drawn.log_probability.dtype == np.float32
    found = follow_completions(model, PROMPTS, drawn.tokens, law)
    np.testing.assert_allclose(found.log_probability, drawn.log_probability, atol=0.05)
    rounding = drawn.log_probability - in_numpy(drawn.tokens, law)
    assert 0.01 < np.sqrt(np.mean(rounding**2)) < 0.5
    full = draw_completions(MODEL, PROMPTS, jax.random.key(1), law, completions=3, length=LENGTH)
    np.testing.assert_allclose(full.log_probability, in_numpy(full.tokens, law), atol=1e-4)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"temperature": 0}, "temperature=0"),
        ({"outputs": 3, "banned": [3]}, "banned: 3 found; the law draws from the first 3"),
        ({"banned": [1], "ends": [1]}, "ends: 1 is banned too"),
        ({"outputs": 2, "banned": [0, 1]}, "all 2 outputs found"),
    ],
)
def test_laws_that_are_none(said, message):
    with pytest.raises(ValueError, match=message):
        TokenLaw(**said)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prompts": [[1, -1]]}, ValueError, "padding after a token in row 0"),
        ({"prompts": [[-1, -1]]}, ValueError, "padding after a token in row 0"),
        ({"prompts": [[1, 300]]}, ValueError, "prompts: 300 found; expected tokens from 0 to 299"),
        ({"prompts": [[1.0]]}, TypeError, "expected integers"),
        ({"prompts": [1, 2]}, ValueError, r"prompts: shape \(2,\) found"),
        ({"law": TokenLaw(outputs=301)}, ValueError, "token 300 found; the model has 300"),
        ({"law": None}, TypeError, "expected a TokenLaw"),
        ({"length": 60}, ValueError, "one of 5 tokens and completions of 60 found; the model was made for 64"),
        ({"completions": 0}, ValueError, "completions=0"),
    ],
)
def test_what_cannot_be_drawn(change, error, message):
    said = {"prompts": PROMPTS, "law": LAW, "completions": 2, "length": 3} | change
    prompts, law = np.array(said.pop("prompts")), said.pop("law")
    with pytest.raises(error, match=message):
        draw_completions(MODEL, prompts, jax.random.key(0), law, **said)


@pytest.mark.parametrize(
    ("completions", "message"),
    [
        ([[[1, 7]]], "token 7 found, which the law bans"),
        ([[[1, 40]]], "completions: 40 found; expected tokens from 0 to 39"),
        ([[[-1, 1]]], "a token after padding"),
        ([[1, 2]], r"completions: shape \(1, 2\) found"),
    ],
)
def test_what_cannot_be_followed(completions, message):
    with pytest.raises(ValueError, match=message):
        follow_completions(MODEL, PROMPTS[:1], np.array(completions), LAW)
