"""A primal-dual interior point method for small smooth convex problems over allocations; float64 NumPy.

    min f(x)   over   sum x = total,  0 <= x <= cap,  sum over each group <= quota

With multipliers z of x >= 0, y of x <= cap, l of the quotas and v of the total, each iteration solves the linearised

    grad f + v + l[group] - z + y = 0,    x z = y (cap - x) = l (quota - spent) = sigma mu,    sum x = total

for a step, eliminating z, y and l: one n x n system. sigma comes from a predictor step with sigma = 0 (Mehrotra 1992,
doi:10.1137/0802028) and the step length from the boundary and from the size of the residuals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

SHORT_OF_BOUNDARY = 0.995
MAX_ITERATIONS = 60
SHIFTS = (1e-14, 1e-11, 1e-8)  # of a unit diagonal that is tried where a system is singular


class Region(NamedTuple):
    """Allowed x. `group` names the quota each x counts against."""

    total: float
    cap: Float[np.ndarray, " n"]  # inf where there is none
    quota: Float[np.ndarray, " g"]  # empty where there is none
    group: Int[np.ndarray, " n"]

    def spent(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " g"]:
        """Sums over the groups."""
        return np.bincount(self.group, weights=x, minlength=len(self.quota)) if len(self.quota) else np.zeros(0)

    def spread(self, values: Float[np.ndarray, " g"]) -> Float[np.ndarray, " n"]:
        """A value per group, for each of its members; 0 without groups."""
        return values[self.group] if len(self.quota) else np.zeros(len(self.cap))


class Point(NamedTuple):
    """Primal and dual variables with the gradient of f at x."""

    x: Float[np.ndarray, " n"]
    lower: Float[np.ndarray, " n"]  # z
    upper: Float[np.ndarray, " n"]  # y, 0 without a cap
    groups: Float[np.ndarray, " g"]  # l
    total: float  # v
    gradient: Float[np.ndarray, " n"]


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # a step that is no number is not taken
def minimise(
    gradient: Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " n"]],
    hessian: Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, "n n"]],
    region: Region,
    start: Float[np.ndarray, " n"],
    target: float,
) -> Point:
    """Iterate until the complementarity sum, a bound on f(x) - min f once the residuals are small, is at most `target`.

    Args:
        gradient: of f; raises LinAlgError outside of the domain.
        hessian: of f, called at points where `gradient` was called just before.
        start: inside of 0 < x < cap and of the quotas; its sum may be off.
        target: in units of f.

    Returns the last point also where the iteration stalls: callers certify what they use.
    """
    point = _first_point(gradient, region, start)
    for _ in range(MAX_ITERATIONS):
        count = len(point.x) + np.isfinite(region.cap).sum() + len(region.quota)
        mu = _complementarity(point, region) / count
        residual = _residual(point, region, 0.0)
        if mu == 0 or (count * mu <= target and region.total * np.abs(residual[: len(point.x) + 1]).max() <= target):
            break
        affine, centring = _directions(point, region, hessian(point.x))
        length = min(1.0, _longest(point, region, affine))
        # what a step without centring would leave of mu says how much centring is needed
        sigma = (_complementarity(_moved(point, affine, length), region) / (count * mu)) ** 3
        step = [a + sigma * mu * c for a, c in zip(affine, centring, strict=True)]
        found = _searched(gradient, point, region, step, sigma * mu)
        if found is None:
            break
        point = found
    return point


def _first_point(gradient, region, start):
    x = np.asarray(start, np.float64)
    g = gradient(x)
    mu = 0.1 * np.abs(g @ x) / len(x)
    capped = np.isfinite(region.cap)
    upper = np.where(capped, mu / np.where(capped, region.cap - x, 1), 0.0)
    groups = mu / (region.quota - region.spent(x))
    lower = mu / x
    return Point(x, lower, upper, groups, -float(np.mean(g - lower + upper + region.spread(groups))), g)


def _slacks(x, region):
    return np.where(np.isfinite(region.cap), region.cap - x, 1.0), region.quota - region.spent(x)


def _complementarity(point, region):
    below_cap, unspent = _slacks(point.x, region)
    return point.x @ point.lower + below_cap @ point.upper + unspent @ point.groups


def _residual(point, region, mu):
    """Of the optimality conditions: stationarity, total, complementarity minus mu."""
    below_cap, unspent = _slacks(point.x, region)
    stationary = point.gradient + point.total + region.spread(point.groups) - point.lower + point.upper
    capped = np.isfinite(region.cap)
    products = point.x * point.lower - mu, (below_cap * point.upper - mu)[capped], unspent * point.groups - mu
    return np.concatenate([stationary, [point.x.sum() - region.total], *products])


def _directions(point, region, H):
    """Changes of (x, lower, upper, groups, total) for mu = 0, and what one unit of mu adds to them."""
    x, below_cap, unspent = point.x, *_slacks(point.x, region)
    capped = np.isfinite(region.cap).astype(float)
    H = H + np.diag(point.lower / x + point.upper / below_cap)
    if len(region.quota):
        same = region.group[:, None] == region.group[None, :]
        H = H + same * region.spread(point.groups / unspent)[None, :]
    columns = [
        -(point.gradient + point.total),
        1 / x - capped / below_cap - region.spread(1 / unspent),
        np.ones(len(x)),
    ]
    scale = 1 / np.sqrt(np.maximum(np.diag(H), 1e-300))  # a unit diagonal: entries differ by 1 / mu otherwise
    plain, centred, ones = (
        scale[:, None] * _solved(H * np.outer(scale, scale), scale[:, None] * np.array(columns).T)
    ).T
    found = []
    for column, missing, mu in ((plain, region.total - x.sum(), 0.0), (centred, 0.0, 1.0)):
        total = (column.sum() - missing) / ones.sum()
        change = column - total * ones
        lower, upper, groups = (mu - point.lower * change) / x, (mu * capped + point.upper * change) / below_cap, None
        groups = (mu + point.groups * region.spent(change)) / unspent
        if mu == 0.0:
            lower, upper, groups = lower - point.lower, upper - point.upper, groups - point.groups
        found.append([change, lower, upper, groups, total])
    return found


def _solved(H, columns):
    """H^-1 columns for H with a unit diagonal; H is shifted where it is singular to rounding.

    Near the end, more pairs than d (d + 1) / 2 between their bounds (lattices and +-1 features have them) leave H
    singular in directions along which f does not change: a small step along them is as good as any.
    """
    for shift in (0.0, *SHIFTS):
        try:
            found = np.linalg.solve(H + shift * np.eye(len(H)), columns)
        except np.linalg.LinAlgError:
            continue
        if np.isfinite(found).all():
            return found
    return np.zeros_like(columns)  # no direction: the search that follows ends the iteration


def _longest(point, region, step):
    """Largest step that keeps everything positive, times SHORT_OF_BOUNDARY."""
    below_cap, unspent = _slacks(point.x, region)
    dx, lower, upper, groups, _ = step
    values = [point.x, point.lower, point.upper, point.groups, below_cap, unspent]
    capped = np.isfinite(region.cap)
    changes = [dx, lower, np.where(capped, upper, 0), groups, np.where(capped, -dx, 0), -region.spent(dx)]
    value, change = np.concatenate(values), np.concatenate(changes)
    falling = change < 0
    return SHORT_OF_BOUNDARY * float(np.min(-value[falling] / change[falling], initial=np.inf))


def _moved(point, step, length):
    dx, lower, upper, groups, total = (length * np.asarray(part) for part in step)
    return Point(
        point.x + dx, point.lower + lower, point.upper + upper, point.groups + groups, point.total + float(total),
        point.gradient,
    )  # fmt: skip


def _searched(gradient, point, region, step, mu):
    """The step shortened until the residuals fall; None where none does."""
    before = np.linalg.norm(_residual(point, region, mu))
    length = min(1.0, _longest(point, region, step))
    for _ in range(20):
        trial = _moved(point, step, length)
        try:
            trial = trial._replace(gradient=gradient(trial.x))
        except np.linalg.LinAlgError:
            length /= 2
            continue
        if np.linalg.norm(_residual(trial, region, mu)) <= (1 - 1e-3 * length) * before:
            return trial
        length /= 2
    return None
