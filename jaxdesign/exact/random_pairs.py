"""Random pairs under a budget: what a choice of pairs is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdesign import _arrays
from jaxdesign._pairs import Allocation, not_among
from jaxdesign.budget.budget import Budget, whole_budget
from jaxdesign.budget.constraint import of_share
from jaxdesign.budget.limits import Limits, resolve
from jaxdesign.budget.quota import Quota
from jaxdesign.budget.required import Decided, decided_pairs
from jaxdesign.exact.by_score import largest_scores
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.checked import checked
from jaxdesign.pricing.listed import over_pairs
from jaxdesign.pricing.source import Source, survey
from jaxdesign.problem import Problem

MANY = 2**24  # pairs up to which all are listed
FIRST = 4  # pairs drawn for each label where they are not


def random_pairs(pool: CompletionPool | Source, budget: Budget, seed: int = 0) -> Allocation:
    """Whole labels on pairs drawn evenly from all pairs of existing completions, without replacement while they last.

    A pair that would break a quota is passed over; where there are more labels than pairs, all get one and the rest are
    drawn again, as far as the caps allow. Quotas of groups, minima and a spend limit are obeyed by taking the drawn
    pairs that come first and obey them together.

    Args:
        pool: the pool, or a `pricing.Source`; pairs of identical completions are drawn like others, as someone who
            does not look would.
        budget: a whole total; limits count as rounded to whole labels. Excluded pairs are not drawn, and required ones
            neither: their labels are not part of the result.
        seed: of NumPy's default generator.

    Returns:
        pairs (S, 3) in order and labels (S,), whole, summing to the total less the required labels.

    Raises:
        TypeError: what is neither a pool nor a source.
        ValueError: a total that the limits do not allow.

    Complexity: O(N log N) time and 40 bytes for each of the N pairs of the pool; where they are more than MANY, for
    each of those drawn, a few times as many as labels.
    """
    pool, budget = checked(pool), whole_budget(budget)
    mask = _arrays.on_host(pool.mask) if isinstance(pool, CompletionPool) else survey(pool).exists
    decided, number = decided_pairs(mask, budget), mask.sum(axis=1)
    counts = number * (number - 1) // 2
    if counts.sum() > MANY:
        limits = _limits(counts, budget, decided, mask)
        return _drawn(mask, counts, limits, lambda pairs: _open(pairs, decided, mask), seed)
    exists = mask[:, :, None] & mask[:, None, :]
    pairs = _open(np.stack(np.nonzero(np.triu(exists, 1)), axis=1).astype(np.int32), decided, mask)
    limits = _limits(counts, budget, decided, mask)
    rng = np.random.default_rng(seed)
    labels = largest_scores(limits, pairs, lambda: rng.permutation(len(pairs)) + 1.0)
    return Allocation(pairs[labels > 0], labels[labels > 0])


def random_candidates(problem: Problem, seed: int = 0) -> Allocation:
    """Whole labels on pairs drawn evenly from those that may be used: of completions that differ, and not closed.

    As `random_pairs`, where pairs of identical completions are drawn too; of the labels that are left to choose.

    Args:
        problem: source, budget and what it decides.
        seed: of NumPy's default generator.

    Returns:
        pairs (S, 3) in order and labels (S,), whole, summing to the total left to choose.

    Raises:
        ValueError: a total that the limits do not allow.

    Complexity: about 40 bytes for each of the pairs drawn, a few times as many as labels; pairs are never listed, but
    where the labels are as many as a sixteenth of them.
    """
    number = problem.exists.sum(axis=1)
    return _drawn(
        problem.exists, number * (number - 1) // 2, problem.limits, lambda pairs: _usable(problem, pairs), seed
    )


def _usable(problem: Problem, pairs):
    pairs = _open(pairs, problem.decided, problem.exists)
    return pairs[over_pairs(problem.source, Partial(_differ), pairs)] if len(pairs) else pairs


def _differ(rows, _):
    return jnp.any(rows.differences != 0, axis=-1)


def _drawn(mask, counts, limits: Limits, usable: Callable, seed: int) -> Allocation:
    """The first pairs of a random order of all, drawn one by one: as many as it takes to find room for all labels."""
    total = int(counts.sum())
    rng, ends = np.random.default_rng(seed), np.cumsum(counts)
    numbers, size = np.zeros(0, np.int64), FIRST * (int(limits.total) + 1)
    while True:
        if FIRST * size >= total:
            numbers, size = rng.permutation(total), total
        while len(numbers) < size:  # repeated ones are passed over
            more = np.concatenate([numbers, rng.integers(0, total, size)])
            numbers = more[np.sort(np.unique(more, return_index=True)[1])]
        pairs = usable(_numbered(numbers[:size], mask, counts, ends))
        order = np.lexsort(pairs.T[::-1])
        scores = -np.arange(len(pairs), dtype=np.float64)[order]
        try:
            labels = largest_scores(limits, pairs[order], lambda scores=scores: scores)
        except ValueError:
            if size >= total:
                raise
            labels = np.full(len(pairs), np.inf)
        if size >= total or labels.max() <= 1:  # a second label of a pair is for when there is no other pair
            return Allocation(pairs[order][labels > 0], labels[labels > 0])
        size *= 4


def _numbered(numbers, mask, counts, ends):
    """The pairs with these numbers, counted through all prompts in order."""
    prompts = np.searchsorted(ends, numbers, side="right")
    rank = numbers - (ends - counts)[prompts]
    exists = mask[prompts]
    places = np.argsort(~exists, axis=1, kind="stable")  # the completions there are, in order
    last = exists.sum(axis=1) - 1
    first = np.floor(last + 0.5 - np.sqrt((last + 0.5) ** 2 - 2 * rank)).astype(np.int64)  # exact: K is small
    second = rank - first * (2 * last - first + 1) // 2 + first + 1
    row = np.arange(len(numbers))
    return np.stack([prompts, places[row, first], places[row, second]], axis=1).astype(np.int32)


def _limits(counts, budget: Budget, decided: Decided, mask) -> Limits:
    p, i, j = decided.closed.T
    closed = np.bincount(p, weights=mask[p, i] & mask[p, j], minlength=len(mask))  # of full prompts all are listed
    return resolve(budget, (counts - closed).astype(np.float64), mask, decided.required)


def _open(pairs, decided: Decided, mask):
    return pairs[not_among(pairs, decided.closed, mask.shape[1])] if len(decided.closed) else pairs


def with_uniform_floor(pool: CompletionPool, budget: Budget, share: float, *, seed: int = 0) -> Budget:
    """The budget with a share of its labels drawn at random beforehand, as required pairs.

    A guard against misspecification: whatever features and target miss, these labels are an honest random sample. Every
    solver then chooses the rest around them, and certificates are against the best such choice.

    Args:
        pool: the pool.
        budget: a whole total. The share is drawn under its caps, and under the same share of its spend limit and, to
            the next whole label, of its quotas, so that the rest can still be chosen.
        share: of the total, in (0, 1); the number of labels is rounded to a whole one, at least 1.
        seed: of NumPy's default generator.

    Returns:
        The budget with these pairs in `required`, after those it has.

    Raises:
        ValueError: a share outside of (0, 1), a budget that does not allow so many labels at random, and as
            `random_pairs`.

    Source: derived; checked by tests/budget/test_quotas.py and tests/preference/test_rounds.py.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share:g}: must be between 0 and 1; it is the part of the labels drawn at random")
    budget = whole_budget(budget)
    closed = decided_pairs(np.asarray(pool.mask), budget).closed
    number = max(round(share * budget.total), 1)
    quotas = []
    for quota in budget.quotas:
        high = np.ceil(share * quota.family().high)
        most = dict(zip(np.unique(quota.of).tolist(), high.tolist(), strict=True))
        quotas.append(Quota(quota.of, at_most=most, name=quota.name))
    constraints = [shared for constraint in budget.constraints if (shared := of_share(constraint, share)) is not None]
    part = replace(
        budget,
        total=number,
        quotas=tuple(quotas),
        constraints=tuple(constraints),
        cost_total=None if budget.cost_total is None else share * budget.cost_total,
        per_prompt_min=None,
        required=None,
        exclude=closed if len(closed) else None,
        labels_per_task=1,
    )
    pairs, labels = random_pairs(pool, part, seed)
    drawn = np.repeat(pairs, labels.astype(int), axis=0)
    required = drawn if budget.required is None else np.concatenate([np.asarray(budget.required), drawn])
    return replace(budget, required=required)
