"""Rounds simulated: where a policy is after many of them, and whether it rests, circles or collapses."""

from __future__ import annotations

import enum
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays
from jaxdesign._arrays import AnyArray
from jaxdesign.dynamics.graphs import components
from jaxdesign.dynamics.link_fit import warm_scores
from jaxdesign.dynamics.links import LINKS
from jaxdesign.dynamics.one_round import has_scores, is_closed, knows_scores, next_policy, pair_law
from jaxdesign.dynamics.plan import LoopPlan, in_dtype
from jaxdesign.dynamics.preferences import (
    advantages,
    as_log_policy,
    as_preferences,
    entropy,
    in_its_dtype,
    on_host,
    refuse_other_draws,
)

BATCH = 64  # draws simulated together on a CPU: their arrays stay in cache for all rounds
RESTING = 1e-9  # largest move of log pi that counts as none, in float64: of a round with 1 - alpha + strength >= 1
SINGLE = 1e-4  # the same in float32
ROUNDING = 4.0  # units in the last place of log pi: a move of no more is none
CORNER = 1e-3  # collapsed: all answers but one have less than this share together
DYING = 0.5  # moves whose squares shrink by more than this from one half of the last third to the next will end
STRAIGHT = 0.5  # moves that get farther than this share of their length do not turn


class Regime(enum.IntEnum):
    """What the last third of a simulation shows.

    Args: RESTING: log pi no longer moves. SETTLING: it is still under way, moves shrink or keep their direction.
    CIRCLING: moves turn and go on at one size. SPIRALLING: they turn and grow. COLLAPSING: one answer has nearly all,
    and log pi still moves. UNKNOWN: numbers that are not finite, or rounds whose scores were not found.

    Source: derived; checked by tests/dynamics/test_iterate.py.
    """

    RESTING = 0
    SETTLING = 1
    CIRCLING = 2
    SPIRALLING = 3
    COLLAPSING = 4
    UNKNOWN = 5


class Trajectory(NamedTuple):
    """What `iterate` found.

    Args:
        log_policy: (..., K) log pi after the last round, normalised.
        entropy: (...) of it, nats.
        time_variance: (...) variance of pi over the last third of the rounds, mean over answers.
        last_move: (...) largest change of an entry of log pi (less its mean) in the last round.
        trend: (...) largest squared move of pi in the last sixth of the rounds over that in the sixth before: below 1
            moves shrink, above 1 they grow; nan where there are none.
        directness: (...) how far pi got in the last third over the length of its way: 1 for a straight line.
        period: (...) rounds per turn, 2 pi over the mean angle between successive moves of pi in the last third; inf
            where moves keep their direction, nan where there are none above rounding.
        regime: (...) numbers of `Regime`, read off the fields above.
        residual: (...) largest equation that the scores of a round leave unsolved; 0 for IPO on mixed answers, inf
            where the search for a round's scores did not end, as for DPO where an answer never loses, or where rounding
            leaves those of the last round no digits.
        kept: (..., keep, K) log pi after each of the last rounds, the last one last.
    """

    log_policy: Float[Array, "*n k"]
    entropy: Float[Array, "*n"]
    time_variance: Float[Array, "*n"]
    last_move: Float[Array, "*n"]
    trend: Float[Array, "*n"]
    directness: Float[Array, "*n"]
    period: Float[Array, "*n"]
    regime: Int[Array, "*n"]
    residual: Float[Array, "*n"]
    kept: Float[Array, "*n t k"]


