"""How reliable each annotator is, estimated together with the reward they judge by: EM in the form of RE-PO.

Annotator k's label is the preference of the Bradley-Terry model, p(u) = sigma(z . w), with probability eta_k and its
reverse with probability 1 - eta_k. With p_i the model's probability of label i as it was given (arXiv 2509.24159):

    E-step   w_i = p_i eta_k / (p_i eta_k + (1 - p_i)(1 - eta_k))        the probability that label i is not reversed
    M-step   w maximises sum_i w_i log p_i + (1 - w_i) log(1 - p_i),     eta_k <- mean of its labels' w_i, or an EMA

Identifiability: (w, eta) and (-w, 1 - eta) give every label the same probability, so the data cannot tell a crowd that
is right from one that is always wrong; the start, eta = 0.9, settles it in favour of the majority. An annotator whose
eta then comes out below 1/2 is adversarial: their labels are informative turned round and harmful as they are. Nothing
at all is known about eta where all margins are 0 (`standard_error` is then inf).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdesign import _arrays, _checks
from jaxdesign.annotators import Annotators
from jaxdesign.information import margin_information, pair_differences, sparse_information
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.bradley_terry import fit_bradley_terry, log_choice
from jaxdesign.preference.labels import FIRST, SECOND, SKIP, TIE, Labels, check_labels

LARGEST_FLIP = 0.49  # what an annotator no better than chance enters a design with


class Reliability(NamedTuple):
    """What `estimate_reliability` found; float64 on the host.

    Args:
        eta: (A,) probability that a label is not reversed; NaN for an annotator without a judgement.
        standard_error: (A,) of eta, with w as uncertain as it is; inf where the labels say nothing about it.
        parameter: w (d,), so that a completion's score is phi . w.
        information: (d, d) about w: prior + sum over labels of c z z^T, c with the label's flip 1 - eta.
        responsibilities: (n,) w_i, the probability that a label is not reversed; NaN for ties and skips.
        log_likelihood: (iterations + 1,) before the first step and after each: of the labels, plus what the priors add.
        iterations: EM steps taken.
        converged: whether the last step moved no eta and no margin by more than the tolerance.
    """

    eta: Float[np.ndarray, " a"]
    standard_error: Float[np.ndarray, " a"]
    parameter: Float[np.ndarray, " d"]
    information: Float[np.ndarray, "d d"]
    responsibilities: Float[np.ndarray, " n"]
    log_likelihood: Float[np.ndarray, " t"]
    iterations: int
    converged: bool


def estimate_reliability(
    pool: CompletionPool,
    labels: Labels,
    *,
    annotators: int | None = None,
    prior: Any = 0.0,
    pseudo_labels: tuple[float, float] = (0.0, 0.0),
    start: Any = 0.9,
    ema: float = 1.0,
    tol: float = 1e-6,
    max_iterations: int = 2000,
) -> Reliability:
    """EM from labels of several annotators, best where they label the same pairs or share features.

    Args:
        pool: the pool whose features say what a reward can be; its scores and flips are not used.
        labels: at least one judgement. A tie is half a win each way in the fit of w and says nothing about eta.
        annotators: A, how many there are; None for one more than the largest number found.
        prior: precision of a normal prior around w = 0, (d, d) or a scalar ridge.
        pseudo_labels: (right, reversed), labels that every annotator is taken to have given before: a Beta prior that
            keeps the eta of somebody with few labels from 0 and 1. (0, 0): maximum likelihood.
        start: eta to start from, a number or (A,); see the head of this file.
        ema: in (0, 1]: eta <- (1 - ema) eta + ema mean w. 1 is plain EM, whose log_likelihood never decreases; the
            paper takes 0.1, for minibatches. The fixed points are the same.
        tol: on the change of every eta and every margin in a step.
        max_iterations: EM steps at most; where reward and reliability are hard to tell apart it takes hundreds.

    Returns:
        Reliability.

    Raises:
        ValueError: labels that are none of this pool, no judgement at all, parameters out of range.

    Complexity: a few Newton steps of `fit_bradley_terry` per EM step, all in one compiled loop, in float64.
    """
    check_labels(labels, pool, annotators)
    pairs, choices, who = (np.asarray(a) for a in labels)
    if not (choices != SKIP).any():
        raise ValueError("labels: none is a judgement (all are skips, or there are none); reliability needs some")
    if annotators is not None and (isinstance(annotators, bool) or not isinstance(annotators, int | np.integer)):
        raise TypeError(f"annotators={annotators!r}: must be an integer, how many there are")
    count = int(who.max()) + 1 if annotators is None else int(annotators)
    start, pseudo = _checked(start, pseudo_labels, ema, count)
    rows, place = np.unique(np.column_stack([pairs, who]), axis=0, return_inverse=True)
    place = place.ravel()
    seen = np.stack([np.bincount(place[choices == c], minlength=len(rows)) for c in (FIRST, SECOND, TIE)], axis=1)
    unique, row_pair = np.unique(rows[:, :3], axis=0, return_inverse=True)
    prior = np.asarray(prior, np.float64)
    prior = _checks.symmetric_psd(prior if prior.ndim else prior * np.eye(pool.dim), pool.dim, "prior")
    room, rest = (_arrays.power_of_two(len(a)) - len(a) for a in (unique, rows))
    filled = np.pad(unique.astype(np.int32), ((0, room), (0, 0)), mode="edge")
    z = np.asarray(pair_differences(pool, filled), np.float64)
    with _arrays.float64():
        given = (
            jnp.asarray(z),
            *(np.pad(a, (0, rest)) for a in (row_pair.ravel(), rows[:, 3])),
            np.pad(seen.astype(np.float64), ((0, rest), (0, 0))),  # padding is nobody's label
            prior,
            pseudo,
            start,
        )
        last, trace = _em(*given, ema, tol, max_iterations=max_iterations)
        info, *by_row = (np.asarray(a) for a in _summary(*given[:4], last.eta, last.parameter))
        info, eta = prior + info, np.asarray(last.eta)
    margins, up, down = (a[: len(rows)] for a in by_row)
    flips, judged = 1 - eta[rows[:, 3]], seen[:, :2].sum(axis=1)
    right = np.where(choices == SECOND, down[place], up[place])
    held = np.bincount(who[choices < TIE], minlength=count) > 0
    error = _standard_errors(z[row_pair.ravel()], margins, flips, judged, rows[:, 3], info, held)
    steps = int(last.steps)
    return Reliability(
        np.where(held, eta, np.nan),
        error,
        np.asarray(last.parameter),
        info,
        np.where(choices < TIE, right, np.nan),
        np.asarray(trace)[: steps + 1],
        steps,
        float(last.change) <= tol,
    )


def flip_of(eta: Any, largest: float = LARGEST_FLIP) -> Float[np.ndarray, " a"]:
    """Flip probabilities 1 - eta for designs and fits, clipped to [0, largest].

    Clipping gives an adversarial annotator (eta below 1/2), and one nothing is known about (NaN), the weight of one no
    better than chance: a design then buys nothing from them. It does not turn their labels round.

    Args:
        eta: (A,) reliabilities, NaN allowed.
        largest: below 1/2, where the information of a label is 0.

    Returns:
        (A,) float64.

    Raises:
        ValueError: largest outside of [0, 1/2).
    """
    if not 0 <= largest < 0.5:
        raise ValueError(f"largest={largest:g}: must be in [0, 1/2); at 1/2 a label carries no information")
    flip = np.clip(1 - np.asarray(eta, np.float64), 0, largest)
    return np.where(np.isnan(flip), largest, flip)


def reliable_annotators(eta: Any, *, largest: float = LARGEST_FLIP, **options) -> Annotators:
    """Annotators for the next design, with the noise that was estimated.

    Args:
        eta: (A,) reliabilities; see `flip_of`.
        largest: flip that worse ones are clipped to.
        options: cost, at_most, at_least, names of `jaxdesign.Annotators`.

    Returns:
        Annotators.

    Raises:
        ValueError: as `flip_of` and `Annotators`.
    """
    return Annotators(flip=flip_of(eta, largest), **options)


def with_estimated_flip(
    pool: CompletionPool, eta: Any, shares: Any = None, *, largest: float = LARGEST_FLIP
) -> CompletionPool:
    """The pool with the noise of a label by an annotator drawn by `shares`: its flip is the mean of theirs.

    Args:
        pool: any pool; a flip it has is replaced.
        eta: (A,) reliabilities; see `flip_of`.
        shares: (A,) how often each labels, None for equally.
        largest: flip that worse ones are clipped to.

    Returns:
        CompletionPool.

    Raises:
        ValueError: shares that are negative or all 0, and as `flip_of`.
    """
    flip = flip_of(eta, largest)
    shares = np.ones(flip.shape) if shares is None else np.asarray(shares, np.float64)
    _checks.same_shape(shares.shape, flip.shape, "shares", "(A,), one per annotator")
    if not ((shares >= 0).all() and shares.sum() > 0):
        raise ValueError(f"shares: {shares} found; must be at least 0 and not all 0")
    return CompletionPool(pool.features, pool.scores, pool.mask, pool.ids, flip=float(flip @ shares / shares.sum()))


class _State(NamedTuple):
    eta: Any
    parameter: Any
    change: Any
    steps: Any


@partial(jax.jit, static_argnames="max_iterations")
def _em(z, row_pair, row_who, seen, prior, pseudo, start, ema, tol, *, max_iterations):
    first, second, ties = seen.T
    given = jnp.zeros(len(start)).at[row_who].add(first + second)
    counts = jnp.zeros(len(z)).at[row_pair].add(first + second + ties)

    def objective(parameter, eta):
        u, flip = (z @ parameter)[row_pair], 1 - eta[row_who]
        labels = jnp.where(first > 0, first * log_choice(u, flip), 0) + jnp.where(
            second > 0, second * log_choice(-u, flip), 0
        )
        half = ties / 2 * (jax.nn.log_sigmoid(u) + jax.nn.log_sigmoid(-u))
        beta = jax.scipy.special.xlogy(pseudo[0], eta) + jax.scipy.special.xlogy(pseudo[1], 1 - eta)
        return jnp.sum(labels + half) + jnp.sum(beta) - parameter @ prior @ parameter / 2

    def refit(parameter, eta):
        u = (z @ parameter)[row_pair]
        up, down = _right(u, eta[row_who]), _right(-u, eta[row_who])
        wins = jnp.zeros(len(z)).at[row_pair].add(first * up + second * (1 - down) + ties / 2)
        right = jnp.zeros(len(eta)).at[row_who].add(first * up + second * down)
        mean = (right + pseudo[0]) / (given + pseudo[0] + pseudo[1])
        # fit_bradley_terry takes no wins beyond counts, not even by rounding
        found = fit_bradley_terry(z, jnp.clip(wins, 0, counts), counts, prior=prior, start=parameter)
        return found.parameter, jnp.where(given > 0, (1 - ema) * eta + ema * mean, eta)

    def step(carry):
        state, trace = carry
        begin = state.steps < 0  # the first fit of w takes the labels as they are; one program serves it too
        parameter, eta = refit(state.parameter, jnp.where(begin, 1.0, state.eta))
        eta = jnp.where(begin, start, eta)
        moved = jnp.max(jnp.abs(z @ (parameter - state.parameter)))
        change = jnp.where(begin, jnp.inf, jnp.maximum(moved, jnp.max(jnp.abs(eta - state.eta))))
        steps = state.steps + 1
        return _State(eta, parameter, change, steps), trace.at[steps].set(objective(parameter, eta))

    def more(carry):
        return (carry[0].change > tol) & (carry[0].steps < max_iterations)  # NaN ends the loop, not converged

    state = _State(start, jnp.zeros(z.shape[1]), jnp.asarray(jnp.inf), jnp.asarray(-1))
    return jax.lax.while_loop(more, step, (state, jnp.zeros(max_iterations + 1)))


@jax.jit
def _summary(z, row_pair, row_who, seen, eta, parameter):
    """Information of labels with the flips 1 - eta (ties have none); of each row the margin and w, for both choices."""
    margins = (z @ parameter)[row_pair]
    c = margin_information(margins, 1 - eta[row_who]) * (seen[:, 0] + seen[:, 1])
    c = c + margin_information(margins) * seen[:, 2]
    info = sparse_information(z, jnp.zeros(len(z)).at[row_pair].add(c))
    return info, margins, _right(margins, eta[row_who]), _right(-margins, eta[row_who])


def _right(margin, eta):
    """w = p eta / (p eta + (1 - p)(1 - eta)) with p = sigma(margin), margin in the direction of the label."""
    return jax.nn.sigmoid(margin + jnp.log(eta) - jnp.log1p(-eta))


def _standard_errors(z, margins, flips, judged, who, info, held):
    """Of eta, from the joint information of w and eta: the inverse of D - B^T A^-1 B, A = info that of w.

    A label's probability q = eta p + (1 - eta)(1 - p) has slopes dq/deta = 2 p - 1 and dq/du = (2 eta - 1) p (1 - p);
    products of them over q (1 - q) are summed into D (eta, eta) and B (w, eta).
    """
    p = 1 / (1 + np.exp(-np.clip(margins, -700, 700)))
    q = (1 - flips) * p + flips * (1 - p)
    per_label = judged * (2 * p - 1) / np.maximum(q * (1 - q), 1e-300)
    own = np.bincount(who, per_label * (2 * p - 1), len(held))
    error, some = np.full(len(held), np.inf), held & (own > 1e-12)
    if not some.any() or not np.isfinite(info).all():
        return error
    shared = (per_label * (1 - 2 * flips) * p * (1 - p))[:, None] * z
    cross = np.stack([shared[who == k].sum(axis=0) for k in np.flatnonzero(some)], axis=1) / np.sqrt(own[some])
    spectrum, vectors = np.linalg.eigh(np.eye(cross.shape[1]) - cross.T @ np.linalg.pinv(info, hermitian=True) @ cross)
    variance = vectors**2 @ (1 / np.maximum(spectrum, 1e-12)) / own[some]
    error[some] = np.where(variance * own[some] < 1e6, np.sqrt(variance), np.inf)
    return error


def _checked(start, pseudo_labels, ema, count):
    start = np.asarray(start, np.float64)
    if start.ndim:
        _checks.same_shape(start.shape, (count,), "start", "a number, or one per annotator")
    start = np.broadcast_to(start, (count,))
    if not ((start > 0) & (start <= 1)).all():
        raise ValueError(f"start: {start[np.argmin((start > 0) & (start <= 1))]:g} found; must be in (0, 1]")
    pseudo = np.asarray(pseudo_labels, np.float64)
    if pseudo.shape != (2,) or not (np.isfinite(pseudo) & (pseudo >= 0)).all():
        raise ValueError(f"pseudo_labels: {pseudo_labels} found; expected two numbers of at least 0, (right, reversed)")
    if not 0 < ema <= 1:
        raise ValueError(f"ema={ema:g}: must be in (0, 1]; 1 is plain EM")
    return start, pseudo
