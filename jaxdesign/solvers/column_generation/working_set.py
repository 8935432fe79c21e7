"""The restricted problem: a working set of pairs, the rest of the allocation held fixed.

Differences are gathered once and kept in float32 blocks. Capacity is a static function of the pool's shapes, so that
values, budgets and the number of pairs at work cause no recompilation; loops run over the blocks in use only.

Variables are u = labels / scale with scale = total / d, and the criterion is divided by sum_e b_e n_e / d at the start.
In these units LogDet without a prior has b = 1 on the support of an optimal design and a Hessian with diagonal 1.
Differences are whitened by the even allocation (`whitening`), and multiplied by scale^(1/2), so that A = base + sum_e
u_e c_e z_e z_e^T.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import information as information_of
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.information import row_forms, sparse_information
from jaxdesign.methods.room import Room
from jaxdesign.pricing.listed import Held, PromptsHeld, held_rows, holding, pages
from jaxdesign.pricing.source import Source
from jaxdesign.problem import Problem
from jaxdesign.solvers.dense.whitening import whitening

BLOCK = 1024  # divides a page of listed pairs


class WorkingSet(NamedTuple):
    """Pairs at work, in blocks, padded with zero rows."""

    rows: Float[Array, "n block d"]  # differences z W scale^(1/2), float32, for directions and Hessian products
    exact: Float[Array, "n block d"]  # the same in float64, for gradients
    label_info: Float[Array, "n r block"]
    room: Room  # in units of u, (n * block,)
    base: Float[Array, "r d d"]  # prior and fixed pairs, float64
    scale: Float[Array, ""]
    blocks: Int[Array, ""] | int  # blocks in use


def capacity(problem: Problem) -> int:
    """Pairs a working set can hold: supports have about 15 d pairs, twice that while they are being found."""
    return _arrays.round_up(min(40 * problem.dim + BLOCK, max(int(problem.pair_counts.sum()), 1)), BLOCK)


def gather(
    problem: Problem,
    allocation: Allocation,
    fixed: Allocation,
    unit: float,
    held: Held | None = None,
) -> tuple[WorkingSet, CriterionLike, Float[Array, " n"]]:
    """Working set of the listed pairs beside `fixed` pairs and labels; its criterion; and its start in its units.

    `unit` is what the criterion is divided by; `held` are rows of these pairs, listed and fixed, that are in one place
    already. Call inside `_arrays.float64()`.
    """
    pairs, labels = allocation
    limits, size = problem.limits, capacity(problem)
    base, total = information_of(problem, fixed, held), limits.total - fixed.labels.sum()
    scale = limits.total / problem.dim
    used = -(-len(pairs) // BLOCK)
    basis = whitening(problem.even)
    listed = pages(holding(problem.source, held), pairs)
    rows, exact, label_info = _gather(problem, listed, size // BLOCK, basis * np.sqrt(scale))
    cap = np.zeros(size)
    cap[: len(pairs)] = np.minimum(limits.per_pair[pairs[:, 0]], limits.total) / scale
    quota, prompt = None, None
    if limits.has_quotas:
        names, index = np.unique(pairs[:, 0], return_inverse=True)
        most = np.full(size, np.inf)
        spent = np.bincount(fixed[0][:, 0], weights=fixed[1], minlength=len(limits.per_prompt))
        most[: len(names)] = np.minimum(limits.per_prompt - spent, 2 * limits.total)[names] / scale
        place = np.full(size, size - 1, np.int32)
        place[: len(pairs)] = index
        quota, prompt = jnp.asarray(most), jnp.asarray(place)
    start = np.zeros(size)
    start[: len(pairs)] = labels / scale
    room = Room(jnp.asarray(cap), jnp.asarray(total / scale), quota, prompt)
    base, criterion = _in_basis(problem.criterion, basis, base, np.float64(unit))
    return WorkingSet(rows, exact, label_info, room, base, jnp.asarray(scale), used), criterion, jnp.asarray(start)


@jax.jit
def _in_basis(criterion, basis, base, unit):
    return _arrays.contract("ji,rjk,kl->ril", basis, base, basis), criterion.in_basis(basis, unit)


def at_hand(
    problem: Problem, source: Source | PromptsHeld, pairs: Int[np.ndarray, "s 3"], before: Held | None = None
) -> Held | None:
    """Rows of the pairs of a restricted problem where it is solved, if that is not where the pool is.

    Most were held `before`, the others are asked of `source`, the problem's or one that has some at hand.

    None where all of the pool is there: rows are copied from it, and kept nowhere. Of a file or of other devices they
    would be asked for again in every round.
    """
    if problem.at_hand:
        return None
    size = capacity(problem)  # holds all pairs at work, and more where others are at their caps
    size = size if len(pairs) <= size else _arrays.power_of_two(len(pairs))
    return held_rows(source, pairs, size, before)


def _gather(problem, listed, blocks, basis):
    """Differences in a basis, and label information, block by block; blocks not in use stay zero."""
    arrays = _empty(blocks, *problem.prior.shape[:2])
    for part, rows in listed:
        for start in range(part.start, part.stop, BLOCK):
            arrays = _placed(arrays, start // BLOCK, rows, start - part.start, basis)
    return arrays


@jax.jit(static_argnums=(0, 1, 2))
def _empty(blocks, draws, dim):
    exact = jnp.zeros((blocks, BLOCK, dim))
    return exact.astype(jnp.float32), exact, jnp.zeros((blocks, draws, BLOCK))


@jax.jit(donate_argnums=0)  # filled in place
def _placed(arrays, block, rows, start, basis):
    z = jnp.matmul(lax.dynamic_slice_in_dim(rows.differences, start, BLOCK), basis, precision=_arrays.HIGHEST)
    page = z, z, lax.dynamic_slice_in_dim(rows.label_info, start, BLOCK, axis=1)
    return tuple(a.at[block].set(part.astype(a.dtype)) for a, part in zip(arrays, page, strict=True))


def _rows(ws: WorkingSet, k: Array, dtype) -> tuple[Float[Array, "block d"], Float[Array, "r block"]]:
    return (ws.exact[k] if dtype == jnp.float64 else ws.rows[k]), ws.label_info[k].astype(dtype)


def information(ws: WorkingSet, u: Float[Array, " n"], dtype=jnp.float32) -> Float[Array, "r d d"]:
    """A(u) = base + sum_e u_e c_e z_e z_e^T, products in `dtype`, the sum over blocks in float64."""
    labels = u.astype(dtype).reshape(ws.rows.shape[:2])

    def add(k, total):
        rows, label_info = _rows(ws, k, dtype)
        part = [sparse_information(rows, w * labels[k]) for w in label_info]
        return total + jnp.stack(part).astype(total.dtype)

    total = lax.fori_loop(0, ws.blocks, add, ws.base)
    return (total + jnp.swapaxes(total, 1, 2)) / 2


def sensitivities(ws: WorkingSet, factors: Float[Array, "r d d"]) -> Float[Array, " n"]:
    """b_e in units of u as float64, for F F^T = G; products in the dtype of the factors; 0 for padding."""

    def score(k, b):
        rows, label_info = _rows(ws, k, factors.dtype)
        return b.at[k].set(jnp.mean(row_forms(rows, factors) * label_info, axis=0))

    start = jnp.zeros(ws.rows.shape[:2], factors.dtype)
    return lax.fori_loop(0, ws.blocks, score, start).reshape(-1).astype(jnp.float64)


def objective(ws: WorkingSet, criterion) -> Callable:
    """u -> (criterion, gradient); vectors in float64, products over pairs in float32."""

    def value_and_gradient(u):
        value, factors = criterion.value_and_factors(information(ws, u))
        return value, -sensitivities(ws, factors.astype(jnp.float32))

    return value_and_gradient
