"""Kinds of limits that a budget sets besides its total, and methods that obey some of them only.

A method, be it a solver or a way to choose whole labels, declares by `obeys` the kinds that all its answers obey, and
nothing else knows. Where there are several methods, `obeying` leaves those that will do; where one was asked for by
name, `check_obeyed` says what it cannot do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar, runtime_checkable

WORDS = {  # of messages, by the field of `Budget` that sets the limits
    "per_pair": "caps per pair",
    "per_prompt": "largest numbers per prompt",
    "per_prompt_min": "least numbers per prompt",
    "quotas": "quotas of groups",
    "cost_total": "a spend limit",
    "constraints": "constraints",
}
EVERY_KIND = frozenset(WORDS)
LAMINAR = frozenset({"per_pair", "per_prompt"})  # pair inside of prompt inside of total: filling greedily is exact


@runtime_checkable
class Method(Protocol):
    """What declares the kinds of limits that it obeys."""

    @property
    def obeys(self) -> frozenset[str]:
        """Fields of `Budget`, of EVERY_KIND."""
        ...


MethodT = TypeVar("MethodT", bound=Method)


def obeying(kinds: frozenset[str], methods: Iterable[MethodT]) -> list[MethodT]:
    """Those of the methods that obey limits of all these kinds, in order."""
    return [method for method in methods if kinds <= method.obeys]


def check_obeyed(kinds: frozenset[str], obeys: frozenset[str], who: str, remedy: str) -> None:
    """ValueError, naming the kinds that there are and that `who` does not obey; `remedy` says what to do."""
    if not kinds <= obeys:
        known = _listed(obeys) or "the total"
        raise ValueError(f"{who} knows {known} only, and the budget has {_listed(kinds - obeys)}; {remedy}")


def _listed(kinds: frozenset[str]) -> str:
    *first, last = [words for kind, words in WORDS.items() if kind in kinds] or [""]
    return f"{', '.join(first)} and {last}" if first else last
