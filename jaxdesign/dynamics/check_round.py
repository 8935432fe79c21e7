"""All that can be said of a round before its labels are asked for: one report, with reasons, that changes nothing."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.dynamics.best_temper import Tempering, best_temper
from jaxdesign.dynamics.boundary_score import BoundaryScore, boundary_score
from jaxdesign.dynamics.certificates import Evidence
from jaxdesign.dynamics.fastest_plan import fastest_plan
from jaxdesign.dynamics.importance_weights import cost_of_weights, importance_weights, target_masses
from jaxdesign.dynamics.one_round import is_closed
from jaxdesign.dynamics.plan import LoopPlan
from jaxdesign.dynamics.sampler_shift import SamplerShift, sampler_shift
from jaxdesign.dynamics.stability import Stability, safe_for_all, stability
from jaxdesign.dynamics.stage_value import StageValue, stage_value
from jaxdesign.dynamics.weighted_fits import as_law
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.labels.labels import Labels, counted

LEVEL = 0.05  # of tests and intervals
FEW = 0.5  # effective share of labels, or mass reached, below which weights are a bad bargain


class BatchWeights(NamedTuple):
    """What weighting the labels of a batch, and those held before it, to the target law would cost.

    Args:
        effective: n_eff / n, in (0, 1].
        uncovered: mass of the target law on pairs that have no label: no weight reaches it.
        largest: weight of a label, in units of their mean.
    """

    effective: float
    uncovered: float
    largest: float


class Advice(NamedTuple):
    """One thing to do or to leave, and why.

    Args:
        about: "weights", "loop" or "stage".
        do: what to do.
        because: the numbers it rests on.
    """

    about: str
    do: str
    because: str


class RoundCheck(NamedTuple):
    """What `check_round` found; None for what it was not given the means to say.

    Args:
        weights: of this batch's labels, together with those held.
        shift: what weighting the held labels does to the policy, and whether noise explains it.
        tempering: how far weights should go, where the shift is more than noise.
        stability: of the loop, for the preferences given.
        safe_for_all: whether the loop ends at one policy from any start whatever the preferences are.
        score: whether on-policy answers win more than half.
        value: what a label of an on-policy pair is worth over one of this pool's.
        advice: one entry for weights, for the loop, and for the stage where it is known.
    """

    weights: BatchWeights
    shift: SamplerShift | None
    tempering: Tempering | None
    stability: Stability | None
    safe_for_all: bool
    score: BoundaryScore | None
    value: StageValue | None
    advice: tuple[Advice, ...]

    def summary(self) -> dict[str, Any]:
        """Numbers and reasons as JSON holds them, for a log or `run_rounds(check=)`: None for what is not finite."""
        found: dict[str, Any] = {"weights": self.weights._asdict(), "safe_for_all": self.safe_for_all}
        if self.shift is not None:
            names = ("statistic", "degrees", "p_value", "gap", "gap_interval", "effective", "uncovered", "converged")
            found["shift"] = {name: getattr(self.shift, name) for name in names}
        if self.tempering is not None:
            found["temper"] = self.tempering.temper
        if self.stability is not None:
            at = self.stability
            found["stability"] = {
                "largest_rho": np.fmax.reduce(np.ravel(at.rho)),  # of the draws whose fixed point was found
                "probability": at.probability,
                "proven": at.proven,
                "evidence": sorted({Evidence(int(code)).name for code in np.ravel(at.evidence)}),
            }
        for name, part in (("score", self.score), ("value", self.value)):
            if part is not None:
                found[name] = part._asdict()
        found["advice"] = [entry._asdict() for entry in self.advice]
        return _plain(found)


def check_round(
    pool: CompletionPool,
    batch: Any,
    plan: LoopPlan,
    *,
    beta: float,
    labels: Labels | None = None,
    target_law: Any = None,
    target: Float[np.ndarray, "d d"] | None = None,
    preferences: Float[AnyArray, "*n k k"] | None = None,
    start: Float[AnyArray, "*n k"] | None = None,
    votes: tuple[Any, Any] | None = None,
    on_pool: CompletionPool | None = None,
    crit: Any = None,
    prior: Any = None,
) -> RoundCheck:
    """Before a round: does the batch move the optimum, is the loop safe, should the next pairs be on-policy at all?

    It joins `importance_weights`, `sampler_shift`, `best_temper`, `stability`, `boundary_score` and `stage_value` and
    says what follows from them. Weights are advised where the shift is more than noise (p < 0.05 and a gap above 0), as
    far as `best_temper` says; a loop is called safe by certificates or simulation, never by its local rate; a stage is
    decided by the worth of labels where it is known, and by the score, which says less, where not.

    Args:
        pool: completions that the batch compares.
        batch: what is to be labelled: a Design, or anything with `pairs` (S, 3) and `labels` (S,).
        plan: of the loop the round is part of.
        beta: the price of KL, above 0.
        labels: `preference.Labels` held so far, of pairs of the pool; None: none, and nothing is said of shifts.
        target_law: law of pairs that matters, as in `importance_weights`; None: two completions of a prompt drawn at
            random, the policy's own pairs where the pool was sampled from it.
        target: H, as in `sampler_shift`.
        preferences: P of K answers, with draws in front (`estimate_preferences`); None: of the loop only what holds for
            any preferences is said.
        start: log pi to simulate from where no certificate holds, as in `stability`.
        votes: (on_wins, votes) of `boundary_score`; None: nothing is said of the score.
        on_pool: completions sampled from the current policy for the same prompts, with `crit` and `prior` as in
            `stage_value`; None: nothing is said of their worth.
        crit: the design's criterion.
        prior: information held.

    Returns:
        RoundCheck. Nothing else happens: designs, labels and weights stay as they are.

    Raises:
        TypeError: traced arguments; a batch without pairs and labels.
        ValueError: on_pool without crit or prior, and as the functions it joins.

    Source: derived; checked by tests/dynamics/test_check_round.py.
    """
    beta = _checks.positive_finite(beta, "beta", "the price of KL")
    if on_pool is not None and (crit is None or prior is None):
        raise ValueError("on_pool: needs crit, the design's criterion, and prior, the information held, beside it")
    law = as_law(pool, np.zeros(pool.mask.shape) if target_law is None else target_law, "target_law")
    held = None if labels is None else counted(labels)
    weights = _batch_weights(batch, held, law)
    shift = tempering = None
    if labels is not None and held is not None and len(held[0]):
        shift = sampler_shift(pool, labels, law, beta=beta, target=target)
        if shift.converged and shift.p_value < LEVEL and shift.gap > 0:
            tempering = best_temper(pool, labels, law, beta=beta, target=target)
    anchored = float(plan.alpha) < 1
    loop = stability(preferences, plan, start) if preferences is not None and anchored else None
    anyhow = safe_for_all(plan)
    score = None if votes is None else boundary_score(*votes, level=LEVEL)
    value = None if on_pool is None else stage_value(on_pool, pool, crit, prior, level=LEVEL)
    advice = (_on_weights(weights, shift, tempering), _on_loop(plan, loop, anyhow), _on_stage(score, value))
    given = tuple(entry for entry in advice if entry is not None)
    return RoundCheck(weights, shift, tempering, loop, anyhow, score, value, given)


def _batch_weights(batch, held, law) -> BatchWeights:
    """Of all labels there will be: the batch's and those held."""
    try:
        pairs, labels = np.asarray(batch.pairs), np.asarray(batch.labels, np.float64)
    except AttributeError:
        raise TypeError(f"batch: {type(batch).__name__} found; expected a Design, with pairs and labels") from None
    pairs, labels = pairs[labels > 0], labels[labels > 0]
    if held is not None:
        pairs, labels = np.concatenate([pairs, held[0]]), np.concatenate([labels, held[2]])
    if not len(pairs):
        raise ValueError("batch: no pair has labels; pass the batch that is to be labelled")
    pairs, where = np.unique(pairs, axis=0, return_inverse=True)
    labels = np.bincount(where.ravel(), labels)
    effective, largest = cost_of_weights(labels, importance_weights(pairs, labels, law))
    return BatchWeights(effective, max(0.0, 1 - float(target_masses(law, pairs).sum())), largest)


