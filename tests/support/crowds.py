"""Simulated annotators of known reliability, and the likelihood of their labels written out."""

import jax
import numpy as np

from jaxdesign import CompletionPool
from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE
from jaxdesign.preference.simulation.annotators import make_annotators, simulate_labels

ETA = np.array([0.98, 0.9, 0.75, 0.6])


def a_pool(seed=0, prompts=30, completions=4, dim=4):
    return CompletionPool(np.random.default_rng(seed).standard_normal((prompts, completions, dim)))


def plain_pool(prompts=30):
    """Pairs (p, 0, 1) that all differ by 1."""
    rows = np.zeros((prompts, 2, 1), np.float32)
    rows[:, 0] = 1
    return CompletionPool(rows)


def a_truth(pool, seed=0, size=2.0):
    w = np.random.default_rng(seed + 100).standard_normal(pool.dim)
    return size * w / np.linalg.norm(w) * np.sqrt(pool.dim) / 2


def judged(pool, truth, eta, repeats, seed=0, **options):
    """Every pair labelled `repeats` times by every annotator."""
    i, j = np.triu_indices(pool.completions, 1)
    pairs = np.array([(p, a, b) for p in range(pool.num_prompts) for a, b in zip(i, j, strict=True)], np.int32)
    rows = np.tile(np.repeat(pairs, len(eta), axis=0), (repeats, 1))
    who = np.tile(np.arange(len(eta)), len(pairs) * repeats)
    rewards = np.asarray(pool.features) @ truth
    crew = make_annotators(flip=1 - np.asarray(eta), **options)
    return simulate_labels(jax.random.key(seed), rewards, rows, crew, who=who)


def differences(pool, pairs):
    features, (p, i, j) = np.asarray(pool.features, np.float64), np.asarray(pairs).T
    return features[p, i] - features[p, j]


def log_likelihood(pool, labels, w, eta):
    """Written out label by label; a tie is half a clean label each way."""
    u = differences(pool, labels.pairs) @ w
    p = 1 / (1 + np.exp(-u))
    q = eta[labels.annotators] * p + (1 - eta[labels.annotators]) * (1 - p)
    each = {FIRST: np.log(q), SECOND: np.log(1 - q), TIE: (np.log(p) + np.log(1 - p)) / 2, SKIP: 0 * p}
    return sum(each[code][labels.choices == code].sum() for code in each)
