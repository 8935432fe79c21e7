"""Policies on cached streams: what is trained of a Llama while the rest of it is frozen, and features are gradients by.

Both have `log_probability(cache)`, (P, K) log pi(y | x) of the completions of their kind of cache, under a law. As made
they are the model itself; their `nnx.Param` variables are what can be trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxdesign._arrays import contract
from jaxdesign._checks import whole_number
from jaxdesign.preference.llama.blocks import Prefix, through_completions, through_prompt
from jaxdesign.preference.llama.cached import HeadCache, TailCache, checked_blocks
from jaxdesign.preference.llama.law import TokenLaw, check_law
from jaxdesign.preference.llama.model import Llama

LAYERS = {"query": "attention", "key": "attention", "value": "attention", "write": "attention"}
LAYERS |= {"gate": "", "up": "", "down": ""}  # of a block, by what of the block holds them


class Frozen(nnx.Variable):
    """Arrays of a policy that are never trained."""


class HeadEdit(nnx.Module):
    """A low-rank edit of the state that the head reads: h + bias + (h R) W, with R random and fixed.

    Args:
        model: whose head reads the states.
        law: whose probabilities are meant.
        rank: columns of R, whose entries are normal with variance 1 / width.
        rngs: Flax random streams for R, `nnx.Rngs(seed)`.

    Raises:
        TypeError, ValueError: a law that does not fit the model, a rank below 1.

    Numerics: float32, whatever the cache is kept in.

    Source: derived; checked by tests/preference/llama/test_llama_policies.py.
    """

    def __init__(self, model: Llama, law: TokenLaw, *, rank: int, rngs: nnx.Rngs):
        check_law(law, model.config)
        width, rank = model.config.width, whole_number(rank, "rank", 1)
        self.law = law
        self.rows = Frozen(model.head_rows(law.outputs))
        self.read = Frozen(jax.random.normal(rngs.params(), (width, rank)) * width**-0.5)
        self.bias = nnx.Param(jnp.zeros(width))
        self.write = nnx.Param(jnp.zeros((rank, width)))

    def log_probability(self, cache: HeadCache) -> Float[Array, "p k"]:
        """log pi(y | x) of the completions of `cache`, (P, K) float32; traceable."""
        states = jnp.asarray(cache.states, jnp.float32)
        seen = contract("pkcw,wr->pkcr", states, self.read[...])
        edited = states + self.bias[...][None, None, None] + contract("pkcr,rw->pkcw", seen, self.write[...])
        rows = self.rows[...].astype(jnp.float32)
        return jnp.sum(self.law.token_log_probabilities(edited, jnp.asarray(cache.tokens), rows), axis=-1)


class Tail(nnx.Module):
    """The last blocks of a model with its last norm and its head, of which the head is frozen.

    Args:
        model: it stays as it is.
        law: whose probabilities are meant.
        blocks: how many, 1 to the model's depth; as in `tail_cache`.

    Raises:
        TypeError, ValueError: a law that does not fit the model, more blocks than there are.

    Source: derived; checked by tests/preference/llama/test_llama_policies.py.
    """

    def __init__(self, model: Llama, law: TokenLaw, *, blocks: int):
        check_law(law, model.config)
        blocks = checked_blocks(model, blocks)
        own = nnx.merge(*nnx.split(model))  # variables of its own, which share the arrays
        self.config, self.law = model.config, law
        self.blocks = nnx.List(own.blocks[model.config.depth - blocks :])
        self.norm = own.norm
        self.rows = Frozen(model.head_rows(law.outputs))

    def log_probability(self, cache: TailCache) -> Float[Array, "p k"]:
        """log pi(y | x) of the completions of `cache`, (P, K) float32; traceable."""
        prompts, completions = (jnp.asarray(part, self.config.dtype) for part in (cache.prompts, cache.completions))
        x, prefix = through_prompt(self.config, self.blocks, prompts, jnp.asarray(cache.exists))
        own = self._before(completions, prefix)
        first = jnp.broadcast_to(x[:, None, -1:], (*own.shape[:2], 1, own.shape[3]))
        states = self.norm(jnp.concatenate([first, own], axis=2))
        return jnp.sum(self.law.token_log_probabilities(states, jnp.asarray(cache.tokens), self.rows[...]), axis=-1)

    def _before(self, completions: Array, prefix: Prefix) -> Array:
        """The stream after the blocks at all tokens but the last, after which nothing is predicted."""
        return through_completions(self.config, self.blocks, completions[:, :, :-1], prefix)[0]


class Adapted(nnx.Module):
    """A linear layer x W with a low-rank addition: x W + (x A) B, where B begins as 0."""

    def __init__(self, base: nnx.Linear, rank: int, rngs: nnx.Rngs):
        inputs, outputs = base.kernel.shape
        dtype = base.kernel.dtype
        self.base = base
        self.adapter_in = nnx.Param((jax.random.normal(rngs.params(), (inputs, rank)) * inputs**-0.5).astype(dtype))
        self.adapter_out = nnx.Param(jnp.zeros((rank, outputs), dtype))

    def __call__(self, x: Any) -> Any:
        added = contract("...i,ir->...r", x, self.adapter_in[...])
        return self.base(x) + contract("...r,ro->...o", added, self.adapter_out[...])


def with_adapters(tail: Tail, *, rank: int, rngs: nnx.Rngs, layers: Sequence[str] = ("query", "value")) -> Tail:
    """The same policy with low-rank adapters (LoRA) on linear layers of its blocks, which as made change nothing.

    Args:
        tail: it stays as it is.
        rank: of every adapter.
        rngs: Flax random streams for the matrices that read, whose entries are normal with variance 1 / inputs.
        layers: names among query, key, value, write, gate, up, down.

    Returns:
        A Tail. Train its adapters with `trainable=["*/adapter_in", "*/adapter_out"]`, or only those that write.

    Raises:
        TypeError: no Tail, a string for layers. ValueError: a rank below 1, no layers or other names.

    Source: arXiv 2106.09685; checked by tests/preference/llama/test_llama_policies.py.
    """
    if not isinstance(tail, Tail):
        raise TypeError(f"tail: expected a Tail, found {type(tail).__name__}")
    if isinstance(layers, str):
        raise TypeError(f"layers={layers!r}: must be a list of names, not a string")
    strange = [name for name in layers if name not in LAYERS]
    if strange or not layers:
        raise ValueError(f"layers: {strange or 'none'} found; allowed are {', '.join(LAYERS)}")
    rank = whole_number(rank, "rank", 1)
    out = nnx.merge(*nnx.split(tail))
    for block in out.blocks:
        for name in layers:
            home = getattr(block, LAYERS[name]) if LAYERS[name] else block
            setattr(home, name, Adapted(getattr(home, name), rank, rngs))
    return out


def check_kind(policy: Any, cache: Any) -> None:
    """TypeError for what is no policy of this file, or a cache of another kind than its own."""
    kinds = {HeadEdit: HeadCache, Tail: TailCache}
    if type(policy) not in kinds:
        raise TypeError(f"policy: expected a HeadEdit or a Tail, found {type(policy).__name__}")
    if not isinstance(cache, kinds[type(policy)]):
        expected = kinds[type(policy)].__name__
        raise TypeError(f"cache: expected a {expected} for a {type(policy).__name__}, found {type(cache).__name__}")


def example_log_probability(policy: HeadEdit | Tail, example: Any) -> Float[Array, ""]:
    """log pi(y | x) of one completion, as `split_model` and through it gradients of features take it.

    Args:
        policy: a HeadEdit or a Tail.
        example: one row of `cache.examples()`, its kind that of the policy.

    Returns:
        Scalar, nats; traceable.

    Raises: nothing of its own.

    Source: derived; checked by tests/preference/llama/test_llama_features.py.
    """
    return policy.log_probability(example)[0, 0]
