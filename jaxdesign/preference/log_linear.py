"""Policies that can be solved exactly: log-linear in the features of a finite set of completions, or free (tabular).

pi_theta(k | p) = pi_ref(k | p) exp(phi_pk . theta) / Z_p over the existing completions of the prompt. A tabular policy
is the one whose log-probabilities are free: `tabular_pool` writes it as a log-linear one.

All functions take (P, K) log-probabilities, -inf where no completion exists, and average over the prompts with at least
one completion; NaN stays NaN. Traceable; in the dtype of their arguments.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.pool import CompletionPool


def log_policy(
    pool: CompletionPool, theta: Float[AnyArray, "*n d"], reference: Float[AnyArray, "p k"] | None = None
) -> Float[Array, "*n p k"]:
    """log pi_theta = log pi_ref + phi . theta - log Z, (P, K); -inf where no completion exists.

    Args:
        pool: its features and mask; scores are not used.
        theta: (d,), or (n, d) for n policies at once. With a reward parameter w pass w / beta.
        reference: log pi_ref up to a constant per prompt, (P, K); None: the same for all completions.

    Returns:
        (P, K) or (n, P, K) log-probabilities, nats, in the wider dtype of theta and reference.

    Raises:
        ValueError: theta or reference of another shape.

    Source: derived; checked by tests/preference/test_log_linear.py.
    """
    pool, theta, reference = _arrays.replicated((pool, jnp.asarray(theta), reference))
    _checks.same_shape(theta.shape[-1:], (pool.dim,), "theta", "in its last axis, one number per feature")
    logits = _arrays.contract("pkd,...d->...pk", pool.features.astype(theta.dtype), theta)
    if reference is not None:
        logits, shift = _arrays.aligned(logits, _reference(pool, reference))
        dtype = _arrays.common_dtype(logits, shift)
        logits = logits.astype(dtype) + shift.astype(dtype)
    return normalised(logits, pool.mask)


def normalised(logits: Float[Array, "*n p k"], mask: Bool[AnyArray, "p k"]) -> Float[Array, "*n p k"]:
    """log softmax over the existing completions of each prompt; -inf elsewhere."""
    logits = jnp.where(mask, logits, -jnp.inf)
    alive = jnp.any(mask, axis=-1, keepdims=True)
    return jnp.where(mask, jax.nn.log_softmax(jnp.where(alive, logits, 0), axis=-1), -jnp.inf)


def optimal_policy(
    rewards: Float[AnyArray, "p k"],
    beta: float,
    mask: Bool[AnyArray, "p k"],
    reference: Float[AnyArray, "p k"] | None = None,
) -> Float[Array, "p k"]:
    """log pi*, pi* prop. to pi_ref exp(r / beta): of all policies the one with the largest J.

    Args:
        rewards: r, (P, K); masked slots may hold anything.
        beta: strength of the KL term, above 0, in the unit of the rewards (not checked).
        mask: (P, K) True where the completion exists.
        reference: log pi_ref up to a constant per prompt, (P, K); None: the same for all completions.

    Returns:
        (P, K) log-probabilities, nats; -inf where no completion exists.

    Raises: nothing of its own; shapes that do not broadcast are errors of JAX.

    Source: arXiv 2305.18290, equation 4.
    """
    logits = jnp.asarray(rewards) / beta
    return normalised(logits if reference is None else logits + reference, mask)


def kl_divergence(log_p: Float[AnyArray, "*n p k"], log_q: Float[AnyArray, "*#n p k"]) -> Float[Array, "*n"]:
    """E_x KL(p(. | x) || q(. | x)), the mean over prompts with completions.

    Args:
        log_p: (P, K) or (n, P, K) normalised log-probabilities, -inf where no completion exists.
        log_q: the same of q.

    Returns:
        Scalar or (n,), nats; NaN without any prompt, inf where q is 0 and p is not.

    Raises: nothing of its own; shapes that do not broadcast are errors of JAX.

    Source: derived; checked by tests/preference/test_log_linear.py.
    """
    exists = log_p != -jnp.inf
    terms = jnp.where(exists, jnp.exp(log_p) * (jnp.where(exists, log_p, 0) - jnp.where(exists, log_q, 0)), 0)
    return _mean(jnp.sum(terms, axis=-1), exists)


def policy_value(
    log_pi: Float[AnyArray, "*n p k"], rewards: Float[AnyArray, "p k"], beta: float, reference: Float[AnyArray, "p k"]
) -> Float[Array, "*n"]:
    """J(pi) = E_x [sum_k pi_k r_k - beta KL(pi || pi_ref)], with normalised log-probabilities of both policies.

    Args:
        log_pi: (P, K) or (n, P, K) log-probabilities of the policy, -inf where no completion exists.
        rewards: r, (P, K).
        beta: strength of the KL term, in the unit of the rewards.
        reference: (P, K) normalised log pi_ref.

    Returns:
        Scalar or (n,), in the unit of the rewards.

    Raises: nothing of its own; shapes that do not broadcast are errors of JAX.

    Source: arXiv 2305.18290, equation 3; derived; checked by tests/preference/test_log_linear.py.
    """
    exists = log_pi != -jnp.inf
    reward = jnp.sum(jnp.where(exists, jnp.exp(log_pi) * jnp.where(exists, rewards, 0), 0), axis=-1)
    return _mean(reward, exists) - beta * kl_divergence(log_pi, reference)


def policy_gap(log_pi: Float[AnyArray, "*n p k"], log_best: Float[AnyArray, "p k"], beta: float) -> Float[Array, "*n"]:
    """J(pi*) - J(pi) = beta E_x KL(pi || pi*): exact, with pi* of `optimal_policy`.

    Args:
        log_pi: (P, K) or (n, P, K) normalised log-probabilities of the policy.
        log_best: (P, K) of pi*.
        beta: strength of the KL term, in the unit of the rewards.

    Returns:
        Scalar or (n,), at least 0, in the unit of the rewards.

    Raises: nothing of its own; shapes that do not broadcast are errors of JAX.

    Source: arXiv 2606.19607; checked by tests/preference/test_log_linear.py.
    """
    return beta * kl_divergence(log_pi, log_best)


def tabular_pool(prompts: int, completions: int) -> CompletionPool:
    """Pool of a tabular policy: a basis vector for every completion, d = P K.

    Constants per prompt are not identified (rank P (K - 1)): apply `restrict_to_range` before a design without prior.

    Args:
        prompts: P, at least 1.
        completions: K, at least 2; all prompts have as many.

    Returns:
        CompletionPool with features (P, K, P K) float32, without scores.

    Raises:
        ValueError: P below 1 or K below 2, as `CompletionPool`.

    Source: derived; checked by tests/preference/test_log_linear.py.
    """
    rows = np.eye(prompts * completions, dtype=np.float32)
    return CompletionPool(rows.reshape(prompts, completions, prompts * completions))


def _mean(values: Float[Array, "*n p"], exists: Bool[Array, "*n p k"]) -> Float[Array, "*n"]:
    return jnp.sum(values, axis=-1) / jnp.sum(jnp.any(exists, axis=-1), axis=-1).astype(values.dtype)


def _reference(pool: CompletionPool, reference: Any):
    _checks.same_shape(jnp.shape(reference), pool.mask.shape, "reference", "(prompts, completions)")
    return jnp.asarray(reference)
