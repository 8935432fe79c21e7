"""What choosing pairs can be worth, before a label is paid for: what random pairs leave, the least, the design's.

The policy that is trained on labels with information A, prior included, misses the best one in the features by
tr(H A^-1) / (2 beta) in expectation, and choosing pairs changes A and nothing else. So the gap that random pairs of
different completions leave, less the certified least that any choice of so many pairs leaves, bounds what choosing can
gain: the controllable part. It is often small, and knowing it costs seconds.

A forecast is about the belief: rewards are phi . w, w ~ N(m, Lambda^-1), Lambda being the prior. Where rewards are not
linear in the features, the pool's `Residual` says by how much, and labels are worth less in all three figures alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks
from jaxdesign._forecast_words import MATTERS, OUTSIDE, said, table, worth_of
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import analyse, information
from jaxdesign.belief import held_belief
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.required import without
from jaxdesign.certificates.evaluate import evaluated
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.criteria.trace import Trace
from jaxdesign.design import Design, Status
from jaxdesign.door import make_problem
from jaxdesign.exact.random_pairs import random_candidates
from jaxdesign.exact.select import select_pairs
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.believed import believed
from jaxdesign.pricing.checked import checked
from jaxdesign.pricing.source import Source
from jaxdesign.problem import Problem
from jaxdesign.targets import policy_target

RANDOM = "random pairs of different completions"


@dataclass(frozen=True, eq=False)
class Forecast:
    """What `forecast` found: expected policy gaps in units of J, those of the reward, one for each number of labels.

    Args:
        totals: (n,) numbers of labels, rising.
        nothing: the gap with no labels beyond the prior; inf where it is singular.
        even: (n,) the gap of labels spread evenly over all pairs, tr(H E[A]^-1) / (2 beta). By Jensen's inequality
            random pairs leave no less in the mean, `random - even` more.
        random: (n,) what random pairs of different completions leave, averaged over draws of pairs.
        random_error: (n,) standard error of that average; NaN with one draw.
        least: (n,) certified: no choice of so many pairs leaves less.
        design: (n,) what the pairs chosen by `select_pairs` leave.
        beta: strength of the policy's KL term.
        linear: whether rewards were taken to be linear in the features; False where the pool has a residual.

    Source: derived; checked by tests/test_forecasts.py.
    """

    totals: Float[np.ndarray, " n"]
    nothing: float
    even: Float[np.ndarray, " n"]
    random: Float[np.ndarray, " n"]
    random_error: Float[np.ndarray, " n"]
    least: Float[np.ndarray, " n"]
    design: Float[np.ndarray, " n"]
    beta: float
    linear: bool

    @property
    def controllable(self) -> Float[np.ndarray, " n"]:
        """random - least: no choice of pairs gains more over random ones in J; 0 where rounding would leave less."""
        return np.maximum(self.random - self.least, 0)

    @property
    def gained(self) -> Float[np.ndarray, " n"]:
        """random - design: what this design is expected to gain over random pairs in J."""
        return self.random - self.design

    def matters(self, worth: float = MATTERS) -> list[bool]:
        """For each number of labels, whether choosing can gain `worth` in J; False is proven, up to `random_error`."""
        worth = worth_of(worth)
        return [bool(most >= worth) for most in self.controllable]

    def verdicts(self, worth: float = MATTERS) -> list[str]:
        """For each number of labels one sentence: choosing cannot matter, is not expected to, or what it should gain.

        Raises:
            ValueError: a gain that is not above 0.
        """
        figures = zip(self.totals, self.random, self.least, self.design, strict=True)
        return [said(*row, worth_of(worth), RANDOM) for row in figures]

    def summary(self, worth: float = MATTERS) -> str:
        """A table, a sentence for each number of labels, and what the figures hold for.

        Args:
            worth: the gain in J below which choosing is said not to matter.

        Raises:
            ValueError: a gain that is not above 0.
        """
        random = [f"{r:.4g} +- {e:.1g}" for r, e in zip(self.random, self.random_error, strict=True)]
        columns = {"random leaves": random, "certified least": self.least, "design leaves": self.design}
        told = "linear in the features" if self.linear else "with the residual of the pool"
        return "\n".join(
            [
                f"expected gap to the best policy in the features, units of J, beta {self.beta:g}",
                *table(self.totals, columns),
                *self.verdicts(worth),
                f"These figures hold for the prior and for rewards {told}.",
                OUTSIDE,
            ]
        )


def forecast(
    pool: CompletionPool | Source,
    budget: Budget,
    totals: Sequence[float] | Float[np.ndarray, " n"],
    *,
    prior: Any,
    target: Any = None,
    beta: float = 1.0,
    draws: int = 8,
    seed: int = 0,
    callback: Callable[[float, Design], None] | None = None,
) -> Forecast:
    """What random pairs, the best choice and the design leave of the policy gap, by number of labels, before any label.

    All three are tr(H A^-1) / (2 beta), A = prior + sum_e n_e c_e z_e z_e^T: of random pairs of different completions
    the mean over draws of pairs, for the design that of its whole labels, and the least from the design's certificate.

    Args:
        pool: the pool, or a `pricing.Source`, with scores where margins are known and a `Residual` where rewards are
            not linear (then with `per_pair=1`).
        budget: what choices are allowed; its own total is not used.
        totals: numbers of labels, whole and rising.
        prior: what is known before labels, Lambda, as in `select_pairs`: the ridge of the fit (`implied_prior` for a
            policy that is trained). Forecasts depend on it more than on all else.
        target: H, (d, d); None: `policy_target(pool)`, of the policy that the mean of a `Belief` leads to.
        beta: strength of the policy's KL term, above 0.
        draws: of random pairs, at least 1; their spread gives `random_error`.
        seed: of the first draw, the next ones follow, and of `select_pairs`.
        callback: called with (total, Design) after each choice.

    Returns:
        Forecast.

    Raises:
        TypeError: what is neither a pool nor a source. ValueError: no totals or falling ones, draws below 1, beta not
            above 0, and as `select_pairs`.

    Numerics: float64. Pairs are never listed: what is drawn or chosen is, and a certificate is a pass over the pool.
    Complexity: `select_pairs` for each total; each draw 2 n d^2 + d^3 operations.
    Source: arXiv 2606.19607 (the trace); E tr(H A^-1) >= tr(H E[A]^-1) is Jensen's inequality; checked by
    tests/test_forecasts.py, by simulation too.
    """
    totals, beta, draws = checked_totals(totals), checked_beta(beta), checked_draws(draws)
    _checks.seed(seed)
    gap, pool, prior = asked_gap(pool, None, prior, target, beta)
    rows = []
    for total in totals:
        here = replace(budget, total=float(total))
        design = select_pairs(pool, gap, here, prior=prior, seed=seed)
        problem = make_problem(pool, gap, here, prior)
        rows.append(_row(problem, least_and_left(problem, gap, gap, design), draws, seed))
        if callback is not None:
            callback(float(total), design)
    return _forecast(pool, totals, rows, beta)


def forecast_beside(
    pool: CompletionPool | Source,
    crit: CriterionLike,
    budget: Budget,
    design: Design,
    *,
    prior: Any,
    target: Any = None,
    beta: float = 1.0,
    draws: int = 8,
    seed: int = 0,
) -> Forecast:
    """`forecast` for the one number of labels of a design that is there already.

    Args:
        pool, prior, target, beta, draws, seed: as in `forecast`; target None: that of the criterion, if it has one.
        crit, budget, design: what `select_pairs` was given, and what it chose.

    Returns:
        Forecast of one number of labels. Where the criterion is another one than the gap, the design is certified anew.

    Raises:
        TypeError, ValueError: as `forecast` and `evaluate`.

    Source: as `forecast`.
    """
    beta, draws = checked_beta(beta), checked_draws(draws)
    _checks.seed(seed)
    gap, pool, prior = asked_gap(pool, crit, prior, target, beta)
    problem = make_problem(pool, gap, budget, prior)
    row = _row(problem, least_and_left(problem, gap, crit, design), draws, seed)
    return _forecast(pool, np.array([budget.total], np.float64), [row], beta)


class _Row(NamedTuple):
    """tr(H A^-1) at no labels, even ones, random ones with the error of their mean; the least, and the design's."""

    nothing: float
    even: float
    random: float
    error: float
    least: float
    design: float


