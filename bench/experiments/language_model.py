"""A small transformer, end to end: which pairs are labelled decides how good the policy becomes.

    python -m bench.experiments.language_model --seeds 12 --labels 100 400 --json FILE --plot FILE

For every seed: a new corpus and hidden reward; supervised fine-tuning of a new transformer; K completions of each
prompt of a pool, sampled from it; features (projected gradients of the log-probability by the parameters that will be
trained); for every way of choosing n pairs: simulated Bradley-Terry labels, DPO, and the value J = E r - beta
KL(pi || pi_sft) of the trained policy from fresh samples on prompts of which no pair was labelled. All arms share
everything but the choice of pairs: labels (a pair chosen by two arms gets the same label), optimiser, steps, order,
evaluation seeds. Learning rate and epochs were tuned for random pairs, on seeds from 1,000 on (`--tune`), which are not
reported; on the same seeds the features' dimension (64, 256, 512) and the designs' prior were tried: the few steps of
training hold the policy back like a strong one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

import jaxdesign as jd
from bench.experiments import arms, paired
from bench.experiments.files import write_json
from bench.experiments.plots import plot_gains
from bench.experiments.transformer_world import COMPLETION_COLUMNS, PROMPT_COLUMNS, TOKENISER, first_of_its_kind
from bench.measure import machine
from jaxdesign import preference as pref
from jaxdesign.preference.features.pools import gradient_pool

ARMS = (
    "random",
    "random_distinct",
    "trace",
    "trace_two_rounds",
    *(a for a in arms.ONE_ROUND if a not in ("random", "trace")),
)


@dataclass(frozen=True)
class Setting:
    """Everything that an arm does not choose.

    `shares` of the kinds of prompts: names and colours have one right answer, notes a usual one, tales and odes are
    free. `scale` is the standard deviation of a word's hidden value, `prior_labels` how many average labels the prior
    of every design is worth, `epochs` how often DPO sees every label, `trainable` the parameters that it trains and by
    which features differentiate.
    """

    corpus: int = 4_000
    pool: int = 200
    completions: int = 10
    held_back: int = 120
    samples: int = 16
    fine_tuning_steps: int = 600
    shares: tuple[tuple[str, float], ...] = (("name", 0.2), ("hue", 0.2), ("note", 0.2), ("tale", 0.2), ("ode", 0.2))
    scale: float = 1.0
    beta: float = 0.5
    dimension: int = 128
    prior_labels: float = 100.0
    trainable: tuple[str, ...] = ("head/*",)
    learning_rate: float = 1e-3
    epochs: int = 16
    batch_size: int = 64


SHORT = Setting(corpus=400, pool=40, held_back=32, samples=4, fine_tuning_steps=40, dimension=16, epochs=8)


class World(NamedTuple):
    """What a seed decides: the fine-tuned policy, its completions, their features and rewards, held-back prompts."""

    policy: pref.LanguageModel
    prompts: np.ndarray
    completions: np.ndarray
    rewards: np.ndarray
    pool: jd.CompletionPool
    target: np.ndarray
    held_back: np.ndarray
    reward: pref.HiddenReward
    facts: dict[str, Any]


def make_world(seed: int, setting: Setting) -> World:
    """Corpus, supervised fine-tuning, completions of the pool's prompts, features and target."""
    corpus = pref.grammar_corpus(setting.corpus, seed=seed, shares=dict(setting.shares))
    learnt = TOKENISER.encode_prompts(corpus.prompts, PROMPT_COLUMNS)
    different = np.random.default_rng([seed, 5]).permutation(sorted(set(corpus.prompts)))
    different = different[: setting.pool + setting.held_back]
    initialise, sample, project = jax.random.split(jax.random.key(seed), 3)
    asked, held_back = np.split(TOKENISER.encode_prompts(different.tolist(), PROMPT_COLUMNS), [setting.pool])
    texts = corpus.draw(range(setting.corpus), seed)
    examples = pref.Examples(learnt, TOKENISER.encode_completions(texts, COMPLETION_COLUMNS))
    seconds = {}
    start = time.perf_counter()
    config = pref.LanguageModelConfig(
        TOKENISER.characters, max_length=PROMPT_COLUMNS + COMPLETION_COLUMNS, width=64, tied=False
    )
    blank = pref.LanguageModel(config, rngs=nnx.Rngs(initialise))
    tuned = pref.fine_tune(blank, examples, steps=setting.fine_tuning_steps, seed=seed)
    seconds["fine_tuning"] = time.perf_counter() - start
    start = time.perf_counter()
    samples = pref.sample_completions(
        tuned.model, asked, sample, completions=setting.completions, length=COMPLETION_COLUMNS
    )
    completions = np.asarray(samples.tokens)
    seconds["sampling"] = time.perf_counter() - start
    start = time.perf_counter()
    pool = gradient_pool(
        tuned.model,
        asked,
        completions,
        dimension=setting.dimension,
        key=project,
        parameters=setting.trainable,
    )
    target = np.asarray(jd.policy_target(pool), np.float64)
    seconds["features"] = time.perf_counter() - start
    reward = pref.random_reward(seed, scale=setting.scale)
    rewards = reward(TOKENISER.decode_all(completions))
    facts = {
        "loss": float(tuned.losses[-50:].mean()),
        "entropy": float(corpus.entropies().mean()),
        "distinct": float(np.mean([len(np.unique(rows, axis=0)) for rows in completions])),
        "reward_sd": float(np.sqrt(rewards.var(axis=1).mean())),
        "seconds": seconds,
    }
    return World(tuned.model, asked, completions, rewards, pool, target, held_back, reward, facts)


