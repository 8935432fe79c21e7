"""What labels say about the reward: Laplace's normal approximation, draws from it, and the gap it predicts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign import _arrays, _checks
from jaxdesign.information import pair_differences, pair_flips, policy_target
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.bradley_terry import fit_bradley_terry
from jaxdesign.preference.labels import Labels, check_labels, counted
from jaxdesign.preference.log_linear import log_policy


class Posterior(NamedTuple):
    """N(parameter, information^-1) for the reward parameter w = beta theta; float64 NumPy.

    converged: whether the mode was found; without a prior it may not exist (labels that can be separated).
    """

    parameter: Float[np.ndarray, " d"]
    information: Float[np.ndarray, "d d"]
    converged: bool


def fit_posterior(pool: CompletionPool, labels: Labels, prior: Any) -> Posterior:
    """Laplace's approximation of p(w | labels) under Bradley-Terry and the normal prior N(0, prior^-1).

    The mean is the mode w, the precision A = prior + sum_s n_s c(z_s . w) z_s z_s^T (`fit_bradley_terry`); ties count
    half, skips nothing; flips of the pool are the noise of every label. Without labels it is the prior.

    Args:
        pool: features and flips; its scores are not used.
        labels: labels of its pairs.
        prior: (d, d), or a scalar ridge.

    Raises:
        ValueError: labels of pairs that do not exist, a prior that is no precision matrix.
    """
    check_labels(labels, pool)
    prior = np.asarray(prior, np.float64)
    prior = _checks.symmetric_psd(float(prior) * np.eye(pool.dim) if prior.ndim == 0 else prior, pool.dim, "prior")
    pairs, wins, counts = counted(labels)
    if not len(pairs):
        return Posterior(np.zeros(pool.dim), prior, True)
    room = _arrays.power_of_two(len(pairs)) - len(pairs)
    pairs = np.concatenate([pairs, np.repeat(pairs[:1], room, axis=0)])
    wins, counts = np.pad(wins, (0, room)), np.pad(counts, (0, room))
    with _arrays.float64():
        differences = np.asarray(pair_differences(pool, pairs))
        flip = pair_flips(pool, pairs)
    found = fit_bradley_terry(differences, wins, counts, prior=prior, flip=0.0 if flip is None else np.asarray(flip))
    return Posterior(np.asarray(found.parameter), np.asarray(found.information), bool(found.converged))


def posterior_draws(posterior: Posterior, number: int, seed: int) -> Float[np.ndarray, "r d"]:
    """`number` draws of w ~ N(parameter, A^-1), by L^-T e with A = L L^T.

    Raises:
        ValueError: number below 1, or information that is singular (a prior makes it regular).
    """
    if number < 1:
        raise ValueError(f"number={number}: at least one draw is needed")
    try:
        factor = np.linalg.cholesky(posterior.information)
    except np.linalg.LinAlgError:
        raise ValueError("posterior.information: singular, so there is nothing to draw from; pass a prior") from None
    noise = np.random.default_rng(seed).standard_normal((len(factor), number))
    return posterior.parameter + np.linalg.solve(factor.T, noise).T


def scored_pool(pool: CompletionPool, parameters: Float[np.ndarray, "*r d"]) -> CompletionPool:
    """The pool with scores u = phi . w: (P, K), or (R, P, K) for R parameters, over which criteria then average."""
    parameters = np.asarray(parameters, np.float64)
    scores = np.einsum("pkd,...d->...pk", np.asarray(pool.features, np.float64), parameters, optimize=True)
    return CompletionPool(pool.features, scores.astype(np.float32), np.asarray(pool.mask), pool.ids, pool.flip)


def posterior_targets(
    deployment: CompletionPool,
    parameters: Float[np.ndarray, "*r d"],
    beta: float,
    reference: Float[np.ndarray, "p k"] | None = None,
) -> Float[np.ndarray, "*r d d"]:
    """H of the policy each reward parameter leads to: mean of Cov[phi] under pi_ref exp(phi . w / beta).

    Args:
        deployment: the prompts that matter, with completions and features in the basis of the design's pool.
        parameters: w, (d,) or (R, d).
        beta: strength of the KL term, positive.
        reference: (P, K) log-probability of each completion relative to how often it is in the pool: None where the
            completions were sampled from the reference policy; log pi_ref where the pool lists all completions.
    """
    beta = _checks.positive_finite(beta, "beta", "the strength of the policy's KL term")
    parameters = np.asarray(parameters, np.float64)
    _checks.finite(parameters, "parameters")
    with _arrays.float64():
        logs = np.asarray(log_policy(deployment, parameters / beta, reference))
    logs = np.where(np.asarray(deployment.mask), logs, 0.0)
    found = [np.asarray(policy_target(deployment, one), np.float64) for one in logs.reshape(-1, *logs.shape[-2:])]
    return np.stack(found).reshape(*parameters.shape[:-1], *found[0].shape)


def predicted_gap(posterior: Posterior, target: Float[np.ndarray, "d d"], beta: float) -> float:
    """tr(H A^-1) / (2 beta): expected policy gap of the policy at the posterior mode, to second order (2606.19607).

    inf where the information A is singular to working precision (condition above 1e12).
    """
    beta = _checks.positive_finite(beta, "beta", "the strength of the policy's KL term")
    spectrum = np.linalg.eigvalsh(posterior.information)
    if not spectrum[0] > 1e-12 * spectrum[-1]:
        return float("inf")
    return float(np.trace(np.linalg.solve(posterior.information, target)) / (2 * beta))
