"""What the noise of finite rounds does: how far from the fixed point policies wander for ever."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray, contract
from jaxdesign.dynamics.fixed_point import solved_for
from jaxdesign.dynamics.graphs import centred_columns, components, is_connected, solved
from jaxdesign.dynamics.link_fit import zero_divergence_scores
from jaxdesign.dynamics.links import LINKS
from jaxdesign.dynamics.one_round import answer_covariance, jacobian, pair_law
from jaxdesign.dynamics.plan import LoopPlan, in_dtype, refuse_several
from jaxdesign.dynamics.preferences import as_preferences, in_its_dtype, on_host, per_draw

DOUBLINGS = 40  # the noise of 2^40 rounds is summed
FORGOTTEN = 1e-3  # of a first round's noise, after so many: or it is never forgotten


class RoundNoise(NamedTuple):
    """What `round_noise` found.

    Args:
        kl: (...) stationary mean of KL(pi* || pi_t), nats, to first order in 1 / n; inf where rho >= 1, nan where no
            fixed point was found.
        covariance: (..., K, K) stationary covariance of log pi (less its mean); inf and nan likewise.
        labels: n, labels a round.
    """

    kl: Float[Array, "*n"]
    covariance: Float[Array, "*n k k"]
    labels: Any

    def labels_for(self, kl: Any) -> Any:
        """Labels a round for which the stationary mean is `kl` (above 0), nats: kl n is the same for every n."""
        if not _arrays.is_traced(kl):
            kl = _checks.positive_finite(kl, "kl", "the stationary mean that is wanted")
        return self.kl * self.labels / kl


def round_noise(preferences: Float[AnyArray, "*n k k"], plan: LoopPlan, labels_per_round: Any) -> RoundNoise:
    """How far rounds of n labels each wander from the fixed point: V = J V J^T + Sigma, KL = tr(S V) / 2.

        Sigma = strength^2 / (2 n) L_{q mean'}^+ L_{q v} L_{q mean'}^+,   v_ij = P_ij (1 - P_ij) + R_ij^2

    J is the round's Jacobian at pi*, S = diag(pi*) - pi* pi*^T, R the residual that no scores explain; labels are drawn
    from the round's law q (pairs of an answer with itself, which teach nothing, included). For IPO, all answers the
    policy's own and P near 1/2 it is strength^2 / (16 n) sum_k 1 / (1 - alpha^2 - (strength omega_k)^2): noise grows
    without bound at the threshold where rounds begin to circle, and keeps circles going below it.

    Args:
        preferences: P, (..., K, K); leading axes are draws.
        plan: of the loop, alpha below 1.
        labels_per_round: n, above 0.

    Returns:
        RoundNoise; float64 for inputs on the host unless preferences are float32.

    Raises:
        ValueError: alpha = 1, labels_per_round not positive, preferences or plan that do not fit together.

    Traceable.

    Source: derived; checked by tests/dynamics/test_round_noise.py against simulated rounds.
    """
    refuse_several(plan)
    if not _arrays.is_traced(plan.alpha) and not float(plan.alpha) < 1:
        raise ValueError(f"plan.alpha={float(plan.alpha):g}: rounds have no fixed point; pass alpha below 1")
    if not _arrays.is_traced(labels_per_round):
        labels_per_round = _checks.positive_finite(labels_per_round, "labels_per_round", "labels in a round")
    preferences = as_preferences(preferences)
    with in_its_dtype(preferences, plan, labels_per_round):
        preferences = jnp.asarray(preferences)
        used = in_dtype(plan, preferences.shape[-1], preferences.dtype)
        return on_host(_mapped(preferences, used, jnp.asarray(labels_per_round, preferences.dtype)))


@jax.jit
def _mapped(preferences, plan, labels):
    found = per_draw(lambda one: _of_one(one, plan), preferences)
    return RoundNoise(found[0] / labels, found[1] / labels, labels)


def _of_one(preferences, plan):
    """KL and covariance for one label a round."""
    end = solved_for(preferences, plan)
    policy = end.log_policy
    top = jnp.argmax(policy)  # log pi less this entry: noise of answers hardly ever drawn would drown a mean

    def against_top(matrix):
        return matrix - matrix[top][None, :]

    change = against_top(jacobian(policy, preferences, plan))
    noise = label_noise(preferences, pair_law(policy, plan), LINKS[plan.loss])
    noise = plan.strength**2 * against_top(against_top(noise).T)

    def doubled(_, state):
        change, covariance = state
        covariance = covariance + contract("ij,jk,lk->il", change, covariance, change)
        return contract("ij,jk->ik", change, change), covariance

    after, covariance = jax.lax.fori_loop(0, DOUBLINGS, doubled, (change, noise))
    spread = answer_covariance(jnp.exp(policy))
    fades = jnp.all(jnp.abs(after) <= FORGOTTEN)  # False for NaN, to which powers overflow; a maximum may skip it
    kl = jnp.where(fades, jnp.sum(spread * covariance) / 2, jnp.inf)
    covariance = covariance - jnp.mean(covariance, axis=0)[None, :]
    covariance = jnp.where(fades, covariance - jnp.mean(covariance, axis=1)[:, None], jnp.inf)
    return jnp.where(end.converged, kl, jnp.nan), jnp.where(end.converged, covariance, jnp.nan)


def label_noise(preferences, law, link) -> Float[Array, "k k"]:
    """Covariance of the scores of a round, times its number of labels: sandwich of `round_noise`, for a law of sum 1.

    The sum counts pairs of an answer with itself, on the law's diagonal or left out of it.
    """
    linked = components(law)
    scores, residual, _ = zero_divergence_scores(preferences, law, link)
    slopes = law * link.slope(scores[:, None] - scores[None, :])
    variance = law * (preferences * (1 - preferences) + jnp.square(residual))
    middle = jnp.diag(jnp.sum(variance, axis=1)) - variance
    half = _columns(linked, solved(slopes, linked, middle))
    return _columns(linked, solved(slopes, linked, half.T)) / 2


def _columns(linked, found):
    """Up to a constant where one component joins all, as its mean would be that of the noisiest."""
    return jnp.where(is_connected(linked), found, centred_columns(linked, found))
