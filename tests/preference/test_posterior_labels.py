"""Soft labels of a belief: every pair of different completions once, and the policy that fits them all."""

import numpy as np
import pytest

from jaxdesign import Belief, CompletionPool, policy_target
from jaxdesign.preference import fit_bradley_terry, posterior_policy, posterior_targets, soft_labels
from tests.support.problems import DIM, random_pool, written_out

POOL = random_pool(0, scores="no")  # with masked slots, a prompt of one completion, and a copy
MEAN = np.array([1.0, -2.0, 0.5])
BELIEF = Belief(MEAN, np.eye(DIM))
PAIRS, Z, _ = written_out(POOL)


def test_every_pair_of_different_completions_is_there_once():
    found = soft_labels(POOL, BELIEF)
    features = np.asarray(POOL.features)
    copies = {(p, j) for p, i, j in np.argwhere((features[:, :, None] == features[:, None]).all(-1)) if i < j}
    mask = np.asarray(POOL.mask)
    left = [tuple(pair) for pair in PAIRS.tolist() if mask[pair[0], pair[1]] and mask[pair[0], pair[2]]]
    left = [(p, i, j) for p, i, j in left if (p, i) not in copies and (p, j) not in copies]
    assert list(map(tuple, found.pairs.tolist())) == left and len(left) > 20
    p, i, j = found.pairs.T
    margins = (np.float64(features[p, i]) - features[p, j]) @ MEAN
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-margins)), rtol=1e-5)


def test_some_are_drawn_without_replacement_and_by_seed():
    every = set(map(tuple, soft_labels(POOL, BELIEF).pairs.tolist()))
    one, two = (soft_labels(POOL, BELIEF, number=9, seed=seed) for seed in (0, 1))
    for found in (one, two):
        assert len(found.pairs) == 9 and len(set(map(tuple, found.pairs.tolist())) & every) == 9
    assert (one.pairs != two.pairs).any()
    assert len(soft_labels(POOL, BELIEF, number=10**6).pairs) == len(every)


def test_the_fit_to_soft_labels_is_the_mean_again():
    """Without any prior, and whichever pairs were drawn: training on them has nothing to gain from stopping early."""
    for seed in range(3):
        found = soft_labels(POOL, BELIEF, number=8, seed=seed)
        p, i, j = found.pairs.T
        z = np.asarray(POOL.features, np.float64)[p, i] - np.asarray(POOL.features, np.float64)[p, j]
        fit = fit_bradley_terry(z, found.probabilities, np.ones(len(p)))
        np.testing.assert_allclose(fit.parameter, MEAN, rtol=1e-4)


def test_the_policy_in_closed_form_has_these_margins():
    rng, beta = np.random.default_rng(0), 0.5
    reference = rng.standard_normal(POOL.mask.shape)
    found = posterior_policy(POOL, BELIEF, beta, reference)
    mask = np.asarray(POOL.mask)
    assert (np.isneginf(found) == ~mask).all()
    np.testing.assert_allclose(np.sum(np.exp(found), axis=1)[mask.any(1)], 1, rtol=1e-10)
    p, i, j = soft_labels(POOL, BELIEF).pairs.T
    rewards = beta * (np.where(mask, found, 0) - reference)
    margins = (np.float64(POOL.features)[p, i] - np.float64(POOL.features)[p, j]) @ MEAN
    np.testing.assert_allclose(rewards[p, i] - rewards[p, j], margins, rtol=1e-9, atol=1e-9)
    target = policy_target(POOL, np.where(mask, found, 0))
    np.testing.assert_allclose(target, posterior_targets(POOL, MEAN, beta, reference), rtol=1e-4, atol=1e-6)


def test_certain_labels_are_no_overflow():
    pool = CompletionPool(np.float32([[[2000.0], [0.0]], [[-2000.0], [0.0]]]))
    np.testing.assert_array_equal(soft_labels(pool, Belief(np.ones(1), np.eye(1))).probabilities, [1, 0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: soft_labels(POOL, BELIEF, number=0), "number=0: must be a whole number of at least 1"),
        (lambda: soft_labels(POOL, Belief(np.zeros(2), np.eye(2))), "about 2 parameters found for 3 features"),
        (lambda: posterior_policy(POOL, BELIEF, 0.0), "beta=0: must be positive"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
