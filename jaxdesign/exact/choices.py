"""The portfolio of `select_pairs`: several choices of whole labels, the best of them improved by exchange."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign._pairs import Allocation
from jaxdesign.analysis import analyse, information, sound
from jaxdesign.budget.feasibility import check_feasible
from jaxdesign.budget.limits import capacity, limits_in_tasks, prompt_room
from jaxdesign.certificates.separable import from_bound
from jaxdesign.certificates.whole import whole_bound
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.design import Certificate, Design
from jaxdesign.exact.candidates import among_more, candidates
from jaxdesign.exact.exchange.exchange import exchange
from jaxdesign.problem import Problem

METHODS = ("best_set", "largest_remainder", "adams", "dependent", "rounded", "greedy", "greedy_logdet", "exchange")
RECIPES = ("drawn", "drawn_by_prompt")  # the published recipe, tried where it is asked for
EXCHANGE_PASSES = 40  # over the pool, at most
STARTS = 12  # of exchange, at most;
STARTS_WORK = 3e8  # fewer where labels times the entries of the pool are many, but two at least
ADDED = 1e-6  # share of the even allocation added to the prior, so that exchange can mend a singular choice


class Choice(NamedTuple):
    """Whole labels with their certificate."""

    name: str
    pairs: Int[np.ndarray, "s 3"]
    labels: Float[np.ndarray, " s"]
    certificate: Certificate[float]

    @property
    def allocation(self) -> Allocation:
        """Pairs and labels together."""
        return Allocation(self.pairs, self.labels)


class Outcome(NamedTuple):
    """The best choice, None if all are singular, a report on every candidate, and the bound on whole labels."""

    best: Choice | None
    candidates: dict
    whole: float  # -inf where there is none


def in_tasks(problem: Problem, size: int) -> Problem:
    """The problem in units of tasks of `size` labels each: A and all limits divided by it, whole numbers of tasks."""
    if size == 1:
        return problem
    limits = limits_in_tasks(problem.limits, size)
    counts = np.where(np.minimum(limits.per_pair, limits.per_prompt) >= 1, problem.pair_counts, 0.0)
    if capacity(limits, counts) < limits.total:
        raise ValueError(
            f"budget.labels_per_task={size}: caps and quotas hold {capacity(limits, counts):g} whole tasks, not the "
            f"{limits.total:g} of budget.total={size * limits.total:g}; raise per_pair to at least {size}, or lower "
            "the total"
        )
    try:
        check_feasible(limits.total, limits.minima, limits.families, prompt_room(limits, counts), counts)
    except ValueError as error:
        raise ValueError(f"budget.labels_per_task={size}: in whole tasks, {error}") from error
    return replace(problem, limits=limits, prior=problem.prior / size, pair_counts=counts)


def best_choice(
    problem: Problem,
    relaxed: Design,
    tol: float,
    seed: int,
    size: int,
    methods: Sequence[str] = METHODS,
    progress: Callable[[str, str], Any] = lambda phase, detail: None,
) -> Outcome:
    """The best candidate for `relaxed`, the real-valued design of the problem's free labels.

    Args:
        problem: whole limits.
        relaxed: pairs and labels without the required ones; its lower bound, or that on whole labels where it is
            better, certifies every choice.
        tol: a candidate certified to this ends the search.
        seed: for the candidates that draw.
        size: labels per task.
        methods: names of the candidates to try, of METHODS and RECIPES. Where all are singular, exchange mends the
            first, as `spanning`: by log det A with a little information of all pairs added to it.
        progress: called with the name of a candidate when its turn comes, and what there is to say about it.
    """
    tasks = in_tasks(problem, size)
    whole = whole_bound(problem, tasks.limits, size)
    bound = max(relaxed.certificate.lower_bound, whole)
    design = replace(relaxed, labels=relaxed.labels / size)
    choices, reports, singular_ones = [], {}, []

    def consider(name, began, pairs, labels, **details):
        if labels.sum() != tasks.limits.total:
            return
        certificate = certificate_of(problem, Allocation(pairs, size * labels), bound)
        seconds = time.perf_counter() - began
        reports[name] = {"value": certificate.value, "efficiency": certificate.efficiency, "seconds": seconds} | details
        if not np.isfinite(certificate.value):
            singular_ones.append(Choice(name, pairs, labels, certificate))
        else:
            choices.append(Choice(name, pairs, labels, certificate))
            choices.sort(key=lambda choice: choice.certificate.value)

    def good_enough():
        return bool(choices) and choices[0].certificate.relative_gap() <= tol

    for name, trial in candidates(tasks, design, seed):
        if name not in methods:
            continue
        prompts, began = trial.prompts, time.perf_counter()
        if prompts is not None and good_enough():
            break
        progress(name, "" if prompts is None else f"{tasks.limits.total:.0f} picks among {prompts} prompts")
        pairs, labels = trial.choose()
        details = {} if prompts is None else {"prompts": prompts}
        consider(name, began, pairs[labels > 0], labels[labels > 0], **details)
    if not choices and not singular_ones:
        began = time.perf_counter()
        progress("wider", "no rounding of the design's own pairs obeys the budget")
        consider("wider", began, *among_more(tasks, design))
    if not choices and singular_ones and "exchange" in methods:
        began = time.perf_counter()
        regularised = replace(tasks, criterion=LogDet(), prior=tasks.prior + ADDED * (tasks.even - tasks.prior))
        start = singular_ones[0]
        pairs, labels, made = exchange(
            regularised,
            start.allocation,
            max_passes=EXCHANGE_PASSES,
            progress=partial(progress, "spanning"),
        )
        consider("spanning", began, pairs, labels, start=start.name, swaps=made.swaps)
    proxy = replace(tasks, criterion=problem.criterion.for_whole_labels())
    if "exchange" in methods:
        for number, start in enumerate(_starts(tasks, choices)):
            if good_enough():
                break
            began = time.perf_counter()
            name = "exchange" if number == 0 else f"exchange_{number + 1}"
            pairs, labels, made = exchange(
                proxy,
                start.allocation,
                max_passes=EXCHANGE_PASSES,
                progress=partial(progress, name),
            )
            consider(name, began, pairs, labels, start=start.name, swaps=made.swaps, optimal=made.optimal)
    best = choices[0] if choices else None
    return Outcome(None if best is None else best._replace(labels=size * best.labels), reports, whole)


def certificate_of(problem: Problem, allocation: Allocation, bound: float) -> Certificate[float]:
    """Certificate of whole labels from a bound; value inf, efficiency 0 where A is singular."""
    matrix = information(problem, allocation)
    analysis = analyse(problem, matrix)
    if not sound(problem, matrix, analysis):
        return Certificate(float("inf"), bound, float("inf"), 0.0)
    return from_bound(problem, analysis, bound)


def _starts(problem: Problem, choices: list[Choice]) -> list[Choice]:
    """The choices that exchange starts from: the best, then a rounded design, then the others by value.

    Where the best is a greedy choice, rounding the design is worse, but exchange may end better from it.
    """
    size = problem.limits.total * problem.prompts * problem.completions * problem.dim
    rest = sorted(choices[1:], key=lambda choice: choice.name not in ("best_set", "rounded"))
    return [*choices[:1], *rest][: int(np.clip(STARTS_WORK / size, 2, STARTS))]
