"""The portfolio of `select_pairs`: several choices of whole labels, the best of them improved by exchange."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdesign._pairs import not_among
from jaxdesign.analysis import analyse, exact_sensitivities, information, sound
from jaxdesign.budget.feasibility import check_feasible
from jaxdesign.budget.limits import Limits, capacity, limits_in_tasks, prompt_room
from jaxdesign.certificates.separable import from_bound, price_at
from jaxdesign.certificates.whole import whole_bound
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.protocol import ConvexCriterion, Gains
from jaxdesign.design import Certificate, Design
from jaxdesign.exact import integer_programs, rounding
from jaxdesign.exact.exchange.exchange import exchange
from jaxdesign.exact.greedy.greedy import greedy_allocation, memory, work
from jaxdesign.exact.rounding import dependent, drawn
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.passes import best_pairs
from jaxdesign.problem import Problem

GREEDY_WORK = 4e11  # see `work`: beyond this, greedy looks only at the prompts that the real-valued design uses most
GREEDY_MEMORY = 2**28  # entries
MANY = 64  # labels for each pair of the real-valued design: beyond, apportionment loses less than 1 / MANY, and greedy,


# one label at a time, takes long for less
METHODS = ("best_set", "largest_remainder", "adams", "dependent", "rounded", "greedy", "greedy_logdet", "exchange")
RECIPES = ("drawn", "drawn_by_prompt")  # the published recipe, tried where it is asked for
DRAWS = 8  # random roundings tried
EXCHANGE_PASSES = 40  # over the pool, at most
WIDER = 20_000  # pairs besides the design's own that an integer program may have
STARTS = 12  # of exchange, at most;
STARTS_WORK = 3e8  # fewer where labels times the entries of the pool are many, but two at least
LENT = 1e-6  # share of the even allocation lent to a singular choice, so that exchange can mend it


class Choice(NamedTuple):
    """Whole labels with their certificate."""

    name: str
    pairs: Int[np.ndarray, "s 3"]
    labels: Float[np.ndarray, " s"]
    certificate: Certificate


class Found(NamedTuple):
    """The best choice, None if all are singular, what is told about every candidate, and the bound on whole labels."""

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
) -> Found:
    """The best candidate for `relaxed`, the real-valued design of the problem's free labels.

    Args:
        problem: whole limits.
        relaxed: pairs and labels without the required ones; its lower bound, or that on whole labels where it is
            better, certifies every choice.
        tol: a candidate certified to this ends the search.
        seed: for the candidates that draw.
        size: labels per task.
        methods: names of the candidates to try, of METHODS and RECIPES. Where all are singular, exchange mends the
            first, as `spanning`: by log det A with a little information of all pairs lent to it.
        progress: told the name of a candidate when its turn comes, and what there is to say about it.
    """
    tasks = in_tasks(problem, size)
    whole = whole_bound(problem, tasks.limits, size)
    bound = max(relaxed.certificate.lower_bound, whole)
    design = replace(relaxed, labels=relaxed.labels / size)
    choices, told, singular_ones = [], {}, []

    def consider(name, began, pairs, labels, **more):
        if labels.sum() != tasks.limits.total:
            return
        certificate = certificate_of(problem, pairs, size * labels, bound)
        seconds = time.perf_counter() - began
        told[name] = {"value": certificate.value, "efficiency": certificate.efficiency, "seconds": seconds} | more
        if not np.isfinite(certificate.value):
            singular_ones.append(Choice(name, pairs, labels, certificate))
        else:
            choices.append(Choice(name, pairs, labels, certificate))
            choices.sort(key=lambda choice: choice.certificate.value)

    def good_enough():
        return bool(choices) and choices[0].certificate.relative_gap() <= tol

    for name, prompts, choose in _candidates(tasks, design, seed):
        if name not in methods:
            continue
        if prompts is not None and good_enough():
            break
        began = time.perf_counter()
        progress(name, "" if prompts is None else f"{tasks.limits.total:.0f} picks among {prompts} prompts")
        pairs, labels = choose()
        consider(
            name, began, pairs[labels > 0], labels[labels > 0], **({} if prompts is None else {"prompts": prompts})
        )
    if not choices and not singular_ones:
        began = time.perf_counter()
        progress("wider", "no rounding of the design's own pairs obeys the budget")
        consider("wider", began, *_among_more(tasks, design))
    if not choices and singular_ones and "exchange" in methods:
        began = time.perf_counter()
        lent = replace(tasks, criterion=LogDet(), prior=tasks.prior + LENT * (tasks.even - tasks.prior))
        start = singular_ones[0]
        pairs, labels, made = exchange(
            lent, start.pairs, start.labels, max_passes=EXCHANGE_PASSES, progress=partial(progress, "spanning")
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
                proxy, start.pairs, start.labels, max_passes=EXCHANGE_PASSES, progress=partial(progress, name)
            )
            consider(name, began, pairs, labels, start=start.name, swaps=made.swaps, optimal=made.optimal)
    best = choices[0] if choices else None
    return Found(None if best is None else best._replace(labels=size * best.labels), told, whole)


def certificate_of(problem: Problem, pairs: np.ndarray, labels: np.ndarray, bound: float) -> Certificate:
    """Certificate of whole labels from a bound; value inf, efficiency 0 where A is singular."""
    matrix = information(problem, pairs, labels)
    analysis = analyse(problem, matrix)
    if not sound(problem, matrix, analysis):
        return Certificate(float("inf"), bound, float("inf"), 0.0)
    return from_bound(problem, analysis, bound)


def _starts(problem: Problem, choices: list[Choice]) -> list[Choice]:
    """The choices that exchange starts from: the best, then a rounded design, then the others by value.

    Where the best is a greedy choice, rounding the design is worse, but exchange has ended better from it: on a real
    pool with 2.6 labels a dimension at 0.943 against 0.941 (LogDet), 0.854 against 0.848 (Trace).
    """
    size = problem.limits.total * problem.pool.num_prompts * problem.pool.completions * problem.dim
    rest = sorted(choices[1:], key=lambda choice: choice.name not in ("best_set", "rounded"))
    return [*choices[:1], *rest][: int(np.clip(STARTS_WORK / size, 2, STARTS))]


def _candidates(problem: Problem, relaxed: Design, seed: int) -> Iterator[tuple[str, int | None, Callable]]:
    """Name, prompts that greedy looks at, and a function that gives pairs and whole labels."""
    limits, pairs, labels = problem.limits, relaxed.pairs, relaxed.labels
    b = exact_sensitivities(problem, pairs, analyse(problem, information(problem, pairs, labels)).factors)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(DRAWS)]
    if not limits.laminar:
        scores = labels - np.floor(labels) + 1e-3 * b / b.max(initial=1e-300)
        yield (
            "rounded",
            None,
            lambda: (pairs, _or_nothing(integer_programs.rounded(limits, pairs, labels, scores), pairs)),
        )
        yield "dependent", None, lambda: (pairs, _best_draw(problem, relaxed, seeds, integer_programs.randomly_rounded))
        return
    ways = {"best_set": lambda: rounding.best_set(limits, pairs, labels, b)}
    if (limits.per_pair[pairs[:, 0]] > 1).any():
        ways["largest_remainder"] = lambda: rounding.largest_remainder(limits, pairs, labels, b)
        ways["adams"] = lambda: rounding.adams(limits, pairs, labels)
    ways["dependent"] = lambda: _best_draw(problem, relaxed, seeds, dependent)
    ways["drawn"] = lambda: drawn(limits, pairs, labels, seed)
    ways["drawn_by_prompt"] = lambda: drawn(limits, pairs, labels, seed, by_prompt=True)
    for name, way in ways.items():
        yield name, None, lambda way=way: (pairs, _or_nothing(way(), pairs))
    names = {"greedy": problem.criterion.for_whole_labels()}
    if problem.criterion.gains is not Gains.LOG_DET:
        names["greedy_logdet"] = LogDet()
    for name, criterion in names.items():
        prompts = _greedy_prompts(problem, criterion, relaxed)
        if prompts is not None:
            yield name, len(prompts), lambda c=criterion, p=prompts: _greedy_among(problem, c, p)


def _best_draw(problem: Problem, relaxed: Design, seeds: list[int], draw: Callable) -> np.ndarray:
    """The random rounding with the smallest criterion."""

    def value(labels):
        found = analyse(problem, information(problem, relaxed.pairs[labels > 0], labels[labels > 0])).value
        return found if np.isfinite(found) else np.inf

    found = (draw(problem.limits, relaxed.pairs, relaxed.labels, seed) for seed in seeds)
    return min((_or_nothing(labels, relaxed.pairs) for labels in found), key=value)


def _among_more(problem: Problem, relaxed: Design) -> tuple[np.ndarray, np.ndarray]:
    """Labels by an integer program over the design's pairs and the best pairs of every completion; none if it fails.

    The program prefers the design's pairs, then those with the largest sensitivities.
    """
    analysis = analyse(problem, information(problem, relaxed.pairs, relaxed.labels))
    result = price_at(problem, analysis, np.inf)
    others, _ = best_pairs(result, 0.0, WIDER, result.unit)
    pairs = np.concatenate([relaxed.pairs, others[not_among(others, relaxed.pairs, problem.pool.completions)]])
    b = exact_sensitivities(problem, pairs, analysis.factors)
    held = np.concatenate([relaxed.labels, np.zeros(len(pairs) - len(relaxed.labels))])
    cap = np.minimum(np.floor(problem.limits.per_pair[pairs[:, 0]]), problem.limits.total)
    scores = np.minimum(held, 1) + b / b.max(initial=1e-300)
    for preferred in (scores, np.zeros(len(pairs))):  # where labels hardly fit at all, preferences get in the way
        labels = integer_programs.most_scored(problem.limits, pairs, preferred, np.zeros(len(pairs)), cap)
        if labels is not None:
            break
    labels = _or_nothing(labels, pairs)
    return pairs[labels > 0], labels[labels > 0]


def _or_nothing(labels, pairs):
    return np.zeros(len(pairs)) if labels is None else labels


def _greedy_prompts(problem: Problem, crit: ConvexCriterion, relaxed: Design) -> np.ndarray | None:
    """The prompts that greedy has time and memory for, those with most labels in the real-valued design first."""
    pool, limits = problem.pool, problem.limits
    if limits.total > MANY * len(relaxed.pairs):
        return None
    share = min(GREEDY_WORK / work(pool, crit, limits.total), GREEDY_MEMORY / memory(pool, crit))
    if share >= 1:
        return np.arange(pool.num_prompts)
    number = int(share * pool.num_prompts)
    if number < 1:
        return None
    number = 1 << (number.bit_length() - 1)  # a power of two, so that few shapes are ever compiled
    spent = np.bincount(relaxed.pairs[:, 0], weights=relaxed.labels, minlength=pool.num_prompts)
    prompts = np.sort(np.argsort(-spent, kind="stable")[:number])
    some = Limits(limits.total, limits.per_pair[prompts], limits.per_prompt[prompts])
    return prompts if capacity(some, problem.pair_counts[prompts]) >= limits.total else None


def _greedy_among(problem: Problem, crit: ConvexCriterion, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The greedy choice among the pairs of some prompts, named as in the whole pool."""
    pool, limits, closed = problem.pool, problem.limits, problem.decided.closed
    if len(prompts) < pool.num_prompts:
        index = jnp.asarray(prompts)
        scores = None if pool.scores is None else pool.scores[..., index, :]
        flip = None if pool.flip is None else pool.flip[index]
        pool = CompletionPool.tree_unflatten(None, (pool.features[index], scores, pool.mask[index], flip))
        limits = Limits(limits.total, limits.per_pair[prompts], limits.per_prompt[prompts])
        closed = closed[np.isin(closed[:, 0], prompts)]
        closed = np.concatenate([np.searchsorted(prompts, closed[:, :1]), closed[:, 1:]], axis=1).astype(np.int32)
    pairs, labels = greedy_allocation(pool, crit, limits, problem.prior, closed)
    return np.concatenate([prompts[pairs[:, :1]].astype(np.int32), pairs[:, 1:]], axis=1), labels
