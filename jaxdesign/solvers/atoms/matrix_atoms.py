"""Matrix atoms: fully corrective Frank-Wolfe that keeps the information matrices of whole top-m sets.

The linear oracle returns an extreme allocation, with one label a pair the set of the m best pairs; its d x d
information is an atom. Each round adds the atom of the current G and optimises the mixture of all atoms fully,

    min over w >= 0, sum w = 1 of criterion(prior + sum_s w_s M_s),

by Newton steps: k atoms make a k x k quadratic programme with Hessian tr(M_s K(M_t)), K = `criterion.curvature`. The
allocation is the mixture of the sets, so caps and quotas hold by construction and nothing of the size of the pool is
kept. Rounds are few when a top-m set is nearly optimal (m well above d); without caps an atom is a single pair.
Source: fully corrective Frank-Wolfe, Holloway 1974, doi:10.1007/BF01580219; the atoms are derived; checked by
tests/solvers/test_protocol.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays
from jaxdesign._pairs import Allocation, added_up
from jaxdesign.analysis import analyse, check_rank, information, regular, usable
from jaxdesign.budget.kinds import LAMINAR
from jaxdesign.budget.oracle import exact_total
from jaxdesign.certificates.separable import pairs_needed
from jaxdesign.design import Design
from jaxdesign.methods import interior_point
from jaxdesign.methods.line_search import exact_step
from jaxdesign.methods.room import linear_oracle
from jaxdesign.problem import Problem
from jaxdesign.solvers.dense.problem import DenseProblem, dense_of, even_allocation, in_coordinates, sensitivities
from jaxdesign.solvers.states import Scored, SolverState, all_but_smallest, solver_state, warm_state

ROUNDS = 6  # before the first certificate, where a set spans the space
IDLE = 1e-7  # weight below which an atom is dropped
EVEN = 0.01  # weight of the even allocation where the start needs it to be regular
FAR = 3.0  # an atom this many times better than the mixture: too far for the quadratic model, a step towards it alone
PAGE = 16  # atoms are padded to multiples of this, so that few shapes are compiled


class Atom(NamedTuple):
    """An allowed allocation with its information, prior not included."""

    pairs: Int[np.ndarray, "s 3"]
    labels: Float[np.ndarray, " s"]
    matrix: Float[np.ndarray, "r d d"]


class Mixture(NamedTuple):
    """Atoms and their weights, which sum to 1."""

    atoms: list[Atom]
    weights: Float[np.ndarray, " k"]
    dense: DenseProblem | None  # for sets that the certificate's listing does not hold; None where there are none


class MatrixAtoms(NamedTuple):
    """Any criterion, with and without caps and quotas, by mixtures of top-m sets.

    Args:
        max_passes: pricing passes after which to stop, where the caller names no limit.
        patience: passes without a smaller gap after which it has stalled.
    """

    max_passes: int = 300
    patience: int = 30
    obeys = LAMINAR

    def init(self, problem: Problem, start: Design | None) -> SolverState:
        check_rank(problem)
        dense = dense_of(problem)
        if start is not None and (warm := warm_state(problem, start)) is not None:
            mixture = Mixture([atom(problem, warm.allocation)], np.ones(1), dense)
            return warm._replace(memory=mixture)
        mixture, rounds = Mixture([_even_atom(problem, dense)], np.ones(1), dense), 0
        limit = ROUNDS + 4 * int(np.ceil(problem.dim / pairs_needed(problem)))  # a set may span little of the space
        while rounds < limit and mixture.weights[0] > IDLE:
            new = oracle_atom(problem, dense, matrix_of(problem, mixture))
            mixture, rounds = mixed(problem, with_atom(mixture, new), 1e-3), rounds + 1
        state = mixture_state(problem, pruned(without_first(problem, mixture)), rounds + 1, 0.0)
        if regular(problem, information(problem, state.allocation)):
            return state
        # where the target leaves directions out, weights that are best for it may be singular
        return mixture_state(problem, with_first(mixture, EVEN), rounds + 1, 0.0)

    def step(self, problem: Problem, state: SolverState, scored: Scored, tol: float) -> SolverState:
        oracle, passes, mixture = scored.priced.oracle, state.passes, state.memory
        if oracle.labels.sum() >= problem.limits.total * (1 - 1e-9):
            chosen = oracle.labels > 0
            new = atom(problem, Allocation(scored.priced.pairs[chosen], oracle.labels[chosen]))
        else:
            new, passes = oracle_atom(problem, mixture.dense, scored.matrix), passes + 1
        target = max(0.05 * min(scored.relative_gap, 1.0), 0.1 * tol)
        return mixture_state(problem, pruned(mixed(problem, with_atom(mixture, new), target)), passes, tol)

    def memory_arrays(self, memory: Mixture) -> dict[str, np.ndarray]:
        """What a checkpoint keeps of a memory; see `Solver`."""
        return mixture_arrays(memory)

    def memory_from(self, problem: Problem, arrays: Mapping[str, np.ndarray]) -> Mixture:
        """The memory of a `problem` from such `arrays`; see `Solver`."""
        return mixture_from(arrays)._replace(dense=dense_of(problem))


def atom(problem: Problem, allocation: Allocation) -> Atom:
    """An atom of an allowed allocation."""
    pairs, labels = allocation
    return Atom(pairs, labels, information(problem, allocation) - problem.prior)


def oracle_atom(problem: Problem, dense: DenseProblem, matrix: Float[np.ndarray, "r d d"]) -> Atom:
    """The linear oracle's allocation at A, from a pass of its own on the device."""
    with _arrays.float64():
        labels = np.asarray(_oracle(dense, jnp.asarray(matrix)))
    return _atom_of(problem, dense, labels)


