"""Swaps: one label taken from a pair k and given to a pair l, scored many at a time. Traceable; see `exchange`.

With c folded into z, M = A^-1 H A^-1, g_kl = z_k^T A^-1 z_l, a_kl = z_k^T M z_l, g_k = g_kk and a_k = a_kk, the matrix
A' = A - z_k z_k^T + z_l z_l^T has (determinant lemma and Woodbury identity for the two columns)

    det A' / det A              = D = (1 + g_l)(1 - g_k) + g_kl^2
    tr(H A^-1) - tr(H A'^-1)    = [(1 - g_k) a_l + 2 g_kl a_kl - (1 + g_l) a_k] / D
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays
from jaxdesign._linalg import cholesky_and_inverse

NEVER = -jnp.inf  # gain of a swap that is not allowed


class Factors(NamedTuple):
    """Per draw, float64: F with F F^T = A^-1 and, for Trace, E with E E^T = M / tr(H A^-1), else None."""

    leverage: Float[Array, "r d d"]
    target: Float[Array, "r d d"] | None


class Rows(NamedTuple):
    """Whitened pairs, sqrt(c) z F and sqrt(c) z E. Their inner products are the forms g_kl and a_kl / tr(H A^-1),
    which are kept in the same type."""

    leverage: Float[Array, "r ..."]
    target: Float[Array, "r ..."] | None


def factors_of(
    matrix: Float[Array, "r d d"], target_root: Float[Array, "*r d d"] | None
) -> tuple[Float[Array, ""], Factors]:
    """The criterion and the factors at A, NaN where A is singular. `target_root`: B with B B^T = H; None for LogDet."""
    _, root = cholesky_and_inverse(matrix)
    leverage = jnp.swapaxes(root, 1, 2)
    if target_root is None:
        value = 2 * jnp.mean(jnp.sum(jnp.log(jnp.diagonal(root, axis1=1, axis2=2)), axis=1))
        return value, Factors(leverage, None)
    half = jnp.matmul(root, target_root, precision=_arrays.HIGHEST)
    value = jnp.mean(jnp.sum(half * half, axis=(1, 2)))
    return value, Factors(leverage, jnp.matmul(leverage, half, precision=_arrays.HIGHEST) / jnp.sqrt(value))


def whitened(factors: Factors, differences: Float[Array, "s d"], label_info: Float[Array, "r s"], dtype) -> Rows:
    """Rows of some pairs in the given dtype; 2 d^2 operations for each pair and draw, twice that for Trace."""
    scale = jnp.sqrt(label_info).astype(dtype)[..., None]

    def times(factor):
        return jnp.matmul(differences.astype(dtype), factor.astype(dtype), precision=_arrays.HIGHEST) * scale

    return Rows(*jax.tree.map(times, factors))


def take(rows: Rows, index: Int[Array, " n"]) -> Rows:
    """Some of the rows, or of the forms of single pairs."""
    return jax.tree.map(lambda a: a[:, index], rows)


def norms(rows: Rows) -> Rows:
    """(R, S): g_k, and a_k for Trace."""
    return jax.tree.map(lambda a: jnp.sum(a * a, axis=-1), rows)


def sensitivities(forms: Rows) -> Float[Array, "*n"]:
    """b of pairs from their forms: mean over draws of g for LogDet, of a for Trace (over tr(H A^-1))."""
    return jnp.mean(forms.leverage if forms.target is None else forms.target, axis=0)


def scores(removed: Rows, added: Rows, crossed: Rows) -> Float[Array, "*n"]:
    """What swaps are ranked by: see `gains`, of which this is a monotone function that costs no logarithm.

    The forms of k, of l and of the two together, with a leading axis of draws and shapes that broadcast. Swaps that
    would leave A nearly singular (D below the square root of the dtype's rounding) come last.
    """
    g_k, g_l, g_kl = removed.leverage, added.leverage, crossed.leverage
    growth = (1 + g_l) * (1 - g_k) + g_kl * g_kl
    regular = growth > jnp.finfo(growth.dtype).eps ** 0.5
    if crossed.target is None:
        return jnp.prod(jnp.where(regular, growth, 0), axis=0)
    assert added.target is not None and removed.target is not None  # all three are of one criterion
    fall = (1 - g_k) * added.target + 2 * g_kl * crossed.target - (1 + g_l) * removed.target
    return jnp.mean(jnp.where(regular, fall / jnp.where(regular, growth, 1), NEVER), axis=0)


def gains(forms: Rows, score: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The fall of the criterion that scores stand for: mean over draws of log D, or the relative fall of the trace."""
    return jnp.log(score) / len(forms.leverage) if forms.target is None else score


def gains_of_adding(forms: Rows) -> Float[Array, "*n"]:
    """The gain of one more label: log(1 + g), or a / (1 + g) for Trace; mean over draws."""
    if forms.target is None:
        return jnp.mean(jnp.log1p(forms.leverage), axis=0)
    return jnp.mean(forms.target / (1 + forms.leverage), axis=0)


def scores_of_removing(forms: Rows) -> Float[Array, "*n"]:
    """Scores of taking a label away and giving none: the largest cost least."""
    nothing = jax.tree.map(jnp.zeros_like, forms)
    return scores(forms, nothing, nothing)


def score_table(removed: Rows, removed_forms: Rows, added: Rows, added_forms: Rows) -> Float[Array, "k l"]:
    """Scores of all swaps between two lists: one matrix product for each draw, two for Trace."""
    crossed = jax.tree.map(lambda y, x: _arrays.contract("rkd,rld->rkl", y, x), removed, added)
    before = jax.tree.map(lambda a: a[:, :, None], removed_forms)
    after = jax.tree.map(lambda a: a[:, None, :], added_forms)
    return scores(before, after, crossed)
