"""Where rounds end: the policy that one more round leaves as it is."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxdesign import _arrays
from jaxdesign._arrays import AnyArray, contract
from jaxdesign.dynamics.one_round import feedback, is_closed, knows_scores, taught
from jaxdesign.dynamics.plan import LoopPlan, in_dtype, refuse_several
from jaxdesign.dynamics.preferences import advantages, as_preferences, entropy, in_its_dtype, on_host, per_draw

LENGTHS = 12  # halvings of a Newton step that are tried at once
MAX_STEPS = 200


class FixedPoint(NamedTuple):
    """What `fixed_point` found.

    Args:
        log_policy: (..., K) log pi*, normalised.
        entropy: (...) of pi*, nats.
        least, most: (..., K) bounds on pi* that need no search: for IPO on mixed answers; 0 and 1 otherwise.
        residual: (...) largest entry of x - x_ref - kappa u, less its mean, at what was found: 0 at the fixed point.
        converged: (...) whether the residual is rounding. False for DPO where an answer never loses, where pairs of
            next to no mass alone join answers, and where the search ends early: now and then, where the pull is in the
            thousands or temper in the tens.
    """

    log_policy: Float[Array, "*n k"]
    entropy: Float[Array, "*n"]
    least: Float[Array, "*n k"]
    most: Float[Array, "*n k"]
    residual: Float[Array, "*n"]
    converged: Bool[Array, "*n"]


def fixed_point(preferences: Float[AnyArray, "*n k k"], plan: LoopPlan) -> FixedPoint:
    """The one policy that a round leaves as it is: x = x_ref + kappa u(x), kappa = strength / (1 - alpha).

    With u the scores that the round's labels teach: IPO on mixed answers has u = A mu(x), and pi* prop. to
    pi_ref exp(kappa A (share softmax(s x*) + (1 - share) pi_0)), the logit equilibrium of a zero-sum game: exactly one,
    for all preferences, shares and alpha < 1, since <log pi - log pi', pi - pi'> > 0 for pi != pi' and
    (pi - pi')^T A (pi - pi') = 0. It depends on alpha and strength through kappa alone, and is found by Newton's method
    (the matrix I - kappa share G is never singular), not by iterating rounds, which need not end there (`stability`).
    For DPO and mixed pairs a fixed point exists; that there is no other is not proven, but at share = 0.

    Bounds: log-odds of answer i over j gain between kappa d_ij and kappa D_ij over the reference's, d_ij (D_ij) =
    share min_k (max_k) (P_ik - P_jk) + (1 - share) sum_k pi_0k (P_ik - P_jk): least_i = 1 / (1 + sum_{j != i}
    (ref_j / ref_i) exp(-kappa d_ij)). An answer that beats all others in every comparison with a third is so bounded
    from below, and close to 1 where kappa is large: the near-collapse of a loop that hardly returns to its reference.

    Args:
        preferences: P, (..., K, K); leading axes are draws.
        plan: alpha below 1; strength, share and so on.

    Returns:
        FixedPoint; float64 for inputs on the host unless preferences are float32.

    Raises:
        ValueError: alpha = 1, where rounds end nowhere in the interior or circle (`iterate` shows which); traced, NaN.
            Preferences or plan that do not fit together.

    Traceable.

    Source: arXiv 2602.12180 (fixed point of IPO); uniqueness, Newton's method and bounds derived; checked by
    tests/dynamics/test_fixed_point.py.
    """
    refuse_several(plan)
    if not _arrays.is_traced(plan.alpha) and not float(plan.alpha) < 1:
        raise ValueError(
            f"plan.alpha={float(plan.alpha):g}: without a pull to the reference no round leaves a policy as it is; "
            "pass alpha below 1, or see with `iterate` whether rounds collapse or spiral"
        )
    preferences = as_preferences(preferences)
    with in_its_dtype(preferences, plan):
        preferences = jnp.asarray(preferences)
        return on_host(_mapped(preferences, in_dtype(plan, preferences.shape[-1], preferences.dtype)))


@jax.jit
def _mapped(preferences, plan):
    return per_draw(lambda one: solved_for(one, plan), preferences)


def solved_for(preferences: Float[Array, "k k"], plan: LoopPlan) -> FixedPoint:
    """`fixed_point` of one matrix and a plan in its dtype."""
    kappa = plan.strength / jnp.where(plan.alpha < 1, 1 - plan.alpha, jnp.nan)
    sound = (kappa > 0) & jnp.isfinite(kappa)  # traced, it may be neither
    x, residual = _searched(*lax.stop_gradient((preferences, plan, kappa)), sound)
    # derivatives are those of one more Newton step, whatever way the search took; its value is rounding
    step = _newton_step(x, _defect(x, kappa, preferences, plan), kappa, preferences, plan)
    x = x + (step - lax.stop_gradient(step))
    rounding = 1e3 * jnp.finfo(x.dtype).eps * (1 + jnp.max(jnp.abs(x)) + kappa)
    policy = jax.nn.log_softmax(jnp.where(sound, x, jnp.nan))
    least, most = _bounds(preferences, plan, kappa)
    found = sound & (residual <= rounding)
    if not is_closed(plan):
        found &= knows_scores(x, preferences, plan)
    return FixedPoint(policy, entropy(policy), least, most, residual, found)


def _centred(x):
    return x - jnp.mean(x)


def _defect(x, pull, preferences, plan):
    return _centred(x - plan.reference - pull * taught(x, preferences, plan))


def _newton_step(x, missing, pull, preferences, plan):
    matrix = jnp.eye(len(x), dtype=x.dtype) - pull * plan.share * feedback(x, preferences, plan)
    return -_centred(jnp.linalg.solve(lax.stop_gradient(matrix), missing))


def _searched(preferences, plan, kappa, sound):
    """x, and the largest entry of what it leaves unsolved; no search where kappa is not sound."""
    dtype = preferences.dtype

    def defect(x, pull):
        return _defect(x, pull, preferences, plan)

    def newton(x, pull):
        def step(state):
            x, missing, _, count = state
            along = _newton_step(x, missing, pull, preferences, plan)
            lengths = jnp.exp2(-jnp.arange(LENGTHS, dtype=dtype))
            found = jax.vmap(lambda t: defect(x + t * along, pull))(lengths)
            sizes = jnp.sum(found * found, axis=1)  # what Newton's direction lowers
            best = jnp.argmin(jnp.where(jnp.isnan(sizes), jnp.inf, sizes))
            return x + lengths[best] * along, found[best], jnp.sum(missing * missing), count + 1

        def going_on(state):
            _, missing, before, count = state
            now = jnp.sum(missing * missing)
            return (now > 0) & (now < before) & (count < MAX_STEPS)

        x, missing, _, _ = lax.while_loop(going_on, step, (x, defect(x, pull), jnp.asarray(jnp.inf, dtype), 0))
        return x, jnp.max(jnp.abs(missing))

    # from a weak pull to the one asked for: policies that are nearly pure are out of reach of a first step
    doublings = jnp.where(sound, jnp.ceil(jnp.log2(jnp.maximum(kappa, 1))), -1)
    begun = (_centred(plan.reference), jnp.asarray(jnp.inf, dtype), doublings)
    x, residual, _ = lax.while_loop(
        lambda state: state[2] >= 0, lambda state: (*newton(state[0], kappa * jnp.exp2(-state[2])), state[2] - 1), begun
    )
    return x, residual


def _bounds(preferences, plan, kappa):
    size = len(preferences)
    if not is_closed(plan):
        return jnp.zeros_like(plan.reference), jnp.ones_like(plan.reference)
    gains = advantages(preferences)[:, None, :] - advantages(preferences)[None, :, :]  # P_ik - P_jk
    fixed = (1 - plan.share) * contract("ijk,k->ij", gains, plan.base)
    odds = plan.reference[None, :] - plan.reference[:, None]
    other = ~jnp.eye(size, dtype=bool)

    def share(gain):
        rest = jax.nn.logsumexp(jnp.where(other, odds - kappa * gain, -jnp.inf), axis=1)
        return jax.nn.sigmoid(-rest)

    smallest, largest = jnp.min(gains, axis=2), jnp.max(gains, axis=2)
    return share(plan.share * smallest + fixed), share(plan.share * largest + fixed)
