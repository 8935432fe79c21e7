"""Values of policies from samples, against sums over all completions."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxdesign.preference.small_model.dpo_training import compiled_log_probability
from jaxdesign.preference.small_model.sampled_value import sampled_policy_value, sequence_divergence
from tests.support.small_policy import every_completion, perturbed, tiny_model

pytestmark = pytest.mark.slow

REFERENCE, TOKENISER = tiny_model("ab", seed=3)
MODEL = perturbed(REFERENCE, 1, size=0.1)
LENGTH = 4
EVERY = every_completion(TOKENISER, LENGTH)
PROMPTS = TOKENISER.encode_prompts(["a", "bb", "ba"], 3)


def laws():
    """log pi and log pi_ref of every completion of every prompt, (3, 31) each."""
    prompts, completions = np.repeat(PROMPTS, len(EVERY), axis=0), np.tile(EVERY, (3, 1))
    return [np.asarray(compiled_log_probability(m, prompts, completions)).reshape(3, -1) for m in (MODEL, REFERENCE)]


def rewards_of(tokens):
    return (tokens == 1).sum(axis=-1) - 0.5 * (tokens == 2).sum(axis=-1)


def test_values_are_those_of_sums_over_all_completions():
    own, other = laws()
    kl = (np.exp(own) * (own - other)).sum(axis=1).mean()
    reward = (np.exp(own) * rewards_of(EVERY)).sum(axis=1).mean()
    found = sampled_policy_value(
        MODEL, REFERENCE, PROMPTS, rewards_of, 0.7, jax.random.key(0), completions=2_000, length=LENGTH
    )
    assert kl > 0.05
    assert found.value == pytest.approx(reward - 0.7 * kl, abs=4 * found.standard_error)
    assert found.standard_error < 0.03
    assert found.kl == pytest.approx(kl, rel=0.1)
    assert found.value == pytest.approx(found.reward - 0.7 * found.kl)


def test_the_divergence_summed_over_all_completions_is_exact():
    own, other = laws()
    exact = (np.exp(own) * (own - other)).sum(axis=1)
    prompts = np.repeat(PROMPTS, len(EVERY), axis=0)
    each = np.asarray(sequence_divergence(MODEL, REFERENCE, prompts, np.tile(EVERY, (3, 1)))).reshape(3, -1)
    np.testing.assert_allclose((np.exp(own) * each).sum(axis=1), exact, rtol=1e-4)
    assert each.min() >= -1e-6


def test_near_the_reference_the_divergence_varies_less_than_the_log_ratio():
    near = perturbed(REFERENCE, 1, size=0.02)
    rows = np.repeat(PROMPTS, len(EVERY), axis=0), np.tile(EVERY, (3, 1))
    own, other = (np.asarray(compiled_log_probability(m, *rows)).reshape(3, -1) for m in (near, REFERENCE))
    each = np.asarray(sequence_divergence(near, REFERENCE, *rows)).reshape(3, -1)
    law = np.exp(own)

    def variance(values):
        return (law * (values - (law * values).sum(axis=1, keepdims=True)) ** 2).sum(axis=1)

    assert (variance(each) < 0.2 * variance(own - other)).all()


def test_a_policy_does_not_diverge_from_itself():
    rows = np.repeat(PROMPTS, len(EVERY), axis=0), np.tile(EVERY, (3, 1))
    assert np.abs(sequence_divergence(MODEL, MODEL, *rows)).max() == 0


def test_a_price_is_positive():
    with pytest.raises(ValueError, match="beta=0: must be positive"):
        sampled_policy_value(
            MODEL, REFERENCE, PROMPTS, rewards_of, 0.0, jax.random.key(0), completions=2, length=LENGTH
        )


def test_policies_of_different_configuration_are_refused():
    other = perturbed(REFERENCE, 1, size=0.1)
    other.config = replace(other.config, heads=2 * other.config.heads)
    with pytest.raises(ValueError, match="reference"):
        sequence_divergence(MODEL, other, PROMPTS, PROMPTS)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_rewards_have_one_number_per_sample(shape):
    """With as many prompts as completions, (P,) would broadcast to a wrong value."""
    with pytest.raises(ValueError, match="rewards_of"):
        sampled_policy_value(
            MODEL,
            REFERENCE,
            PROMPTS,
            lambda tokens: np.ones(shape),
            0.7,
            jax.random.key(0),
            completions=3,
            length=LENGTH,
        )
