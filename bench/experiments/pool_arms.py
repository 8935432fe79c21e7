"""The arms of `real_pools`: what they believe, what they take the features to miss, how many rounds they ask in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

import jaxdesign as jd
from bench.experiments import arms
from jaxdesign import preference as pref
from jaxdesign._arrays import float64
from jaxdesign.exact.random_pairs import random_pairs

TOL = 1e-2  # of real-valued designs, whose largest pairs are taken: a tenth of it moves values by less than 1%
FEW = 160  # labels up to which one label after the other is tried as well: below three a dimension it wins 5%
TWICE = 2  # labels of each pair of a pilot that is to tell v
CORRELATIONS = (0.8, 0.5, 0.0)  # of a proxy with a linear reward
TAU = 0.5  # spread of the reward that a proxy may explain; of 0.25, 0.5, 0.7 and 1 the best on tuning seeds


class Asked(Protocol):
    """What arms need of an experiment."""

    @property
    def problem(self) -> arms.Problem:
        """Pool and deployment; its prior is not used."""
        ...

    @property
    def whole(self) -> jd.CompletionPool:
        """The pool with equal completions too."""
        ...

    @property
    def closed(self) -> Int[np.ndarray, "c 3"] | None:
        """Pairs that cannot be asked about."""
        ...

    @property
    def designs(self) -> dict[Any, Int[np.ndarray, "n 3"]]:
        """Of first rounds, so that no two cases make the same one."""
        ...

    @property
    def residual(self) -> float:
        """v of all rewards."""
        ...

    @property
    def parameter(self) -> Float[np.ndarray, " d"]:
        """Of the reward, which proxies follow."""
        ...

    def ask(self, pairs: Int[np.ndarray, "n 3"], time: int = 0) -> Int[np.ndarray, " n"]:
        """The first label of each pair, or the second."""
        ...


class Arm(NamedTuple):
    """How pairs are chosen, and with which belief labels are fitted.

    Args:
        first: "random", or "trace" for a design; anything else is one of `arms.ONE_ROUND`.
        rounds: 1, or 2 with a pilot of `arms.PILOT`.
        residual: of the design: v, "cap", "known" (v of all rewards), "pilot" (`estimate_residual`), or None.
        floor: share of either round that is drawn at random.
        proxy: correlation with the reward of a proxy in the belief of design and fit; None: no proxy.
        smooth: whether the belief is N(0, H / ridge), H of mean variance 1: rewards that vary most where completions
            do. Else it is N(0, I / ridge).
    """

    first: str
    rounds: int = 1
    residual: float | str | None = None
    floor: float = 0.0
    proxy: float | None = None
    smooth: bool = False


def proxy_arm(arm: str, correlation: float) -> str:
    """The name of an arm with such a proxy."""
    return f"{arm}_proxy_{round(100 * correlation)}"


PLAIN = {
    "random": Arm("random"),
    "random_distinct": Arm("random"),
    "trace": Arm("trace"),
    "trace_unit": Arm("trace", residual=arms.UNIT),
    "trace_capped": Arm("trace", residual="cap"),
    "trace_two_rounds": Arm("trace", 2),
    "rounds": Arm("trace", 2, floor=arms.FLOOR),
    "two_rounds_unit": Arm("trace", 2, residual=arms.UNIT),
    "two_rounds_capped": Arm("trace", 2, residual="cap"),
    "two_rounds_known": Arm("trace", 2, residual="known"),
    "two_rounds_pilot": Arm("trace", 2, residual="pilot"),
}
SMOOTH = {
    f"{name}_smooth": PLAIN[name]._replace(smooth=True)
    for name in ("random_distinct", "trace", "two_rounds_unit", "two_rounds_capped")
}
PROXIES = {
    proxy_arm(name, rho): (PLAIN | SMOOTH)[name]._replace(proxy=rho)
    for rho in CORRELATIONS
    for name in ("random_distinct", "trace", "trace_two_rounds", "trace_smooth")
}
OTHERS = {name: Arm(name) for name in arms.ONE_ROUND if name not in (*PLAIN, "trace_floor", "trace_oracle")}
ARMS = PLAIN | SMOOTH | PROXIES | OTHERS


def belief_of(arm: Arm, truth: Asked, ridge: float, seed: int) -> jd.Belief:
    """What the arm's design and fit hold to be known: a ridge, and along its proxy's parameter more."""
    pool = truth.problem.pool
    prior = jd.Belief.from_ridge(ridge, pool.dim)
    if arm.smooth:
        prior = arms.smooth_with(pool, ridge)
    if arm.proxy is None:
        return prior
    direction = proxy_parameter(truth, arm.proxy, seed)
    scores = np.asarray(truth.problem.pool.features, np.float64) @ direction
    return pref.proxy_belief(truth.problem.pool, scores, prior, tau=TAU).belief


def proxy_parameter(truth: Asked, correlation: float, seed: int) -> Float[np.ndarray, " d"]:
    """A parameter whose reward has this correlation with the true one, H-orthogonal to it otherwise."""
    H = np.asarray(jd.policy_target(truth.problem.pool), np.float64)
    own = truth.parameter / np.sqrt(truth.parameter @ H @ truth.parameter)
    other = np.random.default_rng([seed, 2]).standard_normal(len(own)) @ np.linalg.inv(np.linalg.cholesky(H))
    other -= (own @ H @ other) * own
    other /= np.sqrt(other @ H @ other)
    return correlation * own + np.sqrt(1 - correlation**2) * other


def labels_of(name: str, truth: Asked, ridge: float, number: int, seed: int) -> pref.Labels:
    """What an arm has after `number` labels."""
    arm = ARMS[name]
    budget = jd.Budget(number, per_pair=1, exclude=truth.closed)
    if name == "random":  # whoever does not look labels equal completions too
        pairs = random_pairs(truth.whole, budget, seed).pairs
        return pref.as_labels(pairs, truth.ask(pairs))
    problem = truth.problem._replace(prior=belief_of(arm, truth, ridge, seed))
    if arm.residual == "pilot":
        return _by_pilot(problem, truth, ridge, budget, seed)
    residual = truth.residual if arm.residual == "known" else arm.residual
    problem = problem._replace(pool=with_residual(problem.pool, residual))
    if arm.rounds == 1:
        pairs = _once(arm, problem, truth, ridge, budget, seed)
        return pref.as_labels(pairs, truth.ask(pairs))
    pilot = _once(arm, problem, truth, ridge, replace(budget, total=round(arms.PILOT * number)), seed)
    return _finished(problem, truth, pref.as_labels(pilot, truth.ask(pilot)), budget, seed, arm.floor)


def with_residual(pool: jd.CompletionPool, variance: float | str | None) -> jd.CompletionPool:
    """The pool with this residual of lengths in its own second moment."""
    residual = jd.residual_of(pool, variance) if variance else None
    with float64():
        return jd.CompletionPool(pool.features, mask=pool.mask, residual=residual)


def _once(arm: Arm, problem: arms.Problem, truth: Asked, ridge: float, budget: jd.Budget, seed: int):
    """The pairs of a first round, which without a proxy know no reward."""
    if arm.proxy is not None or arm.residual == "known":
        return _first(arm, problem, budget, seed)
    key = (arm._replace(rounds=1), ridge, budget.total)
    if key not in truth.designs:
        truth.designs[key] = _first(arm, problem, budget, seed)
    return truth.designs[key]


def _first(arm: Arm, problem: arms.Problem, budget: jd.Budget, seed: int) -> Int[np.ndarray, "n 3"]:
    """The pairs of a first round."""
    if arm.first == "random":
        return random_pairs(problem.pool, budget, seed).pairs
    if arm.first != "trace":
        return arms.choose(arm.first, problem, budget, seed)
    if arm.floor:
        budget = jd.with_uniform_floor(problem.pool, budget, arm.floor, seed=seed)
    methods = (*arms.SHORT_CUT, "greedy") if budget.total <= FEW else arms.SHORT_CUT
    target = jd.Trace(problem.target())
    return jd.select_pairs(problem.pool, target, budget, prior=problem.prior, methods=methods, tol=TOL).pairs


def _finished(problem, truth, held, budget, seed, floor) -> pref.Labels:
    """Labels held and those of a second round."""
    second = arms.second_round(problem, held, budget, seed, floor, tol=TOL)
    choices = np.concatenate([held.choices, truth.ask(second)])
    return pref.as_labels(np.concatenate([held.pairs, second]), choices)


def _by_pilot(problem, truth, ridge, budget, seed) -> pref.Labels:
    """A capped pilot of TWICE labels a pair, v as they tell it or the cap where they do not, and the rest with it."""
    capped = problem._replace(pool=with_residual(problem.pool, "cap"))
    number = round(arms.PILOT * budget.total / TWICE)
    pilot = _once(ARMS["trace_capped"], capped, truth, ridge, replace(budget, total=number), seed)
    choices = np.concatenate([truth.ask(pilot, time) for time in range(TWICE)])
    held = pref.as_labels(np.concatenate([pilot] * TWICE), choices)
    pairs, wins, counts = pref.counted(held)
    found = pref.estimate_residual(problem.pool, pairs, wins, counts, prior=problem.prior.precision)
    with float64():
        chosen = jd.CompletionPool(problem.pool.features, mask=problem.pool.mask, residual=found.residual)
    return _finished(problem._replace(pool=chosen), truth, held, budget, seed, 0.0)
