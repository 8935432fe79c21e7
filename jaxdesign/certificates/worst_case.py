"""The mixture of targets under which a given allocation comes closest to being optimal.

At an optimal allocation of the worst case there is a mixture w of the targets with the largest value for which the
sensitivities b_w are equal on all pairs whose labels are free to move. For any allocation the w that comes closest is
sought, for the lower bound of `evaluate`. Every mixture gives a valid bound: nothing rests on its accuracy.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from jaxdesign import _arrays
from jaxdesign._linalg import inverse
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import analyse, exact_sensitivities, information
from jaxdesign.certificates.coupled import certify_allocation
from jaxdesign.criteria.trace import semidefinite
from jaxdesign.criteria.worst_case import family_of, target_report
from jaxdesign.design import Certificate
from jaxdesign.problem import Problem

STEPS = 2_000


def judged(problem: Problem, allocation: Allocation, matrix) -> tuple[Certificate[float], Problem]:
    """Certificate of an allocation of a worst case, and the problem with the mixture that gives it: the better of two
    where none is given.

    One pass over the pool for each mixture tried (more where the budget couples prompts).
    """
    criterion = family_of(problem.criterion)
    if criterion.mixture is None:
        with _arrays.float64():
            smooth = np.asarray(criterion.smooth().mixture(matrix))
        mixtures = [smooth, fitted_mixture(problem, allocation, matrix)]
    else:
        mixtures = [criterion.mixture]
    found = [_certificate(with_mixture(problem, mixture), allocation, matrix) for mixture in mixtures]
    best = int(np.argmax([certificate.lower_bound for certificate in found]))
    return found[best], with_mixture(problem, mixtures[best])


def with_mixture(problem: Problem, mixture) -> Problem:
    """The problem of a worst case with the weights of its targets for the lower bound."""
    return replace(problem, criterion=family_of(problem.criterion).mixed(mixture))


def report_at(problem: Problem, allocation: Allocation) -> dict:
    """`target_report` at an allocation of the labels left to choose."""
    matrix = information(problem, allocation)
    with _arrays.float64():
        return target_report(family_of(problem.criterion), matrix)


def _certificate(problem: Problem, allocation: Allocation, matrix) -> Certificate[float]:
    return certify_allocation(problem, matrix, analyse(problem, matrix), allocation).certificate


def fitted_mixture(
    problem: Problem, allocation: Allocation, matrix: Float[np.ndarray, "r d d"]
) -> Float[np.ndarray, " t"]:
    """Weights that minimise sum_t w_t (1 - f_t / max f) + the spread of sum_t w_t b_t over labels, relative to max f.

    Complexity: 2 S d^2 operations a target and draw for S pairs, then T^2 a step.
    """
    pairs, labels = allocation
    criterion = family_of(problem.criterion)
    with _arrays.float64():
        inv = np.asarray(inverse(matrix))
        f = np.asarray(criterion.values(matrix))
    largest = f.max()
    if len(f) == 1 or not largest > 0:
        return np.full(len(f), 1 / len(f))
    limits, prompts = problem.limits, pairs[:, 0]
    cap = np.minimum(limits.per_pair[prompts], limits.total)
    free = labels * np.maximum(1 - labels / cap, 0) + 1e-9 * labels
    held = np.bincount(prompts, labels, len(limits.per_prompt)) >= limits.per_prompt * (1 - 1e-6)
    level = np.where(held[prompts], prompts + 1, 0)  # pairs that must have the same b: a quota has a level of its own
    mass = np.maximum(np.bincount(level, free), 1e-300)
    b = np.stack([exact_sensitivities(problem, pairs, inv @ semidefinite(H)[1]) for H in np.asarray(criterion.H)])
    b = b * (labels.sum() / largest)
    b = b - np.stack([np.bincount(level, row * free) / mass for row in b])[:, level]
    spread = (b * free) @ b.T / free.sum()
    return _descend(1 - f / largest, spread)


def _descend(slack: Float[np.ndarray, " t"], spread: Float[np.ndarray, "t t"]) -> Float[np.ndarray, " t"]:
    """min slack.w + sqrt(w.spread.w) over the simplex, by entropic mirror descent; the best point met."""
    weights = np.exp(-63 * slack)
    weights = weights / weights.sum()
    best, least = weights, np.inf
    for step in range(STEPS):
        half = spread @ weights
        deviation = np.sqrt(max(weights @ half, 1e-16))
        found = slack @ weights + deviation
        if found < least:
            best, least = weights, found
        slope = slack + half / deviation
        weights = weights * np.exp(-(slope - slope.min()) / (1 + step) ** 0.5 / max(np.ptp(slope), 1e-9))
        weights = weights / weights.sum()
    return best
