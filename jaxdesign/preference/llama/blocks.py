"""Blocks of a Llama: grouped-query attention, rotary positions, RMS norms, SwiGLU.

Everything runs on completions beside a shared prompt: streams are (P, K, q, width), K completions of each of P prompts,
and a block sees the prompt's keys and values, which the K completions share and which are therefore never repeated,
and those of the completion itself. A prompt alone is the case K = 1 without a past.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool

from jaxdesign._arrays import HIGHEST, contract
from jaxdesign.preference.llama.config import LlamaConfig


class Prefix(NamedTuple):
    """What completions see of their prompt: keys and values of every block, (P, t, kv_heads, size) each, and a mask."""

    seen: tuple[tuple[Array, Array], ...]
    exists: Bool[Array, "p t"]


class Attention(nnx.Module):
    """Grouped-query attention of completions over their prompt's past and themselves."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
        self.shape = (config.kv_heads, config.heads // config.kv_heads, config.size)
        everything, shared = config.heads * config.size, config.kv_heads * config.size
        self.query = _linear(config, config.width, everything, rngs)
        self.key = _linear(config, config.width, shared, rngs)
        self.value = _linear(config, config.width, shared, rngs)
        self.write = _linear(config, everything, config.width, rngs)

    def __call__(self, x, turn, mask, past, own, column):
        """The mixed values (P, K, q, width), and the keys and values of the completions with the new ones written in.

        Args:
            x: (P, K, q, width).
            turn: cosines and sines of the positions of x, (P, K, q, size / 2) each.
            mask: (P, K, q, t + s), which of the prompt's t columns and the completion's s columns are seen.
            past: keys and values of the prompt, (P, t, kv, size) each; None for none.
            own: those of the completion, (P, K, s, kv, size) each, to be written at `column`; None where x is all.
            column: the first of the q columns of x.
        """
        kv, groups, size = self.shape
        lead = x.shape[:3]
        queries = _turned(self.query(x).reshape(*lead, kv * groups, size), turn).reshape(*lead, kv, groups, size)
        new = _turned(self.key(x).reshape(*lead, kv, size), turn), self.value(x).reshape(*lead, kv, size)
        if own is not None:
            new = tuple(
                jax.lax.dynamic_update_slice_in_dim(old, part, column, axis=2)
                for old, part in zip(own, new, strict=True)
            )
        keys, values = new
        scores = contract("pkqhge,pkshe->pkhgqs", queries, keys, dtype=jnp.float32)
        if past is not None:
            before = contract("pkqhge,pthe->pkhgqt", queries, past[0], dtype=jnp.float32)
            scores = jnp.concatenate([before, scores], axis=-1)
        # a finite number, not -inf: a padding column at the left sees nothing at all, and must not become NaN
        weights = jax.nn.softmax(jnp.where(mask[:, :, None, None], scores * size**-0.5, -1e30), axis=-1)
        weights = weights.astype(values.dtype)
        split = 0 if past is None else past[0].shape[1]
        mixed = contract("pkhgqs,pkshe->pkqhge", weights[..., split:], values)
        if past is not None:
            mixed = mixed + contract("pkhgqt,pthe->pkqhge", weights[..., :split], past[1])
        return self.write(mixed.reshape(*lead, -1)), new


class Block(nnx.Module):
    """Attention and a gated feed-forward layer, each on the normalised stream and added to it."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
        self.norm_attention = Norm(config)
        self.attention = Attention(config, rngs=rngs)
        self.norm_feed = Norm(config)
        self.gate = _linear(config, config.width, config.inner, rngs)
        self.up = _linear(config, config.width, config.inner, rngs)
        self.down = _linear(config, config.inner, config.width, rngs)

    def __call__(self, x, turn, mask, past=None, own=None, column=0):
        """The stream after this block, and the keys and values of its attention; arguments as those of `Attention`."""
        mixed, seen = self.attention(self.norm_attention(x), turn, mask, past, own, column)
        x = x + mixed
        normed = self.norm_feed(x)
        return x + self.down(jax.nn.silu(self.gate(normed)) * self.up(normed)), seen


class Norm(nnx.Module):
    """x / sqrt(mean(x^2) + epsilon) times a scale, computed in float32."""

    def __init__(self, config: LlamaConfig):
        self.epsilon = config.norm_epsilon
        self.scale = nnx.Param(jnp.ones(config.width, config.dtype))

    def __call__(self, x):
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)
        scale = self.scale[...].astype(jnp.float32)
        return (wide * scale.reshape(*[1] * (x.ndim - 1), -1)).astype(x.dtype)


def through_prompt(config: LlamaConfig, blocks: Iterable[Block], x: Array, exists: Array) -> tuple[Array, Prefix]:
    """The stream x (P, t, width) of prompts after some blocks, and what completions see of the prompts in them."""
    causal = jnp.tril(jnp.ones((x.shape[1],) * 2, bool))
    mask = causal[None, None] & exists[:, None, None, :]
    turn = _turn(config, (jnp.cumsum(exists, axis=1) - 1)[:, None])
    x, seen = x[:, None], []
    for block in blocks:
        x, own = block(x, turn, mask)
        seen.append(tuple(part[:, 0] for part in own))
    return x[:, 0], Prefix(tuple(seen), exists)


def through_completions(
    config: LlamaConfig, blocks: Iterable[Block], x: Array, prefix: Prefix, cache: Any = None, column: Any = 0
) -> tuple[Array, tuple[tuple[Array, Array], ...]]:
    """The stream x (P, K, q, width) of completions after some blocks, and their keys and values.

    Args:
        config: the model's.
        blocks: those that `prefix` is of.
        x: columns `column` to `column` + q of the completions, tokens without padding before them.
        prefix: of the prompts.
        cache: keys and values (P, K, s, kv, size) of every block, for all s columns, those before `column` filled in;
            None where x is the completions from their beginning.
        column: the first of x, a number or traced.
    """
    new = jnp.arange(x.shape[2])
    columns = new if cache is None else jnp.arange(cache[0][0].shape[2])
    visible = columns[None] <= new[:, None] + column
    lead = x.shape[:3]
    before = jnp.broadcast_to(prefix.exists[:, None, None], (*lead, prefix.exists.shape[1]))
    mask = jnp.concatenate([before, jnp.broadcast_to(visible[None, None], (*lead, len(columns)))], axis=-1)
    first = jnp.sum(prefix.exists, axis=1)[:, None, None] + column
    turn = _turn(config, jnp.broadcast_to(first + new[None, None], lead))
    seen = []
    for number, (block, past) in enumerate(zip(blocks, prefix.seen, strict=True)):
        x, own = block(x, turn, mask, past, None if cache is None else cache[number], column)
        seen.append(own)
    return x, tuple(seen)


def _turn(config, positions):
    """Cosines and sines of positions (P, K, q), (P, K, q, size / 2) each."""
    angles = positions[..., None].astype(jnp.float32) * frequencies(config)[None, None, None]
    return jnp.cos(angles), jnp.sin(angles)


def frequencies(config: LlamaConfig) -> np.ndarray:
    """(size / 2,) float32 angles a position: rope_base^(-2 i / size) over the factors."""
    angles = config.rope_base ** (-np.arange(0, config.size, 2, dtype=np.float64) / config.size)
    return (angles / (np.array(config.rope_factors) if config.rope_factors else 1.0)).astype(np.float32)


def _turned(x, turn):
    """(P, K, q, heads, size) with entries i and i + size / 2 rotated by the i-th angle of their position."""
    cosine, sine = (part[:, :, :, None] for part in turn)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)


def _linear(config, inputs, outputs, rngs):
    dtype = {"dtype": config.dtype, "param_dtype": config.dtype}
    return nnx.Linear(inputs, outputs, use_bias=False, precision=HIGHEST, rngs=rngs, **dtype)
