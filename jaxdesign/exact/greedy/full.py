"""Greedy selection that updates and compares all pairs at every pick: for criteria whose gains have no cheap bound.

For Trace the labels still to come are anticipated. Greedy by the gain at A_t, the information of the t labels so far,
is poor while A_t is nearly singular: it spends the batch on the worst direction of the moment, label after label, where
any other labels would have covered it as well. Gains are therefore taken at

    A_t + (m - t - 1) M,    M the mean information of a label, over all candidate pairs

with m the size of the batch. The anticipated part is renewed with every computation from scratch, four times in a small
batch: more often was no better, because the last gains are then taken at a nearly singular matrix again. (Derived, not
from a paper. Trace after greedy without and with it: 24 and 0.34 for 16 labels of a heavy-tailed pool, d = 16, without
a prior; 0.401 and 0.380 for 1,000 labels of a real pool of rank 381 with a weak one.)
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxdesign.criteria.protocol import ConvexCriterion, Gains
from jaxdesign.exact.greedy import trace_forms
from jaxdesign.exact.greedy.lazy import Rules, times_picked
from jaxdesign.exact.greedy.peers import ALONE, Peers, listed_rows
from jaxdesign.exact.greedy.ties import CLOSED, enough, first
from jaxdesign.pool import CompletionPool

REFRESH = 64  # picks between computations from scratch
PARTS = 4  # computations from scratch in a batch, at least
STALE = 1e-4  # relative error of a stored form at which it is not trusted


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
    forms: trace_forms.Forms
    since: Int[Array, ""]  # looks since the forms were computed
    stale: Bool[Array, ""]  # the best form was found to be inexact


def full_greedy(
    pool: CompletionPool,
    crit: ConvexCriterion,
    matrix: Float[Array, "r d d"],
    to_come: Float[Array, "r d d"],
    is_open: Bool[Array, "p k k"],
    rules: Rules,
    *,
    rows: int,
    peers: Peers = ALONE,
) -> tuple[Int[Array, "n 3"], Int[Array, ""]]:
    """Pairs (rows, 3) in the order of picking and how many of them count, of all `peers`; A starts at `matrix`.

    `to_come`: what each label still to be picked is expected to add to A; zeros for gains at A_t itself. Call inside
    `_arrays.float64()`.
    """
    fixed, root = trace_forms.all_pairs(pool, is_open), trace_forms.root(crit)
    every = jnp.clip(rules.size // PARTS, 1, REFRESH) if crit.gains is Gains.TRACE else 1
    zero, left = jnp.zeros((), jnp.int32), jnp.ones((), bool)
    most = jnp.floor(rules.cap).astype(fixed.rows.dtype)  # whole, so that no pair needs a comparison in float64

    def unfinished(picks):
        return picks.left & (picks.picked < rules.size)

    def block(picks):
        open_still = fixed.candidates & (_counts(picks, fixed, peers) < most[:, None, None])
        anticipated = picks.matrix + (rules.size - picks.picked - 1).astype(to_come.dtype) * to_come
        forms = trace_forms.from_scratch(fixed, crit, root, anticipated, open_still)
        return lax.while_loop(
            lambda b: unfinished(b.picks) & ~b.stale & (b.since < every),
            lambda b: _pick(pool, fixed, rules.cap, b, peers),
            Block(picks, forms, zero, ~left),
        ).picks

    start = Picks(matrix, jnp.zeros((rows, 3), jnp.int32), zero, jnp.asarray(rules.quota, jnp.float32), left)
    picks = lax.while_loop(unfinished, block, start)
    return picks.pairs, picks.picked


def _counts(picks, fixed, peers):
    """Labels on every pair so far."""
    p, i, j = picks.pairs.T
    there, place = peers.own(p, len(fixed.rows))
    counted = (there & (jnp.arange(len(p), dtype=jnp.int32) < picks.picked)).astype(fixed.rows.dtype)
    return jnp.zeros(fixed.candidates.shape, fixed.rows.dtype).at[place, i, j].add(counted)


def _pick(pool, fixed, cap, block, peers):
    """Label the best pair, unless its stored form turns out to be inexact."""
    picks = block.picks
    pair, found = _best(trace_forms.gains(block.forms), picks.quota, peers)
    there, place = peers.own(pair[0], pool.num_prompts)
    slot = place, pair[1], pair[2]
    z, c = listed_rows(pool, pair[None], peers)
    exact = trace_forms.of_pair(block.forms, z[0], c[:, 0])
    error, most = peers.of_owner(there, (trace_forms.errors(block.forms, slot, exact), cap[place]))
    stale = (block.since > 0) & (error > STALE)  # fresh is as good as it gets
    taken = found & ~stale

    amount = taken.astype(jnp.float64)
    forms = trace_forms.add_label(fixed, block.forms, exact, amount)
    held = times_picked(picks.pairs, picks.picked, pair)
    forms = trace_forms.close(forms, slot, taken & there & (held + 2 > most))
    picks = Picks(
        picks.matrix + (amount * c[:, 0])[:, None, None] * jnp.outer(z[0], z[0])[None],
        picks.pairs.at[jnp.where(taken, picks.picked, len(picks.pairs))].set(pair),
        picks.picked + taken.astype(jnp.int32),
        picks.quota.at[place].add(-(taken & there).astype(picks.quota.dtype)),
        found,
    )
    return Block(picks, forms, block.since + 1, stale)


def _best(gains, quota, peers):
    """Pair (p, i, j) of the largest gain, ties to the first, and whether there is any."""
    prompts, completions = gains.shape[:2]
    by_row = jnp.where(quota[:, None] >= 1, jnp.max(gains, axis=-1), CLOSED)
    best = peers.largest(jnp.max(by_row))
    row = peers.first(by_row.reshape(-1) >= enough(best))
    p, i = row // completions, row % completions
    there, place = peers.own(p, prompts)
    j = peers.of_owner(there, first(gains[place, i] >= enough(best)))
    return jnp.stack([p, i, j]).astype(jnp.int32), best > CLOSED
