"""Multiplicative updates: n_e <- n_e b_e^p, scaled back to the budget. Traceable.

Scaling is min(cap, t n_e b_e^p) with one t for all (and less where a quota binds), so that the labels sum to the total:
the step that stays monotone with a prior and with caps. Dividing by the mean sensitivity instead loses labels.
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
from jaxdesign.criteria.protocol import ConvexCriterion, CriterionLike
from jaxdesign.design import Certificate
from jaxdesign.methods.room import rescale
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.believed import believed
from jaxdesign.problem import traceable_prior
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

LEAST_WEIGHT = 1e-30  # smallest weight of a candidate pair: none is lost for good


class MultiplicativeState(NamedTuple):
    """Where the steps stand, and the best allocation met."""

    labels: Float[Array, "p k k"]
    matrix: Float[Array, "r d d"]
    best: Float[Array, "p k k"]
    value: Float[Array, ""]  # of `best`


def multiplicative(
    pool: CompletionPool,
    crit: CriterionLike,
    budget: Budget | Limits,
    *,
    prior: Any = None,
    passes: int = 100,
    power: float | None = None,
) -> tuple[Float[Array, "p k k"], Certificate[Array]]:
    """Best of `passes` multiplicative steps n_e <- min(cap, t n_e b_e^p) from an even allocation; traceable.

    Static shapes, no look at values: works inside the caller's jit and vmap, and nothing is compiled again when numbers
    change. Differentiation takes the result for a constant.

    Args:
        pool: the pool.
        crit: the criterion.
        budget: a `Budget`, whose numbers are then constants of the caller's program; or, to trace or vmap over them,
            `jaxdesign.budget.Limits(total, per_pair, per_prompt)` with arrays, None for what has no limit.
        prior: information already held: (d, d), (R, d, d) for R draws, or a scalar ridge; or a `Belief`.
        passes: steps, each one pass over the pool; may be traced.
        power: p; None for 1 (LogDet) or 1/2 (others), at which no step raises LogDet or Trace, with prior and caps too.
            Up to about 1.8 times that takes about half the passes.

    Returns:
        allocation (P, K, K), float32 (float64 for float64 features): symmetric, the labels of a pair at [p, i, j] and
        at [p, j, i], so that `pair_information(pool, allocation)` is its information and its sum over i < j the total.
        Certificate of scalar arrays of the same dtype, rounded to the safe side. Nothing about values is raised: where
        the caps cannot hold the total, no pair is a candidate or A is singular, value is inf and efficiency 0.

    Raises:
        TypeError: pool, crit or budget of another kind.
        ValueError: a cap, prior or target of the wrong shape; outside of jit also passes < 1, power <= 0 and a prior
            that is indefinite.

    Numerics: passes in the working dtype at full precision, the d x d algebra and the certificate in float64 whatever
    the x64 flag.
    Complexity: 4 P K d^2 + 4 P K^2 d operations a pass; memory 2 P K^2 labels, and for the certificate one float64 copy
    of the features and of P K^2 sensitivities.
    Source: Titterington 1976, Algorithms for computing D-optimal designs on finite design spaces (p = 1 for LogDet); Yu
    2010, Monotonic convergence of a general algorithm for computing optimal designs, Annals of Statistics 38(3) (p =
    1/2 for Trace), proved anew in arXiv 2508.07074. The step under caps and with a prior is derived; checked by
    tests/solvers/test_multiplicative.py.
    """
    crit = checked_arguments(pool, crit, budget, passes)
    if power is None:
        power = default_power(crit)
    elif not _arrays.is_traced(power) and not power > 0:
        raise ValueError(f"power={power}: must be positive; 1 (LogDet) and 1/2 (Trace) are monotone")
    bare, prior = believed(pool, prior)
    bare, crit, prior = _arrays.replicated((bare, crit, prior))
    with _arrays.float64():
        arguments = constant((bare, crit, limits_of(budget), traceable_prior(prior, pool)))
        return _multiplicative(*arguments, jnp.asarray(passes, jnp.int32), jnp.asarray(power, jnp.float64))


def default_power(crit: ConvexCriterion) -> float:
    """The monotone power; TypeError for criteria that have none."""
    if crit.multiplicative_power is None:
        raise TypeError(
            "crit: multiplicative steps on a worst case jump from target to target; use jaxdesign.optimize with its "
            "default solver, or jaxdesign.solvers.frank_wolfe"
        )
    return crit.multiplicative_power


@jax.jit
def _multiplicative(pool, crit, limits, prior, passes, power):
    problem = dense_problem(pool, crit, limits, prior)
    state = multiplicative_steps(problem, even_allocation(problem), passes, power)
    return finish(pool, crit, limits, prior, state.best.astype(prior.dtype) * problem.labels)


def multiplicative_steps(
    problem: DenseProblem, labels: Float[Array, "p k k"], passes: Array | int, power: Array | float
) -> MultiplicativeState:
    """Steps from an allowed allocation with labels on every candidate pair; stays where A turns out singular."""
    matrix = information(problem, labels)
    start = MultiplicativeState(labels, matrix, labels, problem.criterion.value(matrix))
    return lax.fori_loop(0, passes, lambda _, state: _step(problem, state, power), start)


def _step(problem, state, power):
    b = sensitivities(problem, state.matrix)
    growth = (b / jnp.max(b)) ** power.astype(b.dtype)
    weights = jnp.maximum(state.labels / jnp.max(state.labels) * growth, LEAST_WEIGHT)
    labels = rescale(jnp.where(problem.room.cap > 0, weights, 0), problem.room)
    matrix = information(problem, labels)
    value = problem.criterion.value(matrix)
    better = value < state.value  # False for NaN
    best = jnp.where(better, labels, state.best)
    return MultiplicativeState(labels, matrix, best, jnp.where(better, value, state.value))
