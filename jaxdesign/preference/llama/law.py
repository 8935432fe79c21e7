"""The law that tokens are drawn from: temperature, tokens that are banned, a head cut short: all of it the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdesign._arrays import AnyArray, is_traced
from jaxdesign._checks import positive_finite, whole_number
from jaxdesign.preference.llama.config import LlamaConfig
from jaxdesign.preference.llama.model import PAD, Llama


@dataclass(frozen=True)
class TokenLaw:
    """pi(next token) = softmax(logits / temperature) over the first `outputs` tokens, the banned ones left out.

    It is a policy of its own, not an approximation: sampling, log-probabilities and gradients all use it. Byte-pair
    vocabularies are in the order of frequency, so that a head of a sixth of the tokens says nearly all and costs a
    sixth. Where all ends are banned every completion has its full length.

    Args:
        outputs: how many tokens of the vocabulary can be drawn, the first ones; None for all.
        banned: tokens that cannot, such as a tokeniser's `control`.
        ends: tokens that end a completion; what follows one is PAD and counts nothing.
        temperature: positive.

    Raises:
        TypeError: numbers that are no numbers. ValueError: a temperature that is not positive, outputs below 1, banned
            or ending tokens outside of the outputs, a banned token that ends, no token left.

    Source: derived; checked by tests/preference/llama/test_llama_sampling.py.
    """

    outputs: int | None = None
    banned: Sequence[int] = ()
    ends: Sequence[int] = ()
    temperature: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "temperature", positive_finite(self.temperature, "temperature", "of the law"))
        if self.outputs is not None:
            object.__setattr__(self, "outputs", whole_number(self.outputs, "outputs", 1))
        for name in ("banned", "ends"):
            tokens = tuple(sorted({whole_number(token, name, 0) for token in getattr(self, name)}))
            object.__setattr__(self, name, tokens)
            if self.outputs is not None and tokens and tokens[-1] >= self.outputs:
                raise ValueError(f"{name}: {tokens[-1]} found; the law draws from the first {self.outputs} tokens only")
        if both := set(self.banned) & set(self.ends):
            raise ValueError(f"ends: {min(both)} is banned too, so that it never comes; leave it out of one of them")
        if self.outputs is not None and len(self.banned) == self.outputs:
            raise ValueError(f"banned: all {self.outputs} outputs found; at least one token must be left")

    def log_law(self, logits: Float[Array, "... outputs"]) -> Float[Array, "... outputs"]:
        """Log-probabilities of the outputs, float32, from their logits; about -1e30 where banned."""
        scaled = logits.astype(jnp.float32) / self.temperature
        if self.banned:
            allowed = np.ones(logits.shape[-1], bool)
            allowed[list(self.banned)] = False
            scaled = jnp.where(allowed.reshape(*[1] * (logits.ndim - 1), -1), scaled, -1e30)
        return jax.nn.log_softmax(scaled, axis=-1)

    def token_log_probabilities(
        self, states: Float[Array, "... c width"], tokens: Int[Array, "... c"], rows: Float[Array, "outputs width"]
    ) -> Float[Array, "... c"]:
        """Of each of `tokens`, 0 at PAD, from the state before it (`states`) and the head's `rows`."""
        law = self.log_law(Llama.logits(states, rows))
        own = jnp.take_along_axis(law, jnp.maximum(tokens, 0)[..., None], axis=-1)[..., 0]
        return jnp.where(tokens == PAD, 0.0, own)

    def is_end(self, tokens: Int[Array, "*n"]) -> Array:
        """Whether each of `tokens` ends a completion."""
        ended = jnp.zeros(tokens.shape, bool)
        for end in self.ends:
            ended = ended | (tokens == end)
        return ended


def check_law(law: TokenLaw, config: LlamaConfig) -> None:
    """TypeError for another kind; ValueError for tokens that the model does not have."""
    if not isinstance(law, TokenLaw):
        raise TypeError(f"law: expected a TokenLaw, found {type(law).__name__}")
    most = max([*law.banned, *law.ends, (law.outputs or 1) - 1])
    if most >= config.vocabulary:
        raise ValueError(f"law: token {most} found; the model has {config.vocabulary}")


def check_prompts(prompts: Int[AnyArray, "p t"], config: LlamaConfig, length: int) -> None:
    """ValueError for prompts that are not (P, t) tokens padded on the left, or too long beside `length` more."""
    if np.ndim(prompts) != 2 or not np.size(prompts):
        raise ValueError(f"prompts: shape {np.shape(prompts)} found; expected (prompts, columns), at least one of each")
    _check_tokens(prompts, config.vocabulary, "prompts")
    if is_traced(prompts):
        return
    exists = np.asarray(prompts) != PAD
    wrong = ~exists[:, -1] | (exists[:, :-1] & ~exists[:, 1:]).any(axis=1)
    if wrong.any():
        raise ValueError(f"prompts: padding after a token in row {int(np.argmax(wrong))}; pad on the left, with {PAD}")
    longest = int(exists.sum(axis=1).max())
    if longest + length > config.max_length:
        raise ValueError(
            f"prompts: one of {longest} tokens and completions of {length} found; the model was made for "
            f"{config.max_length} in all"
        )


def check_completions(
    completions: Int[AnyArray, "p k c"], prompts: Int[AnyArray, "p t"], law: TokenLaw, config: LlamaConfig
) -> None:
    """ValueError for completions that are not (P, K, c) tokens of the law padded on the right, P as of the prompts."""
    shape = np.shape(completions)
    if len(shape) != 3 or not np.size(completions) or shape[0] != np.shape(prompts)[0]:
        raise ValueError(f"completions: shape {shape} found; expected ({np.shape(prompts)[0]} prompts, K, columns)")
    check_law(law, config)
    check_prompts(prompts, config, shape[2])
    _check_tokens(completions, law.outputs or config.vocabulary, "completions")
    if is_traced(completions):
        return
    tokens = np.asarray(completions)
    if np.isin(tokens, law.banned).any():
        found = int(tokens[np.isin(tokens, law.banned)][0])
        raise ValueError(f"completions: token {found} found, which the law bans: its probability is 0")
    if ((tokens[..., :-1] == PAD) & (tokens[..., 1:] != PAD)).any():
        raise ValueError(f"completions: a token after padding found; pad on the right, with {PAD}")


def _check_tokens(tokens, size: int, name: str) -> None:
    if not jnp.issubdtype(jnp.result_type(tokens), jnp.integer):
        raise TypeError(f"{name}: dtype {jnp.result_type(tokens)} found; expected integers")
    if is_traced(tokens):
        return
    seen = np.asarray(tokens)
    strange = (seen < PAD) | (seen >= size)
    if strange.any():
        raise ValueError(
            f"{name}: {int(seen[strange][0])} found; expected tokens from 0 to {size - 1}, and {PAD} for none"
        )
