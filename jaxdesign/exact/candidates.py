"""Candidates of `select_pairs`: ways to choose whole labels, from a real-valued design or one label at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from jaxdesign._pairs import Allocation, not_among
from jaxdesign.analysis import analyse, exact_sensitivities, information
from jaxdesign.budget.limits import Limits, capacity
from jaxdesign.certificates.separable import price_at
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.protocol import ConvexCriterion, Gains
from jaxdesign.design import Design
from jaxdesign.exact import integer_programs, rounding
from jaxdesign.exact.greedy.greedy import greedy_allocation, memory, work
from jaxdesign.exact.rounding import dependent, drawn
from jaxdesign.pricing.passes import best_pairs
from jaxdesign.problem import Problem

GREEDY_WORK = 4e11  # see `work`: beyond this, greedy looks only at the prompts that the real-valued design uses most
GREEDY_MEMORY = 2**28  # entries
# labels for each pair of the real-valued design: beyond, apportionment loses less than 1 / MANY, and greedy, one label
# at a time, takes long for less
MANY = 64
DRAWS = 8  # random roundings tried
WIDER = 20_000  # pairs besides the design's own that an integer program may have


def candidates(problem: Problem, relaxed: Design, seed: int) -> Iterator[tuple[str, int | None, Callable]]:
    """Name, prompts that greedy looks at, and a function that gives pairs and whole labels."""
    limits, design = problem.limits, Allocation(relaxed.pairs, relaxed.labels)
    pairs, labels = design
    b = exact_sensitivities(problem, pairs, analyse(problem, information(problem, design)).factors)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(DRAWS)]
    if not limits.laminar:
        scores = labels - np.floor(labels) + 1e-3 * b / b.max(initial=1e-300)
        yield (
            "rounded",
            None,
            lambda: (pairs, _or_nothing(integer_programs.rounded(limits, design, scores), pairs)),
        )
        yield "dependent", None, lambda: (pairs, _best_draw(problem, design, seeds, integer_programs.randomly_rounded))
        return
    ways = {"best_set": lambda: rounding.best_set(limits, design, b)}
    if (limits.per_pair[pairs[:, 0]] > 1).any():
        ways["largest_remainder"] = lambda: rounding.largest_remainder(limits, design, b)
        ways["adams"] = lambda: rounding.adams(limits, design)
    ways["dependent"] = lambda: _best_draw(problem, design, seeds, dependent)
    ways["drawn"] = lambda: drawn(limits, design, seed)
    ways["drawn_by_prompt"] = lambda: drawn(limits, design, seed, by_prompt=True)
    for name, way in ways.items():
        yield name, None, lambda way=way: (pairs, _or_nothing(way(), pairs))
    names = {"greedy": problem.criterion.for_whole_labels()}
    if problem.criterion.gains is not Gains.LOG_DET:
        names["greedy_logdet"] = LogDet()
    for name, criterion in names.items():
        prompts = _greedy_prompts(problem, criterion, relaxed)
        if prompts is not None:
            yield name, len(prompts), lambda c=criterion, p=prompts: _greedy_among(problem, c, p)


def _best_draw(problem: Problem, design: Allocation, seeds: list[int], draw: Callable) -> np.ndarray:
    """The random rounding with the smallest criterion."""

    def value(labels):
        found = analyse(problem, information(problem, Allocation(design.pairs[labels > 0], labels[labels > 0]))).value
        return found if np.isfinite(found) else np.inf

    found = (draw(problem.limits, design, seed) for seed in seeds)
    return min((_or_nothing(labels, design.pairs) for labels in found), key=value)


def among_more(problem: Problem, relaxed: Design) -> Allocation:
    """Labels by an integer program over the design's pairs and the best pairs of every completion; none if it fails.

    The program prefers the design's pairs, then those with the largest sensitivities.
    """
    analysis = analyse(problem, information(problem, Allocation(relaxed.pairs, relaxed.labels)))
    result = price_at(problem, analysis, np.inf)
    others, _ = best_pairs(result, 0.0, WIDER, result.scale)
    pairs = np.concatenate([relaxed.pairs, others[not_among(others, relaxed.pairs, problem.completions)]])
    b = exact_sensitivities(problem, pairs, analysis.factors)
    held = np.concatenate([relaxed.labels, np.zeros(len(pairs) - len(relaxed.labels))])
    cap = np.minimum(np.floor(problem.limits.per_pair[pairs[:, 0]]), problem.limits.total)
    scores = np.minimum(held, 1) + b / b.max(initial=1e-300)
    for preferred in (scores, np.zeros(len(pairs))):  # where labels hardly fit at all, preferences get in the way
        labels = integer_programs.most_scored(problem.limits, pairs, preferred, np.zeros(len(pairs)), cap)
        if labels is not None:
            break
    labels = _or_nothing(labels, pairs)
    return Allocation(pairs[labels > 0], labels[labels > 0])


def _or_nothing(labels, pairs):
    return np.zeros(len(pairs)) if labels is None else labels


def _greedy_prompts(problem: Problem, crit: ConvexCriterion, relaxed: Design) -> np.ndarray | None:
    """The prompts that greedy has time and memory for, those with most labels in the real-valued design first."""
    limits = problem.limits
    if limits.total > MANY * len(relaxed.pairs):
        return None
    share = min(GREEDY_WORK / work(problem, crit), GREEDY_MEMORY / memory(problem, crit))
    if share >= 1:
        return np.arange(problem.prompts)
    number = int(share * problem.prompts)
    if number < 1:
        return None
    number = 1 << (number.bit_length() - 1)  # a power of two, so that few shapes are ever compiled
    spent = np.bincount(relaxed.pairs[:, 0], weights=relaxed.labels, minlength=problem.prompts)
    prompts = np.sort(np.argsort(-spent, kind="stable")[:number])
    some = Limits(limits.total, limits.per_pair[prompts], limits.per_prompt[prompts])
    return prompts if capacity(some, problem.pair_counts[prompts]) >= limits.total else None


def _greedy_among(problem: Problem, crit: ConvexCriterion, prompts: np.ndarray) -> Allocation:
    """The greedy choice among the pairs of some prompts, named as in the whole pool."""
    limits, closed = problem.limits, problem.decided.closed
    if len(prompts) < problem.prompts:
        limits = Limits(limits.total, limits.per_pair[prompts], limits.per_prompt[prompts])
        closed = closed[np.isin(closed[:, 0], prompts)]
        closed = np.concatenate([np.searchsorted(prompts, closed[:, :1]), closed[:, 1:]], axis=1).astype(np.int32)
    pairs, labels = greedy_allocation(problem.part(prompts), crit, limits, problem.prior, closed)
    return Allocation(np.concatenate([prompts[pairs[:, :1]].astype(np.int32), pairs[:, 1:]], axis=1), labels)
