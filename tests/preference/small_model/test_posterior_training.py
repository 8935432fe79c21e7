"""Training on the posterior: margins of the policy become those of the fit, on pairs that nobody labelled too."""

import numpy as np
import optax
import pytest

from jaxdesign import Belief, CompletionPool
from jaxdesign.preference.posterior_labels import soft_labels
from jaxdesign.preference.small_model.dpo_training import compiled_log_probability
from jaxdesign.preference.small_model.posterior_training import train_on_posterior
from tests.support.small_policy import tiny_model

PROMOTION = "standard"  # optax raises floats to whole powers
pytestmark = pytest.mark.slow

MODEL, TOKENISER = tiny_model("ab", seed=1)
PROMPTS = TOKENISER.encode_prompts(["a", "bb", "ab", "b"], 4)
COMPLETIONS = np.stack([TOKENISER.encode_completions(row, 5) for row in (["a", "ab", ""], ["b", "ba", "aa"])] * 2)
POOL = CompletionPool(np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32))
BELIEF = Belief(np.array([0.7, -0.4]), np.eye(2))


def rewards(model, beta):
    """Implicit rewards (P, K)."""
    each = np.repeat(PROMPTS, 3, axis=0), COMPLETIONS.reshape(12, -1)
    after, before = (np.asarray(compiled_log_probability(policy, *each)) for policy in (model, MODEL))
    return beta * (after - before).reshape(4, 3)


def test_margins_of_the_policy_become_those_of_the_belief():
    trained = train_on_posterior(
        MODEL, PROMPTS, COMPLETIONS, POOL, BELIEF, beta=0.5, steps=300, batch_size=12, optimiser=optax.adam(3e-3)
    )
    pairs, probabilities = soft_labels(POOL, BELIEF)
    p, i, j = pairs.T
    found = rewards(trained.model, 0.5)
    np.testing.assert_allclose(found[p, i] - found[p, j], np.log(probabilities / (1 - probabilities)), atol=0.05)
    assert trained.losses[0] == pytest.approx(np.log(2), abs=1e-5)
    least = -np.mean(probabilities * np.log(probabilities) + (1 - probabilities) * np.log(1 - probabilities))
    assert trained.losses[-1] == pytest.approx(least, abs=1e-3)


def test_no_more_pairs_are_drawn_than_are_looked_at_and_the_schedule_has_defaults():
    short = train_on_posterior(MODEL, PROMPTS, COMPLETIONS, POOL, BELIEF, beta=0.5, steps=2, batch_size=3)
    assert short.losses.shape == (2,) and np.isfinite(short.losses).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"completions": COMPLETIONS[:3]}, r"completions: shape \(3, 3\) found; expected \(4, 3\)"),
        ({"prompts": PROMPTS[:2]}, r"prompts: shape \(2,\) found; expected \(4,\)"),
        ({"steps": 0}, "steps=0: must be a whole number of at least 1"),
        ({"beta": 0.0}, "beta"),
    ],
)
def test_what_is_refused(change, words):
    given = {"reference": MODEL, "prompts": PROMPTS, "completions": COMPLETIONS, "pool": POOL, "belief": BELIEF}
    with pytest.raises(ValueError, match=words):
        train_on_posterior(**given | {"beta": 0.5, "steps": 2} | change)
