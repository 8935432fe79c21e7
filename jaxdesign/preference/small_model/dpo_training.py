"""Training a policy on labelled pairs with any loss of `losses.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxdesign._arrays import AnyArray, map_chunks
from jaxdesign.preference.labels.labels import FIRST, SECOND, TIE, Labels, check_labels
from jaxdesign.preference.small_model.language_model import LanguageModel, check_tokens, sequence_log_probability
from jaxdesign.preference.small_model.training import Trained, train

ROWS = 1_024  # sequences whose log-probability is computed side by side


class PreferredPairs(NamedTuple):
    """Prompts with a preferred and a rejected completion each, as tokens, and the weight of each pair in the loss.

    Args:
        prompts: (n, p) int32, padded on the left.
        chosen: (n, c) int32, padded on the right.
        rejected: (n, c) int32, padded on the right.
        weights: (n,) float32; 1 is one whole label, 1/2 each way a tie.
    """

    prompts: Int[AnyArray, "n p"]
    chosen: Int[AnyArray, "n c"]
    rejected: Int[AnyArray, "n c"]
    weights: Float[AnyArray, " n"]


class _Referenced(NamedTuple):
    pairs: PreferredPairs
    ref_chosen: Array
    ref_rejected: Array
    options: Any  # leaves (n,)


@dataclass(frozen=True)
class PairObjective:
    """Weighted mean of a pair loss: sum of weight times loss over the size of the minibatch.

    Divided by the size and not by the sum of weights, so that a pair of weight 0 counts as absent and every minibatch
    estimates the same objective; equal for equal losses, so that a step is compiled once for each.
    """

    loss: Callable[..., Array]

    def __call__(self, model: LanguageModel, batch: _Referenced) -> Float[Array, ""]:
        pairs = batch.pairs
        prompts = jnp.concatenate([pairs.prompts, pairs.prompts])
        own = sequence_log_probability(model, prompts, jnp.concatenate([pairs.chosen, pairs.rejected]))
        chosen, rejected = jnp.split(own, 2)
        each = self.loss(chosen, rejected, batch.ref_chosen, batch.ref_rejected, **batch.options)
        return jnp.mean(pairs.weights * each)


def preferred_pairs(prompts: Int[AnyArray, "p columns"], completions: Int[AnyArray, "p k c"], labels: Labels):
    """Labelled pairs of a pool as pairs to train on.

    Args:
        prompts: (P, columns) tokens of the pool's prompts.
        completions: (P, K, c) tokens of its completions.
        labels: pairs (n, 3) and choices (n,). A tie becomes two pairs, one each way, of weight 1/2; skips drop out.

    Returns:
        PreferredPairs, in the order of the labels, the second halves of ties at the end.

    Raises:
        ValueError: labels that are invalid (`check_labels`), or of prompts or completions that are not there.

    Source: derived; checked by tests/preference/small_model/test_policy_training.py.
    """
    prompts, completions = np.asarray(prompts), np.asarray(completions)
    check_labels(labels)
    beyond = np.asarray(labels.pairs) >= np.array([len(prompts), completions.shape[1], completions.shape[1]])
    if len(prompts) != len(completions) or beyond.any():
        found = np.asarray(labels.pairs)[beyond.any(axis=1)][:1].tolist() or "pairs"
        raise ValueError(
            f"labels.pairs: {found} found for {len(prompts)} prompts and completions of shape {completions.shape[:2]}"
        )
    p, first, second = np.asarray(labels.pairs).T
    choices = np.asarray(labels.choices)
    tied = choices == TIE
    forward, backward = (choices == FIRST) | tied, choices == SECOND
    kept = forward | backward
    winner, loser = np.where(forward, first, second), np.where(forward, second, first)
    rows = np.concatenate([p[kept], p[tied]])
    winner, loser = np.concatenate([winner[kept], second[tied]]), np.concatenate([loser[kept], first[tied]])
    weights = np.concatenate([np.where(tied, 0.5, 1.0)[kept], np.full(tied.sum(), 0.5)]).astype(np.float32)
    return PreferredPairs(prompts[rows], completions[rows, winner], completions[rows, loser], weights)


def train_on_pairs(
    reference: LanguageModel,
    pairs: PreferredPairs,
    loss: Callable[..., Array],
    options: Mapping[str, Any],
    *,
    optimiser: optax.GradientTransformation,
    steps: int,
    batch_size: int = 32,
    seed: int = 0,
    start: LanguageModel | None = None,
    optimiser_state: Any = None,
    first_step: int = 0,
    trainable: Sequence[str] | None = None,
    callback: Callable[[int, float], Any] | None = None,
) -> Trained[LanguageModel]:
    """Train a policy on labelled pairs; log-probabilities under the reference are computed once, before the first step.

    Args:
        reference: the policy that losses compare with, and where training starts unless `start` is given; unchanged.
        pairs: tokens and weights; weight 1 is one whole label.
        loss: of `losses.py`, or any (chosen, rejected, ref_chosen, ref_rejected, **options) -> (n,).
        options: the loss's parameters, {"beta": 0.1}: numbers, or arrays (n,) with one value per pair. They are inputs
            of the compiled step: other values do not compile it anew.
        optimiser: from optax.
        steps: minibatches.
        batch_size: pairs of each.
        seed: of the order of the pairs.
        start: a policy to go on with.
        optimiser_state: to go on with; None starts afresh.
        first_step: steps taken before with this seed, as in `train`.
        trainable: patterns on the paths of the parameters to train, such as ["head/*"]; None: all.
        callback: `ProgressBar(steps)`, or any function of step and loss.

    Returns:
        Trained: model, optimiser_state, losses.

    Raises:
        TypeError, ValueError: as `train`, `sequence_log_probability` and the loss.

    Source: arXiv 2305.18290 for the loss of DPO; checked by tests/preference/small_model/test_policy_training.py.
    """
    size = len(pairs.weights)
    if not size:
        raise ValueError("pairs: none found; every label was a skip, or there are no labels")
    loss(*jnp.zeros((4, size)), **options)  # inside the compiled step its parameters could not be checked
    pairs = PreferredPairs(*(jnp.asarray(array) for array in pairs))
    data = _Referenced(
        pairs,
        compiled_log_probability(reference, pairs.prompts, pairs.chosen),
        compiled_log_probability(reference, pairs.prompts, pairs.rejected),
        {name: jnp.broadcast_to(jnp.asarray(value, jnp.float32), (size,)) for name, value in options.items()},
    )
    return train(
        reference if start is None else start,
        data,
        PairObjective(loss),
        optimiser,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        optimiser_state=optimiser_state,
        first_step=first_step,
        trainable=trainable,
        callback=callback,
    )


def compiled_log_probability(
    model: LanguageModel, prompts: Int[AnyArray, "n p"], completions: Int[AnyArray, "n c"]
) -> Float[Array, " n"]:
    """`sequence_log_probability` of any number of sequences, compiled, a bounded number of them at a time.

    Args:
        model: the policy.
        prompts: (n, p) tokens, padded on the left.
        completions: (n, c) tokens, padded on the right.

    Returns:
        (n,) float32, nats.

    Raises:
        ValueError: no sequences, tokens that are none of the model's, more columns than its positions.

    Source: derived; checked by tests/preference/small_model/test_policy_training.py.
    """
    prompts, completions = jnp.asarray(prompts), jnp.asarray(completions)
    check_tokens(model.config, prompts, "prompts")
    check_tokens(model.config, completions, "completions")
    definition, parameters = nnx.split(model)
    return _log_probabilities(definition, parameters, prompts, completions)


@partial(jax.jit, static_argnames="definition")
def _log_probabilities(definition, parameters, prompts, completions):
    model = nnx.merge(definition, parameters)
    return map_chunks(lambda chunk: sequence_log_probability(model, *chunk), (prompts, completions), ROWS)
