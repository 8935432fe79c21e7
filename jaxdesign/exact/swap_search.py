"""Search of the whole pool for pairs that should gain a label. Traceable.

Two passes. `promising` lists the pairs with the largest gain of adding a label, which is most of what a swap gains.
`improving` is complete: it finds for every pair whether any swap into it lowers the criterion, in float64, without
looking at every pair of pairs. A swap k -> l is ruled out where

- the sensitivity of l is at most that of k: the criterion is convex in A, so at A' it is at least its value at A minus
  (b_l - b_k);
- a bound on its gain is not positive. With the row y_k of k and those y_pi of the completions of l's prompt p,
  |g_kl| is at most half the range over i of y_k . y_pi, because c <= 1/4; likewise |a_kl|. Dividing D and the fall of
  the trace by 1 + g_l gives, with h the gain of adding alone and |g_kl|^2 / (1 + g_l) <= min(range^2, g_k),
      LogDet   h_l + log(1 - g_k + g_kl^2 / (1 + g_l)),
      Trace    [(1 - g_k) h_l - a_k + 2 g_kl a_kl / (1 + g_l)] / (1 - g_k + g_kl^2 / (1 + g_l)),
  which are largest at the largest h_l of the prompt: one bound for k and all pairs of a prompt.

Of (pair k, prompt p) there are K (K - 1) / 2 times fewer than of pairs of pairs, and few are left: mostly those where k
is itself a pair of p.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays
from jaxdesign.exact import swaps
from jaxdesign.exact.swaps import NEVER, Factors, Rows
from jaxdesign.information import gram_sensitivities, prompt_label_information
from jaxdesign.pool import candidate_pairs
from jaxdesign.pricing.memory import Chunk, MemorySource, map_chunks

BLOCK = 256  # pairs that may lose a label, looked at together
ENTRIES = 2**17  # pairs of pairs scored together


class Removable(NamedTuple):
    """The labelled pairs by ascending sensitivity; padding comes last, at infinity."""

    rows: Rows
    sensitivities: Float[Array, " s"]
    prompts: Int[Array, " s"]


class Rules(NamedTuple):
    """Which pairs may gain a label."""

    closed: Int[Array, "n 3"]  # these may not; padded with rows of -1
    levels: Float[Array, " p"]  # smallest sensitivity of what may lose one to a pair of the prompt
    has_room: Bool[Array, " p"]  # False where the quota is used up: then only a pair of the same prompt may lose it


class Found(NamedTuple):
    """For every completion the best pairs it is part of: what they gain, NEVER where there is none, and the partner."""

    gains: Float[Array, "p k n"]
    partners: Int[Array, "p k n"]


class _ChunkForms(NamedTuple):
    products: Rows  # phi F and phi E, (R, c, K, d)
    forms: Rows  # of all pairs, (R, c, K, K)
    label_info: Float[Array, "r c k k"]
    is_open: Bool[Array, "c k k"]  # i < j, and the pair may gain a label and its sensitivity reaches the level
    prompts: Int[Array, " c"]
    has_room: Bool[Array, " c"]


@jax.jit(static_argnames="dtype")
def removable(
    factors: Factors,
    pairs: Int[Array, "s 3"],
    differences: Float[Array, "s d"],
    label_info: Float[Array, "r s"],
    count: Int[Array, ""],
    *,
    dtype,
) -> Removable:
    """The first `count` of the pairs, in order of sensitivity."""
    rows = swaps.whitened(factors, differences, label_info, dtype)
    b = jnp.where(jnp.arange(len(pairs)) < count, swaps.sensitivities(swaps.norms(rows)), jnp.inf)
    order = jnp.argsort(b)
    return Removable(swaps.take(rows, order), b[order], pairs[order, 0])


@jax.jit
def promising(source: MemorySource, factors: Factors, rules: Rules) -> Found:
    """The two pairs of every completion with the largest gain of adding a label; 2 P K d^2 + 2 P K^2 d operations."""

    def of_chunk(chunk, part):
        pairs = _chunk_forms(chunk, part, factors, rules.closed)
        return _best_partners(jnp.where(pairs.is_open, swaps.gains_of_adding(pairs.forms), NEVER), 2)

    return _over_chunks(of_chunk, source, rules)


@jax.jit
def improving(source: MemorySource, factors: Factors, removable: Removable, rules: Rules, least) -> Found:
    """The best swap into a pair of every completion, exact wherever its gain is above `least`.

    Complexity: `promising`, and 2 P K S d operations where S pairs may lose a label, for each draw (twice for Trace);
    K^2 for each pair k and prompt that no bound rules out.
    """

    def of_chunk(chunk, part):
        pairs = _chunk_forms(chunk, part, factors, rules.closed)
        return _best_partners(_best_swaps(pairs, removable, least), 1)

    return _over_chunks(of_chunk, source, rules)


def _over_chunks(function, source, rules):
    chunks, length = source.copies.shape[:2]
    prompts = jnp.arange(chunks * length, dtype=jnp.int32)
    more = [a.reshape(chunks, length) for a in (prompts, rules.levels, rules.has_room)]
    found = map_chunks(function, source, more)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), found)


def _chunk_forms(chunk: Chunk, part, factors: Factors, closed) -> _ChunkForms:
    rows, scores, copies = chunk
    prompts, levels, has_room = part
    if scores is not None:
        scores = scores[None] if scores.ndim == 2 else jnp.moveaxis(scores, 1, 0)
    shape = (*copies.shape, copies.shape[1])
    info = jnp.broadcast_to(prompt_label_information(scores, rows.dtype), (len(factors.leverage), *shape))
    flat = rows.reshape(-1, rows.shape[-1])

    def times(factor):
        return jnp.matmul(flat, factor.astype(rows.dtype), precision=_arrays.HIGHEST).reshape(-1, *rows.shape)

    products = Rows(*jax.tree.map(times, factors))
    forms = jax.tree.map(lambda y: jnp.stack([gram_sensitivities(one, one) for one in y]) * info, products)
    local = closed[:, 0] - prompts[0]
    local = jnp.where((local >= 0) & (local < shape[0]), local, shape[0])
    shut = jnp.zeros(shape, bool).at[local, closed[:, 1], closed[:, 2]].set(True, mode="drop")
    above = swaps.sensitivities(forms) > levels[:, None, None]
    return _ChunkForms(products, forms, info, candidate_pairs(copies) & ~shut & above, prompts, has_room)


def _best_partners(gains: Float[Array, "c k k"], number: int) -> Found:
    """Entries i < j of a table folded to the best partners of each completion."""
    gains = jnp.maximum(gains, jnp.swapaxes(gains, 1, 2))
    values, partners = [], []
    for _ in range(number):
        partner = lax.argmax(gains, 2, jnp.int32)
        values.append(jnp.max(gains, axis=-1))
        partners.append(partner)
        gains = jnp.where(jnp.arange(gains.shape[-1]) == partner[..., None], NEVER, gains)
    return Found(jnp.stack(values, -1), jnp.stack(partners, -1))


def _best_swaps(pairs: _ChunkForms, removable: Removable, least) -> Float[Array, "c k k"]:
    """The largest gain of a swap into each pair i < j of some prompts; NEVER where it cannot exceed `least`."""
    size = len(removable.prompts)
    block = min(BLOCK, size)
    b = jnp.where(pairs.is_open, swaps.sensitivities(pairs.forms), -1)
    highest = jnp.max(b, axis=(1, 2))
    below = jnp.searchsorted(removable.sensitivities, jnp.max(highest))

    def against(step, best):
        start = jnp.minimum(step * block, size - block)
        rows = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, block, 1), removable.rows)
        owner = lax.dynamic_slice_in_dim(removable.prompts, start, block)
        b_k = lax.dynamic_slice_in_dim(removable.sensitivities, start, block)
        crossed = jax.tree.map(lambda k, y: _arrays.contract("rkd,rpid->rkpi", k, y), rows, pairs.products)
        forms = swaps.norms(rows)
        allowed = pairs.has_room[None, :] | (owner[:, None] == pairs.prompts[None, :])
        possible = allowed & (b_k[:, None] < highest[None, :]) & (_bounds(pairs, forms, crossed) > least / 2)
        return _scored(pairs, forms, crossed, possible, best)

    nothing = jnp.zeros((), b.dtype) if pairs.forms.target is None else jnp.full((), NEVER, b.dtype)
    best = lax.fori_loop(0, -(-below // block), against, jnp.broadcast_to(nothing, b.shape))
    return jnp.where(pairs.is_open, swaps.gains(pairs.forms, best), NEVER)


def _bounds(pairs: _ChunkForms, removed: Rows, crossed: Rows) -> Float[Array, "k c"]:
    """No swap from k into a pair of the prompt gains more."""
    g_k = removed.leverage[..., None]
    spread = jax.tree.map(lambda a: (jnp.max(a, axis=-1) - jnp.min(a, axis=-1)) / 2, crossed)
    largest = jnp.minimum(spread.leverage**2, g_k)
    left = jnp.maximum(1 - g_k, 0)
    if removed.target is None:
        h = jnp.where(pairs.is_open, swaps.gains_of_adding(pairs.forms), NEVER)
        return jnp.max(h, axis=(1, 2)) + jnp.mean(jnp.log(left + largest), axis=0)
    h = jnp.where(pairs.is_open, pairs.forms.target / (1 + pairs.forms.leverage), NEVER)
    h = jnp.max(h, axis=(2, 3))[:, None, :]
    fall = left * h - removed.target[..., None] + 2 * spread.leverage * spread.target
    return jnp.mean(jnp.where(fall > 0, fall / left, fall / (left + largest)), axis=0)


def _scored(pairs, removed, crossed, possible, best):
    """Scores of the swaps that are possible, page by page, into the best so far."""
    completions = best.shape[-1]
    page = max(1, min(possible.size, ENTRIES // completions**2))
    number = jnp.sum(possible)
    place = jnp.nonzero(possible.reshape(-1), size=possible.size + page, fill_value=0)[0]
    root = jnp.sqrt(pairs.label_info)

    def of_page(state):
        start, best = state
        k, p = jnp.unravel_index(lax.dynamic_slice_in_dim(place, start, page), possible.shape)

        def between(cross):
            one = cross[:, k, p]
            return (one[..., :, None] - one[..., None, :]) * root[:, p]

        before = jax.tree.map(lambda a: a[:, k, None, None], removed)
        score = swaps.scores(before, swaps.take(pairs.forms, p), jax.tree.map(between, crossed))
        counts = start + jnp.arange(page) < number
        return start + page, best.at[jnp.where(counts, p, len(best))].max(score, mode="drop")

    return lax.while_loop(lambda s: s[0] < number, of_page, (jnp.zeros((), number.dtype), best))[1]
