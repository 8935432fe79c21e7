"""DPO on cached streams: steps are those of the formula, soft labels are fitted, and what it is worth held back."""

import jax
import numpy as np
import optax
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
    held_back_value,
    tail_cache,
    train_on_cache,
    with_adapters,
)
from jaxdesign.preference.small_model import training
from tests.support.tiny_llama import tiny_llama

PROMOTION = "standard"  # optax raises floats to whole powers
MODEL = tiny_llama(0)
PROMPTS = np.array([[-1, -1, 5, 6, 7], [9, 250, 11, 12, 1]], np.int32)
COMPLETIONS = np.array([[[5, 9, 3], [30, 31, 32], [8, 3, -1]], [[1, 2, 3], [4, 4, 4], [10, 11, -1]]], np.int32)
LAW = TokenLaw(outputs=40, temperature=3.0)
PAIRS, LABEL, BETA = np.array([[0, 0, 1], [1, 2, 0], [0, 1, 2], [1, 0, 1]]), np.array([1.0, 0.0, 0.5, 0.7]), 0.5
SGD, ADAM = optax.sgd(0.1), optax.adam(3e-2)


@pytest.fixture(scope="module")
def cache():
    return head_cache(follow_completions(MODEL, PROMPTS, COMPLETIONS, LAW).states, COMPLETIONS)


def edit():
    return HeadEdit(MODEL, LAW, rank=2, rngs=nnx.Rngs(0))


def trained(cache, steps, optimiser=SGD, policy=None, **options):
    policy = edit() if policy is None else policy
    options = {"beta": BETA, "batch_size": 4} | options
    return train_on_cache(policy, cache, PAIRS, LABEL, optimiser=optimiser, steps=steps, **options)


def margins(policy, cache, reference):
    u = BETA * (cached_log_probabilities(policy, cache) - reference)
    return u[PAIRS[:, 0], PAIRS[:, 1]] - u[PAIRS[:, 0], PAIRS[:, 2]]


@pytest.mark.thorough
def test_a_step_is_the_derivative_of_the_formula(cache):
    """d l / d theta = beta (sigma(u) - w) (grad log pi(first) - grad log pi(second)), at u = 0 and after a step."""
    policy, reference = edit(), cached_log_probabilities(edit(), cache)
    function, _ = split_model(policy, example_log_probability)
    for given in (None, reference):
        start = cached_log_probabilities(policy, cache) if given is None else reference
        params = nnx.state(policy, nnx.Param)
        rows = np.asarray(gradient_rows(function, params, cache.examples(), parameters=["write"])).reshape(2, 3, -1)
        z = rows[PAIRS[:, 0], PAIRS[:, 1]] - rows[PAIRS[:, 0], PAIRS[:, 2]]
        slope = BETA * (1 / (1 + np.exp(-margins(policy, cache, start))) - LABEL) @ z / 4
        found = trained(cache, 1, policy=policy, reference=given, trainable=["write"])
        change = (found.model.write[...] - policy.write[...]).ravel()
        np.testing.assert_allclose(change, -0.1 * slope, atol=2e-4 * np.abs(slope).max())
        np.testing.assert_array_equal(found.model.bias[...], policy.bias[...])
        policy = found.model
    assert np.abs(margins(policy, cache, reference)).max() > 1e-3


@pytest.mark.thorough
def test_soft_labels_are_fitted(cache):
    label = np.where(LABEL == 1, 0.9, np.where(LABEL == 0, 0.2, LABEL))
    found = train_on_cache(edit(), cache, PAIRS, label, beta=BETA, optimiser=ADAM, steps=300, batch_size=4)
    chance = 1 / (1 + np.exp(-margins(found.model, cache, cached_log_probabilities(edit(), cache))))
    np.testing.assert_allclose(chance, label, atol=0.02)
    assert found.losses.shape == (300,) and found.losses[0] == pytest.approx(np.log(2), rel=1e-4)


