"""The largest sensitivity of every prompt, two numbers a prompt: what prompts are ranked by before any is looked at.

Matrix units are several times as fast in formats of few digits. Ranking needs few: with the bound on their rounding
added, the largest sensitivities in such a format are still bounds, only looser, and what decides is priced again.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxdesign import _coarse
from jaxdesign._arrays import AnyArray
from jaxdesign.information import prompt_forms
from jaxdesign.pricing.passes import all_finite, chunk_sensitivities, largest_share, rounding_error, with_slack
from jaxdesign.pricing.source import Chunk, Source, open_pairs
from jaxdesign.residual import shrinkage_error


def largest(
    source: Source, factors: Float[AnyArray, "r d q"], kind: _coarse.Coarse | None = None
) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
    """The largest sensitivity of every prompt and a bound on its rounding error, in units of the factors.

    Args:
        source: the pool.
        factors: as for `passes.price`.
        kind: a format to compute products in; None: the working dtype.

    Returns:
        (P,) the largest, -1 where a prompt has no pair; (P,) the error, inf where something is not finite.

    Raises: nothing; traceable.

    Complexity: that of `passes.price` without its search for partners.
    Source: derived; checked by tests/pricing/test_largest.py.
    """
    return source.fold(Partial(_KERNELS[kind], factors), None)[1]


def _kernel(sensitivities):
    def kernel(factors, chunk, carry, _):
        b, error = sensitivities(chunk, factors)
        upper = open_pairs(chunk)
        finite = all_finite(b, error, upper)
        b = jnp.where(upper & finite[:, None, None], b, -1)
        return carry, (jnp.max(b, axis=(1, 2)), jnp.where(finite, error, jnp.inf))

    return kernel


def coarse_sensitivities(
    kind: _coarse.Coarse, chunk: Chunk, factors: Float[Array, "r d q"]
) -> tuple[Float[Array, "c k k"], Float[Array, " c"]]:
    """`passes.chunk_sensitivities` from operands rounded to a coarse format, u = 2^-bits.

    phi, F and y = phi F are rounded, products are exact and summed in float32. So y_i is off by at most e_i = (2 u +
    u^2) sum_k |phi_ik| G_kk^(1/2) + u |y_i| in length, by the triangle inequality, and c |y_i - y_j|^2, c <= 1/4, by
    2 |y| e + e^2 with the largest of both in the prompt: whatever the signs of the roundings are. What sums in float32
    add is bounded by `passes.rounding_error`.
    """
    rows, margins, unit = chunk.rows, chunk.margins, 2.0**-kind.bits
    flat = rows.reshape(-1, rows.shape[-1])
    rounded, products, errors = _coarse.coarsely(flat, kind), [], jnp.zeros((), rows.dtype)
    slack = None if margins is None else shrinkage_error(margins.spread, jnp.float32)
    for factor in factors:
        y = _coarse.coarse_contract("nd,dq->nq", rounded, _coarse.coarsely(factor, kind), kind)
        y = y.reshape(*rows.shape[:2], -1)
        length = jnp.sqrt(jnp.sum(y * y, axis=-1))
        sides = jnp.sqrt(jnp.sum(factor * factor, axis=-1))
        moved = (2 + unit) * unit * jnp.sum(jnp.abs(flat) * sides[None], axis=-1).reshape(length.shape)
        moved = (1 + 2.0**-10) * jnp.max(moved + unit * length, axis=-1)  # sums are in float32 here too
        error = 2 * (1 + unit) * jnp.max(length, axis=-1) * moved + moved**2 + rounding_error(flat, y, factor)
        products.append(_coarse.coarsely(y, kind))
        errors += with_slack(error, slack, partial(_gram_forms, kind), products[-1], chunk.copies)
    forms = prompt_forms([(y, y) for y in products], margins, partial(_gram_forms, kind))
    total = sum(forms, jnp.zeros((), rows.dtype))
    if margins is not None:
        errors *= largest_share(margins.flip, chunk.copies).astype(rows.dtype)
    return total / len(factors), errors / len(factors)


def _gram_forms(kind, rows, others):
    """`information.gram_sensitivities` of rows in a coarse format."""
    gram = _coarse.coarse_contract("pid,pjd->pij", rows, others, kind)
    diagonal = jnp.sum(rows.astype(jnp.float32) * others.astype(jnp.float32), axis=-1)
    return diagonal[:, :, None] + diagonal[:, None, :] - 2 * gram


_KERNELS = {None: _kernel(chunk_sensitivities)} | {  # one program each
    kind: _kernel(partial(coarse_sensitivities, kind)) for kind in (_coarse.TF32, _coarse.BFLOAT16)
}
