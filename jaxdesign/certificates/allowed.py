"""Whether an allocation is allowed: its pairs exist, are in order, and obey the budget."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxdesign._pairs import Allocation, added_up, check_pairs_exist, pair_keys, upper_pairs
from jaxdesign.budget.linear_program import check_coupling
from jaxdesign.budget.required import without
from jaxdesign.problem import Problem


def canonical_allocation(problem: Problem, pairs: Any, labels: Any) -> Allocation:
    """An allocation in order with the required labels taken out; ValueError where it lacks them or is not allowed."""
    allocation = without(problem.decided, ordered_allocation(problem, pairs, labels))
    short = allocation.labels < 0
    if short.any():
        pair = tuple(int(v) for v in allocation.pairs[np.argmax(short)])
        raise ValueError(f"labels: pair {pair} lacks labels that budget.required asks for")
    check_allowed(problem, allocation)
    return allocation


def ordered_allocation(problem: Problem, pairs: Any, labels: Any) -> Allocation:
    """Pairs as i < j in order without repetition or zeros, labels as float64; ValueError for what is no allocation."""
    pairs, labels = np.asarray(pairs), np.asarray(labels, dtype=np.float64)
    check_pairs_exist(problem.exists, pairs)
    if labels.shape != (len(pairs),):
        raise ValueError(f"labels: shape {labels.shape} found; expected one number per pair, ({len(pairs)},)")
    if not (np.isfinite(labels) & (labels >= 0)).all():
        row = int(np.argmin(np.isfinite(labels) & (labels >= 0)))
        raise ValueError(f"labels: {labels[row]:g} at row {row}; labels must be finite and at least 0")
    ordered, summed = added_up(upper_pairs(pairs), labels)
    return Allocation(ordered[summed > 0], summed[summed > 0])


def check_allowed(problem: Problem, allocation: Allocation) -> None:
    """ValueError unless an allocation of the labels left to choose obeys the budget, to 1e-6."""
    pairs, labels = allocation
    limits = problem.limits
    held = float(problem.decided.required.labels.sum())
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
    over |= np.isin(pair_keys(pairs, problem.completions), pair_keys(problem.decided.closed, problem.completions))
    if over.any():
        row = int(np.argmax(over))
        pair, closed = tuple(int(v) for v in pairs[row]), labels[row] <= limits.per_pair[pairs[row, 0]] * (1 + 1e-6)
        limit = "which the budget excludes" if closed else f"above budget.per_pair={limits.per_pair[pairs[row, 0]]:g}"
        raise ValueError(f"labels: pair {pair} has {labels[row]:g} labels, {limit}")
    check_coupling(limits, allocation, spent)
