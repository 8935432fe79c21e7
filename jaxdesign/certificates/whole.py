"""Lower bounds that count whole labels, for budgets of fewer labels than dimensions.

A real-valued allocation spreads fractions of labels over all d directions. m whole labels lie on at most k <= m
different pairs, and leave d - k directions with the prior P alone; where k < d that is nearly all there is to say.

Let A = P + X, X = sum_e n_e c_e z_e z_e^T with whole n_e, and let B be any positive definite matrix with B >= P
(P itself is one). Both criteria fall as A grows, so that A may be replaced by B + X. With B = R^-1 R^-T and leverages
l_e = c_e z_e^T B^-1 z_e: R (B + X) R^T = I + M, M positive semidefinite of rank at most k and trace sum_e n_e l_e.

LogDet.  log det(I + M) = log det(I + Gram matrix of the rows sqrt(n_e c_e) R z_e) <= sum_e log(1 + n_e l_e), the
product of the diagonal (Hadamard). Hence

    -log det A >= -log det B - max_n sum_e log(1 + n_e l_e).

For one label a pair, B = P, these are the largest log(1 + l_e). A second label of a pair adds
log(1 + 2 l) - log(1 + l) < log 2, and so on: the terms are concave in n_e (`certificates.label_sums`).
`certificates.lifted_prior` looks for the B that makes the bound largest.

Trace.  Let h_1 >= ... >= h_d be the eigenvalues of R H R^T. Of those of (I + M)^-1 at least d - k are 1, the others
1 / (1 + lambda_i) with lambda_i >= 0, sum_i lambda_i <= L = max_n sum_e n_e l_e. The trace of a product is at least the
sum of products of eigenvalues in opposite order (von Neumann), so that

    tr(H A^-1) >= sum_{i>k} h_i + min { sum_{i<=k} h_i / (1 + lambda_i) : lambda >= 0, sum lambda <= L }.

The minimum is, by Lagrange duality, at least sum_{i<=k} psi_v(h_i) - v L for any v >= 0, where
psi_v(h) = min over lambda >= 0 of h / (1 + lambda) + v lambda, which is h for h <= v and 2 sqrt(h v) - v else. The
best v gives it exactly; it is at least (sum_{i<=k} sqrt(h_i))^2 / (k + L) (Cauchy), what one gets without lambda >= 0.

What budgets add:
  repeats             n_e labels of a pair count as above; k counts different pairs, and of prompt p no more than its
                      quota, its pairs, or its completions less one, whose differences span no more.
  required pairs      are part of P, and no part of the budget.
  tasks               of s labels each: n_e counts tasks, whose information is s c_e.
  caps, quotas        hold in the largest sums exactly.
  minima, groups, costs   are priced, or left out: a larger set of allocations (`label_sums.largest_sum`).
  flips, annotators   change c_e only; k does not know that annotators share pairs, which errs on the safe side.
  draws               LogDet: mean_r log(1 + n l_re) <= log(1 + n mean_r l_re), so that mean leverages do. Trace: the
                      same v for all draws, and L of mean leverages.
  a worst case        is at least the trace of any mixture of its targets.

The largest sums take one pass over the pool at G = B^-1, as for any certificate: log(1 + l) rises with l, so that pairs
that are not listed are worth at most log(1 + floor).

Rounding. R is what the factorisation gave, and B is DEFINED as its R^-1 R^-T. That B >= P / (1 + excess) is measured:
excess is the largest eigenvalue of R P R^T, with the running error of the two products and of the eigenvalues, less 1.
(1 + excess) B is then at least P. Leverages are raised by a bound on the relative error of z^T G z,
(2 d + 8) eps (sum_k |z_k| sqrt(G_kk))^2 / z^T G z <= (2 d + 8) d eps / (smallest eigenvalue of G at unit diagonal).
Eigenvalues h are lowered by the running error of R H R^T. Where these errors are not small, there is no such bound.

Source: derived (from Hadamard's determinant inequality and von Neumann's trace inequality); checked by
tests/certificates/test_whole_bound.py and test_whole_bound_formulas.py beside it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays
from jaxdesign._linalg import cholesky_and_inverse
from jaxdesign.analysis import analyse, sound
from jaxdesign.budget.limits import Limits, capacity
from jaxdesign.certificates.label_sums import largest_sum, log_increments
from jaxdesign.certificates.lifted_prior import lifted, no_lift
from jaxdesign.certificates.separable import certify, cold_level
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.protocol import Gains
from jaxdesign.pricing.listed import listed_rows
from jaxdesign.problem import Problem

ROUNDS = 5  # of lifting the prior, with a pass over the pool each
SHARE = 0.05  # of what a lift promised that may be missing in the end
LARGEST_ERROR = 0.1  # relative; beyond it there is no bound
EPS = float(np.finfo(np.float64).eps)


class Listing(NamedTuple):
    """The pool's largest leverages at some B >= P."""

    roots: Float[np.ndarray, "r d d"]  # R of the module's text
    log_det: float  # mean over draws of log det (1 + excess) B
    pairs: Int[np.ndarray, "s 3"]
    leverages: Float[np.ndarray, " s"]  # of a task, averaged over draws, rounding counted
    floor: float  # no other pair has more


