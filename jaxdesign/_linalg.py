"""Dense linear algebra of small symmetric matrices: Cholesky factors, inverses, roots, ranks.

Cholesky factors come with their inverses, from matrix products and small LAPACK calls. On a CPU, LAPACK's own threads
keep spinning for a while after every large call and take the cores from XLA's: a loop that alternates d x d
factorisations with products over pairs ran 1.7 times slower than its parts (d = 381, two cores). Small calls stay on
one thread, so a matrix is split into blocks; what is left is matrix products.

A batch is factorised one matrix after the other there: jaxlib shares a batched call among XLA's threads and waits for
them on one of them, so that as many such calls at a time as there are threads wait for ever (jaxlib 0.10; two batches
of four 96 x 96 matrices on two cores hang at once).

Ranks are judged at unit diagonal: units of single columns do not matter.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float

from jaxdesign._arrays import HIGHEST, AnyArray, contract, round_up

LEAF = 48  # OpenBLAS factorises 96 x 96, what a leaf needs, on one thread; 128 x 128 no longer
LEAVES = 16  # at most: the program grows with their number


@jax.jit  # called outside of jit, loops and branches would be compiled anew every time
def cholesky_and_inverse(matrix: Float[AnyArray, "*r d d"]) -> tuple[Float[Array, "*r d d"], Float[Array, "*r d d"]]:
    """L and L^-1 with L L^T = A, lower triangular; NaN where A is not positive definite. Traceable.

        L = | L1             |      L^-1 = | X1              |      L1, X1 of A11;  L2, X2 of A22 - B B^T;  B = A21 X1^T
            | B       L2     |             | -X2 B X1    X2  |

    Derivatives, of any order: dL = L P and dX = -P X with P = X dA X^T, its diagonal halved and the part above it 0.

    Numerics: in the dtype of A; as accurate as a Cholesky factorisation followed by a triangular inverse.
    Complexity: about 4/3 d^3 floating-point operations.
    """
    return _factorised(matrix)


@jax.custom_jvp  # of matrix products only, and the one-by-one rule has no reverse mode
def _factorised(matrix):
    size = matrix.shape[-1]
    return _blocked(matrix, max(LEAF, -(-size // LEAVES)))


@_factorised.defjvp
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


def sandwich(left, middle, right):
    """Matrix products two at a time: a three-operand einsum would not use matrix products on every backend."""
    return jnp.matmul(jnp.matmul(left, middle, precision=HIGHEST), right, precision=HIGHEST)


PANELS = 4  # of columns of a symmetric product
WIDE = 192  # columns from which panels are faster


def symmetric_product(left: Float[AnyArray, "*r n d"], right: Float[AnyArray, "n d"]) -> Float[Array, "*r d d"]:
    """left^T right where that is symmetric, as X^T (D X) is for a symmetric D: symmetric to the last bit.

    XLA has no product that makes use of it. On a CPU only panels of columns on and right of the diagonal are computed,
    (PANELS + 1) / (2 PANELS) of the operations; elsewhere one large product is faster than several small ones.
    """
    if left.shape[-1] < WIDE:
        return _whole_product(left, right)
    return lax.platform_dependent(left, right, cpu=_product_by_panels, default=_whole_product)


def _whole_product(left, right):
    product = contract("...nd,ne->...de", left, right)
    return (product + jnp.swapaxes(product, -1, -2)) / 2


def _product_by_panels(left, right):
    size = left.shape[-1]
    width = round_up(-(-size // PANELS), 16)
    panels = []
    for start in range(0, size, width):
        panel = contract("...nd,ne->...de", left[..., start : start + width], right[:, start:])
        panels.append(jnp.pad(panel, [(0, 0)] * (panel.ndim - 1) + [(start, 0)]))
    upper = jnp.triu(jnp.concatenate(panels, axis=-2))
    return upper + jnp.swapaxes(jnp.triu(upper, 1), -1, -2)


def gram_sensitivities(rows: Float[Array, "p k d"], others: Float[Array, "p k d"]) -> Float[Array, "p k k"]:
    """Q_ii + Q_jj - 2 Q_ij with Q = rows others^T per prompt; exactly symmetric when rows is others."""
    gram = contract("pid,pjd->pij", rows, others)
    diagonal = jnp.sum(rows * others, axis=-1)
    return diagonal[:, :, None] + diagonal[:, None, :] - 2 * gram


def inverse(information: Float[AnyArray, "*r d d"]) -> Float[Array, "*r d d"]:
    """A^-1 by Cholesky, symmetric to the last bit; NaN where A is not positive definite."""
    return inverse_from(cholesky_and_inverse(information)[1])


def inverse_from(inverse_factor: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
    """A^-1 = L^-T L^-1, symmetric to the last bit."""
    inv = contract("...ki,...kj->...ij", inverse_factor, inverse_factor)
    return (inv + jnp.swapaxes(inv, -1, -2)) / 2


def gradient_factors(G: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
    """F with F F^T = G, which may be singular (Trace with a low-rank H).

    Cholesky, or where that fails the spectral factor V sqrt(max(Lambda, 0)) of G scaled to a unit diagonal. Both are
    accurate to rounding times sqrt(G_kk G_ll) entry by entry, so badly scaled features cost no accuracy; a shift of
    the diagonal would raise small sensitivities.
    """
    factors, _ = cholesky_and_inverse(G)
    return jax.lax.cond(jnp.isfinite(factors).all(), lambda _: factors, _spectral_factors, G)


def _spectral_factors(G: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
    scale = jnp.sqrt(jnp.maximum(jnp.diagonal(G, axis1=-2, axis2=-1), 0))
    inverse_scale = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 0)
    spectrum, vectors = jnp.linalg.eigh(G * inverse_scale[..., :, None] * inverse_scale[..., None, :])
    return scale[..., :, None] * vectors * jnp.sqrt(jnp.maximum(spectrum, 0))[..., None, :]


RANK = 1e-12  # eigenvalues of a unit-diagonal matrix below this share of the largest count as zero


def unit_diagonal(matrix: Float[np.ndarray, "*r d d"]) -> tuple[Float[np.ndarray, "*r d d"], Float[np.ndarray, "*r d"]]:
    """S^-1 A S^-1 with a diagonal of 1 (0 where A has no positive one), and the diagonal of S."""
    size = np.sqrt(np.maximum(np.diagonal(matrix, axis1=-2, axis2=-1), 0))
    inverse = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0)
    return matrix * inverse[..., :, None] * inverse[..., None, :], size


def numerical_rank(matrix: Float[np.ndarray, "d d"], share: float = RANK) -> int:
    """Rank of a positive semidefinite matrix scaled to a unit diagonal, which makes it a property of no units."""
    spectrum = np.linalg.eigvalsh(unit_diagonal(np.asarray(matrix, np.float64))[0])
    return int(np.sum(spectrum > share * max(spectrum[-1], 0.0)))