@jax.jit
def _oracle(dense, matrix):
    return linear_oracle(sensitivities(dense, in_coordinates(dense, matrix)), dense.room)


def _even_atom(problem, dense):
    with _arrays.float64():
        labels = np.asarray(_even(dense))
    return _atom_of(problem, dense, labels)


_even = jax.jit(even_allocation)


def _atom_of(problem, dense, dense_labels):
    labels = dense_labels[: problem.prompts]
    pairs = np.argwhere(labels > 0).astype(np.int32)
    counted = labels[tuple(pairs.T)].astype(np.float64) * float(dense.labels)
    return atom(problem, Allocation(pairs, exact_total(problem.limits, Allocation(pairs, counted))))


def with_atom(mixture: Mixture, new: Atom) -> Mixture:
    """The mixture with an atom of weight 0."""
    return mixture._replace(atoms=[*mixture.atoms, new], weights=np.append(mixture.weights, 0.0))


def matrix_of(problem: Problem, mixture: Mixture) -> Float[np.ndarray, "r d d"]:
    """A of the mixture."""
    return problem.prior + sum(w * a.matrix for w, a in zip(mixture.weights, mixture.atoms, strict=True))


def without_first(problem: Problem, mixture: Mixture) -> Mixture:
    """The mixture without the even allocation, which touches all pairs, unless the other atoms are worse than it."""
    if mixture.weights[0] <= IDLE:
        return mixture
    rest = mixture._replace(atoms=mixture.atoms[1:], weights=mixture.weights[1:] + IDLE)
    rest = rest._replace(weights=rest.weights / rest.weights.sum())
    if not usable(problem, analyse(problem, matrix_of(problem, rest))):
        return mixture
    rest = mixed(problem, rest, 1e-3)
    even = analyse(problem, problem.prior + mixture.atoms[0].matrix)
    return rest if analyse(problem, matrix_of(problem, rest)).value < even.value else mixture


def mixture_arrays(mixture: Mixture) -> dict[str, np.ndarray]:
    """All that a mixture holds, but for its dense problem."""
    atoms = mixture.atoms
    return {
        "weights": mixture.weights,
        "sizes": np.array([len(a.labels) for a in atoms]),
        "pairs": np.concatenate([a.pairs for a in atoms]),
        "labels": np.concatenate([a.labels for a in atoms]),
        "matrices": np.stack([a.matrix for a in atoms]),
    }


def mixture_from(arrays: Mapping[str, np.ndarray]) -> Mixture:
    """The mixture of `mixture_arrays`."""
    ends = np.cumsum(arrays["sizes"])[:-1]
    parts = np.split(arrays["pairs"], ends), np.split(arrays["labels"], ends), arrays["matrices"]
    return Mixture([Atom(*one) for one in zip(*parts, strict=True)], arrays["weights"], None)


