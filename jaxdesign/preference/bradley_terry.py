"""Maximum likelihood, or posterior mode, of a Bradley-Terry reward parameter: DPO, for a log-linear policy.

A label of the pair (p, i, j) says that i is preferred with probability p(u) = (1 - 2 eps) sigma(u) + eps, u = z . w,
where z = phi_pi - phi_pj, w = beta (theta - theta_ref) is the reward parameter and eps the probability that a label is
reversed. For policies pi_theta prop. to pi_ref exp((theta - theta_ref) . phi), minimising the DPO loss over theta is
exactly this maximum likelihood (arXiv 2305.18290, 2606.19607); beta only names the same w.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._cholesky import cholesky_and_inverse
from jaxdesign.information import margin_information, sparse_information

STEPS = 2.0 ** -np.arange(0, 12)  # step lengths tried along a Newton direction


class BradleyTerryFit(NamedTuple):
    """What `fit_bradley_terry` found.

    parameter: w (d,), so that a completion's score is phi . w. information: prior + sum_s n_s c(u_s) z_s z_s^T at w,
    (d, d). log_likelihood: of the labels, without the prior. converged: whether the last step moved no margin by more
    than the tolerance; False where labels can be separated (then no finite maximum exists without a prior) or where
    the information is singular to working precision (then w is not the only maximum, or NaN).
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
    """w that maximises sum_s [wins_s log p(u_s) + (n_s - wins_s) log(1 - p(u_s))] - w^T prior w / 2, u = z w.

    Newton steps with the expected information, A = prior + sum_s n_s c(u_s) z_s z_s^T (the Hessian itself where
    flip = 0), each with the best of twelve step lengths; concave for flip = 0, so the maximum is the only one.

    Args:
        differences: z, (S, d), one row per labelled pair.
        wins: (S,) labels that prefer the first completion; may be fractional (a tie counts half, or weights).
        counts: n, (S,) labels of each pair, wins <= n; 0 for rows that are padding.
        prior: precision of a normal prior around w = 0 in the units of A: (d, d), or a scalar ridge.
        flip: eps, scalar or (S,), at least 0 and below 1/2.
        start: w to start from; None: 0.
        tol: largest change of a margin by the last step, or what rounding moves margins by where that is more.
        max_steps: Newton steps at most.

    Returns:
        BradleyTerryFit of JAX arrays in float64; in the dtype of `differences` inside of jit.

    Raises:
        ValueError: shapes that do not match, NaN or inf, wins outside of [0, n], flip outside of [0, 1/2), a prior
            that is not positive semidefinite (values are checked outside of jit only).

    Complexity: about 2 S d^2 + 2 d^3 floating-point operations a step, 5 to 8 steps. Traceable; vmap over wins to fit
    many repetitions of the same labels.
    """
    if _arrays.is_traced(differences, wins, counts, prior, flip, start):
        return _fit(*_as_arrays(differences, wins, counts, prior, flip, start), tol, max_steps)
    given = [np.asarray(a, np.float64) for a in (differences, wins, counts, flip)]
    differences, wins, counts, flip = given
    _checks.rank(differences, (2,), "differences", "(pairs S, dimension d)")
    for value, name in ((wins, "wins"), (counts, "counts")):
        _checks.same_shape(value.shape, differences.shape[:1], name, "one number per row of differences")
        _checks.finite(value, name)
    _checks.finite(differences, "differences", axes=("pair", "dimension"))
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
        _checks.finite(start, "start")
    prior = np.asarray(prior, np.float64)
    prior = float(prior) * np.eye(dim) if prior.ndim == 0 else prior
    prior = _checks.symmetric_psd(prior, dim, "prior")
    with _arrays.float64():
        arrays = _as_arrays(differences, wins, counts, prior, flip, start)
        return _fit(*arrays, tol, max_steps)


