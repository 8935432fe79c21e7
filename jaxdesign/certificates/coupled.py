"""Certificates where constraints couple prompts: the linear oracle by prices, over the whole pool.

The linear problem max sum_e b_e n_e is solved by column generation of its own. A linear program over the pairs known so
far gives prices; a pass over the pool, net of the prices, lists the pairs that would enter; again, until the bound of
the prices over all pairs (`linear_program.dual_bound`) is close to what the program over the listed ones reaches. The
bound holds after any round.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jaxdesign._pairs import Allocation
from jaxdesign.analysis import Analysis, sensitivity_bounds
from jaxdesign.budget.linear_program import (
    Prices,
    Program,
    completion_charges,
    dual_bound,
    free_prices,
    linear_program,
    net,
)
from jaxdesign.budget.oracle import OracleResult
from jaxdesign.certificates.separable import (
    ALONE,
    Pass,
    Priced,
    certificate,
    certify,
    cold_level,
    listing_limit,
    pairs_holding,
    swept_at,
)
from jaxdesign.pricing.ceilings import Ceilings
from jaxdesign.pricing.passes import Charges
from jaxdesign.pricing.sweep import Wanted
from jaxdesign.problem import Problem

ROUNDS = 8  # passes over the pool at most
SHARE = 0.1  # of the gap that the oracle may be off by
BAND = 1e-3  # pairs are listed down to this share of the average sensitivity below the price of a label


def certify_coupled(
    problem: Problem,
    matrix: Float[np.ndarray, "r d d"],
    analysis: Analysis,
    allocation: Allocation,
    asked: Pass = ALONE,
) -> Priced:
    """Certify an allowed allocation with information A; its pairs are the first columns of the linear programs.

    The `oracle` of the result holds the labels of the best allowed allocation over the pairs listed, S as its value and
    the price of a label as its level; `passes` says how many passes it took.
    """
    pairs, labels = allocation
    limits = problem.limits
    columns, (b, upper) = pairs, sensitivity_bounds(problem, pairs, analysis.factors)
    current, bound = float(b @ labels), np.inf
    program, passes = _program(limits, columns, b, labels), 0
    while True:
        prices, passes = program.prices, passes + 1
        listed, floor, swept = _listed(problem, analysis, prices, current / limits.total, asked.known)
        asked = asked._replace(known=swept.ceilings)
        columns, first = np.unique(np.concatenate([columns, listed]), axis=0, return_index=True)
        known = first < len(b)
        fresh = np.zeros((2, len(columns)))
        fresh[:, known] = np.stack([b, upper])[:, first[known]]
        fresh[:, ~known] = sensitivity_bounds(problem, columns[~known], analysis.factors)
        b, upper = fresh
        floor = _with_minima(limits, columns, net(limits, prices, columns, b), floor)
        program = linear_program(limits, columns, b) or program
        for trial in (prices, program.prices):
            bound = min(bound, _bound(problem, trial, columns, upper, floor, prices))
        slack = max(SHARE * (bound - current), 1e-10 * abs(bound))
        if bound - program.value <= slack or passes == ROUNDS:
            break
    oracle = OracleResult(program.labels, bound, program.prices.label)
    return Priced(
        certificate(problem, matrix, analysis, bound), swept, columns, b, oracle, float(np.max(floor)), passes
    )


def certify_allocation(
    problem: Problem,
    matrix: Float[np.ndarray, "r d d"],
    analysis: Analysis,
    allocation: Allocation,
    guess: Callable[[], float] | None = None,
    asked: Pass = ALONE,
) -> Priced:
    """Certify an allocation of any budget.

    `guess`: gives the level down to which pairs will be needed; None, or where it turns out too high: it is searched.
    """
    if not problem.limits.laminar:
        return certify_coupled(problem, matrix, analysis, allocation, asked)
    if guess is not None:
        priced = certify(problem, matrix, analysis, guess(), asked)
        if priced.oracle.labels.sum() >= 0.99 * problem.limits.total:
            return priced
        asked = asked._replace(known=priced.swept.ceilings)
    return certify(problem, matrix, analysis, cold_level(problem, analysis), asked)


def _program(limits, pairs, b, labels):
    """The linear program over the allocation's own pairs, with room for what rounding missed of the constraints."""
    found = linear_program(limits, pairs, b)
    if found is not None:
        return found
    looser = tuple(f._replace(low=f.low * (1 - 1e-6), high=f.high * (1 + 1e-6)) for f in limits.families)
    found = linear_program(limits._replace(least=limits.minima * (1 - 1e-6), families=looser), pairs, b)
    if found is not None:
        return found
    return Program(labels, float(b @ labels), free_prices(limits, float(b.min(initial=0.0))))


def _listed(problem: Problem, analysis: Analysis, prices: Prices, average: float, known: Ceilings | None):
    """Pairs whose net at these prices may be above 0 or that a prompt's minimum may need; a bound on the net of all
    others, prompt by prompt; the pass."""
    limits, dtype = problem.limits, problem.source.dtype
    of = np.broadcast_to(completion_charges(limits, prices), problem.exists.shape)
    always = pairs_holding(limits, limits.minima).astype(dtype)
    charges = Charges(of, always)

    threshold = prices.label - BAND * average
    most = listing_limit(problem) + always.sum()
    few = int(listing_limit(problem) / 8)
    found = swept_at(problem, analysis, Wanted(threshold, threshold, most, few), charges, known)
    for trial in range(6):  # prices of a poor program list too much: a higher threshold, and a bound that is loose
        if found.complete:
            break
        best = found.values
        threshold = max(float(best[-1]), threshold + 0.5 * max(float(best[0]) - threshold, 0))
        wanted = Wanted(threshold, threshold, most if trial < 5 else np.inf, few)
        found = swept_at(problem, analysis, wanted, charges, found.ceilings)
    # charges are rounded to the working dtype, in which the threshold was compared
    rounding = 2 * float(np.finfo(dtype).eps) * np.abs(of).max(axis=1)
    return found.pairs, threshold - prices.label + rounding, found


def _with_minima(limits, pairs, nets, floor):
    """`floor`, lower in prompts with a minimum: as many of their best pairs as it may need are listed."""
    wanted = pairs_holding(limits, limits.minima).astype(int)
    order = np.lexsort((-nets, pairs[:, 0]))
    owner, ranked = pairs[order, 0], nets[order]
    place = np.searchsorted(owner, np.arange(len(wanted))) + wanted - 1
    some = np.flatnonzero((wanted > 0) & (place < len(owner)))
    some = some[owner[place[some]] == some]
    lower = np.array(floor)
    lower[some] = np.minimum(floor[some], ranked[place[some]])
    return lower


def _bound(problem, prices, columns, b, floor, priced_at) -> float:
    """`dual_bound` at some prices, from what a pass at other prices says of the pairs that it did not list."""
    limits, mask = problem.limits, problem.exists
    moved = completion_charges(limits, priced_at) - completion_charges(limits, prices)
    moved = np.where(mask, moved, -np.inf)
    uneven = (np.max(moved, axis=1) > np.min(moved, axis=1, where=mask, initial=np.inf)) & (problem.pair_counts > 0)
    if limits.has_quotas and uneven.any():
        return np.inf  # which pairs of a prompt come first may have changed
    rise = priced_at.label - prices.label + np.partition(moved, -2, axis=1)[:, -2:].sum(axis=1)
    floor = np.where(problem.pair_counts > 0, floor + np.where(np.isfinite(rise), rise, 0.0), floor)
    return dual_bound(limits, problem.pair_counts, prices, columns, net(limits, prices, columns, b), floor)
