"""`frank_wolfe` and `multiplicative` behind `optimize`: several steps on the device between two certificates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign import _arrays
from jaxdesign._pairs import Allocation, check_pairs_exist
from jaxdesign.analysis import check_rank
from jaxdesign.budget.kinds import LAMINAR
from jaxdesign.criteria.protocol import Gains
from jaxdesign.design import Design
from jaxdesign.methods.room import rescale
from jaxdesign.problem import Problem
from jaxdesign.solvers.dense.frank_wolfe import frank_wolfe_steps
from jaxdesign.solvers.dense.multiplicative import default_power, multiplicative_steps
from jaxdesign.solvers.dense.problem import DenseProblem, dense_of, even_allocation
from jaxdesign.solvers.states import Scored, SolverState, all_but_smallest, solver_state

FIRST = 5  # steps before the first certificate; then a quarter of the passes made so far, at most LONGEST
LONGEST = 50


class DenseMemory(NamedTuple):
    """The problem and the allocation on the device."""

    problem: DenseProblem
    labels: Float[Array, "p k k"]


class FrankWolfe(NamedTuple):
    """Frank-Wolfe steps on the device; see `frank_wolfe`.

    Args:
        max_passes: pricing passes after which to stop, where the caller names no limit.
        patience: passes without a smaller gap after which it has stalled.
    """

    max_passes: int = 2_000
    patience: int = 12
    obeys = LAMINAR

    def init(self, problem: Problem, start: Design | None) -> SolverState:
        return self._advance(problem, begin(problem, start, 0.99), 0, FIRST, 0.0)

    def step(self, problem: Problem, state: SolverState, scored: Scored, tol: float) -> SolverState:
        return self._advance(problem, state.memory, state.passes, steps_after(state.passes), tol)

    def memory_arrays(self, memory: DenseMemory) -> dict[str, np.ndarray]:
        """What a checkpoint keeps of a memory; see `Solver`."""
        return {"labels": np.asarray(memory.labels)}

    def memory_from(self, problem: Problem, arrays: Mapping[str, np.ndarray]) -> DenseMemory:
        """The memory of a `problem` from such `arrays`; see `Solver`."""
        return memory_from(problem, arrays)

    def _advance(self, problem, memory, passes, steps, tol):
        with _arrays.float64():
            labels = _frank_wolfe_steps(memory.problem, memory.labels, steps)
        return sparse_state(problem, labels, memory._replace(labels=labels), passes + steps, tol)


class Multiplicative(NamedTuple):
    """Multiplicative steps on the device; see `multiplicative`.

    Args:
        max_passes: pricing passes after which to stop, where the caller names no limit.
        patience: passes without a smaller gap after which it has stalled.
        power: exponent p of the step; None: the monotone one, for LogDet and Trace 1.8 times it.
    """

    max_passes: int = 1_000
    patience: int = 12
    power: float | None = None
    obeys = LAMINAR

    def init(self, problem: Problem, start: Design | None) -> SolverState:
        return self._advance(problem, begin(problem, start, 0.9), 0, FIRST, 0.0)

    def step(self, problem: Problem, state: SolverState, scored: Scored, tol: float) -> SolverState:
        return self._advance(problem, state.memory, state.passes, steps_after(state.passes), tol)

    def memory_arrays(self, memory: DenseMemory) -> dict[str, np.ndarray]:
        """What a checkpoint keeps of a memory; see `Solver`."""
        return {"labels": np.asarray(memory.labels)}

    def memory_from(self, problem: Problem, arrays: Mapping[str, np.ndarray]) -> DenseMemory:
        """The memory of a `problem` from such `arrays`; see `Solver`."""
        return memory_from(problem, arrays)

    def _advance(self, problem, memory, passes, steps, tol):
        power = self.power
        if power is None:  # 1.8 times as large is faster, and measured to converge, for LogDet and Trace
            known = problem.criterion.gains is not Gains.FIRST_ORDER
            power = default_power(problem.criterion) * (1.8 if known else 1.0)
        with _arrays.float64():
            labels, best = _multiplicative_steps(memory.problem, memory.labels, steps, np.float64(power))
        return sparse_state(problem, best, memory._replace(labels=labels), passes + steps, tol)


def steps_after(passes: int) -> int:
    """Steps until the next certificate, which costs about as much as one of them."""
    return int(np.clip(passes // 4, FIRST, LONGEST))


@jax.jit
def _frank_wolfe_steps(problem, labels, steps):
    return frank_wolfe_steps(problem, labels, steps).labels


@jax.jit
def _multiplicative_steps(problem, labels, steps, power):
    state = multiplicative_steps(problem, labels, steps, power)
    return state.labels, state.best


def begin(problem: Problem, start: Design | None, kept: float) -> DenseMemory:
    """Even allocation, or a mixture with the share `kept` of an earlier design."""
    check_rank(problem)
    dense = dense_of(problem)
    with _arrays.float64():
        return DenseMemory(dense, _start(dense, None if start is None else _as_dense(problem, dense, start) * kept))


def memory_from(problem: Problem, arrays: Mapping[str, np.ndarray]) -> DenseMemory:
    """The problem with labels that were written down."""
    with _arrays.float64():
        return DenseMemory(dense_of(problem), jnp.asarray(arrays["labels"]))


def _as_dense(problem: Problem, dense: DenseProblem, start: Design) -> Float[np.ndarray, "p k k"]:
    check_pairs_exist(problem.exists, start.pairs)
    labels = np.zeros((dense.source.slots, *[problem.completions] * 2), dense.source.dtype)
    total = problem.limits.total / float(dense.labels)
    labels[tuple(np.asarray(start.pairs).T)] = start.labels * (total / start.labels.sum())
    return labels


@jax.jit
def _start(problem: DenseProblem, given: Any):
    even = even_allocation(problem)
    if given is None:
        return even
    inside = jnp.where(problem.room.cap > 0, given, 0)
    return rescale(inside + even * (1 - jnp.sum(inside) / problem.room.total), problem.room)


def sparse_state(problem: Problem, labels: Float[Array, "p k k"], memory: Any, passes: int, tol: float) -> SolverState:
    """State of a dense allocation, less the smallest labels that together are tol / 20 of the total."""
    dense = np.asarray(labels)[: problem.prompts]
    pairs = np.argwhere(dense > 0).astype(np.int32)
    values = dense[tuple(pairs.T)].astype(np.float64) * float(memory.problem.labels)
    keep = all_but_smallest(problem, Allocation(pairs, values), min(tol, 1e-2) / 20)
    return solver_state(problem, Allocation(pairs[keep], values[keep]), passes)._replace(memory=memory)
