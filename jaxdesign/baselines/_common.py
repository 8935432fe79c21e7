"""What the selectors share: a problem with whole limits, its pairs, their forms, filling a budget, an honest Design."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._pairs import Allocation
from jaxdesign.budget.budget import Budget, whole_budget
from jaxdesign.budget.kinds import LAMINAR, check_obeyed
from jaxdesign.certificates.allowed import check_allowed
from jaxdesign.certificates.evaluate import evaluated
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Design, Status
from jaxdesign.door import make_problem
from jaxdesign.exact.by_score import largest_scores
from jaxdesign.information import dense_sensitivities
from jaxdesign.pool import CompletionPool, bare_pool
from jaxdesign.pricing.source import Source
from jaxdesign.problem import Problem
from jaxdesign.solvers.dense.allocations import dense_candidates

TIE = 1e-9  # relative difference below which two float64 figures are the same one, rounded in two ways


def source_problem(
    pool: CompletionPool | Source, crit: CriterionLike, budget: Budget, prior: Any, seed: int
) -> Problem:
    """`whole_problem` of a rule that needs no features in memory, of a pool or a source; raises the same."""
    _checks.seed(seed)
    return make_problem(pool, crit, whole_budget(budget), prior)


def whole_problem(pool: CompletionPool, crit: CriterionLike, budget: Budget, prior: Any, seed: int) -> Problem:
    """The problem with caps and quotas rounded down, the whole pool in memory.

    Raises:
        TypeError, ValueError: as `optimize`; a total that is not whole; a seed that is no integer, or negative.
    """
    _checks.seed(seed)
    return make_problem(pool, crit, whole_budget(budget), prior, whole=True)


def every_pair(problem: Problem) -> Int[np.ndarray, "n 3"]:
    """All candidate pairs (completions that exist and differ) in order; 12 bytes each."""
    candidates = np.asarray(dense_candidates(problem.source))[: problem.prompts]
    return np.stack(np.nonzero(candidates), axis=1).astype(np.int32)


def pair_forms(
    pool: CompletionPool, G: Float[np.ndarray, "*r d d"], pairs: Int[np.ndarray, "n 3"]
) -> Float[np.ndarray, " n"]:
    """c z^T G z of the pairs, averaged over draws; float64.

    In float64, so that pairs which tie by arithmetic tie to `TIE` here and are taken in order.
    """
    with _arrays.float64():
        of_draws = jnp.broadcast_to(jnp.asarray(G), (pool.num_draws or 1, pool.dim, pool.dim))
        dense = np.asarray(dense_sensitivities(pool, of_draws, dtype=np.dtype(np.float64)))
    return dense[tuple(pairs.T)]


def without_scores(pool: CompletionPool) -> CompletionPool:
    """The pool as seen by a rule that knows neither margins nor noise: c = 1/4 for every pair."""
    return bare_pool(pool.features, pool.mask)


def information_of_all(problem: Problem) -> Float[np.ndarray, "r d d"]:
    """sum_e c_e z_e z_e^T over all candidate pairs, per draw, without the prior; float64."""
    bare = replace(problem, prior=np.zeros_like(problem.prior))
    return bare.even * (problem.pair_counts.sum() / problem.limits.total)


def groups(values: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """0 for the largest value, 1 for the next, and so on; values that differ by no more than `TIE` share a number."""
    order = np.argsort(-values, kind="stable")
    higher, lower = values[order][:-1], values[order][1:]
    falls = higher - lower > TIE * np.maximum(np.abs(higher), np.abs(lower))
    numbers = np.zeros(len(values), np.int64)
    numbers[order[1:]] = np.cumsum(falls)
    return numbers


def rank_in_prompt(pairs: Int[np.ndarray, "n 3"], order: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Place of each pair among those of its own prompt, 0 first, in the order given (indices of all pairs)."""
    by_prompt = order[np.argsort(pairs[order, 0], kind="stable")]
    prompts = pairs[by_prompt, 0]
    ranks = np.empty(len(pairs), np.int64)
    ranks[by_prompt] = np.arange(len(pairs)) - np.searchsorted(prompts, prompts, side="left")
    return ranks


def by_place(problem: Problem, pairs: Int[np.ndarray, "n 3"], places: Int[np.ndarray, " n"]) -> Design:
    """Design of the pairs with the smallest places, ties to the first (prompt, i, j)."""
    scores = -places.astype(np.float64)
    return chosen(problem, Allocation(pairs, largest_scores(problem.limits, pairs, lambda: scores)))


def check_pair_by_pair(problem: Problem, name: str) -> None:
    """ValueError where the budget has limits that a rule which labels pair by pair cannot obey."""
    who = f"budget: baselines.{name} labels pair by pair and"
    check_obeyed(problem.limits.kinds, LAMINAR, who, "compare it under budgets without them")


def chosen(problem: Problem, allocation: Allocation) -> Design:
    """Design of these labels (zeros dropped), certified as `evaluate` does; value inf, efficiency 0 where singular."""
    pairs, labels = allocation
    allocation = Allocation(pairs[labels > 0], labels[labels > 0])
    check_allowed(problem, allocation)
    return evaluated(problem, allocation, Status.EVALUATED).design
