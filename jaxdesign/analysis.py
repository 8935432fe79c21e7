"""The float64 side of a problem: A, G, exact sensitivities of listed pairs, singularity.

The d x d algebra and everything a certificate rests on is computed here in float64 from the stored features, on the
device but inside a float64 scope; the pool-wide passes of `pricing` only rank.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays
from jaxdesign._linalg import RANK, numerical_rank, unit_diagonal
from jaxdesign._pairs import Allocation
from jaxdesign.criteria.protocol import ConvexCriterion
from jaxdesign.information import dense_information, row_forms, sparse_information
from jaxdesign.pricing.listed import Held, by_pages, holding, over_pairs
from jaxdesign.pricing.passes import in_pricing_units
from jaxdesign.problem import Problem

ROUNDING = 4.0  # see `value_rounding`


class Analysis(NamedTuple):
    """The criterion at a matrix A, and what bounds and passes need of it, float64."""

    value: float
    anchor: float  # what the lower bound starts from (see `criteria.anchors`): the value, but for rounding
    rounding: float  # `value_rounding`, which certificates subtract
    G: Float[np.ndarray, "r d d"]
    factors: Float[np.ndarray, "r d q"]  # F with F F^T = G; bounds hold for F as it is
    scaled: Float[np.ndarray, "r d q"]  # F in units of its own and the pricing dtype
    unit: float  # a power of two: F F^T is that of `scaled` times this


def information(problem: Problem, allocation: Allocation, held: Held | None = None) -> Float[np.ndarray, "r d d"]:
    """A = prior + sum_e n_e c_e z_e z_e^T per draw, float64, from the stored features.

    Rows are summed in one place and in the order of the list, so that A has the same bits wherever the pool lies; those
    that are `held` need not be brought there.
    """
    pairs, labels = allocation
    if problem.at_hand and len(pairs) > 2 * problem.prompts * problem.completions:
        return problem.prior + _dense_information(problem, pairs, labels)
    rows, start = holding(problem.source, held), np.zeros_like(problem.prior)
    return problem.prior + np.asarray(by_pages(rows, Partial(_add_information), start, pairs, labels)[0])


def _dense_information(problem, pairs, labels):
    dense = np.zeros((problem.prompts, problem.completions, problem.completions))
    np.add.at(dense, tuple(np.asarray(pairs).T), labels)
    pools = problem.pools
    with _arrays.float64():
        parts = zip(pools, np.split(dense, len(pools)), strict=True)
        return sum(np.asarray(dense_information(pool, part + part.swapaxes(1, 2))) for pool, part in parts)


def _add_information(rows, total, labels):
    return total + sparse_information(rows.differences, rows.label_info * labels[None]), None


def exact_sensitivities(
    problem: Problem, pairs: Int[np.ndarray, "s 3"], factors: Float[np.ndarray, "r d q"]
) -> Float[np.ndarray, " s"]:
    """b_e = mean over draws of c_e |z_e F|^2, float64, from the stored features."""
    return sensitivity_bounds(problem, pairs, factors)[0]


def sensitivity_bounds(
    problem: Problem, pairs: Int[np.ndarray, "s 3"], factors: Float[np.ndarray, "r d q"]
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """b_e as computed, and a number that b_e at exactly these factors is not above.

    y = z F has a rounding error of at most g |z| |F| by components, g = (d + 4) u, u = 2^-53 (any order of sums; z is
    a difference of stored numbers and counts as one rounding), and hence of at most g (d sum_k z_k^2 G_kk)^(1/2) in
    length, by Cauchy's inequality with weights G_kk. c and the square have relative errors of a few u, c besides of u
    times its margin.
    """
    if not len(pairs):
        return np.zeros(0), np.zeros(0)
    return over_pairs(problem.source, Partial(_scored, factors), pairs)


def _scored(factors, rows, _):
    z, c, _ = rows
    unit = float(jnp.finfo(jnp.float64).eps) / 2
    share = (z.shape[-1] + 4) * unit
    b, bound = [], []
    for factor, info, squares in zip(factors, c, row_forms(z, factors), strict=True):
        spread = z.shape[-1] * jnp.sum(z**2 * jnp.sum(factor**2, axis=-1)[None], axis=-1)
        b.append(info * squares)
        bound.append(info * (jnp.sqrt(squares) + share * jnp.sqrt(spread)) ** 2 * (1 + 2 * share + 1024 * unit))
    return jnp.mean(jnp.stack(b), axis=0), jnp.mean(jnp.stack(bound), axis=0)


def analyse(problem: Problem, matrix: Float[np.ndarray, "r d d"]) -> Analysis:
    """Value, G and its factors at A; value is inf or NaN where A is singular."""
    with _arrays.float64():
        (value, anchor, G, factors), rounding = jax.tree.map(np.asarray, _analyse(problem.criterion, matrix))
    scaled = in_pricing_units(factors, problem.source.dtype)
    return Analysis(float(value), float(anchor), float(rounding), G, factors, *scaled)


@jax.jit
def _analyse(criterion, matrix):
    found = analysed(criterion, matrix)
    return found, value_rounding(matrix, found[2])


def analysed(criterion: ConvexCriterion, matrix: Float[Array, "r d d"]):
    """Value, anchor, G and F of a criterion at A, traceable.

    Bounds start from F, so G is F F^T and not the gradient, which differs by the rounding of A^-1. A criterion without
    an anchor has its value and its gradient.
    """
    value, factors = criterion.value_and_factors(matrix)
    anchor = criterion.anchor(matrix, factors)
    if anchor is None:
        return value, value, criterion.gradient(matrix), factors
    return value, anchor, _arrays.contract("...ik,...jk->...ij", factors, factors), factors


def value_rounding(matrix: Float[Array, "r d d"], G: Float[Array, "r d d"]) -> Float[Array, ""]:
    """About how far rounding may move the criterion: ROUNDING eps |G o sqrt(A_kk A_ll)|_F, averaged over draws.

    A is summed and factorised with errors of about eps sqrt(A_kk A_ll) in its entries, and where these are independent
    tr(G E) is of this size. Measured against exact rational arithmetic on integer features, condition numbers up to
    1e14, the constant is at most about 1 (tests/test_rounding_error.py); ROUNDING is taken.
    """
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix, axis1=-2, axis2=-1), 0))
    moved = jnp.sqrt(jnp.sum((G * size[:, :, None] * size[:, None, :]) ** 2, axis=(1, 2)))
    return ROUNDING * float(jnp.finfo(jnp.float64).eps) * jnp.mean(moved)


def usable(problem: Problem, analysis: Analysis) -> bool:
    """Whether the matrix analysed was positive definite to working precision."""
    return bool(np.isfinite(analysis.value) and np.isfinite(analysis.factors).all())


def singular(problem: Problem, matrix: Float[np.ndarray, "r d d"]) -> bool:
    """Whether A is `flat`, for the criteria that are then infinite. False for others, which may be finite there."""
    return problem.criterion.infinite_where_singular and flat(matrix)


def regular(problem: Problem, matrix: Float[np.ndarray, "r d d"]) -> bool:
    """Whether A is `sound`, analysed here."""
    return sound(problem, matrix, analyse(problem, matrix))


def sound(problem: Problem, matrix: Float[np.ndarray, "r d d"], analysis: Analysis) -> bool:
    """Whether the criterion and its gradient are finite at A, and A is not singular where that would be chance."""
    return usable(problem, analysis) and not singular(problem, matrix)


@jax.jit
def row_sensitivities(criterion: ConvexCriterion, matrix, rows: Float[Array, "r n d"]) -> Float[Array, " n"]:
    """b of pairs given as rows sqrt(c) z; NaN where the criterion is not finite. Inside `_arrays.float64()`."""
    value, factors = criterion.value_and_factors(matrix)
    moved = jnp.matmul(rows, factors, precision=_arrays.HIGHEST)
    b = jnp.mean(jnp.sum(moved**2, axis=-1), axis=0)
    return jnp.where(jnp.isfinite(value), b, jnp.nan)


def flat(matrix: Float[np.ndarray, "r d d"]) -> bool:
    """Whether A is singular to float64 rounding, in one draw at least; units do not matter.

    A Cholesky factorisation alone does not tell: rounding can leave a singular matrix with tiny positive pivots. Scaled
    to a unit diagonal, singular ones had a smallest eigenvalue of at most 0.8 d eps in 80 random cases, d = 3 to 256.
    """
    spectrum = np.linalg.eigvalsh(unit_diagonal(matrix)[0])
    return bool((spectrum[..., 0] <= 4 * matrix.shape[-1] * np.finfo(np.float64).eps).any())


def check_rank(problem: Problem) -> None:
    """ValueError where even the even allocation has singular information, naming the rank and a ridge."""
    held = bool(problem.prior.any())
    for matrix in problem.even:
        rank = numerical_rank(matrix, 4 * problem.dim * np.finfo(np.float64).eps if held else RANK)
        if rank == problem.dim:
            continue
        ridge = 1e-3 * np.trace(problem.given_units(matrix)) / max(rank, 1)
        remedy = f"use jaxdesign.restrict_to_range(pool), or pass prior={ridge:.2g} (a ridge)"
        if held:
            raise ValueError(
                f"prior: so small, or so far from full rank, that the information of all pairs with it has rank {rank} "
                f"of {problem.dim} to float64 rounding; {remedy}"
            )
        raise ValueError(
            f"prior: the information of all pairs has rank {rank} of {problem.dim}, so no design without a prior "
            f"is regular; {remedy}"
        )
