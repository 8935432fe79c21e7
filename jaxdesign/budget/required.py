"""What a budget decides about single pairs: those that must not be used, and those that must be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdesign._pairs import added_up, check_pairs_exist, pair_keys, upper_pairs
from jaxdesign.budget.budget import Budget


class Decided(NamedTuple):
    """Pairs about which nothing is left to choose, each list in order without repetition."""

    closed: Int[np.ndarray, "c 3"]  # may get no label besides the required ones
    pairs: Int[np.ndarray, "s 3"]  # required
    labels: Float[np.ndarray, " s"]  # theirs, whole


NOTHING = Decided(np.zeros((0, 3), np.int32), np.zeros((0, 3), np.int32), np.zeros(0))


def decided_pairs(exists: Bool[np.ndarray, "p k"], budget: Budget) -> Decided:
    """The excluded and required pairs of a budget; prompts that required pairs fill are closed as a whole.

    Raises:
        ValueError: pairs outside of the pool; required pairs that are excluded, that take more labels than a cap, a
            quota per prompt or the total allows, or that leave no label to choose.
    """
    if budget.exclude is None and budget.required is None:
        return NOTHING
    excluded, _ = _counted(exists, budget.exclude, "budget.exclude")
    pairs, labels = _counted(exists, budget.required, "budget.required")
    both = np.isin(pair_keys(pairs, exists.shape[1]), pair_keys(excluded, exists.shape[1]))
    if both.any():
        pair = tuple(int(v) for v in pairs[np.argmax(both)])
        raise ValueError(f"budget.required: pair {pair} is in budget.exclude too; a pair cannot be both")
    spent = np.bincount(pairs[:, 0], weights=labels, minlength=len(exists))
    _check_room(budget, pairs, labels, spent)
    full = np.zeros(len(exists), bool)
    if budget.per_prompt is not None:
        full = (spent >= budget.per_prompt) & (spent > 0)
    return Decided(_distinct(excluded, pairs, _every_pair(np.flatnonzero(full), exists.shape[1])), pairs, labels)


def without(decided: Decided, pairs: Int[np.ndarray, "s 3"], labels: Float[np.ndarray, " s"]):
    """An allocation less the required labels; pairs that it does not hold come out negative."""
    if not len(decided.pairs):
        return pairs, labels
    ordered, left = added_up(np.concatenate([pairs, decided.pairs]), np.concatenate([labels, -decided.labels]))
    return ordered[left != 0], left[left != 0]


def free_part(decided: Decided, pairs, labels, completions: int):
    """The labels of an earlier design on pairs about which there is something to choose."""
    pairs, labels = np.asarray(pairs, np.int32), np.asarray(labels, np.float64)
    if not len(decided.closed):
        return pairs, labels
    free = ~np.isin(pair_keys(pairs, completions), pair_keys(decided.closed, completions))
    return pairs[free], labels[free]


def with_required(decided: Decided, pairs: Int[np.ndarray, "s 3"], labels: Float[np.ndarray, " s"]):
    """An allocation of the labels left to choose and the required ones, in order."""
    if not len(decided.pairs):
        return pairs, labels
    every, counts = np.concatenate([pairs, decided.pairs]), np.concatenate([labels, decided.labels])
    order = np.lexsort(every.T[::-1])
    return every[order].astype(np.int32), counts[order]


def _counted(exists, pairs: Any, name: str):
    if pairs is None:
        return NOTHING.pairs, NOTHING.labels
    pairs = np.asarray(pairs)
    if pairs.size == 0:
        return NOTHING.pairs, NOTHING.labels
    try:
        check_pairs_exist(exists, pairs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
    return added_up(upper_pairs(pairs), np.ones(len(pairs)))


def _check_room(budget, pairs, labels, spent):
    if labels.sum() >= budget.total:
        raise ValueError(
            f"budget.required: {labels.sum():.0f} labels leave none of budget.total={budget.total:g} to choose; "
            "raise the total (jaxdesign.evaluate certifies an allocation that is given)"
        )
    for name, limit, found in (("per_pair", budget.per_pair, labels), ("per_prompt", budget.per_prompt, spent)):
        if limit is None:
            continue
        limit = np.broadcast_to(limit, spent.shape) if np.ndim(limit) == 0 else np.asarray(limit)
        if limit.shape != spent.shape:
            continue  # `resolve` names wrong shapes
        limit = limit[pairs[:, 0]] if name == "per_pair" else limit
        if (found > limit).any():
            k = int(np.argmax(found > limit))
            what = f"pair {tuple(int(v) for v in pairs[k])}" if name == "per_pair" else f"prompt {k}"
            raise ValueError(f"budget.required: {what} has {found[k]:g} labels, above budget.{name}={limit[k]:g}")


def _every_pair(prompts, completions):
    i, j = np.triu_indices(completions, 1)
    every = np.stack(np.broadcast_arrays(prompts[:, None], i[None], j[None]), axis=-1)
    return every.reshape(-1, 3).astype(np.int32)


def _distinct(*lists):
    return np.unique(np.concatenate(lists), axis=0).astype(np.int32)
