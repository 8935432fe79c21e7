"""What infinitely many labels of a pair law would train in one round."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray, contract
from jaxdesign.dynamics.graphs import components, is_connected, off_diagonal
from jaxdesign.dynamics.link_fit import fitted_parameter, zero_divergence_scores
from jaxdesign.dynamics.links import LINKS
from jaxdesign.dynamics.preferences import (
    as_log_policy,
    as_pair_law,
    as_preferences,
    in_its_dtype,
    on_host,
    refuse_apart,
    refuse_other_draws,
)


class RoundOptimum(NamedTuple):
    """What `round_optimum` found.

    Args:
        log_policy: (..., K) log pi of the optimum, normalised.
        scores: u, (..., K), mean 0 (over each component of a law that is not connected); log pi - log pi_ref is
            strength u up to a constant.
        residual: R_ij = P_ij - mean(u_i - u_j), (..., K, K): what no scores explain. It has no divergence under the
            law.
        parameter: w, (d,), where features were given: u_i - u_j = z_ij . w. None otherwise.
        connected: whether chains of pairs with positive mass join all answers of a prompt: True for laws on the host
            without features, others are refused. Where a traced law is not, scores of different components cannot be
            compared, and what is given compares their means as equal; features that prompts share may do without.
        converged: whether the scores solve the equations. False for "dpo" where no finite scores do: some answers are
            never beaten by the others.
    """

    log_policy: Float[Array, "*n k"]
    scores: Float[Array, "*n k"]
    residual: Float[Array, "*n k k"]
    parameter: Float[Array, " d"] | None
    connected: Bool[Array, "*n"]
    converged: Bool[Array, "*n"]


def round_optimum(
    preferences: Float[AnyArray, "*n k k"],
    pair_law: Float[AnyArray, "*m k k"],
    log_reference: Float[AnyArray, "*l k"] | None,
    *,
    loss: str,
    strength: Any,
    differences: Float[AnyArray, "*n k k d"] | None = None,
) -> RoundOptimum:
    """The policy that minimises the expected loss of labels of pairs drawn from any pair law.

        sum_j q_ij (P_ij - mean(u_i - u_j)) = 0,  log pi = log pi_ref + strength u;   mean(m) = 1/2 + m (IPO), sigma(m)
        (DPO)

    IPO in closed form: h = strength L_q^+ (q o A) 1, A = P - 1/2, L_q = diag(q 1) - q, the part of A that is a gradient
    under q (HodgeRank); for q = mu mu^T it is strength A mu. With features z_ij, u_i - u_j = z_ij . w and
    sum_{i<j} q_ij (P_ij - mean(z_ij . w)) z_ij = 0, all prompts sharing w. DPO's optimum is the same for every law if
    and only if P is Bradley-Terry, P_ij = sigma(s_i - s_j); IPO's if and only if it is additive, P_ij = 1/2 + s_i -
    s_j.

    Args:
        preferences: P, (..., K, K), P_ij = Pr(i beats j); the diagonal does not count. Leading axes are draws, or
            prompts.
        pair_law: q, (K, K) or with the axes of draws, symmetric masses of any scale; the diagonal does not count.
            `mu[:, None] * mu` for answers drawn independently from mu; the labels of a design.
        log_reference: log pi_ref up to a constant, (K,) or with the axes of draws; None: uniform.
        loss: "ipo" or "dpo".
        strength: above 0, 1 / tau of IPO, 1 / beta of DPO.
        differences: z_ij = phi_i - phi_j, (..., K, K, d): one w for all leading axes. None: every answer has its score.

    Returns:
        RoundOptimum; float64 for inputs on the host unless preferences are float32, in the dtype of preferences where
        they are traced. Directions of w that no pair differs in are 0.

    Raises:
        ValueError: shapes or draws that do not fit, P_ij + P_ji other than 1, a law that is negative or not symmetric,
            or that leaves answers apart whose scores nothing else compares (it says which), loss unknown, strength not
            positive.

    Traceable.

    Source: arXiv 2602.12180 for product laws; any pair law derived; checked by tests/dynamics/test_round_optimum.py
    against direct minimisation of the loss.
    """
    if loss not in LINKS:
        raise ValueError(f"loss={loss!r}: expected one of {', '.join(map(repr, LINKS))}")
    if not _arrays.is_traced(strength):
        strength = _checks.positive_finite(strength, "strength", "1 / tau of IPO or 1 / beta of DPO")
    preferences = as_preferences(preferences)
    size = preferences.shape[-1]
    law = as_pair_law(pair_law, size)
    reference = as_log_policy(log_reference, size, "log_reference")
    refuse_other_draws(law, 2, preferences, "pair_law")
    refuse_other_draws(reference, 1, preferences, "log_reference")
    if differences is None and not _arrays.is_traced(law):
        refuse_apart(np.asarray(law, preferences.dtype), "pair_law")
    if differences is not None:
        _checks.rank(differences, (preferences.ndim + 1,), "differences", "of preferences, and the features' d")
        _checks.same_shape(differences.shape[:-1], preferences.shape, "differences", "in front of the features' d")
    with in_its_dtype(preferences, law, reference, strength, differences):
        preferences = jnp.asarray(preferences)
        law, reference, strength = (jnp.asarray(a, preferences.dtype) for a in (law, reference, strength))
        if differences is None:
            return on_host(_tabular(preferences, law, reference, strength, loss=loss))
        differences = jnp.asarray(differences, preferences.dtype)
        return on_host(_of_features(preferences, law, reference, strength, differences, loss=loss))


@partial(jax.jit, static_argnames="loss")
def _tabular(preferences, law, reference, strength, *, loss):
    def one(preferences, law, reference):
        found = zero_divergence_scores(preferences, law, LINKS[loss])
        policy = jax.nn.log_softmax(reference + strength * found.scores)
        return policy, found.scores, found.residual, is_connected(components(law)), found.converged

    shapes = "(k,k),(k,k),(k)->(k),(k),(k,k),(),()"
    lead, size = preferences.shape[:-2], preferences.shape[-1]
    law, reference = jnp.broadcast_to(law, preferences.shape), jnp.broadcast_to(reference, (*lead, size))
    policy, scores, residual, joined, converged = jnp.vectorize(one, signature=shapes)(preferences, law, reference)
    return RoundOptimum(policy, scores, residual, None, joined, converged)


@partial(jax.jit, static_argnames="loss")
def _of_features(preferences, law, reference, strength, differences, *, loss):
    link, dim = LINKS[loss], differences.shape[-1]
    law = jnp.broadcast_to(law, preferences.shape)
    rows = differences.reshape(-1, dim)
    parameter, converged = fitted_parameter(rows, preferences.reshape(-1), law.reshape(-1), link)
    gaps = contract("...d,d->...", differences, parameter)
    scores = jnp.mean(gaps, axis=-1)  # over j of u_i - u_j
    residual = off_diagonal(preferences - link.mean(gaps))
    policy = jax.nn.log_softmax(jnp.broadcast_to(reference, scores.shape) + strength * scores)
    joined = jnp.vectorize(lambda law: is_connected(components(law)), signature="(k,k)->()")(law)
    return RoundOptimum(policy, scores, residual, parameter, joined, jnp.broadcast_to(converged, joined.shape))
