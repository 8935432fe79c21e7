"""Whole labels under constraints that couple prompts, by integer programs (HiGHS, through SciPy).

The relaxed designs that are rounded here mix a few vertices of the allowed set, so that most labels are whole already
and the programs are easy: what is left over of each pair is rounded up or down, the scores deciding which.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jaxdesign._pairs import Allocation
from jaxdesign.budget.limits import Limits
from jaxdesign.budget.linear_program import constraint_rows

WHOLE = 1e-9  # a real label count this near above a whole number is that number
SECONDS = 20.0  # at most; the best labels found by then are taken


def most_scored(
    limits: Limits,
    pairs: Int[np.ndarray, "s 3"],
    scores: Float[np.ndarray, " s"],
    base: Float[np.ndarray, " s"],
    most: Float[np.ndarray, " s"],
) -> Float[np.ndarray, " s"] | None:
    """base + x with whole x, 0 <= x <= most, allowed, the sum of scores times x as large as possible; None where no
    such labels exist or are found in SECONDS.

    Args:
        limits: a budget's; its numbers are whole, but for what labels use of families.
        pairs: listed pairs.
        scores: of their labels.
        base: whole labels that they have in any case, within all largest limits.
        most: whole labels that each may get besides, within its cap.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows, low, high = constraint_rows(limits, pairs)
    used = rows @ base
    # scipy has no types, and its defaults make the checker take bounds for single numbers
    total = LinearConstraint(np.ones((1, len(pairs))), *[limits.total - base.sum()] * 2)
    program = milp(
        -scores / max(float(np.abs(scores).max()), 1e-300),
        integrality=np.ones(len(pairs)),
        bounds=Bounds(np.zeros(len(pairs)), most),  # pyright: ignore[reportArgumentType]
        constraints=[
            total,
            LinearConstraint(rows, low - used, high - used),  # pyright: ignore[reportArgumentType]
        ],
        options={"time_limit": SECONDS, "mip_rel_gap": 1e-4},
    )
    return None if program.x is None else base + np.rint(program.x)


def rounded(
    limits: Limits,
    allocation: Allocation,
    scores: Float[np.ndarray, " s"],
) -> Float[np.ndarray, " s"] | None:
    """Each label count rounded down or up, up where that gains most of `scores`.

    Where the constraints leave no such rounding, pairs may get up to three labels more, and then any number at all,
    those first that the design gives most; None where even that does not help.

    `labels`: of the design, within all largest limits (up to what `exact.choices.in_tasks` cuts off).
    """
    pairs, labels = allocation
    base = np.floor(labels + WHOLE)
    cap = np.minimum(np.floor(limits.per_pair[pairs[:, 0]]), limits.total)
    for extra in (1.0, 3.0):
        whole = most_scored(limits, pairs, scores, base, np.clip(cap - base, 0, extra))
        if whole is not None:
            return whole
    return most_scored(limits, pairs, labels + 1e-3 * scores, np.zeros(len(pairs)), cap)


def randomly_rounded(limits: Limits, allocation: Allocation, seed: int) -> Float[np.ndarray, " s"] | None:
    """As `rounded` with scores fraction - u, u uniform in (0, 1): as if each pair were rounded up with probability its
    fraction, as far as the constraints let it."""
    labels = allocation.labels
    fraction = labels - np.floor(labels + WHOLE)
    return rounded(limits, allocation, fraction - np.random.default_rng(seed).uniform(size=len(labels)))
