"""Policies and Bradley-Terry preferences over a few answers, and votes between two of the policies."""

import numpy as np

from tests.support.tournaments import bradley_terry


def softmax(logits):
    weights = np.exp(logits - np.max(logits))
    return weights / weights.sum()


def share_won(on, off, rewards):
    """pi_on^T P pi_off."""
    return float(on @ bradley_terry(rewards) @ off)


def votes_between(on, off, rewards, prompts, votes, seed, flip=0.0):
    """(prompts,) wins of the first policy: a vote is between fresh answers of both, wrong with probability `flip`."""
    rng = np.random.default_rng(seed)
    shape = prompts, votes
    ours, theirs = (rng.choice(len(policy), shape, p=policy) for policy in (on, off))
    right = rng.random(shape) < bradley_terry(rewards)[ours, theirs]
    return (right ^ (rng.random(shape) < flip)).sum(axis=1).astype(float)


def divergence(p, q):
    """KL(p || q)."""
    return float(np.sum(p * np.log(p / q)))
