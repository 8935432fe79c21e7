"""The reference: the same design problem, word for word, handed to cvxpy. For small pools and for tests.

It materialises every candidate pair. The solver's own word is never returned: its solution is put exactly onto the
budget and certified by the package's float64 code.

Settings: at default tolerances conic solvers leave gaps that matter here, so tolerances are tight and the problem is
scaled to the identity; tests/test_reference.py checks the gap that is left.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays
from jaxdesign._pairs import Allocation, candidate_pairs, first_copies, pair_keys
from jaxdesign.analysis import analyse, check_rank
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.limits import Limits
from jaxdesign.budget.linear_program import constraint_rows
from jaxdesign.budget.oracle import allowed_total
from jaxdesign.certificates.evaluate import evaluated
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Design, Status
from jaxdesign.door import make_problem
from jaxdesign.pool import CompletionPool
from jaxdesign.problem import Problem, checked_criterion

MAX_PAIRS = 5_000
TOL = 1e-6  # relative gap at which the result is called certified
GOOD_ENOUGH = 1e-9  # relative gap at which the second solver is not asked
DUST = 1e-8  # fractions of the total below this are rounding of an interior point

CLARABEL = {"solver": "CLARABEL", "tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}
SCS = {"solver": "SCS", "eps": 1e-10, "max_iters": 200_000}


def optimize(pool: CompletionPool, crit: CriterionLike, budget: Budget, prior: Any = None) -> Design:
    """Best allocation by cvxpy, certified by this package.

    min over n >= 0 of criterion(prior + sum_e n_e c_e z_e z_e^T), sum n = total, n_e <= per_pair, sums per prompt <=
    per_prompt; averaged over draws.

    Args:
        pool: at most 5,000 candidate pairs; meant for up to about 500 and d <= 12.
        crit: LogDet, Trace, or a criterion with an `expression` (see `jaxdesign.criteria.ConvexCriterion`).
        budget: every budget `jaxdesign.optimize` takes.
        prior: information already held, (d, d) or a scalar ridge; or a `Belief`.

    Returns:
        A Design; status CERTIFIED where 1 - efficiency <= 1e-6, INACCURATE otherwise. `passes` is 0.

    Raises:
        ImportError: cvxpy is not installed (pip install 'jaxdesign[reference]').
        TypeError: a criterion without an expression.
        ValueError: more than 5,000 pairs, information singular without a prior, and everything `evaluate` raises.

    Numerics: float64. Criteria of degree 0 such as LogDet go to Clarabel first, others to SCS; the other solver is
    asked where the relative gap is above 1e-9, and the better of the two is returned.

    Source: derived (the problem as it stands, for cvxpy); checked by tests/test_reference.py.
    """
    cvxpy = _import_cvxpy()
    criterion = checked_criterion(pool, crit)
    with _arrays.float64():
        known = criterion.expression(cvxpy, cvxpy.Variable((pool.dim, pool.dim), symmetric=True)) is not None
    if not known:
        raise TypeError(
            "crit: the reference solver takes criteria with an `expression`, as have LogDet() and Trace(H), found "
            f"{type(crit).__name__}; use jaxdesign.optimize"
        )
    problem = make_problem(pool, crit, budget, prior)
    if problem.pair_counts.sum() > MAX_PAIRS:
        raise ValueError(
            f"pool: {problem.pair_counts.sum():.0f} candidate pairs found; the reference solver materialises them and "
            f"takes at most {MAX_PAIRS}; use jaxdesign.optimize"
        )
    check_rank(problem)
    pairs = np.argwhere(np.asarray(candidate_pairs(first_copies(problem.pool)))).astype(np.int32)
    completions = pool.completions
    pairs = pairs[~np.isin(pair_keys(pairs, completions), pair_keys(problem.decided.closed, completions))]
    best = None
    for settings in (CLARABEL, SCS) if criterion.degree == 0 else (SCS, CLARABEL):
        fractions = _solve(cvxpy, problem, pairs, settings)
        if fractions is None:
            continue
        chosen = fractions > DUST
        labels = fractions[chosen] * problem.limits.total
        labels = allowed_total(problem.limits, Allocation(pairs[chosen], labels))
        design = evaluated(problem, Allocation(pairs[chosen], labels), Status.INACCURATE).design
        if best is None or design.certificate.value < best.certificate.value:
            best = design
        if best.certificate.relative_gap() <= GOOD_ENOUGH:
            break
    if best is None:
        raise RuntimeError("reference: neither Clarabel nor SCS returned a solution; rescale the features or the prior")
    return replace(best, status=Status.CERTIFIED) if best.certificate.relative_gap() <= TOL else best


def _import_cvxpy():
    try:
        import cvxpy
    except ImportError as error:
        raise ImportError(
            "jaxdesign.reference.optimize needs cvxpy, which is not installed; pip install 'jaxdesign[reference]'"
        ) from error
    return cvxpy


def _solve(cvxpy, problem: Problem, pairs: Int[np.ndarray, "s 3"], settings: dict) -> Float[np.ndarray, " s"] | None:
    """Labels as fractions of the total, clipped at 0; None where the solver failed."""
    fractions = cvxpy.Variable(len(pairs), nonneg=True)
    unit = float(analyse(problem, problem.even).value) if problem.criterion.degree == -1 else 1.0
    terms, constraints = [], _constraints(cvxpy, problem.limits, pairs, fractions)
    for number, (rows, held, scale) in enumerate(_scaled_draws(problem, pairs)):
        with _arrays.float64():
            criterion = problem.criterion.of_draw(number).in_basis(jnp.asarray(scale.T), max(unit, 1e-300))
            term, more = criterion.expression(cvxpy, _information(cvxpy, fractions, rows, held))
        terms, constraints = [*terms, term], [*constraints, *more]
    task = cvxpy.Problem(cvxpy.Minimize(sum(terms) / len(terms)), constraints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "solution may be inaccurate": our certificate says how inaccurate
        try:
            task.solve(**settings)
        except cvxpy.error.SolverError:
            return None
    found = fractions.value
    return None if found is None or not np.isfinite(found).all() else np.maximum(found, 0)


def _scaled_draws(problem: Problem, pairs: Int[np.ndarray, "s 3"]):
    """Per draw: rows sqrt(total c) z, prior and the map T, all in coordinates in which the even allocation has A = I.

    Solver tolerances are absolute, so a problem with entries of order one is worth several digits.
    """
    z, c = _differences_and_label_information(problem.pool, pairs)
    c = np.broadcast_to(c, (len(problem.prior), len(pairs)))
    for matrix, prior, info in zip(problem.even, problem.prior, c, strict=True):
        scale = np.linalg.inv(np.linalg.cholesky(matrix))
        rows = np.sqrt(problem.limits.total * info)[:, None] * z @ scale.T
        yield rows, scale @ prior @ scale.T, scale


def _differences_and_label_information(pool: CompletionPool, pairs: Int[np.ndarray, "s 3"]):
    """z (S, d) and c (R, S) in NumPy, so that the reference shares no arithmetic with what it checks."""
    p, i, j = pairs.T
    features = np.asarray(pool.features).astype(np.float64)
    scores = np.zeros(pool.mask.shape) if pool.scores is None else np.asarray(pool.scores).astype(np.float64)
    scores = scores.reshape(-1, *pool.mask.shape)
    noise, belief, cap = (_form(part, pairs) for part in pool.residual or (None, None, None))
    own, both = 1 + np.pi / 8 * noise, 1 + np.pi / 8 * (noise + belief)
    decay = np.exp(-np.abs(scores[:, p, i] - scores[:, p, j]) / np.sqrt(both))
    info = decay / (1 + decay) ** 2
    if pool.flip is not None:  # [(1 - 2 eps) sigma']^2 / (p (1 - p)), p the probability of the likelier label
        flip = np.asarray(pool.flip).astype(np.float64)
        flip = flip[p] if flip.ndim == 1 else flip[p, i, j]
        likely, unlikely = (((1 - 2 * flip) * odds + flip * (1 + decay)) / (1 + decay) for odds in (1.0, decay))
        info = ((1 - 2 * flip) * info) ** 2 / (likely * unlikely)
    return features[p, i] - features[p, j], info / np.sqrt(own * both) / np.maximum(cap, 1)


def _form(rows, pairs: Int[np.ndarray, "s 3"]) -> Float[np.ndarray, " s"]:
    """|y_i - y_j|^2 of listed pairs; 0 where there are no rows."""
    if rows is None:
        return np.zeros(len(pairs))
    p, i, j = pairs.T
    rows = np.asarray(rows).astype(np.float64)
    return np.sum((rows[p, i] - rows[p, j]) ** 2, axis=-1)


def _information(cvxpy, fractions, rows, prior):
    """A of one draw as an affine expression."""
    dim = rows.shape[1]
    outer = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    return prior + cvxpy.reshape(outer.T @ fractions, (dim, dim), order="C")


def _constraints(cvxpy, limits: Limits, pairs: Int[np.ndarray, "s 3"], fractions) -> list:
    constraints = [cvxpy.sum(fractions) == 1]
    caps = limits.per_pair[pairs[:, 0]] / limits.total
    if (caps < 1).any():
        constraints.append(fractions <= np.minimum(caps, 1))
    rows, low, high = constraint_rows(limits, pairs)
    for bound, limit, sign in ((np.isfinite(high), high, 1.0), (np.isfinite(low), low, -1.0)):
        if bound.any():
            constraints.append(sign * rows[bound] @ fractions <= sign * limit[bound] / limits.total)
    return constraints
