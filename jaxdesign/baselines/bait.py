"""BAIT: forward-backward greedy selection for tr(H A^-1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks
from jaxdesign._arrays import AnyArray
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import information
from jaxdesign.baselines._common import TIE, check_pair_by_pair, chosen, information_of_all, whole_problem
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.limits import capacity
from jaxdesign.criteria.protocol import CriterionLike, Gains
from jaxdesign.criteria.trace import Trace
from jaxdesign.design import Design
from jaxdesign.exact.greedy.greedy import LIFT, myopic_allocation
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.listed import listed_rows
from jaxdesign.problem import Problem
from jaxdesign.units import rescaled

REFRESH = 64  # removals between computations from scratch


def bait(
    pool: CompletionPool,
    crit: CriterionLike,
    budget: Budget,
    *,
    prior: Any = None,
    seed: int = 0,
    target: Float[AnyArray, "d d"] | None = None,
) -> Design:
    """BAIT: greedily choose twice the labels for tr(H A^-1), then take the least useful half away again.

    Forward: the label with the largest gain b / (1 + a), until there are 2 B (fewer where caps and quotas hold no
    more). Backward: the label with the smallest loss b / (1 - a), until B are left. Here a = c z^T A^-1 z,
    b = c z^T A^-1 H A^-1 z, means over draws; A starts at the prior, lifted by a small multiple of I where it is
    (nearly) singular, as the published rule starts at lambda I. Where the budget allows repeats it may label a pair
    again; pass per_pair=1 for the published rule. Ignores the criterion unless that is `Trace`.

    Args:
        pool, crit, budget, prior: as `select_pairs`.
        seed: accepted like everywhere; nothing is drawn.
        target: H, (d, d). None: that of a `Trace` criterion, and for others the published target, the information of
            all pairs of the pool together, sum_e c_e z_e z_e^T (its mean over draws).

    Returns:
        Design with status EVALUATED: whole labels and their certificate, value inf and efficiency 0 where singular.

    Raises:
        TypeError, ValueError: as `optimize`; a total that is not whole, a seed that is no integer or negative; a target
            of the wrong shape or indefinite.

    Numerics: forward that of `greedy`, by gains at A itself; backward in float64, losses within 1e-9 of the smallest,
    relative, are ties of which the last (prompt, i, j) goes. Refactorised every 64 removals.
    Complexity: forward that of `greedy` for 2 B labels; backward 8 B d operations for each of B removals (and draw).
    Source: arXiv 2106.09675; the removal loss is its trace objective after a rank-one downdate.
    """
    problem = whole_problem(pool, crit, budget, prior, seed)
    check_pair_by_pair(problem, "bait")
    H = _target(problem, target)
    wide = problem.limits._replace(total=min(2 * problem.limits.total, capacity(problem.limits, problem.pair_counts)))
    once = myopic_allocation(problem.pool, Trace(H), wide, problem.prior, problem.decided.closed)
    pairs, labels = once
    start = information(problem, once) + _lift(problem, wide.total)
    z, c = listed_rows(problem.source, pairs)
    return chosen(problem, Allocation(pairs, backward(start, H, z, c, labels, int(problem.limits.total))))


def _target(problem: Problem, target: Any) -> Float[np.ndarray, "d d"]:
    if target is not None:
        return rescaled(_checks.symmetric_psd(target, problem.dim, "target"), problem.exponents)
    H = problem.criterion.target if problem.criterion.gains is Gains.TRACE else information_of_all(problem)
    return H if H.ndim == 2 else H.mean(axis=0)


def _lift(problem: Problem, labels: float) -> Float[np.ndarray, "r d d"]:
    """The multiple of I that `greedy` adds to the prior before it chooses so many labels."""
    everything = np.trace(information_of_all(problem), axis1=1, axis2=2)
    least = LIFT * labels * everything / (problem.pair_counts.sum() * problem.dim)
    lift = np.where(np.linalg.eigvalsh(problem.prior)[:, 0] < least, least, 0)
    return lift[:, None, None] * np.eye(problem.dim)


def backward(
    matrix: Float[np.ndarray, "r d d"],
    H: Float[np.ndarray, "d d"],
    z: Float[np.ndarray, "s d"],
    c: Float[np.ndarray, "r s"],
    labels: Float[np.ndarray, " s"],
    total: int,
) -> Float[np.ndarray, " s"]:
    """Labels left after taking away, one by one, the label whose loss b / (1 - a) is smallest, until `total` are left.

    With v = A^-1 z, s = c / (1 - a), M = A^-1 H A^-1, w = M z, t = z^T M z of the label that goes:

        A^-1 += s v v^T      M += s (v w^T + w v^T + s t v v^T)

    Args:
        matrix: A with all the labels, per draw, regular. H: the target. z, c: differences and label information.
        labels: (S,) whole numbers. total: at most their sum.
    """
    labels, matrix = labels.copy(), matrix.copy()
    removals = int(labels.sum()) - total
    for done in range(0, removals, REFRESH):
        kept = np.flatnonzero(labels > 0)
        rows, info = z[kept], c[:, kept]
        inverse = np.linalg.inv(matrix)
        inverse = (inverse + inverse.swapaxes(1, 2)) / 2
        middle = inverse @ H @ inverse
        a, b = (info * np.sum((rows @ form) * rows, axis=-1) for form in (inverse, middle))
        for _ in range(min(REFRESH, removals - done)):
            loss = np.mean(b / np.maximum(1 - a, np.finfo(np.float64).eps), axis=0)
            loss[labels[kept] == 0] = np.inf
            goes = int(np.flatnonzero(loss <= loss.min() + TIE * abs(loss.min()))[-1])
            labels[kept[goes]] -= 1
            u, held = rows[goes], info[:, goes]
            v, w = inverse @ u, middle @ u
            s = held / np.maximum(1 - a[:, goes], np.finfo(np.float64).eps)
            st = s * (w @ u)
            # one product: memory is what this loop waits for
            y, x = np.split(rows @ np.concatenate([v, w]).T, 2, axis=1)
            y, x = y.T, x.T
            a = a + s[:, None] * info * y * y
            b = b + s[:, None] * info * y * (2 * x + st[:, None] * y)
            cross = v[:, :, None] * w[:, None, :]
            change = cross + cross.swapaxes(1, 2) + st[:, None, None] * v[:, :, None] * v[:, None, :]
            inverse = inverse + s[:, None, None] * v[:, :, None] * v[:, None, :]
            middle = middle + s[:, None, None] * change
            matrix = matrix - held[:, None, None] * np.outer(u, u)
    return labels
