"""Rank-one and rank-k updates of A^-1 and log det A, with a refresh that bounds their drift.

Unlike `jax.lax.linalg.cholesky_update`, which on CPU unrolls into the program (17 s of compilation at d = 128) and has
no vmap rule, these are matrix products and vmap freely.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdesign._arrays import contract
from jaxdesign._linalg import inverse


class InverseState(NamedTuple):
    """A matrix with its inverse and log determinant, kept in step by updates."""

    information: Float[Array, "d d"]
    inverse: Float[Array, "d d"]
    log_det: Float[Array, ""]
    updates: Int[Array, ""]  # since the last refresh


def start_inverse(information: Float[Array, "d d"]) -> InverseState:
    """State from a fresh Cholesky factorisation; NaN where A is not positive definite. O(d^3)."""
    factor = jnp.linalg.cholesky(information)
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    return InverseState(information, inverse(information), log_det, jnp.zeros((), jnp.int32))


def rank_one_update(state: InverseState, difference: Float[Array, " d"], weight: Float[Array, ""]) -> InverseState:
    """A + w z z^T (w < 0 takes information away).

    Sherman-Morrison and the determinant lemma, a = w z^T A^-1 z:
    A^-1 <- A^-1 - w v v^T / (1 + a) with v = A^-1 z, log det <- log det + log(1 + a). NaN where 1 + a <= 0, that is
    where the downdate would leave A not positive definite. O(d^2). Relative drift grows by about the dtype's rounding
    times 1 / (1 + a) per update: see `refreshed`.
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
    O(k d^2 + k^3). NaN where the result is not positive definite: read off the symmetric I + R diag(w) R, because
    det(I + S diag(w)) is positive also where two directions have turned negative.
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
    """Refactorise once `every` updates have been made, else return the state as it is; traceable."""
    return jax.lax.cond(state.updates >= every, lambda s: start_inverse(s.information), lambda s: s, state)