def _on_weights(weights, shift, tempering) -> Advice:
    reached = 1 - weights.uncovered
    cost = f"full weights would leave {weights.effective:.0%} of the labels and reach {reached:.0%} of the law"
    if shift is None:
        return Advice("weights", "leave the labels as they are", f"no label is held that could show a shift; {cost}")
    if not shift.converged:
        return Advice("weights", "leave the labels as they are", f"those held can be separated: no fit exists; {cost}")
    low, high = shift.gap_interval
    seen = f"weights shift the policy by {shift.gap:.3g} [{low:.3g}, {high:.3g}] in reward, p = {shift.p_value:.2g}"
    if tempering is None:
        return Advice("weights", "leave the labels as they are", f"{seen}: no more than noise; {cost}")
    what = f"weight the labels with temper {tempering.temper:g}" if tempering.temper > 0 else "look at the features"
    if min(weights.effective, 1 - weights.uncovered) < FEW:
        what += ", and label pairs at random too"
    return Advice(
        "weights", what, f"{seen}: the model is misspecified, and the design chooses in which direction; {cost}"
    )


def _on_loop(plan, loop, anyhow) -> Advice:
    if float(plan.alpha) == 1:
        why = "alpha = 1: nothing pulls rounds back, they collapse or spiral outward; `iterate` shows which"
        return Advice("loop", "take alpha below 1", why)
    if float(plan.share) == 0:
        return Advice("loop", "go on", "no answer is the policy's own: rounds have no feedback and cannot circle")
    if anyhow:
        return Advice(
            "loop", "go on", "alpha + strength share temper / 2 < 1: rounds end at one policy for any preferences"
        )
    if loop is None:
        why = "it holds for some preferences and not for others; pass preferences, as of estimate_preferences"
        return Advice("loop", "find out", why)
    unknown = np.isnan(loop.rho)
    if np.all(unknown):
        why = (
            "no fixed point was found: with DPO an answer that never loses has none, and pairs of next to no mass none"
        )
        return Advice("loop", "look at the preferences", f"{why} that rounding leaves")
    largest = np.nanmax(loop.rho)
    rates = f"rho is below 1 in {loop.probability:.0%} of the draws, at most {largest:.3g}"
    if np.any(unknown):
        rates += f", unknown in {np.mean(unknown):.0%}, where no fixed point was found"
    if np.all(loop.converges):
        names = ", ".join(sorted({Evidence(int(code)).name for code in np.ravel(loop.evidence)}))
        where = "from any start" if loop.proven == 1 else "from this start"
        return Advice("loop", "go on", f"rounds end at their fixed point {where} ({names}); {rates}")
    if largest >= 1:
        what = f"lower the share of the policy's own answers to {np.min(loop.largest_share):.2g}"
        if is_closed(plan):
            other = fastest_plan(plan, np.nanmax(loop.omega))
            now = f"alpha {float(other.plan.alpha):.3g}, strength {float(other.plan.strength):.3g}"
            what += f" or take {now}, which has the same limit and rho {other.rho:.3g}"
        return Advice("loop", what, f"the fixed point repels what is close to it; {rates}")
    proof = f"a certificate needs a share of {np.min(loop.largest_share):.2g} or less"
    return Advice(
        "loop", "simulate from the policy at hand", f"{rates}, which proves nothing for other starts; {proof}"
    )


def _on_stage(score, value) -> Advice | None:
    wins = "" if score is None else f"on-policy answers win {score.score:.0%} [{score.low:.0%}, {score.high:.0%}]"
    if value is not None:
        worth = (
            f"a label of an on-policy pair is worth {value.ratio:.2g} [{value.low:.2g}, {value.high:.2g}] of the pool's"
        )
        what = {1: "compare on-policy pairs", -1: "compare the pool's pairs", 0: "compare pairs of both"}[value.decided]
        return Advice("stage", what, "; ".join(part for part in (worth, wins) if part))
    if score is not None:
        what = {1: "compare on-policy pairs", -1: "compare the pool's pairs", 0: "ask for more votes"}[score.decided]
        return Advice("stage", what, f"{wins}; it says no more than who wins more often")
    return None


def _plain(value: Any) -> Any:
    """Dictionaries, lists, strings, booleans, integers and finite floats."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    number = float(value)
    return number if math.isfinite(number) else None
