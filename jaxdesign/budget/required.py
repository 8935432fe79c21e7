"""What a budget decides about single pairs: those that must not be used, and those that must be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxdesign._pairs import Allocation, added_up, check_pairs_exist, pair_keys, upper_pairs
from jaxdesign.budget.budget import Budget


class Decided(NamedTuple):
    """Pairs about which nothing is left to choose, each list in order without repetition."""

    closed: Int[np.ndarray, "c 3"]  # may get no label besides the required ones
    required: Allocation  # whole labels


NONE_AT_ALL = Allocation(np.zeros((0, 3), np.int32), np.zeros(0))
NOTHING = Decided(NONE_AT_ALL.pairs, NONE_AT_ALL)


def decided_pairs(exists: Bool[np.ndarray, "p k"], budget: Budget) -> Decided:
    """The excluded and required pairs of a budget; prompts that required pairs fill are closed as a whole.

    Raises:
        ValueError: pairs outside of the pool; required pairs that are excluded, that take more labels than a cap, a
            quota per prompt or the total allows, or that leave no label to choose.
    """
    if budget.exclude is None and budget.required is None:
        return NOTHING
    excluded, _ = _counted(exists, budget.exclude, "budget.exclude")
    required = pairs, labels = _counted(exists, budget.required, "budget.required")
    both = np.isin(pair_keys(pairs, exists.shape[1]), pair_keys(excluded, exists.shape[1]))
    if both.any():
        pair = tuple(int(v) for v in pairs[np.argmax(both)])
        raise ValueError(f"budget.required: pair {pair} is in budget.exclude too; a pair cannot be both")
    spent = np.bincount(pairs[:, 0], weights=labels, minlength=len(exists))
    _check_room(budget, required, spent)
    full = np.zeros(len(exists), bool)
    if budget.per_prompt is not None:
        full = (spent >= budget.per_prompt) & (spent > 0)
    closed = _distinct(excluded, pairs, _every_pair(np.flatnonzero(full), exists.shape[1]))
    return Decided(closed, required)


def without(decided: Decided, allocation: Allocation) -> Allocation:
    """An allocation less the required labels; pairs that it does not hold come out negative."""
    pairs, labels = allocation
    required = decided.required
    if not len(required.pairs):
        return allocation
    ordered, left = added_up(np.concatenate([pairs, required.pairs]), np.concatenate([labels, -required.labels]))
    return Allocation(ordered[left != 0], left[left != 0])


def free_part(decided: Decided, allocation: Allocation, completions: int) -> Allocation:
    """The labels of an earlier design on pairs about which there is something to choose."""
    pairs, labels = allocation
    pairs, labels = np.asarray(pairs, np.int32), np.asarray(labels, np.float64)
    if not len(decided.closed):
        return Allocation(pairs, labels)
    free = ~np.isin(pair_keys(pairs, completions), pair_keys(decided.closed, completions))
    return Allocation(pairs[free], labels[free])


def with_required(decided: Decided, allocation: Allocation) -> Allocation:
    """An allocation of the labels left to choose and the required ones, in order."""
    pairs, labels = allocation
    if not len(decided.required.pairs):
        return allocation
    every, counts = np.concatenate([pairs, decided.required.pairs]), np.concatenate([labels, decided.required.labels])
    order = np.lexsort(every.T[::-1])
    return Allocation(every[order].astype(np.int32), counts[order])


def _counted(exists, pairs: Any, name: str) -> Allocation:
    if pairs is None:
        return NONE_AT_ALL
    pairs = np.asarray(pairs)
    if pairs.size == 0:
        return NONE_AT_ALL
    try:
        check_pairs_exist(exists, pairs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
    return added_up(upper_pairs(pairs), np.ones(len(pairs)))


def _check_room(budget, allocation: Allocation, spent):
    pairs, labels = allocation
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
