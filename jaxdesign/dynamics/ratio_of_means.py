"""A ratio of two means over the same units, with an interval by bootstrap over these. Float64 on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

TIED = 1e-12  # relative difference that the order of a sum makes
BATCH = 2**24  # units drawn at a time: 128 MB of indices


class Ratio(NamedTuple):
    """The ratio and its interval."""

    ratio: float
    low: float
    high: float


def ratio_of_means(
    above: Float[np.ndarray, " p"], below: Float[np.ndarray, " p"], *, level: float, resamples: int, seed: int
) -> Ratio:
    """mean(above) / mean(below) with its BCa interval: units are drawn again with replacement, both numbers together.

    Bounds are quantiles of the resampled ratios, at probabilities that take off median bias z0 and skewness a:

        Phi(z0 + (z0 + z) / (1 - a (z0 + z))),  z = Phi^-1(level / 2) and Phi^-1(1 - level / 2)

    z0 = Phi^-1 of the share of resampled ratios below the ratio, ties counted half; a = sum u^3 / (6 (sum u^2)^(3/2)),
    u the mean leave-one-out ratio less each of them. Of a ratio of means these are had in one pass, where a general
    jackknife takes P of them.

    Args:
        above: (P,) at least 0.
        below: (P,) at least 0, not all 0.
        level: probability left outside.
        resamples: how many.
        seed: of the draws.

    Returns:
        Ratio; with a single unit 0 and inf are all that can be said of it.

    Numerics: units with 0 in both have no part in the ratio and are not drawn, so that a ratio is never 0 / 0; it is
    inf where all of `below` is 0 in a resample. Units are sorted before, so that their order changes nothing. Memory:
    `BATCH` indices.
    Source: Efron 1987, doi:10.1080/01621459.1987.10478410; checked by tests/dynamics/test_ratio_of_means.py against
    scipy.
    """
    above, below = _sorted(above, below)
    ratio = float(above.sum() / below.sum())
    if len(above) == 1:
        return Ratio(ratio, 0.0, np.inf)
    with np.errstate(divide="ignore"):
        found = _resampled(above, below, resamples, seed)
        left_out = (above.sum() - above) / (below.sum() - below)
    equal = np.isclose(found, ratio, rtol=TIED, atol=0)  # few units: many draws are the units themselves, reordered
    bias = special.ndtri(((found < ratio) & ~equal).mean() + equal.mean() / 2)
    skewness = _acceleration(left_out)
    normal = bias + special.ndtri([level / 2, 1 - level / 2])
    probabilities = special.ndtr(bias + normal / (1 - skewness * normal))
    low, high = np.quantile(found, probabilities, method="inverted_cdf")  # does not interpolate to inf
    return Ratio(ratio, float(low), float(high))


def _sorted(above, below):
    some = (above > 0) | (below > 0)
    above, below = above[some], below[some]
    order = np.lexsort((above, below))
    return above[order], below[order]


def _resampled(above, below, resamples, seed):
    rng = np.random.default_rng(seed)
    units, found = len(above), []
    for start in range(0, resamples, step := max(1, BATCH // units)):
        drawn = rng.integers(0, units, (min(step, resamples - start), units))
        found.append(above[drawn].sum(axis=1) / below[drawn].sum(axis=1))
    return np.concatenate(found)


def _acceleration(left_out):
    if not np.isfinite(left_out).all():
        return 0.0
    apart = left_out.mean() - left_out
    squares = (apart**2).sum()
    return 0.0 if squares == 0 else float((apart**3).sum() / (6 * squares**1.5))
