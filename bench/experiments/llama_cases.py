"""Splits of the real language model's completions: features, labels, and J of log-linear policies, exact.

A split holds prompts back, and its features are principal components of the training prompts, of mean variance 1: raw,
or with long rows clipped. A pair has the same label whoever asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

import jaxdesign as jd
from bench.experiments.rewards import PROXIES
from jaxdesign import preference as pref
from jaxdesign.preference.features.clipping import clip_rows
from jaxdesign.preference.features.components import principal_components
from jaxdesign.preference.features.equals import first_of_equals
from jaxdesign.preference.labels.labels import FIRST, SECOND

REWARDS = ("word_length", "bounded_word_length", "sentiment", "first_person")
VARIANTS = ("raw", "clipped")
COMPONENTS = 64
TRAINING = 0.77  # share of the prompts
AGREEMENT = 0.77  # of a label with the better of two different rewards
RIDGES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
MULTIPLES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
TUNING_SEED = 1000  # the first; those of reports begin at 0


class Reward(NamedTuple):
    """Its name, (P, K) values over their temperature, and those of the first half of every text, where there are."""

    name: str
    values: Float[np.ndarray, "p k"]
    proxy: Float[np.ndarray, "p k"] | None


class Pool(NamedTuple):
    """What a pool file has: features (P, K, d), rewards, the first of equal texts."""

    features: Float[np.ndarray, "p k d"]
    rewards: dict[str, Reward]
    first: Bool[np.ndarray, "p k"]


class Case(NamedTuple):
    """One split in one variant with K completions."""

    pool: jd.CompletionPool
    deployment: jd.CompletionPool
    training: Int[np.ndarray, " t"]
    held_back: Int[np.ndarray, " h"]
    luck: Float[np.ndarray, "t k k"]  # uniform numbers, one for every pair


def load(path: str, temperatures: dict[str, float]) -> Pool:
    """A pool as it was written, its rewards divided by their temperatures."""
    stored = np.load(path)
    rewards = {}
    for name in REWARDS:
        proxy = stored[f"half_{name}"] if name in PROXIES else None
        rewards[name] = Reward(name, stored[name].astype(np.float64) / temperatures[name], proxy)
    return Pool(stored["mean"].astype(np.float32), rewards, first_of_equals(stored["texts"]))


def temperatures_of(path: str) -> dict[str, float]:
    """The temperature of every reward of a pool."""
    stored = np.load(path)
    return {name: temperature(stored[name].astype(np.float64)) for name in REWARDS}


def temperature(rewards: Float[np.ndarray, "p k"]) -> float:
    """T at which labels name the better of two different rewards AGREEMENT of the time."""
    i, j = np.triu_indices(rewards.shape[1], 1)
    margin = np.abs(rewards[:, i] - rewards[:, j])
    margin = margin[margin > 0]
    low, high = np.log(margin.max() * 1e-3), np.log(margin.max() * 1e3)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-margin / np.exp(middle)))) > AGREEMENT else (low, middle)
    return float(np.exp(low))


def make_case(pool: Pool, variant: str, completions: int, seed: int, components: int = COMPONENTS) -> Case:
    """Split the prompts; the same seed splits alike for every variant and K."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool.features))
    training, held_back = (np.sort(part) for part in np.split(order, [round(TRAINING * len(order))]))
    luck = rng.random((len(training), *[pool.features.shape[1]] * 2), np.float32)[:, :completions, :completions]
    some = pool.features[:, :completions]
    found = principal_components(some[training], min(components, some.shape[2]))
    seen, unseen = (found.rows(some[part]) for part in (training, held_back))
    seen = jd.CompletionPool(seen, mask=pool.first[training, :completions])  # choices and labels
    unseen = jd.CompletionPool(unseen)  # a sample of the policy, repeats included
    if variant == "clipped":
        clipped = clip_rows(seen)
        seen, unseen = clipped.pool, clip_rows(unseen, length=clipped.length).pool
    return Case(seen, unseen, training, held_back, luck)


def ask(case: Case, rewards: Float[np.ndarray, "p k"], pairs: Int[np.ndarray, "n 3"]) -> pref.Labels:
    """The label of each pair."""
    p, i, j = np.asarray(pairs).T
    return pref.as_labels(pairs, np.where(case.luck[p, i, j] < chances(case, rewards, pairs), FIRST, SECOND))


def chances(case: Case, rewards: Float[np.ndarray, "p k"], pairs: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """How likely the first of each pair of the training prompts is preferred, by Bradley-Terry."""
    p, i, j = np.asarray(pairs).T
    own = rewards[case.training]
    return 1 / (1 + np.exp(own[p, j] - own[p, i]))


def fitted(case: Case, labels: pref.Labels, belief: Any) -> Float[np.ndarray, " d"]:
    return pref.fit_posterior(case.pool, labels, belief).parameter


def gains(
    case: Case, rewards: Float[np.ndarray, "p k"], parameter: Float[np.ndarray, " d"], multiples: Sequence[float]
) -> Float[np.ndarray, "m h"]:
    """J - J(reference) of every held-back prompt, for multiples of a fitted parameter."""
    own = rewards[case.held_back][:, : case.deployment.completions]
    scores = np.asarray(case.deployment.features, np.float64) @ parameter
    logs = np.multiply.outer(np.asarray(multiples), scores)
    logs -= logs.max(axis=-1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=-1, keepdims=True))
    law = np.exp(logs)
    value = (law * own).sum(axis=-1) - (law * (logs + np.log(own.shape[1]))).sum(axis=-1)
    return value - own.mean(axis=-1)


def ceiling(case: Case, rewards: Float[np.ndarray, "p k"], seed: int, number: int = 50_000) -> np.ndarray:
    """The parameter that the true probabilities of very many pairs lead to."""
    rng = np.random.default_rng([seed, 1])
    own, features = rewards[case.training], np.asarray(case.pool.features, np.float64)
    p, i, j = rng.integers(len(own), size=number), *rng.integers(features.shape[1], size=(2, number))
    chance = 1 / (1 + np.exp(own[p, j] - own[p, i]))
    found = pref.fit_bradley_terry(features[p, i] - features[p, j], chance, np.ones(number), prior=30.0)
    return np.asarray(found.parameter)
