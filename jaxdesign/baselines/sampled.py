"""Selectors that draw pairs from a law without replacement: the square-root rule and T-PILAF."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxdesign.baselines._selection import chosen, every_pair, whole_problem
from jaxdesign.baselines.laws import log_law, square_root_weight, t_pilaf_weight
from jaxdesign.budget import Budget, Limits
from jaxdesign.criteria import CriterionLike
from jaxdesign.design import Design
from jaxdesign.exact.fill import in_rounds
from jaxdesign.pool import CompletionPool


def square_root(
    pool: CompletionPool,
    crit: CriterionLike,
    budget: Budget,
    *,
    prior: Any = None,
    seed: int = 0,
    log_weights: Float[np.ndarray, "p k"] | None = None,
    beta: float = 1.0,
) -> Design:
    """Pairs drawn without replacement with probability proportional to sqrt(pi_i pi_j): see `square_root_law`.

    pi = softmax(scores / beta) over the completions of each prompt, or softmax(log_weights); equal without either. A
    pair that would break a quota is passed over; where there are more labels than pairs, all get one and the rest are
    drawn again. Ignores features, label information and prior.

    Args:
        pool, crit, budget, prior: as `select_pairs`; the criterion and the prior only judge the result.
        seed: of NumPy's default generator, at least 0.
        log_weights: (P, K) log pi up to a constant per prompt, as in `policy_target`; None: scores / beta.
        beta: strength of the KL penalty that the scores were computed with.

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        TypeError, ValueError: as `optimize` and `square_root_law`; a total that is not whole, a seed that is no integer
            or negative.

    Numerics: float64.
    Complexity: O(R P K^2 + N log N) for N pairs and R draws.
    Source: see `square_root_law`; the drawing is the exponential race (Gumbel keys), that is one pair after the other
    with probabilities renormalised over those left.
    """
    problem = whole_problem(pool, crit, budget, prior, seed)
    return _drawn(problem, log_law(pool, log_weights, beta, square_root_weight), seed)


def t_pilaf(
    pool: CompletionPool,
    crit: CriterionLike,
    budget: Budget,
    *,
    prior: Any = None,
    seed: int = 0,
    log_weights: Float[np.ndarray, "p k"] | None = None,
    beta: float = 1.0,
) -> Design:
    """Pairs drawn without replacement with probability proportional to pi_i pi_j (2 + e^D + e^-D): see `t_pilaf_law`.

    pi = softmax(scores / beta) over the completions of each prompt, or softmax(log_weights), D = u_pi - u_pj; without
    scores pi is even and D = 0. A pair that would break a quota is passed over; where there are more labels than pairs,
    all get one and the rest are drawn again. Ignores features and prior. One label's expected information matches H,
    which is not what minimises tr(H A^-1), and drawing without replacement keeps to the law only while the labels are
    few against the pairs it favours.

    Args:
        pool, crit, budget, prior: as `select_pairs`; the criterion and the prior only judge the result.
        seed: of NumPy's default generator, at least 0.
        log_weights: (P, K) log pi up to a constant per prompt, as in `policy_target`; None: scores / beta.
        beta: strength of the KL penalty that the scores were computed with.

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        TypeError, ValueError: as `optimize` and `t_pilaf_law`; a total that is not whole, a seed that is no integer or
            negative.

    Numerics: float64.
    Complexity: O(R P K^2 + N log N) for N pairs and R draws.
    Source: arXiv 2502.04270; its sampler draws completions afresh, here pairs of a given pool are drawn.
    """
    problem = whole_problem(pool, crit, budget, prior, seed)
    return _drawn(problem, log_law(pool, log_weights, beta, t_pilaf_weight), seed)


def _drawn(problem, logs: Float[np.ndarray, "p k k"], seed: int) -> Design:
    pairs = every_pair(problem)
    rng = np.random.default_rng(seed)
    return chosen(problem, pairs, draw_labels(problem.limits, pairs, logs[tuple(pairs.T)], rng))


def draw_labels(
    limits: Limits, pairs: Int[np.ndarray, "n 3"], logs: Float[np.ndarray, " n"], rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """Whole labels on pairs drawn one after the other with probability proportional to exp(logs), in rounds."""
    return in_rounds(limits, pairs, lambda: logs + rng.gumbel(size=len(logs)))
