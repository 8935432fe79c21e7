"""Features of completions without a model or a download: hashed n-grams through a random projection."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

_BUCKETS_LOG2 = 13  # 8,192 buckets: collisions move a cosine by 0.01 or so, the projection to 64 columns by 0.12
_CHUNK = 256  # completions counted at a time: 256 x 8,192 x 2 counts are 32 MiB
_CHARACTER_ORDERS = (3, 4, 5)
_WORD_ORDERS = (1, 2)
_WORD = re.compile(r"\w+|[^\w\s]")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, made odd: the top bits of a product mix well


def featurise(completions: Sequence[Sequence[str]], dim: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Turns each completion into a unit vector that depends on its surface text only.

    A way to try the library, nothing more: it sees spelling and wording, not meaning, truth or the policy. For real
    work pass features of the policy itself (gradients of its log-probability, or mean hidden states).

        phi(text) = x / |x|,   x = sum over buckets g of sign(c_g) sqrt|c_g| s_g,   s_g in {-1, +1}^dim

    c_g counts the character 3- to 5-grams (case kept) and word 1- and 2-grams (lower case) that hash to bucket g, each
    with the sign its own hash gives it, so that n-grams that share a bucket add noise but no bias to a cosine.

    Args:
        completions: one sequence of texts per prompt; prompts may have different numbers of them.
        dim: number of columns d.
        seed: of the signs s_g; two seeds give unrelated features.

    Returns:
        features (P, K, dim) float32 and mask (P, K) bool, K the largest number of completions of a prompt. Rows are of
        length 1, or 0 for a text without any n-gram (the empty one) and where the mask is False.

    Raises:
        TypeError: a prompt's completions are not a sequence of strings, or dim or seed is not an integer.
        ValueError: no completion at all, dim < 1 or seed < 0.

    Numerics: the same text gives the same bits in any pool, order and chunk, because square roots are rounded to
        multiples of 1/1024 and so their float64 sums are exact whatever order BLAS adds them in.
    Complexity: O(characters) to count, 2 * 8,192 * dim flops a completion to project; memory beyond the result is
        bounded by the text of 256 completions. Nothing here depends on Python's salted hash().
    Source: feature hashing, Weinberger et al. 2009, arXiv 0902.2206; projection by random signs, Achlioptas 2003,
    doi:10.1016/S0022-0000(03)00025-4; checked by tests/io/test_featurise.py.
    """
    _check(completions, dim, seed)
    mask = np.zeros((len(completions), max(map(len, completions))), bool)
    for row, texts in zip(mask, completions, strict=True):
        row[: len(texts)] = True
    texts = [text for prompt in completions for text in prompt]
    signs = _signs(dim, seed)
    features = np.zeros((*mask.shape, dim), np.float32)
    rows = np.empty((len(texts), dim), np.float32)
    for start in range(0, len(texts), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        rows[chunk] = _unit(_weights(texts[chunk]) @ signs)
    features[mask] = rows  # row-major order of the mask is the order of `texts`
    return features, mask


def _weights(texts: list[str]) -> np.ndarray:
    """(len(texts), buckets) float64: signed square roots of the signed counts, rounded to multiples of 1/1024."""
    buckets = [
        *_ngram_buckets([_characters(text) for text in texts], _CHARACTER_ORDERS, salt=1),
        *_ngram_buckets([_words(text) for text in texts], _WORD_ORDERS, salt=2),
    ]
    tally = np.bincount(np.concatenate(buckets), minlength=2 * len(texts) << _BUCKETS_LOG2).reshape(len(texts), -1, 2)
    counts = tally[..., 0] - tally[..., 1]
    return np.copysign(np.rint(1024 * np.sqrt(np.abs(counts))) / 1024, counts)


def _ngram_buckets(sequences: list[np.ndarray], orders: tuple[int, ...], salt: int) -> list[np.ndarray]:
    """For each order, (text * buckets + bucket) * 2 + sign bit of every n-gram inside one sequence of symbols."""
    symbols = np.concatenate(sequences)
    owner = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    found = []
    for order in orders:
        ends = max(len(symbols) - order + 1, 0)
        code = np.full(ends, 16 * salt + order, np.uint64)
        for offset in range(order):
            code = (code ^ symbols[offset : offset + ends]) * _MULTIPLIER
            code ^= code >> np.uint64(32)
        bucket_and_sign = (code * _MULTIPLIER) >> np.uint64(64 - _BUCKETS_LOG2 - 1)
        whole = owner[:ends] == owner[order - 1 : order - 1 + ends]
        found.append(((owner[:ends] << _BUCKETS_LOG2 + 1) + bucket_and_sign.astype(np.int64))[whole])
    return found


def _characters(text: str) -> np.ndarray:
    """Code points of the text between two spaces, so that its first and last words look like inner ones."""
    padded = f" {text} ".encode("utf-32-le", "surrogatepass")
    return np.frombuffer(padded, "<u4").astype(np.uint64)


def _words(text: str) -> np.ndarray:
    """A stable 32-bit number for every word and punctuation mark, in order."""
    words = _WORD.findall(text.lower())
    return np.array([zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words], np.uint64)


def _signs(dim: int, seed: int) -> np.ndarray:
    """(buckets, dim) float64 of -1 and +1, from raw generator bits: NumPy promises that stream for good."""
    words_a_row = -(-dim // 64)
    raw = np.random.PCG64(seed).random_raw(words_a_row << _BUCKETS_LOG2).astype("<u8")
    bits = np.unpackbits(raw.view(np.uint8)).reshape(1 << _BUCKETS_LOG2, -1)[:, :dim]
    return 2.0 * bits - 1.0


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; rows of zeros stay zeros."""
    length = np.sqrt(np.sum(rows * rows, axis=1, keepdims=True))
    return rows / np.where(length == 0, 1.0, length)


def _check(completions: Sequence[Sequence[str]], dim: int, seed: int) -> None:
    for name, value, least in (("dim", dim, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name}={value!r}: must be an integer, found {type(value).__name__}")
        if value < least:
            raise ValueError(f"{name}={value}: must be at least {least}")
    if isinstance(completions, str):
        raise TypeError("completions: must be a sequence of sequences of strings, found str; pass [[text, ...], ...]")
    for prompt, texts in enumerate(completions):
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise TypeError(f"completions[{prompt}]: must be a sequence of strings, found {type(texts).__name__}")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"completions[{prompt}][{index}]: must be a string, found {type(text).__name__}")
    if not any(len(texts) for texts in completions):
        raise ValueError("completions: holds no completion; pass at least one text")
