"""How well a policy ranks the completions of a prompt, against gold rewards: the two metrics of HEAL.

HEAL (arXiv 2508.19922) asks whether a policy orders many completions of a prompt as the gold rewards do (ranking
accuracy), and whether it prefers by as much (correlation of preference strength). Its abstract leaves open what happens
to ties and which correlation is meant, so both are defined here.

The policy's scores are its log-probabilities, its implicit rewards, or either per token (`losses.per_token`); a
correlation with sums is one with lengths too. Outside of jit values are compared as they are and results are float64
NumPy; traced, results have the dtype of the scores, at least float32. Memory is that of the arguments, not K times it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray


class RankingAccuracy(NamedTuple):
    """What `ranking_accuracy` found.

    Args:
        accuracy: share of all untied gold pairs that the policy ranks as they are; NaN without such a pair.
        by_prompt: (P,) the same within each prompt; NaN for a prompt without such a pair.
        pairs: (P,) how many untied gold pairs each prompt has.
    """

    accuracy: Float[AnyArray, ""]
    by_prompt: Float[AnyArray, "*p"]
    pairs: Int[AnyArray, "*p"]


class StrengthCorrelation(NamedTuple):
    """What `strength_correlation` found; NaN for prompts where either side has one value only.

    Args:
        spearman: (P,) correlation of ranks, ties with the mean of theirs.
        pearson: (P,) correlation of the values.
    """

    spearman: Float[AnyArray, "*p"]
    pearson: Float[AnyArray, "*p"]


def ranking_accuracy(
    scores: Float[AnyArray, "*p k"], gold: Float[AnyArray, "*p k"], *, mask: Bool[AnyArray, "*p k"] | None = None
) -> RankingAccuracy:
    """Share of pairs of a prompt's completions, untied in gold, that the policy ranks alike; its own ties count 1/2.

    So 1/2 is what no opinion and what random order get. Pairs of equal gold rewards say nothing and are left out.

    Args:
        scores: (P, K) of the policy.
        gold: (P, K) rewards, of any unit; only their order counts.
        mask: (P, K) True where the completion exists; the rest may hold anything. None: all exist.

    Returns:
        RankingAccuracy. `accuracy` weighs prompts by their pairs; the mean of `by_prompt` weighs them alike.

    Raises:
        TypeError: no floating dtype.
        ValueError: shapes that differ; values that are not finite (outside of jit).

    Source: HEAL, arXiv 2508.19922, with ties as derived; checked by tests/preference/test_ranking_metrics.py.
    """
    return _measured(_accuracy, scores, gold, mask)


def strength_correlation(
    scores: Float[AnyArray, "*p k"], gold: Float[AnyArray, "*p k"], *, mask: Bool[AnyArray, "*p k"] | None = None
) -> StrengthCorrelation:
    """Correlations of the policy's scores with gold rewards over the completions of each prompt.

    Spearman's asks for order alone; Pearson's for differences in proportion too, which is what the log-ratios of an
    optimal policy are to its rewards.

    Args:
        scores: (P, K) of the policy.
        gold: (P, K) rewards; their unit and zero do not count.
        mask: (P, K) True where the completion exists; the rest may hold anything. None: all exist.

    Returns:
        StrengthCorrelation, each (P,), in [-1, 1].

    Raises:
        TypeError: no floating dtype.
        ValueError: shapes that differ; values that are not finite (outside of jit).

    Source: HEAL, arXiv 2508.19922, with both correlations as derived; checked by
    tests/preference/test_ranking_metrics.py.
    """
    return _measured(_strength, scores, gold, mask)


def _measured(measure, scores, gold, mask):
    scores, gold = _checks.as_float_array(scores, "scores"), _checks.as_float_array(gold, "gold")
    if not (scores.ndim and scores.shape[-1]):
        raise ValueError(f"scores: shape {scores.shape} found; expected (..., K), K completions of each prompt")
    _checks.same_shape(gold.shape, scores.shape, "gold", "as scores: one per completion")
    if mask is not None:
        _checks.same_shape(np.shape(mask), scores.shape, "mask", "as scores: one per completion")
    exists = jnp.ones(scores.shape, bool) if mask is None else jnp.asarray(mask)
    if _arrays.is_traced(scores, gold, mask):
        dtype = np.result_type(*(_arrays.compute_dtype(array.dtype) for array in (scores, gold)))
        return measure(jnp.asarray(scores).astype(dtype), jnp.asarray(gold).astype(dtype), exists)
    with _arrays.float64():
        given = [jnp.asarray(np.asarray(array, np.float64)) for array in (scores, gold)]
        for value, name in zip(given, ("scores", "gold"), strict=True):
            _checks.finite(value, name, exists)
        return jax.tree.map(np.asarray, measure(*given, exists))


@jax.jit
def _accuracy(scores, gold, exists):
    def count(shift, totals):
        halves, pairs = totals
        other = [jnp.roll(array, shift, axis=-1) for array in (scores, gold, exists)]
        untied = exists & other[2] & (gold > other[1])  # of the two orders of a pair, one
        halves += jnp.sum(jnp.where(untied, _points(scores, other[0]), 0), axis=-1)
        return halves, pairs + jnp.sum(untied, axis=-1)

    none = jnp.zeros(scores.shape[:-1], int)
    halves, pairs = jax.lax.fori_loop(1, scores.shape[-1], count, (none, none))
    right, of = halves.astype(scores.dtype) / 2, pairs.astype(scores.dtype)
    return RankingAccuracy(jnp.sum(right) / jnp.sum(of), right / of, pairs)


@jax.jit
def _strength(scores, gold, exists):
    return StrengthCorrelation(
        _correlation(_ranks(scores, exists), _ranks(gold, exists), exists), _correlation(scores, gold, exists)
    )


def _ranks(values, exists):
    """Twice the rank among what exists, from 0, the mean of theirs for ties: whole numbers, so exact."""

    def count(shift, below):
        other, there = jnp.roll(values, shift, axis=-1), jnp.roll(exists, shift, axis=-1)
        return below + jnp.where(there, _points(values, other), 0)

    return jax.lax.fori_loop(1, values.shape[-1], count, jnp.zeros(values.shape, int)).astype(values.dtype)


def _points(values, other):
    """2 for more, 1 for as much."""
    return (values > other).astype(int) + (values >= other).astype(int)


def _correlation(x, y, exists):
    x, y = _standardised(x, exists), _standardised(y, exists)
    both = jnp.sum(x * y, axis=-1) / jnp.sqrt(jnp.sum(x * x, axis=-1) * jnp.sum(y * y, axis=-1))
    return jnp.clip(both, -1, 1)  # NaN stays NaN


def _standardised(values, exists):
    """Deviations from the mean over the largest: 0 exactly where all are equal, and no overflow of squares."""
    first = jnp.max(jnp.where(exists, values, -jnp.inf), axis=-1, keepdims=True)
    from_first = jnp.where(exists, values - first, 0)
    mean = jnp.sum(from_first, axis=-1, keepdims=True) / jnp.sum(exists, axis=-1, keepdims=True).astype(values.dtype)
    deviations = jnp.where(exists, from_first - mean, 0)
    largest = jnp.max(jnp.abs(deviations), axis=-1, keepdims=True)
    return deviations / jnp.where(largest > 0, largest, 1)
