"""Character tokens: texts to integer arrays of static length and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

END = 0  # ends every completion; characters are 1, 2, ... in the order of the alphabet


@dataclass(frozen=True)
class Tokeniser:
    """Characters of a fixed alphabet as tokens, with one token each for the end, the beginning and padding.

    Token 0 is END, tokens 1 ... `characters` are the alphabet, `begin` and `pad` come last: a policy predicts END and
    characters only, so its probabilities need no masking. Prompts are padded on the left and begin with `begin`, so
    that every completion starts at the same column; completions end with END and are padded on the right.

    Args:
        alphabet: the characters that may occur, each once.

    Raises:
        TypeError: an alphabet that is no string.
        ValueError: an empty alphabet or one with a character twice.

    Source: derived; checked by tests/preference/small_model/test_tokens.py.
    """

    alphabet: str

    def __post_init__(self):
        if not isinstance(self.alphabet, str):
            raise TypeError(f"alphabet: expected a string, found {type(self.alphabet).__name__}")
        if not self.alphabet:
            raise ValueError("alphabet: empty; it must hold at least one character")
        twice = sorted(c for c in set(self.alphabet) if self.alphabet.count(c) > 1)
        if twice:
            raise ValueError(f"alphabet: {twice[0]!r} occurs more than once; list every character once")

    @property
    def characters(self) -> int:
        """Size of the alphabet."""
        return len(self.alphabet)

    @property
    def begin(self) -> int:
        """The token before the first character of a prompt."""
        return self.characters + 1

    @property
    def pad(self) -> int:
        """The token that fills arrays up; policies neither see nor emit it."""
        return self.characters + 2

    def encode(self, text: str) -> list[int]:
        """The characters of one text as tokens, nothing added; ValueError for a character outside of the alphabet."""
        tokens = [self.alphabet.find(character) + 1 for character in text]
        if 0 in tokens:
            place = tokens.index(0)
            raise ValueError(
                f"text: {text[place]!r} at place {place} of {text!r} is not in the alphabet {self.alphabet!r}; "
                "make a tokeniser whose alphabet has it"
            )
        return tokens

    def encode_prompts(self, texts: Sequence[str], length: int) -> Int[np.ndarray, "n length"]:
        """Rows [pad ... pad, begin, characters]: every prompt ends in the last column.

        Args:
            texts: n prompts.
            length: columns; a prompt takes one more than it has characters.

        Returns:
            tokens (n, length) int32.

        Raises:
            ValueError: a prompt that does not fit, a character outside of the alphabet.
        """
        _must_be_several(texts)
        rows = np.full((len(texts), length), self.pad, np.int32)
        for row, text in zip(rows, texts, strict=True):
            tokens = [self.begin, *self.encode(text)]
            _must_fit(text, len(tokens), length)
            row[length - len(tokens) :] = tokens
        return rows

    def encode_completions(self, texts: Sequence[str], length: int) -> Int[np.ndarray, "n length"]:
        """Rows [characters, END, pad ... pad].

        Args:
            texts: n completions.
            length: columns; a completion takes one more than it has characters.

        Returns:
            tokens (n, length) int32.

        Raises:
            ValueError: a completion that does not fit, a character outside of the alphabet.
        """
        _must_be_several(texts)
        rows = np.full((len(texts), length), self.pad, np.int32)
        for row, text in zip(rows, texts, strict=True):
            tokens = [*self.encode(text), END]
            _must_fit(text, len(tokens), length)
            row[: len(tokens)] = tokens
        return rows

    def decode(self, tokens: Int[np.ndarray, " length"]) -> str:
        """The text of one row: its characters up to the first END, without beginning and padding."""
        text = []
        for token in np.asarray(tokens).tolist():
            if token == END:
                break
            if not 0 <= token <= self.pad:
                raise ValueError(f"tokens: {token} found; tokens of this alphabet are 0 ... {self.pad}")
            if token <= self.characters:
                text.append(self.alphabet[token - 1])
        return "".join(text)

    def decode_all(self, tokens: Int[np.ndarray, "... length"]) -> np.ndarray:
        """The texts of rows of any leading shape, as an array of strings of that shape."""
        tokens = np.asarray(tokens)
        rows = tokens.reshape(-1, tokens.shape[-1])
        distinct, place = np.unique(rows, axis=0, return_inverse=True)  # samples repeat themselves: decode each once
        texts = np.array([self.decode(row) for row in distinct], dtype=object)
        return texts[place.reshape(-1)].reshape(tokens.shape[:-1])


def _must_be_several(texts) -> None:
    if isinstance(texts, str):
        raise TypeError(f"texts: one string found, {texts[:20]!r}; expected a list of texts")


def _must_fit(text: str, needed: int, length: int) -> None:
    if needed > length:
        raise ValueError(f"length={length}: {text!r} takes {needed} tokens; raise length or shorten the text")
