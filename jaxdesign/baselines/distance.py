"""Selectors that take the best B pairs by one fixed quadratic form, as if one label told nothing about the next."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxdesign.baselines._common import (
    by_place,
    every_pair,
    groups,
    information_of_all,
    pair_forms,
    whole_problem,
    without_scores,
)
from jaxdesign.budget.budget import Budget
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Design
from jaxdesign.pool import CompletionPool

APO_RIDGE = 1e-5  # the published code's V_0 = 1e-5 I, for features of norm about 1
ARM_FI_RIDGE = 1e-6  # the published code's 1e-6 I


def largest_distance(
    pool: CompletionPool, crit: CriterionLike, budget: Budget, *, prior: Any = None, seed: int = 0
) -> Design:
    """The pairs whose features are furthest apart: the largest |z|, z = phi_pi - phi_pj.

    Ignores scores, prior, the units of the features, and that two long differences may point the same way.

    Args:
        pool, crit, budget, prior: as `select_pairs`; the criterion and the prior only judge the result.
        seed: accepted like everywhere; nothing is drawn.

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        TypeError, ValueError: as `optimize`; a total that is not whole, a seed that is no integer or negative.

    Numerics: |z|^2 in float64; values within 1e-9 of each other, relative, are ties and go to the first (prompt, i, j).
    Complexity: 2 P K d^2 + 2 P K^2 d operations, P K^2 float64 of memory.
    Source: the usual diversity heuristic; it is the first pick of greedy LogDet at A = I, taken B times.
    """
    problem = whole_problem(pool, crit, budget, prior, seed)
    pairs = every_pair(problem)
    return by_place(problem, pairs, groups(pair_forms(without_scores(problem.pool), np.eye(pool.dim), pairs)))


def apo(pool: CompletionPool, crit: CriterionLike, budget: Budget, *, prior: Any = None, seed: int = 0) -> Design:
    """APO: the B pairs with the largest z^T V^-1 z, V the information held before the batch.

    V = prior + r I with r = 1e-5 tr(prior) / d, which only matters where the prior is singular (I without a prior: the
    ranking is then that of `largest_distance`; V^-1 averaged over draws). Ignores the label information c, and what the
    batch itself has already covered: V is not updated within it.

    Args:
        pool, crit, budget, prior: as `select_pairs`; the criterion only judges the result.
        seed: accepted like everywhere; nothing is drawn.

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        TypeError, ValueError: as `optimize`; a total that is not whole, a seed that is no integer or negative.

    Numerics: in float64; values within 1e-9 of each other, relative, are ties and go to the first (prompt, i, j).
    Complexity: 2 P K d^2 + 2 P K^2 d operations, P K^2 float64 of memory.
    Source: arXiv 2402.10500; its public code selects at a fixed V, leaves the logistic weight out and starts from
    V_0 = 1e-5 I. The relative r is ours, so that the features' units do not matter.
    """
    problem = whole_problem(pool, crit, budget, prior, seed)
    pairs = every_pair(problem)
    held = np.trace(problem.prior, axis1=1, axis2=2) / pool.dim
    ridge = np.where(held > 0, APO_RIDGE * held, 1.0)
    inverse = np.linalg.inv(problem.prior + ridge[:, None, None] * np.eye(pool.dim)).mean(axis=0)
    return by_place(problem, pairs, groups(pair_forms(without_scores(problem.pool), inverse, pairs)))


def arm_fi(pool: CompletionPool, crit: CriterionLike, budget: Budget, *, prior: Any = None, seed: int = 0) -> Design:
    """ARM-FI: the B pairs with the largest c z^T M^-1 z, M the information of all pairs together.

    M = prior + sum over all pairs of c z z^T + r I, r = 1e-6 tr(sum) / d: the score is d log det M / d w_e with every
    pair at weight w = 1, averaged over draws. Ignores what the batch itself has already covered: M stays as it is.

    Args:
        pool, crit, budget, prior: as `select_pairs`; the criterion only judges the result.
        seed: accepted like everywhere; nothing is drawn.

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        TypeError, ValueError: as `optimize`; a total that is not whole, a seed that is no integer or negative.

    Numerics: in float64; values within 1e-9 of each other, relative, are ties and go to the first (prompt, i, j).
    Complexity: 4 P K d^2 + 4 P K^2 d operations for each draw, P K^2 float64 of memory.
    Source: arXiv 2502.04354, the past-aware D-optimal rule of its public code (1e-6 I there; relative to the features'
    units here).
    """
    problem = whole_problem(pool, crit, budget, prior, seed)
    pairs = every_pair(problem)
    everything = information_of_all(problem)
    ridge = ARM_FI_RIDGE * np.trace(everything, axis1=1, axis2=2) / pool.dim
    inverse = np.linalg.inv(problem.prior + everything + ridge[:, None, None] * np.eye(pool.dim))
    return by_place(problem, pairs, groups(pair_forms(problem.pool, inverse, pairs)))
