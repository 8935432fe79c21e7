"""Pools of one medium shape, ragged and heavy-tailed, with numbers that float32 adds and scales without rounding."""

from __future__ import annotations

import numpy as np

import jaxdesign
from jaxdesign import CompletionPool

SHAPE = PROMPTS, COMPLETIONS, DIM = 40, 8, 8  # one shape in all files that use it: each new one is a recompilation
DRAWS = 3


def dyadic(array, bits=10):
    """Rounded to multiples of 2^-bits: sums with other such numbers below 2^13 are exact in float32."""
    return (np.round(np.asarray(array) * 2.0**bits) / 2.0**bits).astype(np.float32)


def medium_arrays(seed, draws=None):
    """features, scores, mask: a third of the prompts ragged, one with a single completion, one with none, one copy."""
    rng = np.random.default_rng(seed)
    features = (
        rng.standard_normal(SHAPE) * np.exp(0.6 * rng.standard_normal((PROMPTS, 1, 1))) * np.geomspace(2, 0.5, DIM)
    )
    features += 2 * rng.standard_normal((PROMPTS, 1, DIM))
    scores = rng.standard_normal(SHAPE[:2] if draws is None else (draws, *SHAPE[:2]))
    mask = np.ones(SHAPE[:2], bool)
    for p in rng.choice(PROMPTS, PROMPTS // 3, replace=False):
        mask[p, rng.permutation(COMPLETIONS)[: rng.integers(1, COMPLETIONS - 1)]] = False
    mask[3, 1:], mask[7] = False, False
    features[5, 2] = features[5, 6]
    return dyadic(features), dyadic(scores), mask


def medium_pool(seed, draws=None):
    features, scores, mask = medium_arrays(seed, draws)
    return CompletionPool(np.where(mask[..., None], features, np.nan), scores, mask)


def solve(pool, criterion, budget, prior=None, tol=1e-6, **options):
    return jaxdesign.optimize(pool, criterion, budget, prior=prior, tol=tol, **options)


def dense(pool, design):
    """(P, K, K) labels, zero at i >= j."""
    labels = np.zeros((*pool.mask.shape, pool.completions))
    labels[tuple(design.pairs.T)] = design.labels
    return labels
