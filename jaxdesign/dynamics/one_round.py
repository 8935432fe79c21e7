"""One round of a loop: who is compared, what the labels teach, the next policy, and its derivative.

Everything here is of one matrix of preferences P (K, K), one policy x = log pi (K,) up to a constant, and a plan whose
leaves are arrays (`plan.in_dtype`); traceable, batched by vmap.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxdesign._arrays import contract
from jaxdesign.dynamics.graphs import centred_columns, components, off_diagonal, solved
from jaxdesign.dynamics.link_fit import scores_exist, zero_divergence_scores
from jaxdesign.dynamics.links import LINKS
from jaxdesign.dynamics.plan import LoopPlan
from jaxdesign.dynamics.preferences import advantages


def own_answers(policy: Float[Array, " k"], plan: LoopPlan) -> Float[Array, " k"]:
    """softmax(temper x), no entry so small that a product of two is lost: what an answer hardly ever drawn is taught
    by its pairs does not depend on how seldom they are.
    """
    least = 1e3 * jnp.sqrt(jnp.finfo(policy.dtype).tiny)
    return jnp.maximum(jax.nn.softmax(plan.temper * policy), least)


def answer_covariance(chances: Float[Array, " k"]) -> Float[Array, "k k"]:
    """S(pi) = diag(pi) - pi pi^T."""
    return jnp.diag(chances) - chances[:, None] * chances[None, :]


def sampler(policy: Float[Array, " k"], plan: LoopPlan) -> Float[Array, " k"]:
    """mu = share softmax(temper x) + (1 - share) pi_0, for mixed answers."""
    return plan.share * own_answers(policy, plan) + (1 - plan.share) * plan.base


def pair_law(policy: Float[Array, " k"], plan: LoopPlan) -> Float[Array, "k k"]:
    """q of a round: mu mu^T for mixed answers, share pi pi^T + (1 - share) q_0 for mixed pairs; diagonal 0."""
    if plan.mix == "answers":
        answers = sampler(policy, plan)
        return off_diagonal(answers[:, None] * answers[None, :])
    own = own_answers(policy, plan)
    return off_diagonal(plan.share * own[:, None] * own[None, :] + (1 - plan.share) * plan.base)


def is_closed(plan: LoopPlan) -> bool:
    """Whether the scores of a round are A mu, with no system to solve: IPO on answers drawn independently."""
    return plan.loss == "ipo" and plan.mix == "answers"


def taught(
    policy: Float[Array, " k"],
    preferences: Float[Array, "k k"],
    plan: LoopPlan,
    start: Float[Array, " k"] | None = None,
) -> Float[Array, " k"]:
    """u, the scores of the round's optimum up to a constant; `start` is where their search begins."""
    if is_closed(plan):
        return contract("ij,j->i", advantages(preferences), sampler(policy, plan))
    return zero_divergence_scores(preferences, pair_law(policy, plan), LINKS[plan.loss], start).scores


def has_scores(preferences: Float[Array, "k k"], plan: LoopPlan) -> Bool[Array, ""]:
    """Whether finite scores are taught. It is the same for all policies, as the pairs that have any mass are."""
    law = pair_law(plan.reference, plan)
    return scores_exist(preferences, law, components(law), LINKS[plan.loss])


def knows_scores(policy: Float[Array, " k"], preferences: Float[Array, "k k"], plan: LoopPlan) -> Bool[Array, ""]:
    """Whether the scores taught at this policy are finite and have digits that rounding left them."""
    return zero_divergence_scores(preferences, pair_law(policy, plan), LINKS[plan.loss]).converged


def next_policy(policy: Float[Array, " k"], scores: Float[Array, " k"], plan: LoopPlan) -> Float[Array, " k"]:
    """alpha x + (1 - alpha) x_ref + strength u, with mean 0."""
    moved = plan.alpha * policy + (1 - plan.alpha) * plan.reference + plan.strength * scores
    return moved - jnp.mean(moved)


def feedback(policy: Float[Array, " k"], preferences: Float[Array, "k k"], plan: LoopPlan) -> Float[Array, "k k"]:
    """G with du = share G dx: how what labels teach follows the policy that is sampled, per unit of its share.

    Differentiating sum_j q_ij R_ij = 0, R_ij = P_ij - mean(u_i - u_j), along q gives L_{q mean'} du = (dq o R) 1 with

        mixed answers   (dq o R) 1 = share diag(mu) R dpi, dpi = s S(pi) dx      (diag(dmu) R mu = 0 at the optimum)
        mixed pairs     (dq o R) 1 = share [diag(R pi) + diag(pi) R] dpi

    for pi = softmax(s x), S(pi) = diag(pi) - pi pi^T. IPO on mixed answers is G = s A S(pi) up to constants.

    Source: derived; checked by tests/dynamics/test_one_round.py against finite differences.
    """
    own = own_answers(policy, plan)
    spread = plan.temper * answer_covariance(own)
    if is_closed(plan):
        change = contract("ij,jk->ik", advantages(preferences), spread)
        return change - jnp.mean(change, axis=0)[None, :]
    link, law = LINKS[plan.loss], pair_law(policy, plan)
    scores, residual, _ = zero_divergence_scores(preferences, law, link)
    if plan.mix == "answers":
        right = sampler(policy, plan)[:, None] * residual
    else:
        right = jnp.diag(contract("ij,j->i", residual, own)) + own[:, None] * residual
    linked = components(law)
    weights = law * link.slope(scores[:, None] - scores[None, :])
    found = solved(weights, linked, contract("ij,jk->ik", right, spread))
    return centred_columns(linked, found)


def jacobian(policy: Float[Array, " k"], preferences: Float[Array, "k k"], plan: LoopPlan) -> Float[Array, "k k"]:
    """J = alpha I + strength share G of the round's map on x, up to constants: `feedback` is G."""
    change = plan.strength * plan.share * feedback(policy, preferences, plan)
    return plan.alpha * jnp.eye(len(policy), dtype=policy.dtype) + change
