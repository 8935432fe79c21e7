"""Spectral projected gradient (Birgin, Martinez & Raydan 2000) over allowed allocations, traceable.

Minimises a smooth convex function over a convex set given by its projection: steps along
project(x - alpha grad) - x with alternating Barzilai-Borwein lengths and a nonmonotone Armijo test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

MEMORY = 5  # function values the nonmonotone test looks back on
SHORTEST, LONGEST = 1e-6, 1e6  # step lengths, in units in which the Hessian has a diagonal of about 1


class SpectralState(NamedTuple):
    """Iterate, its value and gradient, the step length, and the last values."""

    x: Float[Array, " s"]
    value: Float[Array, ""]
    gradient: Float[Array, " s"]
    step: Float[Array, ""]
    recent: Float[Array, " memory"]
    iterations: Array
    progress: Float[Array, ""]  # -gradient . direction of the last step: what a unit step would gain to first order


def minimise(
    objective: Callable[[Float[Array, " s"]], tuple[Float[Array, ""], Float[Array, " s"]]],
    project: Callable[[Float[Array, " s"]], Float[Array, " s"]],
    start: Float[Array, " s"],
    first_step: float,
    max_iterations: Array,
    target: Array,
) -> SpectralState:
    """Iterate until the first-order gain falls to `target` times its first value, or max_iterations.

    Args:
        objective: x -> (value, gradient); NaN values count as too large.
        project: onto the allowed set.
        start: an allowed point.
        first_step: step length of the first iteration.
    """
    value, gradient = objective(start)
    state = SpectralState(
        start, value, gradient, jnp.asarray(first_step, start.dtype), jnp.full((MEMORY,), value),
        jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, value.dtype),
    )  # fmt: skip
    first = -jnp.sum(gradient * (project(start - first_step * gradient) - start))

    def unfinished(state):
        return (state.iterations < max_iterations) & (state.progress > target * first)

    def advance(state):
        direction = project(state.x - state.step * state.gradient) - state.x
        slope = jnp.sum(state.gradient * direction)
        limit = jnp.max(state.recent)

        def too_large(trial):
            length, _, new_value, _ = trial
            return ~(new_value <= limit + 1e-4 * length * slope) & (length > 1e-6)

        def shorten(trial):
            length = trial[0] * 0.3
            x = state.x + length * direction
            return (length, x, *objective(x))

        x = state.x + direction
        whole = (jnp.ones((), value.dtype), x, *objective(x))
        length, x, new_value, new_gradient = lax.while_loop(too_large, shorten, whole)
        improved = new_value <= limit + 1e-4 * length * slope
        x, new_value = jnp.where(improved, x, state.x), jnp.where(improved, new_value, state.value)
        new_gradient = jnp.where(improved, new_gradient, state.gradient)

        moved, turned = x - state.x, new_gradient - state.gradient
        curvature = jnp.sum(moved * turned)
        long = jnp.sum(moved * moved) / curvature
        short = curvature / jnp.sum(turned * turned)
        step = jnp.where(state.iterations % 2 == 0, short, long)
        step = jnp.where(curvature > 0, jnp.clip(step, SHORTEST, LONGEST), 1.0)
        recent = jnp.roll(state.recent, 1).at[0].set(new_value)
        progress = jnp.where(improved, -slope / state.step, 0.0)  # a failed search ends the loop
        return SpectralState(x, new_value, new_gradient, step, recent, state.iterations + 1, progress)

    return lax.while_loop(unfinished, advance, state)
