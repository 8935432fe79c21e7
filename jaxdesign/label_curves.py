"""What labels are worth: the criterion and the predicted policy gap as a function of their number, rule by rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxdesign._forecast_words import MATTERS, OUTSIDE, said, table, worth_of
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import analyse, information
from jaxdesign.baselines import ON_SOURCES, SELECTORS
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.required import without
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Design
from jaxdesign.door import make_problem
from jaxdesign.exact.select import select_pairs
from jaxdesign.forecasts import asked_gap, checked_beta, checked_totals, least_and_left
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.source import Source

ROUNDING = 1e-9  # relative difference of gaps that are the same
DESIGN = "design"  # the name of `select_pairs` among the rules


@dataclass(frozen=True, eq=False)
class LabelCurve:
    """What `label_curve` found; arrays have one row per number of labels and one column per seed.

    Args:
        totals: (n,) numbers of labels, rising.
        values: rule -> (n, s) criterion of its labels; inf where A is singular.
        gaps: rule -> (n, s) predicted policy gap tr(H A^-1) / (2 beta) of the same labels, in the unit of the reward.
        lower_bounds: (n,); no choice of so many whole labels has a smaller criterion.
        least: (n,) certified, in the unit of `gaps`: no choice of so many labels leaves a smaller policy gap.

    Source: derived; checked by tests/test_label_curves.py.
    """

    totals: Float[np.ndarray, " n"]
    values: dict[str, Float[np.ndarray, "n s"]]
    gaps: dict[str, Float[np.ndarray, "n s"]]
    lower_bounds: Float[np.ndarray, " n"]
    least: Float[np.ndarray, " n"]

    def summary(self, worth: float = MATTERS, against: str | None = None) -> str:
        """For each number of labels what a rule leaves, the certified least, what the design leaves, and a sentence.

        The sentence says whether choosing can gain `worth` in J over the rule; `forecast` says the same of the average
        of random pairs of different completions, without drawing seeds.

        Args:
            worth: the gain in J below which choosing is said not to matter.
            against: the rule that the design is compared with; None for the first of the curve's `rules`, which unless
                others were asked for is "random_distinct". "random" spends labels on equal completions, so that part of
                what choosing seems to gain over it is that of leaving them out (`preference.first_of_equals`).

        Raises:
            ValueError: a rule that is not on the curve, a gain that is not above 0; against=None where the curve has no
                rule but the design.
        """
        worth = worth_of(worth)
        if against is None:
            against = next((rule for rule in self.gaps if rule != DESIGN), None)
        if against is None:
            raise ValueError("against=None: the curve has the design alone; ask `label_curve` for a rule beside it")
        rule, design = (np.mean(self.gaps[self._known(name)], axis=1) for name in (against, DESIGN))
        columns = {f"{against} leaves": rule, "certified least": self.least, "design leaves": design}
        figures = zip(self.totals, rule, self.least, design, strict=True)
        lines = table(self.totals, columns) + [said(*row, worth, f"pairs by {against!r}") for row in figures]
        return "\n".join([*lines, OUTSIDE])

    def labels_needed(self, rule: str, gap: float) -> float:
        """Labels after which a rule's predicted gap, averaged over seeds, is at most `gap`.

        Between the numbers tried the gap is taken as a power of the number. NaN outside of the range tried.

        Raises:
            ValueError: a rule that is not on the curve.
        """
        gaps = np.minimum.accumulate(np.mean(self.gaps[self._known(rule)], axis=1))
        if not gaps[-1] * (1 - ROUNDING) <= gap <= gaps[0] * (1 + ROUNDING):
            return float("nan")
        after = int(np.argmax(gaps * (1 - ROUNDING) <= gap))
        if after == 0 or not np.isfinite(gaps[after - 1]) or gaps[after] == gaps[after - 1]:
            return float(self.totals[after])
        ends = slice(after - 1, after + 1)
        return float(np.exp(np.interp(-np.log(gap), -np.log(gaps[ends]), np.log(self.totals[ends]))))

    def labels_saved(self, total: float, rule: str = DESIGN, against: str = "random") -> float:
        """How many times fewer labels `rule` needs for the predicted gap that `against` has with `total` labels.

        NaN where that gap is outside of what the rule was tried for: add smaller totals to the curve.

        Raises:
            ValueError: a rule that is not on the curve, or a total that was not tried.
        """
        at = np.flatnonzero(self.totals == total)
        if not len(at):
            raise ValueError(
                f"total={total:g}: was not tried; choose one of {', '.join(f'{t:g}' for t in self.totals)}"
            )
        level = float(np.mean(self.gaps[self._known(against)][at[0]]))
        return total / self.labels_needed(rule, level)

    def _known(self, rule: str) -> str:
        if rule not in self.gaps:
            raise ValueError(f"rule={rule!r}: not on the curve, which has {', '.join(self.gaps)}")
        return rule


def label_curve(
    pool: CompletionPool | Source,
    crit: CriterionLike,
    budget: Budget,
    totals: Sequence[float] | Float[np.ndarray, " n"],
    *,
    prior: Any = None,
    rules: Sequence[str] = ("random_distinct", "random"),
    seeds: Sequence[int] = (0,),
    target: Any = None,
    beta: float = 1.0,
    callback: Callable[[str, float, Design], None] | None = None,
) -> LabelCurve:
    """Choose labels by `select_pairs` and by other rules for every number of labels, and predict what they are worth.

    The prediction is the expected policy gap of the policy trained on the labels, tr(H F^-1) beta / 2 with
    F = beta^2 A: tr(H A^-1) / (2 beta), to second order around the pool's scores (0 without). A holds the prior, so
    the prediction is for a policy trained with that prior as its regulariser.

    Args:
        pool, crit, budget, prior: as in `select_pairs`, `pricing.Source`s too; the budget's own total is not used.
        totals: numbers of labels to try, whole and rising.
        rules: names of `jaxdesign.baselines.SELECTORS` to compare with, of a source only those of ON_SOURCES there;
            the design itself comes first and always.
        seeds: for the rules that draw; the design is chosen once.
        target: H of the predicted gap; None for the criterion's own, or where it has none `policy_target(pool)`, of the
            policy that the mean of a `Belief` leads to where the prior is one.
        beta: strength of the policy's KL term, positive.
        callback: called with (rule, total, Design) after each choice.

    Returns:
        LabelCurve.

    Raises:
        TypeError: a rule that needs all features in memory, of a source; and as `select_pairs`.
        ValueError: no totals, totals that do not rise, an unknown rule, beta not positive, and as `select_pairs`.

    Source: arXiv 2606.19607 (matching upper and lower bounds with this trace); checked by
    tests/test_label_curves.py.
    """
    totals, beta = checked_totals(totals), checked_beta(beta)
    unknown = [rule for rule in rules if rule not in SELECTORS]
    if unknown:
        raise ValueError(f"rules: {unknown[0]!r} is unknown; choose of {', '.join(SELECTORS)}")
    held = [] if isinstance(pool, CompletionPool) else [rule for rule in rules if rule not in ON_SOURCES]
    if held:
        raise TypeError(
            f"rules: {held[0]!r} needs all features in memory, and a source was given; choose of "
            f"{', '.join(ON_SOURCES)}, or pass a CompletionPool as pool"
        )
    gap, pool, prior = asked_gap(pool, crit, prior, target, beta)
    chosen: Mapping[str, Callable] = {DESIGN: select_pairs} | {rule: SELECTORS[rule] for rule in rules}
    shape = len(totals), len(seeds)
    values, gaps = ({rule: np.full(shape, np.inf) for rule in chosen} for _ in range(2))
    bounds, least = np.zeros((2, len(totals)))
    for row, total in enumerate(totals):
        here = replace(budget, total=float(total))
        problem = make_problem(pool, gap, here, prior)
        for rule, choose in chosen.items():
            for column, seed in enumerate(seeds):
                if rule == DESIGN and column > 0:
                    values[rule][row, column], gaps[rule][row, column] = values[rule][row, 0], gaps[rule][row, 0]
                    continue
                design = choose(pool, crit, here, prior=prior, seed=seed)
                values[rule][row, column] = design.certificate.value
                if np.isfinite(design.certificate.value):
                    free = without(problem.decided, Allocation(design.pairs, design.labels))
                    matrix = information(problem, free)
                    gaps[rule][row, column] = analyse(problem, matrix).value / (2 * beta)
                if rule == DESIGN:
                    bounds[row] = design.certificate.lower_bound
                    least[row] = least_and_left(problem, gap, crit, design)[0] / (2 * beta)
                if callback is not None:
                    callback(rule, float(total), design)
    return LabelCurve(totals, values, gaps, bounds, least)
