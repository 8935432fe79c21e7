"""A log-linear stand-in for the reference policy on given features: standardise, reduce, regress (arXiv 2606.19607).

Where features are not the gradients of the policy itself (hidden states, say) the design still needs the policy's
probabilities on them. The paper fits theta_0 with log pi_ref(y|x) ~ phi(x, y) . theta_0 + constant(x) and takes the
target at it. Constants of a prompt never matter, in features or in log-probabilities, so every step here sees both
centred within the prompt: the scale is the standard deviation within prompts, not the one over the whole pool, and
there is no mean to carry over to another pool.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.basis import in_basis
from jaxdesign.pool import CompletionPool, centred_features
from jaxdesign.targets import policy_target, second_moment


class ReferenceFit(NamedTuple):
    """theta_0 and the map of features on which it lives; float64 NumPy.

    Args:
        scale: (d,) standard deviation within prompts; inf, so mapped to 0, for columns that are constant there.
        components: V, (d, k), orthonormal, by descending variance.
        theta: theta_0, (k,): log pi_ref ~ mapped phi . theta_0 within a prompt.
        variance_kept: share of the standardised variance within prompts that the components hold.
        r_squared: share of the variance of log pi_ref within prompts that theta_0 explains.
    """

    scale: Float[np.ndarray, " d"]
    components: Float[np.ndarray, "d k"]
    theta: Float[np.ndarray, " k"]
    variance_kept: float
    r_squared: float

    @property
    def basis(self) -> Float[np.ndarray, "d k"]:
        """B = diag(1 / scale) components: mapped features are phi B, targets and priors B^T H B."""
        return self.components / self.scale[:, None]


def fit_reference(
    pool: CompletionPool, log_probabilities: Float[AnyArray, "p k"], *, dimension: int, ridge: float = 1e-3
) -> ReferenceFit:
    """theta_0 by ridge regression of reference log-probabilities on the standardised leading components of features.

        minimise over theta   mean over completions (log pi_c - (phi_c / scale) V . theta)^2 + ridge |theta|^2

    with log pi_c and phi_c centred within the prompt and V the leading eigenvectors of the correlations of phi_c.
    Solved in closed form: on the components the second moment is diagonal.

    Args:
        pool: completions with any features.
        log_probabilities: (P, K) log pi_ref(y|x), any constant per prompt added; masked slots may hold anything.
        dimension: k, components to keep; fewer are kept where the features have fewer (relative threshold 1e-10).
        ridge: in units of the standardised features' variance, at least 0.

    Returns:
        The fit. `mapped(other_pool, fit)` puts any pool of the same features, a deployment pool included, on its map.

    Raises:
        ValueError: dimension below 1, a negative ridge, log_probabilities of another shape or not finite, or features
            that are constant within every prompt. TypeError: dimension no integer.

    Numerics: moments and eigenvectors in float64 on the features as stored.
    Complexity: P K d^2 + d^3.

    Source: arXiv 2606.19607, here centred within the prompt; checked by tests/preference/fit/test_reference_fit.py.
    """
    if isinstance(dimension, bool) or not hasattr(dimension, "__index__"):
        raise TypeError(f"dimension={dimension!r}: must be an integer, found {type(dimension).__name__}")
    if dimension < 1:
        raise ValueError(f"dimension={dimension}: must be at least 1 component")
    ridge = _checks.number(ridge, "ridge")
    if not ridge >= 0 or not np.isfinite(ridge):
        raise ValueError(f"ridge={ridge:g}: must be finite and at least 0")
    pool = _arrays.replicated(pool)
    targets = _centred(pool, log_probabilities)
    moment = second_moment(pool)
    with _arrays.float64():
        count = float(jnp.sum(pool.mask))
        slopes = np.asarray(_cross_moment(pool, jnp.asarray(targets))) / count
    scale = np.sqrt(np.diagonal(moment))
    # what centring leaves of a constant column is float64 rounding; a difference of stored values is 6e-8 or more
    constant = scale <= 1e-10 * np.asarray(jnp.max(jnp.abs(pool.features), axis=(0, 1)), np.float64)
    if constant.all():
        raise ValueError("features: constant within every prompt; use features that tell completions apart")
    scale = np.where(constant, np.inf, scale)
    spectrum, vectors = np.linalg.eigh(moment / np.outer(scale, scale))
    keep = np.flatnonzero(spectrum > 1e-10 * spectrum[-1])[::-1][:dimension]
    variances, components = spectrum[keep], np.ascontiguousarray(vectors[:, keep])
    slopes = components.T @ (slopes / scale)
    theta = slopes / (variances + ridge)
    total = float(np.sum(targets**2)) / count
    explained = 2 * theta @ slopes - theta @ (variances * theta)
    r_squared = float(explained / total) if total > 0 else 1.0
    return ReferenceFit(scale, components, theta, float(variances.sum() / np.maximum(spectrum, 0).sum()), r_squared)


def mapped(pool: CompletionPool, fit: ReferenceFit) -> CompletionPool:
    """The pool with features (phi - prompt mean) diag(1 / scale) V of a fit; everything else of it stays.

    Args:
        pool: of the same d features as the one fitted.
        fit: from `fit_reference`.

    Returns:
        CompletionPool with features (P, K, k) float32 (float64 for float64 features).

    Raises:
        ValueError: a pool of another dimension.

    Source: arXiv 2606.19607; checked by tests/preference/fit/test_reference_fit.py.
    """
    return in_basis(pool, fit.basis)


def reference_target(pool: CompletionPool, fit: ReferenceFit) -> Float[AnyArray, "k k"]:
    """H = mean over prompts of Cov[phi] under softmax(phi . theta_0) over the completions of the pool.

    This takes each prompt's completions for the whole set of answers, as the paper does. Where they were sampled from
    the policy itself their frequencies are its probabilities already: use `targets.sampled_target`.

    Args:
        pool: put on the map by `mapped`.
        fit: its theta_0 is used.

    Returns:
        (k, k), as `policy_target` does.

    Raises:
        ValueError: a pool of another dimension, one that has not been mapped for instance.

    Source: arXiv 2606.19607; checked by tests/preference/fit/test_reference_fit.py.
    """
    if pool.dim != len(fit.theta):
        raise ValueError(f"pool: dimension {pool.dim} found; expected {len(fit.theta)}, that of mapped(pool, fit)")
    pool = _arrays.replicated(pool)
    theta = jnp.asarray(fit.theta, _arrays.compute_dtype(pool.features.dtype))
    return policy_target(pool, _arrays.contract("pkd,d->pk", centred_features(pool), theta))


def _centred(pool: CompletionPool, log_probabilities: Any) -> Float[np.ndarray, "p k"]:
    """Log-probabilities minus their mean over the prompt, float64, 0 where masked."""
    values = np.asarray(_checks.as_float_array(log_probabilities, "log_probabilities"), np.float64)
    mask = np.asarray(pool.mask)
    _checks.same_shape(values.shape, mask.shape, "log_probabilities", "(prompts, completions)")
    values = np.where(mask, values, 0.0)
    _checks.finite(values, "log_probabilities", mask, ("prompt", "completion"))
    means = values.sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
    return np.where(mask, values - means[:, None], 0.0)


@jax.jit
def _cross_moment(pool, targets):
    def chunk(part):
        features, mask, values = part
        rows = centred_features(CompletionPool.tree_unflatten(None, (features, None, mask, None)), jnp.float64)
        return _arrays.contract("pkd,pk->d", rows, values)

    length = _arrays.chunk_length(*pool.features.shape)
    return _arrays.sum_chunks(chunk, (pool.features, pool.mask, targets), length)
