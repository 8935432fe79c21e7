"""What labels say about the reward: Laplace's normal approximation, draws from it, and the gap it predicts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign._scoring import all_finite
from jaxdesign._scoring import scored_pool as scored_pool
from jaxdesign.belief import Belief, as_belief, at_unit_diagonal, unchecked_belief
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

    @property
    def belief(self) -> Belief:
        """The same as a `Belief`, so that a posterior can be passed wherever a prior can: labels may come in parts."""
        return Belief(self.parameter, self.information)


def fit_posterior(pool: CompletionPool, labels: Labels, prior: Any) -> Posterior:
    """Laplace's approximation of p(w | labels) under Bradley-Terry and the normal prior N(m, prior^-1).

    The mean is the mode w, the precision A = prior + sum_s n_s c(z_s . w) z_s z_s^T (`fit_bradley_terry`); ties count
    half, skips nothing; flips of the pool are the noise of every label. Without labels it is the prior.

    Args:
        pool: features and flips; its scores are not used.
        labels: labels of its pairs.
        prior: (d, d), or a scalar ridge, with m = 0; a `Belief`; or what holds one, such as an earlier Posterior.

    Returns:
        Posterior.

    Raises:
        ValueError: labels of pairs that do not exist, a prior that is no precision matrix.

    Source: Laplace's approximation; checked by tests/preference/fit/test_posterior.py.
    """
    check_labels(labels, pool)
    prior = as_belief(prior, pool.dim)
    pairs, wins, counts = counted(labels)
    if not len(pairs):
        return Posterior(np.asarray(prior.mean), np.asarray(prior.precision), True)
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
    return unchecked_belief(posterior.parameter, posterior.information).draws(number, seed)


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
    all_finite(parameters, "parameters / beta")
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
    found = at_unit_diagonal(posterior.information)
    if found is None:
        return float("inf")
    size, correlation = found
    return float(np.trace(np.linalg.solve(correlation, target / size[:, None] / size)) / (2 * beta))
