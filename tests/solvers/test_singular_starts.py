"""Starts at which the information is singular, or nearly: the default path finds regular ones and ends.

Each case once ended in an exception, a refusal of what can be solved, or not at all; random problems found them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import (
    Budget,
    CompletionPool,
    Criterion,
    LogDet,
    Quota,
    Status,
    Trace,
    optimize,
    policy_target,
    select_pairs,
)

SQUARES = Criterion(lambda A: jnp.sum(jnp.linalg.inv(A) * jnp.linalg.inv(A).T))  # finite where A is nearly singular
MINIMUM = np.array([0, 2.0, 0, 0, 0])


@pytest.mark.slow
def test_label_information_below_what_float32_holds():
    """c of about e^-93: sensitivities of the hot start are 0 / 0."""
    pool = CompletionPool(np.float32([[[0.2], [0.8]]]), np.float32([[4.5, -89.0]]))
    design = optimize(pool, LogDet(), Budget(9.0))
    assert design.status is Status.CERTIFIED
    assert design.labels == pytest.approx([9.0], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_criterion_of_the_users_own_starts_regular_under_a_spend_limit(seed):
    rng = np.random.default_rng(seed)
    features, cost = rng.standard_normal((3, 3, 4)).astype(np.float32), rng.gamma(3, 1, (3, 3))
    design = optimize(CompletionPool(features), SQUARES, Budget(4.0, cost=cost, cost_total=20.0))
    assert design.status is Status.CERTIFIED


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [0, 1, 4])
def test_directions_that_the_target_leaves_out_are_spanned_under_minima(seed):
    """A must be regular there too, though no sensitivity shows it: at rank 4, vertices that H prefers span 3."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((5, 4, 4)) * (rng.random((5, 4, 4)) < 0.3)
    target = np.diag([0, 0, 0, 1.0])
    design = optimize(CompletionPool(features.astype(np.float32)), Trace(target), Budget(6.0, per_prompt_min=MINIMUM))
    assert np.isfinite(design.certificate.value)
    assert design.certificate.efficiency > 0.85  # the best A is itself singular
    assert design.labels[design.pairs[:, 0] == 1].sum() >= 2 - 1e-9


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [0, 7])
def test_whole_labels_under_a_spend_limit_where_one_completion_is_far_from_all_others(seed):
    """Rounding the design leaves out directions that a fraction of a label spans."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((4, 6, 3)).astype(np.float32)
    features[3, 5] *= 4e5
    cost = rng.choice([0, 1.0, 5], (4, 6))
    budget = Budget(4.0, cost=cost, cost_total=12.0)
    target, prior = np.diag([0, 0, 1.0]), np.diag([0, 0, 4e9])
    design = select_pairs(CompletionPool(features), Trace(target), budget, prior=prior)
    assert design.status is Status.EXACT and np.isfinite(design.certificate.value)
    p, i, j = design.pairs.T
    assert design.labels @ (cost[p, i] + cost[p, j]) <= 12 and design.labels.sum() == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_swaps_end_where_one_task_and_a_faint_prior_hold_the_information(seed):
    """Their gains are then rounding: without a look at the criterion itself they went round in a circle for ever."""
    rng = np.random.default_rng(seed)
    units = 10.0 ** rng.uniform(-8, -2, 4)
    pool = CompletionPool((rng.standard_normal((5, 4, 4)) * units).astype(np.float32))
    budget = Budget(3.0, per_pair=9, labels_per_task=3)
    design = select_pairs(pool, Trace(np.diag(units**2)), budget, prior=0.1 * float(min(units)) ** 2, tol=1e-8)
    assert design.labels.tolist() == [3.0]


@pytest.mark.thorough(cases=3)
@pytest.mark.parametrize("seed", [2, 7])
@pytest.mark.parametrize("solver", [None, "frank_wolfe", "interior_point", "matrix_atoms", "multiplicative"])
def test_a_target_of_rank_one_without_a_prior_has_a_regular_start(seed, solver):
    """On lattices of +-1 the best information is singular; every solver starts regular, and answers or says why not.

    The closer a solver comes to it, the less a certificate can say: frank_wolfe may reach the best value and no bound.
    """
    features = np.random.default_rng(seed).choice([-1.0, 1.0], (5, 4, 4)).astype(np.float32)
    pool, criterion = CompletionPool(features), Trace(np.outer([0, 0, 2, -2.0], [0, 0, 2, -2.0]))
    bound = optimize(pool, criterion, Budget(3.0)).certificate.lower_bound
    design = optimize(pool, criterion, Budget(3.0), solver=solver)
    assert bound <= design.certificate.value < 1.25 * bound
    assert design.certificate.efficiency > 0.8 or design.status is Status.PRECISION_LIMIT


@pytest.mark.thorough
def test_pairs_that_no_label_may_go_to_do_not_hide_what_the_allowed_ones_miss():
    """Margins of 40 and more: what is missing has 1e-7 of the information that forbidden pairs have."""
    rng = np.random.default_rng(25)
    features, scores = rng.standard_normal((4, 6, 3)), 40 * rng.standard_normal((4, 6))
    budget = Budget(3.0, quotas=Quota([0, 1, 0, 1], at_most={1: 0.0}), per_prompt_min=[1, 0, 1, 0])
    with jax.enable_x64(True):
        pool = CompletionPool(features, scores)
        design = optimize(pool, Trace(policy_target(pool)), budget)
    assert np.isfinite(design.certificate.value) and design.certificate.efficiency > 0
    assert set(design.pairs[:, 0].tolist()) == {0, 2}