def whole_bound(problem: Problem, limits: Limits, size: int = 1) -> float:
    """The largest lower bound on the criterion of whole labels that is found here; -inf where there is none.

    Args:
        problem: of the labels left to choose.
        limits: its limits in tasks of `size` labels, whole caps and quotas.
        size: labels of a task.

    Returns:
        -inf for one task a dimension or more, where the bound on fractions of labels has been the better one (0.72
        against 0.67 at one a dimension, 0.84 against 0.35 at most at 1.25, LogDet on a Gaussian pool with d = 32), a
        prior that is singular or nearly so, or a criterion of the user's.

    Numerics: float64 but for the passes over the pool, rounding counted.
    Complexity: a handful of passes over the pool for Trace, up to ROUNDS more for LogDet.
    """
    criterion = problem.criterion.for_whole_labels()
    if limits.total >= problem.dim or criterion.gains is Gains.FIRST_ORDER:
        return -np.inf
    start = _listing(problem, limits, size, problem.prior)
    if start is None:
        return -np.inf
    if criterion.gains is Gains.TRACE:
        return _trace_bound(problem, limits, start, np.asarray(criterion.target, np.float64))
    # bounds below are of -log det in the problem's units; the criterion's values are in those given
    offset = float(getattr(criterion, "offset", 0.0))
    return _lifted_bound(problem, limits, size, start) + offset - 8 * EPS * abs(offset)


def bound_in_words(dim: int, tasks: float, whole: bool) -> str:
    """A sentence that says what the lower bound counts, for so many whole tasks (labels, where tasks have one)."""
    if not whole:
        return "The bound counts fractions of labels: it holds for real-valued allocations too."
    return (
        f"Below one label a dimension the bound counts whole labels: on at most {tasks:.0f} pairs they leave at least "
        f"{dim - tasks:.0f} of {dim} dimensions with what was known before."
    )


def _listing(problem: Problem, limits: Limits, size: int, matrix) -> Listing | None:
    """Price the pool at B. One label a pair decides what is listed: further labels of a pair are worth less."""
    per_prompt = np.where(limits.per_pair >= 1, limits.per_prompt, 0.0)
    once = Limits(limits.total, np.ones(len(per_prompt)), per_prompt)
    probe = replace(problem, criterion=LogDet(), limits=once)
    analysis = analyse(probe, matrix)
    if not sound(probe, matrix, analysis):
        return None
    with _arrays.float64():
        roots = np.asarray(cholesky_and_inverse(matrix)[1])
    excess, error = _excess(roots, problem.prior), _leverage_error(roots)
    if not excess + error <= LARGEST_ERROR:
        return None
    enough = capacity(once, problem.pair_counts) >= limits.total
    priced = certify(probe, matrix, analysis, cold_level(probe, analysis) if enough else 0.0)
    diagonal = np.log(np.diagonal(roots, axis1=-2, axis2=-1))
    log_det = float(np.mean(-2 * diagonal.sum(axis=-1))) + problem.dim * np.log1p(excess)
    log_det += 4 * problem.dim * EPS * float(np.abs(diagonal).sum(axis=-1).max())
    scale = size * (1 + error)
    return Listing(roots, log_det, priced.pairs, scale * priced.sensitivities, scale * max(priced.floor, 0.0))


def _excess(roots, prior) -> float:
    """Largest eigenvalue of R P R^T less 1, at least 0: see "Rounding" above."""
    return max(float(_eigenvalues(roots, prior, 1.0).max()) - 1, 0.0)


def _eigenvalues(roots, matrix, side: float) -> Float[np.ndarray, "r d"]:
    """Bounds above (side 1) or below (side -1) the eigenvalues of R matrix R^T, rising, of each draw."""
    dim, across = roots.shape[-1], np.abs(roots).swapaxes(-1, -2)
    product = roots @ matrix @ roots.swapaxes(-1, -2)
    error = (2 * dim + 8) * EPS * np.linalg.norm(np.abs(roots) @ np.abs(matrix) @ across, axis=(-2, -1))
    product = (product + product.swapaxes(-1, -2)) / 2
    error += 8 * dim * EPS * np.linalg.norm(product, axis=(-2, -1))
    return np.linalg.eigvalsh(product) + side * error[:, None]


