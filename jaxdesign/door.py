"""The one door: arguments of a public function validated against each other and made a `Problem`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxdesign import _arrays
from jaxdesign.analysis import analyse, information
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.limits import resolve
from jaxdesign.budget.required import Decided, decided_pairs
from jaxdesign.pool import CompletionPool, kept
from jaxdesign.pricing.adapted import AdaptedSource
from jaxdesign.pricing.annotated import AnnotatedSource, pool_source
from jaxdesign.pricing.believed import believed
from jaxdesign.pricing.checked import checked
from jaxdesign.pricing.memory import MemorySource
from jaxdesign.pricing.sharded import sharded_source
from jaxdesign.pricing.source import Source, closed_bits, survey
from jaxdesign.problem import NEEDS_ALL, Problem, checked_criterion, criterion_for, prior_matrix
from jaxdesign.residual import check_one_label
from jaxdesign.units import column_units, first_look, in_units, rescaled, source_units

INDEFINITE = 1e-6  # share of the largest eigenvalue of G that one below zero may have by rounding


def make_problem(
    pool: CompletionPool | Source,
    criterion: Any,
    budget: Budget,
    prior: Any = None,
    *,
    flip: Float[np.ndarray, "a p"] | None = None,
    whole: bool = False,
) -> Problem:
    """Validate the arguments of a solver against each other.

    Args:
        pool: what was given; the other arguments are checked here.
        criterion, budget, prior: as they were given, the budget for all annotators' prompts where there are any. Of a
            belief with a mean a pool without scores gets them.
        flip: of every annotator (`annotators.Asked`); None: no annotators.
        whole: the whole pool is needed in memory. Without it a pool whose features are divided over the prompts of a
            mesh stays so (`pricing.sharded`); what then asks for `Problem.pool` has all of it brought to one device.

    Raises:
        TypeError: pool (`pricing.checked`), criterion or budget of another kind; a source, with `whole`.
        ValueError: no candidate pair, a budget the pool cannot hold, a prior or target of wrong shape or indefinite,
            repeats of pairs whose residual their labels would share.
    """
    pool = checked(pool)
    if whole and not isinstance(pool, CompletionPool):
        raise TypeError(NEEDS_ALL)
    pool, prior = believed(pool, prior)
    given = criterion, budget, prior, flip
    if isinstance(pool, CompletionPool):
        divided = not whole and _arrays.over_prompts(pool.features) is not None
        problem = _of_divided_pool(pool, *given) if divided else _of_pool(pool, *given)
    else:
        problem = _of_source(pool, *given)
    check_decreasing(problem)
    decided = problem.decided
    if not len(decided.required.pairs):
        return problem
    return replace(problem, prior=information(problem, decided.required))


def _of_divided_pool(pool: CompletionPool, criterion, budget, prior, flip) -> Problem:
    source = kept(pool, ("divided", _arrays.chunk_entries()), lambda: sharded_source(pool))
    problem = _of_source(source, checked_criterion(pool, criterion), budget, prior, flip)
    return replace(problem, whole=in_units(pool, problem.exponents))


def _of_pool(pool: CompletionPool, criterion, budget, prior, flip) -> Problem:
    criterion = checked_criterion(pool, criterion)
    if _arrays.is_traced(pool):
        raise TypeError(
            "pool: is traced; this function runs its loop on the host. Inside jit or vmap use jaxdesign.greedy, "
            "jaxdesign.solvers.frank_wolfe or jaxdesign.solvers.multiplicative"
        )
    _check_repeats(pool.residual, budget)
    pool = _arrays.in_one_place(pool)
    exists = np.asarray(pool.mask)
    exists = exists if flip is None else np.tile(exists, (len(flip), 1))
    decided = _decided(exists, budget)
    exponents = column_units(pool)
    pool = in_units(pool, exponents)
    source = pool_source(pool, flip, closed=decided.closed)
    # a survey does not look at margins: one program with and without
    bare = source._replace(margins=None) if isinstance(source, MemorySource) else source
    counts = survey(bare).pair_counts
    return _problem(source, exists, counts, exponents, criterion, budget, decided, prior, pool, flip)


def _of_source(source: Source, criterion, budget, prior, flip) -> Problem:
    criterion = criterion_for(criterion, source.dim, source.draws if source.draws > 1 else None)
    given = source if flip is None else AnnotatedSource(source, flip)
    source = AdaptedSource(given, np.ones(source.dim))
    look = first_look(source)
    _check_repeats(look.residual, budget)
    exists, exponents = look.survey.exists, source_units(source, look.farthest)
    decided = _decided(exists, budget)
    units, closed = np.ldexp(np.ones(source.dim), exponents), closed_bits(decided.closed, *exists.shape)
    source = AdaptedSource(given, units, closed)
    counts = (survey(source) if closed is not None else look.survey).pair_counts
    return _problem(source, exists, counts, exponents, criterion, budget, decided, prior, None, flip)


def _check_repeats(residual, budget):
    if isinstance(budget, Budget):  # what is none is refused later
        check_one_label(residual, budget.per_pair, "budget.per_pair")


def _decided(exists, budget) -> Decided:
    if not isinstance(budget, Budget):
        raise TypeError(f"budget: expected jaxdesign.Budget, found {type(budget).__name__}")
    return decided_pairs(exists, budget)


def _problem(source, exists, counts, exponents, criterion, budget, decided, prior, whole, flip) -> Problem:
    return Problem(
        source=source,
        # a target may lie on all devices, as what is computed from a divided pool does
        criterion=_arrays.for_algebra(_arrays.in_one_place(criterion).in_units(exponents)),
        limits=resolve(budget, counts, exists, decided.required),
        prior=rescaled(prior_matrix(prior, source.dim, source.draws), exponents),
        exists=exists,
        pair_counts=counts,
        decided=decided,
        exponents=exponents,
        whole=whole,
        flip=flip,
    )


def check_decreasing(problem: Problem) -> None:
    """ValueError for a criterion of the user's own that increases with information, by G at the even allocation."""
    if problem.criterion.decreasing:
        return
    G = analyse(problem, problem.even).G
    if not np.isfinite(G).all():
        return
    spectrum = np.linalg.eigvalsh(G)
    if spectrum.min() < -INDEFINITE * np.abs(spectrum).max():
        raise ValueError(
            f"crit: it increases with information in some direction: minus its gradient at an even allocation has the "
            f"eigenvalue {spectrum.min():.3g} beside {spectrum.max():.3g}; a criterion is minimised and must decrease, "
            "as -log det does"
        )
