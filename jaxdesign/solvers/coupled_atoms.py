"""Matrix atoms under constraints that couple prompts: groups, minima, a spend limit.

As `matrix_atoms`, with atoms from the linear programs that certify (`certify_coupled`): whole allowed allocations, so
that every mixture of them is allowed, whatever the constraints are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxdesign.certify_coupled import certify_coupled
from jaxdesign.coupled_start import allowed_start
from jaxdesign.decided import free_part
from jaxdesign.design import Design
from jaxdesign.evaluation import check_allowed
from jaxdesign.problem import Problem, analyse, check_rank, singular, uniform_information, usable
from jaxdesign.solvers.driver import Scored, SolverState
from jaxdesign.solvers.matrix_atoms import Atom, Mixture, allocation_of, atom, matrix_of, mixed, pruned, with_atom

DUST = 1e-12  # labels below this share of the mean are dropped


class CoupledAtoms(NamedTuple):
    """Any criterion, any budget."""

    max_passes: int = 400
    patience: int = 40

    def init(self, problem: Problem, start: Design | None) -> SolverState:
        if start is not None and (warm := _warm_atom(problem, start)) is not None:
            return _state(problem, Mixture([warm], np.ones(1), None), 0)
        check_rank(problem)
        pairs, labels = allowed_start(problem)
        # the even allocation breaks the constraints: it only shows the first atoms where information is missing
        even = Atom(pairs[:0], labels[:0], uniform_information(problem) - problem.prior)
        mixture, passes = Mixture([even], np.ones(1), None), 0
        last = Atom(pairs, labels, even.matrix)
        for _ in range(1 + 4 * int(np.ceil(problem.dim / len(pairs)))):
            matrix = matrix_of(problem, mixture)
            priced = certify_coupled(problem, matrix, analyse(problem, matrix), last.pairs, last.labels)
            last, passes = _oracle_atom(problem, priced), passes + priced.passes
            mixture = mixed(problem, with_atom(mixture, last), 1e-3)
            allowed = _without_even(mixture)
            if _regular(problem, matrix_of(problem, allowed)):
                return _state(problem, pruned(mixed(problem, allowed, 1e-2)), passes)
        raise FloatingPointError(
            "information: no mixture of allowed allocations was found regular; pass a prior (a ridge), or relax quotas "
            "and spend limit"
        )

    def step(self, problem: Problem, state: SolverState, scored: Scored, tol: float) -> SolverState:
        target = max(0.05 * min(scored.relative_gap, 1.0), 0.1 * tol)
        mixture = with_atom(state.memory, _oracle_atom(problem, scored.priced))
        return _state(problem, pruned(mixed(problem, mixture, target)), state.passes)


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


def _without_even(mixture: Mixture) -> Mixture:
    weights = mixture.weights[1:] + 1e-3 / len(mixture.weights)
    return mixture._replace(atoms=mixture.atoms[1:], weights=weights / weights.sum())