def with_first(mixture: Mixture, share: float) -> Mixture:
    """The mixture with at least this weight on its first atom."""
    first = np.eye(len(mixture.atoms))[0]
    return mixture._replace(weights=(1 - share) * mixture.weights + share * first)


def allocation_of(mixture: Mixture) -> Allocation:
    """Pairs in order with the labels of the mixture."""
    pairs = np.concatenate([a.pairs for a in mixture.atoms])
    labels = np.concatenate([w * a.labels for w, a in zip(mixture.weights, mixture.atoms, strict=True)])
    return added_up(pairs, labels)


def mixture_state(problem: Problem, mixture: Mixture, passes: int, tol: float) -> SolverState:
    """State of the mixture's allocation, less the smallest labels that together are tol / 20 of the total."""
    pairs, labels = allocation_of(mixture)
    keep = all_but_smallest(problem, Allocation(pairs, labels), min(tol, 1e-2) / 20)
    return solver_state(problem, Allocation(pairs[keep], labels[keep]), passes)._replace(memory=mixture)


def mixed(problem: Problem, mixture: Mixture, target: float) -> Mixture:
    """The same atoms, weights optimised until the relative gap over them is at most `target`."""
    count = len(mixture.atoms)
    size = _arrays.round_up(count, PAGE)
    stack = np.zeros((size, *problem.prior.shape))
    stack[:count] = [a.matrix for a in mixture.atoms]
    weights = np.zeros(size)
    weights[:count] = np.maximum(mixture.weights, 0) / mixture.weights.sum()
    with _arrays.float64():
        stack = jnp.asarray(stack)
        for _ in range(30):
            slopes, H = (
                np.asarray(part)[..., :count] for part in _model(problem.criterion, problem.prior, stack, weights)
            )
            unit = slopes @ weights[:count]  # sum of b n
            if slopes.max() - unit <= target * unit:
                break
            change = np.zeros(size)
            if slopes.max() > FAR * unit:
                change[np.argmax(slopes)] = 1.0
            else:
                change[:count] = _best_weights(slopes / unit, H[:count] / unit, weights[:count], 1e-2 * target)
            change -= weights
            length = float(_length(problem.criterion, problem.prior, stack, weights, change))
            if not length > 0:
                break
            weights = np.maximum(weights + length * change, 0)
    return mixture._replace(weights=weights[:count] / weights[:count].sum())


def pruned(mixture: Mixture) -> Mixture:
    """The mixture without its idle atoms."""
    used = mixture.weights > IDLE
    kept = [a for a, in_use in zip(mixture.atoms, used, strict=True) if in_use]
    return mixture._replace(atoms=kept, weights=mixture.weights[used] / mixture.weights[used].sum())


def _best_weights(slopes, H, weights, target):
    """Minimiser of the quadratic model over the simplex; the weights as they are where none is found."""
    region = interior_point.Region(1.0, np.full(len(weights), np.inf), np.zeros(0), np.zeros(len(weights), int))
    start = 0.9 * weights + 0.1 / len(weights)
    point = interior_point.minimise(lambda w: H @ (w - weights) - slopes, lambda w: H, region, start, target)
    w = np.where(point.lower > 10 * point.x, 0.0, point.x)
    return w / w.sum() if np.isfinite(w).all() and w.sum() > 0 else weights


def _information(prior, stack, weights):
    return prior + _arrays.contract("s,srij->rij", weights, stack)


@jax.jit
def _model(criterion, prior, stack, weights) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    """tr(G M_s), and the Hessian of the criterion in the weights, averaged over draws."""
    matrix = _information(prior, stack, weights)
    curvature = criterion.curvature(matrix)
    curved = jax.lax.map(curvature, stack)
    slopes = _arrays.contract("rij,srij->s", criterion.gradient(matrix), stack)
    return slopes / len(prior), _arrays.contract("srij,trij->st", stack, curved) / len(prior)


@jax.jit
def _length(criterion, prior, stack, weights, change) -> Any:
    moved = _information(jnp.zeros_like(prior), stack, change)
    return exact_step(criterion, _information(prior, stack, weights), moved, jnp.ones(()))
