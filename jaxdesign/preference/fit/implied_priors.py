"""Implied prior: the ridge that training, with its steps, rates and stopping, amounts to."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.belief import Belief, as_belief
from jaxdesign.information import pair_differences, pair_flips
from jaxdesign.pool import CompletionPool, bare_pool, centred_features
from jaxdesign.preference.fit.bradley_terry import fit_bradley_terry
from jaxdesign.preference.labels.labels import Labels, check_labels, counted

REACH = 4.0  # decades of the search to each side of a prior that is worth as many labels as there are
RIDGES = 17  # tried side by side; the search goes on between the neighbours of the best
LEVELS = 4  # the last spacing is a thousandth of a decade
TIE = 1e-3  # difference of correlations up to which ridges match as well as the best


class ImpliedPrior(NamedTuple):
    """What `implied_prior` found; takes the place of a prior wherever one is asked for.

    Args:
        belief: the given shape of the prior times `ridge`.
        ridge: factor on the precision of that shape; with the default shape the ridge.
        interval: the least and the largest ridge tried whose correlation is within 0.001 of the best.
        correlation: of the policy's differences of implicit rewards with those of the fit, over unlabelled pairs.
        scale: the policy's differences over those of the fit, by least squares; below 1 the policy is held back more
            than its ranking of the pairs tells.
        labels_worth: how many of the labels, at margin 0 and averaged, the prior is worth: ridge tr(shape) over the
            mean trace of the information of one.
        at_edge: whether the best ridge is at an end of the search, a prior worth 10^4 times more or fewer labels than
            there are: then it is a bound. Where the interval reaches an end the match is flat towards it.
    """

    belief: Belief
    ridge: float
    interval: tuple[float, float]
    correlation: float
    scale: float
    labels_worth: float
    at_edge: bool

    @property
    def pull(self) -> float:
        """ridge / scale: the factor at which the fit's rewards are as large as the policy's.

        Fits to labels that say little beside their prior are nearly proportional to 1 / ridge: they rank pairs alike
        whatever the ridge, `interval` is wide, and this alone is told. Take it as the ridge then. With it the gains of
        designs were predicted in DPO of a real language model (`bench/README.md`).
        """
        return self.ridge / self.scale if self.scale > 0 else float("inf")


def implied_prior(
    policy: Float[AnyArray, "p k"], pool: CompletionPool, labels: Labels, *, prior: Any = 1.0
) -> ImpliedPrior:
    """The ridge at which the posterior mode of the same labels ranks pairs without labels most like a trained policy.

    argmax over ridges of the correlation of z . w(ridge) with u_i - u_j, over all pairs (p, i, j) without a label; w is
    the mode of `fit_bradley_terry` with the precision ridge times that of `prior`. Differences of a pair have no sign
    of their own, so the correlation is about 0. Training that stops early is held back as by a prior, and designs with
    this prior are designs for that training (`expected_gap`). It is a property of the training and the number of
    labels, not of this reward: measure it once on a pilot or on other seeds, and use it for all.

    Args:
        policy: u, (P, K), implicit rewards beta log(pi / pi_ref) of the trained policy (`implicit_rewards`), up to a
            constant per prompt; masked slots may hold anything.
        pool: the features in which the fit is made, and flips; its scores are not used.
        labels: that the policy was trained on, of pairs of the pool.
        prior: shape and mean of the prior, anything that is one; 1.0: ridges around 0.

    Returns:
        ImpliedPrior.

    Raises:
        ValueError: policy of another shape or not finite, or without any difference between unlabelled pairs; no
            labels, or none that is no skip; every pair labelled; a prior without precision.

    Complexity: one pass of P K d^2 operations in float64, then 68 fits to the labels, 17 at a time; no pair without a
    label is ever listed (sums over all pairs of a prompt are K times those over its centred rows).
    Source: derived; measured on trained transformers in this project's experiments; checked by
    tests/preference/fit/test_implied_priors.py.
    """
    check_labels(labels, pool)
    policy = np.asarray(_checks.as_float_array(policy, "policy"), np.float64)
    mask = np.asarray(pool.mask)
    _checks.same_shape(policy.shape, mask.shape, "policy", "(prompts, completions), one implicit reward each")
    _checks.finite(policy, "policy", mask, ("prompt", "completion"))
    shape = as_belief(prior, pool.dim)
    if not np.trace(shape.precision) > 0:
        raise ValueError("prior: without precision there is nothing to scale; pass a ridge or a precision matrix")
    pairs, wins, counts = counted(labels)
    if not len(pairs):
        raise ValueError("labels: none found that prefer a completion or tie; the fit needs those that training saw")
    with _arrays.float64():
        padding = _arrays.power_of_two(len(pairs)) - len(pairs)
        padded = np.concatenate([pairs, np.repeat(pairs[:1], padding, axis=0)])
        z = np.asarray(pair_differences(pool, padded))
        flip = pair_flips(pool, padded)
    flip = np.zeros(len(padded)) if flip is None else np.asarray(flip, np.float64)
    sums = _unlabelled(pool, np.where(mask, policy, 0), pairs, z[: len(pairs)])
    told = np.sum(counts[:, None] * z[: len(pairs)] ** 2) / 4  # trace of the labels' information at margin 0
    unit = told / np.trace(shape.precision)
    tried, found = _search(z, np.pad(wins, (0, padding)), np.pad(counts, (0, padding)), flip, shape, unit, sums)
    best = int(np.argmax(found[:, 0]))
    close = tried[found[:, 0] >= found[best, 0] - TIE]
    ridge, ends = float(tried[best]), (tried.min(), tried.max())
    return ImpliedPrior(
        Belief(shape.mean, ridge * np.asarray(shape.precision)),
        ridge,
        (float(close.min()), float(close.max())),
        float(found[best, 0]),
        float(found[best, 1]),
        float(ridge / unit * counts.sum()),
        bool(np.min(np.abs(np.log(ridge / np.array(ends)))) < 0.01),
    )


class _Sums(NamedTuple):
    """Over pairs without a label, with v the policy's difference."""

    products: np.ndarray  # sum z z^T, (d, d)
    crossed: np.ndarray  # sum v z, (d,)
    squares: float  # sum v^2


