"""Proxy scores in a belief: a reward model, a length, a classifier of unknown reliability, trusted as labels decide.

Both ways say the same of rewards, r = phi . w + g s with s the proxy in units of its spread and g ~ N(0, tau^2): one
number more to learn, the proxy's weight, which may turn out to be 0 or negative. A proxy belongs in the fit like this
and not in the choice of pairs alone: choosing best against worst by it leaks it into a fit that starts at 0, and no
more.

    proxy_belief      where the features explain the proxy (`explained` near 1): the dimension stays
    pool_with_proxy   where they do not: one more feature, the proxy itself, and 1 - explained of it is not lost
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign._linalg import unit_diagonal
from jaxdesign.belief import Belief, as_belief
from jaxdesign.pool import CompletionPool
from jaxdesign.targets import policy_target

RANK = 1e-10  # eigenvalues of the unit-diagonal covariance of the features below this share of the largest are 0
NONE = 1e-8  # share of the proxy's variance below which it counts as not in the features at all


class ProxyBelief(NamedTuple):
    """What `proxy_belief` found; takes the place of a prior wherever one is asked for.

    Args:
        belief: N(m, S + tau^2 t t^T), N(m, S) being the prior.
        direction: t, (d,), the proxy's parameter in units in which its reward has variance 1 within prompts.
        explained: R2, the share of the proxy's variance within prompts that phi . t explains; the rest of it is not in
            the belief (`pool_with_proxy`).
    """

    belief: Belief
    direction: Float[np.ndarray, " d"]
    explained: float


class ProxyPool(NamedTuple):
    """What `pool_with_proxy` made; takes the place of a prior wherever one is asked for, with its own pool.

    Args:
        pool: with one more feature, the last: the proxy less its mean in the prompt, in units of its spread.
        belief: about d + 1 parameters; the last is the weight of the proxy, N(0, tau^2).
        explained: R2, the share of the proxy's variance within prompts that the d features explain.
    """

    pool: CompletionPool
    belief: Belief
    explained: float


def proxy_belief(
    pool: CompletionPool,
    proxy: Float[AnyArray, "p k"],
    prior: Any,
    *,
    tau: float = 1.0,
    log_weights: Float[AnyArray, "p k"] | None = None,
) -> ProxyBelief:
    """The prior with covariance S + tau^2 t t^T: along the proxy's parameter t much more may be true than elsewhere.

    t is the weighted least-squares fit H^+ Cov(phi, s) of the proxy s on centred features, scaled to t^T H t = 1, H
    being `policy_target(pool, log_weights)`. Its sign does not matter, and labels decide how far it is followed: a
    proxy that says nothing costs what one more parameter does that is held to be large. Choose this where `explained`
    is near 1, and where the policy that is trained is the fit itself, which cannot express what is not in its features;
    else `pool_with_proxy`.

    Args:
        pool: the features; its scores are not used.
        proxy: s, (P, K), in any unit, up to a constant per prompt; masked slots may hold anything.
        prior: N(m, S) without the proxy, anything that is one; where nothing is held to be known (S infinite) a proxy
            adds nothing.
        tau: standard deviation within prompts of the reward that the proxy may turn out to explain, above 0; in the
            unit of the reward, in which a label at margin 0 has variance 4.
        log_weights: (P, K), as in `policy_target`: the policy on which completions count.

    Returns:
        ProxyBelief.

    Raises:
        ValueError: a proxy of another shape or not finite, one that is constant within every prompt, or in no part
            explained by the features; tau not positive.

    Numerics: float64. Complexity: P K d^2.
    Source: derived (a linear model with a random effect); checked by tests/preference/fit/test_proxy.py.
    """
    tau = _checks.positive_finite(tau, "tau", "the spread of the reward that the proxy may explain")
    prior = as_belief(prior, pool.dim)
    _, fitted, explained = _regressed(pool, proxy, log_weights)
    if explained < NONE:
        raise ValueError(
            "proxy: the features explain none of it, so it is no direction among them; pool_with_proxy adds it as one"
        )
    direction = fitted / np.sqrt(explained)
    pull = prior.precision @ direction
    precision = prior.precision - np.outer(pull, pull) / (1 / tau**2 + direction @ pull)
    return ProxyBelief(Belief(prior.mean, precision), direction, explained)


def pool_with_proxy(
    pool: CompletionPool,
    proxy: Float[AnyArray, "p k"],
    prior: Any,
    *,
    tau: float = 1.0,
    log_weights: Float[AnyArray, "p k"] | None = None,
) -> ProxyPool:
    """The pool with the proxy as one more feature, and the belief that goes with it.

    The feature has variance 1 within prompts, as has the reward phi . t of `proxy_belief`, and its weight is N(0,
    tau^2), independent of the others. Where the features explain all of the proxy both say the same. Choose this where
    `explained` is clearly below 1: the projection would forget the rest. Designs and fits are then in d + 1 dimensions:
    take H from this pool too, `policy_target(found.pool)`. A policy that is trained on rewards of the fit, as by
    `train_on_posterior`, need not have the feature.

    Args:
        pool, proxy, prior, tau, log_weights: as in `proxy_belief`; a prior about d parameters.

    Returns:
        ProxyPool, features float32, or float64 where they are.

    Raises:
        ValueError: as `proxy_belief`, but for a proxy that the features do not explain.

    Source: derived; checked by tests/preference/fit/test_proxy.py.
    """
    tau = _checks.positive_finite(tau, "tau", "the spread of the reward that the proxy may explain")
    prior = as_belief(prior, pool.dim)
    column, _, explained = _regressed(pool, proxy, log_weights)
    precision = np.zeros((pool.dim + 1, pool.dim + 1))
    precision[:-1, :-1], precision[-1, -1] = prior.precision, 1 / tau**2
    dtype = _arrays.compute_dtype(pool.features.dtype)
    features = np.concatenate([np.asarray(pool.features).astype(dtype), column[..., None].astype(dtype)], axis=-1)
    wide = CompletionPool(features, pool.scores, pool.mask, pool.ids, pool.flip, pool.residual)
    return ProxyPool(wide, Belief(np.append(prior.mean, 0.0), precision), explained)


def _regressed(pool, proxy, log_weights) -> tuple[np.ndarray, np.ndarray, float]:
    """The proxy centred and in units of its spread, its fit (d,) by the features, and the share that explains."""
    mask = np.asarray(pool.mask)
    proxy = np.asarray(_checks.as_float_array(proxy, "proxy"), np.float64)
    _checks.same_shape(proxy.shape, mask.shape, "proxy", "(prompts, completions), one score each")
    _checks.finite(proxy, "proxy", mask, ("prompt", "completion"))
    proxy = np.where(mask, proxy, 0)
    size = np.abs(proxy).max(initial=0) or 1.0
    mean = np.sum(proxy / size, axis=1, keepdims=True) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    column = np.where(mask, proxy / size - mean, 0)
    with _arrays.float64():
        features = np.asarray(pool.features, np.float64)
        wide = CompletionPool(np.concatenate([features, column[..., None]], axis=-1), mask=pool.mask)
        moments = np.asarray(policy_target(wide, log_weights))
    spread = np.sqrt(moments[-1, -1])
    if not spread > 1e-12:
        raise ValueError("proxy: the same score for all completions of every prompt; it must tell them apart")
    correlation, sizes = unit_diagonal(moments[:-1, :-1])
    inverse = np.where(sizes > 0, 1 / np.where(sizes > 0, sizes, 1), 0)
    shared = moments[:-1, -1] / spread * inverse
    scaled = np.linalg.pinv(correlation, RANK, hermitian=True) @ shared
    return column / spread, scaled * inverse, float(np.clip(shared @ scaled, 0.0, 1.0))
