"""A corpus of this project's own: prompts and completions from a seeded grammar, and a hidden reward on texts.

Prompts ask five kinds of things about a topic, and their answers vary by very different amounts, as in real prompt
sets: a name or a colour has one right answer, a remark has a usual one, a tale or an ode is free.

    name fox:  fox.                          hue fox:  red.          note fox:  it naps.
    tale fox:  shy fox sings!                ode fox:  oh, old fox hides again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign._checks import positive_finite

ALPHABET = "abcdefghijklmnopqrstuvwxyz ,.!?:"
TOPICS = (
    "ant ape bat bee bird boar bull calf cat clam cod colt cow crab crow deer dog dove duck eel elk ewe fawn fish flea "
    "fly fox frog gnat goat gull hare hawk hen hog ibis jay kid kite lamb lark lion lynx mink mole moth mule newt owl "
    "ox pig pony puma ram rat seal slug swan toad wasp wolf worm wren yak"
).split()
COLOURS = "red tan grey white black brown gold green".split()
ADJECTIVES = "shy old big sly wild calm bold kind".split()
VERBS = "runs naps sings hides hunts digs leaps eats".split()
PLACES = ("", " soon", " again", " alone", " home", " late")
OPENINGS = ("", "oh, ")
ENDINGS = (".", "!", "?")


class Law(NamedTuple):
    """What one place of a completion may hold, and with which probability."""

    words: tuple[str, ...]
    probabilities: Float[np.ndarray, " words"]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Prompts and, for each, the laws whose independent draws make up a completion.

    Args:
        prompts: texts.
        kinds: what each asks for.
        laws: one tuple of laws per prompt. The words of different places differ, so that a text has one reading and
            its log-probability is the sum over places.

    Source: derived; checked by tests/preference/small_model/test_corpus.py.
    """

    prompts: tuple[str, ...]
    kinds: tuple[str, ...]
    laws: tuple[tuple[Law, ...], ...]

    def draw(self, rows: Sequence[int] | Int[np.ndarray, " n"], seed: int) -> list[str]:
        """One completion of each prompt in `rows` (repeat a row for several), drawn from `seed`; len(rows) texts."""
        rng = np.random.default_rng([seed, 3])
        return [
            "".join(law.words[rng.choice(len(law.words), p=law.probabilities)] for law in self.laws[row])
            for row in rows
        ]

    def entropies(self) -> Float[np.ndarray, " prompts"]:
        """Entropy of each prompt's completions, nats: what no policy's mean -log pi can go below."""
        return np.array([sum(_entropy(law.probabilities) for law in laws) for laws in self.laws])

    def rows_of(self, kinds: Sequence[str]) -> Int[np.ndarray, " n"]:
        """Prompts of these kinds."""
        return np.flatnonzero(np.isin(self.kinds, list(kinds)))


SHARES: Mapping[str, float] = {"name": 0.3, "hue": 0.25, "note": 0.2, "tale": 0.15, "ode": 0.1}


def grammar_corpus(prompts: int, *, seed: int = 0, shares: Mapping[str, float] = SHARES) -> Corpus:
    """Prompts drawn with their laws: a seeded grammar.

    Words have common and rare ones (probabilities fall like 1 / rank^1.2), which ones depending on the topic. Topics
    and their habits depend on the seed, not on how many prompts are drawn.

    Args:
        prompts: how many; a kind and topic may occur more than once.
        seed: of habits and of the prompts drawn.
        shares: of each kind, positive; "name", "hue", "note", "tale" and "ode" are known.

    Returns:
        Corpus.

    Raises:
        ValueError: unknown kinds, shares that are not positive, fewer than one prompt.

    Source: derived; checked by tests/preference/small_model/test_corpus.py.
    """
    unknown = set(shares) - set(SHARES)
    if unknown or not shares:
        raise ValueError(f"shares: {sorted(unknown) or 'none'} found; kinds are {', '.join(SHARES)}")
    if prompts < 1:
        raise ValueError(f"prompts={prompts}: must be at least 1")
    weights = np.array([positive_finite(share, "shares", "a part of the prompts") for share in shares.values()])
    habits = np.random.default_rng([seed, 1])  # [seed, 0] would be the stream of `seed` itself
    laws = {topic: _laws_of(topic, habits) for topic in TOPICS}
    rng = np.random.default_rng([seed, 2])
    kinds = rng.choice(list(shares), size=prompts, p=weights / weights.sum())
    topics = rng.choice(TOPICS, size=prompts)
    return Corpus(
        tuple(f"{kind} {topic}:" for kind, topic in zip(kinds, topics, strict=True)),
        tuple(str(kind) for kind in kinds),
        tuple(laws[topic][kind] for kind, topic in zip(kinds, topics, strict=True)),
    )


def _laws_of(topic: str, rng: np.random.Generator) -> dict[str, tuple[Law, ...]]:
    """The laws of every kind of prompt about one topic."""
    adjective, verb, place = (_habit(words, rng) for words in (ADJECTIVES, VERBS, PLACES))
    colour, usual = (Law(tuple(words), _usually(len(words), rng)) for words in (COLOURS, VERBS))
    opening = Law(OPENINGS, np.array([0.7, 0.3]))
    ending = Law(ENDINGS, np.array([0.6, 0.3, 0.1]))
    dry = Law(ENDINGS, np.array([0.97, 0.02, 0.01]))
    noun = _fixed(f" {topic} ")
    return {
        "name": (_fixed(topic), dry),
        "hue": (colour, dry),
        "note": (_fixed("it "), usual, dry),
        "tale": (adjective, noun, verb, ending),
        "ode": (opening, adjective, noun, verb, place, ending),
    }


def _fixed(text: str) -> Law:
    return Law((text,), np.ones(1))


def _habit(words: Sequence[str], rng: np.random.Generator) -> Law:
    """Zipf's law over the words in an order that is half common to all topics, half the topic's own."""
    rank = np.argsort(np.argsort(np.arange(len(words)) + rng.normal(0, len(words) / 3, len(words))))
    weights = (1.0 + rank) ** -1.2
    return Law(tuple(words), weights / weights.sum())


def _usually(number: int, rng: np.random.Generator) -> Float[np.ndarray, " number"]:
    """One outcome of probability 0.92, the rest even."""
    weights = np.full(number, 0.08 / (number - 1))
    weights[rng.integers(number)] = 0.92
    return weights


def _entropy(probabilities: Float[np.ndarray, " n"]) -> float:
    positive = probabilities[probabilities > 0]
    return float(-positive @ np.log(positive))
