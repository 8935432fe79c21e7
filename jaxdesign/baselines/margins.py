"""Selectors that look at the scores alone: the largest score gaps, and the closest calls."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxdesign.baselines._common import by_place, every_pair, groups, rank_in_prompt, whole_problem
from jaxdesign.budget.budget import Budget
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Design
from jaxdesign.pool import CompletionPool


def largest_score_gap(
    pool: CompletionPool, crit: CriterionLike, budget: Budget, *, prior: Any = None, seed: int = 0
) -> Design:
    """Best against worst of each prompt, the widest gap first; then each prompt's next widest pair, and so on.

    A pair's gap is |u_pi - u_pj|, of the mean scores where there are draws. Every prompt has its k-th widest pair
    before any has its (k + 1)-th, as far as caps and quotas allow; pairs with identical features are left out. Ignores
    the features, and that a label whose outcome is certain tells little: its information sigma'(gap) is the smallest.

    Args:
        pool: with scores, or without and a `Belief` with a mean as prior, which gives them.
        crit, budget, prior: as `select_pairs`; the criterion and the prior only judge the result.
        seed: accepted like everywhere; nothing is drawn.

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        ValueError: a pool without scores.
        TypeError, ValueError: as `optimize`; a total that is not whole, a seed that is no integer or negative.

    Numerics: gaps in float64; gaps within 1e-9 of each other, relative, are ties and go to the first (prompt, i, j).
    Complexity: O(N log N) time for N pairs.
    Source: best-of-n against worst-of-n, the common recipe for synthetic pairs; arXiv 2402.08114 (APLP) takes the
    largest gap too, one pair a prompt, after choosing the prompts by entropy.
    """
    problem = whole_problem(pool, crit, budget, prior, seed)
    pairs = every_pair(problem)
    gaps = groups(np.abs(_margins(problem.gathered, pairs, "largest_score_gap")))
    rank = rank_in_prompt(pairs, np.argsort(gaps, kind="stable"))
    return by_place(problem, pairs, rank * len(pairs) + gaps)


def closest_call(
    pool: CompletionPool, crit: CriterionLike, budget: Budget, *, prior: Any = None, seed: int = 0
) -> Design:
    """The pairs with the smallest |u_pi - u_pj|: those whose outcome is most uncertain.

    Of the mean scores where there are draws; pairs with identical features are left out. Ignores the features: where
    scores are linear in them every such z is nearly orthogonal to the parameters, along which nothing is then learnt.
    At 4,000 labels of bench/experiments/log_linear.py the policy gap is about 40 times that of random pairs, although
    each label's own information sigma'(u) is the largest there is.

    Args:
        pool: with scores, or without and a `Belief` with a mean as prior, which gives them.
        crit, budget, prior: as `select_pairs`; the criterion and the prior only judge the result.
        seed: accepted like everywhere; nothing is drawn.

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        ValueError: a pool without scores.
        TypeError, ValueError: as `optimize`; a total that is not whole, a seed that is no integer or negative.

    Numerics: margins in float64; those within 1e-9 of each other, relative, are ties, the first (prompt, i, j) first.
    Complexity: O(N log N) time for N pairs.
    Source: uncertainty sampling; the predictive entropy of one Bradley-Terry label is largest at margin 0.
    """
    problem = whole_problem(pool, crit, budget, prior, seed)
    pairs = every_pair(problem)
    return by_place(problem, pairs, groups(-np.abs(_margins(problem.gathered, pairs, "closest_call"))))


def _margins(pool: CompletionPool, pairs: Int[np.ndarray, "n 3"], name: str) -> Float[np.ndarray, " n"]:
    if pool.scores is None:
        raise ValueError(
            f"pool.scores: None found; {name} ranks pairs by their margin and needs implicit rewards, (P, K) or "
            "(R, P, K); pass CompletionPool(features, scores=...)"
        )
    scores = np.asarray(pool.scores).astype(np.float64)
    scores = scores.mean(axis=0) if scores.ndim == 3 else scores
    p, i, j = pairs.T
    return scores[p, i] - scores[p, j]
