"""What votes in clusters say of a share: its interval, the evidence against one half, and how many votes decide.

Votes on one prompt resemble each other, so prompts are the units. Everything is float64 on the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from jaxdesign import _checks


class Clustering(NamedTuple):
    """By how much votes on the same prompt repeat each other."""

    effect: float  # the design effect deff, at least 1: so many votes say as much as one independent vote
    freedom: float  # degrees of freedom it was estimated with; inf where there was nothing to estimate


def clustering(wins: Float[np.ndarray, " p"], votes: Float[np.ndarray, " p"]) -> Clustering:
    """Variance of the share s = sum x / sum n between prompts, over that of so many independent votes.

        deff = [P / (P - 1) sum_p (x_p - s n_p)^2 / V^2] / [s (1 - s) / (V - 1)],   V = sum_p n_p

    The first is the variance of a ratio of sums whatever the numbers of votes n_p; the second is unbiased for
    independent votes, so that deff is exactly 1 where every prompt has one vote. It is taken as at least 1: below, it
    is chance, or ties, and an interval narrower than that of independent votes would rest on it. Where it cannot be
    estimated, with one prompt or all votes on one side, it is sum n^2 / V, which counts every prompt as one vote.

    Args:
        wins: (P,) x, from 0 to n.
        votes: (P,) n, at least 1.

    Source: Rao and Scott 1992, doi:10.2307/2532311; the bounds are derived; checked by
    tests/dynamics/test_proportions.py.
    """
    prompts, total = len(votes), votes.sum()
    if votes.max() == 1:
        return Clustering(1.0, np.inf)
    share = wins.sum() / total
    if prompts == 1 or not 0 < share < 1:
        return Clustering(float((votes**2).sum() / total), np.inf)
    spread = prompts / (prompts - 1) * ((wins - share * votes) ** 2).sum() / total**2
    return Clustering(max(float(spread / (share * (1 - share) / (total - 1))), 1.0), prompts - 1.0)


def checked_level(level: Any) -> float:
    """The error allowed, in (0, 1); TypeError or ValueError otherwise."""
    level = _checks.number(level, "level")
    if not 0 < level < 1:
        raise ValueError(f"level={level:g}: must be above 0 and below 1; it is the error allowed, .05 for instance")
    return level


def quantile(level: float, freedom: float = np.inf) -> float:
    """q with probability 1 - level between -q and q: of Student's t, or of the normal law where freedom is inf."""
    tail = 1 - level / 2
    return float(special.ndtri(tail) if np.isinf(freedom) else special.stdtrit(freedom, tail))


def wilson_interval(share: float, votes: float, q: float) -> tuple[float, float]:
    """The shares s0 that `votes` independent votes do not refute: votes (share - s0)^2 <= q^2 s0 (1 - s0).

        (share n + q^2 / 2 +- q (n share (1 - share) + q^2 / 4)^(1/2)) / (n + q^2)

    Args:
        share: observed.
        votes: n above 0, need not be whole: effective votes V / deff of clustered ones.
        q: `quantile`.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953; checked by tests/dynamics/test_proportions.py.
    """
    centre = share * votes + q**2 / 2
    half = q * np.sqrt(votes * share * (1 - share) + q**2 / 4)
    return float((centre - half) / (votes + q**2)), float((centre + half) / (votes + q**2))


def above_half(wins: float, losses: float) -> float:
    """P(share > 1/2 | votes) under Jeffreys' prior Beta(1/2, 1/2): I_(1/2)(losses + 1/2, wins + 1/2)."""
    return float(special.betainc(losses + 0.5, wins + 0.5, 0.5))


def log_e_value(leads: Float[np.ndarray, " p"]) -> float:
    """Log of the wealth from betting against the mean of independent leads being 0, started at 1.

        e = integral over bets b in (-1, 1) of prod_p (1 + b y_p) db / (pi (1 - b^2)^(1/2))

    Each factor has mean 1 under the null whatever the law of y_p in [-1, 1], so e is a martingale and exceeds 1 / level
    at any time with probability at most `level`: one may look after every prompt and stop when one likes. For y = +-1,
    V of them 1, e = 2^n B(1/2 + V, 1/2 + n - V) / B(1/2, 1/2), the Bayes factor of Beta(1/2, 1/2) against 1/2. Factors
    of prompts and not of votes: those on one prompt are no independent evidence.

    Args:
        leads: (P,) y in [-1, 1], one per prompt.

    Numerics: Gauss-Chebyshev, which is exact for this polynomial at P // 2 + 1 nodes; a sum of positive terms.
    Complexity: P / 2 times the number of different leads.
    Source: betting on bounded means, arXiv 2010.09686; the mixture is derived; checked by
    tests/dynamics/test_proportions.py.
    """
    nodes = len(leads) // 2 + 1
    bets = np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
    wealth = np.zeros(nodes)
    for lead, count in zip(*np.unique(leads, return_counts=True), strict=True):
        wealth += count * np.log1p(lead * bets)
    return float(special.logsumexp(wealth) - np.log(nodes))


def votes_for_interval(share: float, q: float) -> float:
    """The least number of independent votes with this share whose Wilson interval leaves out 1/2; inf at 1/2.

    n (2 share - 1)^2 > q^2, solved for n.
    """
    lead = abs(2 * share - 1)
    return np.inf if lead == 0 else float(np.floor((q / lead) ** 2) + 1)


def votes_for_e_value(share: float, level: float, spread: float = 1.0) -> float:
    """About how many effective votes with this share have an e-value of 1 / level; inf at 1/2.

    n K - log(pi n spread / 2) / 2 = log(1 / level), Laplace's approximation of the integral over bets, K the relative
    entropy of the share to 1/2, is solved by Lambert's function: n = -W_-1(-4 K level^2 / (pi spread)) / (2 K). K is
    written in 2 share - 1 so that nothing cancels near 1/2.

    Args:
        share: observed.
        level: of the decision.
        spread: sum of the squared leads over the number of effective votes; 1 for single votes.
    """
    lead = min(abs(2 * share - 1), 1 - 1e-15)
    entropy = (np.log1p(-(lead**2)) + lead * (np.log1p(lead) - np.log1p(-lead))) / 2
    if entropy == 0:
        return np.inf
    # beyond the branch point -1/e the level is so high that any number of votes would do
    argument = max(-4 / np.pi * entropy * level**2 / spread, -np.exp(-1) * (1 - 1e-9))
    return float(-special.lambertw(argument, -1).real / (2 * entropy))
