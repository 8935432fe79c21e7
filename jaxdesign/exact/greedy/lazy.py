"""Greedy selection for LogDet that looks again only at prompts which may hold the best pair. Traceable.

Leverages a = c z^T A^-1 z only fall while labels are added (log det is submodular), and so does the gain log(1 + a),
averaged over draws or not. The largest gain of a prompt, found at an earlier pick, is therefore an upper bound on what
the prompt holds now. At every pick the prompts with the highest bounds are evaluated, AT_ONCE at a time, until no bound
is left above the best gain found: the picks are those of a full comparison. On a real pool of 519 prompts and 5,000
picks that is about twelve prompts a pick, with 4,032 heavy-tailed prompts and 10,000 picks eight.

A label with v = A^-1 z and s = c / (1 + a) lowers every leverage by c_ij s (y_i - y_j)^2, y = Phi v. The vectors
sqrt(s) v of up to BLOCK labels are kept, so that one matrix product brings a prompt up to date, and after BLOCK labels
one more brings all prompts up to date: a label costs the operations of a full update at the speed of matrix products.
The picked pair itself is compared with float64, from A^-1 at the last update less the recent vectors' outer products.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays
from jaxdesign._linalg import cholesky_and_inverse
from jaxdesign.exact.greedy.peers import ALONE, Peers, listed_rows
from jaxdesign.exact.greedy.ties import CLOSED, enough, largest
from jaxdesign.information import (
    margins_of,
    prompt_forms,
    sparse_information,
)
from jaxdesign.pool import CompletionPool, centred_features, prompts_of

AT_ONCE = 8  # prompts evaluated at once: more are often looked at in vain, fewer make short products
BLOCK = 64  # labels between two updates of all prompts
BLOCKS = 8  # blocks between two computations from scratch
STALE = 2e-5  # relative error of a pick's gain at which nothing stored is trusted


class Bounds(NamedTuple):
    """What is known of each prompt's largest gain."""

    gains: Float[Array, " p"]  # an upper bound, CLOSED where nothing may be picked
    slots: Int[Array, " p"]  # i K + j of the pair that had it
    fresh: Bool[Array, " p"]  # evaluated since the last pick: the bound is attained


class Best(NamedTuple):
    """The best among the prompts evaluated, of all devices."""

    prompt: Int[Array, ""]  # in the whole pool; ties go to the first
    gain: Float[Array, ""]
    rival: Bool[Array, ""]  # whether another prompt may hold better


class Stored(NamedTuple):
    """What changes when all prompts are brought up to date."""

    leverage: Float[Array, "r p k k"]  # CLOSED where not open
    recent: Float[Array, "r b d"]  # sqrt(s) v of the labels since, zeros after them; float64


class Rules(NamedTuple):
    """What may be picked."""

    size: Int[Array, ""]  # labels in all
    cap: Float[Array, " p"]  # labels on one pair, at least 1
    quota: Float[Array, " p"]  # labels on the pairs of a prompt


class Start(NamedTuple):
    """A before the first pick with its inverse, and F with F F^T = A^-1; float64."""

    matrix: Float[Array, "r d d"]
    inverse: Float[Array, "r d d"]
    factor: Float[Array, "r d d"]


class State(NamedTuple):
    """State between picks."""

    matrix: Float[Array, "r d d"] | None  # A at the last computation from scratch, float64; None while it stays so
    inverse: Float[Array, "r d d"] | None  # A^-1 at the last update of all prompts, float64; None likewise
    stored: Stored
    bounds: Bounds
    quota: Float[Array, " p"]  # labels the pairs of a prompt may still take
    pairs: Int[Array, "n 3"]  # the first `picked` count
    picked: Int[Array, ""]
    from_scratch: Int[Array, ""]  # labels at the last computation from scratch
    updated: Int[Array, ""]  # labels at the last update of all prompts
    stale: Bool[Array, ""]  # the best gain was found to be inexact
    left: Bool[Array, ""]  # whether any pair was open at the last look


