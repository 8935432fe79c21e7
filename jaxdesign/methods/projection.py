"""Euclidean projection onto the allowed allocations, traceable.

The nearest allowed allocation to x is clip(x - max(l, l_p), 0, cap) with one level l for all and, where the quota of
prompt p binds, a higher one l_p of its own, which does not depend on l: constraints are laminar. The sum over pairs is
a decreasing, piecewise linear function of a level, so Newton's method ends on the very piece that holds the root, after
a dozen sums where a bisection takes fifty; a bracket keeps it safe, because caps make the function neither convex
nor concave.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxdesign.methods.room import Room

STEPS = 200  # evaluations at most: every fourth halves the bracket


def project(point: Float[Array, "*s"], room: Room) -> Float[Array, "*s"]:
    """Nearest allowed allocation in the Euclidean norm; caps and quotas must leave room for the total."""
    candidates = room.cap > 0
    low = jnp.min(jnp.where(candidates, point - room.cap, jnp.inf))
    high = jnp.max(jnp.where(candidates, point, -jnp.inf))

    def taken(level):
        labels = jnp.clip(point - level, 0, room.cap)
        return labels, ((labels > 0) & (labels < room.cap)).astype(point.dtype)

    floor = jnp.full_like(low, -jnp.inf)
    if room.quota is not None:
        over = room.spent(taken(low)[0]) > room.quota
        lows = jnp.full_like(room.quota, low)
        highs = jnp.where(over, high, lows)  # settled where the quota cannot bind
        own = _level(
            lambda level: tuple(room.spent(part) for part in taken(room.spread(level))), room.quota, lows, highs
        )
        floor = room.spread(jnp.where(over, own, -jnp.inf))

    def whole(level):
        labels, moving = taken(jnp.maximum(level, floor))
        return jnp.sum(labels), jnp.sum(jnp.where(level >= floor, moving, 0))

    return taken(jnp.maximum(_level(whole, room.total, low, high), floor))[0]


def _level(
    amount: Callable, wanted: Float[Array, "*g"], low: Float[Array, "*g"], high: Float[Array, "*g"]
) -> Float[Array, "*g"]:
    """Levels at which amounts are as wanted, each between its bounds.

    `amount(level)` gives the amounts, and how many pairs move with the level: minus their slopes.
    """
    close = jnp.finfo(low.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))

    def unfinished(state):
        _, _, _, moving, steps = state
        return jnp.any(moving) & (steps < STEPS)

    def refine(state):
        level, low, high, _, steps = state
        found, slope = amount(level)
        excess = found - wanted
        low, high = jnp.where(excess > 0, level, low), jnp.where(excess > 0, high, level)
        newton = level + excess / jnp.maximum(slope, 1)
        settled = (excess == 0) | ((slope > 0) & (jnp.abs(newton - level) <= close)) | (high - low <= close)
        # strictly inside, or two pieces could send a level to and fro; every fourth time halved, whatever the pieces
        trusted = (slope > 0) & (newton > low) & (newton < high) & (steps % 4 != 3)
        new = jnp.where(trusted, newton, low + (high - low) / 2)
        return jnp.where(settled, level, new), low, high, ~settled, steps + 1

    start = low + (high - low) / 2
    state = start, low, high, jnp.ones_like(start, bool), jnp.zeros((), jnp.int32)
    return lax.while_loop(unfinished, refine, state)[0]
