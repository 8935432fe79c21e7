"""The plan with the same limit that gets there fastest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from jaxdesign import _checks
from jaxdesign.dynamics.one_round import is_closed
from jaxdesign.dynamics.plan import LoopPlan, refuse_several


class FasterPlan(NamedTuple):
    """What `fastest_plan` found.

    Args:
        plan: with the same fixed point.
        rho: spectral radius of its rounds there, below 1 always.
        step: eta, what a round of the old plan is scaled by: (alpha, strength) become (1 - eta (1 - alpha), eta
            strength). Below 1, stopping each round's training at eta of the way does the same.
    """

    plan: LoopPlan
    rho: float
    step: float


def fastest_plan(plan: LoopPlan, omega: Any) -> FasterPlan:
    """alpha* = 1 - 1 / (1 + g^2), strength* = kappa / (1 + g^2), rho* = g / sqrt(1 + g^2), g = kappa share omega.

    kappa = strength / (1 - alpha) is all that the fixed point depends on. Scaling a round by eta keeps it and gives
    rho^2 = (1 - eta (1 - alpha))^2 + (eta strength share omega)^2, least at eta = (1 - alpha) / ((1 - alpha)^2 +
    (strength share omega)^2). So there always is a plan whose fixed point attracts what is close to it.

    Args:
        plan: IPO on mixed answers, alpha below 1.
        omega: gain of its loop at the fixed point, a number at least 0 (`stability`); of several draws the largest.

    Returns:
        FasterPlan. It speaks of starts close to the fixed point: see `stability` of the new plan for others.

    Raises:
        ValueError: alpha = 1, omega that is negative or not finite, another loss or mix, whose Jacobian has no such
            form.

    Source: derived; checked by tests/dynamics/test_fastest_plan.py.
    """
    _checks.concrete("dynamics.fastest_plan", plan, omega, name="plan or omega")
    if not is_closed(plan):
        raise ValueError(f"plan: loss={plan.loss!r}, mix={plan.mix!r} found; expected 'ipo' and 'answers'")
    if np.ndim(omega) or not 0 <= float(omega) < np.inf:
        raise ValueError(f"omega={omega}: expected a number, at least 0 and finite; of several draws the largest")
    refuse_several(plan)
    alpha, strength, share = float(plan.alpha), float(plan.strength), float(plan.share)
    if not alpha < 1:
        raise ValueError(f"plan.alpha={alpha:g}: there is no fixed point to keep; pass alpha below 1")
    gain = strength * share * float(omega)
    kept = (1 - alpha) ** 2
    step = (1 - alpha) / (kept + gain**2)
    faster = replace(plan, alpha=1 - kept / (kept + gain**2), strength=step * strength)
    return FasterPlan(faster, float(gain / np.sqrt(kept + gain**2)), step)
