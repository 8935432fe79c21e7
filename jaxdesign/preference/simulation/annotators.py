"""Annotators simulated from a hidden reward: Bradley-Terry with temperature, flips, ties and skips.

The same seed gives the same label to the same (pair, repeat, annotator), whatever else is labelled with it and in which
order: experiments that compare designs share the labels of the pairs they share, and a round that was killed continues
with the labels it would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE, Labels, check_labels
from jaxdesign.preference.labels.tasks import pair_rows

WHO = 0x57_48_4F  # keeps the draw of the annotator apart from the draws of the labels


class SimulatedAnnotators(NamedTuple):
    """Parameters of A annotators, one array (A,) each; a pytree, built and checked by `make_annotators`.

    Args:
        temperature: T > 0; margins are divided by it, so that T -> 0 always prefers the better completion.
        flip: probability that a preference is reversed, in [0, 1/2).
        tie: nu >= 0 of Davidson's model; a pair of equal reward is called a tie with probability nu / (2 + nu).
        skip: probability of giving no judgement, in [0, 1), whatever the pair.

    Source: derived; checked by tests/preference/simulation/test_simulated_annotators.py.
    """

    temperature: Float[AnyArray, " a"]
    flip: Float[AnyArray, " a"]
    tie: Float[AnyArray, " a"]
    skip: Float[AnyArray, " a"]


def make_annotators(temperature: Any = 1.0, flip: Any = 0.0, tie: Any = 0.0, skip: Any = 0.0) -> SimulatedAnnotators:
    """Simulated annotators from numbers or arrays (A,), repeated to one length.

    Args:
        temperature, flip, tie, skip: see `SimulatedAnnotators`.

    Returns:
        SimulatedAnnotators of float32 NumPy arrays.

    Raises:
        ValueError: values out of their range, lengths that differ.

    Source: derived; checked by tests/preference/simulation/test_simulated_annotators.py.
    """
    given = {"temperature": temperature, "flip": flip, "tie": tie, "skip": skip}
    arrays = {name: np.atleast_1d(np.asarray(value, dtype=np.float64)) for name, value in given.items()}
    lengths = {name: array.shape for name, array in arrays.items()}
    try:
        shape = np.broadcast_shapes(*lengths.values())
    except ValueError:
        shape = ()
    if len(shape) != 1 or shape == (0,):
        raise ValueError(f"annotators: shapes {lengths} found; each parameter must be a number or one per annotator")
    allowed = {
        "temperature": ("above 0", lambda v: v > 0),
        "flip": ("at least 0 and below 1/2", lambda v: (v >= 0) & (v < 0.5)),
        "tie": ("at least 0", lambda v: v >= 0),
        "skip": ("at least 0 and below 1", lambda v: (v >= 0) & (v < 1)),
    }
    for name, (words, good) in allowed.items():
        bad = ~(np.isfinite(arrays[name]) & good(arrays[name]))
        if bad.any():
            a = int(np.argmax(bad))
            raise ValueError(f"annotators.{name}: {arrays[name][a]:g} of annotator {a}; must be {words} and finite")
    return SimulatedAnnotators(*(np.broadcast_to(array, shape).astype(np.float32) for array in arrays.values()))


def choice_probabilities(
    margins: Float[AnyArray, " n"], annotators: SimulatedAnnotators, who: Int[AnyArray, " n"]
) -> Float[Array, "n 4"]:
    """Probability of each choice code (first, second, tie, skip), from the difference of hidden rewards.

    With x = (r_i - r_j) / T, before flips and skips (Davidson's model, written in halves of x so that it is symmetric):

        P(first) = e^(x/2) / D,   P(second) = e^(-x/2) / D,   P(tie) = nu / D,   D = e^(x/2) + e^(-x/2) + nu

    A flip exchanges first and second with probability eps and leaves ties; a skip replaces any choice with probability
    s. With nu = s = 0: P(first) = (1 - 2 eps) sigma(x) + eps, as in the label information of a design.

    Args:
        margins: (n,) r_i - r_j, in units of reward.
        annotators: A of them.
        who: (n,) int, which of them.

    Returns:
        (n, 4) float32 (float64 for float64 margins), rows that sum to 1.

    Raises:
        TypeError: integer margins.

    Numerics: softmax of (x/2, -x/2, log nu), so nothing overflows at any margin.

    Source: Davidson 1970, doi:10.1080/01621459.1970.10481082; flips and skips are derived; checked by
    tests/preference/simulation/test_simulated_annotators.py.
    """
    margins = jnp.asarray(_checks.as_float_array(margins, "margins"))
    return _choice_probabilities(margins.astype(_arrays.compute_dtype(margins.dtype)), annotators, who)


@jax.jit
def _choice_probabilities(margins, annotators, who):
    temperature, flip, tie, skip = (jnp.asarray(a, margins.dtype)[who] for a in annotators)
    half = margins / temperature / 2
    log_tie = jnp.where(tie > 0, jnp.log(jnp.where(tie > 0, tie, 1)), -jnp.inf)
    first, second, tied = jnp.moveaxis(jax.nn.softmax(jnp.stack([half, -half, log_tie], axis=-1), axis=-1), -1, 0)
    kept = (1 - flip) * first + flip * second, (1 - flip) * second + flip * first, tied
    return jnp.stack([*((1 - skip) * p for p in kept), skip], axis=-1)


def simulate_labels(
    key: Array,
    rewards: Float[AnyArray, "p k"],
    pairs: Int[AnyArray, "n 3"] | Sequence[tuple[int, int, int]],
    annotators: SimulatedAnnotators | None = None,
    *,
    who: Any = None,
    shares: Float[AnyArray, " a"] | None = None,
    repeats: Int[AnyArray, " n"] | None = None,
) -> Labels:
    """Draw one label for each row of `pairs`.

    Args:
        key: `jax.random.key(seed)` (or a raw uint32 key). The key of a label is `key` folded with p, i, j, repeat and
            annotator, so it does not depend on the other rows nor on their order.
        rewards: (P, K) hidden rewards; what stands in slots without a completion does not matter.
        pairs: (n, 3) rows (p, i, j); a row may occur several times.
        annotators: who labels; None for one without noise, at temperature 1.
        who: (n,) annotator of each row, or one for all; None draws them, by a key of (p, i, j, repeat) too.
        shares: (A,) how often each is drawn; None for equally. Only where `who` is None.
        repeats: (n,) the number of this label among those of its pair (and of its annotator, where `who` is given),
            from 0. None counts the rows of this call; give it where earlier calls labelled the same pairs.

    Returns:
        Labels of NumPy arrays on the host; inside of jit, of traced arrays (shapes are static).

    Raises:
        ValueError: pairs outside of the rewards, non-finite rewards of a pair, an annotator that does not exist, both
            who and shares, shapes that differ. Values are only looked at outside of jit.

    Source: derived; checked by tests/preference/simulation/test_simulated_annotators.py.
    """
    annotators = make_annotators() if annotators is None else annotators
    rewards = _checks.as_float_array(rewards, "rewards")
    _checks.rank(rewards, (2,), "rewards", "(prompts P, completions K)")
    concrete = not _arrays.is_traced(key, rewards, pairs, annotators, who, shares, repeats)
    xp: Any = np if concrete else jnp
    size = len(pairs)
    listed: Any = xp.asarray(pair_rows(pairs))
    who = None if who is None else xp.broadcast_to(xp.asarray(who, np.int32), (size,))
    shares = _checked_shares(shares, who, len(annotators.flip))
    if concrete:
        _check_pairs(np.asarray(rewards), listed, who, len(annotators.flip))
    if repeats is None:
        repeats = _repeat_numbers(listed if who is None else xp.column_stack([listed, who]), xp)
    _checks.same_shape(np.shape(repeats), (size,), "repeats", "(n,), one per pair")
    p, i, j = listed.T
    rewards = xp.asarray(rewards, np.float32)
    rows = (rewards[p, i] - rewards[p, j], listed, xp.asarray(repeats, np.int32), who)
    if not concrete:
        return _draw(key, annotators, shares, *rows)
    filled = _arrays.power_of_two(size)
    drawn = _draw(key, annotators, shares, *(None if a is None else _padded(a, filled) for a in rows))
    return Labels(*(np.asarray(a)[:size] for a in drawn))


def _checked_shares(shares, who, count):
    if shares is None:
        return np.ones(count, np.float32)
    if who is not None:
        raise ValueError("shares: has no meaning where who is given; leave one of them out")
    _checks.same_shape(np.shape(shares), (count,), "shares", "(A,), one per annotator")
    if not _arrays.is_traced(shares):
        shares = np.asarray(shares, np.float32)
        if not ((shares >= 0).all() and np.isfinite(shares).all() and shares.sum() > 0):
            raise ValueError(f"shares: {shares} found; must be finite, at least 0 and not all 0")
    return shares


def _check_pairs(rewards, pairs, who, count) -> None:
    nothing = np.zeros(len(pairs), np.int32)
    check_labels(Labels(pairs, nothing, nothing if who is None else who), annotators=count)
    p, i, j = pairs.T
    bad = (p >= rewards.shape[0]) | (j >= rewards.shape[1])
    if bad.any():
        raise ValueError(f"pairs: {pairs[np.argmax(bad)].tolist()} found; rewards have shape {rewards.shape}")
    bad = ~(np.isfinite(rewards[p, i]) & np.isfinite(rewards[p, j]))
    if bad.any():
        raise ValueError(f"rewards: not finite at a completion of pair {pairs[np.argmax(bad)].tolist()}")


def _padded(array, size):
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])


def _repeat_numbers(rows: AnyArray, xp: Any) -> AnyArray:
    """(n,) int32, how many equal rows stand before each of (n, c)."""
    order = xp.lexsort(rows.T[::-1])  # stable: equal rows keep their order
    place = xp.arange(len(rows), dtype=np.int32)
    new = xp.any(rows[order] != rows[order[place - 1]], axis=1) | (place == 0)
    start = xp.where(new, place, 0)
    start = np.maximum.accumulate(start) if xp is np else jax.lax.cummax(start)
    return (place - start)[xp.argsort(order)]


@jax.jit
def _draw(key, annotators, shares, margins, pairs, repeats, who):
    p, i, j = pairs.T
    if who is None:
        drawn = _uniforms(key, (p, i, j, repeats, jnp.full_like(p, WHO)))
        bounds = jnp.cumsum(jnp.asarray(shares, jnp.float32)) / jnp.sum(jnp.asarray(shares, jnp.float32))
        who = jnp.minimum(jnp.searchsorted(bounds, drawn, side="right"), len(shares) - 1).astype(jnp.int32)
    drawn = _uniforms(key, (p, i, j, repeats, who))
    chances = choice_probabilities(margins, annotators, who)
    # ordered first, tie, second, skip: a label moves that way and never back as its margin falls, so that experiments
    # with a seed in common and rewards that differ a little have most labels in common
    first, tied, second = chances[:, FIRST], chances[:, TIE], chances[:, SECOND]
    codes = jnp.where(drawn < first + tied + second, SECOND, SKIP)
    codes = jnp.where(drawn < first, FIRST, jnp.where(drawn < first + tied, TIE, codes))
    return Labels(pairs, codes.astype(jnp.int8), who)


def _uniforms(key, parts):
    """(n,) numbers in [0, 1), each a function of the key and its own parts alone."""

    def one(row):  # folded in a loop: written out, the compiler takes seconds per batch size
        folded, _ = jax.lax.scan(lambda k, part: (jax.random.fold_in(k, part), None), key, row)
        return jax.random.uniform(folded, dtype=jnp.float32)

    return jax.vmap(one)(jnp.stack(parts, axis=1))
