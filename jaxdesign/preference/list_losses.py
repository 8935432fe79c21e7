"""Losses of lists of completions with rewards, where those of `losses` take pairs.

What is said there of dtypes, parameters and errors holds here too, with lists in place of pairs.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxdesign import _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.preference._loss_inputs import computed, parameter


def listwise_exo_loss(
    log_probs: Float[AnyArray, "*n k"],
    ref_log_probs: Float[AnyArray, "*n k"],
    rewards: Float[AnyArray, "*n k"],
    *,
    beta: Any,
    reward_beta: Any = 1.0,
    mask: Bool[AnyArray, "*n k"] | None = None,
) -> Float[Array, "*n"]:
    """EXO on lists: KL(p_f || p_r) = sum_k p_f (log p_f - log p_r), the divergence of a policy from the optimal one.

        p_f = softmax_k(beta (log pi - log pi_ref)),     p_r = softmax_k(r / reward_beta)

    so that 0 is at log pi = log pi_ref + r / (beta reward_beta) + constant: beta reward_beta is the price of KL. A list
    of two is `exo_loss` with smoothing sigma(-(r_c - r_r) / reward_beta); constants per list change nothing.

    Args:
        log_probs, ref_log_probs: (n, K) log-probabilities of the completions of a prompt, summed over tokens, nats.
        rewards: (n, K) of the same completions.
        beta: above 0, one number or (n,).
        reward_beta: above 0, in the unit of the rewards, one number or (n,).
        mask: (n, K) True where the completion exists; the rest may hold anything. None: all exist.
    Returns: (n,), one loss per list, nats; 0 for a list of fewer than two.
    Raises: TypeError for integers; ValueError for shapes that differ, no axis of completions, parameters out of range.
    Source: arXiv 2402.00856 and its code, github.com/haozheji/exact-optimization.
    """
    log_probs, ref_log_probs, rewards = computed(
        "completion", log_probs=log_probs, ref_log_probs=ref_log_probs, rewards=rewards
    )
    if not (log_probs.ndim and log_probs.shape[-1]):
        raise ValueError(f"log_probs: shape {log_probs.shape} found; expected (..., K), K completions in a list")
    mask = jnp.ones(log_probs.shape, bool) if mask is None else jnp.asarray(mask)
    _checks.same_shape(mask.shape, log_probs.shape, "mask", "as log_probs: one per completion")
    log_probs, ref_log_probs, rewards = (jnp.where(mask, a, 0) for a in (log_probs, ref_log_probs, rewards))
    one = log_probs[..., 0]  # what is given by list has this shape
    beta, reward_beta = (
        jnp.asarray(parameter(value, name, "above 0", one, "list"))[..., None]
        for value, name in ((beta, "beta"), (reward_beta, "reward_beta"))
    )
    policy = _log_softmax(_wide(beta, mask) * (log_probs - ref_log_probs), mask)
    wanted = _log_softmax(rewards / _wide(reward_beta, mask), mask)
    return jnp.sum(jnp.exp(policy) * jnp.where(mask, policy - wanted, 0), axis=-1)


def _wide(value, mask):
    return jnp.broadcast_to(value.reshape((1,) * (mask.ndim - value.ndim) + value.shape), mask.shape)


def _log_softmax(logits, mask):
    """Over what exists; 0 where nothing does, with finite derivatives."""
    shares = mask | ~jnp.any(mask, axis=-1, keepdims=True)
    return jnp.where(mask, jax.nn.log_softmax(jnp.where(shares, logits, -jnp.inf), axis=-1), 0)
