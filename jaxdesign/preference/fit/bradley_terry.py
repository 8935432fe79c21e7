"""Maximum likelihood, or posterior mode, of a Bradley-Terry reward parameter: DPO, for a log-linear policy.

A label of the pair (p, i, j) says that i is preferred with probability p(u) = (1 - 2 eps) sigma(u) + eps, u = z . w,
where z = phi_pi - phi_pj, w = beta (theta - theta_ref) is the reward parameter and eps the probability that a label is
reversed. For policies pi_theta prop. to pi_ref exp((theta - theta_ref) . phi), minimising the DPO loss over theta is
exactly this maximum likelihood (arXiv 2305.18290, 2606.19607); beta only names the same w.

Units do not matter: columns are brought to about unit information by powers of two, the search runs there, and the
rank is judged at unit diagonal. With flips log p is no longer concave in u, and there may be several local maxima: the
search then starts from several places (`_starts`) and the best end is kept, which finds a better maximum than one
start does (tests/preference/fit/test_bradley_terry.py) but is no proof that there is no other.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._linalg import cholesky_and_inverse
from jaxdesign.belief import as_belief, held_belief
from jaxdesign.information import margin_information, sparse_information

STEPS = 2.0 ** -np.arange(0, 12)  # step lengths tried along a Newton direction
SPREADS = np.resize([1.0, 3.0, 6.0, 12.0], 14)  # root mean square margins of the random starts where labels flip


class BradleyTerryFit(NamedTuple):
    """What `fit_bradley_terry` found.

    Args:
        parameter: w (d,), so that a completion's score is phi . w; where the search did not converge the last w it
            reached.
        information: prior + sum_s n_s c(u_s) z_s z_s^T at w, (d, d).
        log_likelihood: of the labels, without the prior, nats.
        steps: Newton steps taken from the start that was kept.
        converged: whether the last step moved no margin by more than the tolerance, w being a local maximum: the only
            one where flip = 0, with flips the best of those found, which is no proof that there is no better one. False
            where labels can be separated (then no finite maximum exists without a prior: w is on its way to infinity)
            or where the information is singular to working precision at unit diagonal (then w is not the only maximum).
    """

    parameter: Float[Array, " d"]
    information: Float[Array, "d d"]
    log_likelihood: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]


def fit_bradley_terry(
    differences: Any,
    wins: Any,
    counts: Any,
    *,
    prior: Any = 0.0,
    flip: Any = 0.0,
    start: Any = None,
    tol: float = 1e-7,
    max_steps: int = 60,
) -> BradleyTerryFit:
    """w that maximises sum_s [wins_s log p(u_s) + (n_s - wins_s) log(1 - p(u_s))] - (w - m)^T prior (w - m) / 2.

    u_s = z_s . w. Newton steps, each with the best of twelve step lengths. Without flips the Hessian is the expected
    information A = prior + sum_s n_s c(u_s) z_s z_s^T, and the maximum is the only one. With flips a step takes the
    Hessian where it is positive definite, A where it is not, and there are 16 starts: see the head of this file.

    Args:
        differences: z, (S, d), one row per labelled pair.
        wins: (S,) labels that prefer the first completion; may be fractional (a tie counts half, or weights).
        counts: n, (S,) labels of each pair, wins <= n; 0 for rows that are padding.
        prior: precision of a normal prior in the units of A: (d, d), or a scalar ridge, around m = 0; or a `Belief`
            N(m, prior^-1), or what holds one, such as the posterior of an earlier round.
        flip: eps, scalar or (S,), at least 0 and below 1/2.
        start: w to start from; None: m. With flips it is one of the starts.
        tol: largest change of a margin by the last step, or what rounding moves margins by where that is more.
        max_steps: Newton steps at most, from each start.

    Returns:
        BradleyTerryFit of JAX arrays in float64; inside of jit in that of `differences`, float32 at least. In float32
        the information of columns in units beyond 1e-19 or 1e19 leaves the range of numbers; w and the rest do not.

    Raises:
        ValueError: shapes that do not match, NaN or inf, wins outside of [0, n], flip outside of [0, 1/2), a prior
            that is not positive semidefinite (values are checked outside of jit only).

    Complexity: about 2 S d^2 + 2 d^3 floating-point operations a step, 5 to 8 steps; 17 such searches where a flip is
    above 0 or traced. Traceable; vmap over wins to fit many repetitions of the same labels.

    Source: Bradley and Terry 1952, doi:10.2307/2334029; as DPO of a log-linear policy, arXiv 2305.18290 and 2606.19607;
    the search is derived; checked by tests/preference/fit/test_bradley_terry.py.
    """
    flips = _arrays.is_traced(flip) or bool(np.any(np.asarray(flip) > 0))
    if _arrays.is_traced(differences, wins, counts, prior, flip, start):
        arrays = _as_arrays(differences, wins, counts, *_mean_and_precision(prior), flip, start)
        return _fit(*arrays, tol, max_steps, flips=flips)
    given = [np.asarray(a, np.float64) for a in (differences, wins, counts, flip)]
    differences, wins, counts, flip = given
    _checks.rank(differences, (2,), "differences", "(pairs S, dimension d)")
    for value, name in ((wins, "wins"), (counts, "counts")):
        _checks.same_shape(value.shape, differences.shape[:1], name, "one number per row of differences")
        _finite(value, name)
    _finite(differences, "differences")
    bad = ~((wins >= 0) & (wins <= counts))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"wins: {wins[row]:g} of {counts[row]:g} labels at row {row}; must be within [0, counts]")
    if not ((flip >= 0) & (flip < 0.5)).all():
        raise ValueError(f"flip: {flip.ravel()[np.argmin((flip >= 0) & (flip < 0.5))]:g} found; must be in [0, 1/2)")
    dim = differences.shape[1]
    if flip.ndim:
        _checks.same_shape(flip.shape, differences.shape[:1], "flip", "a number, or one per row of differences")
    if start is not None:
        start = np.asarray(start, np.float64)
        _checks.same_shape(start.shape, (dim,), "start", "(d,)")
        _finite(start, "start")
    belief = as_belief(prior, dim)
    with _arrays.float64():
        arrays = _as_arrays(differences, wins, counts, belief.mean, belief.precision, flip, start)
        return _fit(*arrays, tol, max_steps, flips=flips)


def _finite(value: np.ndarray, name: str) -> None:
    bad = ~np.isfinite(value)
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        raise ValueError(f"{name}: {value[tuple(place)]} at {place} ({bad.sum()} such value(s) in all); must be finite")


def _mean_and_precision(prior):
    belief = held_belief(prior)
    return (0.0, prior) if belief is None else (belief.mean, belief.precision)


def _as_arrays(differences, wins, counts, mean, prior, flip, start):
    differences = jnp.asarray(differences)
    dtype, dim = _arrays.compute_dtype(differences.dtype), differences.shape[-1]
    differences = differences.astype(dtype)
    prior = jnp.asarray(prior, dtype)
    prior = prior * jnp.eye(dim, dtype=dtype) if prior.ndim == 0 else prior
    mean = jnp.broadcast_to(jnp.asarray(mean, dtype), (dim,))
    start = mean if start is None else jnp.asarray(start, dtype)
    flip = jnp.broadcast_to(jnp.asarray(flip, dtype), differences.shape[:1])
    return differences, jnp.asarray(wins, dtype), jnp.asarray(counts, dtype), mean, prior, flip, start


@partial(jax.jit, static_argnames="flips")
def _fit(differences, wins, counts, mean, prior, flip, start, tol, max_steps, *, flips) -> BradleyTerryFit:
    differences = jnp.where(counts[:, None] > 0, differences, 0)
    unit = _units(differences, counts, prior)
    scaled = (prior * unit[:, None]) * unit[None]
    labels = _Labels(differences * unit[None], wins, counts, mean / unit, scaled, flip)
    first = start / unit
    if flips:
        clean = _ascend(labels._replace(flip=jnp.zeros_like(flip)), first, tol, max_steps, concave=True).parameter
        starts = jnp.concatenate([first[None], clean[None], _starts(labels)])
        ends = jax.vmap(lambda w: _ascend(labels, w, tol, max_steps, concave=False))(starts)
        values = jax.vmap(lambda end: _log_posterior(labels, end.parameter, end.margins))(ends)
        best = jnp.argmax(jnp.where(jnp.isnan(values), -jnp.inf, values))
        last = jax.tree.map(lambda a: a[best], ends)
    else:
        last = _ascend(labels, first, tol, max_steps, concave=True)
    final = _information(labels, last.margins)
    size = jnp.sqrt(jnp.diagonal(final))
    pivots = jnp.square(jnp.diagonal(cholesky_and_inverse(final / size[:, None] / size[None])[0]))
    regular = jnp.all(pivots > 16 * final.shape[0] * jnp.finfo(final.dtype).eps)  # NaN is not
    return BradleyTerryFit(
        last.parameter * unit,
        final / unit[:, None] / unit[None],
        _log_likelihood(last.margins, wins, counts, flip),
        last.steps,
        _reached(last, tol) & regular,
    )


class _Labels(NamedTuple):
    z: Array
    wins: Array
    counts: Array
    mean: Array
    prior: Array
    flip: Array


class _State(NamedTuple):
    parameter: Array
    margins: Array
    change: Array
    steps: Array


def _units(differences, counts, prior):
    """(d,) powers of two, so that with z * unit the diagonal of prior + sum_s n_s z_s z_s^T / 4 is 1 or below, and not
    far below; 1 for a column that is 0 in both. Exponents alone are computed with: nothing leaves the range of numbers.
    """

    none = -(2**20)

    def exponent(size):
        return jnp.where(size > 0, jnp.frexp(size)[1], none)

    half = jnp.frexp(jnp.sqrt(jnp.sum(counts)))[1] - 1  # sqrt(n / 4)
    data = exponent(jnp.max(jnp.abs(differences), axis=0, initial=0)) + half
    held = exponent(jnp.sqrt(jnp.diagonal(prior)))
    largest = jnp.maximum(data, held)
    limit = jnp.finfo(differences.dtype).maxexp - 2
    power = jnp.where(largest > none // 2, jnp.clip(-largest, -limit, limit), 0)
    return _arrays.exp2(power, differences.dtype)


def _starts(labels):
    """Random w whose margins have the root mean squares SPREADS: the same draws whatever the units.

    w = L^-T e with L L^T the information at margin 0: e is fixed, and L follows the units of the columns.
    """
    e = np.random.default_rng(0).standard_normal((len(SPREADS), labels.z.shape[1]))
    _, inverse = cholesky_and_inverse(_information(labels, jnp.zeros_like(labels.counts)))
    drawn = _arrays.contract("rd,de->re", jnp.asarray(e, labels.z.dtype), inverse)
    margins = _arrays.contract("sd,rd->rs", labels.z, drawn)
    mean = jnp.square(margins) @ labels.counts / jnp.sum(labels.counts)
    return drawn * (jnp.asarray(SPREADS, mean.dtype) / jnp.sqrt(mean))[:, None]


def _ascend(labels, start, tol, max_steps, *, concave) -> _State:
    z, wins, counts, mean, prior, flip = labels

    def more(state):
        return ~_reached(state, tol) & ~jnp.isnan(state.change) & (state.steps < max_steps)

    def newton(state):
        off = state.parameter - mean
        gradient = _slope(state.margins, wins, counts, flip) @ z - prior @ off
        _, inverse_factor = cholesky_and_inverse(_information(labels, state.margins))
        if not concave:
            curvature = _curvature(state.margins, wins, counts, flip)
            _, exact = cholesky_and_inverse(prior + sparse_information(z, curvature))
            inverse_factor = jnp.where(jnp.all(jnp.isfinite(exact)), exact, inverse_factor)
        step = inverse_factor.T @ (inverse_factor @ gradient)
        along = z @ step
        lengths = jnp.asarray(STEPS, z.dtype)
        linear, quadratic = off @ prior @ step, step @ prior @ step
        gains = jax.vmap(lambda t: _log_likelihood(state.margins + t * along, wins, counts, flip))(lengths)
        gains = gains - lengths * linear - lengths**2 * quadratic / 2
        rounding = 8 * jnp.finfo(z.dtype).eps * jnp.max(jnp.abs(gains))
        length = lengths[jnp.argmax(gains >= jnp.max(gains) - rounding)]  # the longest as good as the best to rounding
        change = length * jnp.max(jnp.abs(along), initial=0)
        fine = jnp.all(jnp.isfinite(step)) & jnp.all(jnp.isfinite(along))
        return _State(
            jnp.where(fine, state.parameter + length * step, state.parameter),
            jnp.where(fine, state.margins + length * along, state.margins),
            jnp.where(fine, change, jnp.nan),  # NaN ends the loop, not converged
            state.steps + 1,
        )

    first = _State(start, z @ start, jnp.asarray(jnp.inf, z.dtype), jnp.asarray(0))
    return lax.while_loop(more, newton, first)


def _reached(state, tol):
    """Rounding moves margins by that much whatever the step."""
    rounding = 8 * jnp.finfo(state.margins.dtype).eps * (1 + jnp.max(jnp.abs(state.margins), initial=0))
    return state.change <= jnp.maximum(tol, rounding)


def _information(labels, margins):
    weights = labels.counts * margin_information(margins, labels.flip)
    return labels.prior + sparse_information(labels.z, weights)


def _log_posterior(labels, parameter, margins):
    data = _log_likelihood(margins, labels.wins, labels.counts, labels.flip)
    off = parameter - labels.mean
    return data - off @ labels.prior @ off / 2


def log_choice(margins: Float[Array, "*s"], flip: Float[Array, "*#s"] | float = 0.0) -> Float[Array, "*s"]:
    """log p(u), p(u) = (1 - 2 eps) sigma(u) + eps = (1 - eps) sigma(u) + eps sigma(-u); stable at large margins."""
    flip = jnp.asarray(flip, jnp.result_type(margins))
    kept, turned = jnp.log1p(-flip), jnp.log(jnp.where(flip > 0, flip, 1))
    clean = jax.nn.log_sigmoid(margins)
    noisy = jnp.logaddexp(kept + clean, turned + jax.nn.log_sigmoid(-margins))
    return jnp.where(flip > 0, noisy, clean)


def _log_likelihood(margins, wins, counts, flip):
    terms = wins * log_choice(margins, flip) + (counts - wins) * log_choice(-margins, flip)
    return jnp.sum(jnp.where(counts > 0, terms, 0))


def _rates(margins, flip):
    """p' / p and p' / (1 - p), with p' = (1 - 2 eps) sigma'(u)."""
    slope = jnp.log1p(-2 * flip) + jax.nn.log_sigmoid(margins) + jax.nn.log_sigmoid(-margins)
    return jnp.exp(slope - log_choice(margins, flip)), jnp.exp(slope - log_choice(-margins, flip))


def _slope(margins, wins, counts, flip):
    """d log likelihood / d u of each row: p' [wins / p - (n - wins) / (1 - p)]."""
    up, down = _rates(margins, flip)
    return wins * up - (counts - wins) * down


def _curvature(margins, wins, counts, flip):
    """-d^2 log likelihood / d u^2 of each row, from p'' = -tanh(u/2) p'; may be negative where labels flip."""
    up, down = _rates(margins, flip)
    turn = jnp.tanh(margins / 2)
    return wins * up * (up + turn) + (counts - wins) * down * (down - turn)
