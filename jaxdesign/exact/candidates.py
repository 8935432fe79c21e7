"""Candidates of `select_pairs`: ways to choose whole labels, from a real-valued design or one label at a time.

A way is a `Candidate` in CANDIDATES, which says by itself what limits it obeys and where it is of use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign._pairs import Allocation, not_among
from jaxdesign.analysis import analyse, exact_sensitivities, information
from jaxdesign.budget.kinds import EVERY_KIND, LAMINAR, obeying
from jaxdesign.budget.limits import Limits, capacity
from jaxdesign.certificates.separable import best_of_pool, factored
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.protocol import ConvexCriterion, Gains
from jaxdesign.design import Design
from jaxdesign.exact import integer_programs, rounding
from jaxdesign.exact.greedy.greedy import greedy_allocation, memory, work
from jaxdesign.pricing.ceilings import no_ceilings
from jaxdesign.pricing.sweep import bounded
from jaxdesign.problem import Problem

GREEDY_WORK = 4e11  # see `work`: beyond this, greedy looks only at the prompts that the real-valued design uses most
GREEDY_MEMORY = 2**28  # entries
# labels for each pair of the real-valued design: beyond, apportionment loses less than 1 / MANY, and greedy, one label
# at a time, takes long for less
MANY = 64
DRAWS = 8  # random roundings tried
WIDER = 20_000  # pairs besides the design's own that an integer program may have


class Relaxed(NamedTuple):
    """The real-valued design that candidates start from."""

    problem: Problem
    design: Allocation
    sensitivities: Float[np.ndarray, " s"]  # of its pairs
    seed: int

    @property
    def limits(self) -> Limits:
        """The problem's."""
        return self.problem.limits


class Trial(NamedTuple):
    """A candidate about to be tried."""

    choose: Callable[[], Allocation]
    prompts: int | None = None  # that greedy looks at


class Candidate(NamedTuple):
    """A way to choose whole labels, the kinds of limits it obeys, and what makes it ready: None where it is no use."""

    name: str
    obeys: frozenset[str]
    trial: Callable[[Relaxed], Trial | None]


def candidates(problem: Problem, relaxed: Design, seed: int) -> Iterator[tuple[str, Trial]]:
    """Names and trials, in order: of each row of CANDIDATES the first that obeys the budget."""
    design = Allocation(relaxed.pairs, relaxed.labels)
    b = exact_sensitivities(problem, design.pairs, analyse(problem, information(problem, design)).factors)
    start = Relaxed(problem, design, b, seed)
    for row in CANDIDATES:
        for candidate in obeying(problem.limits.kinds, row)[:1]:
            trial = candidate.trial(start)
            if trial is not None:
                yield candidate.name, trial


def _rounding(rule: Callable[[Relaxed], Float[np.ndarray, " s"] | None]) -> Callable[[Relaxed], Trial]:
    """A trial of a rule that gives the design's pairs whole labels, or None."""
    return lambda start: Trial(lambda: Allocation(start.design.pairs, _or_nothing(rule(start), start.design.pairs)))


def _apportionment(rule: Callable[[Relaxed], Float[np.ndarray, " s"] | None]) -> Callable[[Relaxed], Trial | None]:
    """The same of a rule that is of use only where a pair may have more than one label."""
    ready = _rounding(rule)

    def trial(start):
        return ready(start) if (start.limits.per_pair[start.design.pairs[:, 0]] > 1).any() else None

    return trial


def _best_draw(draw: Callable[[Limits, Allocation, int], Float[np.ndarray, " s"] | None]) -> Callable[[Relaxed], Trial]:
    """The random rounding with the smallest criterion."""

    def rule(start):
        problem, design = start.problem, start.design

        def value(labels):
            kept = Allocation(design.pairs[labels > 0], labels[labels > 0])
            reached = analyse(problem, information(problem, kept)).value
            return reached if np.isfinite(reached) else np.inf

        seeds = np.random.SeedSequence(start.seed).generate_state(DRAWS)
        draws = (draw(problem.limits, design, int(seed)) for seed in seeds)
        return min((_or_nothing(labels, design.pairs) for labels in draws), key=value)

    return _rounding(rule)


def _rounded(start: Relaxed) -> Float[np.ndarray, " s"] | None:
    labels, b = start.design.labels, start.sensitivities
    scores = labels - np.floor(labels) + 1e-3 * b / b.max(initial=1e-300)
    return integer_programs.rounded(start.limits, start.design, scores)


def _greedy(start: Relaxed) -> Trial | None:
    return _greedy_trial(start, start.problem.criterion.for_whole_labels())


def _greedy_logdet(start: Relaxed) -> Trial | None:
    return None if start.problem.criterion.gains is Gains.LOG_DET else _greedy_trial(start, LogDet())


def _greedy_trial(start: Relaxed, crit: ConvexCriterion) -> Trial | None:
    prompts = _greedy_prompts(start.problem, crit, start.design)
    return None if prompts is None else Trial(lambda: _greedy_among(start.problem, crit, prompts), len(prompts))


