"""What the budget lets exchange move: labels that sets of prompts may take and lose, caps of pairs, money."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdesign.budget.constraints import group_totals, pair_costs
from jaxdesign.problem import Problem


class Left(NamedTuple):
    """What the budget leaves open."""

    room: Float[Array, " g"]  # labels every set may still take
    spare: Float[Array, " g"]  # and lose
    money: Float[Array, ""]


def sets_of(problem: Problem, pairs) -> Int[np.ndarray, "q s"]:
    """The sets that pairs count in: their prompt, and the groups of the budget's quotas, numbered on."""
    prompts = pairs[:, 0]
    coupling = problem.limits.coupling
    if coupling is None:
        return prompts[None]
    return np.concatenate([prompts[None], problem.pool.num_prompts + coupling.groups.owner[:, prompts]])


def left_of(problem: Problem, pairs, labels) -> Left:
    """What the budget leaves open: labels that sets may take and lose, and money."""
    limits, coupling = problem.limits, problem.limits.coupling
    spent = np.bincount(pairs[:, 0], weights=labels, minlength=problem.pool.num_prompts)
    room = np.minimum(np.floor(limits.per_prompt), limits.total) - spent
    if coupling is None:
        return Left(room, np.full(len(room), np.inf), np.float64(np.inf))
    held = group_totals(coupling, spent)
    high = np.minimum(np.floor(coupling.groups.high), limits.total)
    return Left(
        np.concatenate([room, high - held]),
        np.concatenate([spent - np.ceil(coupling.least), held - np.ceil(coupling.groups.low)]),
        np.float64(coupling.spend - pair_costs(coupling, pairs) @ labels),
    )


def caps_of(problem: Problem, pairs) -> Float[np.ndarray, " s"]:
    """Whole labels that pairs may have."""
    return np.minimum(np.floor(problem.limits.per_pair), problem.limits.total)[pairs[:, 0]]


def obeyed(left: Left, out_of, into, out_cost, into_cost) -> Bool[Array, "k l"]:
    """Whether a label may go from pairs k to pairs l as far as sets of prompts and costs are concerned.

    A set that both pairs count in does not notice; another must be able to spare the label, or have room for it.
    """
    allowed = jnp.ones((out_of.shape[1], into.shape[1]), bool)
    for losing, taking in zip(out_of, into, strict=True):
        moves = (left.spare[losing] >= 1)[:, None] & (left.room[taking] >= 1)[None, :]
        allowed &= moves | (losing[:, None] == taking[None, :])
    if out_cost is not None:
        allowed &= into_cost[None, :] - out_cost[:, None] <= left.money
    return allowed
