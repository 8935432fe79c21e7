"""The variance of what features do not explain of a margin, estimated from labels of a pilot.

Labels of pair e come from one margin u_e = z_e . w + delta_e, delta_e ~ N(0, v l_e), w ~ N(m, prior^-1). Repeats of a
pair, all of which meet the same delta_e, are more alike than the chances of z_e . w allow: that is what tells v.
Without repeats v is told only by how chances flatten with l_e, and by the prior, which says how large rewards are:
little.

The likelihood of a pair, L_e(m, s) = int sigma(m + x)^y sigma(-m - x)^(n - y) N(x; 0, s) dx, is log-concave in m
(Prekopa), so that w is found by Newton steps; the integral is a sum over equal steps of x / sqrt(s), which for such
integrands converges exponentially. w is integrated over by Laplace's method: maximised over instead, d parameters would
take up d / S of the variance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._linalg import cholesky_and_inverse
from jaxdesign._pairs import check_pairs
from jaxdesign.belief import as_belief
from jaxdesign.information import pair_differences
from jaxdesign.pool import CompletionPool
from jaxdesign.residual import Residual
from jaxdesign.residual_metric import residual_of

NODES = np.linspace(-8, 8, 257)  # of x / sqrt(s): logarithms are off by 3e-4 at s = 400, by far less below
LARGEST = 256.0  # at which a label says hardly anything: k = 10
GRID = np.concatenate([[0.0], np.exp2(np.arange(-5, 8, 0.5)), [LARGEST]])
REFINED = 8  # parts of the grid's steps where the maximum and the ends of the interval are
INSIDE = 1.92  # half the 95% quantile of chi^2 of one degree of freedom
TELLING = (0.25, 25.0)  # k^2 = 1.1, where a residual hardly matters, and 11, where it drowns the label's own noise
STEPS = 40  # of Newton, at most
MOVED = 1e-6  # largest change of a margin by the last of them, which is then off by about its square
SHORTEST = 2.0**-10  # share of a Newton step


class ResidualVariance(NamedTuple):
    """What `estimate_residual` found.

    Args:
        variance: the most likely v, in squared units of margins, at most 256.
        standard_error: of v, by the curvature of the likelihood; inf where the maximum is at an end.
        interval: (low, high), 95% by the likelihood ratio; 0 and inf where it does not end.
        told: whether the pilot tells: the interval ends, and does not contain both 0.25 and 25. One that does not end
            says of v that it is large and no more.
        residual: of v, or where the pilot does not tell of the cap: what `CompletionPool(..., residual=...)` takes.
    """

    variance: float
    standard_error: float
    interval: tuple[float, float]
    told: bool
    residual: Residual


def estimate_residual(
    pool: CompletionPool,
    pairs: Int[_arrays.AnyArray, "s 3"],
    wins: Float[_arrays.AnyArray, " s"],
    counts: Float[_arrays.AnyArray, " s"],
    *,
    prior: Any,
    target: Float[_arrays.AnyArray, "d d"] | None = None,
) -> ResidualVariance:
    """v of residuals N(0, v l_e) of margins, from labels of a pilot; several of a pair, or it will hardly tell.

    Maximises log int prod_e L_e(z_e . w, v l_e) N(w; m, prior^-1) dw, the integral over w by Laplace's method. Two or
    three labels on each of 200 pairs tell v near 4 to a factor of two; 4 is where a residual costs about as much as the
    noise of a label. Chances of the fitted model are sigma(m / k), k^2 = 1 + pi v l_e / 8; `fit_bradley_terry`, which
    knows no residual, finds rewards that are shrunk by about k already, and its chances are sigma(m).

    Args:
        pool: the pool, for differences and lengths of pairs.
        pairs: (S, 3) rows (p, i, j), each pair once.
        wins: (S,) labels that prefer the first completion.
        counts: (S,) labels of each pair, at least one.
        prior: precision of the reward parameter, (d, d) or a scalar ridge, per squared unit of margins: what one knows
            of the size of rewards; or a `Belief`, or what holds one. Must be positive definite together with the
            labels. One that holds rewards to be smaller than they are puts the rest down to the residual.
        target: H of the lengths, as for `residual_of`.

    Returns:
        ResidualVariance, Python floats.

    Raises:
        ValueError: pairs outside of the pool or repeated, shapes that do not match, wins outside of [0, counts], no
            label, a prior of another shape or indefinite, and as `residual_of`.

    Numerics: float64; v, and the ends of its interval, to about 5%, the interval rather wider.
    Complexity: about 50 searches of some 5 Newton steps, 2,000 S exponentials and 2 S d^2 operations each, and the
    passes of `residual_of`.
    Source: Laplace's method and the likelihood ratio, derived for this model; checked by
    tests/preference/fit/test_residual_variance.py, where intervals cover.
    """
    pairs = np.asarray(pairs)
    check_pairs(pool, pairs)
    if len(np.unique(pairs, axis=0)) < len(pairs):
        raise ValueError("pairs: a pair is listed twice; sum its wins and counts into one row, which has one residual")
    wins, counts = (np.asarray(a, np.float64) for a in (wins, counts))
    for value, name in ((wins, "wins"), (counts, "counts")):
        _checks.same_shape(value.shape, pairs.shape[:1], name, "one number per pair")
    bad = ~((wins >= 0) & (wins <= counts) & (counts > 0) & np.isfinite(counts))
    if bad.any() or not len(pairs):
        found = "no labels" if not len(pairs) else f"{wins[bad][0]:g} of {counts[bad][0]:g} labels"
        raise ValueError(f"wins: {found} found; each pair needs a label, and wins within [0, counts]")
    prior = as_belief(prior, pool.dim)
    unit = residual_of(pool, 1.0, target=target)
    with _arrays.float64():
        z = np.asarray(pair_differences(pool, pairs.astype(np.int32)), np.float64)
        lengths = np.sum((z @ np.asarray(unit.noise)) ** 2, axis=1)
        pilot = _Pilot(*(jnp.asarray(a) for a in (z, lengths, wins, counts, prior.precision, z @ prior.mean)))
        variances, values = _searched(lambda v: np.asarray(_evidence(pilot, jnp.asarray(v))))
    return _told(pool, target, variances, values)


class _Pilot(NamedTuple):
    z: Array
    lengths: Array
    wins: Array
    counts: Array
    prior: Array
    believed: Array  # margins at the mean of the prior; parameters are less that mean


def _searched(evidence) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, " g"]]:
    """Values on the grid, and on a finer one next to the maximum and to where the interval ends."""
    values = evidence(GRID)
    if not np.isfinite(values).all():
        raise ValueError("prior: with the labels it leaves a direction unknown; pass a positive definite one")
    best = int(np.argmax(values))
    inside = np.flatnonzero(values >= values[best] - INSIDE)
    steps = {best - 1, best, inside[0] - 1, inside[-1]} & set(range(len(GRID) - 1))
    finer = [np.linspace(GRID[k], GRID[k + 1], REFINED + 1)[1:-1] for k in sorted(steps)]
    finer += [finer[-1]] * (4 - len(finer))  # one shape, one program
    more = np.concatenate(finer)
    variances, place = np.unique(np.concatenate([GRID, more]), return_index=True)
    return variances, np.concatenate([values, evidence(more)])[place]


def _told(pool, target, variances, values) -> ResidualVariance:
    best = int(np.argmax(values))
    inside = np.flatnonzero(values >= values[best] - INSIDE)
    low, high = inside[0], inside[-1]
    error = np.inf
    if 0 < best < len(values) - 1:
        (a, b, c), (x, y, z) = variances[best - 1 : best + 2], values[best - 1 : best + 2]
        curvature = 2 * ((z - y) / (c - b) - (y - x) / (b - a)) / (c - a)
        error = float(np.sqrt(-1 / curvature)) if curvature < 0 else np.inf
    ends = (
        0.0 if low == 0 else float(variances[low]),
        np.inf if high == len(values) - 1 else float(variances[high + 1]),
    )
    told = bool(np.isfinite(ends[1])) and not (ends[0] <= TELLING[0] and ends[1] >= TELLING[1])
    variance = float(variances[best])
    return ResidualVariance(variance, error, ends, told, residual_of(pool, variance if told else "cap", target=target))


@jax.jit
def _evidence(pilot: _Pilot, variances: Float[Array, " g"]) -> Float[Array, " g"]:
    """Laplace's log evidence of each variance but for a constant; NaN where information and prior are singular."""

    def of_one(start, variance):
        found = _ascended(pilot, variance, start)
        _, _, curvature = _likelihoods(pilot, variance, found)
        root = cholesky_and_inverse(_information(pilot, curvature))[0]
        value = _posterior(pilot, variance, found) - jnp.sum(jnp.log(jnp.diagonal(root)))
        return jnp.where(jnp.isfinite(found).all(), found, 0), value

    return lax.scan(of_one, jnp.zeros(pilot.z.shape[1]), variances)[1]


