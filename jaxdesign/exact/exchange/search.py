"""Search of the whole pool for pairs that should gain a label. Traceable.

Two passes. `promising` lists the pairs with the largest gain of adding a label, which is most of what a swap gains.
`improving` is complete: it finds for every pair whether any swap into it lowers the criterion, in float64, without
looking at every pair of pairs. A swap k -> l is ruled out where

- the sensitivity of l is at most that of k: the criterion is convex in A, so at A' it is at least its value at A minus
  (b_l - b_k);
- a bound on its gain is not positive. With the row y_k of k and those y_pi of the completions of l's prompt p,
  |g_kl| is at most half the range over i of y_k . y_pi, because c <= 1/4, and |a_kl| at most sqrt(a_k a_l). Dividing D
  and the fall of the trace by 1 + g_l, with h the gain of adding alone and g_kl^2 / (1 + g_l) <= min(g_kl^2, g_k),
      LogDet   h_l + log(1 - g_k + g_kl^2 / (1 + g_l)),
      Trace    [(1 - g_k) h_l - a_k + 2 g_kl a_kl / (1 + g_l)] / (1 - g_k + g_kl^2 / (1 + g_l)),
  which are largest at the largest h_l and a_l of the prompt: one bound for k and all pairs of a prompt.

Of (pair k, prompt p) there are K (K - 1) / 2 times fewer than of pairs of pairs, and few are left to be scored: mostly
those where k is itself a pair of p.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays
from jaxdesign._arrays import AnyArray
from jaxdesign._linalg import gram_sensitivities
from jaxdesign.exact.exchange import swap_gains
from jaxdesign.exact.exchange.swap_gains import NEVER, Factors, Rows
from jaxdesign.information import prompt_label_information
from jaxdesign.pricing.source import Chunk, Foldable, Kernel, open_pairs

NO_PROMPT = np.iinfo(np.int32).max
BLOCK = 512  # pairs that may lose a label, looked at together
ENTRIES = 2**16  # pairs of pairs scored together


class Removable(NamedTuple):
    """The labelled pairs by ascending sensitivity; padding comes last, at infinity."""

    rows: Rows
    sensitivities: Float[Array, " s"]
    prompts: Int[Array, " s"]
    order: Int[Array, " s"]  # their places in the list they were taken from


class Rules(NamedTuple):
    """Which pairs may gain a label, of the prompts named."""

    closed: Int[AnyArray, "n 3"]  # these may not; in order, padded with rows of NO_PROMPT
    prompts: Int[AnyArray, " p"]
    levels: Float[AnyArray, " p"]  # smallest sensitivity of what may lose one to a pair of the prompt
    has_room: Bool[AnyArray, " p"]  # False where the quota is used up: then only a pair of the same prompt may lose it

    def of(self, some: Int[np.ndarray, " q"]) -> Rules:
        """For some of the prompts."""
        return Rules(self.closed, self.prompts[some], self.levels[some], self.has_room[some])


class Found(NamedTuple):
    """For every completion the n best pairs it is part of: their gains, NEVER where there is none, and the partners."""

    best: Float[Array, "p k n"]
    partner: Int[Array, "p k n"]
    highest: Float[Array, " p"]  # the largest of `best`
    loser: Int[Array, "p k n"] | None = None  # which removable pair should give them a label


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
    rows = swap_gains.whitened(factors, differences, label_info, dtype)
    b = jnp.where(jnp.arange(len(pairs)) < count, swap_gains.sensitivities(swap_gains.norms(rows)), jnp.inf)
    order = jnp.argsort(b)
    return Removable(swap_gains.take(rows, order), b[order], pairs[order, 0], order)


def found(source: Foldable, kernel: Kernel, rules: Rules) -> Found:
    """What a search, `promising` or `improving`, finds among prompts, which are those of the rules."""
    return source.fold(kernel, None, rules[1:])[1]


def highest(source: Foldable, kernel: Kernel, rules: Rules) -> Float[Array, " p"]:
    """Of what a search finds the best of every prompt alone."""
    return source.fold(Partial(_highest, kernel), None, rules[1:])[1]


def _highest(kernel, chunk, carry, part):
    carry, found = kernel(chunk, carry, part)
    return carry, found.highest


def promising(factors: Factors, rules: Rules) -> Kernel:
    """The two pairs of every completion with the largest gain of adding a label; 2 P K d^2 + 2 P K^2 d operations."""
    return Partial(_promising, factors, rules.closed)


def _promising(factors, closed, chunk, carry, part):
    pairs = _chunk_forms(chunk, part, factors, closed)
    gains = jnp.where(pairs.is_open, swap_gains.gains_of_adding(pairs.forms), NEVER)
    best, partner = _best_partners(gains, 2)
    return carry, Found(best, partner, jnp.max(best, axis=(1, 2)))


def improving(factors: Factors, removable: Removable, rules: Rules, least) -> Kernel:
    """The best swap into a pair of every completion, exact wherever its gain is above `least`.

    Complexity: that of `promising`; at most 2 P K S d operations in float32 where S pairs may lose a label, for each
    draw; 2 K d + 10 K^2 for each pair and prompt that no bound rules out.
    """
    return Partial(_improving, factors, rules.closed, removable, least)


def _improving(factors, closed, removable, least, chunk, carry, part):
    pairs = _chunk_forms(chunk, part, factors, closed)
    gains, losers = _best_swaps(pairs, removable, least)
    best, partner = _best_partners(gains, 1)
    losers = jnp.maximum(losers, jnp.swapaxes(losers, 1, 2))
    return carry, Found(best, partner, jnp.max(best, axis=(1, 2)), jnp.take_along_axis(losers, partner, axis=2))


def _chunk_forms(chunk: Chunk, part, factors: Factors, closed) -> _ChunkForms:
    rows, copies = chunk.rows, chunk.copies
    prompts, levels, has_room = part
    shape = (*copies.shape, copies.shape[1])
    info = jnp.broadcast_to(prompt_label_information(chunk.margins, rows.dtype), (len(factors.leverage), *shape))
    flat = rows.reshape(-1, rows.shape[-1])

    def times(factor):
        return jnp.matmul(flat, factor.astype(rows.dtype), precision=_arrays.HIGHEST).reshape(-1, *rows.shape)

    products = Rows(*jax.tree.map(times, factors))
    forms = jax.tree.map(lambda y: jnp.stack([gram_sensitivities(one, one) for one in y]) * info, products)
    shut = _shut(closed, prompts, shape)
    above = swap_gains.sensitivities(forms) > levels[:, None, None]
    return _ChunkForms(products, forms, info, open_pairs(chunk) & ~shut & above, prompts, has_room)


def _shut(closed, prompts, shape) -> Bool[Array, "c k k"]:
    """True at the pairs of some prompts, in any order, that are on an ordered list: the first of each, and so on."""
    first, after = (jnp.searchsorted(closed[:, 0], prompts, side=side) for side in ("left", "right"))
    place = jnp.arange(shape[0])

    def add(rank, shut):
        row = first + rank
        _, i, j = closed[jnp.minimum(row, len(closed) - 1)].T
        return shut.at[place, jnp.where(row < after, i, shape[1]), j].set(True, mode="drop")

    none = jnp.broadcast_to((prompts < 0)[:, None, None], shape)  # False, laid out like the data
    return lax.fori_loop(0, jnp.max(after - first), add, none)


def _best_partners(gains: Float[Array, "c k k"], number: int) -> tuple[Float[Array, "c k n"], Int[Array, "c k n"]]:
    """A table of pairs i < j folded to the best partners of each completion."""
    gains = jnp.maximum(gains, jnp.swapaxes(gains, 1, 2))
    index = jnp.arange(gains.shape[-1], dtype=jnp.int32)[None, None]
    values, partners = [], []
    for _ in range(number):
        partner = lax.argmax(gains, 2, jnp.int32)
        values.append(jnp.max(gains, axis=-1))
        partners.append(partner)
        gains = jnp.where(index == partner[..., None], NEVER, gains)
    return jnp.stack(values, -1), jnp.stack(partners, -1)


def _best_swaps(pairs: _ChunkForms, removable: Removable, least) -> tuple[Float[Array, "c k k"], Int[Array, "c k k"]]:
    """The largest gain of a swap into each pair i < j of some prompts, NEVER where it cannot exceed `least`, and from
    which removable pair, -1 where there is none."""
    b = jnp.where(pairs.is_open, swap_gains.sensitivities(pairs.forms), -1)
    highest = jnp.max(b, axis=(1, 2))
    possible = _possible(pairs, removable, highest, least)
    best, loser = _scored(pairs, removable, possible)
    return jnp.where(pairs.is_open, swap_gains.gains(pairs.forms, best), NEVER), loser


def _possible(pairs: _ChunkForms, removable: Removable, highest: Float[Array, " c"], least) -> Bool[Array, "s c"]:
    """Of which removable pairs and prompts no bound says that no swap gains more than `least`."""
    size = len(removable.prompts)
    block = min(BLOCK, size)
    rough = pairs.products.leverage.astype(jnp.float32)

    def against(step, possible):
        start = jnp.minimum(step * block, size - block)
        rows = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, block, 1), removable.rows)
        owner = lax.dynamic_slice_in_dim(removable.prompts, start, block)
        b = lax.dynamic_slice_in_dim(removable.sensitivities, start, block)
        spread = _spread(rows.leverage, pairs.products.leverage, rough)
        above = _bounds(pairs, swap_gains.norms(rows), spread) > least / 2
        above &= pairs.has_room[None, :] | (owner[:, None] == pairs.prompts[None, :])
        return lax.dynamic_update_slice_in_dim(possible, above & (b[:, None] < highest[None, :]), start, 0)

    below = jnp.searchsorted(removable.sensitivities, jnp.max(highest))
    none = jnp.broadcast_to(highest[None] > jnp.inf, (size, len(highest)))  # False, laid out like the data
    return lax.fori_loop(0, -(-below // block), against, none)


def _spread(rows, products, rough) -> Float[Array, "r k c"]:
    """Half the range of y_k . y_pi over the completions of each prompt, never too small: float32 with its error."""
    cross = _arrays.contract("rkd,rpid->rkpi", rows.astype(jnp.float32), rough)
    spread = (jnp.max(cross, axis=-1) - jnp.min(cross, axis=-1)).astype(rows.dtype) / 2
    longest = jnp.sqrt(jnp.max(jnp.sum(products * products, axis=-1), axis=-1))
    error = (rows.shape[-1] + 4) * float(jnp.finfo(jnp.float32).eps)
    return spread + error * jnp.sqrt(jnp.sum(rows * rows, axis=-1))[:, :, None] * longest[:, None, :]


def _bounds(pairs: _ChunkForms, removed: Rows, spread: Float[Array, "r k c"]) -> Float[Array, "k c"]:
    """No swap from k into a pair of the prompt gains more."""
    removed = jax.tree.map(lambda a: a[..., None], removed)
    largest = jnp.minimum(spread**2, removed.leverage)
    left = jnp.maximum(1 - removed.leverage, 0)
    if removed.target is None:
        h = jnp.where(pairs.is_open, swap_gains.gains_of_adding(pairs.forms), NEVER)
        return jnp.max(h, axis=(1, 2))[None] + jnp.mean(jnp.log(left + largest), axis=0)
    assert pairs.forms.target is not None  # of the same criterion
    a = jnp.where(pairs.is_open, pairs.forms.target, 0)
    h = jnp.max(a / (1 + pairs.forms.leverage), axis=(2, 3))[:, None, :]
    cross = jnp.sqrt(removed.target * jnp.max(a, axis=(2, 3))[:, None, :])
    fall = left * h - removed.target + 2 * spread * cross
    return jnp.mean(jnp.where(fall > 0, fall / left, fall / (left + largest)), axis=0)


def _scored(pairs: _ChunkForms, removable: Removable, possible: Bool[Array, "s c"]):
    """The best score of the possible swaps into each pair, in float64, and from which pair; page by page."""
    completions = pairs.is_open.shape[-1]
    page = max(1, min(possible.size, ENTRIES // completions**2))
    number = jnp.sum(possible)
    place = jnp.nonzero(possible.reshape(-1), size=possible.size + page, fill_value=0)[0]
    root = jnp.sqrt(pairs.label_info)

    def of_page(state):
        start, best, loser = state
        k, p = jnp.unravel_index(lax.dynamic_slice_in_dim(place, start, page), possible.shape)

        def cross(row, product):
            one = _arrays.contract("rnd,rnid->rni", row, product[:, p])
            return (one[..., :, None] - one[..., None, :]) * root[:, p]

        rows = swap_gains.take(removable.rows, k)
        removed = jax.tree.map(lambda a: a[..., None, None], swap_gains.norms(rows))
        crossed = jax.tree.map(cross, rows, pairs.products)
        score = swap_gains.scores(removed, swap_gains.take(pairs.forms, p), crossed)
        p_or_none = jnp.where(start + jnp.arange(page) < number, p, len(best))
        higher = best.at[p_or_none].max(score, mode="drop")
        chosen = jnp.where(score == higher[p], k.astype(jnp.int32)[:, None, None], -1)
        loser = jnp.where(higher > best, -1, loser).at[p_or_none].max(chosen, mode="drop")
        return start + page, higher, loser

    nothing = 0 if pairs.forms.target is None else NEVER  # the score of what gains NEVER
    shape, dtype = pairs.is_open.shape, pairs.forms.leverage.dtype
    start = (jnp.zeros((), number.dtype), jnp.full(shape, nothing, dtype), jnp.full(shape, -1, jnp.int32))
    return lax.while_loop(lambda state: state[0] < number, of_page, start)[1:]
