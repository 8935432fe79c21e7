"""Greedy picks are the best by exact gains: by hand, ties, prefixes, singular priors, small batches, own criteria."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import Budget, CompletionPool, Criterion, LogDet, Trace, greedy
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import information
from jaxdesign.door import make_problem
from jaxdesign.exact.greedy.greedy import LIFT, greedy_allocation, myopic_allocation
from tests.support.greedy_gains import LOG_DET_DAILY, PRIOR, TARGETS, check_picks, criterion_with
from tests.support.problems import DIM, information_of, random_pool, regression_pool, written_out

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        pytest.param(name, scores, marks=[] if scores == ("yes" if name == "LogDet" else "draws") else slow)
        for name in TARGETS
        for scores in ("no", "yes", "draws")
    ],
)
def test_every_pick_has_the_largest_gain(name, scores):
    for seed in range(3):
        pool = random_pool(seed, scores)
        pairs, labels = greedy(pool, criterion_with(TARGETS[name]), size=20, prior=PRIOR)
        assert pairs.shape == (20, 3) and pairs.dtype == jnp.int32
        np.testing.assert_array_equal(labels, np.ones(20))
        check_picks(pool, TARGETS[name], np.asarray(pairs), PRIOR)


@pytest.mark.parametrize("name", LOG_DET_DAILY)
def test_picks_stay_exact_over_hundreds_of_repeats(name):
    pool = random_pool(4)
    pairs, _ = greedy(pool, criterion_with(TARGETS[name]), size=200, per_pair=None, prior=PRIOR)
    check_picks(pool, TARGETS[name], np.asarray(pairs), PRIOR, np.inf)


def test_picks_by_hand():
    # z = (2, 0), (0, 1), (1, 1), c = 1/4, prior I. Leverages 1, 1/4, 1/2; after (2, 0): A = diag(2, 1), 1/2, 1/4, 3/8
    pool = regression_pool([[2, 0], [0, 1], [1, 1]])
    once, _ = greedy(pool, LogDet(), size=3, prior=1.0)
    np.testing.assert_array_equal(once, [[0, 0, 1], [2, 0, 1], [1, 0, 1]])
    often, _ = greedy(pool, LogDet(), size=3, per_pair=None, prior=1.0)
    np.testing.assert_array_equal(often[:2], [[0, 0, 1], [0, 0, 1]])
    # tr A^-1, one label to come: A = I + M = (17, 1; 1, 14) / 12, gains b / (1 + a) = 0.2955, 0.1530, 0.1993. Then
    # A = diag(2, 1), none to come: a = 1/2, 1/4, 3/8, b = |A^-1 z|^2 / 4 = 1/4, 1/4, 5/16, gains 1/6, 1/5, 5/22
    trace, _ = greedy(pool, Trace(np.eye(2)), size=2, per_pair=None, prior=1.0)
    np.testing.assert_array_equal(trace, [[0, 0, 1], [2, 0, 1]])


@pytest.mark.thorough
def test_ties_go_to_the_first_pair():
    features = np.zeros((3, 3, 2), np.float32)
    features[:, 1:] = np.eye(2)  # three equal prompts
    pairs, _ = greedy(CompletionPool(features), LogDet(), size=1, prior=1.0)
    np.testing.assert_array_equal(pairs, [[0, 1, 2]])  # |z|^2 = 2 in each prompt, 1 elsewhere
    pairs, _ = greedy(regression_pool(np.ones((4, 1))), LogDet(), size=4, prior=1.0)
    np.testing.assert_array_equal(pairs[:, 0], np.arange(4))


def test_a_prefix_is_itself_greedy():
    pool = random_pool(7)
    long, _ = greedy(pool, LogDet(), size=20, prior=PRIOR)
    short, _ = greedy(pool, LogDet(), size=9, prior=PRIOR)
    np.testing.assert_array_equal(long[:9], short)


def test_a_users_criterion_picks_by_first_order_gain():
    pool = random_pool(10, "no")  # without draws the largest sensitivity is the largest gain of LogDet
    user = Criterion(lambda A: -jnp.linalg.slogdet(A)[1])
    pairs, _ = greedy(pool, user, size=20, prior=PRIOR)
    np.testing.assert_array_equal(pairs, greedy(pool, LogDet(), size=20, prior=PRIOR)[0])


# ---- without a regular prior


@pytest.mark.parametrize("prior", [None, 0.0, np.diag([1.0, 0, 0])])
def test_without_a_regular_prior_the_first_picks_span_the_space(prior):
    pool = random_pool(8)
    pairs, _ = greedy(pool, LogDet(), size=20, prior=prior)
    z = np.stack(
        [np.asarray(pool.features)[p, i] - np.asarray(pool.features)[p, j] for p, i, j in pairs[:DIM].tolist()]
    )
    held = np.zeros((DIM, DIM)) if prior is None or np.ndim(prior) == 0 else prior
    assert np.linalg.matrix_rank(held + z.T @ z) == DIM


def test_the_lift_is_a_small_share_of_an_even_allocation():
    pool = random_pool(9)
    _, z, c = written_out(pool)
    even = information_of(z, c, np.full(len(z), 20 / len(z)))
    ridge = LIFT * np.trace(even[0]) / DIM
    pairs, _ = greedy(pool, LogDet(), size=20)
    check_picks(pool, None, np.asarray(pairs), ridge * np.eye(DIM))


@pytest.mark.slow
def test_fewer_labels_than_dimensions_without_a_prior():
    pool = random_pool(18)
    for criterion in (LogDet(), Trace(np.eye(DIM))):
        pairs, labels = greedy(pool, criterion, size=DIM - 1)
        z = [np.asarray(pool.features)[p, i] - np.asarray(pool.features)[p, j] for p, i, j in pairs.tolist()]
        assert float(labels.sum()) == np.linalg.matrix_rank(np.stack(z)) == DIM - 1


@pytest.mark.slow
@pytest.mark.parametrize("total", [4, pytest.param(16, marks=slow), pytest.param(24, marks=slow)])
def test_trace_greedy_spends_a_small_batch_well(total):
    """Fewer labels than dimensions with a prior, a few more without: never far above the best of the myopic picks."""
    features = np.random.default_rng(0).standard_normal((24, 4, 12)) * np.geomspace(1, 10, 24)[:, None, None]
    pool = CompletionPool(features)
    prior = 1e-2 if total < 12 else None
    problem = make_problem(pool, Trace(np.eye(12)), Budget(total, 1), prior)
    values = {}
    for way in (greedy_allocation, myopic_allocation):
        pairs, _ = way(pool, problem.criterion, problem.limits, problem.prior)
        values[way] = float(np.trace(np.linalg.inv(information(problem, Allocation(pairs, np.ones(total)))[0])))
    assert values[greedy_allocation] <= 1.001 * values[myopic_allocation]
