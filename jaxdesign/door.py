"""The one door: arguments of a public function validated against each other and made a `Problem`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from jaxdesign import _arrays
from jaxdesign.analysis import analyse, information
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.limits import resolve
from jaxdesign.budget.required import decided_pairs
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.memory import memory_source, open_counts
from jaxdesign.problem import Problem, checked_criterion, prior_matrix
from jaxdesign.units import column_units, in_units, rescaled

INDEFINITE = 1e-6  # share of the largest eigenvalue of G that one below zero may have by rounding


def make_problem(pool: CompletionPool, criterion: Any, budget: Budget, prior: Any = None) -> Problem:
    """Validate the arguments of a solver against each other.

    Raises:
        TypeError: pool, criterion or budget of another kind.
        ValueError: no candidate pair, a budget the pool cannot hold, a prior or target of wrong shape or indefinite.
    """
    criterion = checked_criterion(pool, criterion)
    if _arrays.is_traced(pool):
        raise TypeError(
            "pool: is traced; this function runs its loop on the host. Inside jit or vmap use jaxdesign.greedy, "
            "jaxdesign.solvers.frank_wolfe or jaxdesign.solvers.multiplicative"
        )
    pool = _arrays.replicated(pool)
    if not isinstance(budget, Budget):
        raise TypeError(f"budget: expected jaxdesign.Budget, found {type(budget).__name__}")
    decided = decided_pairs(pool, budget)
    exponents = column_units(pool)
    bare = in_units(pool, exponents)
    source = memory_source(bare, closed=decided.closed)
    counts = open_counts(source)[: pool.num_prompts]
    limits = resolve(budget, counts, np.asarray(pool.mask), (decided.pairs, decided.labels))
    held = rescaled(prior_matrix(prior, pool), exponents)
    problem = Problem(
        bare, criterion.in_units(exponents), limits, held, source, counts, decided, exponents
    )  # fmt: skip
    check_decreasing(problem)
    if not len(decided.pairs):
        return problem
    return replace(problem, prior=information(problem, decided.pairs, decided.labels))


def check_decreasing(problem: Problem) -> None:
    """ValueError for a criterion of the user's own that increases with information, by G at the even allocation."""
    if problem.criterion.decreasing:
        return
    G = analyse(problem, problem.even).G
    if not np.isfinite(G).all():
        return
    spectrum = np.linalg.eigvalsh(G)
    if spectrum.min() < -INDEFINITE * np.abs(spectrum).max():
        raise ValueError(
            f"crit: it increases with information in some direction: minus its gradient at an even allocation has the "
            f"eigenvalue {spectrum.min():.3g} beside {spectrum.max():.3g}; a criterion is minimised and must decrease, "
            "as -log det does"
        )