def lazy_greedy(
    pool: CompletionPool,
    start: Start,
    is_open: Bool[Array, "p k k"],
    rules: Rules,
    *,
    rows: int,
    peers: Peers = ALONE,
) -> tuple[Int[Array, "n 3"], Int[Array, ""]]:
    """Pairs (rows, 3) in the order of picking and how many of them count; of all `peers`, who have a part of it each.

    Call inside `_arrays.float64()`.
    """
    block = min(BLOCK, rows)
    dtype = _arrays.compute_dtype(pool.features.dtype)
    draws = len(start.matrix)
    leverage = jnp.broadcast_to(jnp.where(is_open, jnp.zeros((), dtype), CLOSED), (draws, *is_open.shape))
    zero = jnp.zeros((), jnp.int32)
    nothing = jnp.zeros(pool.num_prompts, jnp.int32)
    stored = Stored(leverage, jnp.zeros((draws, block, pool.dim), start.matrix.dtype))
    bounds = Bounds(nothing.astype(dtype), nothing, nothing == 1)
    quota, pairs = jnp.asarray(rules.quota, jnp.float32), jnp.zeros((rows, 3), jnp.int32)
    state = State(None, None, stored, bounds, quota, pairs, zero, zero, zero, zero == 1, zero == 0)

    def unfinished(state):
        return state.left & (state.picked < rules.size)

    def goes_on(state):
        return unfinished(state) & ~state.stale & (state.picked - state.updated < block)

    def one_block(state):
        # A and its inverse stay as they are and outside of the loop: under vmap all that is carried is copied each turn
        matrix, inverse = state.matrix, state.inverse
        carried = state._replace(matrix=None, inverse=None)
        end = lax.while_loop(goes_on, lambda s: _pick(pool, rules.cap, inverse, s, peers), carried)
        return end._replace(matrix=matrix, inverse=inverse)

    def brought_up_to_date(state):
        scratch = state.stale | (state.picked - state.from_scratch >= BLOCKS * block)
        return lax.cond(scratch, lambda s: _from_scratch(pool, s, peers), lambda s: _update(pool, s), state)

    first_block = one_block(_started(pool, state, start))  # a small choice never enters the loop below
    end = lax.while_loop(unfinished, lambda s: one_block(brought_up_to_date(s)), first_block)
    return end.pairs, end.picked


def _from_scratch(pool, state, peers):
    """Everything computed afresh from A."""
    length = min(BLOCKS * state.stored.recent.shape[1], len(state.pairs))
    index = state.from_scratch + jnp.arange(length, dtype=jnp.int32)
    listed = state.pairs[jnp.minimum(index, len(state.pairs) - 1)]
    z, c = listed_rows(pool, listed, peers)
    c = jnp.where(index < state.picked, c, 0)
    matrix = state.matrix + sparse_information(z, c)
    root = cholesky_and_inverse(matrix)[1]
    inverse = _arrays.contract("rkd,rke->rde", root, root)
    return _started(pool, state, Start(matrix, inverse, jnp.swapaxes(root, -1, -2)))


def _started(pool, state, start):
    stored, bounds = _all_prompts(
        pool, state, start.factor, lambda old, squares: jnp.where(old > CLOSED, squares, CLOSED)
    )
    return state._replace(
        matrix=start.matrix,
        inverse=start.inverse,
        stored=stored,
        bounds=bounds,
        from_scratch=state.picked,
        updated=state.picked,
        stale=jnp.zeros((), bool),
    )


def _update(pool, state):
    """Leverages of all prompts brought up to date with the recent labels."""
    recent = state.stored.recent
    late = jnp.swapaxes(recent, 1, 2)[..., : 0 if _few(pool) else None]
    stored, bounds = _all_prompts(pool, state, late, lambda old, squares: old - squares)
    inverse = state.inverse - _arrays.contract("rbd,rbe->rde", recent, recent)
    return state._replace(inverse=inverse, stored=stored, bounds=bounds, updated=state.picked)


def _all_prompts(pool, state, factor, combine):
    def chunk(part):
        index, old = part
        new = combine(jnp.moveaxis(old, 1, 0), _squares(prompts_of(pool, index), factor))
        return jnp.moveaxis(new, 0, 1), *largest(_gains(new))

    length = _arrays.chunk_length(pool.num_prompts, pool.completions, pool.dim)
    index = jnp.arange(pool.num_prompts, dtype=jnp.int32)
    old = jnp.moveaxis(state.stored.leverage, 1, 0)
    new, gains, slots = _arrays.map_chunks(chunk, (index, old), length)
    stored = Stored(jnp.moveaxis(new, 0, 1), jnp.zeros_like(state.stored.recent))
    return stored, Bounds(gains, slots, jnp.ones(pool.num_prompts, bool))


def _squares(pool, factor):
    """(R, n, K, K): c |y_i - y_j|^2 with y = Phi F for every draw."""
    features = centred_features(pool)
    products = [_arrays.contract("pkd,de->pke", features, F.astype(features.dtype)) for F in factor]
    return jnp.stack(prompt_forms([(y, y) for y in products], margins_of(pool)))


