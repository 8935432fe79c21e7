"""Information matrices and sensitivities of all pairs of a pool, without ever forming the pairs.

Pairs are the edges of one small graph per prompt. With Phi_p the centred (K, d) features and W_p the symmetric (K, K)
weights n c of a prompt,

    information    A = sum_p Phi_p^T L_p Phi_p,  L_p = diag(W_p 1) - W_p  (the weighted graph Laplacian)
    sensitivities  b_ij = c_ij (Q_ii + Q_jj - 2 Q_ij),  Q_p = Phi_p G Phi_p^T

at 2 P K d^2 + 2 P K^2 d floating-point operations each instead of P K^2 d^2 pair by pair. All are pure,
traceable functions; chunking over prompts bounds the scratch memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign._centring import centred
from jaxdesign._linalg import gram_sensitivities, symmetric_product
from jaxdesign._pairs import check_pairs
from jaxdesign.pool import CompletionPool, centred_features, flips_of
from jaxdesign.residual import Spread, check_held, listed_shrinkage, shrinkage


def margin_information(margin: Float[Array, ...], flip: Float[Array, ...] | float = 0.0) -> Float[Array, ...]:
    """Fisher information of one Bradley-Terry label about its margin u.

    c0 = sigma'(u) = sigma(u) sigma(-u); 1/4 at u = 0. With a probability `flip` = eps that the label is reversed,
    p = (1 - 2 eps) sigma(u) + eps and c = [(1 - 2 eps) sigma'(u)]^2 / (p (1 - p)): (1 - 2 eps)^2 / 4 at u = 0, and
    at most that elsewhere; see `reversed_information`.
    """
    info = jax.nn.sigmoid(margin) * jax.nn.sigmoid(-margin)
    if isinstance(flip, int | float) and flip == 0:
        return info
    return reversed_information(*_arrays.aligned(info, jnp.asarray(flip)))


def reversed_information(info: Float[Array, ...], flip: Float[Array, ...]) -> Float[Array, ...]:
    """c from c0, the information of a label that is not reversed: c0 r / (r + eps (1 - eps) / c0), r = (1 - 2 eps)^2.

    The same as above because p (1 - p) = r c0 + eps (1 - eps): nothing cancels, c = c0 to the last bit where eps is 0,
    and derivatives stay finite at large margins. c0 is taken as no less than about the root of the smallest number in
    the division: c is then below that number's size whatever it is.
    """
    kept = ((1 - 2 * flip) ** 2).astype(info.dtype)  # rounded after 1 - 2 eps, which cancels
    least = 2.0 ** (int(jnp.finfo(info.dtype).minexp) // 2)
    return info * (kept / (kept + (flip * (1 - flip)).astype(info.dtype) / jnp.maximum(info, least)))


class Margins(NamedTuple):
    """All that label information depends on, prompts first, to be cut into chunks beside the features.

    One form whatever the pool's is, with or without draws and flips; scores are None where all margins are 0, because
    sigma' of every pair would take as long as its sensitivity, and the spread is None where features explain all.
    """

    scores: Float[Array, "p r k"] | None
    flip: Float[Array, "p 1 1"] | Float[Array, "p k k"]
    spread: Spread | None = None  # rows of the completions, or worked out for all pairs

    @property
    def draws(self) -> int:
        """R; 1 without scores."""
        return 1 if self.scores is None else self.scores.shape[-2]


def margins_of(pool: CompletionPool) -> Margins:
    """The margins of a pool. Traceable."""
    scores, flip = pool.scores, flips_of(pool)
    if scores is not None:
        scores = jnp.where(pool.mask, scores.reshape(-1, *pool.mask.shape), 0)
        scores = jnp.moveaxis(scores, 0, 1)
    return Margins(scores, flip.reshape(*flip.shape, *(1, 1)[: 3 - flip.ndim]), pool.residual)


def prompt_label_information(
    margins: Margins | None, dtype: Any
) -> Float[Array, "r p k k"] | Float[Array, "1 p 1 1"] | Float[Array, ""]:
    """c_ij = sigma'(u_i - u_j) for all completions of each prompt, less by flips and residuals; 1/4 without margins.

    Margins are taken in the dtype of the scores (at least `dtype`) and cast then: where scores form far clusters, a
    cast, or a mean taken off, before the difference would round margins within a cluster away.
    """
    if margins is None:
        return jnp.asarray(0.25, dtype)
    scores, flip = jax.tree.map(lambda a: a.astype(np.promote_types(a.dtype, dtype)), margins[:2])
    shrunk = None if margins.spread is None else shrinkage(margins.spread, dtype)
    if scores is None:
        info = ((1 - 2 * flip) ** 2 / 4).astype(dtype)[None]
        return info if shrunk is None else info * shrunk.scale[None]
    scores = jnp.moveaxis(scores, 1, 0)
    margin = (scores[..., :, None] - scores[..., None, :]).astype(dtype)
    if shrunk is None:
        return margin_information(margin, flip)
    return margin_information(margin / shrunk.shrink[None], flip) * shrunk.scale[None]


def listed_label_information(margins: Margins | None, pairs: Int[Array, "s 3"]) -> Float[Array, "r s"]:
    """c of listed pairs with an axis of draws, R = 1 without; float64 in a float64 scope. Traceable."""
    p, i, j = pairs.T
    dtype = jnp.result_type(float)
    if margins is None:
        return jnp.full((1, len(pairs)), 0.25, dtype)
    scores, flip = jax.tree.map(lambda a: a.astype(np.promote_types(a.dtype, dtype)), margins[:2])
    flip = flip[p, 0, 0] if flip.shape[1] == 1 else flip[p, i, j]
    shrunk = None if margins.spread is None else listed_shrinkage(margins.spread, pairs, dtype)
    if scores is None:
        info = ((1 - 2 * flip) ** 2 / 4).astype(dtype)[None]
        return info if shrunk is None else info * shrunk.scale[None]
    margin = (scores[p, :, i] - scores[p, :, j]).T.astype(dtype)
    if shrunk is None:
        return margin_information(margin, flip)
    return margin_information(margin / shrunk.shrink[None], flip) * shrunk.scale[None]


def prompt_forms(
    products: Iterable[tuple[Float[Array, "p k d"], Float[Array, "p k d"]]],
    margins: Margins | None,
    gram: Callable[..., Float[Array, "p k k"]] | None = None,
) -> list[Float[Array, "p k k"]]:
    """c_ij z_ij^T G z_ij of all pairs of each prompt: the one place where sensitivities of dense pairs come from.

    `products` are the two factors of Phi G Phi^T, one pair of arrays per draw: (Phi F, Phi F) with F F^T = G, which
    keeps the result >= 0 up to rounding and squares away half of the condition number, or (Phi G, Phi) for a G that has
    no factor. A list, so that a sum over draws holds one at a time. `gram`: how forms are read off the factors, in
    float32; None: `gram_sensitivities`, in their dtype.
    """
    forms = []
    for draw, (left, right) in enumerate(products):
        one = margins
        if margins is not None and margins.scores is not None:
            one = margins._replace(scores=margins.scores[:, draw : draw + 1])
        info = prompt_label_information(one, left.dtype if gram is None else jnp.float32)
        forms.append((info if info.ndim == 0 else info[0]) * (gram or gram_sensitivities)(left, right))
    return forms


def laplacian_information(
    features: Float[Array, "p k d"],
    weights: Float[Array, "... p k k"],
    label_info: Float[
        Array,
        (
            ...  # p #k #k
        ),
    ]
    | Float[Array, ""],
) -> Float[Array, "... d d"]:
    """sum_p Phi_p^T L_p Phi_p for symmetric per-pair weights times label information (one draw per leading index)."""
    labels, info = _arrays.aligned(weights, label_info)
    weights = jnp.where(jnp.eye(weights.shape[-1], dtype=bool), 0, labels * info)
    degrees, spread = _arrays.aligned(jnp.sum(weights, axis=-1)[..., None], features)
    laplacian_rows = degrees * spread - _arrays.contract("...pij,pjd->...pid", weights, features)
    rows = features.reshape(-1, features.shape[-1])
    return symmetric_product(laplacian_rows.reshape(*weights.shape[:-3], *rows.shape), rows)


def pair_information(pool: CompletionPool, weights: Float[AnyArray, "p k k"]) -> Float[Array, "*r d d"]:
    """Information of an allocation given as dense weights: A = sum_p sum_{i<j} w_ij c_ij z_ij z_ij^T, without a prior.

    Args:
        pool: P prompts, K completions, dimension d; its scores and flips give the label information c (1/4 without).
        weights: (P, K, K) labels per pair, symmetric; the diagonal and masked slots are ignored.

    Returns:
        (d, d), or (R, d, d) for scores with R draws. float32 (float64 for float64 features): information per squared
        unit of beta theta.

    Raises:
        ValueError: weights of another shape.

    Numerics: features centred within prompts, products at full precision (`lax.Precision.HIGHEST`).
    Complexity: 2 P K d^2 + 2 P K^2 d floating-point operations for each draw, scratch bounded by the chunk.
    Source: the graph-Laplacian identity sum_{i<j} w z z^T = Phi^T L Phi; checked by tests/test_information.py, pair by
    pair.
    """
    shape = (pool.num_prompts, pool.completions, pool.completions)
    _checks.same_shape(jnp.shape(weights), shape, "weights", "(P, K, K), symmetric")
    pool, weights = _arrays.replicated((pool, weights))
    found = dense_information(pool, jnp.asarray(weights, _arrays.compute_dtype(pool.features.dtype)))
    return found if pool.num_draws else found[0]


@jax.jit
def dense_information(pool: CompletionPool, weights: Float[Array, "p k k"]) -> Float[Array, "r d d"]:
    """`pair_information` in the dtype of the weights, with an axis of draws, R = 1 without; unchecked."""

    def chunk(part):
        features, mask, dense, margins = part
        rows = centred(features.astype(dense.dtype), mask)
        dense = jnp.where(mask[:, :, None] & mask[:, None, :], dense, 0)
        return laplacian_information(rows, dense[None], prompt_label_information(margins, rows.dtype))

    length = _arrays.chunk_length(*pool.features.shape)
    return _arrays.sum_chunks(chunk, (pool.features, pool.mask, weights, margins_of(pool)), length)


def pair_sensitivities(pool: CompletionPool, G: Float[AnyArray, "*r d d"]) -> Float[Array, "p k k"]:
    """Sensitivities of all pairs: b_ij = c_ij z_ij^T G z_ij, averaged over draws where the pool has them.

    Args:
        pool: P prompts, K completions, dimension d.
        G: symmetric (d, d), minus the gradient of the criterion at A; (R, d, d) for scores with R draws.

    Returns:
        (P, K, K) symmetric, 0 on the diagonal and where a completion is masked: decrease of the criterion per label.

    Raises:
        ValueError: G of another shape.

    Numerics: Gram form on centred features at full precision; relative error about 1e-6 on large entries in float32,
    larger on entries far below the largest.
    Complexity: 2 P K d^2 + 2 P K^2 d floating-point operations for each draw.
    Source: Q_ii + Q_jj - 2 Q_ij; checked by tests/test_information.py, pair by pair.
    """
    pool, G = _arrays.replicated((pool, G))
    dims = (pool.dim, pool.dim)
    G = jnp.asarray(G, _arrays.compute_dtype(pool.features.dtype))
    if G.shape not in (dims, (pool.num_draws or 1, *dims)):
        raise ValueError(f"G: shape {G.shape} found; expected {dims}, or (draws, d, d) for scores with draws")
    return dense_sensitivities(pool, jnp.broadcast_to(G, (pool.num_draws or 1, *dims)))


@jax.jit(static_argnames="dtype")
def dense_sensitivities(pool: CompletionPool, G: Float[Array, "r d d"], *, dtype: Any = None) -> Float[Array, "p k k"]:
    """`pair_sensitivities` for G with an axis of draws, in a dtype; unchecked."""
    features = centred_features(pool, dtype)
    exists = pool.mask[:, :, None] & pool.mask[:, None, :] & ~jnp.eye(pool.completions, dtype=bool)[None]

    def chunk(part):
        rows, margins, allowed = part
        forms = prompt_forms([(_arrays.contract("pkd,de->pke", rows, g), rows) for g in G], margins)
        total = jnp.triu(sum(forms) / len(forms), 1)  # mirrored: fusion may round (i, j) and (j, i) differently
        total = total + jnp.swapaxes(total, 1, 2)
        return jnp.where(allowed, total, 0)

    length = _arrays.chunk_length(*features.shape)
    return _arrays.map_chunks(chunk, (features, margins_of(pool), exists), length)


def pair_differences(pool: CompletionPool, pairs: Int[AnyArray, "s 3"]) -> Float[Array, "s d"]:
    """z = phi_pi - phi_pj of a sparse list of pairs (p, i, j), gathered from the stored features.

    Args:
        pool: the pool.
        pairs: (S, 3) integers (p, i, j); not checked.

    Returns:
        (S, d) float32 (float64 for float64 features, or inside a float64 scope: there the difference of the stored
        values is exact). Traceable.

    Raises: nothing of its own.

    Source: derived; checked by tests/test_information.py.
    """
    dtype = np.promote_types(_arrays.compute_dtype(pool.features.dtype), jnp.result_type(float))
    pool, pairs = _arrays.replicated((pool, pairs))
    p, i, j = jnp.asarray(pairs).T
    return pool.features[p, i].astype(dtype) - pool.features[p, j].astype(dtype)


def label_information(pool: CompletionPool, pairs: Int[AnyArray, "s 3"]) -> Float[Array, "*r s"]:
    """Fisher information of one label of each pair: sigma'(u_pi - u_pj), 1/4 without scores, reduced by label noise.

    Args:
        pool: its scores give the margins, its flips the noise (see `margin_information`).
        pairs: (S, 3) rows (p, i, j).

    Returns:
        (S,), or (R, S) for scores with R draws; per squared unit of beta theta. float32 (float64 with x64).

    Raises:
        ValueError: pairs that are not (S, 3) or point outside of the pool (checked outside of jit only).

    Source: Bradley and Terry 1952, doi:10.2307/2334029, with flips derived; checked by tests/test_information.py and
    tests/test_information_flips.py.
    """
    check_pairs(pool, pairs)
    pool, pairs = _arrays.replicated((pool, pairs))
    found = draw_label_information(pool, jnp.asarray(pairs))
    return found if pool.num_draws else found[0]


def pair_flips(pool: CompletionPool, pairs: Int[AnyArray, "s 3"]) -> Float[Array, " s"] | None:
    """flip of a sparse list of pairs; None where the pool has none. Traceable; indices are not checked."""
    if pool.flip is None:
        return None
    flip, pairs = _arrays.replicated((pool.flip, pairs))
    p, i, j = jnp.asarray(pairs).T
    return flip[p] if flip.ndim == 1 else flip[p, i, j]


def row_forms(rows: Float[Array, "s d"], factors: Float[Array, "r d q"]) -> Float[Array, "r s"]:
    """|z F|^2 of listed pairs, per draw: sensitivities are the mean of these times label information."""
    return jnp.stack([jnp.sum(jnp.matmul(rows, factor, precision=_arrays.HIGHEST) ** 2, axis=-1) for factor in factors])


def sparse_information(differences: Float[Array, "s d"], weights: Float[Array, "*r s"]) -> Float[Array, "*r d d"]:
    """sum_s w_s z_s z_s^T of a sparse list of pairs; weights = labels times label information, one row per draw."""
    weights, rows = _arrays.aligned(weights[..., None], differences)
    return symmetric_product(weights * rows, differences)


def held_information(pool: CompletionPool, pairs: Any, labels: Any = None) -> Float[Array, "*r d d"]:
    """Information of labels that are already there: sum_e n_e c_e z_e z_e^T, to be passed as `prior` (plus a ridge).

    Args:
        pool: the pool; its scores and flips give c.
        pairs: (S, 3) rows (p, i, j) labelled so far; a row for each label, or
        labels: (S,) labels of each; None: one each.

    Returns:
        (d, d), or (R, d, d) for scores with R draws: float64 NumPy; where an argument is traced, a JAX array in its
        default precision, and the values of traced arguments are not checked.

    Raises:
        ValueError: pairs outside of the pool, labels of another length, negative or not finite, repeats of pairs with
            a residual.

    Numerics: in float64 from the stored features, traced or not.
    Source: derived; checked by tests/budget/test_quotas.py.
    """
    pool, pairs = _arrays.replicated((pool, pairs))
    pairs = pairs if _arrays.is_traced(pairs) else np.asarray(pairs)
    check_pairs(pool, pairs)
    pairs = pairs.astype(np.int32)  # a copy: JAX mistakes one int64 array that is a constant in and out of a scope
    if labels is None:
        labels = np.ones(len(pairs))
    elif not _arrays.is_traced(labels):
        labels = np.asarray(labels, dtype=np.float64)
    _checks.same_shape(labels.shape, pairs.shape[:1], "labels", "one number per pair")
    if not _arrays.is_traced(labels) and not (np.isfinite(labels) & (labels >= 0)).all():
        row = int(np.argmin(np.isfinite(labels) & (labels >= 0)))
        raise ValueError(f"labels: {labels[row]:g} at row {row}; labels must be finite and at least 0")
    check_held(pool.residual, pairs, labels)
    default = jnp.result_type(float)
    with _arrays.float64():
        label_info, counts = _arrays.aligned(label_information(pool, pairs), jnp.asarray(labels, jnp.float64))
        found = sparse_information(pair_differences(pool, pairs), label_info * counts)
        return _arrays.told((found + jnp.swapaxes(found, -1, -2)) / 2, default)


def draw_label_information(pool: CompletionPool, pairs: Int[Array, "s 3"]) -> Float[Array, "r s"]:
    """Label information with an explicit axis of draws, R = 1 without; traceable."""
    return listed_label_information(margins_of(pool), pairs)
