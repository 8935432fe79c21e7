"""The share of comparisons that on-policy answers win against off-policy ones, and how surely it is above one half."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks
from jaxdesign.dynamics import proportions


class BoundaryScore(NamedTuple):
    """What `boundary_score` found; shares and probabilities in [0, 1], float64.

    Args:
        score: BS, the share of votes for on-policy answers, flips of the scorer taken off.
        low, high: its interval at `level`, for a number of votes that was fixed beforehand.
        decided: 1 where on-policy answers win more than half, -1 where less, 0 where votes do not tell. It says no more
            than that: not which policy is the closer to an ideal one.
        evidence: what it is decided by: "e-value", which holds whenever one stops; "interval", which does not after
            looking several times; "none".
        log_e_value: natural log of the evidence against BS = 1/2; decides from log(1 / level) up.
        posterior: P(BS > 1/2 | votes) under Jeffreys' prior, from effective votes. No share of data to mix in.
        design_effect: deff, how many votes say as much as an independent one, at least 1.
        effective_votes: votes / deff.
        votes: V, all votes.
        prompts: P, prompts that have any.
        more_votes: beyond V, until the interval leaves out 1/2 at the present score and deff; 0 where it does, inf at
            exactly 1/2.
        more_votes_any_time: beyond V, until the e-value decides: about, and counted likewise.
    """

    score: float
    low: float
    high: float
    decided: int
    evidence: str
    log_e_value: float
    posterior: float
    design_effect: float
    effective_votes: float
    votes: float
    prompts: int
    more_votes: float
    more_votes_any_time: float


def boundary_score(on_wins: Any, votes: Any, *, level: float = 0.05, flip: float = 0.0) -> BoundaryScore:
    """Do on-policy answers win more than half of their comparisons with off-policy answers to the same prompts?

        BS = sum_p x_p / sum_p n_p,  an estimate of  pi_on^T P pi_off,  P_ij = Pr(i beats j)

    "Wins more than half" is all that it says. It is not closeness to the ideal policy: for rewards (2, 0, -2), the
    ideal policy softmax(2, 0, -2), on-policy (.97, .02, .01) and off-policy (.8, .15, .05) it is .57, and yet on-policy
    is five times as far from the ideal in KL. Under Bradley-Terry preferences it rises along pi_t prop. to exp(t r),
    and crosses 1/2 once. To choose between on- and off-policy pairs use `stage_value`; this is a diagnostic.

    Prompts are the units. Interval: Wilson's with V / deff votes, and with Student's quantile for P - 1 degrees of
    freedom where deff is estimated. Evidence at any time: `proportions.log_e_value` of the leads
    (2 x_p - n_p) / max n, which for one vote a prompt is 2^n B(1/2 + V_on, 1/2 + n - V_on) / B(1/2, 1/2). It holds for
    votes per prompt, or their largest number, that were set before voting.

    A scorer that returns the wrong answer with probability `flip` pulls the score to one half:
    BS - 1/2 = (observed - 1/2) / (1 - 2 flip), and so its interval; more votes are needed by 1 / (1 - 2 flip)^2, and
    the sign stays. A preference for a position or for length is no flip and is not removed: score both orders, and
    calibrate the scorer on labels.

    Args:
        on_wins: (P,) votes for the on-policy answer on each prompt, from 0 to `votes`; a tie counts 1/2.
        votes: (P,) whole numbers of votes, at least 0; prompts without any are left out. Two votes on a prompt may be
            on the same pair or on different ones.
        level: error allowed, in (0, 1): of the two-sided interval, and of ever deciding wrongly by the e-value.
        flip: probability that the scorer is wrong, in [0, 1/2).

    Returns:
        BoundaryScore.

    Raises:
        ValueError: arrays of other shapes, values outside of their ranges, no votes. TypeError: what is no number.

    Numerics: float64 on the host.
    Source: the score, arXiv 2508.10530; intervals and evidence as in `jaxdesign.dynamics.proportions`; checked by
    tests/dynamics/test_boundary_score.py.
    """
    level, flip = proportions.checked_level(level), _checks.number(flip, "flip")
    if not 0 <= flip < 0.5:
        raise ValueError(f"flip={flip:g}: must be at least 0 and below 1/2; at 1/2 the scorer's votes say nothing")
    wins, counts = _asked(on_wins, votes)
    total = float(counts.sum())
    observed = float(wins.sum()) / total
    effect, freedom = proportions.clustering(wins, counts)
    effective, q = total / effect, proportions.quantile(level, freedom)
    interval = proportions.wilson_interval(observed, effective, q)
    leads = (2 * wins - counts) / counts.max()
    log_e_value = proportions.log_e_value(leads)
    by_e_value, by_interval = log_e_value >= -np.log(level), not interval[0] <= 0.5 <= interval[1]
    needed = proportions.votes_for_interval(observed, q * np.sqrt(effect))
    ever_needed = effect * proportions.votes_for_e_value(observed, level, (leads**2).sum() / effective)
    return BoundaryScore(
        score=_without_flips(observed, flip),
        low=_without_flips(interval[0], flip),
        high=_without_flips(interval[1], flip),
        decided=int(np.sign(observed - 0.5)) if by_e_value or by_interval else 0,
        evidence="e-value" if by_e_value else "interval" if by_interval else "none",
        log_e_value=log_e_value,
        posterior=proportions.above_half(observed * effective, (1 - observed) * effective),
        design_effect=effect,
        effective_votes=effective,
        votes=total,
        prompts=len(counts),
        more_votes=0.0 if by_interval else max(float(np.ceil(needed - total)), 1.0),
        more_votes_any_time=0.0 if by_e_value else max(float(np.ceil(ever_needed - total)), 1.0),
    )


def _without_flips(share: float, flip: float) -> float:
    """The share that a scorer which is never wrong would give, within [0, 1]."""
    return float(np.clip(0.5 + (share - 0.5) / (1 - 2 * flip), 0, 1))


def _asked(on_wins: Any, votes: Any) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Wins and votes of the prompts that have any, float64, checked."""
    votes, on_wins = _numbers(votes, "votes"), _numbers(on_wins, "on_wins")
    _checks.same_shape(on_wins.shape, votes.shape, "on_wins", "as votes, one number per prompt")
    _check(votes, (votes >= 0) & (votes == np.floor(votes)), "votes", "whole and at least 0; a tie is one vote")
    _check(on_wins, (on_wins >= 0) & (on_wins <= votes), "on_wins", "from 0 to the prompt's votes; a tie counts 1/2")
    asked = votes > 0
    if not asked.any():
        raise ValueError("votes: none found; at least one prompt must have been voted on")
    return on_wins[asked], votes[asked]


def _numbers(values: Any, name: str) -> Float[np.ndarray, " p"]:
    try:
        values = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected one number per prompt, found {type(values).__name__}") from error
    if values.ndim != 1:
        raise ValueError(
            f"{name}: shape {values.shape} found; expected (P,), one number per prompt: totals do not show how far "
            "votes on one prompt resemble each other"
        )
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"{name}: {values[row]} at prompt {row}; must be finite")
    return values


def _check(values: Float[np.ndarray, " p"], right: np.ndarray, name: str, allowed: str) -> None:
    if not right.all():
        row = int(np.argmin(right))
        raise ValueError(f"{name}: {values[row]:g} at prompt {row}; must be {allowed}")
