"""`select_pairs`: the main job, from a pool and a label budget to the pairs to have labelled, whole labels each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdesign.budget import Budget, Limits, capacity, whole_budget
from jaxdesign.certify import from_bound
from jaxdesign.criteria import Criterion, CriterionLike, LogDet, Trace
from jaxdesign.design import Certificate, Design, TraceRow
from jaxdesign.evaluation import canonical_allocation, check_allowed, evaluated
from jaxdesign.exact import rounding
from jaxdesign.exact.exchange import exchange
from jaxdesign.exact.greedy import greedy_allocation, memory, work
from jaxdesign.exact.sampling import dependent
from jaxdesign.pool import CompletionPool
from jaxdesign.problem import (
    Problem,
    analyse,
    exact_sensitivities,
    information,
    make_problem,
    prior_matrix,
    singular,
    uniform_information,
    usable,
)
from jaxdesign.solvers.optimize import optimize
from jaxdesign.status import Status
from jaxdesign.worst_case import WorstCase, as_trace

GREEDY_WORK = 4e11  # see `work`: beyond this, greedy looks only at the prompts that the real-valued design uses most
GREEDY_MEMORY = 2**28  # entries
DRAWS = 8  # random roundings tried
EXCHANGE_PASSES = 40  # over the pool, at most


def select_pairs(
    pool: CompletionPool,
    crit: CriterionLike,
    budget: Budget,
    *,
    prior: Any = None,
    seed: int = 0,
    tol: float = 1e-3,
    design: Design | None = None,
    callback: Callable[[TraceRow], bool | None] | None = None,
) -> Design:
    """Choose which pairs to have labelled: whole labels that minimise the criterion, and how far from best they can be.

    First the best real-valued design, whose certificate bounds every choice of whole labels from below; then several
    choices of whole labels, of which the one with the smallest criterion is returned:

        best_set           the pairs with the most labels in the real-valued design, once each
        largest_remainder  its labels rounded down, the rest to the largest remainders
        adams              Adams apportionment, where there are more labels than pairs in the design
        dependent          the best of DRAWS random roundings up or down that keep the totals (`exact.sampling`)
        greedy             one label at a time, the largest gain first (`greedy`); not tried, because it takes longest,
                           where one of the above is already certified to tol
        greedy_logdet      the same for LogDet, where `crit` is another criterion
        exchange           the best of these, labels moved from pair to pair until no move helps (`exact.exchange`;
                           LogDet and Trace), where none is certified to tol

    Args:
        pool: the pool.
        crit: the criterion.
        budget: a whole total; caps and quotas that are not whole count as rounded down.
        prior: information already held, (d, d) or a scalar ridge.
        seed: for the choices that draw at random.
        tol: relative gap at which the real-valued design stops, and at which a choice of whole labels is good enough.
        design: a real-valued design of the same problem, instead of solving for one; it is certified anew.
        callback: called after every pass of the solver with (passes, value, lower_bound, gap, seconds).

    Returns:
        Design with status EXACT: pairs in order, whole labels that sum to the total, the certificate with the chosen
        labels' own value and the real-valued bound. `report` holds "method", the name of the winner; "relaxed", value,
        lower_bound, efficiency and status of the real-valued design; "candidates", for each name value, efficiency,
        seconds, for greedy the number of prompts looked at, for exchange its start, its swaps and whether no move that
        helps is left.

    Raises:
        TypeError, ValueError: as `optimize`; a total that is not whole; fewer labels than it takes to make the
            information regular, without a prior; a design that breaks the budget.

    Numerics: values in float64 from the stored features. Where greedy over the whole pool would take more than about a
    minute on two cores (`exact.greedy.work` above 4e11) or 2^28 entries, it looks only at the prompts with most labels
    in the real-valued design, and is left out where those cannot hold the total.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed: expected an integer, found {type(seed).__name__}")
    if seed < 0:
        raise ValueError(f"seed={seed}: must be at least 0")
    if design is not None and not isinstance(design, Design):
        raise TypeError(f"design: expected a jaxdesign.Design, found {type(design).__name__}")
    budget = whole_budget(budget)
    check_enough(pool, crit, budget, prior)
    if design is None:
        relaxed = optimize(pool, crit, budget, prior=prior, tol=tol, callback=callback)
        problem = make_problem(pool, crit, budget, prior)
    else:
        problem = make_problem(pool, crit, budget, prior)
        allocation = canonical_allocation(problem, design.pairs, design.labels)
        relaxed = evaluated(problem, *allocation, design.status, passes=design.passes, trace=design.trace)
    if isinstance(crit, WorstCase):
        problem = replace(problem, criterion=crit.mixed([relaxed.report["mixture"][name] for name in crit.names]))
    best, report = _best_candidate(problem, relaxed, tol, int(seed))
    if best is None:
        ridge = 1e-3 * float(np.trace(uniform_information(problem)[0])) / problem.dim
        raise ValueError(
            f"prior: every choice of {int(budget.total)} whole labels that was tried leaves the information singular; "
            f"raise budget.total, or pass prior={ridge:.2g} (a ridge)"
        )
    pairs, labels, certificate = best
    if isinstance(crit, WorstCase):
        report |= evaluated(problem, pairs, labels, Status.EXACT).report
    check_allowed(problem, pairs, labels)
    return Design(
        pairs, labels, certificate, Status.EXACT, relaxed.passes, relaxed.trace, problem.skipped_prompts, report
    )


