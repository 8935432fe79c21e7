"""Targets: covariances of features within prompts, which say where errors of a policy matter."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.belief import as_belief
from jaxdesign.pool import CompletionPool, bare_pool, centred_features
from jaxdesign.pricing.adapted import AdaptedSource
from jaxdesign.pricing.checked import checked
from jaxdesign.pricing.layout import joined
from jaxdesign.pricing.source import Source, survey
from jaxdesign.pricing.widened import at_algebra, in_dtype


def policy_target(
    pool: CompletionPool | Source,
    log_weights: Float[AnyArray, "p k"] | None = None,
    *,
    belief: Any = None,
    beta: float = 1.0,
) -> Float[AnyArray, "d d"]:
    """H = mean over prompts of Cov[phi] under softmax(log_weights), the curvature of the policy's loss of quality.

    H = (1/P') sum_p sum_k w_pk (phi_pk - mu_p)(phi_pk - mu_p)^T, mu_p = sum_k w_pk phi_pk, w_p = softmax over the
    existing completions; no K - 1 correction; P' counts prompts with at least one completion.

    Args:
        pool: completions sampled from the policy whose errors matter (log_weights None: equal weights), or from
            another one; or a `pricing.Source` of them.
        log_weights: (P, K) log importance weights, for instance log pi - log pi_sampling; constants per prompt cancel.
        belief: a `Belief` about the reward parameter with mean m, or what holds one, such as a posterior: H is then of
            the policy that m leads to, log_weights being those of the reference policy, and phi . m / beta is added.
        beta: strength of the policy's KL term, above 0; counts with a belief only.

    Returns:
        (d, d), float32 (float64 for float64 features); of a source float64, NumPy, by one pass over it. Of a pool
        divided over devices by prompt, a copy on each; features stay where they are.

    Raises:
        TypeError: what is neither a pool nor a source.
        ValueError: log_weights of another shape; outside of jit also NaN or inf in one of an existing completion (-inf,
            a weight of 0, is allowed), and a belief about another number of parameters.

    Numerics: accumulated in units of the largest centred feature, so that only the result has to be in the range of its
    dtype: float32 ends at entries of 1.2e-38, below which they are 0, and 3.4e38. `second_moment` has no such end.
    Source: arXiv 2606.19607; the expected policy gap is (beta/2) tr(H F^-1); checked by tests/test_information.py.
    """
    pool = checked(pool)
    tilt = None if belief is None else _tilt(as_belief(belief, pool.dim), beta)
    if not isinstance(pool, CompletionPool):
        return _policy_target_of_source(pool, log_weights, tilt)
    shape = (pool.num_prompts, pool.completions)
    if log_weights is None:
        log_weights = jnp.zeros(shape)
    _checks.same_shape(jnp.shape(log_weights), shape, "log_weights", "(prompts, completions)")
    log_weights = jnp.asarray(log_weights, _arrays.compute_dtype(pool.features.dtype))
    if not _arrays.is_traced(pool, log_weights):
        _checks.finite(_never_as_zero(log_weights), "log_weights", pool.mask, ("prompt", "completion"))
    if tilt is not None:
        log_weights = _tilted(pool.features, pool.mask, log_weights, jnp.asarray(tilt, log_weights.dtype))
    return _where_prompts_lie(_policy_target, pool.features, pool.mask, log_weights)


def _tilt(belief, beta):
    beta = _checks.positive_finite(beta, "beta", "the strength of the policy's KL term")
    return belief.mean / beta


@jax.jit  # a weight of -inf stays inside, where `jax_debug_infs` does not stop at it
def _tilted(features, mask, log_weights, tilt):
    rows = centred_features(bare_pool(features, mask), tilt.dtype)
    return log_weights + _arrays.contract("pkd,d->pk", rows, tilt)


@jax.jit  # the -inf that is compared with stays inside, where `jax_debug_infs` does not stop at it
def _never_as_zero(log_weights):
    return jnp.where(jnp.isneginf(log_weights), jnp.zeros((), log_weights.dtype), log_weights)


def _policy_target_of_source(source, log_weights, tilt):
    shape, source = (source.prompts, source.completions), at_algebra(AdaptedSource(source, np.ones(source.dim)))
    log_weights = np.zeros(shape) if log_weights is None else np.asarray(log_weights, np.float64)
    _checks.same_shape(log_weights.shape, shape, "log_weights", "(prompts, completions)")
    totals = np.zeros((source.dim, source.dim)), np.zeros(())
    with _arrays.float64():
        kernel = Partial(_add_covariance) if tilt is None else Partial(_add_tilted_covariance, np.asarray(tilt))
        totals = source.fold(kernel, totals, log_weights)[0]
    total = np.asarray(totals[0]) / float(totals[1])
    if not np.isfinite(total).all():  # features are: a source's pass has seen them
        given, exists = np.where(np.isneginf(log_weights), 0, log_weights), survey(source).exists
        _checks.finite(given, "log_weights", exists, ("prompt", "completion"))
    return (total + total.T) / 2


def _add_covariance(chunk, totals, log_weights):
    total, count = totals
    exists, rows = chunk.copies >= 0, chunk.rows.astype(total.dtype)
    share = _shares(exists, log_weights.astype(total.dtype))[..., None]
    rows = rows - jnp.sum(share * rows, axis=1, keepdims=True)
    flat, weighted = (a.reshape(-1, rows.shape[-1]) for a in (rows, share * rows))
    total = total + jnp.matmul(weighted.T, flat, precision=_arrays.HIGHEST)
    return (total, count + jnp.sum(jnp.any(exists, axis=1), dtype=count.dtype)), None


def _add_tilted_covariance(tilt, chunk, totals, log_weights):
    rows = chunk.rows.astype(tilt.dtype)
    tilted = log_weights.astype(tilt.dtype) + _arrays.contract("pkd,d->pk", rows, tilt)
    return _add_covariance(chunk, totals, tilted)


def _policy_target(features, mask, log_weights, axes):
    alive = jnp.any(mask, axis=1)
    number = _total(jnp.sum(alive), axes).astype(log_weights.dtype)
    return _mixed(features, mask, _shares(mask, log_weights), alive.astype(log_weights.dtype) / number, axes)


def completion_shares(pool: CompletionPool, log_weights: Float[AnyArray, "p k"]) -> Float[Array, "p k"]:
    """softmax(log_weights) over the existing completions of each prompt; 0 in masked slots. Traceable."""
    return _shares(pool.mask, log_weights)


@jax.jit  # the -inf of masked slots stays inside, where `jax_debug_infs` does not stop at it
def _shares(mask, log_weights):
    alive = jnp.any(mask, axis=1)
    logits = jnp.where(mask, log_weights, -jnp.inf)
    return jnp.where(mask, jax.nn.softmax(jnp.where(alive[:, None], logits, 0), axis=1), 0)


def mixed_covariance(
    pool: CompletionPool, shares: Float[Array, "p k"], prompt_weights: Float[Array, " p"]
) -> Float[Array, "d d"]:
    """sum_p v_p Cov_p[phi], Cov_p under the shares (they sum to 1) of the completions of a prompt. Traceable."""
    return _mixed(pool.features, pool.mask, shares, prompt_weights, ())


def _mixed(features, mask, shares, prompt_weights, axes):
    features = centred_features(bare_pool(features, mask))  # first: the weighted mean then leaves digits
    largest = jnp.max(jnp.abs(features))
    unit = _arrays.power_of_two_below(_total(largest, axes, jnp.maximum))  # in such units squares stay in range
    features = features / unit

    def chunk(part):
        rows, share, weight = part
        rows = rows - jnp.sum(share[..., None] * rows, axis=1, keepdims=True)
        return _arrays.contract("pkd,pke->de", rows * (share * weight[:, None])[..., None], rows)

    arrays = features, shares.astype(features.dtype), prompt_weights.astype(features.dtype)
    total = _total(_arrays.sum_chunks(chunk, arrays, _arrays.chunk_length(*features.shape)), axes)
    return (total + total.T) / 2 * unit * unit


def _where_prompts_lie(function, *arrays):
    """function(*arrays, axes): of what each device has, where prompts are divided over the `axes` of a mesh.

    Features stay there; in a trace only Explicit axes are known. Arrays that are not divided by prompt go as they are.
    """
    lying = _arrays.prompt_axes(arrays[0])
    return _at_once(function, _arrays.replicated(arrays)) if lying is None else _by_device(function, arrays, lying)


@jax.jit(static_argnums=0)
def _at_once(function, arrays):
    return function(*arrays, ())


@jax.jit(static_argnums=(0, 2))
def _by_device(function, arrays, lying):
    mesh, axes = lying
    specs = (PartitionSpec(axes),) * len(arrays)
    run = jax.shard_map(
        lambda *parts: function(*parts, axes), mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
    )
    return run(*_arrays.laid_out(arrays, specs, mesh))


def _total(value, axes, merge=jnp.add):
    """Of all devices along the axes, in their order; the value itself where there are none."""
    return joined(value, axes, merge) if axes else value


def second_moment(pool: CompletionPool | Source) -> Float[AnyArray, "d d"]:
    """C = mean over existing completions of phi phi^T, phi centred within the prompt.

    For pools without masked slots it equals `policy_target(pool)`. Computed in float64 whatever the stored dtype.

    Args:
        pool: the pool, or a `pricing.Source`.

    Returns:
        (d, d) float64 NumPy; for a traced pool a JAX array in its default precision.

    Raises:
        TypeError: what is neither a pool nor a source.

    Source: derived; checked by tests/test_information.py.
    """
    pool = checked(pool)
    if not isinstance(pool, CompletionPool):
        totals, source = (np.zeros((pool.dim, pool.dim)), np.zeros(())), in_dtype(pool, np.float64)
        with _arrays.float64():
            totals = source.fold(Partial(_add_products), totals)[0]
        return np.asarray(totals[0]) / float(totals[1])
    default = jnp.result_type(float)
    with _arrays.float64():
        arrays = _arrays.for_algebra((pool.features, pool.mask))
        return _arrays.told(_where_prompts_lie(_second_moment, *arrays), default)


def _add_products(chunk, totals, _):
    total, count = totals
    rows = chunk.rows.astype(total.dtype).reshape(-1, total.shape[0])  # centred, and 0 where there is no completion
    total = total + jnp.matmul(rows.T, rows, precision=_arrays.HIGHEST)
    return (total, count + jnp.sum(chunk.copies >= 0, dtype=count.dtype)), None


def _second_moment(features, mask, axes):
    prompts, completions, dim = features.shape

    def chunk(part):
        rows = centred_features(bare_pool(*part), jnp.float64)
        return _arrays.contract("pkd,pke->de", rows, rows)

    length = _arrays.chunk_length(prompts, completions, dim)
    total = _total(_arrays.sum_chunks(chunk, (features, mask), length), axes)
    return total / _total(jnp.sum(mask, dtype=jnp.float64), axes)
