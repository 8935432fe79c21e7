"""Selectors that look at no features: random pairs, those of different texts, the first two of each prompt."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxdesign.baselines._common import by_place, chosen, every_pair, rank_in_prompt, source_problem, whole_problem
from jaxdesign.budget.budget import Budget
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Design
from jaxdesign.exact.random_pairs import random_candidates, random_pairs
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.source import Source


def random(
    pool: CompletionPool | Source, crit: CriterionLike, budget: Budget, *, prior: Any = None, seed: int = 0
) -> Design:
    """Pairs drawn evenly from all pairs of existing completions, without replacement while they last.

    Ignores features, scores and prior. Pairs of identical completions are drawn like others: see
    `exact.random_pairs.random_pairs`, which does the drawing.

    Args:
        pool, crit, budget, prior: as `select_pairs`, `pricing.Source`s too; the criterion and the prior only judge the
            result.
        seed: of NumPy's default generator, at least 0.

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        TypeError, ValueError: as `optimize`; a total that is not whole, a seed that is no integer or negative.

    Numerics: the certificate in float64, as `evaluate`.
    Complexity: O(N log N) time and 40 bytes for each of the N pairs up to 2^24, beyond of those drawn.
    Source: the control arm of every study; arXiv 2606.19607 calls it "uniform pairs".
    """
    problem = source_problem(pool, crit, budget, prior, seed)
    return chosen(problem, random_pairs(pool, budget, seed))


def random_distinct(
    pool: CompletionPool | Source, crit: CriterionLike, budget: Budget, *, prior: Any = None, seed: int = 0
) -> Design:
    """Pairs drawn evenly from all pairs of completions that differ, without replacement while they last.

    What a team without a design does once equal completions are dropped, and so the fair comparison: `random` spends
    labels on pairs that nobody can tell apart. Features say which completions are equal; ignores them otherwise, and
    scores and prior.

    Args:
        pool, crit, budget, prior: as `select_pairs`, `pricing.Source`s too; the criterion and the prior only judge the
            result.
        seed: of NumPy's default generator, at least 0.

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        TypeError, ValueError: as `optimize`; a total that is not whole, a seed that is no integer or negative.

    Numerics: the certificate in float64, as `evaluate`.
    Complexity: 40 bytes for each of the pairs drawn, a few times as many as labels; pairs are not listed unless labels
    are as many as a sixteenth of them.
    Source: what `forecast` averages over; the control arm of bench/experiments.
    """
    problem = source_problem(pool, crit, budget, prior, seed)
    return chosen(problem, random_candidates(problem, seed))


def first_two(pool: CompletionPool, crit: CriterionLike, budget: Budget, *, prior: Any = None, seed: int = 0) -> Design:
    """The first two completions of each prompt, prompts in random order; then each prompt's next pair, and so on.

    The pairs of a prompt come in the order (i, j) in which the pool lists them, pairs of identical completions left
    out; every prompt has its k-th pair before any has its (k + 1)-th, as far as caps and quotas allow. Since
    completions are sampled in no order, up to one label a prompt this is one random pair of each of some random
    prompts. Ignores features, scores and prior.

    Args:
        pool, crit, budget, prior: as `select_pairs`; the criterion and the prior only judge the result.
        seed: for the order of the prompts (NumPy's default generator), at least 0.

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        TypeError, ValueError: as `optimize`; a total that is not whole, a seed that is no integer or negative.

    Numerics: the certificate in float64, as `evaluate`.
    Complexity: O(N log N) time for N pairs.
    Source: arXiv 2606.19607 compares its response selection with "first two".
    """
    problem = whole_problem(pool, crit, budget, prior, seed)
    pairs = every_pair(problem)
    turn = np.argsort(np.random.default_rng(seed).permutation(pool.num_prompts))
    rank = rank_in_prompt(pairs, np.arange(len(pairs)))
    return by_place(problem, pairs, rank * pool.num_prompts + turn[pairs[:, 0]])
