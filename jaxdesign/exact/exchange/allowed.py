"""What the budget lets exchange move: the slack of every row's limits, and the caps of pairs.

Rows are those of the budget's families (`budget.family`), and before them the prompts, each of which may take and lose
labels. A swap from pair k to pair l is allowed if in every row that either uses, what l uses less what k gives back is
at most the slack of the upper limit, and what k gives back less what l uses at most that of the lower one.
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


class Slack(NamedTuple):
    """By how much rows miss their limits, of the prompts and then of each family; inf where there is no limit."""

    upper: tuple[Float[AnyArray, " g"], ...]  # what rows may still take
    lower: tuple[Float[AnyArray, " g"], ...]  # what they may lose


def uses_of(problem: Problem, pairs) -> tuple[Uses, ...]:
    """What a label of each pair uses of its prompt, which is 1, and of every family."""
    of_prompt = Uses(pairs[:, 0][None], np.ones((1, len(pairs))))
    return of_prompt, *(uses(family, pairs) for family in problem.limits.families)


def slack_of(problem: Problem, allocation: Allocation) -> Slack:
    """The slack that whole labels leave."""
    pairs, labels = allocation
    limits = problem.limits
    spent = np.bincount(pairs[:, 0], weights=labels, minlength=problem.prompts)
    upper = [np.minimum(np.floor(limits.per_prompt), limits.total) - spent]
    lower = [np.where(limits.minima > 0, spent - np.ceil(limits.minima), np.inf)]
    for family in limits.families:
        used, low, high = usage(family, allocation), family.low, family.high
        if family.whole:
            low, high = np.ceil(low), np.minimum(np.floor(high), limits.total * family.most)
        upper.append(high - used)
        lower.append(np.where(low > 0, used - low, np.inf))
    return Slack(tuple(upper), tuple(lower))


def only_full_prompts_forbid(problem: Problem, allocation: Allocation) -> bool:
    """Whether no row forbids any swap of whole labels but those of prompts that may take no more.

    So where no prompt is at its least number, and every row of every family has slack for the label that uses most of
    it, on either side.
    """
    slack = slack_of(problem, allocation)
    most = [np.ones(()), *(family.most for family in problem.limits.families)]
    below = all((upper >= used).all() for upper, used in zip(slack.upper[1:], most[1:], strict=True))
    return below and all((lower >= used).all() for lower, used in zip(slack.lower, most, strict=True))


def caps_of(problem: Problem, pairs) -> Float[np.ndarray, " s"]:
    """Whole labels that pairs may have."""
    return np.minimum(np.floor(problem.limits.per_pair), problem.limits.total)[pairs[:, 0]]


def some_of(every: tuple[Uses, ...], index) -> tuple[Uses, ...]:
    """What labels of some of the pairs use."""
    return tuple(Uses(one.row[:, index], one.amount[:, index]) for one in every)


def obeyed(slack: Slack, out_of: tuple[Uses, ...], into: tuple[Uses, ...]) -> Bool[Array, "k l"]:
    """Whether a label may go from pairs k to pairs l as far as rows are concerned."""
    allowed = jnp.ones((out_of[0].row.shape[1], into[0].row.shape[1]), bool)
    for upper, lower, losing, taking in zip(*slack, out_of, into, strict=True):
        for row, amount in zip(*taking, strict=True):
            allowed &= amount[None, :] - _shared(losing, row, 0) <= upper[row][None, :]
        for row, amount in zip(*losing, strict=True):
            allowed &= amount[:, None] - _shared(taking, row, 1) <= lower[row][:, None]
    return allowed


def _shared(others: Uses, row: Int[Array, " n"], axis: int):
    """What each of the others uses of the rows given, which lie along `axis` = 1 - that of the others."""
    return sum(
        jnp.where(
            jnp.expand_dims(theirs, 1 - axis) == jnp.expand_dims(row, axis), jnp.expand_dims(amount, 1 - axis), 0.0
        )
        for theirs, amount in zip(*others, strict=True)
    )


def after_swap(slack: Slack, out_of: tuple[Uses, ...], into: tuple[Uses, ...], amount) -> Slack:
    """The slack when `amount` labels went from one pair to another, whose uses are given with a pair axis of 1."""
    uppers, lowers = [], []
    for upper, lower, losing, taking in zip(*slack, out_of, into, strict=True):
        back, taken = amount * losing.amount, amount * taking.amount
        uppers.append(jnp.asarray(upper).at[losing.row].add(back).at[taking.row].add(-taken))
        lowers.append(jnp.asarray(lower).at[losing.row].add(-back).at[taking.row].add(taken))
    return Slack(tuple(uppers), tuple(lowers))
