"""A Llama in Flax NNX: embedding, blocks, head; prompts read once, completions that share them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxdesign._arrays import contract
from jaxdesign.preference.llama.blocks import Block, Norm, Prefix, through_completions, through_prompt
from jaxdesign.preference.llama.config import LlamaConfig

PAD = -1  # the token that is none: files often have no padding token of their own


class Llama(nnx.Module):
    """A Llama, with random weights; `load_llama` makes one with those of a file.

    Args:
        config: its shape.
        rngs: Flax random streams, `nnx.Rngs(seed)`.

    Raises:
        TypeError: a config of another kind.

    Numerics: products at full precision of `config.dtype`; norms, attention weights and logits in float32.

    Source: Llama, arXiv 2302.13971 (RMS norms, SwiGLU, rotary positions); grouped queries, arXiv 2305.13245; checked by
    tests/preference/llama/test_llama_files.py.
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
        x, prefix = through_prompt(self.config, self.blocks, self.embed(prompts), prompts != PAD)
        return self.norm(x), prefix

    def completion_stream(self, tokens: Int[Array, "p k c"], prefix: Prefix) -> Float[Array, "p k c width"]:
        """States after the last norm at `tokens` (P, K, c), completions that follow the prompts of `prefix`.

        Padding stands on the right; states there mean nothing.
        """
        return self.norm(through_completions(self.config, self.blocks, self.embed(tokens), prefix)[0])

    def empty_cache(self, prefix: Prefix, completions: int, length: int) -> tuple[tuple[Array, Array], ...]:
        """Room for keys and values of K `completions` of `length` tokens each after `prefix`, by block."""
        prompts = prefix.exists.shape[0]
        zeros = jnp.zeros((prompts, completions, length, self.config.kv_heads, self.config.size), self.config.dtype)
        return tuple((zeros, zeros) for _ in self.blocks)

    def extend(
        self, tokens: Int[Array, "p k"], prefix: Prefix, cache: tuple[tuple[Array, Array], ...], column: Any
    ) -> tuple[Float[Array, "p k width"], tuple[tuple[Array, Array], ...]]:
        """States (P, K, width) at one more of `tokens` each after `prefix`, and `cache` with it written at `column`."""
        x = self.embed(tokens)[:, :, None]
        x, cache = through_completions(self.config, self.blocks, x, prefix, cache, column)
        return self.norm(x)[:, :, 0], cache

    def embed(self, tokens: Int[Array, "*n"]) -> Float[Array, "*n width"]:
        """Embedded tokens; PAD, which nothing ever sees, as token 0."""
        return self.embedding[...][jnp.maximum(tokens, 0)]


def _normal(rngs, shape, dtype):
    return (0.02 * jax.random.normal(rngs.params(), shape)).astype(dtype)
