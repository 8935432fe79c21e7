"""A hidden reward on texts: values of words, a preferred length, a style. Annotators are simulated from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxdesign._checks import positive_finite
from jaxdesign.preference.small_model.corpus import ADJECTIVES, COLOURS, ENDINGS, PLACES, VERBS

STYLE = ("oh",)
TOKEN = re.compile(r"[a-z]+|[.!?]")


@dataclass(frozen=True)
class HiddenReward:
    """r(text) = sum of the values of its words and marks - length_cost |characters - best_length| / 10.

    The prompt does not enter: what a policy learns on one prompt holds on all others.

    Args:
        values: of words and punctuation marks; those not listed are worth nothing.
        best_length: characters liked best.
        length_cost: reward lost for every ten characters more or fewer.

    Source: derived; checked by tests/preference/small_model/test_corpus.py.
    """

    values: Mapping[str, float]
    best_length: float
    length_cost: float

    def __call__(self, texts: np.ndarray) -> Float[np.ndarray, "*shape"]:
        """Rewards of texts of any shape, float64."""
        texts = np.asarray(texts, dtype=object)
        return np.array([self._of(text) for text in texts.reshape(-1)]).reshape(texts.shape)

    def _of(self, text: str) -> float:
        words = sum(self.values.get(word, 0.0) for word in TOKEN.findall(text))
        return words - self.length_cost * abs(len(text) - self.best_length) / 10


def random_reward(seed: int = 0, *, scale: float = 1.0) -> HiddenReward:
    """Normal values for every content word, style word and mark, and a best length between 10 and 25 characters.

    Args:
        seed: may be that of a corpus: what is drawn here is independent of it.
        scale: standard deviation of a word's value, in units in which an annotator prefers the better of two texts
            that differ by 1 with probability sigma(1) = 0.73.

    Returns:
        HiddenReward.

    Raises:
        TypeError, ValueError: a scale that is no positive number.

    Source: derived; checked by tests/preference/small_model/test_corpus.py.
    """
    scale = positive_finite(scale, "scale", "the standard deviation of a word's value")
    rng = np.random.default_rng([seed, 4])  # a stream that `grammar_corpus` does not use
    places = [word for place in PLACES for word in place.split()]
    words = sorted({*ADJECTIVES, *VERBS, *places, *COLOURS, *STYLE, *ENDINGS})
    values = dict(zip(words, (scale * rng.normal(size=len(words))).tolist(), strict=True))
    return HiddenReward(values, float(rng.uniform(10, 25)), scale * 0.5)
