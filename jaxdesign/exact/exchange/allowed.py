"""What the budget lets exchange move: what labels may still use of every row, and give back; caps of pairs.

Rows are those of the budget's families (`budget.family`), and before them the prompts, each of which may take and lose
labels. A swap from pair k to pair l is allowed if every row that either uses has room for what l uses less what k gives
back, and can spare it the other way round.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdesign._arrays import AnyArray
from jaxdesign._pairs import Allocation
from jaxdesign.budget.family import Uses, usage, uses
from jaxdesign.problem import Problem


class Left(NamedTuple):
    """What the budget leaves open, for the prompts and then for each family."""

    room: tuple[Float[AnyArray, " g"], ...]  # what rows may still take
    spare: tuple[Float[AnyArray, " g"], ...]  # and lose


def uses_of(problem: Problem, pairs) -> tuple[Uses, ...]:
    """What a label of each pair uses of its prompt, which is 1, and of every family."""
    of_prompt = Uses(pairs[:, 0][None], np.ones((1, len(pairs))))
    return of_prompt, *(uses(family, pairs) for family in problem.limits.families)


def left_of(problem: Problem, allocation: Allocation) -> Left:
    """What the budget leaves open."""
    pairs, labels = allocation
    limits = problem.limits
    spent = np.bincount(pairs[:, 0], weights=labels, minlength=problem.prompts)
    room = [np.minimum(np.floor(limits.per_prompt), limits.total) - spent]
    spare = [np.where(limits.minima > 0, spent - np.ceil(limits.minima), np.inf)]
    for family in limits.families:
        used, low, high = usage(family, allocation), family.low, family.high
        if family.whole:
            low, high = np.ceil(low), np.minimum(np.floor(high), limits.total * family.most)
        room.append(high - used)
        spare.append(np.where(low > 0, used - low, np.inf))
    return Left(tuple(room), tuple(spare))


def only_full_prompts_forbid(problem: Problem, left: Left) -> bool:
    """Whether no row forbids any swap but those of prompts that may take no more labels.

    So where no prompt is at its least number, and every row of every family has room for the label that uses most of
    it and can spare as much.
    """
    most = [np.ones(()), *(family.most for family in problem.limits.families)]
    takes = all((room >= used).all() for room, used in zip(left.room[1:], most[1:], strict=True))
    return takes and all((spare >= used).all() for spare, used in zip(left.spare, most, strict=True))


def caps_of(problem: Problem, pairs) -> Float[np.ndarray, " s"]:
    """Whole labels that pairs may have."""
    return np.minimum(np.floor(problem.limits.per_pair), problem.limits.total)[pairs[:, 0]]


def some_of(every: tuple[Uses, ...], index) -> tuple[Uses, ...]:
    """What labels of some of the pairs use."""
    return tuple(Uses(one.row[:, index], one.amount[:, index]) for one in every)


def obeyed(left: Left, out_of: tuple[Uses, ...], into: tuple[Uses, ...]) -> Bool[Array, "k l"]:
    """Whether a label may go from pairs k to pairs l as far as rows are concerned."""
    allowed = jnp.ones((out_of[0].row.shape[1], into[0].row.shape[1]), bool)
    for room, spare, losing, taking in zip(*left, out_of, into, strict=True):
        for row, amount in zip(*taking, strict=True):
            allowed &= amount[None, :] - _shared(losing, row, 0) <= room[row][None, :]
        for row, amount in zip(*losing, strict=True):
            allowed &= amount[:, None] - _shared(taking, row, 1) <= spare[row][:, None]
    return allowed


def _shared(others: Uses, row: Int[Array, " n"], axis: int):
    """What each of the others uses of the rows given, which lie along `axis` = 1 - that of the others."""
    return sum(
        jnp.where(
            jnp.expand_dims(theirs, 1 - axis) == jnp.expand_dims(row, axis), jnp.expand_dims(amount, 1 - axis), 0.0
        )
        for theirs, amount in zip(*others, strict=True)
    )


def after_swap(left: Left, out_of: tuple[Uses, ...], into: tuple[Uses, ...], amount) -> Left:
    """What is open when `amount` labels went from one pair to another, whose uses are given with a pair axis of 1."""
    room, spare = [], []
    for has_room, has_spare, losing, taking in zip(*left, out_of, into, strict=True):
        back, taken = amount * losing.amount, amount * taking.amount
        room.append(jnp.asarray(has_room).at[losing.row].add(back).at[taking.row].add(-taken))
        spare.append(jnp.asarray(has_spare).at[losing.row].add(-back).at[taking.row].add(taken))
    return Left(tuple(room), tuple(spare))
