"""CompletionPool: the completions among which pairs are chosen, and the index of its pairs.

A pool holds one feature row per completion, never one per pair. A pair is `(p, i, j)` with `i < j`, two completions of
the same prompt; its difference is z = phi_pi - phi_pj, which does not change when a constant is added to all rows of a
prompt. Kernels therefore work on features centred within prompts: real embeddings share most of their norm within a
prompt, and without centring q_ii + q_jj - 2 q_ij cancels in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._flips import as_flips
from jaxdesign._names import check_different
from jaxdesign.centring import centred
from jaxdesign.ranks import unit_diagonal

FAR = 8.0  # common offset over the spread of a column from which float64 features lose digits worth keeping
LEAVES = ("features", "scores", "mask", "flip")


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, init=False, eq=False, repr=False)
class CompletionPool:
    """Features of up to K completions for each of P prompts: a pytree that passes through jit, vmap and sharding.

    Args:
        features: (P, K, d) float16, bfloat16, float32 or float64. Float64 becomes float32 where x64 is off: NumPy
            arrays less an offset common to the completions of a prompt, which no pair sees, where digits would be lost.
        scores: implicit rewards u = beta log(pi / pi_ref), shape (P, K), or (R, P, K) for R parameter draws: then
            information matrices have a leading axis R and criteria average over it. None: every margin is 0.
        mask: (P, K), True where the completion exists. Masked slots may hold anything and are zeroed.
        ids: one name per prompt, all different, kept as static metadata (not traced).
        flip: probability that a label is reversed: a number, one per prompt (P,), or one per pair (P, K, K), symmetric,
            anything where there is no pair; common to all draws. At least 0 and below 1/2. None: no noise. See
            `information.margin_information` for what it costs.

    Raises:
        TypeError: features, scores or flip of a dtype that is not floating, a mask that is not boolean.
        ValueError: wrong rank or shapes, an empty pool, NaN or inf in an existing completion, no prompt with two
            completions, ids that repeat, flip outside of [0, 1/2) or not symmetric. Values are only checked outside of
            jit. Prompts with fewer than two completions are skipped by everything and keep their index.
    """

    features: Float[Array, "p k d"]
    scores: Float[Array, "*r p k"] | None
    mask: Bool[Array, "p k"]
    flip: Float[Array, " p"] | Float[Array, "p k k"] | None
    ids: tuple | None

    def __init__(
        self, features: Any, scores: Any = None, mask: Any = None, ids: Sequence | None = None, flip: Any = None
    ):
        features = _checks.as_float_array(features, "features")
        _checks.rank(features, (3,), "features", "(prompts P, completions K, dimension d)")
        prompts, completions, dim = features.shape
        if prompts == 0 or completions < 2 or dim == 0:
            raise ValueError(
                f"features: shape {features.shape} found; a pool needs at least one prompt, two completion slots per "
                "prompt and one feature dimension"
            )
        if mask is not None:
            mask = mask if isinstance(mask, jax.Array) else np.asarray(mask)
            if mask.dtype != bool:
                raise TypeError(f"mask: dtype {mask.dtype} found; expected bool, True where the completion exists")
            _checks.same_shape(mask.shape, (prompts, completions), "mask", "(prompts, completions), as in features")
        if scores is not None:
            scores = _checks.as_float_array(scores, "scores")
            _checks.rank(scores, (2, 3), "scores", "(P, K), or (draws R, P, K)")
            _checks.same_shape(
                scores.shape[-2:], (prompts, completions), "scores", "(prompts, completions) in the last two axes"
            )
            if scores.shape[0] == 0:
                raise ValueError(f"scores: shape {scores.shape} found; at least one parameter draw is needed")
        if ids is not None:
            ids = tuple(ids.tolist() if isinstance(ids, np.ndarray) else ids)
            if len(ids) != prompts:
                raise ValueError(f"ids: {len(ids)} found; expected one per prompt, {prompts}")
            check_different(
                ids, "ids", "an id names one prompt, in pairs and in label tasks; give every prompt its own"
            )

        exists = jnp.ones((prompts, completions), bool) if mask is None else jnp.asarray(mask)
        most = jnp.max(jnp.sum(exists, axis=1))  # a tracer inside of jit, even where all arguments are constants
        traced = _arrays.is_traced(features, scores, most)
        partial = mask is not None and (traced or not bool(np.all(mask)))
        if not traced and int(most) < 2:
            raise ValueError(
                "mask: no prompt has two completions, so there is no pair to compare; sample at least two per prompt"
            )
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, which is refused below
            features = _on_device(_rounded_late(features, mask))
            scores = None if scores is None else _on_device(scores)
        if not traced:
            axes = ("prompt", "completion", "dimension")
            _checks.finite(features, "features", exists[..., None] if partial else None, axes)
            if scores is not None:
                _checks.finite(scores, "scores", exists if partial else None, ("draw", *axes)[-scores.ndim - 1 : -1])
        if partial:  # zeroed because 0 x NaN is NaN
            features = jnp.where(exists[..., None], features, 0)
            scores = None if scores is None else jnp.where(exists, scores, 0)
        flip = None if flip is None else as_flips(flip, exists)
        for name, value in zip((*LEAVES, "ids"), (features, scores, exists, flip, ids), strict=True):
            object.__setattr__(self, name, value)

    def tree_flatten_with_keys(self):
        return tuple((jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in LEAVES), self.ids

    @classmethod
    def tree_unflatten(cls, ids, leaves):
        pool = object.__new__(cls)  # never validates: transformations unflatten with placeholders
        for name, value in zip((*LEAVES, "ids"), (*leaves, ids), strict=True):
            object.__setattr__(pool, name, value)
        return pool

    def __repr__(self) -> str:
        draws = "" if self.num_draws is None else f", draws={self.num_draws}"
        return f"CompletionPool(prompts={self.num_prompts}, completions={self.completions}, dim={self.dim}{draws})"

    def without_ids(self) -> CompletionPool:
        """The same pool without names of prompts: names are static, so that in jit other names are another program."""
        return CompletionPool.tree_unflatten(None, tuple(getattr(self, name) for name in LEAVES))

    @property
    def num_prompts(self) -> int:
        """P, masked-out and single-completion prompts included."""
        return self.features.shape[-3]

    @property
    def completions(self) -> int:
        """K, the number of completion slots per prompt."""
        return self.features.shape[-2]

    @property
    def dim(self) -> int:
        """d, the feature dimension."""
        return self.features.shape[-1]

    @property
    def num_draws(self) -> int | None:
        """R, the number of parameter draws in scores; None where scores have no such axis."""
        return self.scores.shape[0] if self.scores is not None and self.scores.ndim == 3 else None


def _on_device(array: Any) -> Array:
    """The array on the device. A NumPy array is copied once, so that later changes to it do not reach the pool."""
    return array if isinstance(array, jax.Array) else jax.device_put(array, may_alias=False)


def _rounded_late(features: Any, mask: Any) -> Any:
    """Float64 NumPy features that will become float32: less a common offset of each prompt, where float32 lacks digits.

    The offset of a column is the (lower) median over existing completions, so that one far completion does not cost the
    others their digits, and lattices stay lattices. Columns without an offset to speak of, prompts whose features are
    float32 numbers, and other arrays stay as they are.
    """
    if not isinstance(features, np.ndarray) or features.dtype != np.float64 or jnp.result_type(float) == jnp.float64:
        return features
    exists = np.ones(features.shape[:2], bool) if mask is None or _arrays.is_traced(mask) else np.asarray(mask)
    rounded = np.empty(features.shape, np.float32)
    length = max(1, _arrays.CHUNK_ENTRIES // (features.shape[1] * features.shape[2]))
    for start in range(0, len(features), length):
        part, there = features[start : start + length], exists[start : start + length, :, None]
        cast = part.astype(np.float32)
        lossy = (there & np.isfinite(part) & (cast != part)).any(axis=(1, 2))
        lossy &= (np.isfinite(part) | ~there).all(axis=(1, 2))
        if lossy.any():
            cast[lossy] = _without_offsets(part[lossy], there[lossy])
        rounded[start : start + length] = cast
    return rounded


def _without_offsets(rows: Float[np.ndarray, "p k d"], there: Bool[np.ndarray, "p k 1"]) -> Float[np.ndarray, "p k d"]:
    """Rows less the median of every column of a prompt that is FAR times the median deviation from it."""
    count = there.sum(axis=1, keepdims=True)
    ordered = np.sort(np.where(there, rows, np.inf), axis=1)
    offset = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=1)
    offset = np.where(np.isfinite(offset), offset, 0)
    deviations = np.sort(np.where(there, np.abs(rows - offset), np.inf), axis=1)
    typical = np.take_along_axis(deviations, np.minimum(count // 2, rows.shape[1] - 1), axis=1)
    return np.where(there, rows - np.where(np.abs(offset) > FAR * typical, offset, 0), 0)


def centred_features(pool: CompletionPool, dtype: Any = None) -> Float[Array, "p k d"]:
    """Features minus their mean over the existing completions of the prompt; masked slots are zero.

    `dtype` defaults to float32 (float64 for float64 features); the mean is taken in that dtype.
    """
    return centred(pool.features.astype(dtype or _arrays.compute_dtype(pool.features.dtype)), pool.mask)


def pair_slot(i: Any, j: Any, completions: int) -> Any:
    """Slot i K + j of pair (i, j) within its prompt. (prompt, slot) names a pair; one flat int32 would overflow."""
    return i * completions + j


def slot_pair(slot: Any, completions: int) -> tuple[Any, Any]:
    """Inverse of `pair_slot`: (i, j) of a slot."""
    return slot // completions, slot % completions


@jax.jit
def _first_copies(features, mask):
    return first_copies(_bare(features, mask))


def first_copies(pool: CompletionPool) -> Int[Array, "p k"]:
    """Index of the first completion of the prompt with bit-identical features; -1 in masked slots.

    Pairs of copies have z = 0 and are no candidates. Rows are compared by two independent 32-bit hashes of their bits
    (-0 counted as +0), so the cost is P K d integer operations and P K^2 comparisons, and no pair is materialised.
    Two different rows of one prompt collide with probability about 2^-64.
    """
    completions = pool.completions

    def chunk(part):
        features, mask = part
        keys = _row_hashes(features)
        same = jnp.all(keys[:, :, None, :] == keys[:, None, :, :], axis=-1) & mask[:, :, None] & mask[:, None, :]
        first = jax.lax.argmax(same, 2, jnp.int32)  # `jnp.argmax` in a float64 scope warns under the caller's jit
        return jnp.where(mask, first, -1)

    length = _arrays.chunk_length(pool.num_prompts, completions, pool.dim)
    return _arrays.map_chunks(chunk, (pool.features, pool.mask), length)


def _row_hashes(features: Float[Array, "p k d"]) -> Int[Array, "p k 2"]:
    unsigned = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[features.dtype.itemsize]
    features = jnp.where(features == 0, 0, features)  # -0 to +0; XLA folds the shorter `features + 0` away
    bits = jax.lax.bitcast_convert_type(features, unsigned).astype(jnp.uint32)
    bits = bits.reshape(*features.shape[:2], -1)
    constants = np.random.default_rng(20260619).integers(0, 2**32, (2, 2, bits.shape[-1]), dtype=np.uint32)
    hashes = []
    for offset, factor in constants[:, :, None, None]:  # mixed before summing: low bits of short floats are all zero
        mixed = (bits ^ jnp.asarray(offset)) * np.uint32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
        mixed = (mixed ^ (mixed >> 16)) * jnp.asarray(factor | 1)
        hashes.append(jnp.sum(mixed, axis=-1, dtype=jnp.uint32))
    return jnp.stack(hashes, axis=-1)


def candidate_pairs(copies: Int[Array, "p k"]) -> Bool[Array, "p k k"]:
    """True at (p, i, j), i < j, where both completions exist and their features differ."""
    index = jnp.arange(copies.shape[-1])
    upper = index[:, None] < index[None, :]
    exists = copies >= 0
    differ = copies[..., :, None] != copies[..., None, :]
    return jnp.broadcast_to(upper, differ.shape) & differ & exists[..., :, None] & exists[..., None, :]


def candidate_counts(copies: Int[Array, "p k"]) -> np.ndarray:
    """(P,) number of candidate pairs of each prompt, float64 on the host."""
    return np.asarray(_candidate_counts(copies), dtype=np.float64)


@jax.jit
def _candidate_counts(copies):
    length = _arrays.chunk_length(copies.shape[0], copies.shape[1], copies.shape[1])
    return _arrays.map_chunks(lambda part: jnp.sum(candidate_pairs(part), axis=(1, 2)), copies, length)


def second_moment(pool: CompletionPool) -> Float[np.ndarray, "d d"]:
    """C = mean over existing completions of phi phi^T, phi centred within the prompt; float64 on the host.

    For pools without masked slots it equals `policy_target(pool)`. Accumulated in float64 whatever the stored dtype.

    Raises:
        TypeError: a traced pool: the result is a NumPy array.
    """
    _checks.concrete("second_moment", pool)
    arrays = _arrays.replicated((pool.features, pool.mask))
    with _arrays.float64():
        return np.asarray(_second_moment(*arrays))


@jax.jit
def _second_moment(features, mask):
    prompts, completions, dim = features.shape

    def chunk(part):
        rows = centred_features(_bare(*part), jnp.float64)
        return _arrays.contract("pkd,pke->de", rows, rows)

    length = _arrays.chunk_length(prompts, completions, dim)
    return _arrays.sum_chunks(chunk, (features, mask), length) / jnp.sum(mask, dtype=jnp.float64)


def _bare(features, mask) -> CompletionPool:
    return CompletionPool.tree_unflatten(None, (features, None, mask, None))


def restrict_to_range(pool: CompletionPool, rtol: float = 1e-10) -> tuple[CompletionPool, Float[np.ndarray, "d r"]]:
    """Express a pool in an orthonormal basis B of the range of its centred second moment C (see `second_moment`).

    Real features are often rank-deficient (dead dimensions), and then every information matrix without a prior is
    singular. The new features are (phi - prompt mean) B, so every difference becomes B^T z with the same norm; carry a
    target or prior over as B^T H B. Directions are dropped in which C, scaled to a unit diagonal, has an eigenvalue of
    at most rtol times the largest: a column in small units is not missing, and is kept. A column that differs within
    prompts by less than its dtype resolves is missing: what is left of it is rounding.

    Args:
        pool: the pool, concrete (not inside jit: the rank is a shape).
        rtol: relative threshold on the eigenvalues of the scaled C, which are computed in float64.

    Returns:
        The restricted pool (float32, or float64 where the features are), and B, (d, r) float64, columns by descending
        eigenvalue. Completions with identical features stay bit-identical.

    Raises:
        ValueError: all completions of every prompt are identical, so the range is empty; rtol outside [0, 1).
    """
    _checks.concrete("restrict_to_range", pool)
    if not 0 <= rtol < 1:
        raise ValueError(f"rtol={rtol:g}: must be in [0, 1); it is relative to the largest eigenvalue")
    pool = _arrays.replicated(pool)
    if not candidate_counts(_first_copies(pool.features, pool.mask)).any():  # C itself would be rounding, not zero
        raise ValueError(
            "features: the completions of every prompt are identical (range of dimension 0), so no pair carries "
            "information; use features that tell completions apart"
        )
    C = second_moment(pool)
    alive = np.diagonal(C) > _resolution(pool) ** 2
    alive |= ~alive.any()
    basis = _range_basis(np.where(alive[:, None] & alive, C, 0), rtol)
    return in_basis(pool, basis), basis


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
    pool, dtype = _arrays.replicated(pool), _arrays.compute_dtype(pool.features.dtype)
    with _arrays.float64():
        projected = _project(pool.features, pool.mask, jnp.asarray(basis), dtype=dtype)
    return CompletionPool.tree_unflatten(pool.ids, (projected, pool.scores, pool.mask, pool.flip))


@jax.jit(static_argnames="dtype")
def _project(features, mask, basis, *, dtype):
    prompts, completions, dim = features.shape

    def chunk(part):
        piece = _bare(*part)
        rows = _arrays.contract("pkd,dr->pkr", centred_features(piece, jnp.float64), basis).astype(dtype)
        first = jnp.maximum(first_copies(piece), 0)  # the product may round equal rows differently
        return jnp.where(piece.mask[..., None], jnp.take_along_axis(rows, first[..., None], axis=1), 0)

    return _arrays.map_chunks(chunk, (features, mask), _arrays.chunk_length(prompts, completions, dim))
