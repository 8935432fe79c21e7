"""Hot start: a few multiplicative steps with large powers over all pairs, to find where the support is.

n_e <- rescale(n_e (b_e / max b)^p): after six passes nearly all of an optimal design's mass lies on a few times its
support. Powers (5, 4, 3.5, 3, 3, 2.5) for criteria of degree 0 such as LogDet, halved for Trace, whose sensitivities
are of second order in A^-1; found on one real pool and used on all.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays
from jaxdesign.criteria import LogDet
from jaxdesign.pricing.memory import MemorySource
from jaxdesign.problem import Problem, gradient_factors
from jaxdesign.solvers.dense import dense_candidates, dense_information, dense_sensitivities
from jaxdesign.solvers.feasible import Room, rescale

POWERS = (5.0, 4.0, 3.5, 3.0, 3.0, 2.5)
FAINT = 1e-18  # smallest weight of a candidate pair
NEVER = np.float32(-np.inf)


class HotStart(NamedTuple):
    """Dense labels with the sensitivities they were last scored at."""

    labels: Float[np.ndarray, "p k k"]
    sensitivities: Float[np.ndarray, "p k k"]
    passes: int


def hot_start(problem: Problem) -> HotStart:
    """Run the multiplicative steps on the device; the result comes to the host once."""
    with _arrays.float64():
        room = dense_room(problem)
        labels = _even(problem.source, room)
        powers = np.array(POWERS if isinstance(problem.criterion, LogDet) else [p / 2 for p in POWERS], np.float32)
        labels, sensitivities = _steps(problem.source, problem.criterion, problem.prior, room, labels, powers)
        return HotStart(np.asarray(labels), np.asarray(sensitivities), len(powers) + 1)


def dense_room(problem: Problem) -> Room:
    """Limits of every pair slot of the source."""
    limits, source = problem.limits, problem.source
    padding = source.slots - problem.pool.num_prompts
    cap = np.pad(np.minimum(limits.per_pair, limits.total), (0, padding)).astype(np.float32)
    quota = None
    if limits.has_quotas:
        quota = jnp.asarray(np.pad(np.minimum(limits.per_prompt, 2 * limits.total), (0, padding)), jnp.float32)
    dense = _dense_cap(source, jnp.asarray(cap))
    return Room(dense, jnp.asarray(limits.total, jnp.float32), quota)


@jax.jit
def _dense_cap(source, cap):
    return dense_candidates(source).astype(jnp.float32) * cap[:, None, None]


@jax.jit
def _even(source: MemorySource, room: Room):
    return rescale((room.cap > 0).astype(jnp.float32), room)


@jax.jit
def _steps(source, criterion, prior, room, labels, powers):
    def score(labels):
        matrix = prior + dense_information(source, labels.astype(source.features.dtype)).astype(jnp.float64)
        factors = gradient_factors(criterion.gradient(matrix)).astype(source.features.dtype)
        return dense_sensitivities(source, factors).astype(jnp.float32)

    def step(labels, power):
        b = score(labels)
        # never to zero: where quotas spread the labels, weak prompts must be able to take theirs back
        weights = jnp.maximum(labels / jnp.max(labels) * (b / jnp.max(b)) ** power, FAINT)
        return rescale(jnp.where(room.cap > 0, weights, 0), room), None

    labels, _ = jax.lax.scan(step, labels, powers)
    return labels, score(labels)


def leading_pairs(
    start: HotStart, cap: Float[np.ndarray, " p"], level: float, limit: int
) -> tuple[Int[np.ndarray, "s 3"], Float[np.ndarray, " s"]]:
    """Pairs that are likely neither at zero nor at the cap for good, and then all that are at the cap.

    Scored by log(n / cap) + 10 log(b / level) below the cap and -10 log(b / level) at it; the first `limit` pairs are
    the working set, the pairs after them are at the cap.
    """
    labels, b = start.labels, np.maximum(start.sensitivities, 1e-30)
    cap = np.maximum(np.minimum(cap, 1e30), 1).astype(np.float32)[:, None, None]  # 1 for padding
    with np.errstate(divide="ignore"):
        lean = 10 * np.log(b / level)
        full = labels >= 0.999 * cap
        score = np.where(full, -lean, np.log(labels / cap) + lean)
    score[labels <= 0] = NEVER
    flat = score.ravel()
    limit = min(limit, int((flat > NEVER).sum()))
    chosen = np.argpartition(-flat, limit - 1)[:limit] if limit < flat.size else np.arange(flat.size)
    taken = np.zeros(flat.size, bool)
    taken[chosen] = True
    rest = np.flatnonzero(full.ravel() & ~taken & (labels.ravel() > 0))
    index = np.concatenate([np.sort(chosen), rest])
    pairs = np.stack(np.unravel_index(index, labels.shape), axis=1).astype(np.int32)
    return pairs, labels.ravel()[index].astype(np.float64)
