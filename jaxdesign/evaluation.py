"""`evaluate`: the certificate of any given allocation."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxdesign.annotators import Annotators, repeated_budget, repeated_pairs, repeated_pool, with_annotators
from jaxdesign.budget import Budget
from jaxdesign.certify import blurred
from jaxdesign.certify_coupled import certify_afresh
from jaxdesign.coupling import check_coupling
from jaxdesign.criteria import CriterionLike
from jaxdesign.decided import added_up, pair_keys, upper_pairs, with_required, without
from jaxdesign.design import Certificate, Design
from jaxdesign.fitted_mixture import judged
from jaxdesign.information import check_pairs
from jaxdesign.pool import CompletionPool
from jaxdesign.problem import Problem, analyse, information, make_problem, singular, usable
from jaxdesign.status import Status
from jaxdesign.worst_case import WorstCase

BLURRED = (
    1e-4  # relative gap by rounding alone above which `evaluate` says so: condition numbers of about 1e11 and more
)


def evaluate(
    pool: CompletionPool,
    crit: CriterionLike,
    budget: Budget,
    pairs: Any,
    labels: Any,
    prior: Any = None,
    *,
    annotators: Annotators | None = None,
    assigned: Any = None,
) -> Design:
    """Certificate of a given allocation: its criterion, and how far it can be from the best allowed one.

    Args:
        pool: the pool.
        crit: the criterion.
        budget: what allocations it is compared with; the given one must obey it.
        pairs: (S, 3) rows (p, i, j); rows (p, j, i) are turned round, repeated pairs are added up.
        labels: (S,) labels of each pair, non-negative, real or whole.
        prior: information already held, (d, d) or a scalar ridge.
        annotators: who can label; needs `assigned`.
        assigned: (S,) index of the annotator of each pair, as in `Design.annotators`.

    Returns:
        A Design with the pairs in order, zeros dropped. `certificate.value` is inf and the efficiency 0 where the
        allocation leaves A singular.

    Raises:
        ValueError: pairs outside of the pool, negative or non-finite labels, an allocation that breaks the budget
            (total to 1e-6 relative, caps to 1e-6), and everything `optimize` raises.

    Numerics: float64 from the stored features throughout; see `certify`.
    """
    if annotators is not None:
        if assigned is None:
            raise ValueError("assigned: missing; with annotators it says who labels each pair")
        wide = repeated_pool(pool, annotators), crit, repeated_budget(budget, pool, annotators)
        design = evaluate(*wide, repeated_pairs(pairs, assigned, pool, annotators), labels, prior)
        return with_annotators(design, pool, annotators)
    problem = make_problem(pool, crit, budget, prior)
    pairs, labels = canonical_allocation(problem, pairs, labels)
    return evaluated(problem, pairs, labels, Status.EVALUATED)


def evaluated(problem: Problem, pairs: np.ndarray, labels: np.ndarray, status: Status, **fields) -> Design:
    """Design of an allocation of the labels left to choose that is already in order and allowed."""
    matrix = information(problem, pairs, labels)
    analysis = analyse(problem, matrix)
    if not usable(problem, analysis) or singular(problem, matrix):
        certificate = Certificate(float("inf"), float("-inf"), float("inf"), 0.0)
    elif isinstance(problem.criterion, WorstCase):
        certificate, fields["report"] = judged(problem, pairs, labels, matrix)
    else:
        certificate = certify_afresh(problem, matrix, analysis, pairs, labels).certificate
    if status is Status.EVALUATED and np.isfinite(certificate.value) and blurred(problem, analysis) > BLURRED:
        status = Status.ILL_CONDITIONED
    every = with_required(problem.decided, pairs, labels)
    return Design(*every, certificate, status, skipped_prompts=problem.skipped_prompts, **fields)


def canonical_allocation(problem: Problem, pairs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """An allocation in order with the required labels taken out; ValueError where it lacks them or is not allowed."""
    pairs, labels = without(problem.decided, *ordered_allocation(problem, pairs, labels))
    if (labels < 0).any():
        pair = tuple(int(v) for v in pairs[np.argmax(labels < 0)])
        raise ValueError(f"labels: pair {pair} lacks labels that budget.required asks for")
    check_allowed(problem, pairs, labels)
    return pairs, labels


def ordered_allocation(problem: Problem, pairs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pairs as i < j in order without repetition or zeros, labels as float64; ValueError for what is no allocation."""
    pairs, labels = np.asarray(pairs), np.asarray(labels, dtype=np.float64)
    check_pairs(problem.pool, pairs)
    if labels.shape != (len(pairs),):
        raise ValueError(f"labels: shape {labels.shape} found; expected one number per pair, ({len(pairs)},)")
    if not (np.isfinite(labels) & (labels >= 0)).all():
        row = int(np.argmin(np.isfinite(labels) & (labels >= 0)))
        raise ValueError(f"labels: {labels[row]:g} at row {row}; labels must be finite and at least 0")
    ordered, summed = added_up(upper_pairs(pairs), labels)
    return ordered[summed > 0], summed[summed > 0]


def check_allowed(problem: Problem, pairs: np.ndarray, labels: np.ndarray) -> None:
    """ValueError unless an allocation of the labels left to choose obeys the budget, to 1e-6."""
    limits = problem.limits
    held = float(problem.decided.labels.sum())
    if abs(labels.sum() - limits.total) > 1e-6 * limits.total:
        raise ValueError(f"labels: they sum to {labels.sum() + held:g}, but budget.total={limits.total + held:g}")
    spent = np.bincount(pairs[:, 0], weights=labels, minlength=len(limits.per_prompt))
    over = spent > limits.per_prompt * (1 + 1e-6)
    if over.any():
        prompt = int(np.argmax(over))
        raise ValueError(
            f"labels: prompt {prompt} has {spent[prompt]:g} labels, above "
            f"budget.per_prompt={limits.per_prompt[prompt]:g}"
        )
    over = labels > limits.per_pair[pairs[:, 0]] * (1 + 1e-6)
    over |= np.isin(
        pair_keys(pairs, problem.pool.completions), pair_keys(problem.decided.closed, problem.pool.completions)
    )
    if over.any():
        row = int(np.argmax(over))
        pair, closed = tuple(int(v) for v in pairs[row]), labels[row] <= limits.per_pair[pairs[row, 0]] * (1 + 1e-6)
        limit = "which the budget excludes" if closed else f"above budget.per_pair={limits.per_pair[pairs[row, 0]]:g}"
        raise ValueError(f"labels: pair {pair} has {labels[row]:g} labels, {limit}")
    if limits.coupling is not None:
        check_coupling(limits.coupling, pairs, labels, spent)
