"""Labels of pairs of a small pool under a reward that is linear in the features up to a bend, and fits to check by."""

from typing import NamedTuple

import jax
import numpy as np
from scipy import optimize, special

from jaxdesign.pool import CompletionPool
from jaxdesign.preference.labels.labels import FIRST, SECOND, TIE, Labels


def labels_of(pairs, wins, losses, ties=0):
    """Labels from counts by pair."""
    pairs, wins, losses = np.asarray(pairs, np.int32), np.asarray(wins), np.asarray(losses)
    ties = np.broadcast_to(ties, wins.shape)
    rows = np.concatenate([np.repeat(pairs, counts, axis=0) for counts in (wins, losses, ties)])
    numbers = [wins.sum(), losses.sum(), ties.sum()]
    return Labels(rows, np.repeat([FIRST, SECOND, TIE], numbers).astype(np.int8), np.zeros(len(rows), np.int32))


def all_pairs(prompts, completions):
    i, j = np.triu_indices(completions, 1)
    return np.column_stack([np.repeat(np.arange(prompts), len(i)), np.tile(i, prompts), np.tile(j, prompts)])


class Problem(NamedTuple):
    """pool, target policy (P, K), all pairs (N, 3), z (N, d), chances (N,), labels of each pair (N,)."""

    pool: CompletionPool
    policy: np.ndarray
    pairs: np.ndarray
    rows: np.ndarray
    chances: np.ndarray
    counts: np.ndarray

    def drawn(self, rng):
        """Labels of the fixed counts."""
        wins = rng.binomial(self.counts, self.chances)
        return labels_of(self.pairs, wins, self.counts - wins)

    def mass(self):
        """The target law over all pairs, by hand."""
        policy = special.softmax(self.policy, axis=1)
        p, i, j = self.pairs.T
        mass = policy[p, i] * policy[p, j]
        return mass / mass.sum()


def bent(bend, labels=2000, prompts=4, completions=5, dim=3, seed=0):
    """A policy that likes the direction along which the reward bends: reward phi . w + bend (phi_1^2 - 1)."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((prompts, completions, dim))
    parameter = rng.standard_normal(dim)
    reward = features @ (parameter / np.linalg.norm(parameter)) + bend * (features[..., 0] ** 2 - 1)
    policy = 0.4 * rng.standard_normal((prompts, completions)) + 0.6 * features[..., 0]
    pairs = all_pairs(prompts, completions)
    p, i, j = pairs.T
    counts = np.maximum(1, rng.multinomial(labels, rng.dirichlet(np.full(len(pairs), 5.0))))
    with jax.enable_x64(True):
        pool = CompletionPool(features)
    chances = special.expit(reward[p, i] - reward[p, j])
    return Problem(pool, policy, pairs, features[p, i] - features[p, j], chances, counts)


def directly(rows, worth, masses):
    """argmin_w sum m [softplus(z . w) - y z . w], by a general optimiser and its own Newton steps."""

    def loss(w):
        gaps = rows @ w
        return masses @ (np.logaddexp(0, gaps) - worth * gaps)

    def slope(w):
        return rows.T @ (masses * (special.expit(rows @ w) - worth))

    def curvature(w):
        chances = special.expit(rows @ w)
        return (rows * (masses * chances * (1 - chances))[:, None]).T @ rows

    found = optimize.minimize(loss, np.zeros(rows.shape[1]), jac=slope, method="BFGS", options={"gtol": 1e-9}).x
    for _ in range(3):
        found = found - np.linalg.solve(curvature(found), slope(found))
    return found
