"""Pair laws as graphs: components, and L_q^+ b by elimination, exact where masses differ by a hundred orders."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxdesign._arrays import HIGHEST

UNROLLED = 8  # eliminations up to this size are written out: a loop would cost more than it does


def off_diagonal(law: Float[Array, "*n k k"]) -> Float[Array, "*n k k"]:
    """The law without pairs of an answer with itself."""
    return jnp.where(jnp.eye(law.shape[-1], dtype=bool), 0, law)


def components(law: Float[Array, "k k"]) -> Bool[Array, "k k"]:
    """Whether a chain of pairs with positive mass joins two answers."""
    return reached(off_diagonal(law) > 0)


def reached(arrows: Bool[Array, "k k"]) -> Bool[Array, "k k"]:
    """Whether a chain of arrows leads from i to j; from i to i always."""
    size = len(arrows)
    arrows = arrows | jnp.eye(size, dtype=bool)
    for _ in range(max(size - 1, 1).bit_length()):  # twice the length of the chains each time
        numbers = arrows.astype(jnp.float32)
        arrows = jnp.matmul(numbers, numbers, precision=HIGHEST) > 0
    return arrows


def centred(linked: Bool[Array, "k k"], scores: Float[Array, " k"]) -> Float[Array, " k"]:
    """Scores less their mean over each component."""
    numbers = linked.astype(scores.dtype)
    return scores - jnp.sum(numbers * scores[None, :], axis=1) / jnp.sum(numbers, axis=1)


def centred_columns(linked: Bool[Array, "k k"], columns: Float[Array, "k r"]) -> Float[Array, "k r"]:
    """`centred` of every column."""
    return jax.vmap(lambda column: centred(linked, column), 1, 1)(columns)


def solved(law: Float[Array, "k k"], linked: Bool[Array, "k k"], right: Float[Array, "k r"]) -> Float[Array, "k r"]:
    """h with L_q h = b, L_q = diag(q 1) - q, and h = 0 at one answer of each component: L_q^+ b up to constants.

    Args:
        law: q, (K, K), symmetric, at least 0; its diagonal does not count.
        linked: `components(q)`.
        right: b, (K, R), columns that sum to 0 over each component.

    Numerics: rows are divided by their degree q 1 and the answer of largest degree is held at 0. What is left is a
    diagonally dominant M-matrix, for which elimination needs no pivots; an answer of mass 1e-100 costs no digits.
    """
    law = off_diagonal(law)
    degrees = jnp.sum(law, axis=1)
    order = jnp.arange(len(law))
    larger = (degrees[None, :] > degrees[:, None]) | (
        (degrees[None, :] == degrees[:, None]) & (order[None, :] < order[:, None])
    )
    held = ~jnp.any(linked & larger, axis=1) | (degrees <= 0)
    scale = jnp.where(held, 1, degrees)[:, None]
    identity = jnp.eye(len(law), dtype=law.dtype)
    matrix = jnp.where(held[:, None], identity, identity - law / scale)
    return eliminated(matrix, jnp.where(held[:, None], 0, right / scale))


def eliminated(matrix: Float[Array, "k k"], right: Float[Array, "k r"]) -> Float[Array, "k r"]:
    """A^-1 B by Gauss and Jordan without pivots; batched by vmap into one program.

    LAPACK's batched solver takes matrices one by one, some microseconds each, which is many times this for small K.
    """
    joint = jnp.concatenate([matrix, right], axis=1)

    def step(k, joint):
        row = joint[k] / joint[k, k]
        return (joint - joint[:, k, None] * row[None, :]).at[k].set(row)

    if len(matrix) <= UNROLLED:
        for k in range(len(matrix)):
            joint = step(k, joint)
    else:
        joint = lax.fori_loop(0, len(matrix), step, joint)
    return joint[:, len(matrix) :]


def is_connected(linked: Bool[Array, "k k"]) -> jax.Array:
    """Whether there is one component."""
    return jnp.all(linked)
