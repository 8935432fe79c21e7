"""Is the next on-policy round safe: the local rate, certificates for all starts, and a simulation from one."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdesign import _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.dynamics.certificates import (
    Certificates,
    Evidence,
    certificates,
    evidence,
    locally_safe_for_all,
    safe_for_all,
)
from jaxdesign.dynamics.fixed_point import FixedPoint, fixed_point
from jaxdesign.dynamics.iterate import Trajectory, iterate
from jaxdesign.dynamics.loop_gain import eigenvalues, loop_gain
from jaxdesign.dynamics.one_round import feedback, is_closed
from jaxdesign.dynamics.plan import LoopPlan, in_dtype
from jaxdesign.dynamics.preferences import (
    as_log_policy,
    as_preferences,
    in_its_dtype,
    per_draw,
    refuse_other_draws,
)

CLOSE = 1e-6  # largest difference of a probability to the fixed point's that counts as having got there


class Stability(NamedTuple):
    """What `stability` found; NumPy arrays, (...) the axes of draws.

    Args:
        fixed_point: where rounds would end.
        rho: (...) spectral radius of a round's Jacobian there. Below 1: starts that are close enough get there, at rho
            a round. It proves nothing about other starts. NaN, as omega and period, where no fixed point was found.
        omega: (...) gain of the loop, the largest |eigenvalue - alpha| per unit of strength times share; for IPO on
            mixed answers rho^2 = alpha^2 + (strength share omega)^2.
        period: (...) rounds per turn of the slowest direction, 2 pi over the angle of its eigenvalue; inf: no turning.
        certificates: the three conditions, each sufficient for all starts.
        evidence: (...) numbers of `Evidence`: on what convergence rests. NONE where rho is below 1 and nothing else; a
            simulation counts where rho is below 1 only, as rounds that begin at a fixed point stay, stable or not.
        probability: share of draws with rho below 1.
        proven: share of draws with a certificate.
        safe_for_all: whether alpha + strength share s / 2 < 1: a certificate for any preferences whatever (IPO on mixed
            answers).
        locally_safe_for_all: whether strength share s < pi sqrt(1 - alpha^2): rho < 1 for any preferences whatever (IPO
            on mixed answers).
        largest_share: (...) largest share of the policy's own answers that a certificate allows at this strength, 1 at
            most.
        largest_strength: (...) largest strength that a certificate allows at this share; inf for share 0.
        simulated: `iterate` from the start that was given; None without one.
    """

    fixed_point: FixedPoint
    rho: Float[np.ndarray, "*n"]
    omega: Float[np.ndarray, "*n"]
    period: Float[np.ndarray, "*n"]
    certificates: Certificates
    evidence: Int[np.ndarray, "*n"]
    probability: float
    proven: float
    safe_for_all: bool
    locally_safe_for_all: bool
    largest_share: Float[np.ndarray, "*n"]
    largest_strength: Float[np.ndarray, "*n"]
    simulated: Trajectory | None

    @property
    def converges(self) -> Bool[np.ndarray, "*n"]:
        """(...) whether a certificate, or a simulation, says that rounds end at the fixed point."""
        return np.asarray(self.evidence != Evidence.NONE)


def stability(
    preferences: Float[AnyArray, "*n k k"],
    plan: LoopPlan,
    start: Float[AnyArray, "*m k"] | None = None,
    *,
    steps: int = 3000,
) -> Stability:
    """Whether rounds of a plan end at their fixed point, and what that rests on.

    The local criterion is exact: the Jacobian's eigenvalues at the fixed point, for IPO on mixed answers alpha +- i
    strength share omega_k in closed form. It is never called stable: a fixed point may attract its surroundings while
    rounds from the reference policy circle for ever (tests/dynamics/test_stability.py has such a case with rho = 0.82).
    Only certificates speak of all starts, and a simulation of the one it began at.

    Args:
        preferences: P, (..., K, K); leading axes are draws, as of `estimate_preferences`.
        plan: of the loop, alpha below 1.
        start: log pi of the policy at hand up to a constant, (K,) or with the axes of draws: simulated where no
            certificate holds for every draw. None: nothing is simulated.
        steps: rounds of the simulation.

    Returns:
        Stability; what is known of each draw.

    Raises:
        TypeError: traced arguments: eigenvalues are found on the host.
        ValueError: alpha = 1; as `fixed_point` and `iterate`.

    Source: arXiv 2602.12180 (C1; the threshold of the symmetric three-cycle); the local criterion, C1r and C2 derived;
    checked by tests/dynamics/test_stability.py.
    """
    _checks.concrete("dynamics.stability", preferences, plan, start, name="preferences, plan or start")
    preferences = as_preferences(preferences)
    if start is not None:  # also where no simulation will need it
        refuse_other_draws(as_log_policy(start, preferences.shape[-1], "start"), 1, preferences, "start")
    end = fixed_point(preferences, plan)
    with in_its_dtype(preferences):
        used = in_dtype(plan, preferences.shape[-1], preferences.dtype)
        turning, proofs, known = _local(jnp.asarray(preferences), jnp.asarray(end.log_policy), used)
        turning, proofs, known = jax.tree.map(np.asarray, (turning, proofs, known))
    found, known = end.converged, np.where(end.converged, known, Evidence.NONE)
    if is_closed(plan):
        spectrum = 1j * turning[..., None]
    else:
        spectrum = eigenvalues(np.where(found[..., None, None], turning, 0))
    spectrum = np.where(found[..., None], spectrum, np.nan)
    gain = float(plan.strength) * float(plan.share)
    moved = float(plan.alpha) + gain * spectrum
    slowest = np.take_along_axis(moved, np.abs(moved).argmax(-1)[..., None], -1)[..., 0]
    rho = np.abs(slowest)
    with np.errstate(divide="ignore"):
        period = 2 * np.pi / np.abs(np.angle(slowest))
    simulated = None
    if start is not None and (known == Evidence.NONE).any():
        simulated = iterate(preferences, plan, start, steps=steps)
        away = np.abs(np.exp(simulated.log_policy) - np.exp(end.log_policy)).max(-1)
        known = np.where((known == Evidence.NONE) & (away <= CLOSE) & (rho < 1), Evidence.SIMULATED, known)
    share = float(plan.share)
    largest_strength = proofs.largest_gain / share if share > 0 else np.full_like(proofs.largest_gain, np.inf)
    return Stability(
        fixed_point=end,
        rho=rho,
        omega=np.abs(spectrum).max(-1),
        period=period,
        certificates=proofs,
        evidence=known,
        probability=float(np.mean(rho < 1)),
        proven=float(np.mean(known > Evidence.SIMULATED)),
        safe_for_all=safe_for_all(plan),
        locally_safe_for_all=locally_safe_for_all(plan),
        largest_share=np.minimum(proofs.largest_gain / float(plan.strength), 1),
        largest_strength=largest_strength,
        simulated=simulated,
    )


@jax.jit
def _local(preferences, policies, plan):
    """What turns at the fixed point: omega in closed form, or else G; certificates; the evidence they are."""

    def one(preferences, policy):
        own = plan.temper * policy
        turning = plan.temper * loop_gain(preferences, own) if is_closed(plan) else feedback(policy, preferences, plan)
        found = certificates(preferences, plan)
        return turning, found, evidence(found)

    return per_draw(one, preferences, policies)
