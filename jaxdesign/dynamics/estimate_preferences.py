"""What labels say about the preferences P among a prompt's answers: an estimate with its uncertainty, and its shape."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float
from scipy.special import betainc

from jaxdesign import _arrays, _checks
from jaxdesign.dynamics.cyclic_share import CyclicShare, cyclic_share
from jaxdesign.dynamics.misfit import Misfit, additivity_misfit, bradley_terry_misfit
from jaxdesign.dynamics.tournaments import TransitivityViolations, smith_set, transitivity_violations

PRIOR = 0.5  # both parameters of the Beta prior (Jeffreys)
BLOCK = 2**18  # entries of the prompts that are fitted together: what is made of them stays in a cache


class PreferenceEstimate(NamedTuple):
    """What `estimate_preferences` found; float64 NumPy, with a leading axis of prompts where the labels have one.

    Args:
        mean: (..., K, K) posterior mean of P; 1/2 for pairs that are not observed, and on the diagonal.
        observed: (..., K, K) which pairs have labels. What is said of others is the prior's.
        draws: (D, ..., K, K) of P from the posterior, P + P^T = 1; None for draws=0.
        condorcet_probability: (..., K) posterior probability that an answer beats every other. What their sum lacks to
            1 is the probability that there is no Condorcet winner.
        smith_set: (..., K) smallest set of answers each of which beats every other answer, by the mean.
        smith_probability: (..., K) share of draws in whose Smith set an answer is; None for draws=0.
        violations: of strong transitivity by the mean, over triples whose pairs are all observed.
        cyclic: the share of preferences that no score explains, noise removed, with its standard error.
        bradley_terry: test of P_ij = sigma(u_i - u_j).
        additive: test of P_ij = 1/2 + s_i - s_j.
    """

    mean: Float[np.ndarray, "*n k k"]
    observed: Bool[np.ndarray, "*n k k"]
    draws: Float[np.ndarray, "d *n k k"] | None
    condorcet_probability: Float[np.ndarray, "*n k"]
    smith_set: Bool[np.ndarray, "*n k"]
    smith_probability: Float[np.ndarray, "*n k"] | None
    violations: TransitivityViolations
    cyclic: CyclicShare
    bradley_terry: Misfit
    additive: Misfit


def estimate_preferences(wins: Any, counts: Any, *, draws: int = 0, seed: int = 0) -> PreferenceEstimate:
    """Posterior of P from labels, pair by pair: P_ij ~ Beta(wins_ij + 1/2, wins_ji + 1/2), independent; mean and draws.

    mean_ij = (wins_ij + 1/2) / (n_ij + 1). The Condorcet probability is exact, prod_j Pr(P_ij > 1/2). All else is
    documented with the parts of the result: `smith_set`, `transitivity_violations`, `CyclicShare`, `Misfit`.

    Args:
        wins: (K, K) or (P, K, K) labels that preferred answer i to j; a tie counts 1/2 each way. The diagonal is
            ignored.
        counts: labels of each pair, symmetric, in the shape of `wins`: wins + wins^T = counts.
        draws: D, how many P to draw for functions that take an axis of draws; D P K^2 numbers are held.
        seed: of NumPy's default generator. The first draws do not depend on how many there are.

    Returns:
        PreferenceEstimate.

    Raises:
        TypeError: traced or non-numeric input, draws that is no number.
        ValueError: shapes other than those, NaN or inf, numbers below 0, counts that are not wins + wins^T (more than
            1e-6 of 1 + counts away) or 0 for every pair of every prompt, draws below 0.

    Complexity: O(P K^3) a Newton step of the fits, and O(D P K^2) for the draws.

    Source: Jeffreys' prior, doi:10.1098/rspa.1946.0056; the rest is derived; checked by
    tests/dynamics/test_estimate_preferences.py.
    """
    wins, counts = _checked(wins, counts)
    draws = _checks.whole_number(draws, "draws", 0)
    mirrored = np.swapaxes(wins, -1, -2)
    observed = counts > 0
    mean = _completed(_above((wins + PRIOR) / (counts + 2 * PRIOR)), wins.shape)
    drawn = None if draws == 0 else _drawn(wins, mirrored, draws, seed)
    wins_pair = betainc(mirrored + PRIOR, wins + PRIOR, 0.5)  # Pr(P_ji < 1/2)
    np.einsum("...ii->...i", wins_pair)[...] = 1
    violations, cyclic, bradley_terry, additive = _in_blocks(_shape_of, wins, counts, mean)
    return PreferenceEstimate(
        mean=mean,
        observed=observed,
        draws=drawn,
        condorcet_probability=wins_pair.prod(axis=-1),
        smith_set=np.asarray(smith_set(mean)),
        smith_probability=None if drawn is None else np.mean(smith_set(drawn), axis=0),
        violations=violations,
        cyclic=cyclic,
        bradley_terry=bradley_terry,
        additive=additive,
    )


def _shape_of(wins, counts, mean):
    return (
        transitivity_violations(mean, counts > 0),
        cyclic_share(wins, counts),
        bradley_terry_misfit(wins, counts),
        additivity_misfit(wins, counts),
    )


def _in_blocks(function, *tables):
    """`function` of all prompts, some at a time."""
    if tables[0].ndim == 2:
        return function(*tables)
    length = max(1, BLOCK // tables[0].shape[-1] ** 2)
    starts = range(0, max(len(tables[0]), 1), length)
    parts = [function(*(table[start : start + length] for table in tables)) for start in starts]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _drawn(wins, mirrored, draws, seed):
    shapes = _above(wins) + PRIOR, _above(mirrored) + PRIOR
    values = np.random.default_rng(seed).beta(*shapes, size=(draws, *shapes[0].shape))
    return _completed(values, (draws, *wins.shape))


def _above(matrix):
    """Entries (i, j), i < j, on one axis."""
    rows, columns = np.triu_indices(matrix.shape[-1], 1)
    return matrix[..., rows, columns]


def _completed(above, shape):
    """P (..., K, K) with these entries above the diagonal, 1 - P^T below it and 1/2 on it."""
    rows, columns = np.triu_indices(shape[-1], 1)
    matrix = np.full(shape, 0.5)
    matrix[..., rows, columns] = above
    matrix[..., columns, rows] = 1 - above
    return matrix


def _checked(wins, counts):
    """Float64 copies with zero diagonals, counts exactly wins + wins^T; TypeError or ValueError otherwise."""
    if _arrays.is_traced(wins, counts):
        raise TypeError(
            "wins, counts: are traced; jaxdesign.dynamics.estimate_preferences runs on the host; call it outside of "
            "jit and pass its mean or draws in"
        )
    wins, counts = _numbers(wins, "wins"), _numbers(counts, "counts")
    _checks.rank(wins, (2, 3), "wins", "(answers K, answers K) or (prompts P, answers K, answers K)")
    if wins.shape[-1] != wins.shape[-2] or wins.shape[-1] < 2:
        raise ValueError(f"wins: shape {wins.shape} found; expected square matrices of at least two answers")
    _checks.same_shape(counts.shape, wins.shape, "counts", "that of wins")
    off = ~np.eye(wins.shape[-1], dtype=bool)
    wins, counts = np.where(off, wins, 0), np.where(off, counts, 0)
    for value, name in ((wins, "wins"), (counts, "counts")):
        bad = ~(np.isfinite(value) & (value >= 0))
        if bad.any():
            raise ValueError(f"{name}: {_first(value, bad)}; numbers of labels must be finite and at least 0")
    total = wins + np.swapaxes(wins, -1, -2)
    bad = np.abs(total - counts) > 1e-6 * (1 + counts)
    if bad.any():
        place = tuple(np.argwhere(bad)[0])
        raise ValueError(
            f"counts: {_first(counts, bad)}, where wins + wins^T is {total[place]:g}; a pair's labels are the wins of "
            "one or the other, a tie half each: count ties in, and leave skipped labels out of both"
        )
    if total.size and not total.any():
        raise ValueError("counts: 0 for every pair; give at least one pair of different answers a label")
    return wins, total


def _numbers(value, name):
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array of numbers, found {type(value).__name__}") from error


def _first(value, bad):
    *prompt, i, j = (int(k) for k in np.argwhere(bad)[0])
    place = "".join(f"prompt {p}, " for p in prompt) + f"answers {i} and {j}"
    return f"{value[(*prompt, i, j)]:g} at {place} ({int(bad.sum())} such value(s) in all)"
