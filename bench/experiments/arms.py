"""The ways of choosing pairs that experiments compare, by name, and rounds in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

import jaxdesign as jd
from jaxdesign import preference as pref
from jaxdesign._arrays import float64
from jaxdesign.belief import as_belief

NEED_SCORES = ("closest_call", "largest_score_gap")  # rank pairs by their margin: given the true ones
NEED_WEIGHTS = ("square_root", "t_pilaf")  # given those of the reference policy
SEEDED = ("random", "first_two", *NEED_WEIGHTS)
PILOT = 0.25  # share of the labels spent before the second round
FLOOR = 0.25  # share of the labels that trace_floor and rounds draw at random

UNIT = 8 / np.pi  # v of a residual that costs a median pair at margin 0 as much as the noise of its label: s = 1
DRAWS = 4  # of the posterior, for the second round
SHORT_CUT = (
    "best_set",
)  # whole labels of designs made anew for every truth: no exchange, which would gain a few per cent

ONE_ROUND = ("trace", "trace_floor", "trace_oracle", "logdet", *jd.baselines.SELECTORS)


class Problem(NamedTuple):
    """What the choice of pairs may know: a pool, the prompts that matter, how labels will be fitted.

    scores: (P, K) true rewards of the pool, which only selectors that ask for scores and the oracle see.
    true_target: H under the best policy for the true rewards; seen by the oracle alone.
    """

    pool: jd.CompletionPool
    deployment: jd.CompletionPool
    prior: float | jd.Belief
    beta: float
    scores: Float[np.ndarray, "p k"] | None = None
    true_target: Float[np.ndarray, "d d"] | None = None

    def target(self, parameters=0.0) -> Float[np.ndarray, "*r d d"]:
        """H of the deployment prompts under the policies of reward parameters (d,) or (R, d); 0 is the reference."""
        parameters = np.zeros(self.pool.dim) if np.ndim(parameters) == 0 else parameters
        return pref.posterior_targets(self.deployment, parameters, self.beta)


def choose(arm: str, problem: Problem, budget: jd.Budget, seed: int) -> Int[np.ndarray, "n 3"]:
    """Pairs to label, once each, by one of ONE_ROUND.

    trace is the design of the reference policy (plug-in), trace_floor the same around pairs drawn at random,
    trace_oracle the one that knows the true rewards.
    """
    pool, prior = problem.pool, problem.prior
    short_cut = {"prior": prior, "methods": SHORT_CUT}
    if arm == "trace_oracle":
        informed = with_scores(pool, problem.scores)
        return jd.select_pairs(informed, jd.Trace(problem.true_target), budget, **short_cut).pairs
    trace = jd.Trace(problem.target())
    if arm == "trace_floor":
        budget = jd.with_uniform_floor(pool, budget, FLOOR, seed=seed)
        return jd.select_pairs(pool, trace, budget, **short_cut).pairs
    if arm in ("trace", "logdet"):
        return jd.select_pairs(pool, trace if arm == "trace" else jd.LogDet(), budget, prior=prior).pairs
    if arm in NEED_SCORES:
        pool = with_scores(pool, problem.scores)
    extra = {"log_weights": np.zeros(pool.mask.shape)} if arm in NEED_WEIGHTS else {}
    return jd.baselines.SELECTORS[arm](pool, trace, budget, prior=prior, seed=seed, **extra).pairs


def smooth_with(pool: jd.CompletionPool, ridge: float) -> jd.Belief:
    """N(0, H / ridge), H of mean variance 1: a smooth belief whose ridge compares with that of N(0, I / ridge)."""
    H = np.asarray(jd.policy_target(pool), np.float64)
    return pref.smooth_belief(pool, np.sqrt(np.vdot(H, H) * pool.dim / (np.trace(H) * ridge)))


def with_scores(pool: jd.CompletionPool, scores: Float[np.ndarray, "p k"]) -> jd.CompletionPool:
    """The pool with these scores."""
    with float64():
        scores = np.asarray(scores, np.float32)
        return jd.CompletionPool(pool.features, scores, np.asarray(pool.mask), residual=pool.residual)


def two_rounds(
    problem: Problem, pilot: Int[np.ndarray, "m 3"], ask: Callable, budget: jd.Budget, seed: int, floor: float = 0.0
) -> pref.Labels:
    """A pilot, its labels, and the rest of the budget at their posterior: `preference.run_rounds` with SHORT_CUT.

    floor: share of the rest that is drawn at random.
    """
    held = pref.as_labels(pilot, ask(pilot))
    second = second_round(problem, held, budget, seed, floor)
    return pref.as_labels(np.concatenate([pilot, second]), np.concatenate([held.choices, ask(second)]))


def second_round(
    problem: Problem, held: pref.Labels, budget: jd.Budget, seed: int, floor: float = 0.0, tol: float = 1e-3
) -> Int[np.ndarray, "m 3"]:
    """The pairs for what labels held leave of the budget: none of theirs, at draws of their posterior, by SHORT_CUT.

    tol: of the real-valued design.
    """
    drawn = pref.posterior_draws(pref.fit_posterior(problem.pool, held, problem.prior), DRAWS, seed)
    scored = pref.scored_pool(problem.pool, drawn)
    taken, _, counts = pref.counted(held)
    if problem.pool.residual is not None and problem.pool.residual.one_label:
        counts = np.ones_like(counts)  # repeats meet the residual of their pair again: taken for one label
    prior = np.asarray(as_belief(problem.prior, problem.pool.dim).precision)
    prior = prior + jd.held_information(scored, taken, counts)
    if budget.exclude is not None:
        taken = np.concatenate([np.asarray(budget.exclude), taken])
    rest = replace(budget, total=budget.total - len(held.choices), exclude=taken)
    if floor:
        rest = jd.with_uniform_floor(problem.pool, rest, floor, seed=seed + 1)
    target = jd.Trace(problem.target(drawn))
    return jd.select_pairs(scored, target, rest, prior=prior, methods=SHORT_CUT, tol=tol).pairs
