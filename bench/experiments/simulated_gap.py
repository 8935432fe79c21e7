"""Gap of policies fitted to simulated labels, beside the gap that (beta/2) tr(H F^-1) predicts; all in float64."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import jaxdesign as jd
from jaxdesign._arrays import float64
from jaxdesign.information import sparse_information
from jaxdesign.preference import fit_bradley_terry, log_policy, optimal_policy, policy_gap


class Truth(NamedTuple):
    """A problem solved exactly: pool (float64), log pi_ref (P, K), true reward parameter w = beta theta (d,), beta."""

    pool: jd.CompletionPool
    log_reference: Float[np.ndarray, "p k"]
    parameter: Float[np.ndarray, " d"]
    beta: float

    def scores(self, parameter=None) -> Float[np.ndarray, "*r p k"]:
        """Implicit rewards phi . w, at the truth or at (R, d) other parameters."""
        parameter = self.parameter if parameter is None else parameter
        return np.einsum("pkd,...d->...pk", np.asarray(self.pool.features), parameter)

    def target(self, parameter=None) -> Float[np.ndarray, "d d"]:
        """H = E_p Cov[phi] under the policy of a reward parameter, exact; by default of the true one."""
        with float64():
            return np.asarray(jd.policy_target(self.pool, self.log_reference + self.scores(parameter) / self.beta))


class Collected(NamedTuple):
    """Labels to collect: pairs (S, 3), counts (S,), and wins (S,) where they are already known, else NaN."""

    pairs: Int[np.ndarray, "s 3"]
    counts: Float[np.ndarray, " s"]
    wins: Float[np.ndarray, " s"]


def collect(pairs, counts) -> Collected:
    """Labels still to be simulated; pairs without any are left out."""
    keep = np.asarray(counts) > 0
    counts = np.asarray(counts, np.float64)[keep]
    return Collected(np.asarray(pairs)[keep], counts, np.full(len(counts), np.nan))


def win_probabilities(truth: Truth, pairs: Int[np.ndarray, "s 3"]) -> Float[np.ndarray, " s"]:
    """sigma(u_pi - u_pj) at the true parameter."""
    scores = truth.scores()
    p, i, j = pairs.T
    return 1 / (1 + np.exp(scores[p, j] - scores[p, i]))


def information(truth: Truth, labels: Collected) -> Float[np.ndarray, "d d"]:
    """A = sum n c z z^T at the true parameter, without a prior; F = beta^2 A."""
    chance = win_probabilities(truth, labels.pairs)
    with float64():
        rows = jd.pair_differences(truth.pool, labels.pairs)
        return np.asarray(sparse_information(rows, jnp.asarray(labels.counts * chance * (1 - chance))))


def predicted_gap(truth: Truth, labels: Collected) -> float:
    """(beta/2) tr(H F^-1) = tr(H A^-1) / (2 beta) at the truth (arXiv 2606.19607); inf where A is singular."""
    found = information(truth, labels)
    spectrum = np.linalg.eigvalsh(found)
    if spectrum[0] <= 1e-10 * spectrum[-1]:
        return np.inf
    return float(np.trace(np.linalg.solve(found, truth.target())) / (2 * truth.beta))


def simulated_gaps(truth: Truth, labels: Collected, repeats: int, seed: int) -> Float[np.ndarray, " n"]:
    """J(pi*) - J(pi) of unregularised maximum likelihood, one for each repeat; NaN where it does not exist.

    Wins that are NaN are drawn afresh, binomially, in every repeat; known ones stay. It does not exist where the labels
    can be separated: those repeats are for the caller to count.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.binomial(
        labels.counts.astype(int), win_probabilities(truth, labels.pairs), (repeats, len(labels.pairs))
    )
    wins = np.where(np.isnan(labels.wins), drawn, labels.wins)
    room = 1 << (len(labels.pairs) - 1).bit_length()  # a power of two rows, so that few shapes are compiled
    extra = room - len(labels.pairs)
    with float64():
        rows = np.pad(np.asarray(jd.pair_differences(truth.pool, labels.pairs)), ((0, extra), (0, 0)))
        counts, wins = np.pad(labels.counts, (0, extra)), np.pad(wins, ((0, 0), (0, extra)))
        gaps, converged = _gaps(truth.pool, truth.log_reference, truth.parameter, truth.beta, rows, counts, wins)
    return np.where(np.asarray(converged), np.asarray(gaps), np.nan)


@jax.jit
def _gaps(pool, log_reference, parameter, beta, rows, counts, wins) -> tuple[Array, Array]:
    best = optimal_policy(jnp.einsum("pkd,d->pk", pool.features, parameter), beta, pool.mask, log_reference)

    def one(won):
        fit = fit_bradley_terry(rows, won, counts)
        return policy_gap(log_policy(pool, fit.parameter / beta, log_reference), best, beta), fit.converged

    return jax.lax.map(one, wins, batch_size=50)