def _unlabelled(pool, policy, pairs, differences) -> _Sums:
    with _arrays.float64():
        parts = (*_arrays.in_one_place((pool.features, pool.mask)), policy)
        products, crossed, squares = map(np.asarray, _of_all_pairs(*_arrays.for_algebra(parts)))
    p, i, j = pairs.T
    own = policy[p, i] - policy[p, j]
    sums = _Sums(products - differences.T @ differences, crossed - own @ differences, float(squares) - float(own @ own))
    count = np.asarray(pool.mask).sum(axis=1)
    rounding = 1e-12 * np.trace(products)
    if int((count * (count - 1) // 2).sum()) <= len(pairs) or not np.trace(sums.products) > rounding:
        raise ValueError("labels: every pair of different completions has one; the match is judged on pairs without")
    if not sums.squares > 1e-12 * float(squares):
        raise ValueError(
            "policy: the same implicit reward for both completions of every pair without a label; was it trained?"
        )
    return sums


@jax.jit
def _of_all_pairs(features, mask, policy):
    """Sums over i < j of products of differences: K_p times those of rows centred over the K_p completions."""

    def chunk(part):
        features, mask, policy = part
        rows = centred_features(bare_pool(features, mask), jnp.float64)
        count = jnp.sum(mask, axis=1, dtype=jnp.float64)
        mean = jnp.sum(jnp.where(mask, policy, 0), axis=1) / jnp.maximum(count, 1)
        own = jnp.where(mask, policy - mean[:, None], 0)
        weighted = rows * count[:, None, None]
        return (
            _arrays.contract("pkd,pke->de", weighted, rows),
            _arrays.contract("pkd,pk->d", weighted, own),
            jnp.sum(count[:, None] * own**2),
        )

    return _arrays.sum_chunks(chunk, (features, mask, policy), _arrays.chunk_length(*features.shape))


def _search(z, wins, counts, flip, shape, unit, sums):
    """Ridges tried, and the correlation and scale of each, (n, 2)."""
    low, high = (np.log(unit) + sign * REACH * np.log(10) for sign in (-1, 1))
    tried, found = np.zeros(0), np.zeros((0, 2))
    flips = bool((flip > 0).any())
    for _ in range(LEVELS):
        ridges = np.linspace(low, high, RIDGES)
        with _arrays.float64():
            arrays = (np.exp(ridges), z, wins, counts, flip, np.asarray(shape.mean), np.asarray(shape.precision), sums)
            here = np.asarray(_matches(*_arrays.for_algebra(jax.tree.map(jnp.asarray, arrays)), flips=flips))
        best = int(np.argmax(here[:, 0]))
        low, high = ridges[max(best - 1, 0)], ridges[min(best + 1, RIDGES - 1)]
        tried, found = np.concatenate([tried, np.exp(ridges)]), np.concatenate([found, here])
    return tried, found


@partial(jax.jit, static_argnames="flips")
def _matches(ridges, z, wins, counts, flip, mean, precision, sums, *, flips) -> Float[Array, "n 2"]:
    def match(ridge):
        prior = Belief(mean, ridge * precision)
        w = fit_bradley_terry(z, wins, counts, prior=prior, flip=flip if flips else 0.0).parameter
        norm = w @ sums.products @ w
        agreement = (w @ sums.crossed) / jnp.where(norm > 0, norm, 1)
        correlation = agreement * jnp.sqrt(jnp.maximum(norm, 0) / sums.squares)
        fine = jnp.isfinite(correlation) & (norm > 0)
        return jnp.stack([jnp.where(fine, correlation, -1), agreement])

    return jax.vmap(match)(ridges)
