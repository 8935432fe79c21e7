"""`select_pairs`: the main job, from a pool and a label budget to the pairs to have labelled, whole labels each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxdesign import _checks
from jaxdesign._linalg import numerical_rank
from jaxdesign._pairs import Allocation
from jaxdesign.annotators import Annotators, asked
from jaxdesign.budget.budget import Budget, whole_budget
from jaxdesign.budget.required import with_required, without
from jaxdesign.certificates.allowed import canonical_allocation, check_allowed
from jaxdesign.certificates.evaluate import evaluated
from jaxdesign.certificates.whole import bound_in_words
from jaxdesign.certificates.worst_case import report_at
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Design, Status, TraceRow
from jaxdesign.door import make_problem
from jaxdesign.exact.choices import METHODS, RECIPES, best_choice
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.source import Source
from jaxdesign.problem import prior_matrix
from jaxdesign.solvers.optimize import checked_options, solve


def select_pairs(
    pool: CompletionPool | Source,
    crit: CriterionLike,
    budget: Budget,
    *,
    prior: Any = None,
    seed: int = 0,
    tol: float = 1e-3,
    max_passes: int | None = None,
    design: Design | None = None,
    callback: Callable[[TraceRow], bool | None] | None = None,
    progress: Callable[[str, str], Any] | None = None,
    annotators: Annotators | None = None,
    methods: Sequence[str] | None = None,
) -> Design:
    """Choose which pairs to have labelled: whole labels that minimise the criterion, and how far from best they can be.

    First the best real-valued design, whose certificate bounds every choice of whole labels from below. With less than
    a label a dimension that bound says little, because it counts fractions of labels, and the better of it and
    `certificates.whole` is taken. Then several choices of whole labels, of which the one with the smallest criterion is
    returned:

        best_set           the pairs with the most labels in the real-valued design, once each
        largest_remainder  its labels rounded down, the rest to the largest remainders
        adams              Adams apportionment, where there are more labels than pairs in the design
        dependent          the best of DRAWS random roundings up or down that keep the totals (`exact.rounding`)
        greedy             one label at a time, the largest gain first (`greedy`); not tried, because it takes longest,
                           where one of the above is already certified to tol
        greedy_logdet      the same for LogDet, where `crit` is another criterion
        rounded            in place of all these where the budget couples prompts (groups, minima, costs): labels
                           rounded down or up by an integer program (`exact.integer_programs`)
        exchange           the best of these, labels moved from pair to pair until no move helps
        (`exact.exchange.exchange`;
                           LogDet and Trace), where none is certified to tol; exchange_2 from the rounded design, and
                           exchange_3 and so on from the others on pools so small that this costs little
        wider              an integer program over the best pairs of every completion too, where no rounding of the
                           design's own pairs obeys the budget
        spanning           exchange from a choice that leaves the information singular, until it does not, where all do

    Args:
        pool: the pool, or a `pricing.Source`. Features that are divided over prompts on the devices of a mesh stay
            there, but for those of the prompts that greedy looks at.
        crit: the criterion.
        budget: a whole total; largest numbers that are not whole count as rounded down, least ones as rounded up.
        prior: information already held, (d, d) or a scalar ridge; or a `Belief`, as in `optimize`.
        seed: for the choices that draw at random.
        tol: relative gap at which the real-valued design stops, and at which a choice of whole labels is good enough.
        max_passes: passes of the solver after which to stop; None for its own limit.
        design: a real-valued design of the same problem, instead of solving for one; it is certified anew.
        callback: called after every pass of the solver with (passes, value, lower_bound, gap, seconds).
        progress: called with (phase, detail), two strings, when a phase begins or has got further: "optimise", then
            the names of the choices above as they are tried.
        annotators: who can label; the design then says who labels which pair (`.annotators`). None: labels are alike.
        methods: names of the candidates to try, for comparisons; None for all those above. "drawn" and
            "drawn_by_prompt" are tried only where they are named: pairs drawn without replacement with probability
            proportional to the real-valued labels, or to these renormalised within each prompt (arXiv 2606.19607).

    Returns:
        Design with status EXACT: pairs in order, whole labels that sum to the total, the certificate with the chosen
        labels' own value and a lower bound that no allowed choice of whole labels goes below. `report` holds "method",
        the name of the winner; "relaxed", value, lower_bound, efficiency and status of the real-valued design;
        "whole_bound", the bound that counts whole labels, None where it was not computed; "bound", a sentence that says
        which of the two is the better one, which the certificate has; "candidates", for each name value, efficiency,
        seconds, for greedy the number of prompts looked at, for exchange its start, its swaps and whether no move that
        helps is left.

    Raises:
        TypeError, ValueError: as `optimize`; an unknown method; a total that is not whole; fewer labels than it takes
            to make the information regular, without a prior; a design that breaks the budget.

    Numerics: values in float64 from the stored features. Where greedy over the whole pool would take more than about a
    minute on two cores (`work` in `exact.greedy.greedy` above 4e11) or 2^28 entries, it looks only at the prompts with
    most labels in the real-valued design and those with the largest bounds at it, and is left out where those cannot
    hold the total. Labels are chosen by float64 numbers; the same pool has the same labels in memory, in a file or on
    several devices. Of a source, features are held of the prompts that greedy looks at, and of a chunk.

    Source: rounding and drawing, see `exact.rounding`; greedy, see `greedy`; exchange, Fedorov 1972, Theory of Optimal
    Experiments, Academic Press; bounds are derived; checked by tests/exact/test_select.py and by enumeration in
    tests/exact/test_enumeration.py.
    """
    _checks.seed(seed)
    if design is not None and not isinstance(design, Design):
        raise TypeError(f"design: expected a jaxdesign.Design, found {type(design).__name__}")
    methods = METHODS if methods is None else tuple(methods)
    unknown = [name for name in methods if name not in METHODS + RECIPES]
    if unknown or not methods:
        raise ValueError(f"methods: {unknown[:1] or methods} found; choose of {', '.join(METHODS + RECIPES)}")
    options, budget = checked_options(tol, max_passes, callback), whole_budget(budget)
    if annotators is not None and design is not None:
        raise ValueError("design: a design that says who labels what cannot be rounded again; pass design=None")
    joint = asked(pool, budget, annotators)
    progress = progress or (lambda phase, detail: None)
    check_enough(joint.pool, crit, budget, prior)
    progress("optimise", "the real-valued design")
    problem = make_problem(joint.pool, crit, joint.budget, prior, flip=joint.flip)
    if design is None:
        relaxed, problem = solve(problem, None, options)
    else:
        allocation = canonical_allocation(problem, design.pairs, design.labels)
        relaxed, problem = evaluated(problem, allocation, design.status, passes=design.passes, trace=design.trace)
    free = without(problem.decided, Allocation(relaxed.pairs, relaxed.labels))
    relaxed = replace(relaxed, pairs=free[0], labels=free[1])
    problem = problem.at_algebra()  # one label at a time leaves little to do elsewhere
    outcome = best_choice(problem, relaxed, tol, int(seed), int(budget.labels_per_task), methods, progress)
    best = outcome.best
    if best is None:
        ridge = 1e-3 * float(np.trace(problem.given_units(problem.even[0]))) / problem.dim
        raise ValueError(
            f"prior: every choice of {int(budget.total)} whole labels that was tried leaves the information singular "
            f"or breaks the budget; raise budget.total, or pass prior={ridge:.2g} (a ridge)"
        )
    check_allowed(problem, best.allocation)
    real = relaxed.certificate
    report = {
        "method": best.name,
        "relaxed": {
            "value": real.value,
            "lower_bound": real.lower_bound,
            "efficiency": real.efficiency,
            "status": relaxed.status.name,
        },
        "whole_bound": outcome.whole if np.isfinite(outcome.whole) else None,
        "bound": bound_in_words(
            problem.dim, problem.limits.total / budget.labels_per_task, bool(outcome.whole > real.lower_bound)
        ),
        "candidates": outcome.candidates,
    }
    if problem.criterion.family:
        report |= report_at(problem, best.allocation)
    chosen = Design(
        *with_required(problem.decided, best.allocation),
        best.certificate,
        Status.EXACT,
        relaxed.passes,
        relaxed.trace,
        problem.skipped_prompts,
        report,
    )
    return joint.answer(chosen)


def check_enough(pool: CompletionPool | Source, crit: CriterionLike, budget: Budget, prior: Any) -> None:
    """ValueError where so few labels cannot make the information regular, whichever they are."""
    if not getattr(crit, "infinite_where_singular", False):
        return  # what is no criterion is for `make_problem` to name
    draws = pool.num_draws or 1 if isinstance(pool, CompletionPool) else pool.draws
    rank = min(numerical_rank(matrix) for matrix in prior_matrix(prior, pool.dim, draws))
    if budget.total + rank < pool.dim:
        raise ValueError(
            f"budget.total={budget.total:g}: with a prior of rank {rank} that many labels leave the information "
            f"singular in {pool.dim} dimensions; at least {pool.dim - rank} are needed, or a prior (a ridge will do)"
        )
