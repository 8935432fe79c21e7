"""A small decoder-only transformer (Flax NNX) as a policy over texts, and log-probabilities of completions under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxdesign._arrays import HIGHEST, AnyArray, contract, is_traced


@dataclass(frozen=True)
class LanguageModelConfig:
    """Shape of a `LanguageModel`; the defaults give about 0.1 M parameters.

    Args:
        characters: size of the tokeniser's alphabet; tokens are END, the characters, the beginning, padding.
        max_length: longest prompt and completion together, in tokens without padding.
        width: of the residual stream; heads must divide it.
        depth: number of blocks.
        heads: attention heads of each block.
        expansion: width of the feed-forward layer over `width`.
        tied: whether tokens are predicted with the matrix that embeds them.

    Raises:
        TypeError, ValueError: a size that is no integer or below 1, heads that do not divide width.

    Source: derived; checked by tests/preference/small_model/test_language_model.py.
    """

    characters: int
    max_length: int = 64
    width: int = 64
    depth: int = 2
    heads: int = 4
    expansion: int = 4
    tied: bool = True

    def __post_init__(self):
        for name in ("characters", "max_length", "width", "depth", "heads", "expansion"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}: expected an integer, found {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads}: must divide width={self.width}")

    @property
    def outputs(self) -> int:
        """Tokens a policy can emit: END and the characters."""
        return self.characters + 1

    @property
    def pad(self) -> int:
        """The padding token, the last of the vocabulary."""
        return self.characters + 2


class Prediction(NamedTuple):
    """Logits of the next token at every column, and the hidden states they are read from.

    Args:
        logits: (b, t, outputs) float32, over END and the characters.
        hidden: (b, t, width) float32, after the last norm.
    """

    logits: Float[Array, "b t outputs"]
    hidden: Float[Array, "b t width"]


class Cache(NamedTuple):
    """Keys and values of the columns seen so far; columns are those of prompt and completion side by side.

    One pair of arrays per block, not stacked: a loop can then write each in place.
    """

    seen: tuple[tuple[Float[Array, "b columns heads size"], Float[Array, "b columns heads size"]], ...]
    exists: Bool[Array, "b columns"]


class Attention(nnx.Module):
    """Multi-head attention over the columns a mask allows."""

    def __init__(self, config: LanguageModelConfig, *, rngs: nnx.Rngs):
        self.heads = config.heads
        options = {"use_bias": False, "precision": HIGHEST, "rngs": rngs}
        self.read = nnx.Linear(config.width, 3 * config.width, **options)
        self.write = nnx.Linear(config.width, config.width, **options)

    def __call__(self, x, mask, past=None, column=0):
        """(b, t, width) and the keys and values used: the own ones, or those of `past` with the own ones written in."""
        read = self.read(x).reshape(*x.shape[:2], 3, self.heads, -1)
        queries, keys, values = read[:, :, 0], read[:, :, 1], read[:, :, 2]
        if past is not None:
            keys, values = (
                jax.lax.dynamic_update_slice_in_dim(old, new, column, axis=1)
                for old, new in zip(past, (keys, values), strict=True)
            )
        scores = contract("bqhe,bkhe->bhqk", queries, keys) * queries.shape[-1] ** -0.5
        # a finite number, not -inf: a padding column at the left sees nothing at all, and must not become NaN
        weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e30), axis=-1)
        mixed = contract("bhqk,bkhe->bqhe", weights, values)
        return self.write(mixed.reshape(x.shape)), (keys, values)


class Block(nnx.Module):
    """Attention and a feed-forward layer, each on the normalised stream and added to it."""

    def __init__(self, config: LanguageModelConfig, *, rngs: nnx.Rngs):
        self.norm_attention = nnx.LayerNorm(config.width, rngs=rngs)
        self.attention = Attention(config, rngs=rngs)
        self.norm_feed = nnx.LayerNorm(config.width, rngs=rngs)
        inner = config.width * config.expansion
        self.feed_in = nnx.Linear(config.width, inner, precision=HIGHEST, rngs=rngs)
        self.feed_out = nnx.Linear(inner, config.width, precision=HIGHEST, rngs=rngs)

    def __call__(self, x, mask, past=None, column=0):
        """The stream after this block, and the keys and values of its attention."""
        mixed, seen = self.attention(self.norm_attention(x), mask, past, column)
        x = x + mixed
        return x + self.feed_out(jax.nn.gelu(self.feed_in(self.norm_feed(x)))), seen


class LanguageModel(nnx.Module):
    """Decoder-only transformer over characters: learned positions, pre-norm blocks, causal attention.

    Positions count existing tokens, so padding on either side changes nothing. All parameters and sums are float32
    (matrix products at full precision).

    Args:
        config: its shape.
        rngs: Flax random streams, `nnx.Rngs(seed)`.

    Raises:
        TypeError: a config of another kind.

    Source: Vaswani et al. 2017, arXiv 1706.03762, with pre-norm blocks; checked by
    tests/preference/small_model/test_language_model.py.
    """

    def __init__(self, config: LanguageModelConfig, *, rngs: nnx.Rngs):
        if not isinstance(config, LanguageModelConfig):
            raise TypeError(f"config: expected a LanguageModelConfig, found {type(config).__name__}")
        self.config = config
        self.embedding = nnx.Embed(config.pad + 1, config.width, rngs=rngs)
        self.positions = nnx.Embed(config.max_length, config.width, rngs=rngs)
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.depth)])
        self.norm = nnx.LayerNorm(config.width, rngs=rngs)
        if not config.tied:
            self.head = nnx.Linear(config.width, config.outputs, use_bias=False, precision=HIGHEST, rngs=rngs)

    def __call__(self, tokens: Int[Array, "b t"]) -> Prediction:
        """Logits of the token after each column, and the last hidden states.

        Args:
            tokens: padding anywhere; what stands at padding columns of the result means nothing.

        Returns:
            Prediction: logits (b, t, outputs) over END and the characters, hidden (b, t, width) after the last norm.
        """
        exists = tokens != self.config.pad
        hidden, _ = self._stream(tokens, exists)
        return Prediction(self.logits(hidden), hidden)

    def logits(self, hidden: Float[Array, "... width"]) -> Float[Array, "... outputs"]:
        """Scores of END and the characters from hidden states."""
        if self.config.tied:
            return contract("...w,ow->...o", hidden, self.embedding.embedding[: self.config.outputs])
        return self.head(hidden)

    def prefill(self, prompts: Int[Array, "b p"], columns: int) -> tuple[Float[Array, "b outputs"], Cache]:
        """Logits (b, outputs) after the last of `prompts`, padded on the left, and a cache of `columns` columns."""
        exists = prompts != self.config.pad
        hidden, seen = self._stream(prompts, exists)
        padding = [(0, 0), (0, columns - prompts.shape[1])]
        wider = jax.tree.map(lambda array: jnp.pad(array, [*padding, (0, 0), (0, 0)]), seen)
        return self.logits(hidden[:, -1]), Cache(wider, jnp.pad(exists, padding))

    def extend(self, tokens: Int[Array, " b"], cache: Cache, column) -> tuple[Float[Array, "b outputs"], Cache]:
        """Logits (b, outputs) after one more of `tokens` each, and `cache` with it written at `column`."""
        exists = cache.exists.at[:, column].set(tokens != self.config.pad)
        positions = jnp.sum(cache.exists, axis=1)
        x = self._embed(tokens, positions)[:, None]
        seen = []
        for block, past in zip(self.blocks, cache.seen, strict=True):
            x, own = block(x, exists[:, None], past, column)
            seen.append(own)
        return self.logits(self.norm(x)[:, 0]), Cache(tuple(seen), exists)

    def _stream(self, tokens, exists):
        positions = jnp.cumsum(exists, axis=1) - 1
        causal = jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool))
        x = self._embed(tokens, positions)
        seen = []
        for block in self.blocks:
            x, own = block(x, causal[None] & exists[:, None, :])
            seen.append(own)
        return self.norm(x), tuple(seen)

    def _embed(self, tokens, positions):
        # padding has no place of its own; clipping keeps its lookup inside the table
        return self.embedding(tokens) + self.positions(jnp.clip(positions, 0, self.config.max_length - 1))


def token_logits(
    model: LanguageModel, prompts: Int[AnyArray, "n p"], completions: Int[AnyArray, "n c"]
) -> Float[Array, "n c outputs"]:
    """Logits from which each token of each completion was predicted; traceable."""
    _check_length(model, prompts, completions)
    hidden = model(jnp.concatenate([prompts, completions[:, :-1]], axis=1)).hidden
    return model.logits(hidden[:, prompts.shape[1] - 1 :])


def token_log_probabilities(
    model: LanguageModel, prompts: Int[AnyArray, "n p"], completions: Int[AnyArray, "n c"]
) -> Float[Array, "n c"]:
    """Log-probability of each token of each completion, 0 at padding; traceable.

    Args:
        model: the policy.
        prompts: (n, p) tokens, padded on the left.
        completions: (n, c) tokens, padded on the right.

    Returns:
        (n, c) float32, nats.

    Raises:
        ValueError: other shapes than these, or more columns than the model has positions for.

    Source: derived; checked by tests/preference/small_model/test_language_model.py.
    """
    log_law = jax.nn.log_softmax(token_logits(model, prompts, completions), axis=-1)
    exists = completions != model.config.pad
    own = jnp.take_along_axis(log_law, jnp.where(exists, completions, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(exists, own, 0.0)


def sequence_log_probability(
    model: LanguageModel, prompts: Int[AnyArray, "n p"], completions: Int[AnyArray, "n c"]
) -> Float[Array, " n"]:
    """log pi(y | x) = sum over the tokens of y, END included; a completion without END counts as cut off there.

    Args:
        model: the policy.
        prompts: (n, p) tokens, padded on the left (`Tokeniser.encode_prompts`).
        completions: (n, c) tokens, padded on the right.

    Returns:
        (n,) float32 log-probabilities. Over all completions of at most c tokens their exponentials sum to 1.

    Raises:
        ValueError: other shapes than these, or more columns than the model has positions for.

    Numerics: float32; the error of a sum over c tokens is about c times 1e-7 of the largest logit. Traceable.

    Source: derived; checked by tests/preference/small_model/test_language_model.py.
    """
    return jnp.sum(token_log_probabilities(model, prompts, completions), axis=-1)


def _check_length(model, prompts, completions):
    if prompts.ndim != 2 or completions.ndim != 2 or prompts.shape[0] != completions.shape[0]:
        raise ValueError(
            f"completions: shape {completions.shape} with prompts {prompts.shape} found; expected (n, c) and (n, p), "
            "one prompt per completion; flatten K completions of a prompt and repeat the prompt"
        )
    check_columns(model.config, prompts.shape[1], completions.shape[1])


def check_tokens(config: LanguageModelConfig, tokens: Any, name: str) -> None:
    """ValueError for no rows at all, or for a token that is none of the model's, which would be read as another."""
    if not tokens.shape[0]:
        raise ValueError(f"{name}: no rows found; at least one is needed")
    if is_traced(tokens):
        return
    seen = np.asarray(tokens)
    strange = (seen < 0) | (seen > config.pad)
    if not np.issubdtype(seen.dtype, np.integer) or strange.any():
        found = seen[strange][:1].tolist() or seen.dtype
        raise ValueError(f"{name}: {found} found; expected integers from 0 to {config.pad}, as of a Tokeniser")


def check_columns(config: LanguageModelConfig, prompt: int, completion: int) -> None:
    """ValueError where a prompt and a completion of so many columns have more than the model has positions."""
    if prompt + completion > config.max_length:
        raise ValueError(
            f"completions: {prompt} columns of prompts and {completion} of completions found; the model has "
            f"{config.max_length} positions; raise max_length or shorten the arrays"
        )
