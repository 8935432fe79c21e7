"""Greedy selection of whole labels, traceable: one label at a time, the one that lowers the criterion most.

All candidate pairs are compared at every pick by their stored quadratic forms (see `forms`). Before a pick counts, its
forms are compared with their float64 values; where they disagree, and after REFRESH picks, all forms are computed
afresh from A.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign.budget import Limits
from jaxdesign.criteria import CriterionLike, LogDet, Trace
from jaxdesign.exact import forms as pair_forms
from jaxdesign.information import pair_differences
from jaxdesign.pool import CompletionPool
from jaxdesign.problem import check_kinds, draw_label_information, traceable_prior

REFRESH = 64  # picks between computations from scratch
STALE = 1e-4  # relative error of a stored form at which it is not trusted
TIE = 4e-6  # relative difference of gains below which float32 cannot tell them apart: the first pair is taken
LIFT = 1e-6  # smallest eigenvalue before the first pick, over the mean one after an even allocation


def greedy(
    pool: CompletionPool, crit: CriterionLike, *, size: int, per_pair: Any = 1, prior: Any = None
) -> tuple[Int[Array, "size 3"], Float[Array, " size"]]:
    """Choose labels one at a time, each the one with the largest exact gain given those before it.

    Gains, with leverage a = c z^T A^-1 z and sensitivity b: LogDet log(1 + a), Trace b / (1 + a), means over draws;
    any other criterion b, its first-order gain. Traceable with static shapes: works inside the caller's jit and vmap.

    Args:
        pool: the pool.
        crit: the criterion.
        size: labels to choose, a Python int (it is a shape).
        per_pair: at most this many labels on one pair, a number or one per prompt (P,); None for no limit.
        prior: information already held: (d, d), (R, d, d) for R draws, or a scalar ridge. Where its smallest eigenvalue
            (0 for None) is below 1e-6 of the mean eigenvalue that `size` labels spread evenly would give, a multiple of
            the identity is added that lifts it there: the first picks are then those that span the space.

    Returns:
        pairs (size, 3) int32 rows (p, i, j), i < j, in the order of picking, so that a prefix is itself a greedy
        choice; a pair picked twice is two rows. labels (size,) float32: 1, or 0 with the row (0, 0, 0) where no pair
        was left.

    Raises:
        TypeError: pool, crit or size of another kind.
        ValueError: size below 1, per_pair below 1, a prior or target of the wrong shape or (outside of jit) indefinite.

    Numerics: the d x d algebra in float64 whatever the x64 flag; pairs are compared in float32 (float64 for float64
    features), gains within 4e-6 of the best count as ties, which go to the first (prompt, i, j).
    Complexity: per pick 2 P K d + 6 P K^2 operations (twice that for Trace; times R draws), and 2 P K d^2 + 2 P K^2 d
    at least every 64 picks (every pick for other criteria). Memory P K^2 floats per draw, twice that for Trace.
    Source: for the monotone submodular log det, greedy reaches 1 - 1/e of the best possible gain (Nemhauser, Wolsey and
    Fisher 1978, cited from memory); for Trace there is no such guarantee.
    """
    check_kinds(pool, crit)
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise TypeError(f"size: expected a Python int, found {type(size).__name__}; it is a shape")
    if size < 1:
        raise ValueError(f"size={size}: must be at least 1; it is the number of labels to choose")
    cap, quota = _cap(per_pair, pool.num_prompts), np.full(pool.num_prompts, np.inf)
    bare = CompletionPool.tree_unflatten(None, (pool.features, pool.scores, pool.mask, pool.flip))
    with _arrays.float64():
        pairs, picked = _greedy(bare, crit, traceable_prior(prior, pool), int(size), cap, quota, rows=int(size))
        return pairs, (jnp.arange(int(size)) < picked).astype(jnp.float32)


def greedy_allocation(
    pool: CompletionPool, crit: CriterionLike, limits: Limits, prior: Float[np.ndarray, "r d d"]
) -> tuple[Int[np.ndarray, "s 3"], Float[np.ndarray, " s"]]:
    """The greedy choice under caps and quotas, on the host: pairs in order, repeated ones added up.

    Holds fewer labels than the (whole) total only if caps and quotas leave no room for more.
    """
    total = int(limits.total)
    rows = 1 << (total - 1).bit_length()  # one compilation for totals up to a power of two
    bare = CompletionPool.tree_unflatten(None, (pool.features, pool.scores, pool.mask, pool.flip))
    with _arrays.float64():
        pairs, picked = _greedy(bare, crit, prior, total, limits.per_pair, limits.per_prompt, rows=rows)
    pairs, counts = np.unique(np.asarray(pairs)[: int(picked)], axis=0, return_counts=True)
    return pairs.astype(np.int32), counts.astype(np.float64)


def work(pool: CompletionPool, crit: CriterionLike, total: int) -> float:
    """About what a greedy choice costs, in operations that run at the speed of memory (4e11 take a minute or so)."""
    completions, dim = pool.completions, pool.dim
    forms = 2 if isinstance(crit, Trace) else 1
    every = REFRESH if isinstance(crit, LogDet | Trace) else 1
    scratch = 0.1 * 2 * dim * (dim + completions) / every  # matrix products run ten times as fast
    step = 2 * dim + 6 * completions if every > 1 else 6 * completions
    return (pool.num_draws or 1) * forms * float(total) * pool.num_prompts * completions * (step + scratch)


def memory(pool: CompletionPool, crit: CriterionLike) -> float:
    """Entries of the stored forms and label information."""
    kinds = (2 if isinstance(crit, Trace) else 1) + (pool.scores is not None or pool.flip is not None)
    return float(kinds) * (pool.num_draws or 1) * pool.num_prompts * pool.completions**2


def _cap(per_pair, prompts):
    cap = _checks.at_least_one(np.inf if per_pair is None else per_pair, "per_pair", "use mask to exclude completions")
    if cap.shape not in ((), (prompts,)):
        raise ValueError(f"per_pair: shape {cap.shape} found; expected a scalar or ({prompts},)")
    return np.broadcast_to(cap, (prompts,))


class Picks(NamedTuple):
    """State between picks."""

    matrix: Float[Array, "r d d"]  # A, float64
    pairs: Int[Array, "n 3"]  # the first `picked` count
    picked: Int[Array, ""]
    quota: Float[Array, " p"]  # labels the pairs of a prompt may still take
    left: Bool[Array, ""]  # whether any pair was open at the last look


class Block(NamedTuple):
    """State between computations from scratch."""

    picks: Picks
    forms: pair_forms.Forms
    since: Int[Array, ""]  # looks since the forms were computed
    stale: Bool[Array, ""]  # the best form was found to be inexact


@jax.jit(static_argnames="rows")
def _greedy(pool, crit, prior, size, cap, quota, *, rows):
    """Pairs (rows, 3) and how many of them count, at most `size`. Call inside `_arrays.float64()`."""
    fixed, root = pair_forms.all_pairs(pool), pair_forms.root(crit)
    every = REFRESH if isinstance(crit, LogDet | Trace) else 1
    least = LIFT * size * pair_forms.mean_information(fixed, len(prior))
    lift = jnp.maximum(least - jnp.linalg.eigvalsh(prior)[:, 0], 0)
    matrix = prior + lift[:, None, None] * jnp.eye(pool.dim)
    zero, left = jnp.zeros((), jnp.int32), jnp.ones((), bool)

    def unfinished(picks):
        return picks.left & (picks.picked < size)

    def block(picks):
        is_open = fixed.candidates & (_counts(picks, fixed) + 1 <= cap[:, None, None])
        forms = pair_forms.from_scratch(fixed, crit, root, picks.matrix, is_open)
        return lax.while_loop(
            lambda b: unfinished(b.picks) & ~b.stale & (b.since < every),
            lambda b: _pick(pool, fixed, cap, b),
            Block(picks, forms, zero, ~left),
        ).picks

    start = Picks(matrix, jnp.zeros((rows, 3), jnp.int32), zero, jnp.asarray(quota, jnp.float32), left)
    picks = lax.while_loop(unfinished, block, start)
    return picks.pairs, picks.picked


def _counts(picks, fixed):
    """Labels on every pair so far."""
    p, i, j = picks.pairs.T
    counted = (jnp.arange(len(p)) < picks.picked).astype(fixed.rows.dtype)
    return jnp.zeros(fixed.candidates.shape, fixed.rows.dtype).at[p, i, j].add(counted)


def _pick(pool, fixed, cap, block):
    """Label the best pair, unless its stored form turns out to be inexact."""
    picks = block.picks
    slot, found = _best(pair_forms.gains(block.forms), picks.quota)
    pair = jnp.stack(slot).astype(jnp.int32)
    z, c = pair_differences(pool, pair[None])[0], draw_label_information(pool, pair[None])[:, 0]
    exact = pair_forms.of_pair(block.forms, z, c)
    stale = (block.since > 0) & (pair_forms.errors(block.forms, slot, exact) > STALE)  # fresh is as good as it gets
    taken = found & ~stale

    amount = taken.astype(jnp.float64)
    forms = pair_forms.add_label(fixed, block.forms, exact, amount)
    held = jnp.sum(jnp.all(picks.pairs == pair, axis=1) & (jnp.arange(len(picks.pairs)) < picks.picked))
    forms = pair_forms.close(forms, slot, taken & (held + 2 > cap[slot[0]]))
    picks = Picks(
        picks.matrix + (amount * c)[:, None, None] * jnp.outer(z, z),
        picks.pairs.at[jnp.where(taken, picks.picked, len(picks.pairs))].set(pair),
        picks.picked + taken.astype(jnp.int32),
        picks.quota.at[slot[0]].add(-amount.astype(picks.quota.dtype)),
        found,
    )
    return Block(picks, forms, block.since + 1, stale)


def _best(gains, quota):
    """Slot (p, i, j) of the largest gain, ties to the first, and whether there is any."""
    by_row = jnp.where(quota[:, None] >= 1, jnp.max(gains, axis=-1), pair_forms.CLOSED)
    best = jnp.max(by_row)
    enough = best - TIE * jnp.abs(best)
    row = _first(by_row.reshape(-1) >= enough)
    p, i = row // by_row.shape[1], row % by_row.shape[1]
    return (p, i, _first(gains[p, i] >= enough)), best > pair_forms.CLOSED


def _first(holds):
    """Index of the first True, int32: in a float64 scope `jnp.argmax` wants int64, which a caller's jit may lack."""
    return lax.argmax(holds, 0, jnp.int32)
