"""Scores and targets of a policy from a pool: implicit rewards, and H where completions were sampled, not enumerated.

`jaxdesign.policy_target` takes the completions of a prompt for all the answers there are. Completions that were drawn
from a policy are a sample, and three things change: their plain covariance is too small by (K - 1) / K; where they
were drawn from another policy than the one that matters (a temperature, an older checkpoint) they need importance
weights; and weights that sit on one completion say nothing, which the effective sample size shows.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.pool import CompletionPool
from jaxdesign.targets import completion_shares, mixed_covariance


class SampledTarget(NamedTuple):
    """H estimated from sampled completions, and how many completions of each prompt it really rests on.

    Args:
        matrix: H, (d, d) float64.
        effective: (P,) effective sample size of each prompt, 0 where it has no completion.
    """

    matrix: Float[np.ndarray, "d d"]
    effective: Float[np.ndarray, " p"]


class DeploymentTarget(NamedTuple):
    """H of a deployment pool in the basis of the labelled pool.

    Args:
        matrix: B^T H B, (r, r) float64.
        effective: (P,) effective sample size of each deployment prompt.
        outside: share of tr H that lies outside of the basis: no pair of the labelled pool informs about it.
    """

    matrix: Float[np.ndarray, "r r"]
    effective: Float[np.ndarray, " p"]
    outside: float


def implicit_rewards(
    log_policy: Float[AnyArray, "*r p k"], log_reference: Float[AnyArray, "p k"], beta: float, mask: Any = None
) -> Float[Array, "*r p k"]:
    """Scores u = beta (log pi_theta - log pi_ref) of completions: what `CompletionPool(scores=...)` takes.

    Args:
        log_policy: (P, K) log pi_theta(y|x), or (R, P, K) for R draws of parameters.
        log_reference: (P, K) log pi_ref(y|x).
        beta: of the KL penalty, positive.
        mask: (P, K) True where the completion exists; the rest may hold anything and become 0.

    Returns:
        Scores of the shape of log_policy, float32 (float64 where x64 is on and an input is float64). Outside of jit the
        difference is taken in float64, before it is rounded.

    Raises:
        ValueError: shapes that do not fit, beta not positive, values that are not finite (outside of jit).
        TypeError: no floating dtype.

    Source: the implicit reward of DPO (arXiv 2305.18290).
    """
    beta = _checks.positive_finite(beta, "beta", "the weight of the KL penalty")
    log_policy = _checks.as_float_array(log_policy, "log_policy")
    log_reference = _checks.as_float_array(log_reference, "log_reference")
    _checks.rank(log_policy, (2, 3), "log_policy", "(P, K), or (draws R, P, K)")
    _checks.same_shape(log_reference.shape, log_policy.shape[-2:], "log_reference", "(prompts, completions)")
    if mask is not None:
        _checks.same_shape(jnp.shape(mask), log_reference.shape, "mask", "(prompts, completions)")
    dtype = np.result_type(*(_arrays.compute_dtype(a.dtype) for a in (log_policy, log_reference)))
    lead = (None,) * (log_policy.ndim - 2)
    if _arrays.is_traced(log_policy, log_reference, mask):
        gaps = jnp.asarray(log_policy).astype(dtype) - jnp.asarray(log_reference).astype(dtype)[lead]
        return beta * (gaps if mask is None else jnp.where(jnp.asarray(mask)[lead], gaps, 0))
    # float64 on the host: what is given there keeps its digits until the difference is taken
    with np.errstate(over="ignore", invalid="ignore"):
        gaps = np.asarray(log_policy, np.float64) - np.asarray(log_reference, np.float64)
        scores = beta * (gaps if mask is None else np.where(np.asarray(mask, bool), gaps, 0))
        scores = jnp.asarray(scores.astype(dtype))
    _checks.finite(scores, "log_policy - log_reference", None, ("draw", "prompt", "completion")[-scores.ndim :])
    return scores


def effective_sample_size(pool: CompletionPool, log_weights: Float[AnyArray, "p k"]) -> Float[Array, " p"]:
    """1 / sum_k w_pk^2 with w_p = softmax(log_weights_p): K for equal weights, 1 when all sits on one completion.

    Args:
        pool: its mask says which completions exist.
        log_weights: (P, K), any constant per prompt added; -inf for weight 0.

    Returns:
        (P,), 0 for prompts without a completion. Traceable.

    Raises:
        ValueError: log_weights of another shape.

    Source: Kish 1965, Survey Sampling, the design effect of unequal weights; checked by
    tests/preference/test_policy_targets.py.
    """
    _checks.same_shape(jnp.shape(log_weights), pool.mask.shape, "log_weights", "(prompts, completions)")
    pool, log_weights = _arrays.replicated((pool, log_weights))
    squares = jnp.sum(completion_shares(pool, log_weights) ** 2, axis=1)
    return jnp.where(squares > 0, 1 / jnp.where(squares > 0, squares, 1), 0)


def sampled_target(
    pool: CompletionPool, log_weights: Float[AnyArray, "p k"] | None = None, *, least_effective: float = 2.0
) -> SampledTarget:
    """H = mean over prompts of Cov_{y ~ pi}[phi], estimated from completions drawn independently, repeats included.

        H = (1/P') sum_p [sum_{i<j} w_i w_j z_ij z_ij^T] / [2 sum_{i<j} w_i w_j],   w_p = softmax(log_weights_p)

    over the P' prompts with two completions or more whose weights do not all sit on one (to 1e-6). Without log_weights
    this is the covariance with K - 1, unbiased for completions drawn from pi itself: K / (K - 1) times `policy_target`.
    With log_weights = log pi - log pi_sampling it is the ratio of an unbiased estimate of Cov_pi to one of 1/2:
    constants per prompt cancel, the bias is O(1/K).

    Args:
        pool: completions drawn independently from one policy per prompt. Leave repeated completions in: their number is
            the information. Ragged prompts are fine.
        log_weights: (P, K) log pi(y|x) - log pi_sampling(y|x), the latter of what was really sampled from: at its
            temperature, with its truncation. None: sampled from pi itself.
        least_effective: effective sample size below which a prompt counts as badly covered; 1 accepts everything.

    Returns:
        matrix and effective (P,), float64 NumPy.

    Raises:
        ValueError: log_weights of another shape, NaN or +inf, or a prompt with weight -inf everywhere; no prompt with
            two completions; more than half of those prompts with an effective sample size below least_effective.
            A UserWarning says how many are, where it is half or fewer.

    Numerics: float32 products (float64 for float64 features), whatever the units of the features.
    Source: arXiv 2606.19607 for H; the weighted form is derived; checked by tests/preference/test_policy_targets.py.
    """
    pool = _arrays.replicated(pool)
    mask = np.asarray(pool.mask)
    log_weights = np.zeros(mask.shape, np.float32) if log_weights is None else check_log_weights(log_weights, mask)
    with _arrays.float64():
        shares = completion_shares(pool, jnp.asarray(log_weights, jnp.float64))
        effective = np.asarray(effective_sample_size(pool, jnp.asarray(log_weights, jnp.float64)))
        # sum over k of w (1 - w), the second factor as the sum of the others: nothing cancels
        pair_mass = np.asarray(jnp.sum(shares * _others(shares), axis=1))
    usable = mask.sum(axis=1) >= 2
    if not usable.any():
        raise ValueError("pool: no prompt with two completions, so no covariance; sample at least two a prompt")
    _check_effective(effective[usable], least_effective)
    usable &= pair_mass > 1e-6  # below, float32 rounding would be most of the covariance
    factors = np.where(usable, 1 / np.where(usable, pair_mass, 1.0), 0.0) / max(usable.sum(), 1)
    pool, unit = in_unit_columns(pool)
    dtype = _arrays.compute_dtype(pool.features.dtype)
    matrix = _jitted_mixture(pool, np.asarray(shares, dtype), np.asarray(factors, dtype))
    return SampledTarget(np.asarray(matrix, np.float64) / unit[:, None] / unit, effective)


_jitted_mixture = jax.jit(mixed_covariance)


def _others(shares: Float[Array, "p k"]) -> Float[Array, "p k"]:
    """Sum of the shares of all other completions of the prompt."""
    zeros = jnp.zeros_like(shares[:, :1])
    before = jnp.concatenate([zeros, jnp.cumsum(shares, axis=1)[:, :-1]], axis=1)
    after = jnp.concatenate([jnp.cumsum(shares[:, ::-1], axis=1)[:, ::-1][:, 1:], zeros], axis=1)
    return before + after


def deployment_target(
    deployment: CompletionPool,
    basis: Float[AnyArray, "d r"] | None = None,
    log_weights: Float[AnyArray, "p k"] | None = None,
    *,
    least_effective: float = 2.0,
) -> DeploymentTarget:
    """B^T H B with H of a second, unlabelled pool: any prompts, any number of completions.

    Args:
        deployment: completions sampled for deployment prompts, with the same d features as the labelled pool before
            it was restricted: the same function, and for projected gradients the same key and dimension.
        basis: (d, r) of the labelled pool, from `restrict_to_range` or `ReferenceFit.basis`; None: d features.
        log_weights, least_effective: as in `sampled_target`.

    Returns:
        matrix (r, r), effective (P,), and outside, the share of tr H outside of the span of the basis. What lies there
        no label of the labelled pool can improve: where it is large, label prompts closer to the deployment ones.

    Raises:
        ValueError: as in `sampled_target`, or a basis of another dimension.

    Source: arXiv 2606.19607 for H; the change of basis is derived; checked by tests/preference/test_policy_targets.py.
    """
    target = sampled_target(deployment, log_weights, least_effective=least_effective)
    if basis is None:
        return DeploymentTarget(target.matrix, target.effective, 0.0)
    basis = np.asarray(_checks.as_float_array(basis, "basis"), np.float64)
    if basis.ndim != 2 or basis.shape[0] != deployment.dim:
        raise ValueError(
            f"basis: shape {basis.shape} found; expected ({deployment.dim}, r), one row per feature of the deployment "
            "pool; take the features of both pools by the same function"
        )
    directions, spread, _ = np.linalg.svd(basis, full_matrices=False)
    inside = directions[:, spread > 1e-10 * spread[0]]  # of a basis that is none, what it spans
    whole = np.trace(target.matrix)
    outside = 1 - np.trace(inside.T @ target.matrix @ inside) / whole if whole > 0 else 0.0
    return DeploymentTarget(basis.T @ target.matrix @ basis, target.effective, float(np.clip(outside, 0.0, 1.0)))


def in_unit_columns(pool: CompletionPool) -> tuple[CompletionPool, Float[np.ndarray, " d"]]:
    """A pool of features phi * unit, and unit (d,), powers of two that bring columns of extreme size to about 1.

    Columns whose largest entry is between 2^-31 and 2^30 keep unit 1, and a pool of such columns (every float16 one) is
    returned as it is; beyond, squares of float32 leave the range of numbers. Scores and flips are left out.
    """
    dtype = _arrays.compute_dtype(pool.features.dtype)
    with _arrays.float64():
        largest = np.asarray(jnp.max(jnp.abs(pool.features), axis=(0, 1)), np.float64)
        exponent = np.frexp(largest)[1]
        power = np.where((largest > 0) & (np.abs(exponent) > 30), 1 - exponent, 0)
        if not power.any():
            return pool, np.ones(pool.dim)
        first = power // 2  # 2^power itself may not be a number of this dtype
        factors = (np.ldexp(np.ones(pool.dim, dtype), part)[None, None] for part in (first, power - first))
        features = pool.features.astype(dtype)
        for factor in factors:
            features = features * factor
        return CompletionPool(features, mask=pool.mask), np.ldexp(1.0, power)


def check_log_weights(log_weights: Any, mask: np.ndarray, name: str = "log_weights") -> np.ndarray:
    """(P, K) float64; -inf (a completion that the policy never gives) is allowed, but not for a whole prompt."""
    values = np.asarray(_checks.as_float_array(log_weights, name), np.float64)
    _checks.same_shape(values.shape, mask.shape, name, "(prompts, completions)")
    bad = mask & (np.isnan(values) | (values == np.inf))
    if bad.any():
        p, k = np.argwhere(bad)[0]
        raise ValueError(f"{name}: {values[p, k]} at prompt {p}, completion {k}; must be finite or -inf (never)")
    empty = mask.any(axis=1) & ~(mask & (values > -np.inf)).any(axis=1)
    if empty.any():
        raise ValueError(f"{name}: -inf for every completion of prompt {np.argmax(empty)}; one must be possible")
    return values


def _check_effective(effective: np.ndarray, least: float) -> None:
    least = _checks.positive_finite(least, "least_effective", "an effective number of completions")
    few = int(np.sum(effective < least * (1 - 1e-9)))
    if not few:
        return
    found = (
        f"{few} of {len(effective)} prompts have an effective sample size below {least:g} "
        f"(median over prompts {np.median(effective):.2f})"
    )
    remedy = (
        "sample more completions, or from a policy closer to the one that matters; to accept a rough target pass a "
        "smaller least_effective"
    )
    if 2 * few > len(effective):
        raise ValueError(f"log_weights: {found}, so that the target would rest on single completions; {remedy}")
    warnings.warn(f"log_weights: {found}; {remedy}", UserWarning, stacklevel=3)
