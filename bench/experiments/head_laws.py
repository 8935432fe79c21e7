"""A language model whose head reads edited states, cheaply: laws of the unedited head are computed once and kept.

`HeadEdit` reads h + bias + (h R) W. Its logits are those of h plus s T, with s = (h R, 1) of 9 numbers a token and T
= (W, bias) E^T / temperature: a product of 9 by 8,192 in place of 576 by 8,192, and none in the derivative. With all
laws of a pool in float16 (400 prompts of 32 completions of 20 tokens: 4.2 GB) a step of DPO on 50 pairs takes a seventh
of the time of `train_on_cache`, and the value of a policy a twentieth of that of `cached_log_probabilities`. It is the
same policy to the rounding of the laws, which all arms and the reference share; checked by
tests/experiments/test_llama_dpo.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxdesign._arrays import contract
from jaxdesign.preference.llama import HeadEdit, Llama, TokenLaw, follow_completions, head_cache
from jaxdesign.preference.losses import soft_label_dpo_loss
from jaxdesign.preference.small_model.training import train

BLOCK = 40  # prompts between two writes
LEAST = -6e4  # log-probability of what is banned: -inf would be NaN in derivatives
BATCH = 50  # pairs


class Laws(NamedTuple):
    """laws (P, K, c, V) float16: log-probabilities of all outputs before each token; seen (P, K, c, rank + 1)."""

    laws: Array
    seen: Array
    tokens: Array


class EditedHead(nnx.Module):
    """What is trained: rows (rank + 1, width) of W and the bias; the head's rows E and the temperature are not."""

    def __init__(self, policy: HeadEdit):
        self.edit = nnx.Param(jnp.concatenate([policy.write[...], policy.bias[...][None]]))
        self.rows = nnx.Variable(policy.rows[...].astype(jnp.float32))
        self.temperature = policy.law.temperature

    def log_probability(self, laws: Laws, prompts: Int[Array, " n"], columns: Int[Array, " n"]) -> Float[Array, " n"]:
        """log pi(y | x) of listed completions: one after the other, since the laws of one fit a core's own memory."""
        table = contract("rw,vw->rv", self.edit[...], self.rows[...]) / self.temperature

        @jax.checkpoint
        def one(prompt, column):
            law, seen, tokens = (array[prompt, column] for array in laws)
            moved = law.astype(jnp.float32) + contract("cr,rv->cv", seen, table)
            own = jnp.take_along_axis(moved, tokens[:, None], axis=1)[:, 0]
            return jnp.sum(own - jax.nn.logsumexp(moved, axis=1))

        return jax.lax.map(lambda place: one(*place), (prompts, columns))


class _OnLaws(nnx.Module):
    """A head beside the laws that minibatches name completions of: arguments of the compiled step."""

    def __init__(self, head: EditedHead, laws: Laws):
        self.head = head
        self.laws = nnx.List([nnx.Variable(array) for array in laws])


class _Labelled(NamedTuple):
    pairs: Any
    label: Any
    reference: Any


@dataclass(frozen=True)
class _Objective:
    """Mean loss of DPO with labels in [0, 1] and beta 1."""

    def __call__(self, model: _OnLaws, batch: _Labelled) -> Float[Array, ""]:
        prompts, first, second = batch.pairs.T
        laws = Laws(*(array[...] for array in model.laws))
        both = model.head.log_probability(laws, jnp.tile(prompts, 2), jnp.concatenate([first, second]))
        own = jnp.split(both, 2)
        return jnp.mean(soft_label_dpo_loss(*own, *batch.reference.T, beta=1.0, label=batch.label))


def trained(
    head: EditedHead,
    laws: Laws,
    reference: Float[np.ndarray, "p k"],
    pairs: Int[np.ndarray, "n 3"],
    label: Float[np.ndarray, " n"],
    *,
    rate: float,
    steps: int,
    seed: int,
) -> EditedHead:
    """DPO by Adam on labels in [0, 1], the rate falling as a cosine."""
    p, i, j = pairs.T
    data = _Labelled(pairs.astype(np.int32), label.astype(np.float32), np.stack([reference[p, i], reference[p, j]], 1))
    model = _OnLaws(head, laws)
    optimiser = _adam(rate, steps)
    return train(model, data, _Objective(), optimiser, steps=steps, batch_size=BATCH, seed=seed).model.head


