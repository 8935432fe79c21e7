"""Exchange for criteria of which nothing is known but values and gradients.

Sensitivities say where to look: the criterion is convex in A, so a swap from k to l lowers it by at most b_l - b_k, and
pairs with the largest b are those to give a label, pairs with the smallest b those to take one from. Swaps between the
most promising of both are scored by the criterion's own value, and the best is made, until none of them helps or WORK
is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays
from jaxdesign._pairs import Allocation, pair_keys
from jaxdesign.analysis import analyse, information, row_sensitivities
from jaxdesign.certificates.separable import best_of_pool
from jaxdesign.criteria.protocol import ConvexCriterion
from jaxdesign.exact.exchange.allowed import caps_of, obeyed, slack_of, some_of, uses_of
from jaxdesign.pricing.listed import listed_rows
from jaxdesign.problem import Problem

OTHERS = 1024  # pairs of a search of the pool
SCORED = 4e9  # operations of the values of one table of swaps, from which one swap is made
WORK = 4e11  # and of all tables: about a minute on two cores
FEWEST, MOST = 4, 32  # pairs on either side of a table


def exchanged_by_value(
    problem: Problem,
    allocation: Allocation,
    least: float,
    max_swaps: float,
    max_passes: float,
    progress: Callable[[str], Any],
) -> tuple[Int[np.ndarray, "n 3"], Float[np.ndarray, " n"], tuple[float, float, int, int]]:
    """Whole labels after swaps that lower the criterion by more than `least` times max(1, its size).

    Returns:
        Pairs in order, labels, and (value before, value, swaps, searches of the pool).

    Raises:
        ValueError: the criterion is not finite at the given labels.
    """
    pairs, labels = allocation
    value = before = analyse(problem, information(problem, allocation)).value
    if not np.isfinite(before):
        raise ValueError(
            "labels: their information is singular, so that no swap can be scored; start from other labels, or pass "
            "a prior (a ridge will do)"
        )
    cost = len(problem.prior) * problem.dim**3
    side = int(np.clip((SCORED / cost) ** 0.5, FEWEST, MOST))
    max_swaps = min(max_swaps, max(WORK // (side**2 * cost), 1))
    made, passes, swapped = 0, 0, 1
    while made < max_swaps and passes < max_passes and swapped:
        passes += 1
        progress(f"search {passes}, {made} swaps so far")
        analysis = analyse(problem, information(problem, Allocation(pairs, labels)))
        others, _ = best_of_pool(problem, analysis, 0.0, OTHERS)
        pairs, labels, value, swapped = _swapped_among(
            problem, Allocation(pairs, labels), others, value, least, side, max_swaps - made
        )
        made += swapped
    return pairs, labels, (before, value, made, passes)


def _swapped_among(
    problem: Problem, allocation: Allocation, others, value: float, least: float, side: int, limit: float
):
    """The labels after swaps among their own pairs and the others, the criterion, and the number of swaps."""
    pairs, labels = allocation
    listed = np.unique(np.concatenate([pairs, others]), axis=0)
    counts = np.zeros(len(listed))
    keys, labelled = (pair_keys(rows, problem.completions) for rows in (listed, pairs))
    counts[np.searchsorted(keys, labelled)] = labels
    size = _arrays.round_up(len(listed), OTHERS)  # few shapes to compile
    padded = np.zeros((size, 3), np.int32)  # z = 0 for (0, 0, 0)
    padded[: len(listed)] = listed
    z, c = listed_rows(problem.source, padded)
    rows = np.sqrt(c)[..., None] * z
    used, cap, swaps = uses_of(problem, listed), caps_of(problem, listed), 0
    while swaps < limit:
        matrix = information(problem, Allocation(listed[counts > 0], counts[counts > 0]))
        with _arrays.float64():
            b = np.asarray(row_sensitivities(problem.criterion, matrix, rows))[: len(listed)]
        losing = _first(np.where(counts >= 1, b, np.inf), side)
        taking = _first(np.where(counts + 1 <= cap, -b, np.inf), side)
        slack = slack_of(problem, Allocation(listed[counts > 0], counts[counts > 0]))
        allowed = np.array(obeyed(slack, some_of(used, losing), some_of(used, taking)))
        allowed &= (counts[losing] >= 1)[:, None] & (counts[taking] + 1 <= cap[taking])[None, :]
        allowed &= b[losing][:, None] < b[taking][None, :]
        with _arrays.float64():
            values = np.asarray(_values(problem.criterion, matrix, rows[:, losing], rows[:, taking], allowed))
        k, l = np.unravel_index(np.argmin(values), values.shape)
        if not value - values[k, l] > least * max(1.0, abs(value)):
            break
        counts[losing[k]] -= 1
        counts[taking[l]] += 1
        value, swaps = float(values[k, l]), swaps + 1
    return listed[counts > 0], counts[counts > 0], value, swaps


def _first(values, number: int) -> Int[np.ndarray, " n"]:
    """Places of the smallest values; repeated ones where there are too few, which no swap comes from twice."""
    order = np.argsort(values, kind="stable")[:number]
    return np.concatenate([order, np.full(number - len(order), order[0])])


@jax.jit
def _values(criterion: ConvexCriterion, matrix, losing, taking, allowed: Bool[Array, "k l"]) -> Float[Array, "k l"]:
    """The criterion after every swap; inf where it is not allowed or not finite."""

    def after(place):
        k, l = place // allowed.shape[1], place % allowed.shape[1]
        out, into = losing[:, k], taking[:, l]
        moved = matrix - out[:, :, None] * out[:, None, :] + into[:, :, None] * into[:, None, :]
        return criterion.value(moved)

    values = jax.lax.map(after, jnp.arange(allowed.size)).reshape(allowed.shape)
    return jnp.where(allowed & jnp.isfinite(values), values, jnp.inf)
