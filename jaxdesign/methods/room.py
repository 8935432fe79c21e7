"""Traceable maps onto the allowed allocations: scaling, and the linear oracle with its bound.

All of them fill pairs down to a level. `amount(level)` gives every pair's labels, non-increasing in the level; a quota
that binds raises the level of its prompt alone, and the total then fixes one level for all: two bisections, because
the constraints are laminar (pair inside prompt inside total).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

STEPS = 50  # halvings of the bracket: below one unit in the last place of float32 for any sensible bracket


class Room(NamedTuple):
    """Limits of pairs given as a list (S,) with `prompt`, or densely as (P, K, K) without."""

    cap: Float[Array, "*s"]  # labels each pair can take; 0 for what is no candidate
    total: Float[Array, ""]
    quota: Float[Array, " g"] | None = None
    prompt: Int[Array, " s"] | None = None  # index of a listed pair into quota

    def spent(self, labels: Float[Array, "*s"]) -> Float[Array, " g"]:
        """Labels on the pairs of each prompt."""
        if self.prompt is None:
            return jnp.sum(labels, axis=(1, 2))
        assert self.quota is not None  # without quotas nobody asks
        return jax.ops.segment_sum(labels, self.prompt, num_segments=self.quota.shape[0])

    def spread(self, per_prompt: Float[Array, " g"]) -> Float[Array, "*s"]:
        """A value per prompt, broadcast to its pairs."""
        return per_prompt[:, None, None] if self.prompt is None else per_prompt[self.prompt]


def fill(amount: Callable, room: Room, low: Float[Array, ""], high: Float[Array, ""]) -> Float[Array, "*s"]:
    """Labels at the level where they sum to the total, quotas obeyed; levels are searched in [low, high].

    `amount(level)`, for a level that broadcasts against the pairs, is non-increasing in it; at `low` the labels must
    sum to at least the total, at `high` to at most. Where `amount` jumps, the two sides of the jump are mixed, so that
    the total is met up to rounding.
    """
    limited, quota = amount, room.quota
    if quota is not None:
        over_quota = room.spent(amount(low)) > quota
        lows, highs = _bisect(
            lambda level: room.spent(amount(room.spread(level))) > quota,
            jnp.full_like(quota, low),
            jnp.full_like(quota, high),
        )
        over, under = amount(room.spread(lows)), amount(room.spread(highs))
        at_quota = under + (over - under) * room.spread(_share(quota, room.spent(over), room.spent(under)))
        prompt_level = room.spread(jnp.where(over_quota, highs, -jnp.inf))

        def limited(level):
            return jnp.where(level < prompt_level, at_quota, amount(level))

    lows, highs = _bisect(lambda level: jnp.sum(limited(level)) > room.total, low, high)
    over, under = limited(lows), limited(highs)
    return under + (over - under) * _share(room.total, jnp.sum(over), jnp.sum(under))


def _share(wanted, over, under):
    return jnp.clip((wanted - under) / jnp.where(over > under, over - under, 1), 0, 1)


def _bisect(too_much: Callable, low: Float[Array, "*g"], high: Float[Array, "*g"]):
    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) / 2
        raise_low = too_much(middle)
        return jnp.where(raise_low, middle, low), jnp.where(raise_low, high, middle)

    return lax.fori_loop(0, STEPS, halve, (low, high))


def rescale(weights: Float[Array, "*s"], room: Room) -> Float[Array, "*s"]:
    """Allowed allocation proportional to the weights except where a cap or quota binds: min(cap, weight / e^level).

    The projection in relative entropy. Weights must be positive on enough pairs to hold the total.
    """
    weights = weights / jnp.max(weights)
    if room.quota is None:
        return _rescaled(weights, room)
    start = jnp.log(jnp.maximum(jnp.sum(weights), 1e-30) / room.total)

    return fill(lambda level: jnp.minimum(room.cap, weights * jnp.exp(-level)), room, start - 60.0, start + 60.0)


def _rescaled(weights, room):
    """min(cap, t weight) by Newton's method on t, which without caps is one step: each pass finds more pairs full."""

    def unfinished(state):
        _, short, steps = state
        return short & (steps < STEPS)

    def grow(state):
        t, _, steps = state
        full = t * weights >= room.cap
        open_weight = jnp.sum(jnp.where(full, 0, weights))
        left = room.total - jnp.sum(jnp.where(full, room.cap, 0))
        new = jnp.where(open_weight > 0, left / jnp.where(open_weight > 0, open_weight, 1), t)
        return jnp.maximum(new, t), new > t * (1 + 4 * jnp.finfo(t.dtype).eps), steps + 1

    state = jnp.zeros_like(room.total), jnp.ones_like(room.total, dtype=bool), jnp.zeros((), jnp.int32)
    return jnp.minimum(room.cap, lax.while_loop(unfinished, grow, state)[0] * weights)


def linear_oracle(sensitivities: Float[Array, "*s"], room: Room) -> Float[Array, "*s"]:
    """Allowed allocation with the largest sum of sensitivity times labels; ties at the last level are shared."""
    cap = jnp.minimum(room.cap, room.total)
    low = jnp.min(jnp.where(cap > 0, sensitivities, jnp.inf))
    low = low - jnp.maximum(jnp.abs(low), 1) * 1e-6
    return fill(lambda level: jnp.where(sensitivities > level, cap, 0), room, low, jnp.max(sensitivities))


def oracle_bound(sensitivities: Float[Array, "*s"], room: Room) -> Float[Array, ""]:
    """Upper bound on the value of the linear oracle for sensitivities b >= 0, tight up to rounding: its dual.

        sum_e b_e n_e <= l m + sum_p [ mu_p q_p + sum_{e in p} cap_e (b_e - l - mu_p)_+ ]    for all l and mu_p >= 0

    evaluated at the level l of the last label given and, with quotas, at mu_p by which that of prompt p is higher.
    """
    cap = jnp.minimum(room.cap, room.total)
    b = jnp.where(cap > 0, sensitivities, 0)
    low, high = jnp.zeros_like(b, shape=()), jnp.max(b)

    def taken(level):
        return jnp.where(b > level, cap, 0)

    quota = room.quota
    if quota is None:
        level = _bisect(lambda level: jnp.sum(taken(level)) > room.total, low, high)[1]
        return level * room.total + jnp.sum(cap * jnp.maximum(b - level, 0))
    lows, highs = jnp.full_like(quota, low), jnp.full_like(quota, high)
    own = _bisect(lambda level: room.spent(taken(room.spread(level))) > quota, lows, highs)[1]
    held = _bisect(lambda level: jnp.sum(jnp.minimum(quota, room.spent(taken(level)))) > room.total, low, high)
    level = held[1]
    extra = jnp.maximum(own - level, 0)
    excess = jnp.maximum(b - level - room.spread(extra), 0)
    return level * room.total + jnp.sum(extra * quota) + jnp.sum(cap * excess)
