"""Supervised fine-tuning: a policy that imitates the completions of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxdesign.preference.small_model.language_model import LanguageModel, sequence_log_probability
from jaxdesign.preference.small_model.training import Trained, train


class Examples(NamedTuple):
    """Prompts with one completion each, as tokens (`Tokeniser.encode_prompts`, `.encode_completions`).

    Args:
        prompts: (n, p) int32, padded on the left.
        completions: (n, c) int32, padded on the right.
    """

    prompts: Int[Array, "n p"]
    completions: Int[Array, "n c"]


def negative_log_likelihood(model: LanguageModel, examples: Examples) -> Float[Array, ""]:
    """Mean of -log pi(y | x), in nats a completion: at its least, the entropy of the corpus given the prompts."""
    return -jnp.mean(sequence_log_probability(model, examples.prompts, examples.completions))


@cache  # the same object for the same numbers, for which a step is compiled once
def fine_tuning_optimiser(
    learning_rate: float, steps: int, *, warm_up: float = 0.05, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Adam with clipped gradients, the rate rising over the first `warm_up` of the steps and falling as a cosine.

    Args:
        learning_rate: the largest rate.
        steps: how many there will be; the rate is 0 after them.
        warm_up: share of the steps over which the rate rises.
        weight_decay: of AdamW; 0 is Adam.

    Returns:
        An optax transformation; the same object for the same numbers, so that a training step compiles once.

    Raises: nothing of its own; numbers that optax does not take are errors of optax.

    Source: AdamW, arXiv 1711.05101; the cosine, arXiv 1608.03983; checked by
    tests/preference/small_model/test_policy_training.py.
    """
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, max(1, round(warm_up * steps)), max(2, steps))
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=weight_decay))


def fine_tune(
    model: LanguageModel,
    examples: Examples,
    *,
    steps: int,
    batch_size: int = 64,
    optimiser: optax.GradientTransformation | None = None,
    seed: int = 0,
    optimiser_state: Any = None,
    first_step: int = 0,
    trainable: Sequence[str] | None = None,
    callback: Callable[[int, float], Any] | None = None,
) -> Trained[LanguageModel]:
    """Train a policy on the log-likelihood of completions given prompts; prompts themselves are not learnt.

    Args:
        model: where to start; it stays as it is.
        examples: tokens.
        steps: minibatches.
        batch_size: examples of each.
        optimiser: from optax; None for `fine_tuning_optimiser(3e-3, steps)`.
        seed: of the order of the examples.
        optimiser_state: to go on with; None starts afresh.
        first_step: steps taken before with this seed, as in `train`.
        trainable: patterns on the paths of the parameters to train, such as ["head/*"]; None: all.
        callback: `ProgressBar(steps)`, or any function of step and loss.

    Returns:
        Trained: model, optimiser_state, losses in nats a completion.

    Raises:
        TypeError, ValueError: as `train` and `sequence_log_probability`.

    Source: derived; checked by tests/preference/small_model/test_policy_training.py.
    """
    return train(
        model,
        Examples(*examples),
        negative_log_likelihood,
        fine_tuning_optimiser(3e-3, steps) if optimiser is None else optimiser,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        optimiser_state=optimiser_state,
        first_step=first_step,
        trainable=trainable,
        callback=callback,
    )