def collected(arm: str, world: World, number: int, setting: Setting, seed: int) -> pref.Labels:
    """`number` labels of pairs chosen by one arm, once each.

    "random" draws from all pairs of completions, as is usual; "random_distinct" from pairs of different texts, as
    someone would who drops repeated completions first; the others are those of `arms`.
    """
    key = jax.random.key(20_000 + seed)
    prior = setting.prior_labels / 4 * float(np.trace(world.target)) / world.pool.dim
    best = np.asarray(jd.policy_target(world.pool, world.rewards / setting.beta), np.float64)
    problem = arms.Problem(world.pool, world.pool, prior, setting.beta, world.rewards, best)
    budget = jd.Budget(number, per_pair=1)
    if arm == "trace_two_rounds":
        pilot = arms.choose("trace", problem, jd.Budget(round(arms.PILOT * number), per_pair=1), seed)
        return arms.two_rounds(
            problem, pilot, lambda pairs: pref.simulate_labels(key, world.rewards, pairs).choices, budget, seed
        )
    if arm == "random_distinct":
        distinct = jd.CompletionPool(world.pool.features, mask=first_of_its_kind(world.completions))
        arm, problem = "random", problem._replace(pool=distinct)
    return pref.simulate_labels(key, world.rewards, arms.choose(arm, problem, budget, seed))


def value_of(policy: pref.LanguageModel, world: World, setting: Setting, seed: int) -> pref.PolicyValue:
    """J of a policy on the held-back prompts, from fresh samples; the same seed for all policies of a world."""
    return pref.sampled_policy_value(
        policy,
        world.policy,
        world.held_back,
        lambda tokens: world.reward(TOKENISER.decode_all(tokens)),
        setting.beta,
        jax.random.key(10_000 + seed),
        completions=setting.samples,
        length=COMPLETION_COLUMNS,
    )


def train_policy(world: World, labels: pref.Labels, setting: Setting, seed: int, optimiser: Any) -> pref.LanguageModel:
    """DPO on the labels."""
    return pref.train_on_pairs(
        world.policy,
        pref.preferred_pairs(world.prompts, world.completions, labels),
        pref.dpo_loss,
        {"beta": setting.beta},
        optimiser=optimiser,
        steps=max(1, round(setting.epochs * len(labels.pairs) / setting.batch_size)),
        batch_size=setting.batch_size,
        seed=seed,
        trainable=setting.trainable,
    ).model


