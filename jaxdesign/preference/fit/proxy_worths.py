"""What a proxy is worth before a label is paid for: expected gaps with it in the fit and without, by its reliability.

How far a proxy can be trusted is not known beforehand, so it is asked for a range of correlations. Under a correlation
rho between the rewards of the features and phi . t, t the proxy's parameter of unit spread, the reward parameter is

    w ~ N(rho s t, (1 - rho^2) S),    S the prior's covariance, s^2 = tr(H S),

which leaves the spread s of rewards within prompts what the prior says it is. Training is pulled towards 0, by the
prior alone or by `proxy_belief`, and `expected_gap` says what either leaves after labels of random pairs, or of the
design for the same prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks
from jaxdesign._arrays import AnyArray
from jaxdesign._forecast_words import OUTSIDE, table
from jaxdesign.analysis import information
from jaxdesign.belief import Belief, as_belief
from jaxdesign.budget.budget import Budget
from jaxdesign.criteria.trace import Trace
from jaxdesign.door import make_problem
from jaxdesign.exact.random_pairs import random_candidates
from jaxdesign.exact.select import select_pairs
from jaxdesign.expected_gaps import expected_gap
from jaxdesign.forecasts import checked_beta, checked_draws, checked_totals
from jaxdesign.information import held_information
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.fit.proxy import proxy_belief
from jaxdesign.targets import policy_target

WAYS = ("random", "random with proxy", "design", "design with proxy")


@dataclass(frozen=True, eq=False)
class ProxyWorth:
    """What `proxy_worth` found: expected policy gaps in units of J.

    Args:
        totals: (n,) numbers of labels.
        correlations: (r,) of the rewards of the features with the proxy, within prompts.
        gaps: "random", "random with proxy", "design", "design with proxy" -> (n, r).
        nothing: (r,) the gap of the policy that training starts from; no label, no proxy.
        explained: the share of the proxy's variance that the features explain; the rest of it is not counted.

    Source: derived; checked by tests/preference/fit/test_proxy_worths.py.
    """

    totals: Float[np.ndarray, " n"]
    correlations: Float[np.ndarray, " r"]
    gaps: dict[str, Float[np.ndarray, "n r"]]
    nothing: Float[np.ndarray, " r"]
    explained: float

    def averaged(self, chances: Sequence[float] | Float[np.ndarray, " r"]) -> dict[str, Float[np.ndarray, " n"]]:
        """The same gaps averaged over how likely each correlation is held to be.

        Args:
            chances: (r,) at least 0, not all 0; divided by their sum.

        Raises:
            ValueError: another number of chances, or ones below 0.
        """
        weights = np.asarray(chances, np.float64)
        if weights.shape != self.correlations.shape or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
            raise ValueError(
                f"chances={weights.tolist()}: expected {len(self.correlations)} numbers of at least 0, one for each of "
                "the correlations"
            )
        return {way: gaps @ weights / weights.sum() for way, gaps in self.gaps.items()}

    def summary(self) -> str:
        """A table by correlation for every number of labels."""
        lines = [f"the features explain {self.explained:.0%} of the proxy; gaps in units of J, by correlation with it"]
        for place, total in enumerate(self.totals):
            columns = {"no label": self.nothing} | {way: self.gaps[way][place] for way in WAYS}
            lines += [f"{total:g} labels", *table(self.correlations, columns, "correlation")]
        return "\n".join([*lines, OUTSIDE])


def proxy_worth(
    pool: CompletionPool,
    proxy: Float[AnyArray, "p k"],
    budget: Budget,
    totals: Sequence[float] | Float[np.ndarray, " n"],
    *,
    prior: Any,
    correlations: Sequence[float] = (0.0, 0.3, 0.5, 0.8),
    tau: float | None = None,
    target: Float[AnyArray, "d d"] | None = None,
    beta: float = 1.0,
    draws: int = 4,
    seed: int = 0,
) -> ProxyWorth:
    """Expected gaps with the proxy in the fit (`proxy_belief`) and without, for random pairs and for designs.

    Args:
        pool: the pool; scores and a `Residual` count as in `forecast`.
        proxy: s, (P, K), as in `proxy_belief`.
        budget, totals, beta, draws, seed: as in `forecast`.
        prior: what is known without the proxy, of mean 0: a ridge, a precision or a `Belief`; regular.
        correlations: of the rewards with the proxy within prompts, each in (-1, 1).
        tau: spread that `proxy_belief` allows the proxy; None: s, all that the prior holds rewards to have.
        target: H, (d, d); None: `policy_target(pool)`.

    Returns:
        ProxyWorth.

    Raises:
        ValueError: correlations outside of (-1, 1), a prior with a mean or singular, and as `proxy_belief` and
            `forecast`.

    Numerics: float64.
    Complexity: two `select_pairs` for each total.
    Source: derived; checked by tests/preference/fit/test_proxy_worths.py, by simulation too.
    """
    totals, beta, draws = checked_totals(totals), checked_beta(beta), checked_draws(draws)
    _checks.seed(seed)
    rho = np.asarray(correlations, np.float64)
    if rho.ndim != 1 or not len(rho) or not (np.abs(rho) < 1).all():
        raise ValueError(f"correlations={rho.tolist()}: expected numbers above -1 and below 1")
    plain = as_belief(prior, pool.dim)
    if np.any(plain.mean):
        raise ValueError("prior: has a mean, from which training would start; pass prior.precision")
    H = np.asarray(policy_target(pool) if target is None else target, np.float64)
    covariance = plain.covariance
    size = float(np.sqrt(np.sum(H * covariance)))
    found = proxy_belief(pool, proxy, plain, tau=size if tau is None else tau)
    truths = [Belief.from_covariance((1 - r**2) * covariance, r * size * found.direction) for r in rho]
    nothing = np.array([expected_gap(truth, plain, np.zeros_like(H), H, beta) for truth in truths])
    gaps = {way: np.zeros((len(totals), len(rho))) for way in WAYS}
    for row, total in enumerate(totals):
        here = replace(budget, total=float(total))
        matrices = _random_information(pool, H, here, draws, seed)
        for belief, ending in ((plain, ""), (found.belief, " with proxy")):
            design = select_pairs(pool, Trace(H), here, prior=belief.precision, seed=seed)
            chosen = [np.asarray(held_information(pool, design.pairs, design.labels), np.float64)]
            for way, some in (("random", matrices), ("design", chosen)):
                left = [[expected_gap(truth, belief, matrix, H, beta) for truth in truths] for matrix in some]
                gaps[way + ending][row] = np.mean(left, axis=0)
    return ProxyWorth(totals, rho, gaps, nothing, found.explained)


def _random_information(pool, H, budget, draws, seed) -> list[Float[np.ndarray, "d d"]]:
    """Of labels on random pairs of different completions, drawn `draws` times, without a prior."""
    problem = make_problem(pool, Trace(H), budget)
    drawn = (random_candidates(problem, seed + one) for one in range(draws))
    return [problem.given_units(information(problem, allocation))[0] for allocation in drawn]
