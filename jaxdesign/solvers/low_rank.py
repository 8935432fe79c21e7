"""Designs for many dimensions found in a few: the leading eigenspace of the information beside the prior.

Let P be the prior, M(n) the information of the labels in coordinates that whiten it (L L^T = P, M = L^-1 (A - P) L^-T),
V an orthonormal basis of the r leading eigenvectors of M at the even allocation and W of the others. For every n

    log det(I + M) <= log det(I + V^T M V) + log det(I + W^T M W)                        (Fischer)
                   <= log det(I + V^T M V) + (d - r) log(1 + S / (d - r)),   S = max_n tr(W^T M(n) W)

and the first term is the log det of the r-dimensional problem with features phi L^-T V and prior I. So the best log det
of d dimensions is at most the bound of r dimensions plus the second term, the loss, which one pass over the pool gives
before anything is solved: S is a linear oracle with G = L^-T W W^T L^-1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks
from jaxdesign.analysis import Analysis
from jaxdesign.basis import in_basis
from jaxdesign.budget.budget import Budget
from jaxdesign.certificates.evaluate import evaluate
from jaxdesign.certificates.separable import certify, cold_level
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.protocol import ConvexCriterion, CriterionLike, Gains
from jaxdesign.criteria.trace import Trace
from jaxdesign.design import Design
from jaxdesign.door import make_problem
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.believed import believed
from jaxdesign.pricing.passes import in_pricing_units
from jaxdesign.problem import Problem
from jaxdesign.solvers.optimize import optimize


class Subspace(NamedTuple):
    """Leading directions of a problem, and what the others can add to log det at most."""

    basis: Float[np.ndarray, "d r"]  # L^-T V, for features as they were given
    loss: float  # (d - r) log(1 + S / (d - r))


def low_rank_design(
    pool: CompletionPool,
    crit: CriterionLike,
    budget: Budget,
    rank: int,
    *,
    prior: Any,
    tol: float = 1e-3,
    max_passes: int | None = None,
) -> Design:
    """A design optimised in the leading `rank` dimensions and certified in all of them.

    A restricted problem of r dimensions costs (d / r)^2 to (d / r)^3 times less than one of d. The certificate is that
    of the whole problem, as `evaluate` gives it, so what the other dimensions cost is part of its gap. Passed to
    `optimize` as `start`, the design is carried on in all dimensions.

    Args:
        pool: the completions.
        crit: `LogDet()` or `Trace(H)`.
        budget: as for `optimize`.
        rank: r, from 1 to d.
        prior: information already held, (d, d) or a scalar ridge, positive definite: it is what the directions left
            out keep.
        tol: relative gap of the r-dimensional problem.
        max_passes: as for `optimize`, of the r-dimensional problem.

    Returns:
        Design with the certificate of `evaluate`. `report["subspace"]` has the rank, for LogDet the `loss`: a bound on
        the log det that the directions left out can add, known before solving; and the `lower_bound` on the best value
        that follows, up to the rounding of the projected features.

    Raises:
        TypeError: another criterion.
        ValueError: rank out of range, a prior that is singular or differs between draws, and what `optimize` raises.

    Numerics: coordinates in float64, projected features as in `restrict_to_range`.

    Source: Fischer's inequality (Horn and Johnson 2013, Matrix Analysis, theorem 7.8.5), the rest derived; checked by
    tests/solvers/test_low_rank.py.
    """
    pool, prior = believed(pool, prior)
    problem = make_problem(pool, crit, budget, prior)
    rank = _checks.whole_number(rank, "rank", 1)
    if rank > problem.dim:
        raise ValueError(f"rank={rank}: more than the {problem.dim} dimensions of the features")
    check_known(problem.criterion)
    subspace = leading_subspace(problem, rank)
    reduced = restricted_criterion(problem.criterion, crit, subspace.basis)
    restricted = in_basis(pool, subspace.basis)  # which whitens the prior
    found = optimize(restricted, reduced, budget, prior=1.0, tol=tol, max_passes=max_passes)
    design = evaluate(pool, crit, budget, found.pairs, found.labels, prior)
    report = {"rank": rank}
    if problem.criterion.gains is Gains.LOG_DET:
        sign_and_log = np.linalg.slogdet(problem.given_units(problem.prior[0]))
        bound = found.certificate.lower_bound - subspace.loss - float(sign_and_log[1])
        report |= {"loss": subspace.loss, "lower_bound": bound}
    return replace(design, passes=found.passes + 2, report=design.report | {"subspace": report})


def leading_subspace(problem: Problem, rank: int) -> Subspace:
    """The leading eigenspace of the even information beside the prior, and the loss that goes with it."""
    if np.ptp(problem.prior, axis=0).any():
        raise ValueError("prior: differs between draws; a subspace needs one prior for all of them")
    try:
        factor = np.linalg.cholesky(problem.prior[0])
    except np.linalg.LinAlgError:
        raise ValueError(
            "prior: singular; directions that are left out keep only the prior, so pass a positive definite one, "
            "for instance a ridge"
        ) from None
    whitening = np.linalg.inv(factor).T
    even = whitening.T @ (problem.even.mean(axis=0) - problem.prior[0]) @ whitening
    vectors = whitening @ np.linalg.eigh((even + even.T) / 2)[1][:, ::-1]
    kept, others = vectors[:, :rank], vectors[:, rank:]
    units = np.ldexp(1.0, problem.exponents)[:, None]
    left = problem.dim - rank
    loss = left * np.log1p(most_information(problem, others) / left) if left else 0.0
    return Subspace(units * kept, float(loss))


def most_information(problem: Problem, directions: Float[np.ndarray, "d q"]) -> float:
    """max_n tr(F^T M(n) F): an upper bound on the information that allowed labels can give about directions F."""
    square = np.pad(directions, ((0, 0), (0, problem.dim - directions.shape[1])))  # as passes take factors
    factors = np.broadcast_to(square, problem.prior.shape)
    G = factors @ factors.swapaxes(1, 2)
    analysis = Analysis(0.0, 0.0, 0.0, G, factors, *in_pricing_units(factors, problem.source.dtype))
    return certify(problem, problem.prior, analysis, cold_level(problem, analysis)).oracle.value


def restricted_criterion(criterion: ConvexCriterion, given: Any, basis: Float[np.ndarray, "d r"]) -> ConvexCriterion:
    """The criterion, of the kind of `given`, in the coordinates that are kept."""
    if criterion.gains is Gains.LOG_DET:
        return LogDet()
    return Trace(basis.T @ np.asarray(given.target, np.float64) @ basis)


def check_known(criterion: ConvexCriterion) -> None:
    """TypeError for a criterion of which nothing is known about a part of its coordinates."""
    if criterion.gains is Gains.FIRST_ORDER:
        raise TypeError(f"crit: expected LogDet() or Trace(H), found {criterion!r}")
