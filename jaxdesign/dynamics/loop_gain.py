"""How strongly a loop turns: the gain omega of IPO's rounds, and the eigenvalues of any loop's Jacobian."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jaxdesign._arrays import contract
from jaxdesign.dynamics.preferences import advantages


def turning_rates(preferences: Float[Array, "k k"], policy: Float[Array, " k"]) -> Float[Array, " k"]:
    """The K singular values of S^(1/2) A S^(1/2), ascending, S = diag(pi) - pi pi^T, A = P - 1/2; they come in pairs.

        S^(1/2) A S^(1/2) has those of (I - r r^T) D^(1/2) A D^(1/2) (I - r r^T),  D = diag(pi), r = sqrt(pi)

    The eigenvalues of IPO's round on mixed answers are alpha +- i strength share omega_k. Two of K = 3 answers share
    omega = |A_12 + A_23 + A_31| sqrt(pi_1 pi_2 pi_3); omega <= 1/pi for all preferences and policies.

    Source: arXiv 2602.12180 for the three-cycle at the uniform policy; derived; checked by
    tests/dynamics/test_loop_gain.py.
    """
    root = jnp.sqrt(jax.nn.softmax(policy))
    skew = root[:, None] * advantages(preferences) * root[None, :]
    along = contract("ij,j->i", skew, root)
    skew = skew - along[:, None] * root[None, :] + root[:, None] * along[None, :]  # root^T skew root = 0
    squares = jnp.linalg.eigvalsh(contract("ki,kj->ij", skew, skew))
    return jnp.sqrt(jnp.maximum(squares, 0))


def loop_gain(preferences: Float[Array, "k k"], policy: Float[Array, " k"]) -> Float[Array, ""]:
    """omega, the largest of `turning_rates`."""
    return turning_rates(preferences, policy)[-1]


def eigenvalues(jacobian: Float[np.ndarray, "*n k k"]) -> Complex[np.ndarray, "*n k-1"]:
    """Of Jacobians on x = log pi up to constants: the K - 1 that are left when the direction (1, ..., 1) is taken out.

    On the host: JAX has eigenvalues of general matrices on CPUs only.
    """
    size = jacobian.shape[-1]
    basis = np.linalg.qr(np.concatenate([np.ones((size, 1)), np.eye(size)[:, 1:]], axis=1))[0][:, 1:]
    return np.linalg.eigvals(basis.T @ jacobian @ basis) + 0j  # complex where all are real, too
