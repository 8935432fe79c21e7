"""Cholesky factors with their inverses, from matrix products and small LAPACK calls.

On a CPU, LAPACK's own threads keep spinning for a while after every large call and take the cores from XLA's: a loop
that alternates d x d factorisations with products over pairs ran 1.7 times slower than its parts (d = 381, two cores).
Small calls stay on one thread, so a matrix is split into blocks; what is left is matrix products.

A batch is factorised one matrix after the other there: jaxlib shares a batched call among XLA's threads and waits for
them on one of them, so that as many such calls at a time as there are threads wait for ever (jaxlib 0.10; two batches
of four 96 x 96 matrices on two cores hang at once).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float

from jaxdesign._arrays import HIGHEST

LEAF = 48  # OpenBLAS factorises 96 x 96, what a leaf needs, on one thread; 128 x 128 no longer
LEAVES = 16  # at most: the program grows with their number


@jax.jit  # called outside of jit, loops and branches would be compiled anew every time
@jax.custom_jvp  # of matrix products only, and the one-by-one rule has no reverse mode
def cholesky_and_inverse(matrix: Float[Array, "*r d d"]) -> tuple[Float[Array, "*r d d"], Float[Array, "*r d d"]]:
    """L and L^-1 with L L^T = A, lower triangular; NaN where A is not positive definite. Traceable.

        L = | L1             |      L^-1 = | X1              |      L1, X1 of A11;  L2, X2 of A22 - B B^T;  B = A21 X1^T
            | B       L2     |             | -X2 B X1    X2  |

    Derivatives, of any order: dL = L P and dX = -P X with P = X dA X^T, its diagonal halved and the part above it 0.

    Numerics: in the dtype of A; as accurate as a Cholesky factorisation followed by a triangular inverse.
    Complexity: about 4/3 d^3 floating-point operations.
    """
    size = matrix.shape[-1]
    return _blocked(matrix, max(LEAF, -(-size // LEAVES)))


@cholesky_and_inverse.__wrapped__.defjvp
def _derivative(primals, tangents):
    factor, inverse = cholesky_and_inverse(*primals)
    (change,) = tangents
    change = (change + jnp.swapaxes(change, -1, -2)) / 2
    part = jnp.tril(_product(inverse, _product(change, jnp.swapaxes(inverse, -1, -2))))
    part = part - part * jnp.broadcast_to(jnp.eye(part.shape[-1], dtype=part.dtype), part.shape) / 2
    return (factor, inverse), (_product(factor, part), -_product(part, inverse))


def _blocked(matrix, leaf):
    size = matrix.shape[-1]
    if size <= leaf:
        return _leaf(matrix)
    half = leaf * -(-size // (2 * leaf))
    L1, X1 = _blocked(matrix[..., :half, :half], leaf)
    B = _product(matrix[..., half:, :half], jnp.swapaxes(X1, -1, -2))
    L2, X2 = _blocked(matrix[..., half:, half:] - _product(B, jnp.swapaxes(B, -1, -2)), leaf)
    return _lower(L1, B, L2), _lower(X1, -_product(X2, _product(B, X1)), X2)


def _leaf(matrix):
    """One factorisation gives both: that of [[A, I], [I, c I]] has L^-T below L, for any c large enough."""
    size, dtype = matrix.shape[-1], matrix.dtype
    eye = jnp.broadcast_to(jnp.eye(size, dtype=dtype), matrix.shape)
    large = jnp.finfo(dtype).max / 4 * eye
    rows = [jnp.concatenate(blocks, axis=-1) for blocks in ((matrix, eye), (eye, large))]
    whole = jnp.concatenate(rows, axis=-2)
    factor = lax.platform_dependent(whole, cpu=_one_by_one, default=lax.linalg.cholesky)
    return factor[..., :size, :size], jnp.swapaxes(factor[..., size:, :size], -1, -2)


def _one_by_one(matrix):
    if matrix.ndim == 2:
        return _alone(matrix)
    return jax.vmap(_one_by_one)(matrix)


_alone = sequential_vmap(lax.linalg.cholesky)


def _lower(first, below, last):
    zero = jnp.zeros((*first.shape[:-1], last.shape[-1]), first.dtype)
    return jnp.concatenate([jnp.concatenate([first, zero], axis=-1), jnp.concatenate([below, last], axis=-1)], axis=-2)


def _product(left, right):
    return jnp.matmul(left, right, precision=HIGHEST)
