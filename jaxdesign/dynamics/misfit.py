"""Do scores explain the labels? Goodness of fit of Bradley-Terry and of additive preferences, per prompt.

Pearson's X2 = sum_{i<j} n (p - m)^2 / (m (1 - m)), p = wins / n, at the fitted chances m; near chi-square with
dof = observed pairs - (K - components) where the model holds and labels are not too few. What depends on them: the
limit of DPO does not move with the pairs that are labelled exactly where preferences are Bradley-Terry, that of IPO
exactly where they are additive.

From 10 labels a pair on, a level of .05 was exceeded by .035 to .085 of simulated tables of Bradley-Terry preferences
and by at most .07 of additive ones, the fewest where chances are near 0 or 1 (tests/dynamics/test_calibration.py). With
fewer labels the chi-square law is rough: `least_expected` says how few are expected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import chdtrc, expit

from jaxdesign import _arrays
from jaxdesign.dynamics import comparison_graph as graph
from jaxdesign.dynamics.link_fit import zero_divergence_scores
from jaxdesign.dynamics.links import LINKS

MOST_STEPS, SHORTEST = 60, 1e-9  # Newton steps of a fit, and how far one is halved


class Misfit(NamedTuple):
    """A test of goodness of fit, per prompt.

    Args:
        chi_square: Pearson's X2; NaN where not fitted.
        dof: degrees of freedom, observed pairs - (K - components); 0 where scores explain any labels.
        p_value: probability of a larger X2 where the model holds; NaN where dof is 0 or not fitted.
        scores: (..., K), mean 0 in each component of answers that are compared, directly or by way of others; NaN where
            not fitted.
        fitted: whether the best scores exist. False for Bradley-Terry where labels are separated: some answers won all
            of their labels against the others of their component, and their scores run off to infinity.
        least_expected: the smallest n min(m, 1 - m) over observed pairs: with less than about 1 label expected on a
            side the chi-square law is rough. NaN where not fitted, inf where no pair is observed.
    """

    chi_square: Float[np.ndarray, "*n"]
    dof: Int[np.ndarray, "*n"]
    p_value: Float[np.ndarray, "*n"]
    scores: Float[np.ndarray, "*n k"]
    fitted: Bool[np.ndarray, "*n"]
    least_expected: Float[np.ndarray, "*n"]


def bradley_terry_misfit(wins: Float[np.ndarray, "*n k k"], counts: Float[np.ndarray, "*n k k"]) -> Misfit:
    """Pearson's test of P_ij = sigma(u_i - u_j) at the maximum likelihood scores u.

    They exist where every answer of a component can be reached from every other along wins, and there only.

    Args:
        wins: (..., K, K) labels that preferred i to j, wins + wins^T = counts, diagonal 0.
        counts: (..., K, K) labels of each pair.

    Returns:
        Misfit.

    Raises:
        Nothing: `estimate_preferences` checks its input.

    Source: existence, Ford 1957, doi:10.1080/00029890.1957.11989117; checked by tests/dynamics/test_misfit.py.
    """
    joined = graph.reachable(counts > 0)
    fitted = (graph.reachable(wins > 0) == joined).all(axis=(-1, -2))
    frequency = _frequency(np.where(fitted[..., None, None], wins, counts / 2), counts)
    scores, close = _logistic_scores(frequency, counts)
    chance = expit(_margins(scores))
    return _test(frequency, counts, joined, scores, chance, chance, fitted & close)


def _logistic_scores(frequency, counts):
    """Maximum likelihood scores (..., K) and which converged, by programs for 1, 2, 4, ... prompts."""
    *lead, size, _ = counts.shape
    number = int(np.prod(lead))
    missing = _arrays.power_of_two(max(number, 1)) - number
    tables = [np.pad(a.reshape(number, size, size), ((0, missing), (0, 0), (0, 0))) for a in (frequency, counts)]
    with _arrays.float64():
        found = _fits(*tables)
        scores, close = np.asarray(found.scores), np.asarray(found.converged)
    return scores[:number].reshape(*lead, size), close[:number].reshape(lead)


@jax.jit
@jax.vmap
def _fits(frequency, counts):
    return zero_divergence_scores(frequency, counts, LINKS["dpo"])


def additivity_misfit(wins: Float[np.ndarray, "*n k k"], counts: Float[np.ndarray, "*n k k"]) -> Misfit:
    """Pearson's test of P_ij = 1/2 + s_i - s_j.

    The likelihood has its maximum where a pair's chance m is 0 or 1 often enough, and the law of X2 there is not
    chi-square. So the variance m (1 - m) is held at what it is half a label from the ends, at e = 1 / (2 (n + 1)) and
    1 - e, and scores solve sum_j n (p - m) / (c (1 - c)) = 0 with c = min(max(m, e), 1 - e): maximum likelihood where
    all m are inside, least squares with fixed weights for what is outside. They are the only maximum of a concave
    function, the log likelihood continued by parabolas, and always exist. m itself may lie outside of [0, 1].

    Args:
        wins: (..., K, K) labels that preferred i to j, wins + wins^T = counts, diagonal 0.
        counts: (..., K, K) labels of each pair.

    Returns:
        Misfit, `fitted` everywhere.

    Raises:
        Nothing: `estimate_preferences` checks its input.

    Source: derived; checked by tests/dynamics/test_misfit.py, its size by tests/dynamics/test_calibration.py.
    """
    joined = graph.reachable(counts > 0)
    frequency = _frequency(wins, counts)
    end = 0.5 / (counts + 1)

    def terms(margins):
        chance = margins + 0.5
        inside = np.clip(chance, end, 1 - end)
        variance = inside * (1 - inside)
        outside = ((frequency - inside) ** 2 - (frequency - chance) ** 2) / (2 * variance)
        value = frequency * np.log(inside) + (1 - frequency) * np.log1p(-inside) + outside
        own = frequency / inside**2 + (1 - frequency) / (1 - inside) ** 2
        curvature = np.where(np.abs(margins) < 0.5 - end, own, 1 / variance)  # of both orders alike
        return counts * value, counts * (frequency - chance) / variance, counts * curvature

    scores, close = _best_scores(terms, counts, joined)
    chance = _margins(scores) + 0.5
    return _test(frequency, counts, joined, scores, chance, np.clip(chance, end, 1 - end), close)


def _test(frequency, counts, joined, scores, chance, inside, fitted) -> Misfit:
    """Pearson's statistic, whose variances are those of the chances `inside`."""
    seen = counts > 0
    squares = counts * (frequency - chance) ** 2 / np.where(seen, inside * (1 - inside), 1)
    chi_square = np.where(fitted, squares.sum(axis=(-1, -2)) / 2, np.nan)
    scored = counts.shape[-1] - graph.component_count(joined)
    dof = (seen.sum(axis=(-1, -2)) // 2 - scored).astype(int)
    p_value = np.where(dof > 0, chdtrc(np.maximum(dof, 1), chi_square), np.nan)
    expected = np.where(seen, counts * np.minimum(inside, 1 - inside), np.inf).min(axis=(-1, -2))
    least = np.where(fitted, expected, np.nan)
    scores = np.where(fitted[..., None], scores, np.nan)
    return Misfit(*map(np.asarray, (chi_square, dof, p_value, scores, fitted, least)))  # one table gives scalars


def _best_scores(terms: Callable, counts, joined):
    """Maximum of a concave sum over pairs of functions of margins, by Newton steps, halved until they gain enough.

    `terms(margins)` gives value, slope and minus curvature of every ordered pair, both orders alike. Every prompt has
    its own step lengths, and stops after the step that by its slope gains no more than rounding: what it leaves is of
    second order in it. Returns scores (..., K) and which prompts stopped so.
    """
    scores = np.zeros(counts.shape[:-1])
    value, slope, curvature = terms(_margins(scores))
    settled = np.zeros(counts.shape[:-2], bool)
    for _ in range(MOST_STEPS):
        inverse = graph.laplacian_inverse(curvature, joined)
        gradient = slope.sum(axis=-1)
        step = np.where(settled[..., None], 0, (inverse @ gradient[..., None])[..., 0])
        wanted = (step * gradient).sum(axis=-1) / 2  # a quarter of the first-order gain: values count pairs twice
        rounding = 1e-14 * np.abs(value).sum(axis=(-1, -2))
        scores, (value, slope, curvature) = _halved(terms, scores, step, value, wanted, rounding)
        settled = settled | (wanted <= rounding)
        if settled.all():
            break
    return scores, settled


def _halved(terms, scores, step, value, wanted, rounding):
    """(scores, terms) of the longest of 1, 1/2, 1/4, ... steps that gains `wanted` a length."""
    length = np.ones_like(wanted)
    while True:
        tried = scores + length[..., None] * step
        found = terms(_margins(tried))
        short = ((found[0] - value).sum(axis=(-1, -2)) < length * wanted - rounding) & (length > SHORTEST)
        if not short.any():
            return tried, found
        length = np.where(short, length / 2, length)


def _margins(scores):
    return scores[..., :, None] - scores[..., None, :]


def _frequency(wins, counts):
    """wins / counts; 1/2 for pairs without labels."""
    return np.where(counts > 0, wins / np.where(counts > 0, counts, 1), 0.5)