def check_enough(pool: CompletionPool, crit: CriterionLike, budget: Budget, prior: Any) -> None:
    """ValueError where so few labels cannot make the information regular, whichever they are."""
    if not isinstance(pool, CompletionPool) or isinstance(crit, Criterion):
        return  # wrong kinds are for `make_problem` to name; a user's criterion may be finite at a singular matrix
    spectrum = np.linalg.eigvalsh(prior_matrix(prior, pool))
    rank = int(np.min(np.sum(spectrum > 1e-12 * np.maximum(spectrum[:, -1:], 1e-300), axis=1)))
    if budget.total + rank < pool.dim:
        raise ValueError(
            f"budget.total={budget.total:g}: with a prior of rank {rank} that many labels leave the information "
            f"singular in {pool.dim} dimensions; at least {pool.dim - rank} are needed, or a prior (a ridge will do)"
        )


def _best_candidate(problem: Problem, relaxed: Design, tol: float, seed: int) -> tuple[tuple | None, dict]:
    """Pairs, labels and certificate of the best candidate (None if all are singular), and the report on all."""
    bound, best, told = relaxed.certificate.lower_bound, None, {}
    for name, prompts, choose in _candidates(problem, relaxed, seed):
        if prompts is not None and best is not None and best[2].relative_gap() <= tol:
            break
        began = time.perf_counter()
        pairs, labels = choose()
        pairs, labels = pairs[labels > 0], labels[labels > 0]
        if labels.sum() != problem.limits.total:
            continue
        certificate = _certificate(problem, pairs, labels, bound)
        told[name] = {
            "value": certificate.value,
            "efficiency": certificate.efficiency,
            "seconds": time.perf_counter() - began,
        } | ({} if prompts is None else {"prompts": prompts})
        if np.isfinite(certificate.value) and (best is None or certificate.value < best[2].value):
            best, winner = (pairs, labels, certificate), name
    if best is not None and best[2].relative_gap() > tol and isinstance(as_trace(problem.criterion), LogDet | Trace):
        began = time.perf_counter()
        proxy = replace(problem, criterion=as_trace(problem.criterion))
        pairs, labels, exchanged = exchange(proxy, *best[:2], max_passes=EXCHANGE_PASSES)
        certificate = _certificate(problem, pairs, labels, bound)
        told["exchange"] = {
            "value": certificate.value,
            "efficiency": certificate.efficiency,
            "seconds": time.perf_counter() - began,
            "start": winner,
            "swaps": exchanged.swaps,
            "optimal": exchanged.optimal,
        }
        if certificate.value < best[2].value:
            best, winner = (pairs, labels, certificate), "exchange"
    real = relaxed.certificate
    relaxed_told = {"value": real.value, "lower_bound": bound, "efficiency": real.efficiency}
    report = {
        "method": None if best is None else winner,
        "relaxed": relaxed_told | {"status": relaxed.status.name},
        "candidates": told,
    }
    return best, report