def _as_arrays(differences, wins, counts, prior, flip, start):
    differences = jnp.asarray(differences)
    dtype, dim = differences.dtype, differences.shape[-1]
    prior = jnp.asarray(prior, dtype)
    prior = prior * jnp.eye(dim, dtype=dtype) if prior.ndim == 0 else prior
    start = jnp.zeros(dim, dtype) if start is None else jnp.asarray(start, dtype)
    flip = jnp.broadcast_to(jnp.asarray(flip, dtype), differences.shape[:1])
    return differences, jnp.asarray(wins, dtype), jnp.asarray(counts, dtype), prior, flip, start


class _State(NamedTuple):
    parameter: Array
    margins: Array
    change: Array
    steps: Array


@jax.jit
def _fit(differences, wins, counts, prior, flip, start, tol, max_steps) -> BradleyTerryFit:
    def information(margins):
        return prior + sparse_information(differences, counts * margin_information(margins, flip))

    def reached(state):  # rounding moves margins by this much whatever the step
        rounding = 8 * jnp.finfo(differences.dtype).eps * (1 + jnp.max(jnp.abs(state.margins), initial=0))
        return state.change <= jnp.maximum(tol, rounding)

    def more(state):
        return ~reached(state) & ~jnp.isnan(state.change) & (state.steps < max_steps)

    def newton(state):
        slope = _slope(state.margins, wins, counts, flip)
        gradient = slope @ differences - prior @ state.parameter
        _, inverse_factor = cholesky_and_inverse(information(state.margins))
        step = inverse_factor.T @ (inverse_factor @ gradient)
        along = differences @ step
        lengths = jnp.asarray(STEPS, differences.dtype)
        straight, bent = state.parameter @ prior @ step, step @ prior @ step
        gains = jax.vmap(lambda t: _log_likelihood(state.margins + t * along, wins, counts, flip))(lengths)
        gains = gains - lengths * straight - lengths**2 * bent / 2
        length = lengths[jnp.argmax(gains)]
        change = jnp.max(jnp.where(counts > 0, jnp.abs(along), 0), initial=0)
        change = jnp.where(jnp.isfinite(change), change, jnp.nan)  # NaN ends the loop, not converged
        return _State(state.parameter + length * step, state.margins + length * along, length * change, state.steps + 1)

    first = _State(start, differences @ start, jnp.asarray(jnp.inf, differences.dtype), jnp.asarray(0))
    last = lax.while_loop(more, newton, first)
    final = information(last.margins)
    pivots = jnp.square(jnp.diagonal(cholesky_and_inverse(final)[0]))
    regular = jnp.min(pivots) > 16 * final.shape[0] * jnp.finfo(final.dtype).eps * jnp.max(jnp.diagonal(final))
    return BradleyTerryFit(
        last.parameter,
        final,
        _log_likelihood(last.margins, wins, counts, flip),
        last.steps,
        reached(last) & regular,
    )


def log_choice(margins: Float[Array, " s"], flip: Float[Array, " s"] | float = 0.0) -> Float[Array, " s"]:
    """log p(u), p(u) = (1 - 2 eps) sigma(u) + eps = (1 - eps) sigma(u) + eps sigma(-u); stable at large margins."""
    flip = jnp.asarray(flip, jnp.result_type(margins))
    kept, turned = jnp.log1p(-flip), jnp.log(jnp.where(flip > 0, flip, 1))
    clean = jax.nn.log_sigmoid(margins)
    noisy = jnp.logaddexp(kept + clean, turned + jax.nn.log_sigmoid(-margins))
    return jnp.where(flip > 0, noisy, clean)


def _log_likelihood(margins, wins, counts, flip):
    terms = wins * log_choice(margins, flip) + (counts - wins) * log_choice(-margins, flip)
    return jnp.sum(jnp.where(counts > 0, terms, 0))


def _slope(margins, wins, counts, flip):
    """d log likelihood / d u of each row: p' [wins / p - (n - wins) / (1 - p)], with p' = (1 - 2 eps) sigma'(u)."""
    slope = jnp.log1p(-2 * flip) + jax.nn.log_sigmoid(margins) + jax.nn.log_sigmoid(-margins)
    up, down = jnp.exp(slope - log_choice(margins, flip)), jnp.exp(slope - log_choice(-margins, flip))
    return wins * up - (counts - wins) * down
