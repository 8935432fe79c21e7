"""A design problem over dense allocations, traceable: what `frank_wolfe` and `multiplicative` share.

Everything here has static shapes and runs on the device, inside the caller's jit and vmap. Passes over the pool are in
its working dtype, the d x d algebra in float64, so every function is to be called inside `_arrays.float64()`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray, contract
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.limits import Limits
from jaxdesign.criteria.protocol import ConvexCriterion
from jaxdesign.methods.room import Room, rescale
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.memory import MemorySource, memory_source
from jaxdesign.pricing.passes import pairs_information
from jaxdesign.problem import Problem, checked_criterion
from jaxdesign.residual import check_one_label
from jaxdesign.solvers.dense.allocations import dense_candidates, dense_information, dense_sensitivities
from jaxdesign.solvers.dense.whitening import criterion_unit, power_of_two_near, whitened_source, whitening


class DenseLimits(NamedTuple):
    """Limits as arrays; None for what has none, which is part of the program, as values are not."""

    total: Float[AnyArray, ""] | float
    per_pair: Float[AnyArray, "*p"] | None
    per_prompt: Float[AnyArray, "*p"] | None


class DenseProblem(NamedTuple):
    """Pool, criterion, prior and limits as arrays, in whitened coordinates (`whitening`).

    Pairs are slots (p, i, j), i < j, of the source's prompts. Labels are counted in units of `labels`; the criterion is
    divided by `unit`.
    """

    source: MemorySource  # features phi W labels^(1/2)
    criterion: ConvexCriterion
    prior: Float[Array, "r d d"]  # float64
    room: Room  # (P, K, K), in the source's dtype
    basis: Float[Array, "d d"]  # W
    labels: Float[Array, ""]
    unit: Float[Array, ""]


def dense_problem(pool: CompletionPool, criterion: ConvexCriterion, limits: DenseLimits, prior: Any) -> DenseProblem:
    """The problem in the pool's working dtype, traceable."""
    source = memory_source(pool)
    pairs = jnp.maximum(jnp.sum(dense_candidates(source), dtype=prior.dtype), 1)
    even = prior + pairs_information(source) * (jnp.asarray(limits.total, prior.dtype) / pairs)
    return whitened(source, criterion.smooth(), prior, limits, even)


def dense_of(problem: Problem) -> DenseProblem:
    """The same of a problem that was validated on the host; TypeError where its pool is not in memory."""
    limits = problem.limits
    return dense_part(problem, memory_of(problem), limits.per_pair, limits.per_prompt)


def memory_of(problem: Problem) -> MemorySource:
    """The source of a problem whose pool is in memory; TypeError for others."""
    if isinstance(problem.source, MemorySource):
        return _arrays.for_algebra(problem.source)
    return _arrays.for_algebra(memory_source(problem.pool, closed=problem.decided.closed))


def dense_part(problem: Problem, source: MemorySource, per_pair, per_prompt) -> DenseProblem:
    """The problem over the prompts of a source, whose limits are given."""
    limits = DenseLimits(problem.limits.total, per_pair, per_prompt if problem.limits.has_quotas else None)
    bare = source._replace(margins=None)  # whitening does not look at them: one program with and without
    with _arrays.float64():
        dense = _whitened(bare, problem.criterion, jnp.asarray(problem.prior), limits, jnp.asarray(problem.even))
    return dense._replace(source=dense.source._replace(margins=source.margins))


def whitened(source, criterion, prior, limits: DenseLimits, even: Float[Array, "r d d"]) -> DenseProblem:
    """The problem in the coordinates that whiten `even`; traceable, inside `_arrays.float64()`."""
    basis, labels = whitening(even), power_of_two_near(jnp.asarray(limits.total, even.dtype), 4)
    unit = criterion_unit(criterion, even)
    prior = contract("ji,rjk,kl->ril", basis, prior, basis)
    return DenseProblem(
        whitened_source(source, basis * jnp.sqrt(labels)),
        criterion.in_basis(basis, unit),
        (prior + jnp.swapaxes(prior, 1, 2)) / 2,
        dense_room(source, in_label_units(limits, labels)),
        basis,
        labels,
        unit,
    )