def _likelihoods(pilot, variance, parameter):
    """log L_e, its slope in the margin, and minus its curvature; each (S,)."""
    margins = (pilot.believed + pilot.z @ parameter)[:, None] + jnp.sqrt(variance * pilot.lengths)[:, None] * NODES[
        None
    ]
    wins, losses = pilot.wins[:, None], (pilot.counts - pilot.wins)[:, None]
    terms = wins * jax.nn.log_sigmoid(margins) + losses * jax.nn.log_sigmoid(-margins) - NODES[None] ** 2 / 2
    total = jax.nn.logsumexp(terms, axis=1)
    weights = jnp.exp(terms - total[:, None])
    chance = jax.nn.sigmoid(margins)
    slopes = wins - pilot.counts[:, None] * chance
    mean = jnp.sum(weights * slopes, axis=1)
    own = jnp.sum(weights * pilot.counts[:, None] * chance * jax.nn.sigmoid(-margins), axis=1)
    between = jnp.sum(weights * (slopes - mean[:, None]) ** 2, axis=1)
    return total, mean, jnp.maximum(own - between, 0)


def _posterior(pilot, variance, parameter):
    return jnp.sum(_likelihoods(pilot, variance, parameter)[0]) - parameter @ pilot.prior @ parameter / 2


def _information(pilot, curvature):
    return (pilot.z * curvature[:, None]).T @ pilot.z + pilot.prior


def _ascended(pilot, variance, start):
    """The w of the largest posterior, from another one."""

    def going(state):
        return (state[1] > MOVED) & (state[2] < STEPS)

    def step(state):
        parameter, _, count = state
        _, slope, curvature = _likelihoods(pilot, variance, parameter)
        inverse = cholesky_and_inverse(_information(pilot, curvature))[1]
        along = inverse.T @ (inverse @ (slope @ pilot.z - pilot.prior @ parameter))
        value = _posterior(pilot, variance, parameter)

        def worse(length):  # concave: some step along gains, if not by more than rounding
            return (_posterior(pilot, variance, parameter + length * along) < value) & (length > SHORTEST)

        length = lax.while_loop(worse, lambda length: length / 2, jnp.ones(()))
        return parameter + length * along, jnp.max(jnp.abs(pilot.z @ along)), count + 1

    return lax.while_loop(going, step, (start, jnp.inf, 0))[0]
