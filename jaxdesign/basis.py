"""Pools in another basis: the range of their features, and any basis given."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.tree_util import Partial
from jaxtyping import Float

from jaxdesign import _arrays, _checks
from jaxdesign._linalg import unit_diagonal
from jaxdesign._pairs import candidate_counts, first_copies, jitted_first_copies
from jaxdesign.pool import CompletionPool, bare_pool, centred_features, replicated_pool, with_features
from jaxdesign.pricing.checked import checked
from jaxdesign.pricing.in_basis import source_in_basis
from jaxdesign.pricing.sharded import ShardedSource, sharded_source
from jaxdesign.pricing.source import Source, open_pairs
from jaxdesign.pricing.widened import in_dtype
from jaxdesign.targets import second_moment


@overload
def restrict_to_range(pool: CompletionPool, rtol: float = ...) -> tuple[CompletionPool, Float[np.ndarray, "d r"]]: ...


@overload
def restrict_to_range(pool: Source, rtol: float = ...) -> tuple[Source, Float[np.ndarray, "d r"]]: ...


def restrict_to_range(
    pool: CompletionPool | Source, rtol: float = 1e-10
) -> tuple[CompletionPool | Source, Float[np.ndarray, "d r"]]:
    """Express a pool in an orthonormal basis B of the range of its centred second moment C (see `second_moment`).

    Real features are often rank-deficient (dead dimensions), and then every information matrix without a prior is
    singular. The new features are (phi - prompt mean) B, so every difference becomes B^T z with the same norm; carry a
    target or prior over as B^T H B. Directions are dropped in which C, scaled to a unit diagonal, has an eigenvalue of
    at most rtol times the largest: a column in small units is not missing, and is kept. A column that differs within
    prompts by less than its dtype resolves is missing: what is left of it is rounding.

    Args:
        pool: the pool, concrete (not inside jit: the rank is a shape), or a `pricing.Source` of one.
        rtol: relative threshold on the eigenvalues of the scaled C, which are computed in float64.

    Returns:
        The restricted pool (float32, or float64 where the features are), and B, (d, r) float64, columns by descending
        eigenvalue. Completions with identical features stay bit-identical. Features that are divided over prompts on
        the devices of a mesh stay so. Of a source a source, which holds no features: every pass multiplies the rows of
        the given one by B, in float64, at 2 P K d r operations; listed pairs are z B, not rounded to float32.

    Raises:
        TypeError: a pool of another kind, or traced.
        ValueError: all completions of every prompt are identical, so the range is empty; rtol outside [0, 1).

    Numerics: features of a source are centred and multiplied in float64 whatever its working dtype.
    Complexity: P K d (d + r) operations; of a source two passes.
    Source: derived; checked by tests/test_pool.py and tests/pricing/test_in_basis.py.
    """
    _checks.concrete("restrict_to_range", pool)
    if not 0 <= rtol < 1:
        raise ValueError(f"rtol={rtol:g}: must be in [0, 1); it is relative to the largest eigenvalue")
    pool = checked(pool)
    if not isinstance(pool, CompletionPool):
        found = _source_range(pool, rtol)
        return source_in_basis(pool, found), found
    if _arrays.over_prompts(pool.features) is not None:
        source = sharded_source(pool)
        found = _source_range(source, rtol)
        return _divided_in_basis(pool, source, found), found
    pool = replicated_pool(pool)
    copies = jitted_first_copies(pool.features, pool.mask)
    found = _basis(candidate_counts(copies), lambda: second_moment(pool), _resolution(pool), rtol)
    return in_basis(pool, found), found


def _source_range(source: Source, rtol: float) -> Float[np.ndarray, "d r"]:
    exact = in_dtype(source, np.float64)
    with _arrays.float64():
        finest, counts = exact.fold(Partial(_looked), jnp.zeros(source.dim), merge=jnp.maximum)
    return _basis(np.asarray(counts), lambda: second_moment(exact), np.asarray(finest), rtol)


def _looked(chunk, finest, _):
    known = chunk.resolution
    if known is None:  # of the rows as they are: at least that much of what was stored is not seen
        known = jnp.max(jnp.abs(chunk.rows), axis=1) * float(jnp.finfo(jnp.float32).eps)
    return jnp.maximum(finest, jnp.max(known, axis=0).astype(finest.dtype)), jnp.sum(open_pairs(chunk), axis=(1, 2))


def _basis(counts, moment: Callable, resolution: Float[np.ndarray, " d"], rtol: float) -> Float[np.ndarray, "d r"]:
    """The basis, from how many pairs each prompt has, the second moment, and what columns resolve."""
    if not counts.any():  # C itself would be rounding, not zero
        raise ValueError(
            "features: the completions of every prompt are identical (range of dimension 0), so no pair carries "
            "information; use features that tell completions apart"
        )
    C = moment()
    alive = np.diagonal(C) > resolution**2
    alive |= ~alive.any()
    return _range_basis(np.where(alive[:, None] & alive, C, 0), rtol)


def _resolution(pool: CompletionPool) -> Float[np.ndarray, " d"]:
    """Distance of neighbouring numbers of the stored dtype at the largest size of every column."""
    kind, exists = jnp.finfo(pool.features.dtype), pool.mask[..., None]
    largest = jnp.max(jnp.where(exists, jnp.abs(pool.features), 0), axis=(0, 1))
    return np.maximum(np.asarray(largest, np.float64) * float(kind.eps), float(kind.smallest_subnormal))


def _range_basis(C: Float[np.ndarray, "d d"], rtol: float) -> Float[np.ndarray, "d r"]:
    """Orthonormal basis of the range of C = S R S, S times that of R; columns by descending eigenvalue of C."""
    scaled, size = unit_diagonal(C)
    spectrum, vectors = np.linalg.eigh(scaled)
    keep = spectrum > rtol * spectrum[-1]
    span = size[:, None] * vectors[:, keep]
    order = np.argsort(-size, kind="stable")  # largest rows first: a QR factorisation is then accurate row by row
    orthonormal = np.zeros_like(span)
    orthonormal[order] = np.linalg.qr(span[order])[0]
    directions = np.linalg.eigh(orthonormal.T @ C @ orthonormal)[1][:, ::-1]
    return np.ascontiguousarray(orthonormal @ directions)


def in_basis(pool: CompletionPool, basis: Float[np.ndarray, "d r"]) -> CompletionPool:
    """The pool with features (phi - prompt mean) B: differences z become B^T z, targets and priors B^T H B.

    Products in float64, stored as float32 (float64 for float64 features). Completions with identical features stay
    bit-identical. The basis need not be orthonormal.
    """
    basis = np.asarray(_checks.as_float_array(basis, "basis"), np.float64)
    if basis.ndim != 2 or basis.shape[0] != pool.dim or not basis.shape[1]:
        raise ValueError(f"basis: shape {basis.shape} found; expected ({pool.dim}, r), one row per feature dimension")
    pool, dtype = replicated_pool(pool), _arrays.compute_dtype(pool.features.dtype)
    with _arrays.float64():
        given = _arrays.for_algebra((pool.features, pool.mask))
        projected = _project(*given, jnp.asarray(basis), dtype=dtype)
    return with_features(pool, _arrays.from_algebra(projected, pool.features))


def _divided_in_basis(pool: CompletionPool, source: ShardedSource, basis) -> CompletionPool:
    """`in_basis` of a pool over the devices of a mesh, which goes on lying there as it does."""
    if _arrays.algebra_device() is not None:
        return in_basis(pool, basis)
    exact = source.in_dtype(np.float64)
    features = exact.in_basis(basis, _arrays.compute_dtype(pool.features.dtype))
    mesh, axes = cast(tuple, _arrays.over_prompts(pool.features))
    return with_features(pool, jax.device_put(features, NamedSharding(mesh, PartitionSpec(axes))))


@jax.jit(static_argnames="dtype")
def _project(features, mask, basis, *, dtype):
    prompts, completions, dim = features.shape

    def chunk(part):
        piece = bare_pool(*part)
        rows = _arrays.contract("pkd,dr->pkr", centred_features(piece, jnp.float64), basis).astype(dtype)
        first = jnp.maximum(first_copies(piece), 0)  # the product may round equal rows differently
        return jnp.where(piece.mask[..., None], jnp.take_along_axis(rows, first[..., None], axis=1), 0)

    return _arrays.map_chunks(chunk, (features, mask), _arrays.chunk_length(prompts, completions, dim))
