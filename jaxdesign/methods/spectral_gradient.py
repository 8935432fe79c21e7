"""Spectral projected gradient (Birgin, Martinez & Raydan 2000) over allowed allocations, traceable.

Minimises a smooth convex function over a convex set given by its projection: steps along
project(x - alpha grad) - x with alternating Barzilai-Borwein lengths and a nonmonotone Armijo test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

MEMORY = 5  # function values the nonmonotone test looks back on
SHORTEST, LONGEST = 1e-6, 1e6  # step lengths, in units in which the Hessian has a diagonal of about 1
SHORTENED = 0.3  # a step that fails the test is shortened by this
TINY = 1e-6  # share of a step below which the search has failed


class SpectralState(NamedTuple):
    """The last accepted point, and the step that is tried next."""

    x: Float[Array, " s"]
    value: Float[Array, ""]
    gradient: Float[Array, " s"]
    recent: Float[Array, " memory"]  # last accepted values
    step: Float[Array, ""]  # Barzilai-Borwein length
    direction: Float[Array, " s"]  # project(x - step gradient) - x
    share: Float[Array, ""]  # of the direction to try
    iterations: Array  # accepted steps
    progress: Float[Array, ""]  # -gradient . direction / step: what is left to gain, to first order
    first: Float[Array, ""]  # progress at the start


def minimise(
    objective: Callable[[Float[Array, " s"]], tuple[Float[Array, ""], Float[Array, " s"]]],
    project: Callable[[Float[Array, " s"]], Float[Array, " s"]],
    start: Float[Array, " s"],
    first_step: float,
    max_iterations: Array | int,
    target: Array | float,
) -> SpectralState:
    """Iterate until the first-order gain falls to `target` times its first value, or max_iterations.

    Args:
        objective: x -> (value, gradient); NaN values count as too large. It enters the program once: every turn of the
            loop evaluates one trial point.
        project: onto the allowed set.
        start: an allowed point.
        first_step: step length of the first iteration.
    """

    def unfinished(state):
        more = (state.iterations < max_iterations) & (state.progress > target * state.first)
        return (state.iterations < 0) | (more & (state.share > TINY))

    def advance(state):
        x = state.x + state.share * state.direction
        value, gradient = objective(x)
        slope = jnp.sum(state.gradient * state.direction)
        accepted = value <= jnp.max(state.recent) + 1e-4 * state.share * slope  # False for NaN
        accepted |= state.iterations < 0  # the start, which nothing precedes
        found = accept(state, x, value, gradient)
        shorter = state._replace(share=SHORTENED * state.share)
        return jax.tree.map(lambda new, old: jnp.where(accepted, new, old), found, shorter)

    def accept(state, x, value, gradient):
        begins = state.iterations < 0
        moved, turned = x - state.x, gradient - state.gradient
        curvature = jnp.sum(moved * turned)
        long = jnp.sum(moved * moved) / curvature
        short = curvature / jnp.sum(turned * turned)
        step = jnp.where(state.iterations % 2 == 0, short, long)
        step = jnp.where(begins, first_step, jnp.where(curvature > 0, jnp.clip(step, SHORTEST, LONGEST), 1.0))
        direction = project(x - step * gradient) - x
        progress = -jnp.sum(gradient * direction) / step
        recent = jnp.where(begins, value, jnp.roll(state.recent, 1).at[0].set(value))
        first = jnp.where(begins, progress, state.first)
        share = jnp.ones_like(state.share)
        return SpectralState(
            x, value, gradient, recent, step, direction, share, state.iterations + 1, progress, first
        )  # fmt: skip

    zero = jnp.zeros((), start.dtype)
    nothing = jnp.zeros_like(start)
    before = SpectralState(
        start, zero, nothing, jnp.zeros(MEMORY, start.dtype), zero + 1, nothing, zero + 1,
        jnp.full((), -1, jnp.int32), zero, zero,
    )  # fmt: skip
    return lax.while_loop(unfinished, advance, before)
