"""Quadratic forms of all pairs for Trace, kept in step with A while labels are added one at a time. Traceable.

With v = A^-1 z of the pair just labelled, s = c / (1 + a), M = A^-1 H A^-1, w = M z, t = z^T M z, one label changes

    z_ij^T A^-1 z_ij   by   -s (y_i - y_j)^2,   y = Phi v                                         (Sherman-Morrison)
    z_ij^T M z_ij      by   -2 s (y_i - y_j) (x_i - x_j) + s^2 t (y_i - y_j)^2,   x = Phi w

so a label costs one or two products of the features with a vector and P K^2 elementwise operations, where computing the
forms from scratch costs P K d^2. Stored forms are in the working dtype and drift: `errors` compares with float64.
For criteria other than Trace only the sensitivities c z^T G z are held, and there is no update.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxdesign import _arrays
from jaxdesign._linalg import cholesky_and_inverse, gradient_factors, gram_sensitivities, inverse
from jaxdesign.criteria.protocol import Gains
from jaxdesign.exact.greedy.ties import CLOSED
from jaxdesign.information import margins_of, prompt_label_information
from jaxdesign.pool import CompletionPool, centred_features


class Pairs(NamedTuple):
    """What stays the same from label to label, in the working dtype."""

    rows: Float[Array, "p k d"]  # centred features
    label_info: Float[Array, "r p k k"] | Float[Array, "1 p 1 1"]
    candidates: Bool[Array, "p k k"]


class Forms(NamedTuple):
    """What the gain of a label is made of; None where not needed."""

    inverse: Float[Array, "r d d"]  # A^-1, float64
    sandwich: Float[Array, "r d d"]  # M up to a factor for Trace, G for others
    leverage: Float[Array, "r p k k"] | None  # c z^T A^-1 z for Trace
    target: Float[Array, "r p k k"]  # c z^T M z


class PairForms(NamedTuple):
    """The same for one pair, float64, with the vectors that an update needs."""

    difference: Float[Array, " d"]
    label_info: Float[Array, " r"]
    v: Float[Array, "r d"]
    w: Float[Array, "r d"]
    leverage: Float[Array, " r"]
    target: Float[Array, " r"]


def all_pairs(pool: CompletionPool, candidates: Bool[Array, "p k k"]) -> Pairs:
    """The pool made ready; P K^2 entries of label information for each draw where it differs from pair to pair."""
    rows = centred_features(pool)
    info = prompt_label_information(margins_of(pool), rows.dtype)
    if info.shape[-1] > 1:
        info = jnp.broadcast_to(info, (len(info), *pool.mask.shape, pool.completions))
    return Pairs(rows, info, candidates)


def root(crit) -> Float[Array, "*r d d"] | None:
    """B with B B^T = H (of each draw); None for criteria without a target."""
    if crit.gains is not Gains.TRACE:
        return None
    spectrum, vectors = jnp.linalg.eigh(jnp.asarray(crit.target, jnp.float64))
    return vectors * jnp.sqrt(jnp.maximum(spectrum, 0))[..., None, :]


def from_scratch(
    pairs: Pairs, crit, target_root, matrix: Float[Array, "r d d"], is_open: Bool[Array, "p k k"]
) -> Forms:
    """Forms at A; CLOSED where not `is_open`, for Trace in the target alone: gains b / (1 + a) are then never NaN."""
    inv = inverse(matrix)
    if crit.gains is not Gains.TRACE:
        G = crit.gradient(matrix)
        return Forms(inv, G, None, _dense(pairs, is_open, gradient_factors(G)))
    leverage = _dense(pairs, True, jnp.swapaxes(cholesky_and_inverse(matrix)[1], -1, -2))
    factors = jnp.matmul(inv, target_root, precision=_arrays.HIGHEST)
    value = jnp.mean(jnp.sum(factors * jnp.matmul(matrix, factors, precision=_arrays.HIGHEST), axis=(1, 2)))
    factors = factors / jnp.sqrt(value)  # only ratios of gains matter, and float32 could not hold every M
    return Forms(inv, _arrays.contract("rij,rkj->rik", factors, factors), leverage, _dense(pairs, is_open, factors))


def _dense(pairs, is_open, factors):
    """c |y_i - y_j|^2 with y = phi F for every draw, chunk by chunk."""
    length = _arrays.chunk_length(*pairs.rows.shape)

    def one(factor):
        def chunk(rows):
            y = _arrays.contract("pkd,de->pke", rows, factor.astype(rows.dtype))
            return gram_sensitivities(y, y)

        return _arrays.map_chunks(chunk, pairs.rows, length)

    forms = jnp.stack([one(factor) for factor in factors]) * pairs.label_info
    return jnp.where(is_open, forms, CLOSED)


def gains(forms: Forms) -> Float[Array, "p k k"]:
    """What a label of each pair would gain, CLOSED for closed pairs; up to a factor: Trace b / (1 + a), others b."""
    return jnp.mean(forms.target if forms.leverage is None else forms.target / (1 + forms.leverage), axis=0)


def of_pair(forms: Forms, z: Float[Array, " d"], c: Float[Array, " r"]) -> PairForms:
    """The forms of one pair in float64."""
    v = jnp.matmul(forms.inverse, z, precision=_arrays.HIGHEST)
    w = jnp.matmul(forms.sandwich, z, precision=_arrays.HIGHEST)
    return PairForms(z, c, v, w, c * jnp.sum(v * z[None], axis=1), c * jnp.sum(w * z[None], axis=1))


def errors(forms: Forms, slot, exact: PairForms) -> Float[Array, ""]:
    """Largest relative error of the stored forms of one pair; NaN where they are."""
    found = [
        jnp.max(jnp.abs(stored[(slice(None), *slot)].astype(truth.dtype) - truth) / jnp.maximum(jnp.abs(truth), 1e-300))
        for stored, truth in ((forms.leverage, exact.leverage), (forms.target, exact.target))
        if stored is not None
    ]
    return jnp.max(jnp.stack(found))


def add_label(pairs: Pairs, forms: Forms, exact: PairForms, amount: Float[Array, ""]) -> Forms:
    """Forms after `amount` labels of one pair; 0 leaves everything as it is. Not for criteria without an update."""
    if forms.leverage is None:
        return forms
    v, w = exact.v, exact.w
    s = amount * exact.label_info / (1 + amount * exact.leverage)
    y = _differences(pairs, v)
    step = _over_pairs(s, pairs) * pairs.label_info
    inv = forms.inverse - s[:, None, None] * v[:, :, None] * v[:, None, :]
    leverage = forms.leverage - step * y * y
    st = s * jnp.sum(w * exact.difference[None], axis=1)
    x = _differences(pairs, w)
    target = forms.target - step * y * (2 * x - _over_pairs(st, pairs) * y)
    cross = v[:, :, None] * w[:, None, :]
    change = cross + jnp.swapaxes(cross, 1, 2) - st[:, None, None] * v[:, :, None] * v[:, None, :]
    return Forms(inv, forms.sandwich - s[:, None, None] * change, leverage, target)


def _differences(pairs, vectors):
    """(R, P, K, K): z_ij^T u of all pairs for one vector per draw."""
    flat = pairs.rows.reshape(-1, pairs.rows.shape[-1])
    products = [jnp.matmul(flat, u, precision=_arrays.HIGHEST) for u in vectors.astype(flat.dtype)]
    y = jnp.stack(products).reshape(-1, *pairs.rows.shape[:2])  # one product for all draws would transpose the features
    return y[..., :, None] - y[..., None, :]


def _over_pairs(values, pairs):
    return values.astype(pairs.rows.dtype)[:, None, None, None]


def close(forms: Forms, slot, shut: Bool[Array, ""]) -> Forms:
    """Closes one pair if `shut`: its target becomes CLOSED and stays so, whatever updates subtract."""
    lowered = jnp.where(shut, CLOSED, 0).astype(forms.target.dtype)
    return forms._replace(target=forms.target.at[(slice(None), *slot)].add(lowered))
