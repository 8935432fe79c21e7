"""Feature pools of the small language model: gradients and hidden states of what it really computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

nnx = pytest.importorskip("flax.nnx")

from jaxdesign.preference.features.pools import gradient_pool, hidden_pool, mean_hidden_pool  # noqa: E402
from jaxdesign.preference.features.projection import project  # noqa: E402
from jaxdesign.preference.small_model.language_model import LanguageModel, LanguageModelConfig, sequence_log_probability  # noqa: E402

CONFIG = LanguageModelConfig(characters=5, max_length=10, width=8, depth=1, heads=2)
MODEL = LanguageModel(CONFIG, rngs=nnx.Rngs(0))
RNG = np.random.default_rng(0)
PROMPTS = RNG.integers(1, 6, (2, 4), dtype=np.int32)
COMPLETIONS = RNG.integers(1, 6, (2, 3, 5), dtype=np.int32)
COMPLETIONS[0, 1, 3:] = CONFIG.pad
COMPLETIONS[1, 0, 1:] = CONFIG.pad
KEY = jax.random.key(1)


@pytest.mark.slow
def test_gradient_pools_hold_gradients_of_the_sequence_log_probability():
    pool = gradient_pool(MODEL, PROMPTS, COMPLETIONS, dimension=6, key=KEY, microbatch=4)
    graphdef, params = nnx.split(MODEL)
    for p, k in ((0, 1), (1, 2)):

        def value(params, p=p, k=k):
            return sequence_log_probability(nnx.merge(graphdef, params), PROMPTS[p][None], COMPLETIONS[p, k][None])[0]

        np.testing.assert_allclose(pool.features[p, k], project(jax.grad(value)(params), 6, KEY), rtol=1e-4, atol=1e-5)
    some = gradient_pool(MODEL, PROMPTS, COMPLETIONS, dimension=6, key=KEY, parameters=["blocks/0/attention/*"])
    assert np.abs(some.features - pool.features).max() > 1e-3


@pytest.mark.slow
def test_hidden_pools_hold_the_state_at_the_last_token():
    pool = hidden_pool(MODEL, PROMPTS, COMPLETIONS, microbatch=4)
    for p, k, length in ((0, 1, 3), (1, 0, 1), (1, 2, 5)):
        tokens = jnp.concatenate([jnp.asarray(PROMPTS[p]), jnp.asarray(COMPLETIONS[p, k, :length])])
        np.testing.assert_allclose(pool.features[p, k], MODEL(tokens[None]).hidden[0, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_mean_hidden_pools_hold_the_mean_over_the_completion():
    empty = COMPLETIONS.copy()
    empty[1, 1] = CONFIG.pad
    pool = mean_hidden_pool(MODEL, PROMPTS, empty, microbatch=4)
    for p, k, length in ((0, 1, 3), (1, 0, 1), (1, 2, 5), (1, 1, 0)):
        tokens = jnp.concatenate([jnp.asarray(PROMPTS[p]), jnp.asarray(empty[p, k, :length])])
        states = MODEL(tokens[None]).hidden[0, min(4, 3 + length) :]
        np.testing.assert_allclose(pool.features[p, k], states.mean(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_padding_on_the_left_of_prompts_changes_nothing():
    wide = np.concatenate([np.full((2, 1), CONFIG.pad, np.int32), PROMPTS], axis=1)
    for make in (hidden_pool, lambda *arrays: gradient_pool(*arrays, dimension=6, key=KEY)):
        expected = make(MODEL, PROMPTS, COMPLETIONS).features
        np.testing.assert_allclose(make(MODEL, wide, COMPLETIONS).features, expected, rtol=1e-3, atol=2e-5)


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"prompts: shape \(3,\) found; expected \(2,\)"):
        hidden_pool(MODEL, np.zeros((3, 4), int), COMPLETIONS)
    with pytest.raises(ValueError, match=r"completions: shape \(2, 3\) found"):
        hidden_pool(MODEL, PROMPTS, COMPLETIONS[..., 0])
