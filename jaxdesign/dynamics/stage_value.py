"""What a label of an on-policy pair is worth over one of an off-policy pair, on the scale of the design criterion."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._centring import centred
from jaxdesign.analysis import analysed, flat
from jaxdesign.criteria.protocol import ConvexCriterion
from jaxdesign.door import INDEFINITE
from jaxdesign.dynamics.proportions import checked_level
from jaxdesign.dynamics.ratio_of_means import ratio_of_means
from jaxdesign.information import margins_of, prompt_forms
from jaxdesign.pool import CompletionPool
from jaxdesign.problem import checked_criterion, prior_matrix


class StageValue(NamedTuple):
    """What `stage_value` found, float64.

    Args:
        ratio: on / off; above 1 a label of an on-policy pair is worth more.
        low, high: its interval at `level`, by bootstrap over prompts.
        decided: 1 where the interval is above 1, -1 where below, 0 where it holds 1.
        on: mean sensitivity of the pairs of `on_pool`: decrease of the criterion per label.
        off: that of `off_pool`, over the same prompts.
        prompts: how many have pairs in both pools, and count.
    """

    ratio: float
    low: float
    high: float
    decided: int
    on: float
    off: float
    prompts: int


def stage_value(
    on_pool: CompletionPool,
    off_pool: CompletionPool,
    crit: Any,
    prior: Any,
    *,
    level: float = 0.05,
    resamples: int = 5_000,
    seed: int = 0,
) -> StageValue:
    """Are the next labels worth more on pairs of on-policy or of off-policy completions, for what is known so far?

        b_ij = c_ij z_ij^T G z_ij,  G = -grad criterion at A = prior;   ratio = mean_p b_on,p / mean_p b_off,p

    b_p is the mean over all pairs of existing completions of a prompt, so that every prompt counts once. It is the
    decrease of the criterion by one more label of a pair drawn at random: with `Trace(H)`, H = `policy_target` at the
    current policy, that of the expected policy gap times 2 beta. Copies of a completion make pairs worth 0, which
    count: a policy that repeats itself yields them. A design picks the best pairs of a pool, which may differ by
    another ratio.

    Args:
        on_pool: completions sampled from the current policy.
        off_pool: others for the same prompts, in the same order and of the same features; numbers of completions may
            differ. Scores are of the current policy in both, both with the same draws or both without.
        crit: a criterion, `Trace(H)` for instance.
        prior: information held: (d, d), (R, d, d), or a ridge; `held_information` and the prior of the fit.
        level: probability that the interval leaves outside, in (0, 1).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        StageValue.

    Raises:
        TypeError: a pool or criterion of another kind, or traced pools.
        ValueError: pools of different dimension, prompts, names or draws; no prompt with pairs in both; a prior at
            which the criterion is infinite; a criterion that increases with information; no off-policy pair of any
            value.

    Numerics: float64 from the stored features; no pairs outside of a chunk of prompts.
    Complexity: 2 P K d^2 + 2 P K^2 d floating-point operations for each pool and draw; resamples times P additions.
    Source: arXiv 2508.10530 for the question, the answer derived; checked by tests/dynamics/test_stage_value.py.
    """
    _checks.concrete("dynamics.stage_value", on_pool, off_pool, prior)
    crit = checked_criterion(on_pool, crit)
    _check_pools(on_pool, off_pool)
    level, resamples = checked_level(level), _checks.whole_number(resamples, "resamples", 100)
    factors = _gradient_factors(crit, prior_matrix(prior, on_pool.dim, on_pool.num_draws or 1))
    (on, on_pairs), (off, off_pairs) = (_of_prompts(pool, factors) for pool in (on_pool, off_pool))
    both = (on_pairs > 0) & (off_pairs > 0)
    if not both.any():
        raise ValueError("off_pool: no prompt has two completions here and in on_pool; sample at least two for each")
    on, off = on[both], off[both]
    if not off.any():
        raise ValueError("off_pool: no pair is worth anything, all completions of a prompt look alike to the criterion")
    ratio, low, high = ratio_of_means(on, off, level=level, resamples=resamples, seed=seed)
    decided = int(low > 1) - int(high < 1)
    return StageValue(ratio, low, high, decided, float(on.mean()), float(off.mean()), len(on))


def _check_pools(on_pool: CompletionPool, off_pool: CompletionPool) -> None:
    """TypeError or ValueError unless rows of both pools are the same prompts in the same features."""
    if not isinstance(off_pool, CompletionPool):
        raise TypeError(f"off_pool: expected jaxdesign.CompletionPool, found {type(off_pool).__name__}")
    for found, expected, what in (
        (off_pool.dim, on_pool.dim, "feature dimensions; use the same features for both"),
        (off_pool.num_prompts, on_pool.num_prompts, "prompts; row p of both must be the same prompt"),
        (off_pool.num_draws, on_pool.num_draws, "draws of scores; score both by the same draws, or none"),
    ):
        if found != expected:
            raise ValueError(f"off_pool: {found} found and {expected} in on_pool, {what}")
    if on_pool.ids is not None and off_pool.ids is not None and on_pool.ids != off_pool.ids:
        row = next(p for p, names in enumerate(zip(on_pool.ids, off_pool.ids, strict=True)) if names[0] != names[1])
        raise ValueError(
            f"off_pool: row {row} is {off_pool.ids[row]!r} and {on_pool.ids[row]!r} in on_pool; bring prompts into the "
            "same order"
        )


def _gradient_factors(crit: ConvexCriterion, matrix: Float[np.ndarray, "r d d"]) -> Float[np.ndarray, "r d q"]:
    """F with F F^T = G at A; ValueError where the criterion is infinite or increases there."""
    with _arrays.float64():
        value, _, G, factors = jax.tree.map(np.asarray, _analysed(crit, matrix))
    if not (np.isfinite(value) and np.isfinite(factors).all()) or (crit.infinite_where_singular and flat(matrix)):
        raise ValueError(
            "prior: too little information, the criterion is infinite at A = prior; add a ridge, or use "
            "jaxdesign.restrict_to_range on the completions of both pools together"
        )
    spectrum = np.linalg.eigvalsh(G)
    if spectrum.min() < -INDEFINITE * np.abs(spectrum).max():
        raise ValueError(
            "crit: it increases with information in some direction: minus its gradient at the prior has the eigenvalue "
            f"{spectrum.min():.3g} beside {spectrum.max():.3g}; a criterion is minimised and must decrease"
        )
    return factors


_analysed = jax.jit(analysed)


def _of_prompts(
    pool: CompletionPool, factors: Float[np.ndarray, "r d q"]
) -> tuple[Float[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Mean sensitivity of the pairs of each prompt, and how many there are; float64."""
    with _arrays.float64():
        means, pairs = _means(_arrays.replicated(pool), factors)
        return np.asarray(means), np.asarray(pairs)


@jax.jit
def _means(pool: CompletionPool, factors: Float[Array, "r d q"]) -> tuple[Float[Array, " p"], Int[Array, " p"]]:
    def chunk(part):
        features, mask, margins = part
        rows = centred(features.astype(factors.dtype), mask)
        moved = [_arrays.contract("pkd,dq->pkq", rows, factor) for factor in factors]
        forms = prompt_forms([(one, one) for one in moved], margins)
        index = jnp.arange(mask.shape[1])
        paired = mask[:, :, None] & mask[:, None, :] & (index[:, None] < index[None, :])[None]
        pairs = jnp.sum(paired, axis=(1, 2))
        total = jnp.sum(jnp.where(paired, sum(forms) / len(forms), 0), axis=(1, 2))
        # a difference of Gram entries may come out below 0 by rounding
        return jnp.maximum(total, 0) / jnp.maximum(pairs, 1).astype(total.dtype), pairs

    length = _arrays.chunk_length(*pool.features.shape)
    return _arrays.map_chunks(chunk, (pool.features, pool.mask, margins_of(pool)), length)
