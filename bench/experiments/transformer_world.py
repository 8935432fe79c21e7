"""The world of a seed for `transformer`: a fine-tuned small transformer, its completions, features and rewards."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import jaxdesign as jd
from bench.experiments.transformer_head import HeadOnStates, divergence, with_head, with_states
from jaxdesign import preference as pref
from jaxdesign.preference.features.components import principal_components
from jaxdesign.preference.features.equals import first_of_equals
from jaxdesign.preference.features.pools import gradient_pool
from jaxdesign.preference.small_model.corpus import ALPHABET

TOKENISER = pref.Tokeniser(ALPHABET)
PROMPT_COLUMNS, COMPLETION_COLUMNS = 11, 27


@dataclass(frozen=True)
class Setting:
    """What makes a world, and what all arms share.

    `shares` of the kinds of prompts: names and colours have one right answer, notes a usual one, tales and odes are
    free. `scale` is the standard deviation of a word's hidden value, `projected` the dimension of gradients by
    the head, which is what DPO trains; `components` of them are kept.
    """

    corpus: int = 4_000
    pool: int = 200
    completions: int = 32
    held_back: int = 120
    samples: int = 64
    fine_tuning_steps: int = 600
    shares: tuple[tuple[str, float], ...] = (("name", 0.2), ("hue", 0.2), ("note", 0.2), ("tale", 0.2), ("ode", 0.2))
    scale: float = 1.0
    beta: float = 0.5
    projected: int = 512
    components: int = 64
    batch_size: int = 64


SHORT = Setting(
    corpus=400, pool=40, completions=6, held_back=32, samples=4, fine_tuning_steps=40, projected=32, components=8
)


CORRELATIONS = (0.5, 0.8)  # of proxies with the reward, within prompts


class World(NamedTuple):
    """What a seed decides; texts that came before in their prompt are masked in the pool.

    pool: (P, K) completions with features in units in which components have a mean variance of 1 within prompts.
    rewards: (P, K); proxies: correlation within prompts -> (P, K).
    """

    policy: pref.LanguageModel
    head: HeadOnStates
    prompts: np.ndarray
    completions: np.ndarray
    rewards: np.ndarray
    proxies: dict[float, np.ndarray]
    pool: jd.CompletionPool
    held_back: np.ndarray
    reward: pref.HiddenReward
    facts: dict[str, Any]


def make_world(seed: int, setting: Setting) -> World:
    """Corpus, supervised fine-tuning, completions of the pool's prompts, features, rewards and proxies of them."""
    corpus = pref.grammar_corpus(setting.corpus, seed=seed, shares=dict(setting.shares))
    learnt = TOKENISER.encode_prompts(corpus.prompts, PROMPT_COLUMNS)
    different = np.random.default_rng([seed, 5]).permutation(sorted(set(corpus.prompts)))
    different = different[: setting.pool + setting.held_back]
    initialise, sample, project = jax.random.split(jax.random.key(seed), 3)
    asked, held_back = np.split(TOKENISER.encode_prompts(different.tolist(), PROMPT_COLUMNS), [setting.pool])
    texts = corpus.draw(range(setting.corpus), seed)
    examples = pref.Examples(learnt, TOKENISER.encode_completions(texts, COMPLETION_COLUMNS))
    start = time.perf_counter()
    config = pref.LanguageModelConfig(
        TOKENISER.characters, max_length=PROMPT_COLUMNS + COMPLETION_COLUMNS, width=64, tied=False
    )
    blank = pref.LanguageModel(config, rngs=nnx.Rngs(initialise))
    tuned = pref.fine_tune(blank, examples, steps=setting.fine_tuning_steps, seed=seed)
    samples = pref.sample_completions(
        tuned.model, asked, sample, completions=setting.completions, length=COMPLETION_COLUMNS
    )
    completions = np.asarray(samples.tokens)
    gradients = gradient_pool(
        tuned.model, asked, completions, dimension=setting.projected, key=project, parameters=("head/*",)
    )
    found = principal_components(gradients.features, setting.components)
    pool = jd.CompletionPool(found.rows(gradients.features), mask=first_of_equals(completions))
    reward = pref.random_reward(seed, scale=setting.scale)
    rewards = np.asarray(reward(TOKENISER.decode_all(completions)), np.float64)
    facts = {
        "loss": float(tuned.losses[-50:].mean()),
        "entropy": float(corpus.entropies().mean()),
        "distinct": float(np.asarray(pool.mask).sum(axis=1).mean()),
        "reward_sd": float(np.sqrt(rewards.var(axis=1).mean())),
        "seconds": time.perf_counter() - start,
    }
    proxies = {rho: proxy_of(rewards, rho, np.random.default_rng([seed, 6])) for rho in CORRELATIONS}
    head = with_states(tuned.model, asked, completions)
    return World(tuned.model, head, asked, completions, rewards, proxies, pool, held_back, reward, facts)


def proxy_of(rewards: np.ndarray, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """Rewards with noise, so that their correlation within prompts is the one given, on average."""
    spread = np.sqrt(rewards.var(axis=1, ddof=1).mean())
    return rewards + spread * np.sqrt(1 / correlation**2 - 1) * rng.standard_normal(rewards.shape)


class Value(NamedTuple):
    """J and divergence from the reference of a policy, means over prompts and samples."""

    value: float
    kl: float


def value_of(policy: HeadOnStates, world: World, setting: Setting, seed: int) -> Value:
    """J of a policy on the held-back prompts, from fresh samples; the same seed for all policies of a world.

    `pref.sampled_policy_value` at two thirds of its cost: blocks below the head are the reference's own.
    """
    model = with_head(world.policy, policy)
    key, number = jax.random.key(10_000 + seed), setting.samples
    samples = pref.sample_completions(model, world.held_back, key, completions=number, length=COMPLETION_COLUMNS).tokens
    asked = np.repeat(world.held_back, number, axis=0)
    kl = np.asarray(divergence(policy, world.policy, asked, samples.reshape(-1, COMPLETION_COLUMNS)), np.float64).mean()
    reward = np.mean(world.reward(TOKENISER.decode_all(np.asarray(samples))))
    return Value(float(reward - setting.beta * kl), float(kl))
