"""What a policy is worth: mean reward minus beta times its divergence from the reference, from its own samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxdesign._arrays import AnyArray, map_chunks
from jaxdesign._checks import finite, positive_finite, same_shape
from jaxdesign.preference.small_model.language_model import LanguageModel, token_logits
from jaxdesign.preference.small_model.sampling import sample_completions

ROWS = 1_024  # sequences whose laws are held side by side


class PolicyValue(NamedTuple):
    """J = reward - beta kl, and its Monte Carlo error, from the differences between prompts' samples.

    Args:
        value: J, in the unit of the reward.
        reward: mean reward of the samples.
        kl: mean divergence from the reference policy, nats.
        standard_error: of J over samples within prompts, the prompts being given; NaN for one sample a prompt.
    """

    value: float
    reward: float
    kl: float
    standard_error: float


def sampled_policy_value(
    model: LanguageModel,
    reference: LanguageModel,
    prompts: Int[AnyArray, "p columns"],
    rewards_of: Callable[[Int[np.ndarray, "p k c"]], Float[np.ndarray, "p k"]],
    beta: float,
    key: Array,
    *,
    completions: int,
    length: int,
) -> PolicyValue:
    """Estimate J(pi) = E r(y) - beta E_x KL(pi(.|x) || pi_ref(.|x)) over the prompts given.

    Args:
        model: pi.
        reference: pi_ref, of the same shape.
        prompts: (P, columns) tokens.
        rewards_of: tokens (P, K, length) to rewards (P, K).
        beta: price of KL, positive.
        key: JAX random key. Use one for several policies: their samples are correlated, so differences have less
            variance.
        completions: K fresh samples of each prompt, at temperature 1.
        length: columns of a completion.

    Returns:
        PolicyValue of floats; the standard error is that over samples within prompts, the prompts being given.

    Raises:
        TypeError, ValueError: beta not positive, rewards of another shape or not finite, and as `sample_completions`.

    Source: J as in arXiv 2305.18290, equation 3; the estimate is derived; checked by
    tests/preference/small_model/test_sampled_value.py.
    """
    beta = positive_finite(beta, "beta", "the price of KL")
    tokens = sample_completions(model, prompts, key, completions=completions, length=length).tokens
    repeated = jnp.repeat(jnp.asarray(prompts), completions, axis=0)
    kl = sequence_divergence(model, reference, repeated, tokens.reshape(-1, length))
    kl = np.asarray(kl, np.float64).reshape(tokens.shape[:2])
    rewards = np.asarray(rewards_of(np.asarray(tokens)), np.float64)
    same_shape(rewards.shape, kl.shape, "rewards_of", "(prompts, completions), one reward per sample")
    finite(rewards, "rewards_of", axes=("prompt", "completion"))
    each = rewards - beta * kl
    spread = each.var(axis=1, ddof=1) if completions > 1 else np.full(len(each), np.nan)
    error = np.sqrt(spread.sum() / completions) / len(each)
    return PolicyValue(float(each.mean()), float(rewards.mean()), float(kl.mean()), float(error))


def sequence_divergence(
    model: LanguageModel, reference: LanguageModel, prompts: Int[AnyArray, "n p"], completions: Int[AnyArray, "n c"]
) -> Float[Array, " n"]:
    """Sum over the tokens of y of KL(pi(. | x, y_<t) || pi_ref(. | x, y_<t)), each exact over the next token.

    Its mean over y ~ pi is KL(pi(.|x) || pi_ref(.|x)), as is that of log pi(y|x) - log pi_ref(y|x); but it is never
    negative, and near the reference has far less variance, since each token is averaged over exactly and only the
    prefixes are sampled (far from the reference this can fail for a prompt).

    Args:
        model, reference: of the same configuration.
        prompts, completions: tokens; completions drawn from `model`.

    Returns:
        (n,) float32, nats.

    Raises:
        ValueError: configurations that differ.

    Source: derived; checked by tests/preference/small_model/test_sampled_value.py.
    """
    if model.config != reference.config:
        raise ValueError(f"reference: {reference.config} found; model has {model.config}, and they must agree")
    definition, parameters = nnx.split(model)
    arrays = jnp.asarray(prompts), jnp.asarray(completions)
    return _divergence(definition, parameters, nnx.split(reference)[1], *arrays)


@partial(jax.jit, static_argnames="definition")
def _divergence(definition, parameters, reference_parameters, prompts, completions):
    model, reference = nnx.merge(definition, parameters), nnx.merge(definition, reference_parameters)

    def some(chunk):
        own, other = (jax.nn.log_softmax(token_logits(policy, *chunk), axis=-1) for policy in (model, reference))
        each = jnp.sum(jnp.exp(own) * (own - other), axis=-1)
        return jnp.sum(jnp.where(chunk[1] != model.config.pad, each, 0.0), axis=-1)

    return map_chunks(some, (prompts, completions), ROWS)
