"""Matrix atoms under constraints that couple prompts: groups, minima, a spend limit.

As `matrix_atoms`, with atoms from the linear programs that certify (`certify_coupled`): whole allowed allocations, so
that every mixture of them is allowed, whatever the constraints are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxdesign.certify_coupled import certify_coupled
from jaxdesign.coupled_start import allowed_start
from jaxdesign.criteria import LogDet
from jaxdesign.decided import free_part
from jaxdesign.design import Design
from jaxdesign.evaluation import check_allowed
from jaxdesign.problem import Problem, analyse, check_rank, flat, information, singular, usable
from jaxdesign.solvers.driver import Scored, SolverState
from jaxdesign.solvers.matrix_atoms import Atom, Mixture, allocation_of, atom, matrix_of, mixed, pruned, with_atom

DUST = 1e-12  # labels below this share of the mean are dropped
SHOWN = (1e-6, 1e-3, 1.0)  # share of the even allocation that shows the first atoms what is missing


class CoupledAtoms(NamedTuple):
    """Any criterion, any budget."""

    max_passes: int = 400
    patience: int = 40

    def init(self, problem: Problem, start: Design | None) -> SolverState:
        if start is not None and (warm := _warm_atom(problem, start)) is not None:
            return _state(problem, Mixture([warm], np.ones(1), None), 0)
        check_rank(problem)
        atoms, passes = [atom(problem, *allowed_start(problem))], 0
        every = replace(problem, criterion=LogDet())  # a target may leave directions out, where A must be regular too
        for _ in range(2 * problem.dim + 2):
            mixture = Mixture(atoms, np.full(len(atoms), 1 / len(atoms)), None)
            matrix = matrix_of(problem, mixture)
            if not flat(matrix) and usable(problem, analyse(problem, matrix)):
                state = _state(problem, pruned(mixed(problem, mixture, 1e-2)), passes)
                # where the target leaves directions out, weights that are best for it may be singular
                found = information(problem, state.pairs, state.labels)
                return state if _regular(problem, found) else _state(problem, mixture, passes)
            if (shown := _with_a_trace(every, matrix)) is None:
                break
            priced = certify_coupled(every, *shown, atoms[-1].pairs, atoms[-1].labels)
            atoms, passes = [*atoms, _oracle_atom(problem, priced)], passes + priced.passes
        if _regular(problem, matrix):  # a criterion that is finite where A is singular
            return _state(problem, mixture, passes)
        raise ValueError(
            "budget: no mixture of allowed allocations was found that makes the information regular; pass a prior (a "
            "ridge), or relax quotas, minima and spend limit"
        )

    def step(self, problem: Problem, state: SolverState, scored: Scored, tol: float) -> SolverState:
        target = max(0.05 * min(scored.relative_gap, 1.0), 0.1 * tol)
        mixture = with_atom(state.memory, _oracle_atom(problem, scored.priced))
        return _state(problem, pruned(mixed(problem, mixture, target)), state.passes)


def _with_a_trace(problem: Problem, matrix):
    """A plus a little information of all pairs, and its analysis; None where that is of no use either.

    The even allocation breaks the constraints: a trace of it shows the next atom where information is missing, by
    sensitivities that are large there, so that every atom adds to the rank as long as an allowed one can.
    """
    for share in SHOWN:
        shown = matrix + share * (problem.even - problem.prior)
        if usable(problem, analysis := analyse(problem, shown)):
            return shown, analysis
    return None


def _state(problem: Problem, mixture: Mixture, passes: int) -> SolverState:
    """The mixture's allocation, which is allowed because every atom is."""
    pairs, labels = allocation_of(mixture)
    keep = labels > DUST * problem.limits.total / len(labels)
    labels = labels[keep] * (problem.limits.total / labels[keep].sum())
    return SolverState(pairs[keep].astype(np.int32), labels, passes, mixture)


def _warm_atom(problem: Problem, start: Design) -> Atom | None:
    """An earlier design as an atom; None where it breaks this budget or leaves A singular."""
    pairs, labels = free_part(problem.decided, start.pairs, start.labels, problem.pool.completions)
    try:
        check_allowed(problem, pairs, labels)
    except ValueError:
        return None
    found = atom(problem, pairs, labels)
    return found if _regular(problem, problem.prior + found.matrix) else None


def _regular(problem: Problem, matrix) -> bool:
    return usable(problem, analyse(problem, matrix)) and not singular(problem, matrix)


def _oracle_atom(problem, priced) -> Atom:
    chosen = priced.oracle.labels > 0
    labels = priced.oracle.labels[chosen]
    return atom(problem, priced.pairs[chosen], labels * (problem.limits.total / labels.sum()))
