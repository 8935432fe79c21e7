"""Pools small enough to choose from by hand, and the pairs a selector of others chooses, as sets."""

import numpy as np

from jaxdesign import Budget, CompletionPool, LogDet
from tests.support.problems import COMPLETIONS, DIM, PROMPTS


def picks(select, pool, total, prior=1.0, crit=None, seed=0, **caps):
    """The pairs chosen, as a set of tuples."""
    caps = {"per_pair": 1} | caps
    design = select(pool, LogDet() if crit is None else crit, Budget(total, **caps), prior=prior, seed=seed)
    assert (design.labels == 1).all()
    return set(map(tuple, design.pairs.tolist()))


def by_hand(features, scores=None):
    """A small pool in the shape of `random_pool`, empty slots and zero dimensions around it: nothing is compiled anew.

    A list of vectors is a regression problem: prompt e offers the pair x_e and 0.
    """
    features = np.asarray(features, np.float32)
    if features.ndim == 2:
        features = np.stack([features, 0 * features], axis=1)
    prompts, completions, dim = features.shape
    whole, mask = np.zeros((PROMPTS, COMPLETIONS, DIM), np.float32), np.zeros((PROMPTS, COMPLETIONS), bool)
    whole[:prompts, :completions, :dim], mask[:prompts, :completions] = features, True
    u = np.zeros((PROMPTS, COMPLETIONS), np.float32)
    u[:prompts, :completions] = 0 if scores is None else scores
    return CompletionPool(whole, u, mask)


def first(*prompts):
    """Pairs of a regression problem."""
    return {(p, 0, 1) for p in prompts}
