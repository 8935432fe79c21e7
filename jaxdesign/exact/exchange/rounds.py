"""Swaps within a working set of pairs, many a round. Traceable.

A round scores the swaps between the labelled pairs that are cheapest to take a label from and all others by matrix
products, makes a short list of the most promising pairs of both kinds with their Gram matrix in float64, and swaps
among those, the best swap first, until none gains. A swap changes the Gram matrix by rank two, so it costs a few passes
over a small matrix whatever d is; the d x d algebra is done once a round.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays
from jaxdesign.budget.family import Uses
from jaxdesign.exact.exchange import swap_gains
from jaxdesign.exact.exchange.allowed import Slack, after_swap, obeyed, some_of
from jaxdesign.exact.exchange.swap_gains import NEVER, Rows
from jaxdesign.information import sparse_information

LABELLED = 1024  # pairs that a round considers taking a label from
BLOCK = 256  # of them scored together
SHORT = 512  # pairs on the short list
MOST = 512  # swaps of a round: their Gram matrix is updated by each, and its rounding errors add up


class WorkingSet(NamedTuple):
    """The pairs among which labels are moved; padding has no labels and a cap of 0."""

    pairs: Int[Array, "s 3"]
    differences: Float[Array, "s d"]  # z, float64
    label_info: Float[Array, "r s"]  # c
    labels: Float[Array, " s"]
    cap: Float[Array, " s"]
    uses: tuple[Uses, ...]  # of what a label of each pair uses: its prompt, and every family of the budget
    slack: Slack
    matrix: Float[Array, "r d d"]  # A, float64


class ShortList(NamedTuple):
    """The most promising pairs, with how many swaps were made among them."""

    labels: Float[Array, " t"]
    slack: Slack
    forms: Rows  # Gram matrices (R, T, T)
    made: Int[Array, ""]
    gain: Float[Array, ""]  # of the last swap looked at


@jax.jit(static_argnames="dtype")
def swap_round(
    working: WorkingSet, target_root: Float[Array, "*r d d"] | None, least, limit, *, dtype
) -> tuple[WorkingSet, Int[Array, ""], Float[Array, ""]]:
    """One round: the working set after it, the number of swaps made and the criterion before them.

    Args:
        working: the pairs with their labels.
        target_root: B with B B^T = H; None for LogDet.
        least: only swaps that gain more are made (float64 gains, exact at the time of the swap).
        limit: at most so many swaps, and at most MOST.
        dtype: in which the whole working set is scored, which decides only what is on the short list.
    """
    value, factors = swap_gains.factors_of(working.matrix, target_root)
    slots, valid = _short_list(working, factors, dtype)
    z, c = working.differences[slots], working.label_info[:, slots]
    rows = swap_gains.whitened(factors, z, c, jnp.float64)
    gram = jax.tree.map(lambda y: _arrays.contract("rkd,rld->rkl", y, y), rows)
    before, cap = jnp.where(valid, working.labels[slots], 0), jnp.where(valid, working.cap[slots], 0)
    used = some_of(working.uses, slots)
    after = lax.while_loop(
        lambda short: (short.gain > least) & (short.made < jnp.minimum(limit, MOST)),
        lambda short: _swap_best(short, used, cap, least),
        ShortList(before, working.slack, gram, jnp.zeros((), jnp.int64), jnp.full((), jnp.inf)),
    )
    place = jnp.where(valid, slots, len(working.cap))
    labels = working.labels.at[place].set(after.labels, mode="drop")
    matrix = working.matrix + sparse_information(z, c * (after.labels - before)[None])
    return working._replace(labels=labels, slack=after.slack, matrix=matrix), after.made, value


def _short_list(working, factors, dtype):
    """Slots of the pairs with the best swaps out of and into them, and which of the slots are no repetition."""
    labels, size = working.labels, len(working.labels)
    rows = swap_gains.whitened(factors, working.differences, working.label_info, dtype)
    forms = swap_gains.norms(rows)
    removable, addable = labels >= 1, labels + 1 <= working.cap
    cost = jnp.where(removable, swap_gains.scores_of_removing(forms), NEVER)
    _, cheapest = lax.top_k(cost, min(LABELLED, size))
    slots = jnp.arange(size, dtype=jnp.int32)

    def against(best, index):
        score = swap_gains.score_table(swap_gains.take(rows, index), swap_gains.take(forms, index), rows, forms)
        allowed = obeyed(working.slack, some_of(working.uses, index), working.uses)
        allowed &= addable[None, :] & removable[index][:, None] & (index[:, None] != slots[None, :])
        score = jnp.where(allowed, score, NEVER)
        return jnp.maximum(best, jnp.max(score, axis=0)), jnp.max(score, axis=1)

    blocks = cheapest.reshape(-1, min(BLOCK, len(cheapest)))
    best_into, best_out = lax.scan(against, jnp.full(size, NEVER, dtype), blocks)
    half = min(SHORT, size) // 2
    out_score, first = lax.top_k(best_out.reshape(-1), half)
    into_score, into = lax.top_k(best_into, half)
    out = cheapest[first]
    repeated = jnp.any((into[:, None] == out[None, :]) & (out_score > NEVER)[None, :], axis=1)
    valid = jnp.concatenate([out_score > NEVER, (into_score > NEVER) & ~repeated])
    return jnp.concatenate([out, into]), valid


def _swap_best(short: ShortList, used: tuple[Uses, ...], cap, least) -> ShortList:
    """Make the best swap, if it gains more than `least`."""
    labels, slack, forms = short.labels, short.slack, short.forms
    single = jax.tree.map(lambda a: jnp.diagonal(a, axis1=1, axis2=2), forms)
    before = jax.tree.map(lambda a: a[:, :, None], single)
    after = jax.tree.map(lambda a: a[:, None, :], single)
    allowed = (labels >= 1)[:, None] & (labels + 1 <= cap)[None, :] & obeyed(slack, used, used)
    score = jnp.where(allowed, swap_gains.scores(before, after, forms), NEVER)
    out = lax.argmax(jnp.max(score, axis=1), 0, jnp.int32)  # in two steps: an argmax over all entries is slow on CPU
    into = lax.argmax(score[out], 0, jnp.int32)
    gain = jnp.where(out == into, NEVER, swap_gains.gains(forms, score[out, into]))
    amount = jnp.where(gain > least, 1.0, 0.0)
    return ShortList(
        labels.at[out].add(-amount).at[into].add(amount),
        after_swap(slack, some_of(used, out), some_of(used, into), amount),
        _swapped(forms, jnp.stack([out, into]), amount),
        short.made + (amount > 0).astype(jnp.int64),
        gain,
    )


def _swapped(forms: Rows, both: Int[Array, " 2"], amount) -> Rows:
    """Gram matrices after a swap from the first to the second of two pairs k and l (amount 1), or none (0).

    With V the rows k and l of the Gram matrix of leverages, W those of the other and N = diag(-1, 1) + V_kl its 2 x 2
    part, leverages fall by V^T N^-1 V and the others by U + U^T, U = V^T N^-1 (W - W_kl N^-1 V / 2) (Woodbury).
    """
    V = forms.leverage[:, both]
    N = V[:, :, both] + jnp.diag(jnp.array([-1.0, 1.0], V.dtype))[None]
    det = N[:, 0, 0] * N[:, 1, 1] - N[:, 0, 1] ** 2
    swapped = jnp.stack([jnp.stack([N[:, 1, 1], -N[:, 0, 1]], -1), jnp.stack([-N[:, 0, 1], N[:, 0, 0]], -1)], -2)
    X = jnp.matmul(swapped * (amount / det)[:, None, None], V, precision=_arrays.HIGHEST)
    leverage = forms.leverage - _arrays.contract("rit,riu->rtu", V, X)
    if forms.target is None:
        return Rows(leverage, None)
    W = forms.target[:, both]
    half = W - jnp.matmul(W[:, :, both], X, precision=_arrays.HIGHEST) / 2
    U = _arrays.contract("rit,riu->rtu", X, half)
    return Rows(leverage, forms.target - U - jnp.swapaxes(U, 1, 2))