def iterate(
    preferences: Float[AnyArray, "*n k k"],
    plan: LoopPlan,
    start: Float[AnyArray, "*m k"] | None,
    *,
    steps: int,
    keep: int = 0,
) -> Trajectory:
    """Rounds with infinitely many labels each, x <- alpha x + (1 - alpha) x_ref + strength u(x), from one policy.

    Args:
        preferences: P, (..., K, K); leading axes are draws, all simulated.
        plan: of the loop; to vary it use jax.vmap.
        start: log pi of the first round's policy up to a constant, (K,) or with the axes of draws; None: pi_ref.
        steps: rounds, at least 6.
        keep: how many of the last policies are returned, at most a third of the steps.

    Returns:
        Trajectory; float64 for inputs on the host unless preferences are float32 (twice as fast).

    Raises:
        ValueError: steps or keep out of range; preferences, plan or start that do not fit together.

    Complexity: about 2 K^2 operations a round and draw for IPO on mixed answers; else a few eliminations, K^3 each.

    Traceable.

    Source: arXiv 2602.12180 (the map); regimes derived; checked by tests/dynamics/test_iterate.py.
    """
    if int(steps) != steps or steps < 6:
        raise ValueError(f"steps={steps}: expected a whole number of rounds, at least 6")
    if int(keep) != keep or not 0 <= keep <= steps // 3:
        raise ValueError(f"keep={keep}: expected a whole number from 0 to a third of the steps, {steps // 3}")
    preferences = as_preferences(preferences)
    size = preferences.shape[-1]
    if start is not None:
        start = as_log_policy(start, size, "start")
        refuse_other_draws(start, 1, preferences, "start")
    with in_its_dtype(preferences, plan, start):
        preferences = jnp.asarray(preferences)
        plan = in_dtype(plan, size, preferences.dtype)
        start = plan.reference if start is None else jnp.asarray(start, preferences.dtype)
        return on_host(_simulated(preferences, plan, start, steps=int(steps), keep=int(keep)))


@partial(jax.jit, static_argnames=("steps", "keep"))
def _simulated(preferences, plan, start, *, steps, keep):
    lead, size = preferences.shape[:-2], preferences.shape[-1]
    flat = preferences.reshape(-1, size, size)
    starts = jnp.broadcast_to(start, (*lead, size)).reshape(-1, size)
    batch = min(len(flat), _together(size))
    found = lax.map(lambda pair: _of_one(pair[0], pair[1], plan, steps, keep), (flat, starts), batch_size=batch)
    found = found._replace(kept=found.kept[:, found.kept.shape[1] - keep :])
    return jax.tree.map(lambda a: a.reshape(*lead, *a.shape[1:]), found)


