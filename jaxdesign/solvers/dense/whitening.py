"""Coordinates in which float32 steps are accurate: features whitened by the information of the even allocation.

With W^T E W = I, E the float64 information of the even allocation (prior included), the design problem of features
phi W, prior W^T P W and target W^T H W has the same solution, and in it the information of any allocation that keeps a
share of the even one is well conditioned, whatever the units of the features and however small a ridge. Labels are
counted in a power of four near the total, and the criterion is divided by a power of two near its size, so that
nothing leaves float32. Only steps are taken here: certificates know the stored features alone.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxdesign import _arrays
from jaxdesign._centring import row_means
from jaxdesign._linalg import cholesky_and_inverse
from jaxdesign.pricing.memory import MemorySource

COARSE = 2.0**-8
FLAT = 1e-15  # eigenvalues of E at unit diagonal are not counted as smaller than this share of the largest


@jax.jit
def whitening(even: Float[Array, "r d d"]) -> Float[Array, "d d"]:
    """W with W^T E W = I, E the mean over draws; traceable, float64.

    L^-T of a Cholesky factorisation at a diagonal of 1 to 4, or where that fails the spectral one with eigenvalues of
    at least FLAT of the largest: always finite and invertible. Its entries there are rounded to multiples of COARSE / d
    or so, which moves W^T E W by less than COARSE sqrt(d): sums over the pool in another order, on several devices say,
    then give the same coordinates to the last bit, and the same steps.
    """
    mean = jnp.mean(even, axis=0)
    diagonal = jnp.diagonal(mean)
    scale = 1 / _arrays.power_of_two_below(jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1)))
    mean = mean * scale[:, None] * scale[None, :]
    root = cholesky_and_inverse(mean)[1].T

    def spectral(matrix):
        spectrum, vectors = jnp.linalg.eigh(matrix)
        return vectors / jnp.sqrt(jnp.maximum(spectrum, FLAT * jnp.maximum(spectrum[-1], 1)))[None]

    root = jax.lax.cond(jnp.isfinite(root).all(), lambda _: root, spectral, mean)
    quantum = COARSE / 2.0 ** (len(root) - 1).bit_length()
    return scale[:, None] * (jnp.round(root / quantum) * quantum)


def criterion_unit(criterion: Any, even: Float[Array, "r d d"]) -> Float[Array, ""]:
    """The power of two near tr(G E) / d: 1 for LogDet, the size of the criterion for those of degree -1."""
    factors = criterion.factors(even)
    size = jnp.mean(jnp.sum(factors * jnp.matmul(even, factors, precision=_arrays.HIGHEST), axis=(1, 2)))
    return power_of_two_near(size / even.shape[-1])


def power_of_two_near(number: Float[Array, ""], base: int = 2) -> Float[Array, ""]:
    """The power of a base of 2 or 4 next to a positive number; 1 where that is 0 or not finite. Traceable."""
    fine = jnp.isfinite(number) & (number > 0)
    bits = base.bit_length() - 1
    exponent = jnp.round(jnp.log2(jnp.where(fine, number, 1)) / bits).astype(jnp.int32)
    return _arrays.exp2(bits * exponent, number.dtype)


def whitened_source(source: MemorySource, basis: Float[Array, "d d"]) -> MemorySource:
    """The prompts of a source with features (phi - prompt mean) B: products in float64, stored in its dtype.

    Copies stay copies. Holds P K d numbers of its own. Traceable; call inside `_arrays.float64()`.
    """
    raw = source._replace(means=jnp.zeros(source.means.shape, basis.dtype))  # chunks then come in float64, `less_first`
    features = raw.fold_slots(Partial(_whitened, basis, jnp.zeros((), source.dtype)), None)[1]
    length = source.copies.shape[1]
    return source._replace(features=features, last=features[-length:], means=jnp.zeros_like(source.means))


def _whitened(basis, like, chunk, carry, _):
    exists = chunk.copies >= 0
    rows = jnp.where(exists[..., None], chunk.rows - row_means(chunk.rows, exists)[:, None], 0)
    rows = jnp.matmul(rows, basis, precision=_arrays.HIGHEST)
    first = jnp.maximum(chunk.copies, 0)[..., None]  # the product may round equal rows differently
    return carry, jnp.where(exists[..., None], jnp.take_along_axis(rows, first, axis=1), 0).astype(like.dtype)
