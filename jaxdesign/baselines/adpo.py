"""ADPO: D-optimal greedy selection with the label information of the logistic model."""

from __future__ import annotations

from typing import Any

from jaxdesign.baselines._common import check_pair_by_pair, chosen, whole_problem
from jaxdesign.budget.budget import Budget
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Design
from jaxdesign.exact.greedy.greedy import greedy_allocation
from jaxdesign.pool import CompletionPool


def adpo(pool: CompletionPool, crit: CriterionLike, budget: Budget, *, prior: Any = None, seed: int = 0) -> Design:
    """ADPO: one label at a time on the pair with the largest c z^T A^-1 z, A updated after each.

    That is greedy for log det A, c = sigma'(u_pi - u_pj) (1/4 without scores; the mean log gain over draws). A starts
    at the prior, lifted by a small multiple of I where it is (nearly) singular, as the published rule starts at
    gamma I. Where the budget allows repeats it may label a pair again; the published rule does not: pass per_pair=1
    for it. Ignores the target: log det cannot see which directions matter to the policy.

    Args:
        pool, crit, budget, prior: as `select_pairs`; the criterion only judges the result.
        seed: accepted like everywhere; nothing is drawn.

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        TypeError, ValueError: as `optimize`; a total that is not whole, a seed that is no integer or negative.

    Numerics and complexity: those of `greedy`, over the whole pool: P K^2 floats, 2 P K d + 6 P K^2 operations a label.
    Source: arXiv 2503.01076. There the margins come from the labels collected so far; here from the pool's scores.
    """
    problem = whole_problem(pool, crit, budget, prior, seed)
    check_pair_by_pair(problem, "adpo")
    closed = problem.decided.closed
    return chosen(problem, greedy_allocation(problem.pool, LogDet(), problem.limits, problem.prior, closed))
