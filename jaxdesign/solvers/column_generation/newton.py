"""A Newton step on the restricted problem: a bound-constrained quadratic programme with Hessian-vector products.

At u the criterion is replaced by its second-order model. The gradient is exact (float64 A, G and sensitivities); the
Hessian is only ever applied to a direction v: with the change D = sum_e v_e c_e z_e z_e^T of A,

    (Hess v)_e = c_e z_e^T K(D) z_e,   K = `criterion.curvature`   (A^-1 D A^-1 for LogDet)

at 4 n d^2 floating-point operations. An explicit Hessian would need a buffer of fixed capacity, so that n may change
without recompilation, and so would bound n; this form holds for any criterion and any n.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxdesign import _arrays
from jaxdesign.methods import spectral_gradient
from jaxdesign.methods.projection import project
from jaxdesign.solvers.column_generation import working_set
from jaxdesign.solvers.column_generation.working_set import WorkingSet


def newton_step(
    ws: WorkingSet, criterion, u: Float[Array, " n"], products: Array | int, tolerance: Array | float
) -> Float[Array, " n"]:
    """u after one Newton step, no worse than the u given.

    The quadratic programme is solved until its first-order gain has fallen to `tolerance` times its first value, by at
    most `products` Hessian products.

    One step between two passes over the pool: more would solve the restricted problem further than the pairs that the
    next pass brings let it matter (on real pools the gap falls 5 to 25 times a pass either way).
    """
    matrix = working_set.information(ws, u, jnp.float64)
    value, factors = criterion.value_and_factors(matrix)
    b = working_set.sensitivities(ws, factors)
    curvature = criterion.curvature(matrix)

    def model(v):
        curved = hessian_product(ws, curvature, v - u)
        return jnp.sum((v - u) * (curved / 2 - b)), curved - b

    direction = spectral_gradient.minimise(model, lambda v: project(v, ws.room), u, 1.0, products, tolerance).x - u
    slope = -jnp.sum(b * direction)

    def too_long(trial):
        length, reached = trial
        return ~(reached <= value + 0.1 * length * slope) & (length > 1e-3)

    def shorten(trial):
        length = trial[0] / 2
        moved = working_set.information(ws, u + length * direction, jnp.float64)
        return length, criterion.value(moved)

    length, reached = lax.while_loop(too_long, shorten, (jnp.full((), 2.0), jnp.full_like(value, jnp.inf)))
    return jnp.where(reached <= value, jnp.clip(u + length * direction, 0, ws.room.cap), u)


def hessian_product(ws: WorkingSet, curvature: Callable, v: Float[Array, " n"]) -> Float[Array, " n"]:
    """Hess v in units of u; products over pairs in float32, the d x d algebra in float64."""
    flat = ws._replace(base=jnp.zeros_like(ws.base))
    matrices = curvature(working_set.information(flat, v)).astype(jnp.float32)

    def apply(k, out):
        rows = ws.rows[k]
        draws = [jnp.sum(jnp.matmul(rows, m, precision=_arrays.HIGHEST) * rows, axis=-1) for m in matrices]
        return out.at[k].set(jnp.mean(jnp.stack(draws) * ws.label_info[k].astype(rows.dtype), axis=0))

    products = lax.fori_loop(0, ws.blocks, apply, jnp.zeros(ws.rows.shape[:2], jnp.float32))
    return products.reshape(-1).astype(jnp.float64)
