"""What a plan of rounds says, and what it has where it says nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxdesign import _checks
from jaxdesign.belief import held_belief
from jaxdesign.budget.budget import Budget
from jaxdesign.preference.round_residuals import checked_variance
from jaxdesign.residual import SLOPE

# What a plan has where it says nothing of residuals and of pairs drawn at random. In bench/experiments/real_pools this
# one left less of the gap than a plan without a residual and with a quarter at random, for a linear reward and for a
# judge's but in one case of sixteen; with judges the cap gains a little more, with a linear reward far less.
RESIDUAL: float | str | None = 1 / SLOPE  # costs a label of the median pair, at margin 0, as much as its own noise
FLOOR = 0.0


@dataclass(frozen=True, eq=False)
class RoundPlan:
    """How many labels each round has and how it is designed.

    A residual makes fits smaller: labels of margins m + delta have chances of nearly sigma(m / k), k^2 = 1 + pi v / 8
    at the median pair (k = 2.2 at v = 10), and a fit that knows none finds rewards that are too small by about k.
    Nothing here takes that back: posterior, draws and H are those of the plain fit, which a policy trained on these
    labels has too. `RoundsResult.residual.shrinkage` is k. What a label tells, in designs and in predicted gaps, is
    what the residual leaves of it.

    Args:
        totals: labels of each round, whole and positive; two rounds are the usual case.
        prior: what is known of the reward parameter before any label: its precision, (d, d) or a scalar ridge above 0;
            or a `Belief`, or what holds one, such as a posterior, or the `ImpliedPrior` of a policy that was trained as
            the next one will be.
        beta: strength of the policy's KL term.
        budget: limits that hold in every round; its total is not used, its per_pair must be 1 (over all rounds: no
            pair is asked about twice), or with residual=None may be None.
        draws: posterior draws over which later rounds average.
        floor: share of each round that is drawn at random, in [0, 1): labels of all kinds of pairs, to check the
            features by or to train something else on.
        stop_gap: rounds end where the predicted gap is at most this; None: after the last.
        residual: what features leave unexplained of margins, by which long pairs are worth less (`residual_of`): a
            variance v at the median pair, by default 8 / pi, where a label of it counts half; "cap", no pair counts for
            more than the median one; "pilot", the first round is designed with the cap, and v then estimated from its
            labels (`estimate_residual`), or the cap kept where they do not tell, as they hardly do where no pair has
            several labels (of several annotators, say). None: none but the pool's own. With one, budget.per_pair must
            be 1.

    Raises:
        ValueError: totals that are no positive whole numbers, a prior that is not positive definite, a budget whose
            per_pair is neither 1 nor None, or with a residual not 1, other values out of range.

    Source: derived; checked by tests/preference/test_rounds.py and tests/preference/test_round_residuals.py.
    """

    totals: tuple[int, ...]
    prior: Any
    beta: float = 1.0
    budget: Budget = field(default_factory=lambda: Budget(1, per_pair=1))
    draws: int = 4
    floor: float = FLOOR
    stop_gap: float | None = None
    residual: float | str | None = RESIDUAL

    def __post_init__(self):
        totals = np.asarray(self.totals, np.float64)
        if totals.ndim != 1 or not totals.size or not ((totals >= 1) & (totals == np.round(totals))).all():
            raise ValueError(
                f"totals={self.totals}: expected one positive whole number of labels per round, as (100, 300)"
            )
        belief = held_belief(self.prior)
        prior = np.asarray(self.prior if belief is None else belief.precision, np.float64)
        if prior.ndim:
            prior = _checks.symmetric_psd(prior, len(prior), "prior")
        elif not np.isfinite(prior):
            raise ValueError(f"prior={prior:g}: must be finite and above 0")
        if not (prior > 0 if prior.ndim == 0 else np.linalg.eigvalsh(prior)[0] > 0):
            found = (
                f"{float(prior):g}" if prior.ndim == 0 else f"smallest eigenvalue {np.linalg.eigvalsh(prior)[0]:.3g}"
            )
            raise ValueError(
                f"prior: {found} found; must be positive definite, so that few labels give a posterior at all"
            )
        _checks.positive_finite(self.beta, "beta", "the strength of the policy's KL term")
        if not 0 <= self.floor < 1:
            raise ValueError(f"floor={self.floor:g}: must be at least 0 and below 1")
        if self.draws != int(self.draws) or self.draws < 1:
            raise ValueError(f"draws={self.draws}: expected a whole number of at least 1")
        if self.stop_gap is not None:
            _checks.positive_finite(
                self.stop_gap, "stop_gap", "the predicted gap that is small enough; None: no such rule"
            )
        if self.budget.per_pair is not None and not (np.asarray(self.budget.per_pair) == 1).all():
            raise ValueError(f"budget.per_pair={self.budget.per_pair}: rounds keep track of 1 or None only")
        object.__setattr__(self, "residual", checked_variance(self.residual))
        if self.residual and self.budget.per_pair is None:
            raise ValueError(
                f"budget.per_pair=None: residual={self.residual!r} is shared by all labels of a pair, so repeats carry "
                "less than their sum and are not designed; use per_pair=1, or residual=None"
            )