def _leverage_error(roots) -> float:
    """Bound on the relative error of leverages: see "Rounding" above."""
    dim = roots.shape[-1]
    unit = roots / np.linalg.norm(roots, axis=-2, keepdims=True)  # columns: G at unit diagonal
    least = float(np.linalg.eigvalsh(unit.swapaxes(-1, -2) @ unit).min()) - 8 * dim * dim * EPS
    return (2 * dim + 8) * dim * EPS / least if least > 0 else np.inf


def _log_det_bound(problem: Problem, limits: Limits, found: Listing) -> float:
    caps = np.minimum(limits.per_pair[found.pairs[:, 0]], limits.total)
    rows = log_increments(caps, found.leverages, found.floor)
    once = limits._replace(per_pair=np.minimum(limits.per_pair, 1))
    counts = np.where(problem.pair_counts > 0, limits.total, 0.0)
    sums = largest_sum(once, counts, found.pairs[rows.of], rows.worth, float(np.log1p(found.floor)))
    return -found.log_det - sums.value


def _lifted_bound(problem: Problem, limits: Limits, size: int, start: Listing) -> float:
    """The best of the bounds at P and at lifted priors; pairs that a pass finds join those that the next lift sees."""
    first = best = _log_det_bound(problem, limits, start)
    pairs, leverages = start.pairs, start.leverages
    lift, keep = no_lift(*start.roots.shape[:2]), int(20 * limits.total) + 2000
    for _ in range(ROUNDS):
        if not len(pairs):
            break
        pairs = pairs[np.sort(np.argsort(-leverages, kind="stable")[:keep])]
        rows, c = _whitened(problem, pairs, start.roots)
        lift, value = lifted(limits, pairs, rows, size * c, lift)
        promised = -start.log_det - value
        found = _listing(problem, limits, size, lift.matrix(start.roots))
        if found is None:
            break
        reached = _log_det_bound(problem, limits, found)
        best = max(best, reached)
        if promised - reached <= SHARE * max(promised - first, 0.0):
            break
        pairs = np.unique(np.concatenate([pairs, found.pairs]), axis=0)
        leverages = lift.leverages(*_whitened(problem, pairs, start.roots))
    return best


def _whitened(problem: Problem, pairs, roots) -> tuple[Float[np.ndarray, "r s d"], Float[np.ndarray, "r s"]]:
    """R z and label information of some pairs, per draw."""
    z, c = listed_rows(problem.source, pairs)
    return z @ roots.swapaxes(-1, -2), np.broadcast_to(c, (len(roots), len(pairs)))


def _trace_bound(problem: Problem, limits: Limits, found: Listing, H) -> float:
    excess = _excess(found.roots, problem.prior)
    h = _eigenvalues(found.roots, H, -1.0)
    h = h - excess * np.abs(h)
    sums = largest_sum(limits, problem.pair_counts, found.pairs, found.leverages, found.floor)
    different = min(_different_pairs(problem, limits), problem.dim)
    split = problem.dim - different
    value = float(np.mean(h[:, :split].sum(axis=1))) + _least_trace(h[:, split:], sums.value)
    return value - 1e-12 * abs(value)


def _different_pairs(problem: Problem, limits: Limits) -> int:
    """At most so many different pairs with independent differences can have labels: k of the module's text."""
    spans = problem.exists.sum(axis=1) - 1
    spans = np.minimum(np.minimum(spans, problem.pair_counts), np.floor(limits.per_prompt))
    spans = np.where(limits.per_pair >= 1, np.maximum(spans, 0), 0)
    return int(min(limits.total, spans.sum()))


def _least_trace(h: Float[np.ndarray, "r k"], budget: float) -> float:
    """min of mean_r sum_i h_ri / (1 + lambda_ri) over lambda >= 0, mean_r sum_i lambda_ri <= budget, by its dual."""
    draws = len(h)
    h = np.sort(h.ravel())[::-1]
    positive = h[h > 0]
    if not len(positive):
        return float(h.sum()) / draws
    roots = np.cumsum(np.sqrt(positive)) / (draws * budget + np.arange(1, len(positive) + 1))  # sqrt(v), first j raised
    v = roots[max(int(np.sum(np.sqrt(positive) > roots)) - 1, 0)] ** 2
    raised = h > v
    kept = h[~raised].sum() + (2 * np.sqrt(h[raised] * v) - v).sum()
    return float(kept) / draws - v * budget
