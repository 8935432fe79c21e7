"""Greedy selection of whole labels, traceable: one label at a time, the one that lowers the criterion most.

For LogDet by bounds (`lazy`), for other criteria by comparing all pairs at every pick (`full`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._linalg import cholesky_and_inverse
from jaxdesign._pairs import Allocation, candidate_pairs, check_pairs, first_copies
from jaxdesign.budget.limits import Limits
from jaxdesign.criteria.protocol import ConvexCriterion, CriterionLike, Gains
from jaxdesign.exact.greedy.full import REFRESH, full_greedy
from jaxdesign.exact.greedy.lazy import Rules, Start, lazy_greedy
from jaxdesign.exact.greedy.peers import ALONE, Peers
from jaxdesign.information import laplacian_information, margins_of, prompt_forms, prompt_label_information
from jaxdesign.pool import (
    CompletionPool,
    bare_pool,
    centred_features,
    flips_of,
    unchecked_pool,
    with_features,
    with_flip,
    with_shrinkage,
)
from jaxdesign.pricing.believed import believed
from jaxdesign.problem import Problem, checked_criterion, traceable_prior
from jaxdesign.residual import check_one_label
from jaxdesign.units import EXTREME, ORDINARY, farthest_rows

LIFT = 1e-6  # smallest eigenvalue before the first pick, over the mean one after an even allocation


def greedy(
    pool: CompletionPool,
    crit: CriterionLike,
    *,
    size: int,
    per_pair: Any = 1,
    per_prompt: Any = None,
    exclude: Any = None,
    prior: Any = None,
) -> tuple[Int[Array, "size 3"], Float[Array, " size"]]:
    """Choose labels one at a time, each the one with the largest exact gain given those before it.

    Gains, with leverage a = c z^T A^-1 z and sensitivity b: LogDet log(1 + a), Trace b / (1 + a), means over draws;
    any other criterion b, its first-order gain. For Trace they are taken at A plus (labels still to come) times the
    mean information of a label over all pairs (see `full`), so that a batch smaller than the dimension, or a few
    times as large, is not spent on directions that its other labels cover. Traceable with static shapes: works inside
    the caller's jit and vmap.

    Args:
        pool: the pool. Prompts may be divided over the devices of a mesh, on Explicit axes inside of jit: each device
            then compares its own, and no features are gathered (Auto axes inside of jit: as the compiler decides).
        crit: the criterion.
        size: labels to choose, a Python int (it is a shape).
        per_pair: at most this many labels on one pair, a number or one per prompt (P,); None for no limit.
        per_prompt: at most this many labels on the pairs of one prompt, a number or one per prompt (P,); None for no
            limit.
        exclude: (S, 3) rows (p, i, j) that must not be chosen, such as pairs labelled before; may be traced.
        prior: information already held: (d, d), (R, d, d) for R draws, or a scalar ridge; a `Belief`, as in `optimize`;
            that of labels held is
            `held_information(pool, pairs)`, inside of jit `pair_information(pool, labels)`. Where its smallest
            eigenvalue (0 for None) is below 1e-6 of the mean eigenvalue that `size` labels spread evenly would give, so
            much times the identity is added: the first picks are then those that span the space.

    Returns:
        pairs (size, 3) int32 rows (p, i, j), i < j, in the order of picking, so that for LogDet a prefix is itself a
        greedy choice; a pair picked twice is two rows. labels (size,) float32: 1, or 0 with the row (0, 0, 0) where no
        pair was left.

    Raises:
        TypeError: pool, crit or size of another kind.
        ValueError: size below 1, per_pair or per_prompt below 1, repeats of pairs with a residual, pairs to exclude
            that are none, a prior or target of the wrong shape or (outside of jit) indefinite.

    Numerics: the d x d algebra in float64 whatever the x64 flag; pairs are compared in float32 (float64 for float64
    features), gains within 4e-6 of the best count as ties: of the first such prompt, the first such (i, j). Features
    are in units of a power of two near their largest, so their size does not matter; columns 1e-18 times as large as
    others are lost in float32.
    Complexity: LogDet at most 2 P K d + 2 P K^2 operations per pick, as matrix products, and as much again for prompts
    that are looked at twice; Trace 4 P K d + 12 P K^2 at the speed of memory; and 2 P K d^2 + 2 P K^2 d every 512 picks
    for LogDet, every 64 or a quarter of them for Trace, at every pick for other criteria; all times R draws. Memory
    P K^2 floats per draw, twice that for Trace.
    Source: for the monotone submodular log det, greedy reaches 1 - 1/e of the best possible gain (Nemhauser, Wolsey and
    Fisher 1978, doi:10.1007/BF01588971); for Trace there is no such guarantee. Checked by
    tests/exact/test_greedy_picks.py.
    """
    crit = checked_criterion(pool, crit)
    pool, prior = believed(pool, prior)
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise TypeError(f"size: expected a Python int, found {type(size).__name__}; it is a shape")
    if size < 1:
        raise ValueError(f"size={size}: must be at least 1; it is the number of labels to choose")
    limits = {"per_pair": per_pair, "per_prompt": per_prompt}
    cap, quota = (_cap(limit, name, pool.num_prompts) for name, limit in limits.items())
    check_one_label(pool.residual, per_pair, "per_pair")
    shut = None
    if exclude is not None and len(exclude):
        check_pairs(pool, exclude)
        rows = jnp.asarray(exclude, jnp.int32)
        shut = jnp.concatenate([rows[:, :1], jnp.sort(rows[:, 1:], axis=1)], axis=1)
    crit, prior, shut = _arrays.replicated((crit, prior, shut))
    with _arrays.float64():
        held = traceable_prior(prior, pool)
        held = held[0, 0, 0] if prior is None or jnp.ndim(prior) == 0 else held  # a ridge needs no factorisation
        choose = _where_prompts_lie if _arrays.prompt_axes(pool.features) else _on_one_device
        pairs, picked = choose(pool, crit, held, int(size), cap, quota, shut)
        return pairs, (jnp.arange(int(size), dtype=jnp.int32) < picked).astype(jnp.float32)


def _on_one_device(pool, crit, prior, size, cap, quota, shut):
    bare = _arrays.replicated(pool)
    bare = with_flip(bare, flips_of(bare))
    return _greedy(*_in_units(bare, crit, prior), size, cap, quota, shut, rows=size)


def _where_prompts_lie(pool, crit, prior, size, cap, quota, shut):
    return _on_devices(pool, crit, prior, cap, quota, shut, lying=_arrays.prompt_axes(pool.features), size=size)


@jax.jit(static_argnames=("lying", "size"))
def _on_devices(pool, crit, prior, cap, quota, shut, *, lying, size):
    """Each device compares the pairs of its own prompts; no features are gathered."""
    mesh, axes = lying
    by_prompt, whole = PartitionSpec(axes), PartitionSpec()
    scores = None if pool.scores is None else PartitionSpec(*[None] * (pool.scores.ndim - 2), axes)
    residual = None if pool.residual is None else by_prompt
    specs = unchecked_pool(by_prompt, scores, by_prompt, by_prompt, residual), whole, whole, by_prompt, by_prompt, whole
    given = with_flip(pool, flips_of(pool)), crit, prior, cap, quota, shut

    def choose(part, crit, prior, cap, quota, shut):
        peers = Peers(axes)
        part, crit, prior = _in_units(part, crit, prior, peers)
        return _greedy(part, crit, prior, size, cap, quota, shut, rows=size, peers=peers)

    run = jax.shard_map(choose, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=False)
    return run(*_arrays.laid_out(given, specs, mesh))


def greedy_allocation(
    pool: CompletionPool,
    crit: ConvexCriterion,
    limits: Limits,
    prior: Float[np.ndarray, "r d d"],
    closed: Int[np.ndarray, "c 3"] | None = None,
) -> Allocation:
    """The greedy choice under caps and quotas, on the host: pairs in order, repeated ones added up; `closed` ones none.

    Holds fewer labels than the (whole) total only if caps and quotas leave no room for more.
    """
    return _allocation(_greedy, pool, crit, limits, prior, closed)


def myopic_allocation(
    pool: CompletionPool,
    crit: ConvexCriterion,
    limits: Limits,
    prior: Float[np.ndarray, "r d d"],
    closed: Int[np.ndarray, "c 3"] | None = None,
) -> Allocation:
    """`greedy_allocation` by gains at A itself for every criterion, Trace too: what published selectors do."""
    return _allocation(_myopic, pool, crit, limits, prior, closed)


def _allocation(choose, pool, crit, limits, prior, closed):
    total = int(limits.total)
    rows = _arrays.power_of_two(total)
    with _arrays.float64():
        shut = None if closed is None or not len(closed) else _padded(closed)
        pool = with_flip(pool, flips_of(pool))
        pairs, picked = choose(pool, crit, prior, total, limits.per_pair, limits.per_prompt, shut, rows=rows)
    pairs, counts = np.unique(np.asarray(pairs)[: int(picked)], axis=0, return_counts=True)
    return Allocation(pairs.astype(np.int32), counts.astype(np.float64))


def _padded(pairs):
    """Pairs with repetitions of the first, up to a power of two."""
    size = _arrays.power_of_two(len(pairs))
    return np.concatenate([pairs, np.broadcast_to(pairs[:1], (size - len(pairs), 3))])


def work(problem: Problem, crit: ConvexCriterion) -> float:
    """About what a greedy choice costs, in operations that run at the speed of memory (4e11 take a minute or so)."""
    completions, dim = problem.completions, problem.dim
    product = 0.1 * 2 * dim * (dim + completions)  # matrix products run ten times as fast
    if crit.gains is Gains.LOG_DET:
        step = 0.2 * 2 * (dim + completions)
    elif crit.gains is Gains.TRACE:
        step = 2 * (2 * dim + 6 * completions + product / REFRESH)
    else:
        step = 6 * completions + product
    return problem.source.draws * problem.limits.total * problem.prompts * completions * step


def memory(problem: Problem, crit: ConvexCriterion) -> float:
    """Entries of the stored forms and label information, and of the features, of which a part of a pool is a copy."""
    kinds = 1 + (crit.gains is Gains.TRACE)
    kinds += crit.gains is not Gains.LOG_DET
    each = kinds * problem.source.draws * problem.completions + problem.dim
    return float(each) * problem.prompts * problem.completions


def mean_information(
    pool: CompletionPool, candidates: Bool[Array, "p k k"], peers: Peers = ALONE
) -> tuple[Float[Array, "r d d"], Float[Array, " r"]]:
    """Information of a label, averaged over candidate pairs, and its trace; float64 from float32 chunks.

    The trace is a sum of its own, so that what needs no more does not pay for the matrix.
    """
    shape = (pool.num_draws or 1, pool.dim, pool.dim)

    def chunk(part):
        features, mask, margins, chosen = part
        rows = centred_features(bare_pool(features, mask))
        both = (chosen | jnp.swapaxes(chosen, 1, 2)).astype(rows.dtype)
        info = prompt_label_information(margins, rows.dtype)
        found = jnp.broadcast_to(laplacian_information(rows, both[None], info), shape)
        squares = jnp.stack(prompt_forms([(rows, rows)] * shape[0], margins))
        squares = jnp.sum(jnp.where(chosen[None], squares, 0), axis=(1, 2, 3))
        return found.astype(jnp.float64), squares.astype(jnp.float64)

    arrays = (pool.features, pool.mask, margins_of(pool), candidates)
    length = _arrays.chunk_length(pool.num_prompts, pool.completions, pool.dim)
    counts = jnp.sum(candidates, axis=(1, 2), dtype=jnp.int32)
    sums = _arrays.sum_chunks(chunk, arrays, length), jnp.sum(counts, dtype=jnp.float64)
    totals, count = peers.total(sums)
    return jax.tree.map(lambda total: total / jnp.maximum(count, 1), totals)


def _in_units(pool, crit, prior, peers=ALONE):
    """Pool, criterion and prior with features divided by a power of two near the largest; as they are if ordinary."""
    if pool.features.dtype == np.float16:  # cannot hold what is not ordinary
        return pool, crit, prior
    unit = _unit(pool.features, pool.mask, peers)
    if not _arrays.is_traced(unit) and unit == 1:  # no copy of the features
        return pool, crit, prior
    features = pool.features * (1 / unit).astype(pool.features.dtype)
    return with_features(pool, features), crit.in_basis(jnp.eye(pool.dim) / unit), prior / unit**2


@jax.jit(static_argnames="peers")
def _unit(features, mask, peers):
    largest = peers.largest(jnp.max(farthest_rows(features, mask)).astype(jnp.float64))
    unit = jnp.clip(_arrays.power_of_two_below(largest), 2.0 ** -EXTREME[4], 2.0 ** EXTREME[4])
    return jnp.where((unit < 2.0**-ORDINARY) | (unit > 2.0**ORDINARY), unit, 1)


def _cap(limit, name, prompts):
    cap = _checks.at_least_one(np.inf if limit is None else limit, name, "use mask to exclude completions")
    assert cap is not None  # inf was given, not None
    if cap.shape not in ((), (prompts,)):
        raise ValueError(f"{name}: shape {cap.shape} found; expected a scalar or ({prompts},)")
    return np.broadcast_to(cap, (prompts,))


@jax.jit(static_argnames=("rows", "peers"))
def _greedy(pool, crit, prior, size, cap, quota, closed=None, *, rows, peers=ALONE):
    """Pairs (rows, 3) and how many of them count, at most `size`. Call inside `_arrays.float64()`."""
    pool = with_shrinkage(pool)
    is_open, mean, start = _start(pool, prior, size, closed, peers)
    rules = Rules(size, jnp.asarray(cap), jnp.asarray(quota))
    if crit.gains is Gains.LOG_DET:
        return lazy_greedy(pool, start, is_open, rules, rows=rows, peers=peers)
    to_come = mean if crit.gains is Gains.TRACE else jnp.zeros_like(mean)
    return full_greedy(pool, crit, start.matrix, to_come, is_open, rules, rows=rows, peers=peers)


@jax.jit(static_argnames="rows")
def _myopic(pool, crit, prior, size, cap, quota, closed=None, *, rows):
    pool = with_shrinkage(pool)
    is_open, mean, start = _start(pool, prior, size, closed)
    rules = Rules(size, jnp.asarray(cap), jnp.asarray(quota))
    return full_greedy(pool, crit, start.matrix, jnp.zeros_like(mean), is_open, rules, rows=rows)


def _start(pool, prior, size, closed, peers=ALONE):
    """Pairs that may be picked, the mean information of a label, and A before the first pick."""
    is_open = candidate_pairs(first_copies(pool))
    if closed is not None:
        there, place = peers.own(closed[:, 0], pool.num_prompts)
        is_open = is_open.at[place, closed[:, 1], closed[:, 2]].min(~there)
    mean, trace = mean_information(pool, is_open, peers)
    return is_open, mean, _lifted(prior, LIFT * size * trace / pool.dim, pool.dim)


def _lifted(prior, least, dim) -> Start:
    """Prior plus `least` times I where its smallest eigenvalue is below that."""
    eye = jnp.eye(dim)[None]
    if prior.ndim == 0:
        ridge = jnp.where(prior >= least, prior, prior + least)[:, None, None]
        return Start(ridge * eye, eye / ridge, eye / jnp.sqrt(ridge))
    ridge = least[:, None, None] * eye
    regular = jnp.isfinite(cholesky_and_inverse(prior - ridge)[0]).all(axis=(1, 2))
    matrix = jnp.where(regular[:, None, None], prior, prior + ridge)
    root = cholesky_and_inverse(matrix)[1]
    return Start(matrix, _arrays.contract("rkd,rke->rde", root, root), jnp.swapaxes(root, 1, 2))
