"""Matrix atoms under constraints that couple prompts: groups, minima, a spend limit.

As `matrix_atoms`, with atoms from the linear programs that certify (`certificates.coupled`): whole allowed allocations,
so that every mixture of them is allowed, whatever the constraints are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxdesign._pairs import Allocation
from jaxdesign.analysis import analyse, check_rank, flat, information, regular, usable
from jaxdesign.budget.kinds import EVERY_KIND
from jaxdesign.budget.required import free_part
from jaxdesign.certificates.allowed import check_allowed
from jaxdesign.certificates.coupled import certify_coupled
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.design import Design
from jaxdesign.problem import Problem
from jaxdesign.solvers.atoms.allowed_start import allowed_start
from jaxdesign.solvers.atoms.matrix_atoms import (
    Atom,
    Mixture,
    allocation_of,
    atom,
    matrix_of,
    mixed,
    mixture_arrays,
    mixture_from,
    pruned,
    with_atom,
)
from jaxdesign.solvers.states import Scored, SolverState

DROPPED = 1e-12  # labels below this share of the mean are dropped
# shares of the even allocation that are added to A, so that sensitivities are large where the first atoms have no
# information: the second where pairs that no label may go to hide it, others where A is singular still
ADDED_SHARES, LARGER_SHARES = (1e-6, 1e-10), (1e-3, 1.0)


class CoupledAtoms(NamedTuple):
    """Any criterion, any budget, by mixtures of allowed allocations.

    Args:
        max_passes: pricing passes after which to stop, where the caller names no limit.
        patience: passes without a smaller gap after which it has stalled.
    """

    max_passes: int = 400
    patience: int = 40
    obeys = EVERY_KIND

    def init(self, problem: Problem, start: Design | None) -> SolverState:
        if start is not None and (warm := _warm_atom(problem, start)) is not None:
            return _state(problem, Mixture([warm], np.ones(1), None), 0)
        check_rank(problem)
        first = atom(problem, allowed_start(problem))
        singular = None
        for share in ADDED_SHARES:
            spanning, passes = _spanning(problem, first, share)
            matrix = matrix_of(problem, spanning)
            if not _spans(problem, matrix):
                singular = (spanning, passes) if regular(problem, matrix) else None
                continue
            state = _state(problem, pruned(mixed(problem, spanning, 1e-2)), passes)
            # where the target leaves directions out, weights that are best for it may be singular
            matrix = information(problem, state.allocation)
            return state if regular(problem, matrix) else _state(problem, spanning, passes)
        if singular is not None:  # for a criterion that is finite there
            return _state(problem, *singular)
        raise ValueError(
            "budget: no mixture of allowed allocations was found that makes the information regular; pass a prior (a "
            "ridge), or relax quotas, minima, spend limit and constraints"
        )

    def step(self, problem: Problem, state: SolverState, scored: Scored, tol: float) -> SolverState:
        target = max(0.05 * min(scored.relative_gap, 1.0), 0.1 * tol)
        mixture = with_atom(state.memory, _oracle_atom(problem, scored.priced))
        return _state(problem, pruned(mixed(problem, mixture, target)), state.passes)

    def memory_arrays(self, memory: Mixture) -> dict[str, np.ndarray]:
        """What a checkpoint keeps of a memory; see `Solver`."""
        return mixture_arrays(memory)

    def memory_from(self, problem: Problem, arrays: Mapping[str, np.ndarray]) -> Mixture:
        """The memory of a `problem` from such `arrays`; see `Solver`."""
        return mixture_from(arrays)


def _spans(problem: Problem, matrix) -> bool:
    """Whether A is regular in every direction, also for a criterion that would be finite where it is not."""
    return not flat(matrix) and usable(problem, analyse(problem, matrix))


def _spanning(problem: Problem, first: Atom, share: float) -> tuple[Mixture, int]:
    """Atoms of equal weight that make A regular, for LogDet because a target may leave directions out; and passes.

    Singular still where no atom adds to the rank. The even allocation breaks the constraints, but with a small share of
    it added, sensitivities are large where information is missing.
    """
    log_det, atoms, passes = replace(problem, criterion=LogDet()), [first], 0
    mixture = Mixture(atoms, np.ones(1), None)
    for _ in range(2 * problem.dim + 2):
        matrix = matrix_of(problem, mixture)
        if _spans(problem, matrix):
            break
        for added in (share, *LARGER_SHARES):
            filled = matrix + added * (problem.even - problem.prior)
            if usable(log_det, analysis := analyse(log_det, filled)):
                break
        else:
            break
        priced = certify_coupled(log_det, filled, analysis, Allocation(atoms[-1].pairs, atoms[-1].labels))
        atoms, passes = [*atoms, _oracle_atom(problem, priced)], passes + priced.passes
        mixture = Mixture(atoms, np.full(len(atoms), 1 / len(atoms)), None)
    return mixture, passes


def _state(problem: Problem, mixture: Mixture, passes: int) -> SolverState:
    """The mixture's allocation, which is allowed because every atom is."""
    pairs, labels = allocation_of(mixture)
    keep = labels > DROPPED * problem.limits.total / len(labels)
    labels = labels[keep] * (problem.limits.total / labels[keep].sum())
    return SolverState(pairs[keep].astype(np.int32), labels, passes, mixture)


def _warm_atom(problem: Problem, start: Design) -> Atom | None:
    """An earlier design as an atom; None where it breaks this budget or leaves A singular."""
    free = free_part(problem.decided, Allocation(start.pairs, start.labels), problem.completions)
    try:
        check_allowed(problem, free)
    except ValueError:
        return None
    warm = atom(problem, free)
    return warm if regular(problem, problem.prior + warm.matrix) else None


def _oracle_atom(problem, priced) -> Atom:
    chosen = priced.oracle.labels > 0
    labels = priced.oracle.labels[chosen]
    return atom(problem, Allocation(priced.pairs[chosen], labels * (problem.limits.total / labels.sum())))
