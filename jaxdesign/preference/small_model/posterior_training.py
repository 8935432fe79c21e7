"""Training on the posterior: from few labels by way of a fit to soft labels of all pairs, and DPO on those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optax
from jaxtyping import Int

from jaxdesign import _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.losses import soft_label_dpo_loss
from jaxdesign.preference.posterior_labels import soft_labels
from jaxdesign.preference.small_model.dpo_training import PreferredPairs, train_on_pairs
from jaxdesign.preference.small_model.fine_tuning import fine_tuning_optimiser
from jaxdesign.preference.small_model.language_model import LanguageModel
from jaxdesign.preference.small_model.training import Trained

LEARNING_RATE = 1e-3


def train_on_posterior(
    reference: LanguageModel,
    prompts: Int[AnyArray, "p columns"],
    completions: Int[AnyArray, "p k c"],
    pool: CompletionPool,
    belief: Any,
    *,
    beta: float,
    steps: int = 300,
    batch_size: int = 64,
    optimiser: optax.GradientTransformation | None = None,
    seed: int = 0,
    trainable: Sequence[str] | None = None,
    callback: Callable[[int, float], Any] | None = None,
) -> Trained[LanguageModel]:
    """DPO with labels in [0, 1] on all pairs of a pool: p = sigma(z . m), m the mean of the belief (`soft_labels`).

    Few labels leave a policy that is trained on them alone close to the reference: bias, not the noise of labels, is
    then what is missing. The fit relates labels to all pairs through the features, and the policy can be trained on
    those to convergence, since soft labels have no noise to overfit; what holds it back is the prior of the fit. With
    features of which the policy's log-probability is a linear function this is `posterior_policy`.

    Args:
        reference: the policy that margins are relative to, and where training starts; unchanged.
        prompts: (P, columns) tokens of the pool's prompts.
        completions: (P, K, c) tokens of its completions, in the order of the pool.
        pool: features of the completions, in the basis of the belief.
        belief: `fit_posterior(pool, labels, prior)`, or any `Belief` or what holds one.
        beta: strength of the KL term, above 0.
        steps: minibatches. No more pairs are looked at than these hold: where the pool has more, so many are drawn.
        batch_size: pairs of each.
        optimiser: from optax; None for `fine_tuning_optimiser(1e-3, steps)`, Adam with a rate that rises and falls.
        seed: of the pairs that are drawn and their order.
        trainable: patterns on the paths of the parameters to train, such as ["head/*"]; None: all.
        callback: `ProgressBar(steps)`, or any function of step and loss.

    Returns:
        Trained: model, optimiser_state, losses (cross-entropies; their least is the mean entropy of the soft labels).

    Raises:
        TypeError, ValueError: as `soft_labels` and `train_on_pairs`; tokens that are not those of the pool's prompts
            and completions by their shapes; steps or batch_size below 1.

    Source: derived; soft labels as in arXiv 2509.24159; checked by
    tests/preference/small_model/test_posterior_training.py.
    """
    steps, batch_size = (
        _checks.whole_number(value, name, 1) for value, name in ((steps, "steps"), (batch_size, "batch_size"))
    )
    prompts, completions = np.asarray(prompts), np.asarray(completions)
    shape = (pool.num_prompts, pool.completions)
    _checks.same_shape(completions.shape[:2], shape, "completions", "in its first two axes, as the pool")
    _checks.same_shape(prompts.shape[:1], shape[:1], "prompts", "in its first axis, as the pool")
    pairs, probabilities = soft_labels(pool, belief, number=steps * batch_size, seed=seed)
    p, i, j = pairs.T
    tokens = PreferredPairs(prompts[p], completions[p, i], completions[p, j], np.ones(len(p), np.float32))
    return train_on_pairs(
        reference,
        tokens,
        soft_label_dpo_loss,
        {"beta": beta, "label": probabilities.astype(np.float32)},
        optimiser=fine_tuning_optimiser(LEARNING_RATE, steps) if optimiser is None else optimiser,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        trainable=trainable,
        callback=callback,
    )