def _together(size):
    """Draws that are simulated at a time."""
    if jax.default_backend() == "cpu":
        return BATCH
    return max(BATCH, _arrays.chunk_entries() // size**2)  # a round of few is launched, not computed


class _Watched(NamedTuple):
    """A policy, and sums over the last third of the rounds: of policies less the first there and of their moves."""

    log_policy: Array
    scores: Array  # where the next round's search begins
    residual: Array
    last_move: Array
    policy: Array
    sums: Array
    squares: Array
    move: Array
    early: Array  # largest squared move in the first half of the third
    late: Array  # and in the second
    angles: Array  # between successive moves
    turns: Array  # how many angles
    length: Array  # of the way


def _of_one(preferences, start, plan, steps, keep):
    """`iterate` of one draw: rounds that are only made, then rounds that are watched, the last of them kept."""
    window = steps // 3
    advance = _round(preferences, plan)
    x = start - jnp.mean(start)
    begun = (x, jnp.zeros_like(x), jnp.zeros((), x.dtype))
    begun, _ = lax.scan(lambda state, _: (advance(*state), None), begun, length=steps - window)
    x, scores, residual = begun
    first = jax.nn.softmax(x)
    rounding = 100 * jnp.finfo(x.dtype).eps  # shorter moves have no direction
    nought, zeros = jnp.zeros((), x.dtype), jnp.zeros_like(x)

    def watched(seen, step):
        x, scores, residual = advance(seen.log_policy, seen.scores, seen.residual)
        policy = jax.nn.softmax(x)
        away, move = policy - first, policy - seen.policy
        size, late = jnp.sum(move * move), step >= window // 2
        length, before = jnp.sqrt(size), jnp.sqrt(jnp.sum(seen.move * seen.move))
        told = jnp.minimum(length, before) > rounding
        cosine = jnp.sum(move * seen.move) / jnp.where(told, length * before, 1)
        return _Watched(
            x,
            scores,
            residual,
            jnp.max(jnp.abs(x - seen.log_policy)),
            policy,
            seen.sums + away,
            seen.squares + away * away,
            move,
            jnp.maximum(seen.early, jnp.where(late, 0, size)),
            jnp.maximum(seen.late, jnp.where(late, size, 0)),
            seen.angles + jnp.where(told, jnp.arccos(jnp.clip(cosine, -1, 1)), 0),
            seen.turns + jnp.where(told, 1.0, 0),
            seen.length + length,
        )

    def shown(seen, step):
        seen = watched(seen, step)
        return seen, seen.log_policy

    seen = _Watched(x, scores, residual, nought, first, zeros, zeros, zeros, *[nought] * 5)
    ends = window - max(keep, 1)  # lax.map in batches cannot hold arrays without entries
    seen, _ = lax.scan(lambda seen, step: (watched(seen, step), None), seen, jnp.arange(ends))
    seen, kept = lax.scan(shown, seen, jnp.arange(ends, window))
    if not is_closed(plan):
        known = knows_scores(seen.log_policy, preferences, plan)
        seen = seen._replace(residual=jnp.where(known, seen.residual, jnp.inf))
    return _told(first, seen, kept, window, jnp.minimum(1 - plan.alpha + plan.strength, 1))


def _round(preferences, plan):
    """(x, scores, residual) -> the same one round later."""
    return _closed_round(preferences, plan) if is_closed(plan) else _solved_round(preferences, plan)


def _closed_round(preferences, plan):
    rows = advantages(preferences)
    fixed = (1 - plan.alpha) * plan.reference
    fixed = fixed + plan.strength * (1 - plan.share) * jnp.sum(rows * plan.base[None, :], axis=1)
    fixed, rows = fixed - jnp.mean(fixed), plan.strength * plan.share * (rows - jnp.mean(rows, axis=0)[None, :])

    def advance(x, scores, residual):
        own = jax.nn.softmax(plan.temper * x)
        # a sum of products: small batched matrix products are slow
        return plan.alpha * x + fixed + jnp.sum(rows * own[None, :], axis=1), scores, residual

    return advance


def _solved_round(preferences, plan):
    link = LINKS[plan.loss]
    exist = has_scores(preferences, plan)
    linked = components(pair_law(plan.reference, plan))  # which pairs have mass does not depend on the policy

    def advance(x, scores, worst):
        scores, residual = warm_scores(preferences, pair_law(x, plan), linked, link, scores)
        residual = jnp.where(exist, residual, jnp.inf)
        return next_policy(x, scores, plan), scores, jnp.maximum(worst, residual)

    return advance


def _told(first, seen, kept, window, pace):
    policy = jax.nn.log_softmax(seen.log_policy)
    variance = jnp.mean(jnp.maximum(seen.squares / window - jnp.square(seen.sums / window), 0))
    trend = seen.late / seen.early
    # a closed curve in a plane turns by 2 pi in all, whatever its shape and speed
    period = 2 * jnp.pi * seen.turns / seen.angles
    straight = jnp.sqrt(jnp.sum(jnp.square(seen.policy - first))) / seen.length

    still = RESTING if policy.dtype == jnp.float64 else SINGLE
    fine = jnp.all(jnp.isfinite(policy)) & (seen.residual <= 1e3 * still)
    resting = jnp.maximum(still * pace, ROUNDING * jnp.finfo(policy.dtype).eps * jnp.max(jnp.abs(seen.log_policy)))
    onward = (trend < DYING) | (straight > STRAIGHT) | (seen.turns == 0)  # pi may rest where log pi has far to go
    regime = jnp.where(onward, Regime.SETTLING.value, Regime.CIRCLING.value)
    regime = jnp.where((trend > 1 / DYING) & (straight <= STRAIGHT), Regime.SPIRALLING.value, regime)
    cornered = (jnp.max(seen.policy) > 1 - CORNER) & (variance < CORNER**2)
    regime = jnp.where(cornered, Regime.COLLAPSING.value, regime)
    regime = jnp.where(seen.last_move <= resting, Regime.RESTING.value, regime)
    regime = jnp.where(fine, regime, Regime.UNKNOWN.value)
    kept = jax.nn.log_softmax(kept, axis=-1)
    return Trajectory(
        policy, entropy(policy), variance, seen.last_move, trend, straight, period, regime, seen.residual, kept
    )
