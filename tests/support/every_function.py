"""Every public function that takes a pool, as a function of the pool alone: what runs under JAX's modes and on meshes.

TRACEABLE also run inside the caller's jit; HOST ones run their loop on the host. All give numbers to compare.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign
from jaxdesign import Annotators, Budget, CompletionPool, LogDet, Quota, Trace, WorstCase, baselines, preference
from jaxdesign.basis import in_basis
from jaxdesign.preference import log_policy
from jaxdesign.solvers import frank_wolfe, multiplicative
from tests.support.problems import random_arrays, random_flips, random_spd

PROMPTS, COMPLETIONS, DIM = 8, 4, 3
TARGET, OTHER = random_spd(1, DIM) + 0.1 * np.eye(DIM), random_spd(2, DIM) + 0.1 * np.eye(DIM)
PAIRS = np.array([[0, 0, 2], [3, 1, 3], [5, 0, 1], [6, 1, 2]])
COUNTS = np.array([1.0, 2.5, 0.0, 3.0])
LOGS = np.random.default_rng(3).standard_normal((PROMPTS, COMPLETIONS)).astype(np.float32)
WEIGHTS = np.ones((PROMPTS, COMPLETIONS, COMPLETIONS), np.float32)


def arrays(seed=0, draws=None, flip="pair"):
    """features, scores, mask and flip of a pool; masked slots hold NaN."""
    features, scores, mask = random_arrays(seed, PROMPTS, COMPLETIONS, DIM, draws)
    return features, scores, mask, random_flips(seed, mask, flip)


def pool_of(features, scores, mask, flip):
    return CompletionPool(features, scores, mask, flip=flip)


def _G(pool):
    G = TARGET.astype(np.float32)
    return G if pool.num_draws is None else np.stack([G] * pool.num_draws)


def _stacked(allocation, certificate):
    return allocation, jnp.stack(certificate)  # together: a gap near 0 is the difference of the others


def _parts(design):
    return design.labels, np.array(design.certificate), len(design.pairs)


TRACEABLE = {
    "pair_information": lambda pool: jaxdesign.pair_information(pool, WEIGHTS),
    "pair_sensitivities": lambda pool: jaxdesign.pair_sensitivities(pool, _G(pool)),
    "pair_differences": lambda pool: jaxdesign.pair_differences(pool, PAIRS),
    "label_information": lambda pool: jaxdesign.label_information(pool, PAIRS),
    "held_information": lambda pool: jaxdesign.held_information(pool, PAIRS, COUNTS),
    "second_moment": jaxdesign.second_moment,
    "policy_target": jaxdesign.policy_target,
    "policy_target, weighted": lambda pool: jaxdesign.policy_target(pool, LOGS),
    "greedy, LogDet": lambda pool: jaxdesign.greedy(pool, LogDet(), size=9),
    "greedy, Trace": lambda pool: jaxdesign.greedy(pool, Trace(TARGET), size=9, prior=OTHER, per_pair=None),
    "greedy, WorstCase": lambda pool: jaxdesign.greedy(pool, WorstCase([TARGET, OTHER]), size=5, prior=0.1),
    "frank_wolfe": lambda pool: _stacked(*frank_wolfe(pool, LogDet(), Budget(9, per_pair=2), passes=9)),
    "frank_wolfe, quotas": lambda pool: _stacked(
        *frank_wolfe(pool, Trace(TARGET), Budget(9, per_prompt=3), prior=0.1, passes=9)
    ),
    "multiplicative": lambda pool: _stacked(
        *multiplicative(pool, Trace(TARGET), Budget(9, per_pair=2), prior=TARGET, passes=9)
    ),
    "multiplicative, quotas": lambda pool: _stacked(*multiplicative(pool, LogDet(), Budget(9, per_prompt=3), passes=9)),
    "effective_sample_size": lambda pool: preference.effective_sample_size(pool, LOGS),
    "log_policy": lambda pool: log_policy(pool, np.ones(DIM, np.float32)),
}

# of these, siblings that take long to compile on every mesh and in every mode; they are for the slow tier there
SIBLINGS = ["greedy, Trace", "greedy, WorstCase", "frank_wolfe", "frank_wolfe, quotas", "multiplicative, quotas"]

GROUPS = Quota(np.arange(PROMPTS) % 2, at_least={0: 2, 1: 1}, at_most=9)
COSTS = np.random.default_rng(4).integers(1, 4, (PROMPTS, COMPLETIONS)).astype(float)
BUDGETS = {
    "caps": Budget(9, per_pair=1),
    "quotas": Budget(9, per_prompt=3, per_pair=2),
    "coupled": Budget(9, per_pair=2, quotas=GROUPS, cost=COSTS, cost_total=45.0),
    "decided": Budget(9, per_pair=2, required=PAIRS[:2], exclude=PAIRS[2:]),
}
OPTIMIZED = [
    ("caps", "LogDet"),
    ("caps", "WorstCase"),
    ("quotas", "LogDet"),
    ("coupled", "Trace"),
    ("decided", "LogDet"),
]
SELECTED = [("caps", "WorstCase"), ("quotas", "Trace"), ("coupled", "LogDet"), ("decided", "Trace")]
CRITERIA = {"LogDet": LogDet(), "Trace": Trace(TARGET), "WorstCase": WorstCase({"a": TARGET, "b": OTHER})}


def _evaluate(pool):
    return np.array(jaxdesign.evaluate(pool, Trace(TARGET), Budget(8), PAIRS, np.full(4, 2.0), prior=0.1).certificate)


def _restricted(pool):
    narrow, basis = jaxdesign.restrict_to_range(pool)
    return np.asarray(jaxdesign.pair_information(narrow, WEIGHTS)), basis @ basis.T


def _annotators(pool):
    bare = CompletionPool(pool.features, pool.scores, pool.mask)
    people = Annotators(flip=[0.0, 0.2], cost=[2.0, 1.0], at_most=[6, np.inf])
    budget = Budget(9, per_pair=1, cost_total=14.0)
    return _parts(jaxdesign.select_pairs(bare, LogDet(), budget, prior=0.1, annotators=people))


def _curve(pool):
    curve = jaxdesign.label_curve(pool, Trace(TARGET), Budget(4, per_pair=1), [4, 8], prior=0.1)
    return curve.lower_bounds, curve.values


def _labels():
    return preference.as_labels(PAIRS, np.array([0, 1, 0, 2]))


def _posterior(pool):
    found = preference.fit_posterior(pool, _labels(), 0.5)
    return found.parameter, found.information


HOST = {
    "restrict_to_range": _restricted,
    "in_basis": lambda pool: in_basis(pool, np.eye(DIM)[:, :2]).features,
    "evaluate": _evaluate,
    "with_uniform_floor": lambda pool: jaxdesign.with_uniform_floor(pool, Budget(8), 0.5).required,
    "label_curve": _curve,
    "sampled_target": lambda pool: preference.sampled_target(pool, LOGS, least_effective=1.0),
    "fit_posterior": _posterior,
    "posterior_targets": lambda pool: preference.posterior_targets(pool, np.ones(DIM), 0.5),
    **{
        f"optimize, {budget}, {name}": lambda pool, b=budget, c=name: _parts(
            jaxdesign.optimize(pool, CRITERIA[c], BUDGETS[b], prior=0.05)
        )
        for budget, name in OPTIMIZED
    },
    **{
        f"select_pairs, {budget}, {name}": lambda pool, b=budget, c=name: _parts(
            jaxdesign.select_pairs(pool, CRITERIA[c], BUDGETS[b], prior=0.05)
        )
        for budget, name in SELECTED
    },
    **{
        f"optimize by {solver}": lambda pool, s=solver: _parts(
            jaxdesign.optimize(pool, LogDet(), BUDGETS["caps"], prior=0.05, solver=s)
        )
        for solver in ("multiplicative", "frank_wolfe", "interior_point")
    },
    "annotators": _annotators,
    **{
        f"baselines.{name}": lambda pool, s=select: _parts(s(pool, LogDet(), BUDGETS["caps"], prior=0.05))
        for name, select in baselines.SELECTORS.items()
    },
}

# of the host's functions, those that together visit every part and take little time; the others are for the slow tier
QUICK = [
    "restrict_to_range",
    "evaluate",
    "with_uniform_floor",
    "sampled_target",
    "fit_posterior",
    "posterior_targets",
    "optimize, caps, LogDet",
    "select_pairs, coupled, LogDet",
    "baselines.square_root",
]
THOROUGH = [name for name in HOST if name not in QUICK]


def daily(names, slow):
    """Names as parameters, of which some are for the slow tier."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in names]


def agree(found, expected, rtol=1e-5):
    """The same numbers up to float32 rounding, NaN and inf in the same places."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        scale = np.max(np.abs(other), initial=0, where=np.isfinite(other))
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * scale)
