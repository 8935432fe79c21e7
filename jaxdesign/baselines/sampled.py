"""Selectors that draw pairs at random, without replacement: the square-root rule and T-PILAF, with their laws.

Both need the policy pi over the completions of each prompt. A pool holds implicit rewards u = beta log(pi / pi_ref) of
completions sampled from pi_ref, so the policy's share of each is its importance weight, pi = softmax(u / beta) over the
prompt's existing completions; equal shares without scores (then pi is pi_ref, which sampled them).
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign._pairs import Allocation, candidate_pairs, first_copies
from jaxdesign.baselines._common import chosen, every_pair, whole_problem, without_scores
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.limits import Limits
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Design
from jaxdesign.exact.by_score import largest_scores
from jaxdesign.pool import CompletionPool


def square_root_law(
    pool: CompletionPool, *, log_weights: Float[AnyArray, "p k"] | None = None, beta: float = 1.0
) -> Float[np.ndarray, "p k k"]:
    """Square-root rule: probability of a pair proportional to sqrt(pi_i pi_j), normalised jointly over all prompts.

    A good free start for tr(H A^-1) where every completion has a parameter of its own and margins are small: it covers
    the tail of the policy, which pi_i pi_j starves.

    Args:
        pool: the pool.
        log_weights: (P, K) log pi up to a constant per prompt, as in `policy_target`; None: scores / beta.
        beta: strength of the KL penalty that the scores were computed with; without it pi cannot be told from them.

    Returns:
        (P, K, K) float64, symmetric, summing to 1 over pairs i < j; 0 on the diagonal, for masked completions and for
        pairs with identical features. With draws the mean of the laws of each draw.

    Raises:
        ValueError: beta not positive and finite, log_weights of another shape or not finite at an existing completion.

    Complexity: O(P K^2) for each draw.
    Source: derived for tabular policies, for the criterion of arXiv 2606.19607 without label information; checked by
    tests/baselines/test_sampled.py.
    """
    return np.exp(log_law(pool, log_weights, beta, square_root_weight))


def t_pilaf_law(
    pool: CompletionPool, *, log_weights: Float[AnyArray, "p k"] | None = None, beta: float = 1.0
) -> Float[np.ndarray, "p k k"]:
    """T-PILAF: probability of a pair proportional to pi_i pi_j (2 + e^D + e^-D), D = u_pi - u_pj, over all prompts.

    As 1 / (2 + e^D + e^-D) is the label information c, the expected information of a label is
    sum_e law_e c_e z_e z_e^T = (1 / Z) sum_p Cov_pi[phi] = (P' / Z) H with H = policy_target(pool, log pi) and Z the
    normalising sum over all prompts: exactly proportional to H. Normalised prompt by prompt it would not be.

    Args:
        pool: the pool; D = 0 without scores.
        log_weights: (P, K) log pi up to a constant per prompt, as in `policy_target`; None: scores / beta.
        beta: strength of the KL penalty that the scores were computed with; without it pi cannot be told from them.

    Returns:
        (P, K, K) float64, symmetric, summing to 1 over pairs i < j; 0 on the diagonal, for masked completions and for
        pairs with identical features (they carry no information). With draws the mean of the laws of each draw, which
        is proportional to H draw by draw only.

    Raises:
        ValueError: beta not positive and finite, log_weights of another shape or not finite at an existing completion.

    Numerics: in logarithms, so that margins of hundreds do no harm.
    Complexity: O(P K^2) for each draw.
    Source: arXiv 2502.04270 (its theoretical sampler, written for pairs without order); proportionality derived and
    checked by tests/baselines/test_sampled.py.
    """
    return np.exp(log_law(pool, log_weights, beta, t_pilaf_weight))


def square_root_weight(log_policy: Float[np.ndarray, "p k"], scores: Float[np.ndarray, "p k"]):
    """log sqrt(pi_i pi_j), (P, K, K)."""
    return (log_policy[:, :, None] + log_policy[:, None, :]) / 2


def t_pilaf_weight(log_policy: Float[np.ndarray, "p k"], scores: Float[np.ndarray, "p k"]):
    """log pi_i pi_j (2 + e^D + e^-D) = log pi_i pi_j (e^{D/2} + e^{-D/2})^2, (P, K, K)."""
    half = (scores[:, :, None] - scores[:, None, :]) / 2
    return log_policy[:, :, None] + log_policy[:, None, :] + 2 * np.logaddexp(half, -half)


def log_law(pool: CompletionPool, log_weights: Any, beta: float, log_weight) -> Float[np.ndarray, "p k k"]:
    """Log of the law with the given log weights, normalised over all prompts, averaged over draws; -inf at no pair."""
    pool = _arrays.replicated(pool)
    upper = np.asarray(_candidates(without_scores(pool)))
    if not upper.any():
        raise ValueError(
            "features: all completions of every prompt are identical, so no pair carries information (z = 0); use "
            "features that tell completions apart"
        )
    candidates = upper | upper.swapaxes(1, 2)
    scores = np.zeros((1, *upper.shape[:2])) if pool.scores is None else np.asarray(pool.scores).astype(np.float64)
    scores = scores.reshape(-1, *upper.shape[:2])
    beta = _checks.positive_finite(beta, "beta", "the strength of the KL penalty, u = beta log(pi / pi_ref)")
    logits = scores / beta if log_weights is None else _given(pool, log_weights)
    total = np.full(upper.shape, -np.inf)
    for policy, u in zip(log_policy(logits, np.asarray(pool.mask)), scores, strict=True):
        weight = np.where(candidates, log_weight(policy, u), -np.inf)
        shift = weight.max()
        total = np.logaddexp(total, weight - shift - np.log(np.exp(weight[upper] - shift).sum()))
    return total - np.log(len(scores))


@jax.jit
def _candidates(pool: CompletionPool) -> Bool[Array, "p k k"]:
    return candidate_pairs(first_copies(pool))


def log_policy(logits: Float[np.ndarray, "r p k"], mask: np.ndarray) -> Float[np.ndarray, "r p k"]:
    """Log softmax over the existing completions of each prompt; -inf elsewhere."""
    logits = np.where(mask, logits, -np.inf)
    top = logits.max(axis=-1, keepdims=True)
    shifted = logits - np.where(np.isfinite(top), top, 0)
    sums = np.exp(shifted).sum(axis=-1, keepdims=True)
    return shifted - np.log(np.where(sums > 0, sums, 1))


def _given(pool: CompletionPool, log_weights: Any) -> Float[np.ndarray, "1 p k"]:
    given = np.asarray(_checks.as_float_array(log_weights, "log_weights")).astype(np.float64)
    shape = (pool.num_prompts, pool.completions)
    _checks.same_shape(given.shape, shape, "log_weights", "(prompts, completions)")
    _checks.finite(given, "log_weights", np.asarray(pool.mask), ("prompt", "completion"))
    return np.broadcast_to(given, (pool.num_draws or 1, *shape))


def square_root(
    pool: CompletionPool,
    crit: CriterionLike,
    budget: Budget,
    *,
    prior: Any = None,
    seed: int = 0,
    log_weights: Float[AnyArray, "p k"] | None = None,
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
    return _drawn(problem, log_law(problem.gathered, log_weights, beta, square_root_weight), seed)


def t_pilaf(
    pool: CompletionPool,
    crit: CriterionLike,
    budget: Budget,
    *,
    prior: Any = None,
    seed: int = 0,
    log_weights: Float[AnyArray, "p k"] | None = None,
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
    return _drawn(problem, log_law(problem.gathered, log_weights, beta, t_pilaf_weight), seed)


def _drawn(problem, logs: Float[np.ndarray, "p k k"], seed: int) -> Design:
    pairs = every_pair(problem)
    rng = np.random.default_rng(seed)
    return chosen(problem, Allocation(pairs, draw_labels(problem.limits, pairs, logs[tuple(pairs.T)], rng)))


def draw_labels(
    limits: Limits, pairs: Int[np.ndarray, "n 3"], logs: Float[np.ndarray, " n"], rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """Whole labels on pairs drawn one after the other with probability proportional to exp(logs), in rounds."""
    return largest_scores(limits, pairs, lambda: logs + rng.gumbel(size=len(logs)))
