"""Last hidden states: of the right token, whatever the padding, microbatch and device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.preference.features.hidden_states import last_hidden_states, mean_hidden_states
from tests.support.tiny_policy import LENGTH, VOCABULARY, WIDTH, hidden, parameters

PARAMS = parameters()
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, VOCABULARY, (7, LENGTH), dtype=np.int32)
LENGTHS = np.array([1, LENGTH, 4, 5, 6, 7, 2], np.int32)


@pytest.mark.thorough
def test_the_state_is_that_of_the_last_token_without_padding():
    found = last_hidden_states(hidden, PARAMS, TOKENS, LENGTHS, microbatch=3)
    assert found.shape == (7, WIDTH) and found.dtype == jnp.float32
    for row, tokens, length in list(zip(found, TOKENS, LENGTHS, strict=True))[:3]:
        np.testing.assert_allclose(row, hidden(PARAMS, tokens[:length])[-1], rtol=2e-5, atol=2e-6)


def test_padding_may_hold_anything():
    place = np.arange(LENGTH)
    other = np.where(place < LENGTHS[:, None], TOKENS, RNG.integers(0, VOCABULARY, TOKENS.shape))
    expected = last_hidden_states(hidden, PARAMS, TOKENS, LENGTHS)
    np.testing.assert_allclose(last_hidden_states(hidden, PARAMS, other, LENGTHS), expected, rtol=1e-5, atol=1e-6)

    def broken(params, tokens):  # 0 marks padding, and states there are NaN
        return jnp.where(tokens[:, None] == 0, jnp.nan, hidden(params, tokens))

    padded = np.where(place < LENGTHS[:, None], np.maximum(TOKENS, 1), 0)
    assert np.isfinite(last_hidden_states(broken, PARAMS, padded, LENGTHS)).all()


def test_two_devices_give_what_one_gives():
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))
    expected = last_hidden_states(hidden, PARAMS, TOKENS, LENGTHS)
    found = last_hidden_states(hidden, PARAMS, TOKENS, LENGTHS, mesh=mesh, microbatch=2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"tokens": TOKENS.astype(float)}, TypeError, "tokens: dtype float"),
        ({"tokens": TOKENS[0]}, ValueError, r"tokens: shape \(9,\) found"),
        ({"lengths": LENGTHS[:3]}, ValueError, r"lengths: shape \(3,\) found; expected \(7,\)"),
        ({"lengths": LENGTHS - 1}, ValueError, "lengths: 0 at example 0; must be between 1 and the 9 positions"),
        ({"hidden": lambda params, tokens: params["out"][0]}, ValueError, r"hidden: returned shape \(11,\)"),
        ({"microbatch": 0}, ValueError, "microbatch=0"),
    ],
)
def test_bad_input(change, error, words):
    arguments = {"hidden": hidden, "params": PARAMS, "tokens": TOKENS, "lengths": LENGTHS} | change
    with pytest.raises(error, match=words):
        last_hidden_states(**arguments)


STARTS = np.array([0, 2, 3, 0, 5, 1, 1], np.int32)


def test_means_are_over_the_tokens_of_the_completion_whatever_stands_elsewhere():
    found = mean_hidden_states(hidden, PARAMS, TOKENS, STARTS, LENGTHS, microbatch=3)
    assert found.shape == (7, WIDTH) and found.dtype == jnp.float32
    for row, tokens, start, length in list(zip(found, TOKENS, STARTS, LENGTHS, strict=True))[1:4]:
        expected = np.mean(hidden(PARAMS, tokens)[start:length], axis=0)
        np.testing.assert_allclose(row, expected, rtol=2e-5, atol=2e-6)

    def broken(params, tokens):
        return jnp.where(tokens[:, None] == 0, jnp.nan, hidden(params, tokens))

    padded = np.where(np.arange(LENGTH) < LENGTHS[:, None], np.maximum(TOKENS, 1), 0)
    assert np.isfinite(mean_hidden_states(broken, PARAMS, padded, STARTS, LENGTHS)).all()
    ends = mean_hidden_states(hidden, PARAMS, TOKENS, LENGTHS - 1, LENGTHS)
    np.testing.assert_allclose(ends, last_hidden_states(hidden, PARAMS, TOKENS, LENGTHS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        (STARTS - 1, "starts: -1 at example 0; must be at least 0 and below its length 1"),
        (LENGTHS, "starts: 1 at example 0"),
        (STARTS[:3], r"starts: shape \(3,\) found"),
    ],
)
def test_completions_start_before_they_end(starts, words):
    with pytest.raises(ValueError, match=words):
        mean_hidden_states(hidden, PARAMS, TOKENS, starts, LENGTHS)
