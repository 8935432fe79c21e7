"""How many labels it takes to see a cycle of three answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import chdtri, chndtrinc

from jaxdesign import _checks


def labels_to_see_cycle(size: Any, *, level: float = 0.05, power: float = 0.8) -> Float[np.ndarray, "*n"]:
    """n = ncp / (12 a^2): labels per pair with which the additivity test sees P_12 = P_23 = P_31 = 1/2 + a.

    With every score equal the test's statistic is near a noncentral chi-square of one degree of freedom and ncp =
    3 n a^2 / (1/4). ncp is where that law exceeds the critical value, the chi-square quantile at 1 - level, with the
    wanted power: 7.848861 by default.

    Args:
        size: a, how far the three preferences are from 1/2; a number or an array, above 0 and at most 1/2.
        level: of the test, the probability of seeing a cycle where there is none.
        power: wanted probability of seeing the cycle, above the level and below 1.

    Returns:
        n, in the shape of `size`, not rounded; three pairs take 3 n labels in all.

    Raises:
        TypeError: a level or power that is no number.
        ValueError: values out of range.

    Source: derived; checked by tests/dynamics/test_labels_to_see_cycle.py.
    """
    size = np.asarray(size, np.float64)
    bad = ~((size > 0) & (size <= 0.5))
    if bad.any():
        raise ValueError(f"size={size[bad][0]:g}: must be above 0 and at most 1/2, as preferences are 1/2 + size")
    level, power = _checks.number(level, "level"), _checks.number(power, "power")
    if not 0 < level < 1:
        raise ValueError(f"level={level:g}: must be above 0 and below 1; 0.05 is usual")
    if not level < power < 1:
        raise ValueError(f"power={power:g}: must be above level={level:g} and below 1; 0.8 is usual")
    return np.asarray(chndtrinc(chdtri(1, level), 1, 1 - power) / (12 * size**2))
