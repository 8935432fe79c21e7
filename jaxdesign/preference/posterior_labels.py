"""Soft labels: what a belief about the reward says of every pair of a pool, to train a policy on all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign._pairs import jitted_first_copies
from jaxdesign._scoring import scored_pool
from jaxdesign.belief import as_belief
from jaxdesign.budget.budget import Budget
from jaxdesign.exact.random_pairs import random_pairs
from jaxdesign.pool import CompletionPool, bare_pool
from jaxdesign.preference.log_linear import log_policy


class SoftLabels(NamedTuple):
    """Pairs, each once and in order, and how likely the first completion of each is the better one.

    Args:
        pairs: (n, 3) int32 rows (p, i, j), i < j.
        probabilities: (n,) float64, sigma(z . m).
    """

    pairs: Int[np.ndarray, "n 3"]
    probabilities: Float[np.ndarray, " n"]


def soft_labels(pool: CompletionPool, belief: Any, *, number: int | None = None, seed: int = 0) -> SoftLabels:
    """p = sigma(z . m) of all pairs of a pool, or of some drawn at random, m the mean of the belief.

    Labels of the reward at the posterior mode, as a labeller without noise of his own would give infinitely many of:
    the policy that fits them all is the one that the mode leads to (`posterior_policy`), so that the design's few
    labels are spread over all that the features relate them to. `soft_label_dpo_loss` takes them. Completions with
    identical features count once.

    Args:
        pool: the features of the belief; its scores and flips are not used.
        belief: a `Belief` or what holds one: `fit_posterior(pool, labels, prior)`.
        number: pairs drawn, without replacement; None, or more than there are: all.
        seed: of the drawing.

    Returns:
        SoftLabels.

    Raises:
        ValueError: a belief about another number of parameters, number below 1.

    Complexity: 12 bytes for each pair; P K d operations.
    Source: derived; checked by tests/preference/test_posterior_labels.py.
    """
    belief = as_belief(belief, pool.dim)
    pool = _arrays.in_one_place(pool)
    copies = np.asarray(jitted_first_copies(pool.features, pool.mask))
    distinct = copies == np.arange(pool.completions)
    count = distinct.sum(axis=1)
    total = int((count * (count - 1) // 2).sum())
    drawn = total if number is None else min(_checks.whole_number(number, "number", 1), total)
    pairs = random_pairs(bare_pool(pool.features, distinct), Budget(drawn, per_pair=1), seed).pairs
    scores = np.asarray(scored_pool(pool, belief.mean).scores, np.float64)
    p, i, j = pairs.T
    return SoftLabels(pairs, np.exp(-np.logaddexp(0, scores[p, j] - scores[p, i])))


def posterior_policy(
    pool: CompletionPool, belief: Any, beta: float, reference: Float[AnyArray, "p k"] | None = None
) -> Float[AnyArray, "p k"]:
    """Training on the soft labels of all pairs in closed form: log pi, pi prop. to pi_ref exp(phi . m / beta).

    For policies that are log-linear in the features of the belief the loss of DPO on `soft_labels`, whichever pairs
    they are of as long as these span the features, is least where every margin is z . m.

    Args:
        pool: completions, with the features of the belief.
        belief: a `Belief` or what holds one.
        beta: strength of the KL term, above 0.
        reference: log pi_ref up to a constant per prompt, (P, K); None: the same for all completions.

    Returns:
        (P, K) log-probabilities, nats, -inf where no completion exists; float64.

    Raises:
        ValueError: beta not positive, a belief about another number of parameters, reference of another shape.

    Source: arXiv 2305.18290, equation 4; derived; checked by tests/preference/test_posterior_labels.py.
    """
    beta = _checks.positive_finite(beta, "beta", "the strength of the policy's KL term")
    belief = as_belief(belief, pool.dim)
    with _arrays.float64():
        return np.asarray(log_policy(pool, np.asarray(belief.mean) / beta, reference))