def times_picked(pairs: Int[Array, "n 3"], picked: Int[Array, ""], pair: Int[Array, " 3"]) -> Float[Array, ""]:
    """How often a pair is among the first `picked`; float64."""
    same = jnp.all(pairs == pair[None], axis=1) & (jnp.arange(len(pairs), dtype=jnp.int32) < picked)
    return jnp.sum(same, dtype=jnp.float64)


def _gains(leverage):
    """Mean of log(1 + a) over draws; a itself without draws, the logarithm being monotone."""
    return leverage[0] if len(leverage) == 1 else jnp.mean(jnp.log1p(jnp.maximum(leverage, -1)), axis=0)


def _best(bounds, quota, peers) -> Best:
    gains = jnp.where(quota >= 1, bounds.gains, CLOSED)
    best = peers.largest(jnp.max(jnp.where(bounds.fresh, gains, CLOSED)))
    p = peers.first(bounds.fresh & (gains >= enough(best)))
    before = peers.places(len(gains)) < p
    rival = ~bounds.fresh & ((gains > best) | ((gains >= enough(best)) & before)) & (gains > CLOSED)
    return Best(p, best, peers.any(jnp.any(rival)))


def _few(pool):
    """Whether all prompts are looked at together: their leverages are then brought up to date at every pick."""
    return pool.num_prompts <= AT_ONCE


def _evaluated(pool, state, peers):
    """Bounds after looking at as many prompts as it takes to be sure of the best, and the best."""
    if _few(pool):
        bounds = Bounds(*largest(_gains(state.stored.leverage)), jnp.ones_like(state.bounds.fresh))
        return bounds, _best(bounds, state.quota, peers)
    recent = jnp.swapaxes(state.stored.recent, 1, 2)

    def evaluate(known):
        bounds = known[0]
        rank = jnp.where(bounds.fresh | (state.quota < 1), CLOSED, bounds.gains)
        _, index = lax.top_k(rank, AT_ONCE)
        gains, slots = largest(_gains(state.stored.leverage[:, index] - _squares(prompts_of(pool, index), recent)))
        gains, slots = bounds.gains.at[index].set(gains), bounds.slots.at[index].set(slots)
        bounds = Bounds(gains, slots, bounds.fresh.at[index].set(True))
        return bounds, _best(bounds, state.quota, peers)

    known = state.bounds, _best(state.bounds, state.quota, peers)
    return lax.while_loop(lambda known: known[1].rival, evaluate, known)


def _pick(pool, cap, inverse, state, peers):
    """Label the best pair, unless its stored gain turns out to be inexact."""
    quota, (bounds, (p, best, _)) = state.quota, _evaluated(pool, state, peers)
    there, place = peers.own(p, pool.num_prompts)
    slot, most = peers.of_owner(there, (bounds.slots[place], cap[place]))
    i, j = slot // pool.completions, slot % pool.completions
    pair = jnp.stack([p, i, j])
    z, c = listed_rows(pool, pair[None], peers)
    z, c = z[0], c[:, 0]
    recent = state.stored.recent
    products = jnp.matmul(recent, z, precision=_arrays.HIGHEST)
    v = jnp.matmul(inverse, z, precision=_arrays.HIGHEST) - _arrays.contract("rb,rbd->rd", products, recent)
    squares = c * jnp.sum(v * z[None], axis=1)
    exact = _gains(squares)
    stale = (state.picked > state.from_scratch) & ~(jnp.abs(best.astype(exact.dtype) - exact) <= STALE * exact)
    found = best > CLOSED
    taken = found & ~stale

    scaled = jnp.sqrt(jnp.where(taken, c / (1 + squares), 0))[:, None] * v
    held = times_picked(state.pairs, state.picked, pair)
    leverage = state.stored.leverage
    shut = jnp.where(taken & there & (held + 2 > most), CLOSED, 0).astype(leverage.dtype)
    if _few(pool):
        leverage = leverage - _squares(pool, scaled[..., None])
    return state._replace(
        stored=Stored(
            leverage.at[:, place, i, j].add(shut),
            state.stored.recent.at[:, state.picked - state.updated].set(scaled),
        ),
        bounds=bounds._replace(fresh=bounds.fresh & ~taken),
        quota=quota.at[place].add(-(taken & there).astype(quota.dtype)),
        pairs=state.pairs.at[jnp.where(taken, state.picked, len(state.pairs))].set(pair),
        picked=state.picked + taken.astype(jnp.int32),
        stale=found & stale,
        left=found,
    )