@cache
def _adam(rate: float, steps: int) -> optax.GradientTransformation:
    """One object each, since a step is compiled anew for another."""
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


def log_probabilities(head: EditedHead, laws: Laws, prompts: Int[np.ndarray, " h"]) -> Float[np.ndarray, "h k"]:
    """log pi(y | x) of all completions of some prompts, float32."""
    each = laws.tokens.shape[1]
    place = jnp.asarray(np.repeat(prompts, each)), jnp.tile(jnp.arange(each), len(prompts))
    definition, state = nnx.split(head)
    return np.asarray(_log_probabilities(definition, state, laws, *place)).reshape(-1, each)


@partial(jax.jit, static_argnames="definition")
def _log_probabilities(definition, state, laws, prompts, columns):
    return nnx.merge(definition, state).log_probability(laws, prompts, columns)


def pool_laws(policy: HeadEdit, states: Float[np.ndarray, "p k c w"], tokens: Int[np.ndarray, "p k c"]) -> Laws:
    """Laws of all completions of a pool under the unedited head, a prompt at a time."""
    rows, read = policy.rows[...].astype(jnp.float32), policy.read[...]

    @jax.jit
    def of(some):
        some = some.astype(jnp.float32)
        law = policy.law.log_law(Llama.logits(some, rows))
        seen = contract("kcw,wr->kcr", some, read)
        one = jnp.ones((*seen.shape[:2], 1), jnp.float32)
        return jnp.maximum(law, LEAST).astype(jnp.float16), jnp.concatenate([seen, one], axis=2)

    shape = (*tokens.shape, rows.shape[0])
    laws, seen = np.empty(shape, np.float16), np.empty((*tokens.shape, read.shape[1] + 1), np.float32)
    for number, some in enumerate(states):
        laws[number], seen[number] = of(some)
    return Laws(jnp.asarray(laws), jnp.asarray(seen), jnp.asarray(tokens, jnp.int32))


def projected_gradients(
    policy: HeadEdit, laws: Laws, dimension: int, seed: int = 0
) -> Float[np.ndarray, "p k dimension"]:
    """Derivatives of log pi(y | x) by the edit, at none, projected at random.

    Over the square roots of their sizes, as the steps of Adam would have it, they tell less of what training does.
    """
    rows = policy.rows[...].astype(jnp.float32)

    @jax.jit
    def of(law, seen, tokens):
        expected = contract("kcv,vw->kcw", jnp.exp(law.astype(jnp.float32)), rows)
        return contract("kcr,kcw->krw", seen, (rows[tokens] - expected) / policy.law.temperature)

    size = laws.seen.shape[3] * rows.shape[1]
    directions = np.random.default_rng(seed).standard_normal((size, dimension)).astype(np.float32) / np.sqrt(dimension)
    each = [np.asarray(of(*one)).reshape(-1, size) @ directions for one in zip(*laws, strict=True)]
    return np.stack(each).astype(np.float32)


def cached_states(
    folder: Path, model: Llama, law: TokenLaw, prompts: Int[np.ndarray, "p t"], tokens: Int[np.ndarray, "p k c"]
) -> Float[np.ndarray, "p k c w"]:
    """States before every token, float16, from a folder where there; what is not is computed, block by block."""
    folder.mkdir(parents=True, exist_ok=True)
    return np.concatenate(list(_blocks(folder, model, law, prompts, tokens)))


def _blocks(folder, model, law, prompts, tokens) -> Iterator[np.ndarray]:
    for start in range(0, len(tokens), BLOCK):
        file = folder / f"{start}.npy"
        some = prompts[start : start + BLOCK], tokens[start : start + BLOCK]
        yield kept(file, lambda some=some: _states(model, law, *some))


def _states(model, law, prompts, tokens) -> np.ndarray:
    return head_cache(follow_completions(model, prompts, tokens, law).states, tokens, dtype=np.float16).states


def kept(file: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of a .npy file, which is computed and written where there is none."""
    if not file.exists():
        part = file.with_suffix(".part.npy")
        np.save(part, compute())
        part.replace(file)
    return np.load(file)