def one_seed(seed: int, setting: Setting, counts: Sequence[int], arms: Sequence[str], optimiser: Any) -> dict[str, Any]:
    """Every arm at every number of labels in the world of one seed."""
    start = time.perf_counter()
    world = make_world(seed, setting)
    before = value_of(world.policy, world, setting, seed)
    rows = []
    for number in counts:
        for arm in arms:
            begun = time.perf_counter()
            labels = collected(arm, world, number, setting, seed)
            chosen = time.perf_counter()
            policy = train_policy(world, labels, setting, seed, optimiser)
            trained = time.perf_counter()
            after = value_of(policy, world, setting, seed)
            p, i, j = np.asarray(labels.pairs).T
            same = (world.completions[p, i] == world.completions[p, j]).all(axis=1)
            rows.append(
                {
                    "labels": number,
                    "arm": arm,
                    "gain": after.value - before.value,
                    "value": after.value,
                    "reward": after.reward,
                    "kl": after.kl,
                    "identical": float(same.mean()),
                    "reward_gap": float(np.abs(world.rewards[p, i] - world.rewards[p, j]).mean()),
                    "seconds": [chosen - begun, trained - chosen, time.perf_counter() - trained],
                }
            )
    return {
        "seed": seed,
        "before": before.value,
        "facts": world.facts,
        "arms": rows,
        "seconds": time.perf_counter() - start,
    }


def summary(results: Sequence[dict], against: str = "random") -> list[dict[str, Any]]:
    """For each number of labels and arm: mean gain in J, and the paired difference to `against`, 95% interval."""
    gains = {}
    for result in results:
        for row in result["arms"]:
            gains.setdefault((row["labels"], row["arm"]), []).append(row["gain"])
    rows = []
    for (number, arm), values in gains.items():
        row = {"labels": number, "arm": arm, "gain": float(np.mean(values)), "seeds": len(values)}
        row["standard_error"] = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
        if arm != against and (number, against) in gains and len(values) > 1:
            difference = np.subtract(values, gains[number, against])
            row["difference"], *row["interval"] = paired.mean_interval(difference)
            row["better_in"] = int((difference > 0).sum())
        rows.append(row)
    return rows


def tune(setting: Setting, counts: Sequence[int], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Gain of random pairs for every learning rate and number of epochs: how the setting's own were chosen."""
    rows = []
    for seed in seeds:
        world = make_world(seed, setting)
        before = value_of(world.policy, world, setting, seed).value
        for number in counts:
            labels = collected("random", world, number, setting, seed)
            for rate in (5e-4, 1e-3, 2e-3):
                optimiser = optimiser_of(rate)
                for epochs in (8, 16, 32):
                    policy = train_policy(world, labels, replace(setting, epochs=epochs), seed, optimiser)
                    gain = value_of(policy, world, setting, seed).value - before
                    rows.append({"seed": seed, "labels": number, "rate": rate, "epochs": epochs, "gain": gain})
    return rows


def optimiser_of(rate: float) -> optax.GradientTransformation:
    """Adam with clipped gradients."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.language_model", description=__doc__)
    parser.add_argument("--seeds", type=int, default=12, help="how many, from 0 (--tune: from 1,000)")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--short", action="store_true", help="a small setting that only shows that everything runs")
    parser.add_argument("--tune", action="store_true", help="learning rates and steps for random pairs instead")
    parser.add_argument("--json", metavar="FILE", help="write the results here")
    parser.add_argument("--plot", metavar="FILE", help="draw the gains here")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 1:
        parser.error(f"--seeds {chosen.seeds}: at least 1")
    setting = SHORT if chosen.short else Setting()
    results = {"machine": machine(), "setting": asdict(setting), "arms": chosen.arms}
    if chosen.tune:
        results["tuning"] = tune(setting, chosen.labels, range(1_000, 1_000 + chosen.seeds))
    else:
        optimiser, results["seeds"] = optimiser_of(setting.learning_rate), []
        for seed in range(chosen.seeds):
            results["seeds"].append(one_seed(seed, setting, chosen.labels, chosen.arms, optimiser))
            results["summary"] = summary(results["seeds"])
            if "random_distinct" in chosen.arms:
                results["against_random_distinct"] = summary(results["seeds"], "random_distinct")
            print(json.dumps(results["seeds"][-1]), flush=True)
            write_json(results, chosen.json)
        for row in results["summary"]:
            print(json.dumps(row))
        if chosen.plot:
            plot_gains(results, chosen.plot)
    write_json(results, chosen.json)
    return results


if __name__ == "__main__":
    main()