@pytest.mark.thorough
def test_training_goes_on_where_it_stopped_and_compiles_once(cache):
    whole = trained(cache, 6, ADAM, batch_size=2)
    before = training._step._cache_size()
    first = trained(cache, 3, ADAM, batch_size=2)
    on = {"first_step": 3, "optimiser_state": first.optimiser_state, "policy": first.model}
    second = trained(cache, 3, ADAM, batch_size=2, reference=cached_log_probabilities(edit(), cache), **on)
    assert training._step._cache_size() == before
    for one, other in zip(*(jax.tree.leaves(nnx.state(x.model, nnx.Param)) for x in (whole, second)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(whole.losses, [*first.losses, *second.losses], atol=1e-6)


@pytest.mark.thorough
def test_adapters_are_trained_and_nothing_else():
    cache = tail_cache(MODEL, PROMPTS, COMPLETIONS, blocks=1)
    policy = with_adapters(Tail(MODEL, LAW, blocks=1), rank=2, rngs=nnx.Rngs(0))
    found = trained(cache, 60, ADAM, policy, trainable=["*/adapter_out"])
    assert found.losses[-1] < 0.5 < found.losses[0]
    start, end = (dict(nnx.to_flat_state(nnx.state(x, nnx.Param))) for x in (policy, found.model))
    changed = {path[-1] for path in start if np.any(start[path][...] != end[path][...])}
    assert changed == {"adapter_out"} and start.keys() == end.keys()
    moved = margins(found.model, cache, cached_log_probabilities(policy, cache))
    assert moved[0] > 1 and moved[1] < -1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pairs": [[0, 0, 3]]}, ValueError, "outside of the 2 x 3 of the cache"),
        ({"pairs": [[0, 1]]}, ValueError, r"pairs: shape \(1, 2\) found"),
        ({"label": [1.5]}, ValueError, "label"),
        ({"label": [1.0, 0.0]}, ValueError, "label"),
        ({"beta": -1.0}, ValueError, "beta"),
        ({"reference": np.zeros((3, 2))}, ValueError, "reference"),
        ({"trainable": ["nothing"]}, ValueError, "'policy/nothing' matches no parameter"),
        ({"trainable": "write"}, TypeError, "must be a list of patterns"),
    ],
)
def test_what_cannot_be_trained_on(change, error, message):
    cache = head_cache(np.zeros((2, 3, 4, 12), np.float32), COMPLETIONS)
    said = {"pairs": [[0, 0, 1]], "label": [1.0], "beta": 1.0} | change
    pairs, label = np.array(said.pop("pairs")), np.array(said.pop("label"))
    with pytest.raises(error, match=message):
        train_on_cache(edit(), cache, pairs, label, optimiser=SGD, steps=1, batch_size=1, **said)


def test_held_back_values_are_those_of_the_policy_among_the_completions():
    rng = np.random.default_rng(0)
    log_policy, log_drawn, rewards = rng.normal(size=(3, 4, 6))
    mask = rng.random((4, 6)) < 0.7
    mask[2] = False
    found = held_back_value(np.where(mask, log_policy, np.nan), log_drawn, rewards, 0.3, mask)
    for p in (0, 1, 3):
        w = np.exp(log_policy[p] - log_drawn[p]) * mask[p]
        w = w[mask[p]] / w.sum()
        expected = w @ (rewards[p, mask[p]] - 0.3 * np.log(w * mask[p].sum()))
        assert found.value[p] == pytest.approx(expected, abs=1e-12)
        assert found.effective[p] == pytest.approx(1 / np.sum(w**2))
    assert np.isnan(found.value[2]) and found.value.shape == (4,)
    same = held_back_value(log_policy, log_policy + 7, rewards, 0.3)
    np.testing.assert_allclose(same.value, rewards.mean(axis=1))
    np.testing.assert_allclose(same.kl, 0, atol=1e-12)
    np.testing.assert_allclose(same.effective, 6)


@pytest.mark.thorough
def test_held_back_values_tend_to_those_of_the_policy_itself():
    """Two outcomes with known probabilities: weights of 20,000 draws from the one policy give J of the other."""
    drawn, policy, rewards = np.array([0.3, 0.7]), np.array([0.6, 0.4]), np.array([1.0, -1.0])
    some = np.random.default_rng(0).choice(2, size=(1, 20_000), p=drawn)
    found = held_back_value(np.log(policy)[some], np.log(drawn)[some], rewards[some], 0.5)
    kl = policy @ np.log(policy / drawn)
    assert found.kl[0] == pytest.approx(kl, abs=0.01)
    assert found.value[0] == pytest.approx(policy @ rewards - 0.5 * kl, abs=0.02)
    with pytest.raises(ValueError, match="rewards"):
        held_back_value(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((2, 2)), 0.5)
    with pytest.raises(ValueError, match="beta"):
        held_back_value(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), 0)
