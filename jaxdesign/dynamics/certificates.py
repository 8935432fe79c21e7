"""Sufficient conditions for rounds to end at the fixed point from any start."""

from __future__ import annotations

import enum
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxdesign._arrays import contract
from jaxdesign.dynamics.one_round import is_closed
from jaxdesign.dynamics.plan import LoopPlan
from jaxdesign.dynamics.preferences import advantages

LARGEST_LOOP_GAIN = 1 / np.pi  # omega of any preferences and policy


class Evidence(enum.IntEnum):
    """What convergence rests on.

    Args: NONE: nothing but the local rate, which proves nothing about starts that are not close. SIMULATED: rounds from
    one start were computed and ended at the fixed point. C1, C1R, C2: a certificate, for all starts.

    Source: C1 arXiv 2602.12180; C1R and C2 derived; checked by tests/dynamics/test_certificates.py.
    """

    NONE = 0
    SIMULATED = 1
    C2 = 2
    C1R = 3
    C1 = 4


class Certificates(NamedTuple):
    """Three conditions on the gain g = strength share, each sufficient where it is below 1; inf where it says nothing.

    Args:
        c1: alpha + g s ||C A C||_2 / 2: a contraction of log pi in the Euclidean norm, as softmax is Lipschitz with
            1/2.
        c1r: alpha + g s L: a contraction in the range max - min, as total variation is at most a quarter of it.
        c2: (g L)^2 / (alpha (1 - alpha)): KL(pi* || pi) shrinks by alpha or more every round (three-point identity and
            Pinsker); at 1 it still does. For temper s = 1 only.
        largest_gain: the largest g that one of them allows, at this alpha.
    """

    c1: Float[Array, "*n"]
    c1r: Float[Array, "*n"]
    c2: Float[Array, "*n"]
    largest_gain: Float[Array, "*n"]


def spread(preferences: Float[Array, "k k"]) -> Float[Array, ""]:
    """L = max |A_ik - A_il - A_jk + A_jl| / 4 over answers: how much more i can gain on j from one rival than another.

    At most max |A| <= 1/2; the largest range of a difference of two rows, over 4. O(K^3) operations, O(K^2) memory.
    """
    rows = advantages(preferences)

    def widest(row):
        gains = row[None, :] - rows
        return jnp.max(jnp.max(gains, axis=1) - jnp.min(gains, axis=1))

    return jnp.max(lax.map(widest, rows)) / 4


def cyclic_norm(preferences: Float[Array, "k k"]) -> Float[Array, ""]:
    """||C A C||_2, C = I - 11^T / K: the part of A that no scores explain (uniform weights)."""
    part = advantages(preferences)
    means = jnp.mean(part, axis=1)
    part = part - means[:, None] + means[None, :]
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(contract("ki,kj->ij", part, part))[-1], 0))


def certificates(preferences: Float[Array, "k k"], plan: LoopPlan) -> Certificates:
    """`Certificates` of one matrix and a plan in its dtype: for IPO on mixed answers, and wherever share = 0.

    With share = 0 a round moves log pi by a constant and alpha times what it was: a contraction for all losses. For DPO
    and mixed pairs with share > 0 no certificate is known.

    Source: c1 arXiv 2602.12180; c1r and c2 derived; checked by tests/dynamics/test_certificates.py.
    """
    gain = plan.strength * plan.share
    if not is_closed(plan):
        nothing = jnp.where(gain == 0, plan.alpha, jnp.inf)
        return Certificates(nothing, nothing, jnp.asarray(jnp.inf, gain.dtype), jnp.zeros_like(gain))
    narrow, norm = spread(preferences), cyclic_norm(preferences)
    c1 = plan.alpha + gain * plan.temper * norm / 2
    c1r = plan.alpha + gain * plan.temper * narrow
    room = plan.alpha * (1 - plan.alpha)
    plain = plan.temper == 1
    c2 = jnp.where(plain & (room > 0), jnp.square(gain * narrow) / jnp.where(room > 0, room, 1), jnp.inf)
    largest = jnp.maximum(
        (1 - plan.alpha) / (plan.temper * jnp.minimum(narrow, norm / 2)),
        jnp.where(plain & (room > 0), jnp.sqrt(room) / narrow, 0),
    )
    return Certificates(c1, c1r, c2, jnp.where(plan.alpha < 1, largest, 0))


def evidence(found: Certificates) -> Array:
    """The first of C1, C1R and C2 that holds by more than rounding, as a number of `Evidence`."""
    below = 1 - 1e4 * jnp.finfo(found.c1.dtype).eps
    c2 = jnp.where(found.c2 <= below, Evidence.C2.value, Evidence.NONE.value)
    return jnp.where(found.c1 < below, Evidence.C1.value, jnp.where(found.c1r < below, Evidence.C1R.value, c2))


def safe_for_all(plan: LoopPlan) -> bool:
    """Whether rounds end at their fixed point from any start for all preferences: C1r with L = 1/2, its largest value.

    Without feedback (share = 0) for every loss, wherever alpha < 1; for DPO preferences of 0 and 1 aside, which may
    have no scores to teach. On the host.
    """
    gain, alpha = float(plan.strength) * float(plan.share), float(plan.alpha)
    if not is_closed(plan):
        return gain == 0 and alpha < 1
    return alpha + gain * float(plan.temper) / 2 < 1


def locally_safe_for_all(plan: LoopPlan) -> bool:
    """Whether rho < 1 at the fixed point for all preferences: strength share s < pi sqrt(1 - alpha^2). On the host.

    It rests on omega <= 1 / pi, Pick's bound on the eigenvalues of a skew matrix with entries of at most 1/2.
    """
    gain, alpha = float(plan.strength) * float(plan.share), float(plan.alpha)
    if not is_closed(plan):
        return gain == 0 and alpha < 1
    return bool(gain * float(plan.temper) * LARGEST_LOOP_GAIN < np.sqrt(1 - alpha**2))