_whitened = jax.jit(whitened)


def in_label_units(limits: DenseLimits, labels: Float[Array, ""]) -> DenseLimits:
    """Limits with labels counted in units of `labels`; None kept."""
    return jax.tree.map(lambda limit: jnp.asarray(limit, labels.dtype) / labels, limits)


def dense_room(source: MemorySource, limits: DenseLimits) -> Room:
    """Limits of every pair slot, 0 for what is no candidate; None for per_pair or per_prompt means no limit."""
    dtype = source.dtype
    total = jnp.asarray(limits.total, dtype)
    cap = total if limits.per_pair is None else jnp.minimum(_by_slot(limits.per_pair, source), total)
    quota = None if limits.per_prompt is None else jnp.minimum(_by_slot(limits.per_prompt, source), 2 * total)
    return Room(dense_candidates(source) * (cap if cap.ndim == 0 else cap[:, None, None]), total, quota)


def _by_slot(limit, source):
    """One number per slot of the source in its dtype."""
    limit = jnp.asarray(limit, source.dtype)
    return jnp.full(source.slots, limit) if limit.ndim == 0 else jnp.pad(limit, (0, source.slots - limit.shape[0]))


def information(problem: DenseProblem, labels: Float[Array, "p k k"]) -> Float[Array, "r d d"]:
    """A = prior + sum_e n_e c_e z_e z_e^T: assembled in the source's dtype, added in float64."""
    return problem.prior + dense_information(problem.source, labels).astype(problem.prior.dtype)


def in_coordinates(problem: DenseProblem, matrix: Float[Array, "r d d"]) -> Float[Array, "r d d"]:
    """An information matrix of the features as they are, in the problem's coordinates."""
    return contract("ji,rjk,kl->ril", problem.basis, matrix, problem.basis)


def sensitivities(problem: DenseProblem, matrix: Float[Array, "r d d"]) -> Float[Array, "p k k"]:
    """b of every candidate pair at A, in the source's dtype and the problem's units; 0 elsewhere."""
    factors = problem.criterion.factors(matrix)
    return dense_sensitivities(problem.source, factors.astype(problem.source.dtype))


def even_allocation(problem: DenseProblem) -> Float[Array, "p k k"]:
    """As many labels on every candidate pair as on any other, but for caps and quotas."""
    return rescale((problem.room.cap > 0).astype(problem.room.cap.dtype), problem.room)


def checked_arguments(pool: Any, crit: Any, budget: Any, passes: Any) -> ConvexCriterion:
    """The criterion as solvers need it; TypeError or ValueError for what is seen without looking at traced values."""
    crit = checked_criterion(pool, crit)
    if not isinstance(budget, Budget | Limits):
        raise TypeError(f"budget: expected jaxdesign.Budget or jaxdesign.budget.Limits, found {type(budget).__name__}")
    for name in ("per_pair", "per_prompt"):
        if np.shape(getattr(budget, name)) not in ((), (pool.num_prompts,)):
            shape = np.shape(getattr(budget, name))
            raise ValueError(f"budget.{name}: shape {shape} found; expected a scalar or ({pool.num_prompts},)")
    check_one_label(pool.residual, budget.per_pair, "budget.per_pair")
    if not _arrays.is_traced(passes):
        _checks.whole_number(passes, "passes", 1)
    return crit


def limits_of(budget: Budget | Limits) -> DenseLimits:
    """Numbers as float64 arrays, None kept."""
    caps = (
        None if limit is None else jnp.asarray(limit, jnp.float64) for limit in (budget.per_pair, budget.per_prompt)
    )
    return DenseLimits(jnp.asarray(budget.total, jnp.float64), *caps)


def constant(tree: Any) -> Any:
    """The same values, which differentiation takes for constants: no derivative passes through a solver."""
    return jax.tree.map(lambda leaf: lax.stop_gradient(jnp.asarray(leaf)), tree)
