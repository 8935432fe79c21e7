"""DPO of a head alone on hidden states that are computed once: what `train_on_pairs` does with `trainable=["head/*"]`,
at a tenth of its cost, since blocks below the head do not change."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxdesign import preference as pref
from jaxdesign._arrays import map_chunks
from jaxdesign.preference.losses import soft_label_dpo_loss
from jaxdesign.preference.small_model.training import train

ROWS = 1_024  # sequences that are run side by side


class HeadOnStates(nnx.Module):
    """A head, and the states and tokens (N, c, width), (N, c) of the completions that it is asked about."""

    def __init__(self, model: pref.LanguageModel, states: Array, tokens: Array):
        self.head = nnx.clone(model.head)
        self.states, self.tokens = nnx.Variable(states), nnx.Variable(tokens)
        self.pad = model.config.pad

    def log_probability(self, rows: Int[Array, " b"]) -> Float[Array, " b"]:
        """Of these completions."""
        tokens = self.tokens[...][rows]
        log_law = jax.nn.log_softmax(self.head(self.states[...][rows]), axis=-1)
        exists = tokens != self.pad
        own = jnp.take_along_axis(log_law, jnp.where(exists, tokens, 0)[..., None], axis=-1)[..., 0]
        return jnp.sum(jnp.where(exists, own, 0.0), axis=-1)


def with_states(model: pref.LanguageModel, prompts: np.ndarray, completions: np.ndarray) -> HeadOnStates:
    """For prompts (P, columns) and completions (P, K, c)."""
    definition, parameters = nnx.split(model)
    rows = completions.reshape(-1, completions.shape[-1])
    asked = np.repeat(prompts, completions.shape[1], axis=0)
    states = _states(definition, parameters, jnp.asarray(asked), jnp.asarray(rows))
    return HeadOnStates(model, states, jnp.asarray(rows))


@partial(jax.jit, static_argnames="definition")
def _states(definition, parameters, prompts, completions):
    model = nnx.merge(definition, parameters)

    def chunk(part):
        asked, rows = part
        hidden = model(jnp.concatenate([asked, rows[:, :-1]], axis=1)).hidden
        return hidden[:, asked.shape[1] - 1 :]

    return map_chunks(chunk, (prompts, completions), ROWS)


def train_head(
    held: HeadOnStates,
    pairs: Int[np.ndarray, "n 2"],
    label: Float[np.ndarray, " n"],
    beta: float,
    optimiser: optax.GradientTransformation,
    steps: int,
    batch_size: int,
    seed: int,
) -> HeadOnStates:
    """DPO with labels in [0, 1]: how likely the first of each pair of completions (rows of the states) is better."""
    reference = np.asarray(log_probabilities(held))
    data = {"pairs": pairs, "reference": reference[pairs], "label": np.asarray(label, np.float32)}
    data["beta"] = np.full(len(pairs), beta, np.float32)
    return train(
        held, data, _objective, optimiser, steps=steps, batch_size=batch_size, seed=seed, trainable=["head/*"]
    ).model


def _objective(model: HeadOnStates, batch: dict[str, Array]) -> Float[Array, ""]:
    first, second = (model.log_probability(batch["pairs"][:, side]) for side in (0, 1))
    reference = batch["reference"]
    each = soft_label_dpo_loss(
        first, second, reference[:, 0], reference[:, 1], beta=batch["beta"], label=batch["label"]
    )
    return jnp.mean(each)


def log_probabilities(held: HeadOnStates) -> Float[Array, " n"]:
    """Of every completion."""
    definition, parameters = nnx.split(held)
    return _log_probabilities(definition, parameters)


@partial(jax.jit, static_argnames="definition")
def _log_probabilities(definition, parameters):
    held = nnx.merge(definition, parameters)
    return map_chunks(held.log_probability, jnp.arange(held.tokens[...].shape[0]), ROWS)


def with_head(model: pref.LanguageModel, held: HeadOnStates) -> pref.LanguageModel:
    """The model with the trained head."""
    found = nnx.clone(model)
    found.head = nnx.clone(held.head)
    return found


def divergence(
    held: HeadOnStates, model: pref.LanguageModel, prompts: Int[np.ndarray, "n p"], completions: Int[Array, "n c"]
) -> Float[Array, " n"]:
    """`sequence_divergence` of the model with the trained head from itself, whose blocks run once for both."""
    definition, parameters = nnx.split(model)
    return _divergence(definition, parameters, nnx.split(held.head)[1], jnp.asarray(prompts), completions)


@partial(jax.jit, static_argnames="definition")
def _divergence(definition, parameters, trained, prompts, completions):
    model = nnx.merge(definition, parameters)
    head = nnx.merge(nnx.split(model.head)[0], trained)

    def chunk(part):
        asked, rows = part
        states = model(jnp.concatenate([asked, rows[:, :-1]], axis=1)).hidden[:, asked.shape[1] - 1 :]
        own, other = (jax.nn.log_softmax(layer(states), axis=-1) for layer in (head, model.head))
        each = jnp.sum(jnp.exp(own) * (own - other), axis=-1)
        return jnp.sum(jnp.where(rows != model.config.pad, each, 0.0), axis=-1)

    return map_chunks(chunk, (prompts, completions), ROWS)
