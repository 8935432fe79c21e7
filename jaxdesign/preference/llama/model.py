"""A plain Llama in Flax NNX: grouped-query attention, rotary positions, RMS norms, SwiGLU.

Everything runs on completions beside a shared prompt: streams are (P, K, q, width), K completions of each of P prompts,
and a block sees the prompt's keys and values, which the K completions share and which are therefore never repeated,
and those of the completion itself. A prompt alone is the case K = 1 without a past.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxdesign._arrays import HIGHEST, contract
from jaxdesign.preference.llama.config import LlamaConfig

PAD = -1  # the token that is none: files often have no padding token of their own


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


class Llama(nnx.Module):
    """A Llama, with random weights; `load_llama` makes one with those of a file.

    Args:
        config: its shape.
        rngs: Flax random streams, `nnx.Rngs(seed)`.

    Raises:
        TypeError: a config of another kind.

    Numerics: products at full precision of `config.dtype`; norms, attention weights and logits in float32.

    Source: Llama, arXiv 2302.13971 (RMS norms, SwiGLU, rotary positions); grouped queries, arXiv 2305.13245; checked by
    tests/preference/llama/test_llama_model.py.
    """

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
        if not isinstance(config, LlamaConfig):
            raise TypeError(f"config: expected a LlamaConfig, found {type(config).__name__}")
        self.config = config
        self.embedding = nnx.Param(_normal(rngs, (config.vocabulary, config.width), config.dtype))
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.depth)])
        self.norm = Norm(config)
        if not config.tied:
            self.head = nnx.Param(_normal(rngs, (config.vocabulary, config.width), config.dtype))

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t vocabulary"]:
        """Logits of the token after each column of tokens (b, t), PAD anywhere: (b, t, V) float32."""
        hidden, _ = self.prompt_stream(tokens)
        return self.logits(hidden, self.head_rows())

    def head_rows(self, outputs: int | None = None) -> Float[Array, "outputs width"]:
        """Rows of the matrix that predicts tokens, the first `outputs` of them; None for all."""
        rows = self.embedding if self.config.tied else self.head
        return rows[...][:outputs]

    @staticmethod
    def logits(hidden: Float[Array, "... width"], rows: Float[Array, "outputs width"]) -> Float[Array, "... outputs"]:
        """Scores of tokens, float32, from states after the last norm (`hidden`) and rows of the head (`rows`)."""
        return contract("...w,ow->...o", hidden, rows, dtype=jnp.float32)

    def prompt_stream(self, prompts: Int[Array, "p t"]) -> tuple[Float[Array, "p t width"], Prefix]:
        """States after the last norm at every column of prompts (P, t), and what completions see of them."""
        exists = prompts != PAD
        causal = jnp.tril(jnp.ones((prompts.shape[1],) * 2, bool))
        mask = causal[None] & exists[:, None, :]
        x, turn = self._start(prompts[:, None], (jnp.cumsum(exists, axis=1) - 1)[:, None])
        seen = []
        for block in self.blocks:
            x, own = block(x, turn, mask[:, None])
            seen.append(tuple(part[:, 0] for part in own))
        return self.norm(x)[:, 0], Prefix(tuple(seen), exists)

    def completion_stream(self, tokens: Int[Array, "p k c"], prefix: Prefix) -> Float[Array, "p k c width"]:
        """States after the last norm at every token of completions (P, K, c) that follow the prompts of `prefix`.

        Padding stands on the right; states there mean nothing.
        """
        columns = jnp.arange(tokens.shape[2])
        return self._extended(tokens, prefix, None, columns[:, None] >= columns[None], 0)[0]

    def empty_cache(self, prefix: Prefix, completions: int, length: int) -> tuple[tuple[Array, Array], ...]:
        """Room for keys and values of K completions of `length` tokens each, one pair of arrays a block."""
        prompts = prefix.exists.shape[0]
        zeros = jnp.zeros((prompts, completions, length, self.config.kv_heads, self.config.size), self.config.dtype)
        return tuple((zeros, zeros) for _ in self.blocks)

    def extend(
        self, tokens: Int[Array, "p k"], prefix: Prefix, cache: tuple[tuple[Array, Array], ...], column: Any
    ) -> tuple[Float[Array, "p k width"], tuple[tuple[Array, Array], ...]]:
        """States (P, K, width) at one more of `tokens` each, and `cache` with it written at `column`."""
        visible = jnp.arange(cache[0][0].shape[2]) <= column
        hidden, cache = self._extended(tokens[..., None], prefix, cache, visible[None], column)
        return hidden[:, :, 0], cache

    def _extended(self, tokens, prefix, cache, visible, column):
        """The stream at tokens (P, K, q) after a prefix; visible (q, s): which of the completion's columns are seen."""
        prompts, completions, new = tokens.shape
        before = jnp.broadcast_to(prefix.exists[:, None, None], (prompts, completions, new, prefix.exists.shape[1]))
        mask = jnp.concatenate(
            [before, jnp.broadcast_to(visible[None, None], (*before.shape[:3], visible.shape[1]))], -1
        )
        first = jnp.sum(prefix.exists, axis=1)[:, None, None] + column
        x, turn = self._start(tokens, jnp.broadcast_to(first + jnp.arange(new)[None, None], tokens.shape))
        seen = []
        for number, (block, past) in enumerate(zip(self.blocks, prefix.seen, strict=True)):
            x, own = block(x, turn, mask, past, None if cache is None else cache[number], column)
            seen.append(own)
        return self.norm(x), tuple(seen)

    def _start(self, tokens, positions):
        """Embedded tokens (P, K, q, width), and cosines and sines of their positions (P, K, q, size / 2)."""
        angles = positions[..., None].astype(jnp.float32) * frequencies(self.config)[None, None, None]
        return self.embedding[...][jnp.maximum(tokens, 0)], (jnp.cos(angles), jnp.sin(angles))


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


def _normal(rngs, shape, dtype):
    return (0.02 * jax.random.normal(rngs.params(), shape)).astype(dtype)
