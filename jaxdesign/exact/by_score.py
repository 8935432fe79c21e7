"""Whole labels by a score that labels do not change: the largest scores first, as far as the budget allows.

Two ways, of which the first that obeys the budget is taken. In rounds is quick and exact where limits are laminar;
together is an integer program, for any limits. One way for both there is not: the scores of a round may be drawn anew,
and an integer program over all pairs of a pool would take minutes for what one sorting does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign.budget.kinds import EVERY_KIND, LAMINAR, obeying
from jaxdesign.budget.limits import Limits
from jaxdesign.exact.integer_programs import most_scored
from jaxdesign.exact.rounding import once_each

LISTED = 4  # together: pairs looked at for each label, by score, and as many in every prompt

Pairs = Int[np.ndarray, "n 3"]
Labels = Float[np.ndarray, " n"]
Scores = Callable[[], Float[np.ndarray, " n"]]


def largest_scores(limits: Limits, pairs: Pairs, scores: Scores) -> Labels:
    """Whole labels on the pairs with the largest scores.

    A pair is labelled a second time only when no pair is left that could have a first label: these rules rank pairs by
    a score that a label does not change, so that a cap alone would put everything on one pair.

    Args:
        limits: whole total, caps and quotas that the pairs can hold.
        pairs: all candidate pairs; ties go to the first (prompt, i, j).
        scores: called once a round.

    Raises:
        ValueError: no whole labels on these pairs obey the constraints.
    """
    return obeying(limits.kinds, WAYS)[0].labels(limits, pairs, scores)


def in_rounds(limits: Limits, pairs: Pairs, scores: Scores) -> Labels:
    """The largest scores once each, passing over pairs that would break a quota; then again from the top."""
    labels = np.zeros(len(pairs))
    for _ in range(int(limits.total)):  # every round places a label at least
        remaining = limits.total - labels.sum()
        if remaining == 0:
            break
        spent = np.bincount(pairs[:, 0], weights=labels, minlength=len(limits.per_prompt))
        below_cap = labels < limits.per_pair[pairs[:, 0]]
        extra = once_each(remaining, limits.per_prompt - spent, pairs[below_cap], scores()[below_cap])
        if not extra.any():
            raise ValueError(f"budget.total={limits.total:g}: more than whole labels under these caps can make up")
        labels[below_cap] += extra
    return labels


def together(limits: Limits, pairs: Pairs, scores: Scores) -> Labels:
    """The pairs with the smallest sum of places in the order of the scores: those listed first, then any."""
    order = np.lexsort((np.arange(len(pairs)), -scores()))
    place = np.empty(len(pairs))
    place[order] = np.arange(len(pairs))
    by_prompt = order[np.argsort(pairs[order, 0], kind="stable")]
    owner = pairs[by_prompt, 0]
    rank = np.arange(len(pairs)) - np.searchsorted(owner, owner, side="left")
    each = LISTED * (1 + int(limits.total) // len(limits.per_prompt))
    shortlist = np.union1d(order[: LISTED * int(limits.total)], by_prompt[rank < each])
    cap = np.minimum(np.floor(limits.per_pair[pairs[:, 0]]), limits.total)
    labels = np.zeros(len(pairs))
    for listed in (shortlist, np.arange(len(pairs))):
        for most in (np.minimum(cap, 1), cap):
            chosen = most_scored(limits, pairs[listed], -place[listed], np.zeros(len(listed)), most[listed])
            if chosen is not None:
                labels[listed] = chosen
                return labels
    raise ValueError(
        "budget: no whole labels that obey quotas, minima, spend limit and constraints were found; relax one of them"
    )


class Way(NamedTuple):
    """How pairs with large scores are chosen under limits of some kinds."""

    obeys: frozenset[str]
    labels: Callable[[Limits, Pairs, Scores], Labels]


WAYS = (Way(LAMINAR, in_rounds), Way(EVERY_KIND, together))
