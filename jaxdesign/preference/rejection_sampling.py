"""Completions of the optimal policy from those of the reference: statistical rejection sampling (RSO).

A completion drawn from pi_ref and accepted with probability exp((r - r_max) / beta) is one of pi* prop. to
pi_ref exp(r / beta). r_max is the largest reward there is; here, as in the paper, the largest of the sample, so that
draws are those of pi* in the limit of many completions per prompt only. Traceable, and batched over leading axes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.preference._loss_inputs import parameter


def acceptance_probabilities(
    rewards: Float[AnyArray, "*p k"], beta: Any, *, mask: Bool[AnyArray, "*p k"] | None = None
) -> Float[Array, "*p k"]:
    """exp((r - max r) / beta): how likely each completion is kept; 1 for the best of its prompt.

    Args:
        rewards: (P, K), of completions drawn from the reference policy.
        beta: above 0, the price of KL in the unit of the rewards, one number or (P,).
        mask: (P, K) True where the completion exists; the rest may hold anything. None: all exist.

    Returns:
        (P, K), in [0, 1], 0 where no completion exists; float32 (float64 where x64 is on and the rewards are float64).
        Outside of jit differences of rewards are taken in float64, before they are rounded.

    Raises:
        TypeError: rewards that are no floating numbers.
        ValueError: shapes that differ, beta not positive, rewards that are not finite (outside of jit).

    Source: arXiv 2309.06657, theorem 1.
    """
    behind, exists, beta = _behind(rewards, beta, mask)
    return jnp.where(exists, jnp.exp(-behind / beta), 0)


def accepted(
    rewards: Float[AnyArray, "*p k"],
    beta: Any,
    key: Array,
    *,
    number: int | None = None,
    mask: Bool[AnyArray, "*p k"] | None = None,
) -> Bool[Array, "*p k"]:
    """Which completions are kept: `number` of every prompt by passes, or each by its own probability in one pass.

    A pass accepts each completion not yet accepted with probability exp((r - max r) / beta), the maximum over those; it
    ends the prompt at the `number`-th in the order given. As the best is always accepted, `number` passes are enough.
    beta to 0 gives the `number` best; beta to infinity the first `number`.

    Args:
        rewards: (P, K), of completions drawn independently from the reference policy.
        beta: above 0, the price of KL in the unit of the rewards, one number or (P,).
        key: of `jax.random`; all prompts draw from it independently.
        number: from 1 to K, static; prompts with fewer completions keep all. None: one pass, and no fixed number.
        mask: (P, K) True where the completion exists; the rest may hold anything. None: all exist.

    Returns:
        (P, K) True for accepted completions.

    Raises:
        TypeError: rewards that are no floating numbers.
        ValueError: as `acceptance_probabilities`; number below 1 or above K.

    Source: arXiv 2309.06657, algorithm 1 (appendix A.1); checked by tests/preference/test_rejection_sampling.py.
    """
    behind, exists, beta = _behind(rewards, beta, mask)
    size = behind.shape[-1]
    limit = size if number is None else _checks.whole_number(number, "number", least=1)
    if limit > size:
        raise ValueError(f"number={limit}: only {size} completions found in a prompt; ask for at most as many")

    return _passes(behind, exists, beta, key, limit, once=number is None)


@partial(jax.jit, static_argnames=("limit", "once"))
def _passes(behind, exists, beta, key, limit, once):
    def one_pass(taken, step):
        left = exists & ~taken
        best = jnp.min(jnp.where(left, behind, jnp.inf), axis=-1, keepdims=True)
        chance = jnp.exp(-jnp.where(left, behind - best, 0) / beta)
        draws = jax.random.uniform(jax.random.fold_in(key, step), behind.shape, behind.dtype)
        hit = left & (draws < chance)
        room = limit - jnp.sum(taken, axis=-1, keepdims=True)
        return taken | (hit & (jnp.cumsum(hit, axis=-1) <= room))

    none = jnp.zeros(behind.shape, bool)
    if once:
        return one_pass(none, 0)
    wanted = jnp.minimum(jnp.sum(exists, axis=-1), limit)

    def unfinished(state):
        return jnp.any(jnp.sum(state[0], axis=-1) < wanted)

    return jax.lax.while_loop(unfinished, lambda state: (one_pass(*state), state[1] + 1), (none, 0))[0]


def _behind(rewards, beta, mask):
    """How far each completion is behind the best of its prompt, at least 0; 0 where none exists, with what exists."""
    rewards = _checks.as_float_array(rewards, "rewards")
    if not (rewards.ndim and rewards.shape[-1]):
        raise ValueError(f"rewards: shape {rewards.shape} found; expected (..., K), K completions of each prompt")
    dtype = _arrays.compute_dtype(rewards.dtype) if _arrays.in_float64() else np.dtype(np.float32)
    if mask is not None:
        _checks.same_shape(np.shape(mask), rewards.shape, "mask", "as rewards: one per completion")
    if _arrays.is_traced(rewards, mask):
        exists = jnp.ones(rewards.shape, bool) if mask is None else jnp.asarray(mask)
        rewards = jnp.asarray(rewards).astype(dtype)
        best = jnp.max(jnp.where(exists, rewards, -jnp.inf), axis=-1, keepdims=True)
        behind = jnp.where(exists, best - rewards, 0)
    else:
        exists = np.ones(rewards.shape, bool) if mask is None else np.asarray(mask, bool)
        rewards = np.asarray(rewards, np.float64)
        if not np.isfinite(rewards[exists]).all():
            raise ValueError(
                f"rewards: {rewards[exists & ~np.isfinite(rewards)][0]} found; every existing completion must have a "
                "finite reward; set mask False for completions that do not exist"
            )
        best = np.max(np.where(exists, rewards, -np.inf), axis=-1, keepdims=True)
        behind = np.where(exists, best - np.where(exists, rewards, 0), 0)
        behind = jnp.asarray(np.minimum(behind, np.finfo(dtype).max).astype(dtype))
    one = behind[..., 0]
    beta = jnp.asarray(parameter(beta, "beta", "above 0", one, "prompt"))
    beta = beta[..., None] if beta.ndim else jnp.broadcast_to(beta, (1,) * behind.ndim)
    return behind, jnp.asarray(exists), beta
