"""CompletionPool: the completions among which pairs are chosen.

A pool holds one feature row per completion, never one per pair. A pair is `(p, i, j)` with `i < j`, two completions of
the same prompt; its difference is z = phi_pi - phi_pj, which does not change when a constant is added to all rows of a
prompt. Kernels therefore work on features centred within prompts: real embeddings share most of their norm within a
prompt, and without centring q_ii + q_jj - 2 q_ij cancels in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxdesign import _arrays, _checks
from jaxdesign._centring import centred
from jaxdesign._checks import check_different
from jaxdesign.residual import Shrinkage, Spread, check_rows, checked_residual, residual_rows, shrinkage

FAR = 8.0  # common offset over the spread of a column from which float64 features lose digits worth keeping
LEAVES = ("features", "scores", "mask", "flip", "residual")


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
        ids: one name per prompt, all different. Names live on the host: they are no part of the pytree, so that other
            names are no other program, and a pool that comes out of jit, vmap or `jax.tree.map` has none.
        flip: probability that a label is reversed: a number, one per prompt (P,), or one per pair (P, K, K), symmetric,
            anything where there is no pair; common to all draws. At least 0 and below 1/2. None: no noise. See
            `information.margin_information` for what it costs.
        residual: a `Residual`, see `residual_of`: variances of margins that features do not explain, by which a label
            is worth less. Kept as rows (P, K, r), which subsets and other bases of the pool keep. None: none.

    Raises:
        TypeError: features, scores or flip of a dtype that is not floating, a mask that is not boolean, a residual of
            another kind.
        ValueError: wrong rank or shapes, an empty pool, NaN or inf in an existing completion, no prompt with two
            completions, ids that repeat, flip outside of [0, 1/2) or not symmetric, a residual of another dimension,
            not finite, or of variances that are not. Values are only checked outside of jit. Prompts with fewer than
            two completions are skipped by everything and keep their index.

    Source: the implicit reward of DPO (arXiv 2305.18290) for scores; checked by tests/test_pool.py.
    """

    features: Float[Array, "p k d"]
    scores: Float[Array, "*r p k"] | None
    mask: Bool[Array, "p k"]
    flip: Float[Array, " p"] | Float[Array, "p k k"] | None
    residual: Spread | None
    ids: tuple | None

    def __init__(
        self,
        features: Any,
        scores: Any = None,
        mask: Any = None,
        ids: Sequence[Any] | np.ndarray | None = None,
        flip: Any = None,
        residual: Spread | None = None,
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
            features = on_device(rounded_late(features, mask))
            scores = None if scores is None else on_device(scores)
        if not traced:
            axes = ("prompt", "completion", "dimension")
            _checks.finite(features, "features", exists[..., None] if partial else None, axes)
            if scores is not None:
                _checks.finite(scores, "scores", exists if partial else None, ("draw", *axes)[-scores.ndim - 1 : -1])
        if partial:  # zeroed because 0 x NaN is NaN
            features = jnp.where(exists[..., None], features, 0)
            scores = None if scores is None else jnp.where(exists, scores, 0)
        flip = None if flip is None else as_flips(flip, exists)
        residual = residual_rows(checked_residual(residual, dim, (prompts, completions)), features, exists)
        check_rows(residual)
        for name, value in zip((*LEAVES, "ids"), (features, scores, exists, flip, residual, ids), strict=True):
            object.__setattr__(self, name, value)

    def tree_flatten_with_keys(self):
        return tuple((jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in LEAVES), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return unchecked_pool(*leaves)  # transformations unflatten with placeholders

    def __getstate__(self):
        return {name: getattr(self, name) for name in (*LEAVES, "ids")}  # what is kept with it can be made again

    def __repr__(self) -> str:
        draws = "" if self.num_draws is None else f", draws={self.num_draws}"
        return f"CompletionPool(prompts={self.num_prompts}, completions={self.completions}, dim={self.dim}{draws})"

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


def on_device(array: Any) -> Array:
    """The array on the device; of a NumPy array a copy, which later changes to it do not reach.

    `device_put` may share memory with what it is given, whatever `may_alias` says.
    """
    return array if isinstance(array, jax.Array) else jax.device_put(np.array(array))


def rounded_late(features: Any, mask: Any) -> Any:
    """Float64 NumPy features that will become float32: less a common offset of each prompt, where float32 lacks digits.

    The offset of a column is the (lower) median over existing completions, so that one far completion does not cost the
    others their digits, and lattices stay lattices. Columns without an offset to speak of, prompts whose features are
    float32 numbers, and other arrays stay as they are.
    """
    if not isinstance(features, np.ndarray) or features.dtype != np.float64 or jnp.result_type(float) == jnp.float64:
        return features
    exists = np.ones(features.shape[:2], bool) if mask is None or _arrays.is_traced(mask) else np.asarray(mask)
    rounded = np.empty(features.shape, np.float32)
    length = max(1, _arrays.chunk_entries() // (features.shape[1] * features.shape[2]))
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


def kept(pool: CompletionPool, name: Any, make: Callable[[], Any]) -> Any:
    """`make()`, made once and kept with the pool, which never changes; made anew where the pool is traced."""
    if _arrays.is_traced(pool):
        return make()
    cache = pool.__dict__.setdefault("_kept", {})
    if name not in cache:
        cache[name] = make()
    return cache[name]


def centred_features(pool: CompletionPool, dtype: Any = None) -> Float[Array, "p k d"]:
    """Features minus their mean over the existing completions of the prompt; masked slots are zero.

    `dtype` defaults to float32 (float64 for float64 features); the mean is taken in that dtype.
    """
    return centred(pool.features.astype(dtype or _arrays.compute_dtype(pool.features.dtype)), pool.mask)


def bare_pool(
    features: Any, mask: Any, scores: Any = None, flip: Any = None, residual: Spread | None = None
) -> CompletionPool:
    """Completions without names, unchecked."""
    return unchecked_pool(features, scores, mask, flip, residual)


def with_features(pool: CompletionPool, features: Any) -> CompletionPool:
    """The same completions with other features, unchecked: scores, mask, flips, residuals and names stay."""
    return unchecked_pool(features, pool.scores, pool.mask, pool.flip, pool.residual, pool.ids)


def flips_of(pool: CompletionPool) -> Float[Array, " p"] | Float[Array, "p k k"]:
    """The flips as an array, zeros where no label is reversed: programs are then the same with and without."""
    return jnp.zeros(pool.num_prompts, jnp.float32) if pool.flip is None else pool.flip


def with_flip(pool: CompletionPool, flip: Any) -> CompletionPool:
    """The same completions with other flips, unchecked."""
    return unchecked_pool(pool.features, pool.scores, pool.mask, flip, pool.residual, pool.ids)


def with_shrinkage(pool: CompletionPool) -> CompletionPool:
    """The same completions with what residuals do worked out for all pairs, for what asks for it again and again."""
    if pool.residual is None or isinstance(pool.residual, Shrinkage):
        return pool
    length = _arrays.chunk_length(*pool.features.shape)
    dtype = _arrays.compute_dtype(pool.features.dtype)
    found = _arrays.map_chunks(lambda rows: shrinkage(rows, dtype), pool.residual, length)
    return unchecked_pool(pool.features, pool.scores, pool.mask, pool.flip, found, pool.ids)


def prompts_of(pool: CompletionPool, index: Any) -> CompletionPool:
    """Some prompts of a pool, without names; traceable."""
    scores = None if pool.scores is None else pool.scores[..., index, :]
    flip = None if pool.flip is None else pool.flip[index]
    residual = jax.tree.map(lambda rows: rows[index], pool.residual)
    return unchecked_pool(pool.features[index], scores, pool.mask[index], flip, residual)


def replicated_pool(pool: CompletionPool) -> CompletionPool:
    """`_arrays.replicated`, names kept."""
    return unchecked_pool(**_arrays.replicated({name: getattr(pool, name) for name in LEAVES}), ids=pool.ids)


def unchecked_pool(
    features: Any, scores: Any, mask: Any, flip: Any, residual: Any = None, ids: tuple | None = None
) -> CompletionPool:
    """A pool of these leaves, whatever they are."""
    pool = object.__new__(CompletionPool)
    for name, value in zip((*LEAVES, "ids"), (features, scores, mask, flip, residual, ids), strict=True):
        object.__setattr__(pool, name, value)
    return pool


def as_flips(flip: Any, exists: Bool[Array, "p k"]) -> Float[Array, " p"] | Float[Array, "p k k"]:
    """`flip` as (P,) or symmetric (P, K, K) on the device, at least float32, 0 where there is no pair.

    Raises:
        TypeError: no floating array. ValueError: another shape; outside of jit also values outside of [0, 1/2), or not
            symmetric.
    """
    if isinstance(flip, int | float) and not isinstance(flip, bool):
        flip = np.float64(flip)
    flip = _checks.as_float_array(flip, "flip")
    prompts, completions = exists.shape
    _checks.rank(flip, (0, 1, 3), "flip", "(), (P,) or (P, K, K)")
    shape = {0: (), 1: (prompts,), 3: (prompts, completions, completions)}[flip.ndim]
    _checks.same_shape(flip.shape, shape, "flip", "(prompts,), or (prompts, completions, completions), as in features")
    flip = on_device(flip)
    paired = exists[:, :, None] & exists[:, None, :] & ~jnp.eye(completions, dtype=bool)[None]
    if flip.ndim < 3:
        paired = jnp.any(paired, axis=(1, 2))
    if not _arrays.is_traced(flip, paired):
        _checks.flips(np.broadcast_to(_arrays.on_host(flip), paired.shape), paired)
    # cleared before anything is computed: what is no pair may hold NaN, which `jax_debug_nans` would stop at
    flip = jnp.where(paired, flip, 0).astype(_arrays.compute_dtype(flip.dtype))
    return (flip + jnp.swapaxes(flip, 1, 2)) / 2 if flip.ndim == 3 else flip  # the check lets rounding pass
