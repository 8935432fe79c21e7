"""What a trained policy is worth on prompts held back, from completions that another policy drew, by their weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign._arrays import AnyArray
from jaxdesign._checks import finite, positive_finite, same_shape


class HeldBackValue(NamedTuple):
    """J = reward - beta kl of every prompt, NaN where it has no completion; average over prompts for one number.

    Args:
        value: (P,) J, in the unit of the reward.
        reward: (P,) weighted mean of the rewards.
        kl: (P,) divergence from the policy that drew, nats.
        effective: (P,) completions that the weights really rest on, 1 / sum of squares; few say that it went too far.
    """

    value: Float[np.ndarray, " p"]
    reward: Float[np.ndarray, " p"]
    kl: Float[np.ndarray, " p"]
    effective: Float[np.ndarray, " p"]


def held_back_value(
    log_policy: Float[AnyArray, "p k"],
    log_drawn: Float[AnyArray, "p k"],
    rewards: Float[AnyArray, "p k"],
    beta: float,
    mask: Any = None,
) -> HeldBackValue:
    """J(pi) = E r - beta KL(pi || pi_ref) prompt by prompt, by weights of completions drawn from pi_ref.

        w_k = softmax_k(log pi(y_k) - log pi_ref(y_k)),   J = sum_k w_k (r_k - beta log(K w_k))

    It is exact for the policy restricted to the completions, and consistent in K for pi itself, biased by order 1 / K.

    Args:
        log_policy: (P, K) log pi(y | x).
        log_drawn: (P, K) log pi_ref(y | x), of the policy that drew them and that KL is taken to.
        rewards: (P, K).
        beta: price of KL, positive.
        mask: (P, K) True where the completion exists; None for all. Repeats are completions of their own.

    Returns:
        HeldBackValue, float64 NumPy arrays.

    Raises:
        TypeError, ValueError: shapes that differ, values that are not finite, beta not positive.

    Source: J as in arXiv 2305.18290, equation 3; the estimate is derived; checked by
    tests/preference/llama/test_llama_training.py.
    """
    beta = positive_finite(beta, "beta", "the price of KL")
    given = {"log_policy": log_policy, "log_drawn": log_drawn, "rewards": rewards}
    arrays = {name: np.asarray(value, np.float64) for name, value in given.items()}
    shape = arrays["log_policy"].shape
    exists = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
    same_shape(exists.shape, shape, "mask", "as log_policy: (prompts, completions)")
    for name, array in arrays.items():
        same_shape(array.shape, shape, name, "as log_policy: (prompts, completions)")
        finite(array, name, exists, axes=("prompt", "completion"))
    ratio = np.where(exists, arrays["log_policy"] - arrays["log_drawn"], -np.inf)
    alive = exists.any(axis=1)
    ratio = ratio - np.where(alive, ratio.max(axis=1, initial=-np.inf), 0.0)[:, None]
    total = np.exp(ratio).sum(axis=1)
    weights = np.exp(ratio) / np.where(alive, total, np.nan)[:, None]
    shares = np.where(exists, ratio, 0.0) - np.log(np.where(alive, total / exists.sum(axis=1).clip(1), 1.0))[:, None]
    reward = (weights * np.where(exists, arrays["rewards"], 0.0)).sum(axis=1)
    kl = (weights * shares).sum(axis=1)
    return HeldBackValue(reward - beta * kl, reward, kl, 1 / (weights**2).sum(axis=1))
