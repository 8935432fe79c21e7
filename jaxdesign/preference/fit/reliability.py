"""How reliable each annotator is, estimated together with the reward they judge by: EM in the form of RE-PO.

Annotator k's label is the preference of the Bradley-Terry model, p(u) = sigma(z . w), with probability eta_k and its
reverse with probability 1 - eta_k. With p_i the model's probability of label i as it was given (arXiv 2509.24159):

    E-step   w_i = p_i eta_k / (p_i eta_k + (1 - p_i)(1 - eta_k))        the probability that label i is not reversed
    M-step   w maximises sum_i w_i log p_i + (1 - w_i) log(1 - p_i),     eta_k <- mean of its labels' w_i, or an EMA

Identifiability: (w, eta) and (-w, 1 - eta) give every label the same probability, so the data cannot tell a crowd that
is right from one that is always wrong; the start, eta = 0.9, settles it in favour of the majority. An annotator whose
eta then comes out below 1/2 is adversarial: their labels are informative when reversed and harmful as they are. eta = 1
is a fixed point of the E-step whatever the labels say, so no start may be there.

The uncertainty of eta is that of its posterior, not of a curvature, which is no guide at 0 and 1. With pseudo-labels
(a, b) the prior density is prop. to eta^a (1 - eta)^b, flat at (0, 0). Given w, the posterior of annotator k is

    p(eta_k) prop. to eta_k^a (1 - eta_k)^b prod_i [eta_k p_i + (1 - eta_k)(1 - p_i)]           over the labels i of k

whose logarithm is concave; mean and variance come from quadrature. One label at p_i = 1 leaves Beta(2, 1): mean 2/3,
deviation 0.236, although the most likely eta is 1. That w is estimated too raises the variance by the factor
[(I - D^-1/2 B^T A^-1 B D^-1/2)^-1]_kk of the joint Fisher information (A that of w, D that of eta, B between), up to
the variance of the prior: more is not known where labels cannot tell w and eta apart. Derived; checked by
tests/preference/fit/test_reliability_errors.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign.annotators import Annotators
from jaxdesign.belief import as_belief
from jaxdesign.information import margin_information, pair_differences, sparse_information
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.fit.bradley_terry import fit_bradley_terry, log_choice
from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE, Labels, check_labels

LARGEST_FLIP = 0.49  # what an annotator no better than chance enters a design with


class Reliability(NamedTuple):
    """What `estimate_reliability` found; float64 on the host.

    Args:
        eta: (A,) most likely probability that a label is not reversed; NaN for an annotator without a judgement.
        standard_error: (A,) posterior standard deviation of eta, with w as uncertain as it is; that of the prior for an
            annotator without a judgement.
        parameter: w (d,), so that a completion's score is phi . w.
        information: (d, d) about w: prior + sum over labels of c z z^T, c with the label's flip 1 - eta.
        responsibilities: (n,) w_i, the probability that a label is not reversed; NaN for ties and skips.
        log_likelihood: (iterations + 1,) before the first step and after each: of the labels, plus what the priors add.
        iterations: EM steps taken.
        converged: whether the last step found w and moved no eta and no margin by more than the tolerance. False where
            labels can be separated and there is no prior: w is on its way to infinity, and only its direction counts.
        posterior_mean: (A,) of eta: what to expect of an annotator with few labels, whose eta may be 1.
        annotators: (A,) the numbers that eta and the rest belong to.
    """

    eta: Float[np.ndarray, " a"]
    standard_error: Float[np.ndarray, " a"]
    parameter: Float[np.ndarray, " d"]
    information: Float[np.ndarray, "d d"]
    responsibilities: Float[np.ndarray, " n"]
    log_likelihood: Float[np.ndarray, " t"]
    iterations: int
    converged: bool
    posterior_mean: Float[np.ndarray, " a"]
    annotators: Int[np.ndarray, " a"]


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
        annotators: A, how many there are, so that results are those of annotators 0 to A - 1; None: of those found in
            the labels, in the order of their numbers, which may be any (`annotators` of the result holds them).
        prior: of w, as in `fit_bradley_terry`. Without one there is no finite w where labels can be separated.
        pseudo_labels: (right, reversed), labels that every annotator is taken to have given before: a Beta prior that
            keeps the eta of somebody with few labels from 0 and 1. (0, 0): maximum likelihood.
        start: eta to start from, a number or (A,), from 0.001 to 0.999; see the head of this file.
        ema: in (0, 1]: eta <- (1 - ema) eta + ema mean w. 1 is plain EM, whose log_likelihood never decreases; the
            paper takes 0.1, for minibatches. The fixed points are the same.
        tol: on the change of every margin in a step, and of every eta in one of plain EM.
        max_iterations: EM steps at most; where reward and reliability are hard to tell apart it takes hundreds.

    Returns:
        Reliability.

    Raises:
        TypeError: annotators that is no integer.
        ValueError: labels of pairs outside of this pool, no judgement at all, parameters out of range.

    Complexity: a few Newton steps of `fit_bradley_terry` per EM step, all in one compiled loop, in float64; then 200
    passes over the rows (pair, annotator) for the posteriors.

    Source: RE-PO, arXiv 2509.24159, checked by tests/preference/fit/test_reliability_em.py; posteriors of eta are
    derived; checked by tests/preference/fit/test_reliability_errors.py.
    """
    check_labels(labels, pool, annotators)
    pairs, choices, who = (np.asarray(a) for a in labels)
    if not (choices != SKIP).any():
        raise ValueError("labels: no judgement found (all are skips, or there is no label); reliability needs some")
    if annotators is not None and (isinstance(annotators, bool) or not isinstance(annotators, int | np.integer)):
        raise TypeError(f"annotators={annotators!r}: must be an integer, how many there are")
    found, who = np.unique(who, return_inverse=True)
    numbers = found if annotators is None else np.arange(int(annotators))
    start, pseudo = _checked(start, pseudo_labels, ema, len(numbers))
    here = np.searchsorted(numbers, found)  # everything below is about those who labelled
    count, start = len(found), start[here]
    rows, place = np.unique(np.column_stack([pairs, who]), axis=0, return_inverse=True)
    place = place.ravel()
    seen = np.stack([np.bincount(place[choices == c], minlength=len(rows)) for c in (FIRST, SECOND, TIE)], axis=1)
    unique, row_pair = np.unique(rows[:, :3], axis=0, return_inverse=True)
    prior = as_belief(prior, pool.dim)
    padding, row_padding = (_arrays.power_of_two(len(a)) - len(a) for a in (unique, rows))
    filled = np.pad(unique.astype(np.int32), ((0, padding), (0, 0)), mode="edge")
    z = np.asarray(pair_differences(pool, filled), np.float64)
    with _arrays.float64():
        given = (
            jnp.asarray(z),
            *(np.pad(a, (0, row_padding)) for a in (row_pair.ravel(), rows[:, 3])),
            np.pad(seen.astype(np.float64), ((0, row_padding), (0, 0))),  # padding is nobody's label
            prior,
            pseudo,
            start,
        )
        last, trace = _em(*given, ema, tol, max_iterations=max_iterations)
        info, *by_row = (np.asarray(a) for a in _summary(*given[:4], last.eta, last.parameter))
        info, eta = prior.precision + info, np.asarray(last.eta)
    margins, up, down = (a[: len(rows)] for a in by_row)
    flips, judged = 1 - eta[rows[:, 3]], seen[:, :2].sum(axis=1)
    right = np.where(choices == SECOND, down[place], up[place])
    held = np.bincount(who[choices < TIE], minlength=count) > 0
    a, b = pseudo + 1
    variance = np.full(len(numbers), a * b / ((a + b) ** 2 * (a + b + 1)))  # of the prior, Beta(a, b)
    mean = np.full(len(numbers), a / (a + b))
    mean[here], own = _eta_posterior(margins, seen[:, :2], rows[:, 3], pseudo, count)
    inflation = _inflation(z[row_pair.ravel()], margins, flips, judged, rows[:, 3], info, held)
    variance[here] = np.minimum(own * inflation, np.maximum(own, variance[here]))
    every = np.full(len(numbers), np.nan)
    every[here] = np.where(held, eta, np.nan)
    steps = int(last.steps)
    return Reliability(
        every,
        np.sqrt(variance),
        np.asarray(last.parameter),
        info,
        np.where(choices < TIE, right, np.nan),
        np.asarray(trace)[: steps + 1],
        steps,
        float(last.change) <= tol and bool(last.solved),
        mean,
        numbers,
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

    Source: derived; checked by tests/preference/fit/test_reliability_designs.py.
    """
    if not 0 <= largest < 0.5:
        raise ValueError(f"largest={largest:g}: must be in [0, 1/2); at 1/2 a label carries no information")
    flip = np.clip(1 - np.asarray(eta, np.float64), 0, largest)
    return np.where(np.isnan(flip), largest, flip)


def reliable_annotators(eta: Any, *, largest: float = LARGEST_FLIP, **options: Any) -> Annotators:
    """Annotators for the next design, with the noise that was estimated.

    Args:
        eta: (A,) reliabilities; see `flip_of`.
        largest: flip that worse ones are clipped to.
        options: cost, at_most, at_least, names of `jaxdesign.Annotators`.

    Returns:
        Annotators.

    Raises:
        ValueError: as `flip_of` and `Annotators`.

    Source: derived; checked by tests/preference/fit/test_reliability_designs.py.
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

    Source: derived; checked by tests/preference/fit/test_reliability_designs.py.
    """
    flip = flip_of(eta, largest)
    shares = np.ones(flip.shape) if shares is None else np.asarray(shares, np.float64)
    _checks.same_shape(shares.shape, flip.shape, "shares", "(A,), one per annotator")
    if not (np.isfinite(shares).all() and (shares >= 0).all() and shares.any()):
        raise ValueError(f"shares: {shares} found; must be finite, at least 0 and not all 0")
    mean = float(flip @ (shares / shares.max()) / (shares / shares.max()).sum())
    return CompletionPool(pool.features, pool.scores, pool.mask, pool.ids, mean, pool.residual)


class _State(NamedTuple):
    eta: Any
    parameter: Any
    change: Any
    solved: Any
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
        off = parameter - prior.mean
        return jnp.sum(labels + half) + jnp.sum(beta) - off @ prior.precision @ off / 2

    def refit(parameter, eta):
        u = (z @ parameter)[row_pair]
        up, down = _right(u, eta[row_who]), _right(-u, eta[row_who])
        wins = jnp.zeros(len(z)).at[row_pair].add(first * up + second * (1 - down) + ties / 2)
        right = jnp.zeros(len(eta)).at[row_who].add(first * up + second * down)
        mean = (right + pseudo[0]) / (given + pseudo[0] + pseudo[1])
        # fit_bradley_terry takes no wins beyond counts, not even by rounding
        found = fit_bradley_terry(z, jnp.clip(wins, 0, counts), counts, prior=prior, start=parameter)
        return found, jnp.where(given > 0, mean, eta)

    def step(carry):
        state, trace = carry
        begin = state.steps < 0  # the first fit of w takes the labels as they are; one program serves it too
        found, mean = refit(state.parameter, jnp.where(begin, 1.0, state.eta))
        eta = jnp.where(begin, start, (1 - ema) * state.eta + ema * mean)
        parts = z @ (found.parameter - state.parameter), mean - state.eta  # a small average is no convergence
        change = jnp.maximum(*(jnp.max(jnp.abs(part)) for part in parts))
        fine = jnp.all(jnp.isfinite(parts[0])) & jnp.all(jnp.isfinite(parts[1]))  # a maximum may drop NaN
        change = jnp.where(begin, jnp.inf, jnp.where(fine, change, jnp.nan))
        state = _State(eta, found.parameter, change, found.converged, state.steps + 1)
        return state, trace.at[state.steps].set(objective(found.parameter, eta))

    def more(carry):
        return (carry[0].change > tol) & (carry[0].steps < max_iterations)  # NaN ends the loop, not converged

    state = _State(start, jnp.zeros(z.shape[1]), jnp.asarray(jnp.inf), jnp.asarray(False), jnp.asarray(-1))
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


def _eta_posterior(margins, seen, who, pseudo, count):
    """Mean and variance of every annotator's eta given the margins, by quadrature of the density in the file's head.

    Its logarithm is concave: bisection finds the mode, then where it has fallen by 40 on either side (or the end of
    [0, 1]), and each side is integrated by Gauss-Legendre.
    """
    p, other = (1 / (1 + np.exp(-sign * np.clip(margins, -700, 700))) for sign in (1, -1))

    def chances(eta):
        eta = eta[who]
        return eta * p + (1 - eta) * other, eta * other + (1 - eta) * p

    def log_density(eta):
        own = np.bincount(who, (seen * np.log(np.stack(chances(eta), axis=1))).sum(axis=1), count)
        return own + pseudo[0] * np.log(eta) + pseudo[1] * np.log1p(-eta)

    def rises(eta):
        first, second = chances(eta)
        slope = np.bincount(who, (seen[:, 0] / first - seen[:, 1] / second) * (p - other), count)
        return slope + pseudo[0] / eta - pseudo[1] / (1 - eta) > 0

    end = np.full(count, np.nextafter(1, 0))  # logarithms are finite inside
    mode = _bisected(rises, np.zeros(count), end, 40)
    top = log_density(mode)
    least = _bisected(lambda eta: log_density(eta) < top - 40, np.zeros(count), mode, 25)
    largest = _bisected(lambda eta: log_density(eta) > top - 40, mode, end, 25)
    nodes, weights = np.polynomial.legendre.leggauss(48)
    moments = np.zeros((3, count))
    for low, high in ((least, mode), (mode, largest)):
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            eta = low + (high - low) * node
            mass = weight * (high - low) * np.exp(log_density(eta) - top)
            moments += mass * np.stack([np.ones(count), eta - mode, (eta - mode) ** 2])
    shift = moments[1] / moments[0]
    return mode + shift, moments[2] / moments[0] - shift**2


def _bisected(below, low, high, steps):
    """Where `below` turns from true to false between low and high, each its own; the middle of the last interval."""
    for _ in range(steps):
        middle = (low + high) / 2
        left = below(middle)
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    return (low + high) / 2


def _inflation(z, margins, flips, judged, who, info, held):
    """By how much the variance of eta grows as w is estimated too, at least 1: see the head of this file.

    A label's probability q = eta p + (1 - eta)(1 - p) has slopes dq/deta = 2 p - 1 and dq/du = (2 eta - 1) p (1 - p);
    products of them over q (1 - q) are summed into D (eta, eta) and B (w, eta).
    """
    p, other = (1 / (1 + np.exp(-sign * np.clip(margins, -300, 300))) for sign in (1, -1))
    q, rest = (1 - flips) * p + flips * other, (1 - flips) * other + flips * p
    per_label = judged * (p - other) / (q * rest)
    own = np.bincount(who, per_label * (p - other), len(held))
    factor, some = np.ones(len(held)), held & (own > 1e-12)
    if not some.any():
        return factor
    size = np.sqrt(np.diagonal(info))
    size = np.where(size > 0, size, 1)
    shared = (per_label * (1 - 2 * flips) * p * other)[:, None] * z / size
    cross = np.stack([shared[who == k].sum(axis=0) for k in np.flatnonzero(some)], axis=1) / np.sqrt(own[some])
    held_by_w = cross.T @ np.linalg.pinv(info / size[:, None] / size, hermitian=True) @ cross
    spectrum, vectors = np.linalg.eigh(np.eye(cross.shape[1]) - held_by_w)
    factor[some] = vectors**2 @ (1 / np.clip(spectrum, 1e-12, 1))
    return factor


def _checked(start, pseudo_labels, ema, count):
    start = np.asarray(start, np.float64)
    if start.ndim:
        _checks.same_shape(start.shape, (count,), "start", "a number, or one per annotator")
    start = np.broadcast_to(start, (count,))
    bad = ~((start >= 0.001) & (start <= 0.999))
    if bad.any():
        raise ValueError(
            f"start: {start[np.argmax(bad)]:g} found; must be from 0.001 to 0.999: EM never leaves 0 and 1, "
            "whatever the labels say, and close to them it looks as if it had converged"
        )
    pseudo = np.asarray(pseudo_labels, np.float64)
    if pseudo.shape != (2,) or not (np.isfinite(pseudo) & (pseudo >= 0)).all():
        raise ValueError(f"pseudo_labels: {pseudo_labels} found; expected two numbers of at least 0, (right, reversed)")
    if not 0 < ema <= 1:
        raise ValueError(f"ema={ema:g}: must be in (0, 1]; 1 is plain EM")
    return start, pseudo
