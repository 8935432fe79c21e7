"""Kinds of flip noise and of scores that tests run over, and values of pairs as arrays."""

import numpy as np
import pytest

from tests.support.problems import COMPLETIONS, PROMPTS, random_spd

slow = pytest.mark.slow
KINDS, SCORES = ["one", "prompt", "pair"], ["no", "yes", "draws"]
every_kind = pytest.mark.parametrize("flip", KINDS)
# solvers compile for every kind: those of pairs, which are the most general, run daily
pairs_daily = pytest.mark.parametrize(
    "flip", [pytest.param(flip, marks=[] if flip == "pair" else slow) for flip in KINDS]
)
# kernels too, for scores of every kind as well: each kind of both runs daily, once
every_kind_and_score = pytest.mark.parametrize(
    ("scores", "flip"),
    [
        pytest.param(scores, flip, marks=[] if SCORES.index(scores) == KINDS.index(flip) else slow)
        for scores in SCORES
        for flip in KINDS
    ],
)


def symmetric(pairs, values):
    dense = np.zeros((PROMPTS, COMPLETIONS, COMPLETIONS))
    p, i, j = pairs.T
    dense[p, i, j] = dense[p, j, i] = values
    return dense


def random_G(seed, draws):
    return np.stack([random_spd([seed, r]) for r in range(draws or 1)])
