"""The end-to-end experiment of the transformer: its worlds, its training, its statistics, and that it goes on."""

import json

import jax
import numpy as np
import pytest

from bench.experiments import transformer as experiment
from bench.experiments.files import read_lines
from bench.experiments.transformer_head import log_probabilities, with_head
from bench.experiments.transformer_world import COMPLETION_COLUMNS, SHORT, TOKENISER, make_world, proxy_of, value_of
from jaxdesign import preference as pref
from jaxdesign.preference.features.equals import first_of_equals

pytestmark = pytest.mark.thorough

PROMOTION = "standard"  # optax promotes
SETTLED = experiment.Settled(1e-3, 8, 10.0, 10.0, 1e-3, 12)


@pytest.fixture(scope="module")
def world():
    return make_world(0, SHORT)


def lines_of(seed, gains):
    return [{"seed": seed, "labels": 10, "arm": arm, "gain": gain} for arm, gain in gains.items()]


def test_differences_are_paired_by_seed():
    """Random gains 0, 1, 2 and trace 0.5 more, give or take 0.1: the spread of seeds must not enter."""
    lines = [line for k in range(3) for line in lines_of(k, {"random_distinct": k, "trace": k + 0.5 + 0.1 * (k - 1)})]
    random, trace = experiment.summary(lines)
    expected = {"labels": 10, "arm": "random_distinct", "gain": 1.0, "seeds": 3, "standard_error": 1 / np.sqrt(3)}
    assert random == expected
    assert trace["gain"] == pytest.approx(1.5) and trace["difference"] == pytest.approx(0.5)
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t with 2 degrees of freedom
    assert trace["interval"] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-6)
    assert trace["better_in"] == 3


def test_what_choosing_adds_is_told_beside_random_pairs_that_are_trained_alike():
    gains = {"random_distinct": (0, 0.2), "random_posterior": (1, 1), "random_proxy": (2, 2.4), "trace_proxy": (3, 3.2),
             "two_rounds_posterior": (1.5, 1.7), "trace": (0.1, 0.2), "ceiling": (5, 5)}  # fmt: skip
    lines = [
        {"seed": k, "labels": 9, "arm": arm, "gain": gain} for arm, two in gains.items() for k, gain in enumerate(two)
    ]
    rows = {row["arm"]: row for row in experiment.summary(lines)}
    assert rows["trace_proxy"]["to_alike"] == pytest.approx(list(experiment.paired.mean_interval([1.0, 0.8])))
    assert rows["two_rounds_posterior"]["to_alike"][0] == pytest.approx(0.6)
    assert {arm for arm, row in rows.items() if "to_alike" in row} == {"trace_proxy", "two_rounds_posterior"}
    assert rows["trace_proxy"]["difference"] == pytest.approx(3.0)


def test_repeated_completions_are_found():
    completions = np.array([[[1, 2], [1, 2], [3, 2], [1, 2]], [[1, 1], [2, 2], [2, 2], [1, 1]]])
    expected = [[True, False, True, False], [True, True, False, False]]
    assert first_of_equals(completions).tolist() == expected


@pytest.mark.parametrize("correlation", [0.5, 0.8])
def test_proxies_have_the_correlation_asked_for(correlation):
    rng = np.random.default_rng(0)
    rewards = 3 * rng.normal(size=(2_000, 16)) + 50 * rng.normal(size=(2_000, 1))
    proxy = proxy_of(rewards, correlation, rng)
    centred = [array - array.mean(axis=1, keepdims=True) for array in (rewards, proxy)]
    assert np.corrcoef(*(array.ravel() for array in centred))[0, 1] == pytest.approx(correlation, abs=0.01)


def test_training_the_head_on_states_is_training_with_the_rest_frozen(world):
    labels = experiment.collected(experiment.WAYS["random_distinct"], world, 40, SHORT, 10.0, 0)
    own = with_head(world.policy, experiment.trained(world, labels, SHORT, SETTLED, 0))
    other = pref.train_on_pairs(
        world.policy,
        pref.preferred_pairs(world.prompts, world.completions, labels),
        pref.dpo_loss,
        {"beta": SHORT.beta},
        optimiser=experiment.optimiser_of(SETTLED.rate),
        steps=round(SETTLED.epochs * 40 / SHORT.batch_size),
        batch_size=SHORT.batch_size,
        trainable=["head/*"],
    ).model
    change = np.abs(np.asarray(other.head.kernel[...]) - np.asarray(world.policy.head.kernel[...])).max()
    assert np.abs(np.asarray(own.head.kernel[...]) - np.asarray(other.head.kernel[...])).max() < 1e-4 * change


