"""Frank-Wolfe with exact line search: labels move towards the pairs with the largest sensitivities. Traceable.

Two directions. With quotas, towards the linear oracle's answer, a whole set of pairs. Otherwise a pairwise step between
sets: labels move from an away set, the pairs furthest below the level of indifference, to a toward set, those furthest
above it. With single pairs for sets this is the classical pairwise step, which from an even allocation over N pairs
needs about N passes to empty the tail; sets need tens, and keep the linear convergence that steps towards the oracle's
answer lack: with quotas `multiplicative` is the faster of the two.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxdesign import _arrays
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.limits import Limits
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Certificate
from jaxdesign.methods.line_search import exact_step
from jaxdesign.methods.room import Room, linear_oracle
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.believed import believed
from jaxdesign.problem import traceable_prior
from jaxdesign.solvers.dense.allocations import dense_information
from jaxdesign.solvers.dense.certificate import finish
from jaxdesign.solvers.dense.problem import (
    DenseProblem,
    checked_arguments,
    constant,
    dense_problem,
    even_allocation,
    information,
    limits_of,
    sensitivities,
)

REACH = 0.3  # a set holds the pairs with at least this share of the largest deviation; 0.2 to 0.5 take as many passes
REFRESH = 32  # passes after which A is assembled from the labels again instead of updated


class FrankWolfeState(NamedTuple):
    """An allowed allocation and its information."""

    labels: Float[Array, "p k k"]
    matrix: Float[Array, "r d d"]


def frank_wolfe(
    pool: CompletionPool,
    crit: CriterionLike,
    budget: Budget | Limits,
    *,
    prior: Any = None,
    passes: int = 100,
) -> tuple[Float[Array, "p k k"], Certificate[Array]]:
    """`passes` Frank-Wolfe steps n <- n + t (n' - n) from an even allocation, t by exact line search; traceable.

    Static shapes, no look at values: works inside the caller's jit and vmap, and nothing is compiled again when numbers
    change. Differentiation takes the result for a constant.

    Args:
        pool: the pool.
        crit: the criterion.
        budget: a `Budget`, whose numbers are then constants of the caller's program; or, to trace or vmap over them,
            `jaxdesign.budget.Limits(total, per_pair, per_prompt)` with arrays, None for what has no limit.
        prior: information already held: (d, d), (R, d, d) for R draws, or a scalar ridge; or a `Belief`.
        passes: steps, each one pass over the pool; may be traced.

    Returns:
        allocation (P, K, K), float32 (float64 for float64 features): symmetric, the labels of a pair at [p, i, j] and
        at [p, j, i], so that `pair_information(pool, allocation)` is its information and its sum over i < j the total.
        Certificate of scalar arrays of the same dtype, rounded to the safe side. Nothing about values is raised: where
        the caps cannot hold the total, no pair is a candidate or A is singular, value is inf and efficiency 0.

    Raises:
        TypeError: pool, crit or budget of another kind.
        ValueError: a cap, prior or target of the wrong shape; outside of jit also passes < 1 and a prior that is
            indefinite.

    Numerics: passes in the working dtype at full precision, the d x d algebra and the certificate in float64 whatever
    the x64 flag. The steps stop improving at a relative gap of about 1e-6 in float32.
    Complexity: 4 P K d^2 + 4 P K^2 d operations a pass and about six d x d factorisations; memory 2 P K^2 labels, and
    for the certificate one float64 copy of the features and of P K^2 sensitivities.
    Source: Frank and Wolfe 1956, doi:10.1002/nav.3800030109; pairwise steps, Lacoste-Julien and Jaggi 2015, arXiv
    1511.05932. The steps between sets are derived; checked by tests/solvers/test_frank_wolfe.py.
    """
    crit = checked_arguments(pool, crit, budget, passes)
    bare, prior = believed(pool, prior)
    bare, crit, prior = _arrays.replicated((bare, crit, prior))
    with _arrays.float64():
        arguments = constant((bare, crit, limits_of(budget), traceable_prior(prior, pool)))
        return _frank_wolfe(*arguments, jnp.asarray(passes, jnp.int32))


@jax.jit
def _frank_wolfe(pool, crit, limits, prior, passes):
    problem = dense_problem(pool, crit, limits, prior)
    state = frank_wolfe_steps(problem, even_allocation(problem), passes)
    return finish(pool, crit, limits, prior, state.labels.astype(prior.dtype) * problem.labels)


def frank_wolfe_steps(problem: DenseProblem, labels: Float[Array, "p k k"], passes: Array) -> FrankWolfeState:
    """Steps from an allowed allocation; no step raises the criterion, and where A is singular none is made."""

    def step(k, state):
        b = sensitivities(problem, state.matrix)
        move = direction(b, state.labels, problem.room)
        change = dense_information(problem.source, move).astype(state.matrix.dtype)
        t = exact_step(problem.criterion, state.matrix, change, jnp.ones((), state.matrix.dtype))
        moved = state.labels + t.astype(move.dtype) * move
        moved = jnp.where(t > 0, jnp.clip(moved, 0, problem.room.cap), state.labels)
        matrix = lax.cond(
            k % REFRESH == REFRESH - 1, lambda: information(problem, moved), lambda: state.matrix + t * change
        )
        return FrankWolfeState(moved, matrix)

    return lax.fori_loop(0, passes, step, FrankWolfeState(labels, information(problem, labels)))


def direction(b: Float[Array, "p k k"], labels: Float[Array, "p k k"], room: Room) -> Float[Array, "p k k"]:
    """A change of the labels that sums to zero, is allowed up to step 1 and descends wherever any direction does."""
    vertex = linear_oracle(b, room)
    if room.quota is not None:
        return vertex - labels
    slack = room.cap - labels
    level = _level(b, labels, slack, vertex)
    below = jnp.where(labels > 0, jnp.maximum(level - b, 0), 0)
    above = jnp.where(slack > 0, jnp.maximum(b - level, 0), 0)
    lowest, highest = jnp.max(below), jnp.max(above)
    leaving = jnp.where((below >= REACH * jnp.minimum(lowest, highest)) & (below > 0), labels, 0)
    coming = jnp.where((above >= REACH * highest) & (above > 0), slack, 0)
    mass = jnp.minimum(jnp.sum(leaving), jnp.sum(coming))
    exchange = coming * _ratio(mass, jnp.sum(coming)) - leaving * _ratio(mass, jnp.sum(leaving))
    return jnp.where(mass > 0, exchange, vertex - labels)


def _level(b, labels, slack, vertex):
    """Mean sensitivity of the labels that are free to move, or that of the oracle's last label where none are."""
    free = jnp.where(slack > 0, labels, 0) * (slack / jnp.max(slack))
    mass = jnp.sum(free)
    enough = mass > 1e-6 * jnp.sum(labels)
    last = jnp.min(jnp.where(vertex > 0, b, jnp.inf))
    return jnp.where(enough, jnp.sum(free * b) / jnp.where(enough, mass, 1), last)


def _ratio(part, whole):
    return part / jnp.where(whole > 0, whole, 1)
