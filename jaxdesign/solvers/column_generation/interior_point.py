"""Column generation with an interior point method for the restricted problem: explicit Hessians, float64 NumPy.

Independent of the Newton steps of `column_generation` and good to the last digits, at O(n^3) an iteration over n pairs
at work: a cross-check for small supports (n to about 2,000), not for large ones.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import check_rank, information, row_sensitivities
from jaxdesign.budget.kinds import LAMINAR
from jaxdesign.budget.limits import capacity
from jaxdesign.criteria.protocol import ConvexCriterion, Gains
from jaxdesign.design import Design
from jaxdesign.methods.interior_point import Point, Region, minimise
from jaxdesign.pricing.listed import listed_rows
from jaxdesign.problem import Problem
from jaxdesign.solvers.column_generation.hot_start import hot_start, leading_pairs, starting_level
from jaxdesign.solvers.column_generation.solver import Restricted, holding_total, merge
from jaxdesign.solvers.states import Scored, SolverState, solver_state, warm_state

AT_WORK = 2_000  # pairs of a restricted problem at most
NEAR = 10.0  # slack, in units of mu, at which a bound counts as active
FILL = 512  # rows are filled up to multiples of this, so that few shapes are compiled
THIN = 1e-9  # relative slack of the total below which a region has no interior to speak of


class InteriorPoint(NamedTuple):
    """Any criterion, with and without caps and quotas, by a primal-dual interior-point method on the working set.

    Args:
        max_passes: pricing passes after which to stop, where the caller names no limit.
        patience: passes without a smaller gap after which it has stalled.
    """

    max_passes: int = 60
    patience: int = 6
    obeys = LAMINAR

    def init(self, problem: Problem, start: Design | None) -> SolverState:
        if start is not None and (warm := warm_state(problem, start)) is not None:
            return warm
        check_rank(problem)
        hot = hot_start(problem)
        cap = np.minimum(problem.limits.per_pair, problem.limits.total)[hot.prompts]
        limit = min(AT_WORK, 20 * problem.dim + 256)
        pairs, labels = holding_total(problem, hot, leading_pairs(hot, cap, starting_level(hot, cap), limit))
        return solver_state(problem, Allocation(pairs, labels), hot.passes)

    def step(self, problem: Problem, state: SolverState, scored: Scored, tol: float) -> SolverState:
        restricted = workable(problem, merge(problem, state, scored))
        labels = by_barrier(problem, restricted, max(0.01 * min(scored.relative_gap, 1.0), 0.1 * tol, 1e-12))
        return solver_state(problem, Allocation(restricted.pairs, labels), state.passes)


def workable(problem: Problem, restricted: Restricted) -> Restricted:
    """At most AT_WORK pairs move, and none whose prompt's quota the fixed pairs use up.

    Fixed pairs within 1e-6 of their cap are put on it: what is missing there would be missing for good. New pairs come
    after those that carry labels, so where AT_WORK binds fewer of them enter.
    """
    pairs, labels, at_work, level = restricted
    quota, cap = problem.limits.per_prompt, problem.limits.per_pair[pairs[:, 0]]
    moves = np.arange(len(pairs)) < min(at_work, AT_WORK)
    labels = np.where(~moves & (labels > cap * (1 - 1e-6)), cap, labels)
    spent = np.bincount(pairs[~moves, 0], weights=labels[~moves], minlength=len(quota))
    exhausted = moves & (spent > quota * (1 - 1e-6))[pairs[:, 0]]
    moves, labels = moves & ~exhausted, np.where(exhausted, 0.0, labels)
    order = np.argsort(~moves, kind="stable")
    return Restricted(pairs[order], labels[order], int(moves.sum()), level)


def by_barrier(problem: Problem, restricted: Restricted, target: float) -> Float[np.ndarray, " s"]:
    """Labels of the restricted problem to a relative gap of about `target`; unchanged where nothing can move."""
    pairs, labels, at_work, level = restricted
    moving, limits = pairs[:at_work], problem.limits
    total = limits.total - labels[at_work:].sum()
    spent = np.bincount(pairs[at_work:, 0], weights=labels[at_work:], minlength=len(limits.per_prompt))
    remaining = limits._replace(total=total, per_prompt=limits.per_prompt - spent)
    counts = np.bincount(moving[:, 0], minlength=len(spent)).astype(np.float64)
    if capacity(remaining, counts) <= total * (1 + THIN):  # all quotas bind: open them a little, or nothing is inside
        remaining = remaining._replace(per_prompt=remaining.per_prompt * (1 + 2 * THIN))
    if at_work == 0 or capacity(remaining, counts) <= total * (1 + THIN):  # still full: every pair is at its cap
        return labels
    scale = limits.total / problem.dim  # units in which the sensitivities of the support are about 1
    region = _region(limits.per_pair[moving[:, 0]], remaining.per_prompt, moving[:, 0], total, scale)
    start = inside(region, labels[:at_work] / scale)
    base = information(problem, Allocation(pairs[at_work:], labels[at_work:]))
    kind = ByCurvature if problem.criterion.gains is Gains.FIRST_ORDER else ByForms
    objective = kind(problem.criterion, *gather(problem, moving, scale), base, level * scale)
    point = minimise(objective.gradient, objective.hessian, region, start, target * problem.dim)
    return np.concatenate([cleaned(point, region) * scale, labels[at_work:]])


def _region(cap, quota, prompts, total, scale) -> Region:
    binding = quota[prompts] < total
    cap = np.where(cap < total, cap, np.inf) / scale
    if not binding.any():
        return Region(total / scale, cap, np.zeros(0), np.zeros(len(cap), int))
    names, group = np.unique(prompts, return_inverse=True)
    return Region(total / scale, cap, np.minimum(quota[names], 2 * total) / scale, group)


def inside(region: Region, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """A point near x, strictly between 0 and the caps and inside of the quotas; its sum is not kept."""
    x = np.minimum(0.9 * x + 0.1 * region.total / len(x), 0.95 * region.cap)
    over = region.spent(x) / (0.95 * region.quota)
    return x / np.maximum(region.spread(over), 1.0)


def cleaned(point: Point, region: Region) -> Float[np.ndarray, " n"]:
    """x with what is within a few mu of 0, of its cap or of its quota moved there.

    Nothing is quite at its bound otherwise, and the next round could not tell what is free. Moves of a few mu cost no
    more than the gap that is left. The sum is kept by what is free in all respects.
    """
    mu = float(np.mean(point.x * point.lower))
    at_cap = region.cap - point.x <= NEAR * mu
    x = np.where(point.x <= NEAR * mu, 0.0, np.where(at_cap, region.cap, point.x))
    at_quota = region.quota - region.spent(point.x) <= 10 * NEAR * mu
    full, free = region.spent(np.where(at_cap, x, 0.0)), region.spent(np.where(at_cap, 0.0, x))
    stretch = np.where(at_quota & (free > 0), (region.quota - full) / np.where(free > 0, free, 1), 1.0)
    if len(at_quota):
        x = np.where(at_cap, x, np.minimum(x * np.maximum(stretch, 0)[region.group], region.cap))
    movable = np.where(at_cap | (region.spread(at_quota.astype(float)) > 0), 0.0, x)
    missing = region.total - x.sum()
    if abs(missing) < 0.1 * movable.sum():
        x = np.minimum(x + movable * (missing / movable.sum()), region.cap)
    return x


def gather(
    problem: Problem, pairs: Int[np.ndarray, "n 3"], scale: float
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "r n"]]:
    """Differences and label information times `scale` of listed pairs, float64, from the stored features."""
    z, c = listed_rows(problem.source, pairs)
    return z, c * scale


class ByForms:
    """LogDet or Trace over listed pairs divided by `unit`: gradient -b and Hessian, averaged over draws.

    With S = Z A^-1 Z^T and C = Z A^-1 H A^-1 Z^T (rows of Z times sqrt(c)): Hessian S o S (LogDet), 2 S o C (Trace).
    """

    def __init__(
        self,
        criterion: ConvexCriterion,
        z: Float[np.ndarray, "n d"],
        c: Float[np.ndarray, "r n"],
        base: Float[np.ndarray, "r d d"],
        unit: float,
    ):
        self.rows = [np.sqrt(info)[:, None] * z for info in c]
        self.base, self.unit = base, unit
        self.roots = None
        if criterion.gains is Gains.TRACE:
            self.roots = [_root(H) for H in np.broadcast_to(criterion.target, base.shape)]

    def gradient(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """-b / unit; LinAlgError where A is not positive definite."""
        total = np.zeros(len(x))
        for k in range(len(self.rows)):
            whitened, targeted = self._whitened(x, k)
            total += np.einsum("nd,nd->n", *[whitened if targeted is None else targeted] * 2)
        return -total / (len(self.rows) * self.unit)

    def hessian(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n n"]:
        """Second derivatives / unit."""
        total = np.zeros((len(x), len(x)))
        for k in range(len(self.rows)):
            whitened, targeted = self._whitened(x, k)
            S = whitened @ whitened.T
            total = total + (S * S if targeted is None else 2 * S * (targeted @ targeted.T))
        return total / (len(self.rows) * self.unit)

    def _whitened(self, x, k):
        """Z L^-T and, for Trace, Z A^-1 H^(1/2), with A = L L^T of draw k."""
        rows = self.rows[k]
        inverse = np.linalg.inv(np.linalg.cholesky(self.base[k] + rows.T @ (rows * x[:, None])))
        whitened = rows @ inverse.T
        return whitened, None if self.roots is None else whitened @ (inverse @ self.roots[k])


class ByCurvature:
    """Any criterion over listed pairs divided by `unit`: gradient -b and Hessian z^T curvature(z z^T) z."""

    def __init__(
        self,
        criterion: ConvexCriterion,
        z: Float[np.ndarray, "n d"],
        c: Float[np.ndarray, "r n"],
        base: Float[np.ndarray, "r d d"],
        unit: float,
    ):
        self.criterion, self.base, self.unit, self.count = criterion, base, unit, len(z)
        self.rows = np.zeros((len(c), _arrays.round_up(len(z), FILL), z.shape[1]))
        self.rows[:, : self.count] = np.sqrt(c)[..., None] * z

    def gradient(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """-b / unit; LinAlgError where the criterion is not finite."""
        with _arrays.float64():
            b = np.asarray(row_sensitivities(self.criterion, self._information(x), self.rows))[: self.count]
        if not np.isfinite(b).all():
            raise np.linalg.LinAlgError("the criterion is not finite")
        return -b / self.unit

    def hessian(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n n"]:
        """Second derivatives / unit; n maps of the criterion's curvature."""
        with _arrays.float64():
            padded = np.asarray(_hessian(self.criterion, self._information(x), self.rows))
        hessian = padded[: self.count, : self.count]
        return (hessian + hessian.T) / (2 * self.unit)

    def _information(self, x):
        rows = self.rows[:, : self.count]
        return self.base + rows.swapaxes(1, 2) @ (rows * x[:, None])


@jax.jit
def _hessian(criterion, matrix, rows) -> Float[Array, "n n"]:
    curvature = criterion.curvature(matrix)

    def column(row):
        moved = curvature(row[:, :, None] * row[:, None, :])
        return jnp.mean(jnp.sum(jnp.matmul(rows, moved, precision=_arrays.HIGHEST) * rows, axis=-1), axis=0)

    return jax.lax.map(column, jnp.swapaxes(rows, 0, 1))


def _root(H: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d r"]:
    """K with K K^T = H."""
    spectrum, vectors = np.linalg.eigh(np.asarray(H, np.float64))
    keep = spectrum > 0
    return vectors[:, keep] * np.sqrt(spectrum[keep])