def test_training_on_a_posterior_is_that_of_the_library(world):
    labels = experiment.collected(experiment.WAYS["trace"], world, 20, SHORT, 10.0, 0)
    belief = pref.fit_posterior(world.pool, labels, 10.0)
    own = with_head(world.policy, experiment.trained_on(world, belief, world.pool, SHORT, SETTLED, 0))
    other = pref.train_on_posterior(
        world.policy,
        world.prompts,
        world.completions,
        world.pool,
        belief,
        beta=SHORT.beta,
        steps=SETTLED.posterior_steps,
        batch_size=SHORT.batch_size,
        trainable=["head/*"],
    ).model
    change = np.abs(np.asarray(other.head.kernel[...]) - np.asarray(world.policy.head.kernel[...])).max()
    assert np.abs(np.asarray(own.head.kernel[...]) - np.asarray(other.head.kernel[...])).max() < 1e-4 * change


def test_states_give_the_log_probabilities_of_the_policy(world):
    prompts = np.repeat(world.prompts, SHORT.completions, axis=0)
    rows = world.completions.reshape(len(prompts), -1)
    expected = np.asarray(pref.compiled_log_probability(world.policy, prompts, rows))
    assert np.asarray(log_probabilities(world.head)) == pytest.approx(expected, abs=1e-4)


def test_a_policy_is_worth_what_the_library_says(world):
    labels = experiment.collected(experiment.WAYS["trace"], world, 40, SHORT, 10.0, 0)
    policy = experiment.trained(world, labels, SHORT, SETTLED, 0)
    found = value_of(policy, world, SHORT, 3)
    expected = pref.sampled_policy_value(
        with_head(world.policy, policy),
        world.policy,
        world.held_back,
        lambda tokens: world.reward(TOKENISER.decode_all(tokens)),
        SHORT.beta,
        jax.random.key(10_003),
        completions=SHORT.samples,
        length=COMPLETION_COLUMNS,
    )
    assert found.kl == pytest.approx(expected.kl, rel=1e-4) and found.kl > 1e-3
    assert found.value == pytest.approx(expected.value, rel=1e-4)


def test_the_ceiling_has_the_true_probabilities(world):
    pool, belief = experiment.truth_of(world)
    pairs, chance = pref.soft_labels(pool, belief)
    p, i, j = pairs.T
    margin = world.rewards[p, i] - world.rewards[p, j]
    assert chance == pytest.approx(1 / (1 + np.exp(-margin)), abs=1e-5)


def test_arms_ask_only_of_different_texts_and_share_labels(world):
    answers = {}
    for name in ("random_distinct", "trace", "trace_capped", "two_rounds_unit", "best_worst_proxy_8", "trace_proxy"):
        labels = experiment.collected(experiment.WAYS[name], world, 30, SHORT, 10.0, 0)
        p, i, j = np.asarray(labels.pairs).T
        assert len(labels.pairs) == 30 and (world.completions[p, i] != world.completions[p, j]).any(axis=1).all()
        for pair, choice in zip(np.asarray(labels.pairs).tolist(), np.asarray(labels.choices), strict=True):
            assert answers.setdefault(tuple(pair), choice) == choice


@pytest.mark.slow
def test_it_is_tuned_runs_and_goes_on(tmp_path):
    settled, lines = str(tmp_path / "settled.json"), tmp_path / "lines.jsonl"
    tuning = ["--short", "--labels", "20", "--lines", str(tmp_path / "tuning.jsonl"), "--tune", "1", "--json", settled]
    found = experiment.main(tuning)["settled"]["20"]
    assert found["rate"] in experiment.RATES and found["ridge"] > 0
    arms = ["--arms", "random_distinct", "trace_posterior", "ceiling"]
    rest = ["--short", "--labels", "20", "--settled", settled, *arms]
    experiment.main([*rest, "--lines", str(lines), "--seeds", "0", "1"])
    first = read_lines(lines)
    result = experiment.main(
        [*rest, "--lines", str(lines), "--seeds", "0", "2", "--json", str(tmp_path / "a.json"), "--plot",
         str(tmp_path / "a.png")]
    )  # fmt: skip
    assert read_lines(lines)[:3] == first and len(read_lines(lines)) == 6
    assert json.loads((tmp_path / "a.json").read_text())["summary"] == result["summary"]
    experiment.main([*rest, "trace", "--lines", str(lines), "--seeds", "0", "1"])  # one arm more, later
    assert len(read_lines(lines)) == 7 and read_lines(lines)[-1]["arm"] == "trace"
    assert (tmp_path / "a.png").stat().st_size > 1_000
