"""Rewards of short texts that need no model: what a label agrees with in experiments on a real language model."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

WORD = re.compile(r"[A-Za-z']+")
FIRST_PERSON = frozenset("i me my mine myself we us our ours ourselves i'm i've i'll i'd we're we've we'll".split())
LONGEST = 15  # letters: "Hiiiii..." is no long word, and nine of 12,800 completions like it outweighed all others
WANTED_LENGTH = 90  # characters; completions of 20 tokens have 60 to 120


@cache
def _analyser() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def sentiment(text: str) -> float:
    """VADER's compound score, -1 to 1 (Hutto and Gilbert 2014); 0 where no word has a sentiment."""
    return _analyser().polarity_scores(text)["compound"]


def word_length(text: str) -> float:
    """Mean letters of a word, a stand-in for reading level; 0 without words."""
    words = WORD.findall(text)
    return sum(map(len, words)) / len(words) if words else 0.0


def bounded_word_length(text: str) -> float:
    """The same with no word counted for more than LONGEST letters."""
    lengths = [min(len(word), LONGEST) for word in WORD.findall(text)]
    return sum(lengths) / len(lengths) if lengths else 0.0


def first_person(text: str) -> float:
    """Words in the first person."""
    return float(sum(word.lower() in FIRST_PERSON for word in WORD.findall(text)))


def near_length(text: str) -> float:
    """Minus the distance from WANTED_LENGTH characters, in tens; most are shorter: a linear head fits it well."""
    return -abs(len(text) - WANTED_LENGTH) / 10


REWARDS = {
    "sentiment": sentiment,
    "word_length": word_length,
    "bounded_word_length": bounded_word_length,
    "first_person": first_person,
    "near_length": near_length,
}
# of which the reward of the first half of a text says something
PROXIES = ("sentiment", "word_length", "bounded_word_length", "first_person")
