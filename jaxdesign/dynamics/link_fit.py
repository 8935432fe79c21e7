"""Scores whose residuals have no divergence under a pair law: what infinitely many labels of that law teach."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxdesign._arrays import contract
from jaxdesign.dynamics.graphs import centred, centred_columns, components, off_diagonal, reached, solved
from jaxdesign.dynamics.links import LINKS, Link

STEPS = 2.0 ** -np.arange(0, 16)  # step lengths tried along a Newton direction
MAX_STEPS = 60
SMALL = 10.0  # roots of the rounding: the error after a Newton step so small is rounding
LONGEST = 2.0  # of the steps from the scores of the round before: sigma is far from linear over more


class Scores(NamedTuple):
    """Args: scores: u, with mean 0 over each component of the law; residual: R_ij = P_ij - mean(u_i - u_j), 0 on the
    diagonal; converged: False where no finite scores exist (an answer that never loses) or rounding was in the way, as
    where answers that are much compared are joined to the others by pairs of next to no mass.
    """

    scores: Float[Array, " k"]
    residual: Float[Array, "k k"]
    converged: Bool[Array, ""]


def zero_divergence_scores(
    preferences: Float[Array, "k k"], law: Float[Array, "k k"], link: Link, start: Float[Array, " k"] | None = None
) -> Scores:
    """u with sum_j q_ij (P_ij - mean(u_i - u_j)) = 0 for every i: the minimum of a convex function, by Newton's method.

        f(u) = sum_{i<j} q_ij [F(u_i - u_j) - P_ij (u_i - u_j)],  F' = mean;   Hessian L_{q slope}, gradient -(q o R) 1

    Args:
        preferences: P, (K, K), P_ij + P_ji = 1.
        law: q, (K, K), symmetric, at least 0, any scale.
        link: how the loss reads a preference.
        start: scores to start from; None: 0.

    With P the frequencies of labels and q their counts, these are the maximum likelihood scores of Bradley and Terry.
    With the linear link the first step ends the search. Derivatives, forward and reverse, are those of the equation.
    """
    law = off_diagonal(law)
    law = law / jnp.maximum(jnp.max(law), jnp.finfo(law.dtype).tiny)
    linked = components(law)

    def divergence(u):
        return _divergence(preferences, law, link, u)

    def search(start):
        return _searched(preferences, law, linked, link, start)

    start = jnp.zeros_like(preferences[0]) if start is None else start
    found, converged = root(divergence, start, search, partial(_inverse_laplacian, linked))
    exist = scores_exist(preferences, law, linked, link)
    return Scores(found, residuals(preferences, _margins(found), link), (converged > 0) & exist)


def root(
    equation: Callable[[Array], Array],
    start: Float[Array, " n"],
    search: Callable[[Array], tuple[Array, Array]],
    inverse: Callable[[Callable, Array], Array],
) -> tuple[Float[Array, " n"], Array]:
    """What `search` finds from a start with the derivatives, forward and reverse, of equation(x) = 0.

    Beside it what the search says of it, as a floating number: all that `custom_root` carries has a derivative.
    `inverse(change, right)` is x with change(x) = right, for the derivative of the equation.
    """

    def searched(_, start):
        found, told = search(start)
        return found, told.astype(found.dtype)

    return lax.custom_root(equation, start, searched, inverse, has_aux=True)


def _inverse_laplacian(linked, change, right):
    """x with change(x) = right, -change a Laplacian: how scores follow what their equation is made of."""
    weights = off_diagonal(jax.jacfwd(change)(jnp.zeros(len(linked), right.dtype)))
    identity = jnp.eye(len(linked), dtype=right.dtype)
    inverse = centred_columns(linked, solved(weights, linked, centred_columns(linked, identity)))
    return -contract("ij,j->i", inverse, right)


def _margins(scores):
    return scores[:, None] - scores[None, :]


def _searched(preferences, law, linked, link, start):
    """u, and whether rounding left it any digits."""
    rarer = jnp.where(preferences < preferences.T, 1, jnp.where(preferences == preferences.T, 0.5, 0))

    def objective(u):
        gaps = _margins(u)  # a pair counts by its rarer outcome: of the other one a chance of 1e-17 is rounded off
        return jnp.sum(law * rarer * (link.integral(gaps) - preferences * gaps))

    def direction(u):
        return _newton_direction(preferences, law, linked, link, u)

    found, converged = newton(objective, direction, centred(linked, start))
    chances = jnp.sum(law * jnp.minimum(preferences, preferences.T), axis=1)  # of which residuals are differences
    weights = law * link.slope(_margins(found))
    lost = jnp.finfo(law.dtype).eps * solved(weights, linked, chances[:, None])  # inverses of M-matrices are positive
    converged &= jnp.max(jnp.abs(lost)) <= SMALL * jnp.sqrt(jnp.finfo(law.dtype).eps) * (1 + jnp.max(jnp.abs(found)))
    return found, converged


def _divergence(preferences, law, link, scores):
    """(q o R) 1."""
    return jnp.sum(law * residuals(preferences, _margins(scores), link), axis=1)


def _newton_direction(preferences, law, linked, link, scores):
    """L_{q slope}^+ (q o R) 1."""
    weights = law * link.slope(_margins(scores))
    right = _divergence(preferences, law, link, scores)
    return centred(linked, solved(weights, linked, right[:, None])[:, 0])


def residuals(preferences: Float[Array, "k k"], margins: Float[Array, "k k"], link: Link) -> Float[Array, "k k"]:
    """R = P - mean(margins), antisymmetric to the last bit: the rarer outcome of a pair has all its digits."""
    found = off_diagonal(preferences - link.mean(margins))
    return jnp.where(preferences <= preferences.T, found, -found.T)


def scores_exist(
    preferences: Float[Array, "k k"], law: Float[Array, "k k"], linked: Bool[Array, "k k"], link: Link
) -> Bool[Array, ""]:
    """Whether finite scores do: where chains of wins lead from each answer of a component to all others of it."""
    if not link.bounded:
        return jnp.ones((), bool)
    return jnp.all(reached((law > 0) & (preferences > 0)) == linked)


def warm_scores(
    preferences: Float[Array, "k k"],
    law: Float[Array, "k k"],
    linked: Bool[Array, "k k"],
    link: Link,
    start: Float[Array, " k"],
) -> tuple[Float[Array, " k"], Float[Array, ""]]:
    """`zero_divergence_scores` from scores that are close already: plain steps, without a search along them.

    Derivatives, forward and reverse, are those of the equation.

    Returns:
        Scores, and the largest entry of what they leave unsolved, sum_j q_ij R_ij / sum_j q_ij; inf where steps did not
        become small.
    """
    law = off_diagonal(law)
    degrees = jnp.sum(law, axis=1)
    degrees = jnp.where(degrees > 0, degrees, 1)
    small = SMALL * jnp.sqrt(jnp.finfo(law.dtype).eps)

    def step(state):
        point, _, count = state
        along = _newton_direction(preferences, law, linked, link, point)
        return point + jnp.clip(along, -LONGEST, LONGEST), jnp.max(jnp.abs(along)), count + 1

    def going_on(state):
        _, moved, count = state
        return (moved > small) & (count < MAX_STEPS)

    def search(start):
        if link is LINKS["ipo"]:
            return step((start, 0, 0))[0], jnp.zeros((), start.dtype)  # linear: the first step ends the search
        point, moved, _ = lax.while_loop(going_on, step, (start, jnp.asarray(jnp.inf, start.dtype), 0))
        return point, moved

    def divergence(u):
        return _divergence(preferences, law, link, u)

    point, moved = root(divergence, start, search, partial(_inverse_laplacian, linked))
    unsolved = jnp.max(jnp.abs(_divergence(preferences, law, link, point) / degrees))
    return point, jnp.where(moved <= small, unsolved, jnp.inf)


def fitted_parameter(
    differences: Float[Array, "s d"], preferences: Float[Array, " s"], masses: Float[Array, " s"], link: Link
) -> tuple[Float[Array, " d"], Bool[Array, ""]]:
    """w with sum_e m_e (P_e - mean(z_e . w)) z_e = 0, in the range of the features; and whether the search converged.

    Args:
        differences: z, (S, d), a row per pair.
        preferences: P_e, (S,), that the first of the pair is preferred.
        masses: m_e >= 0, (S,), any scale; 0 for padding.
        link: how the loss reads a preference.

    Directions that no pair differs in are left at 0. The rank of sum m z z^T is judged once, at 1e-9 of its largest
    eigenvalue (1e-5 in float32): slopes that fall to 0 on the way to infinity are no lack of rank. Derivatives, forward
    and reverse, are those of the equation, in that range.
    """
    masses = masses / jnp.maximum(jnp.max(masses), jnp.finfo(masses.dtype).tiny)
    cut = 1e-9 if differences.dtype == jnp.float64 else 1e-5
    values, vectors = jnp.linalg.eigh(lax.stop_gradient(contract("sd,s,se->de", differences, masses, differences)))
    kept = values > cut * values[-1]
    basis = vectors * jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)[None]
    rest = jnp.diag(jnp.where(kept, 0, 1).astype(basis.dtype))

    def gradient(w):
        gaps = contract("sd,d->s", differences, w)
        return contract("s,sd->d", masses * (preferences - link.mean(gaps)), differences)

    def search(_):
        return _parameter_searched(differences, preferences, masses, link, basis, rest)

    def inverse(change, right):
        matrix = jax.jacfwd(change)(jnp.zeros(basis.shape[:1], right.dtype))
        matrix = contract("ad,ab,be->de", basis, matrix, basis) - rest
        return contract("de,e->d", basis, jnp.linalg.solve(matrix, contract("de,d->e", basis, right)))

    found, converged = root(gradient, jnp.zeros_like(differences[0]), search, inverse)
    return found, converged > 0


def _parameter_searched(differences, preferences, masses, link, basis, rest):
    """w, and whether the search converged."""
    rows = contract("sd,de->se", differences, basis)  # in these units sum m z z^T = 1

    def objective(v):
        gaps = contract("sd,d->s", rows, v)
        return jnp.sum(masses * (link.integral(gaps) - preferences * gaps))

    def information(v):
        slopes = link.slope(contract("sd,d->s", rows, v))
        return contract("sd,s,se->de", rows, masses * slopes, rows) + rest

    def direction(v):
        right = contract("s,sd->d", masses * (preferences - link.mean(contract("sd,d->s", rows, v))), rows)
        return jnp.linalg.solve(information(v), right)

    found, converged = newton(objective, direction, jnp.zeros_like(differences[0]))
    if link.bounded:  # along what separates the labels slopes fall without end, until rounding ends the search
        converged &= jnp.linalg.eigvalsh(information(found))[0] > 0.1 * jnp.sqrt(jnp.finfo(masses.dtype).eps)
    return contract("de,e->d", basis, found), converged


def newton(
    objective: Callable[[Array], Array], direction: Callable[[Array], Array], start: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    """Minimum of a convex function by Newton's method, each step at the best of sixteen lengths. Traceable.

    It ends with the first full step that is small enough for the error after it, about its square, to be rounding.
    """
    lengths = jnp.asarray(STEPS, start.dtype)
    small = SMALL * jnp.sqrt(jnp.finfo(start.dtype).eps)

    def going_on(state):
        _, moved, count = state
        return (moved > small) & (count < MAX_STEPS)  # NaN ends it too

    def step(state):
        point, _, count = state
        along = direction(point)
        moved = jnp.max(jnp.abs(along)) / (1 + jnp.max(jnp.abs(point)))
        values = jax.vmap(lambda t: objective(point + t * along))(lengths)
        best = lengths[jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))]
        # the objective cannot tell lengths of small steps apart
        length = jnp.where(moved <= jnp.sqrt(small), 1, best)
        return point + length * along, moved, count + 1

    initial: Any = (start, jnp.asarray(jnp.inf, start.dtype), 0)
    point, moved, _ = lax.while_loop(going_on, step, initial)
    return point, moved <= small
