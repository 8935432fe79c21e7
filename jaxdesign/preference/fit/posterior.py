"""What labels say about the reward: Laplace's normal approximation, draws from it, and the gap it predicts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.information import pair_differences, pair_flips
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.fit.bradley_terry import fit_bradley_terry
from jaxdesign.preference.labels.labels import Labels, check_labels, counted
from jaxdesign.preference.log_linear import log_policy
from jaxdesign.preference.targets import check_log_weights, in_unit_columns
from jaxdesign.targets import policy_target


class Posterior(NamedTuple):
    """N(parameter, information^-1) for the reward parameter w = beta theta; float64 NumPy.

    Args:
        parameter: the mode w, (d,).
        information: A, the precision, (d, d).
        converged: whether a mode was found; without a prior none may exist (labels that can be separated), and where
            labels flip there may be others: `fit_bradley_terry` says what it means.
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

    Returns:
        Posterior.

    Raises:
        ValueError: labels of pairs that do not exist, a prior that is no precision matrix.

    Source: Laplace's approximation; checked by tests/preference/fit/test_posterior.py.
    """
    check_labels(labels, pool)
    prior = np.asarray(prior, np.float64)
    prior = _checks.symmetric_psd(float(prior) * np.eye(pool.dim) if prior.ndim == 0 else prior, pool.dim, "prior")
    pairs, wins, counts = counted(labels)
    if not len(pairs):
        return Posterior(np.zeros(pool.dim), prior, True)
    padding = _arrays.power_of_two(len(pairs)) - len(pairs)
    pairs = np.concatenate([pairs, np.repeat(pairs[:1], padding, axis=0)])
    wins, counts = np.pad(wins, (0, padding)), np.pad(counts, (0, padding))
    with _arrays.float64():
        differences = np.asarray(pair_differences(pool, pairs))
        flip = pair_flips(pool, pairs)
    found = fit_bradley_terry(differences, wins, counts, prior=prior, flip=0.0 if flip is None else np.asarray(flip))
    return Posterior(np.asarray(found.parameter), np.asarray(found.information), bool(found.converged))


def posterior_draws(posterior: Posterior, number: int, seed: int) -> Float[np.ndarray, "r d"]:
    """`number` draws of w ~ N(parameter, A^-1), by L^-T e with A = L L^T, whatever the units of the features.

    Args:
        posterior: the normal distribution.
        number: R, at least 1.
        seed: of NumPy's default generator.

    Returns:
        (R, d) float64.

    Raises:
        ValueError: number below 1, or information that is singular at unit diagonal (condition above 1e12; a prior
            makes it regular).

    Source: derived; checked by tests/preference/fit/test_posterior.py.
    """
    if number < 1:
        raise ValueError(f"number={number}: at least one draw is needed")
    found = _at_unit_diagonal(posterior.information)
    if found is None:
        raise ValueError("posterior.information: singular, so there is nothing to draw from; pass a prior")
    size, correlation = found
    noise = np.random.default_rng(seed).standard_normal((len(size), number))
    return posterior.parameter + np.linalg.solve(np.linalg.cholesky(correlation).T, noise).T / size


def scored_pool(pool: CompletionPool, parameters: Float[AnyArray, "*r d"]) -> CompletionPool:
    """The pool with scores u = phi . w: (P, K), or (R, P, K) for R parameters, over which criteria then average.

    The mean of each prompt is taken off, in float64 and before scores are rounded to float32, so that margins keep
    their digits; only differences within a prompt mean anything.

    Args:
        pool: any pool; scores it has are replaced.
        parameters: w, (d,) or (R, d).

    Returns:
        CompletionPool with float32 scores, in the unit of the reward.

    Raises:
        ValueError: parameters or scores that are not finite.

    Source: derived; checked by tests/preference/fit/test_posterior.py.
    """
    parameters, mask = np.asarray(parameters, np.float64), np.asarray(pool.mask)
    _finite(parameters, "parameters")
    scores = np.einsum("pkd,...d->...pk", np.asarray(pool.features, np.float64), parameters, optimize=True)
    means = np.sum(scores, axis=-1, where=mask, keepdims=True) / np.maximum(mask.sum(axis=-1, keepdims=True), 1)
    return CompletionPool(
        pool.features, np.where(mask, scores - means, 0).astype(np.float32), mask, pool.ids, pool.flip
    )


def posterior_targets(
    deployment: CompletionPool,
    parameters: Float[AnyArray, "*r d"],
    beta: float,
    reference: Float[AnyArray, "p k"] | None = None,
) -> Float[np.ndarray, "*r d d"]:
    """H of the policy each reward parameter leads to: mean of Cov[phi] under pi_ref exp(phi . w / beta).

    Args:
        deployment: the prompts that matter, with completions and features in the basis of the design's pool.
        parameters: w, (d,) or (R, d).
        beta: strength of the KL term, positive.
        reference: (P, K) log-probability of each completion relative to how often it is in the pool: None where the
            completions were sampled from the reference policy; log pi_ref where the pool lists all completions, -inf
            for those it never gives. Masked slots may hold anything.

    Returns:
        (d, d), or (R, d, d); float64, in the units of the features, whatever they are.

    Raises:
        ValueError: parameters / beta not finite, beta not positive, reference of another shape, NaN or inf, or -inf for
            a whole prompt.

    Source: arXiv 2606.19607 (H at the policy that a reward leads to); checked by
    tests/preference/fit/test_posterior.py.
    """
    beta = _checks.positive_finite(beta, "beta", "the strength of the policy's KL term")
    with np.errstate(over="ignore"):
        parameters = np.asarray(parameters, np.float64) / beta
    _finite(parameters, "parameters / beta")
    mask = np.asarray(deployment.mask)
    if reference is not None:
        reference = np.where(mask, check_log_weights(np.asarray(reference, np.float64), mask, "reference"), 0.0)
    with _arrays.float64():
        logs = np.asarray(log_policy(deployment, parameters, reference))
    logs = np.where(mask, logs, 0.0)
    pool, unit = in_unit_columns(deployment)
    found = [np.asarray(policy_target(pool, one), np.float64) for one in logs.reshape(-1, *logs.shape[-2:])]
    return np.stack(found).reshape(*parameters.shape[:-1], *found[0].shape) / unit[:, None] / unit


def predicted_gap(posterior: Posterior, target: Float[AnyArray, "d d"], beta: float) -> float:
    """tr(H A^-1) / (2 beta): expected policy gap of the policy at the posterior mode, to second order.

    inf where the information A is singular at unit diagonal (condition above 1e12): then some direction that the policy
    may need is open. The units of the features do not matter.

    Args:
        posterior: its information is A.
        target: H, (d, d).
        beta: strength of the policy's KL term, above 0.

    Returns:
        A float, in the unit of the reward.

    Raises:
        ValueError: beta not positive; a target of another shape, not finite or not positive semidefinite.

    Source: arXiv 2606.19607; checked by tests/preference/test_predicted_gap.py.
    """
    beta = _checks.positive_finite(beta, "beta", "the strength of the policy's KL term")
    target = _checks.symmetric_psd(np.asarray(target, np.float64), len(posterior.information), "target")
    found = _at_unit_diagonal(posterior.information)
    if found is None:
        return float("inf")
    size, correlation = found
    return float(np.trace(np.linalg.solve(correlation, target / size[:, None] / size)) / (2 * beta))


def _at_unit_diagonal(information: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """s and C with A = diag(s) C diag(s), C of unit diagonal; None where C is singular (condition above 1e12)."""
    information = np.asarray(information, np.float64)
    diagonal = np.diagonal(information)
    if not (np.isfinite(information).all() and (diagonal > 0).all()):
        return None
    size = np.sqrt(diagonal)
    correlation = information / size[:, None] / size
    spectrum = np.linalg.eigvalsh(correlation)
    return (size, correlation) if spectrum[0] > 1e-12 * spectrum[-1] else None


def _finite(parameters: np.ndarray, name: str) -> None:
    if not np.isfinite(parameters).all():
        place = np.argwhere(~np.isfinite(parameters))[0].tolist()
        raise ValueError(f"{name}: {parameters[tuple(place)]} at {place}; must be finite")