CANDIDATES = (  # in the order in which they are tried; of each row, the first that obeys the budget
    (
        Candidate("best_set", LAMINAR, _rounding(lambda s: rounding.best_set(s.limits, s.design, s.sensitivities))),
        Candidate("rounded", EVERY_KIND, _rounding(_rounded)),
    ),
    (
        Candidate(
            "largest_remainder",
            LAMINAR,
            _apportionment(lambda s: rounding.largest_remainder(s.limits, s.design, s.sensitivities)),
        ),
    ),
    (Candidate("adams", LAMINAR, _apportionment(lambda s: rounding.adams(s.limits, s.design))),),
    (
        Candidate("dependent", LAMINAR, _best_draw(rounding.dependent)),
        Candidate("dependent", EVERY_KIND, _best_draw(integer_programs.randomly_rounded)),
    ),
    (Candidate("drawn", LAMINAR, _rounding(lambda s: rounding.drawn(s.limits, s.design, s.seed))),),
    (
        Candidate(
            "drawn_by_prompt",
            LAMINAR,
            _rounding(lambda s: rounding.drawn(s.limits, s.design, s.seed, by_prompt=True)),
        ),
    ),
    (Candidate("greedy", LAMINAR, _greedy),),
    (Candidate("greedy_logdet", LAMINAR, _greedy_logdet),),
)


def among_more(problem: Problem, relaxed: Design) -> Allocation:
    """Labels by an integer program over the design's pairs and the best pairs of every completion; none if it fails.

    The program prefers the design's pairs, then those with the largest sensitivities.
    """
    analysis = analyse(problem, information(problem, Allocation(relaxed.pairs, relaxed.labels)))
    others, _ = best_of_pool(problem, analysis, 0.0, WIDER)
    pairs = np.concatenate([relaxed.pairs, others[not_among(others, relaxed.pairs, problem.completions)]])
    b = exact_sensitivities(problem, pairs, analysis.factors)
    real_labels = np.concatenate([relaxed.labels, np.zeros(len(pairs) - len(relaxed.labels))])
    cap = np.minimum(np.floor(problem.limits.per_pair[pairs[:, 0]]), problem.limits.total)
    scores = np.minimum(real_labels, 1) + b / b.max(initial=1e-300)
    for preferred in (scores, np.zeros(len(pairs))):  # where labels hardly fit at all, preferences get in the way
        labels = integer_programs.most_scored(problem.limits, pairs, preferred, np.zeros(len(pairs)), cap)
        if labels is not None:
            break
    labels = _or_nothing(labels, pairs)
    return Allocation(pairs[labels > 0], labels[labels > 0])


def _or_nothing(labels, pairs):
    return np.zeros(len(pairs)) if labels is None else labels


def _greedy_prompts(problem: Problem, crit: ConvexCriterion, design: Allocation) -> Int[np.ndarray, " q"] | None:
    """The prompts that greedy has time and memory for: those with most labels in the real-valued design, then those
    with the largest bounds on sensitivities at it."""
    limits = problem.limits
    if limits.total > MANY * len(design.pairs):
        return None
    share = min(GREEDY_WORK / work(problem, crit), GREEDY_MEMORY / memory(problem, crit))
    if share >= 1:
        return np.arange(problem.prompts)
    number = int(share * problem.prompts)
    if number < 1:
        return None
    number = 1 << (number.bit_length() - 1)  # a power of two, so that few shapes are ever compiled
    spent = np.bincount(design.pairs[:, 0], weights=design.labels, minlength=problem.prompts)
    prompts = np.sort(np.lexsort((-_bounds(problem, design, spent, number), -spent))[:number])
    theirs = Limits(limits.total, limits.per_pair[prompts], limits.per_prompt[prompts])
    return prompts if capacity(theirs, problem.pair_counts[prompts]) >= limits.total else None


def _bounds(problem: Problem, design: Allocation, spent, number: int) -> Float[np.ndarray, " p"]:
    """Bounds on the sensitivities of prompts at the design, where there is a place beside those with labels; else 0."""
    if np.count_nonzero(spent) >= number:
        return np.zeros(problem.prompts)
    analysis = analyse(problem, information(problem, design))
    return bounded(problem.source, factored(analysis), no_ceilings(problem.prompts)).upper


def _greedy_among(problem: Problem, crit: ConvexCriterion, prompts: np.ndarray) -> Allocation:
    """The greedy choice among the pairs of some prompts, named as in the whole pool."""
    limits, closed = problem.limits, problem.decided.closed
    if len(prompts) < problem.prompts:
        limits = Limits(limits.total, limits.per_pair[prompts], limits.per_prompt[prompts])
        closed = closed[np.isin(closed[:, 0], prompts)]
        closed = np.concatenate([np.searchsorted(prompts, closed[:, :1]), closed[:, 1:]], axis=1).astype(np.int32)
    pairs, labels = greedy_allocation(problem.part(prompts), crit, limits, problem.prior, closed)
    return Allocation(np.concatenate([prompts[pairs[:, :1]].astype(np.int32), pairs[:, 1:]], axis=1), labels)
