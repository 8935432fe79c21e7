"""Rank-one and rank-k updates of A^-1 and log det A, with a refresh that bounds their drift.

For loops of a user's own, inside `jit`, `vmap` or `scan`, that must know A^-1 after every label: the pair of a stream
with the largest z^T A^-1 z, what the labels just given leave to learn, a greedy rule that this package does not have.
Nothing in the package calls them: its solvers factorise once a pass over the pool, and greedy choice has updates of its
own, of what it knows of each pair.

    state = start_inverse(prior)
    for z, c in labelled:
        state = refreshed(rank_one_update(state, z, c))

Unlike `jax.lax.linalg.cholesky_update`, which on CPU is a Python loop unrolled into the program and has no vmap rule,
these are matrix products and vmap freely.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdesign._arrays import contract
from jaxdesign._linalg import inverse


class InverseState(NamedTuple):
    """A matrix with its inverse and log determinant, kept in step by updates.

    Args:
        information: A, (d, d).
        inverse: A^-1, (d, d).
        log_det: log det A.
        updates: since the last refresh, int32.
    """

    information: Float[Array, "d d"]
    inverse: Float[Array, "d d"]
    log_det: Float[Array, ""]
    updates: Int[Array, ""]


def start_inverse(information: Float[Array, "d d"]) -> InverseState:
    """State from a fresh Cholesky factorisation; NaN where A is not positive definite.

    Args:
        information: A, (d, d), symmetric.

    Returns:
        InverseState in the dtype of A.

    Raises: nothing. Traceable.

    Complexity: O(d^3).
    Source: derived; checked by tests/test_rank_updates.py.
    """
    factor = jnp.linalg.cholesky(information)
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    return InverseState(information, inverse(information), log_det, jnp.zeros((), jnp.int32))


def rank_one_update(state: InverseState, difference: Float[Array, " d"], weight: Float[Array, ""]) -> InverseState:
    """A + w z z^T (w < 0 takes information away).

    Sherman-Morrison and the determinant lemma, a = w z^T A^-1 z:
    A^-1 <- A^-1 - w v v^T / (1 + a) with v = A^-1 z, log det <- log det + log(1 + a).

    Args:
        state: of A.
        difference: z, (d,).
        weight: w, of either sign.

    Returns:
        InverseState; NaN where 1 + a <= 0, that is where the downdate would leave A not positive definite.

    Raises: nothing. Traceable.

    Numerics: relative drift grows by about the dtype's rounding times 1 / (1 + a) per update: see `refreshed`.
    Complexity: O(d^2).
    Source: Sherman and Morrison 1950, doi:10.1214/aoms/1177729893; checked by tests/test_rank_updates.py.
    """
    z = difference
    v = contract("de,e->d", state.inverse, z)
    growth = 1 + weight * jnp.vdot(z, v)
    growth = jnp.where(growth > 0, growth, jnp.nan)
    return InverseState(
        state.information + weight * jnp.outer(z, z),
        state.inverse - (weight / growth) * jnp.outer(v, v),
        state.log_det + jnp.log(growth),
        state.updates + 1,
    )


def rank_k_update(state: InverseState, differences: Float[Array, "k d"], weights: Float[Array, " k"]) -> InverseState:
    """A + Z^T diag(w) Z for k pairs at once (weights of either sign, zeros allowed).

    Woodbury in the form that allows zero weights: with V = Z A^-1 and S = V Z^T,
    A^-1 <- A^-1 - V^T diag(w) (I + S diag(w))^-1 V, log det <- log det + log det(I + R diag(w) R), R R = S.

    Args:
        state: of A.
        differences: Z, (k, d).
        weights: w, (k,).

    Returns:
        InverseState; NaN where the result is not positive definite: read off the symmetric I + R diag(w) R, because
        det(I + S diag(w)) is positive also where two directions have turned negative.

    Raises: nothing. Traceable.

    Complexity: O(k d^2 + k^3).
    Source: derived from Woodbury's identity; checked by tests/test_rank_updates.py.
    """
    V = contract("kd,de->ke", differences, state.inverse)
    S = contract("ke,le->kl", V, differences)
    capacitance = jnp.eye(S.shape[0], dtype=S.dtype) + S * weights[None, :]
    spectrum, vectors = jnp.linalg.eigh((S + S.T) / 2)
    root = contract("kl,l,ml->km", vectors, jnp.sqrt(jnp.maximum(spectrum, 0)), vectors)
    growth = jnp.linalg.cholesky(jnp.eye(S.shape[0], dtype=S.dtype) + contract("kl,l,lm->km", root, weights, root))
    log_growth = 2 * jnp.sum(jnp.log(jnp.diagonal(growth)))
    correction = contract("ke,kl->el", V, weights[:, None] * jnp.linalg.solve(capacitance, V))
    valid = jnp.where(jnp.isfinite(log_growth), 1.0, jnp.nan).astype(S.dtype)
    return InverseState(
        state.information + contract("kd,ke->de", differences * weights[:, None], differences),
        (state.inverse - (correction + correction.T) / 2) * valid,
        state.log_det + log_growth,
        state.updates + 1,
    )


def refreshed(state: InverseState, every: int = 64) -> InverseState:
    """Refactorise once `every` updates have been made, else return the state as it is.

    Args:
        state: any.
        every: updates between two factorisations.

    Returns:
        InverseState; its count of updates is 0 where it was refactorised.

    Raises: nothing. Traceable.

    Source: derived; checked by tests/test_rank_updates.py.
    """
    return jax.lax.cond(state.updates >= every, lambda s: start_inverse(s.information), lambda s: s, state)