def _certificate(problem: Problem, pairs: np.ndarray, labels: np.ndarray, bound: float) -> Certificate:
    matrix = information(problem, pairs, labels)
    analysis = analyse(problem, matrix)
    if not usable(problem, analysis) or singular(problem, matrix):
        return Certificate(float("inf"), bound, float("inf"), 0.0)
    return from_bound(problem, analysis.value, bound)


def _candidates(problem: Problem, relaxed: Design, seed: int) -> Iterator[tuple[str, int | None, Callable]]:
    """Name, prompts that greedy looks at, and a function that gives pairs and whole labels."""
    limits, pairs, labels = problem.limits, relaxed.pairs, relaxed.labels
    b = exact_sensitivities(problem, pairs, analyse(problem, information(problem, pairs, labels)).G)
    ways = {"best_set": lambda: rounding.best_set(limits, pairs, labels, b)}
    if (limits.per_pair[pairs[:, 0]] > 1).any():
        ways["largest_remainder"] = lambda: rounding.largest_remainder(limits, pairs, labels, b)
        ways["adams"] = lambda: rounding.adams(limits, pairs, labels)
    ways["dependent"] = lambda: _best_draw(problem, relaxed, seed)
    for name, way in ways.items():
        yield name, None, lambda way=way: (pairs, _or_nothing(way(), pairs))
    names = {"greedy": as_trace(problem.criterion)}
    if not isinstance(problem.criterion, LogDet):
        names["greedy_logdet"] = LogDet()
    for name, criterion in names.items():
        prompts = _greedy_prompts(problem, criterion, relaxed)
        if prompts is not None:
            yield name, len(prompts), lambda c=criterion, p=prompts: _greedy_among(problem, c, p)


def _best_draw(problem: Problem, relaxed: Design, seed: int) -> np.ndarray:
    """The random rounding with the smallest criterion of DRAWS."""

    def value(labels):
        found = analyse(problem, information(problem, relaxed.pairs[labels > 0], labels[labels > 0])).value
        return found if np.isfinite(found) else np.inf

    seeds = np.random.SeedSequence(seed).generate_state(DRAWS)
    return min((dependent(problem.limits, relaxed.pairs, relaxed.labels, int(s)) for s in seeds), key=value)


def _or_nothing(labels, pairs):
    return np.zeros(len(pairs)) if labels is None else labels


def _greedy_prompts(problem: Problem, crit: CriterionLike, relaxed: Design) -> np.ndarray | None:
    """The prompts that greedy has time and memory for, those with most labels in the real-valued design first."""
    pool, limits = problem.pool, problem.limits
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


def _greedy_among(problem: Problem, crit: CriterionLike, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The greedy choice among the pairs of some prompts, named as in the whole pool."""
    pool, limits = problem.pool, problem.limits
    if len(prompts) < pool.num_prompts:
        index = jnp.asarray(prompts)
        scores = None if pool.scores is None else pool.scores[..., index, :]
        flip = None if pool.flip is None else pool.flip[index]
        pool = CompletionPool.tree_unflatten(None, (pool.features[index], scores, pool.mask[index], flip))
        limits = Limits(limits.total, limits.per_pair[prompts], limits.per_prompt[prompts])
    pairs, labels = greedy_allocation(pool, crit, limits, problem.prior)
    return np.concatenate([prompts[pairs[:, :1]].astype(np.int32), pairs[:, 1:]], axis=1), labels