def _row(problem: Problem, certified: tuple[float, float], draws: int, seed: int) -> _Row:
    drawn = [value_at(problem, information(problem, random_candidates(problem, seed + one))) for one in range(draws)]
    error = np.std(drawn, ddof=1) / np.sqrt(draws) if draws > 1 and np.isfinite(drawn).all() else np.nan
    even = value_at(problem, problem.even)
    return _Row(value_at(problem, problem.prior), even, float(np.mean(drawn)), float(error), *certified)


def _forecast(pool, totals, rows: list[_Row], beta: float) -> Forecast:
    nothing, even, random, error, least, leaves = np.array(rows).T / (2 * beta)
    linear = getattr(pool, "residual", None) is None
    return Forecast(totals, float(nothing[0]), even, random, error, least, leaves, beta, linear)


def asked_gap(pool: Any, crit: Any, prior: Any, target: Any, beta: float) -> tuple[Trace, Any, Any]:
    """The criterion 2 beta times the gap, and pool and prior as designs take them.

    It is `crit` itself where that is a Trace and no other target is given, so that its certificates are the gap's.
    """
    pool = checked(pool)
    if target is None and isinstance(crit, Trace):
        return crit, *believed(pool, prior)
    if target is None:
        own = getattr(crit, "target", None)
        target = policy_target(pool, belief=held_belief(prior), beta=beta) if own is None else own
    return Trace(_checks.symmetric_psd(np.asarray(target, np.float64), pool.dim, "target")), *believed(pool, prior)


def least_and_left(problem: Problem, gap: Trace, crit: Any, design: Design) -> tuple[float, float]:
    """A bound below tr(H A^-1) of every allowed choice, and that of a design that was chosen for `crit`."""
    if crit is gap:
        return design.certificate.lower_bound, design.certificate.value
    free = without(problem.decided, Allocation(design.pairs, design.labels))
    found = evaluated(problem, free, Status.EVALUATED).design.certificate
    return found.lower_bound, found.value


def checked_beta(beta: float) -> float:
    """ValueError for a strength of the policy's KL term that is not above 0 and finite."""
    return _checks.positive_finite(beta, "beta", "the strength of the policy's KL term")


def checked_draws(draws: int) -> int:
    """ValueError for no draw of random pairs."""
    if draws < 1:
        raise ValueError(f"draws={draws}: at least one draw of random pairs is needed")
    return draws


def checked_totals(totals: Any) -> Float[np.ndarray, " n"]:
    """Rising numbers of labels, float64; ValueError for others or none."""
    totals = np.asarray(totals, dtype=np.float64)
    if totals.ndim != 1 or len(totals) == 0 or (np.diff(totals) <= 0).any():
        raise ValueError(f"totals={totals.tolist()}: expected a list of rising numbers of labels")
    return totals


def value_at(problem: Problem, matrix: Float[np.ndarray, "r d d"]) -> float:
    """The criterion at A; inf where that is singular."""
    value = analyse(problem, matrix).value
    return value if np.isfinite(value) else float("inf")
