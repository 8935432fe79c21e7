"""Greedy selection: every pick is the best one by exact gains, written out in NumPy; caps, ties, jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign
from jaxdesign import Budget, CompletionPool, Criterion, LogDet, Trace, greedy
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import information
from jaxdesign.door import make_problem
from jaxdesign.exact.greedy import lazy as lazy_greedy
from jaxdesign.exact.greedy.full import PARTS, REFRESH
from jaxdesign.exact.greedy.greedy import LIFT, _greedy, greedy_allocation, myopic_allocation
from tests.support.problems import (
    COMPLETIONS,
    DIM,
    PROMPTS,
    information_of,
    random_arrays,
    random_pool,
    random_spd,
    regression_pool,
    written_out,
)

PRIOR = random_spd(1) + 0.1 * np.eye(DIM)
TARGETS = {"LogDet": None, "Trace": random_spd(2), "Trace of a low-rank H": random_spd(3, rank=1)}


slow = pytest.mark.slow
LOG_DET_DAILY = ["LogDet", pytest.param("Trace", marks=slow)]
YES_DAILY = [pytest.param("no", marks=slow), "yes", pytest.param("draws", marks=slow)]


def criterion_with(H):
    return LogDet() if H is None else Trace(H)


def gains_of(z, c, matrix, H):
    """(S,) decrease of the criterion by one label of each pair, from fresh inverses."""
    inverse = np.linalg.inv(matrix)
    leverage = c * np.einsum("sd,rde,se->rs", z, inverse, z)
    if H is None:
        return np.mean(np.log1p(leverage), axis=0)
    return np.mean(c * np.einsum("sd,rde,se->rs", z, inverse @ H @ inverse, z) / (1 + leverage), axis=0)


def check_picks(pool, H, picks, prior, per_pair=1.0):
    """Each pick has the largest gain among the pairs still open, up to what float32 can tell apart."""
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels, matrix = np.zeros(len(pairs)), information_of(z, c, np.zeros(len(pairs)), prior)
    mean = information_of(z, c, np.full(len(z), 1 / len(z)))
    renewed = np.clip(len(picks) // PARTS, 1, REFRESH)
    for number, pick in enumerate(picks.tolist()):
        k = index[tuple(pick)]
        is_open = labels + 1 <= per_pair
        to_come = 0 if H is None else len(picks) - number // renewed * renewed - 1
        gains = gains_of(z, c, matrix + to_come * mean, H)
        assert is_open[k]
        assert gains[k] >= (1 - 3e-5) * gains[is_open].max()
        labels[k] += 1
        matrix = matrix + np.einsum("r,d,e->rde", c[:, k], z[k], z[k])


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


def test_ties_go_to_the_first_pair():
    features = np.zeros((3, 3, 2), np.float32)
    features[:, 1:] = np.eye(2)  # three equal prompts
    pairs, _ = greedy(CompletionPool(features), LogDet(), size=1, prior=1.0)
    np.testing.assert_array_equal(pairs, [[0, 1, 2]])  # |z|^2 = 2 in each prompt, 1 elsewhere
    pairs, _ = greedy(regression_pool(np.ones((4, 1))), LogDet(), size=4, prior=1.0)
    np.testing.assert_array_equal(pairs[:, 0], np.arange(4))


def test_unused_rows_are_zero_when_no_pair_is_left():
    pool = random_pool(5)
    number = len(written_out(pool)[0])
    pairs, labels = greedy(pool, LogDet(), size=number + 3, prior=1.0)
    np.testing.assert_array_equal(labels, np.arange(number + 3) < number)
    np.testing.assert_array_equal(pairs[number:], np.zeros((3, 3)))
    assert len(np.unique(pairs[:number], axis=0)) == number


def test_caps_by_prompt():
    cap = np.array([1, 3, 1, 2, 1, 2.9])
    pool = random_pool(6)
    pairs, labels = greedy(pool, LogDet(), size=200, per_pair=cap, prior=1.0)
    found, counts = np.unique(np.asarray(pairs)[np.asarray(labels) > 0], axis=0, return_counts=True)
    np.testing.assert_array_equal(counts, np.floor(cap)[found[:, 0]])
    assert len(found) == len(written_out(pool)[0])


@pytest.mark.parametrize("name", LOG_DET_DAILY)
def test_numbers_by_prompt_and_excluded_pairs_inside_of_jit(name):
    pool, criterion = random_pool(3), LogDet() if name == "LogDet" else Trace(np.eye(DIM))
    free = np.asarray(greedy(pool, criterion, size=8, prior=0.1)[0])
    shut = free[:3, [0, 2, 1]]  # the other way round

    @jax.jit
    def chosen(pool, shut):
        return greedy(pool, criterion, size=8, per_prompt=2, exclude=shut, prior=0.1)

    for pairs, labels in (chosen(pool, shut), greedy(pool, criterion, size=8, per_prompt=2, exclude=shut, prior=0.1)):
        pairs = np.asarray(pairs)[np.asarray(labels) > 0]
        assert np.bincount(pairs[:, 0]).max() <= 2
        assert not {tuple(row) for row in pairs.tolist()} & {tuple(row) for row in free[:3].tolist()}
    with pytest.raises(ValueError, match="per_prompt=0: must be at least 1"):
        greedy(pool, criterion, size=2, per_prompt=0)
    with pytest.raises(ValueError, match="pairs: row 0 is"):
        greedy(pool, criterion, size=2, exclude=[[0, 1, 1]])


def test_a_prefix_is_itself_greedy():
    pool = random_pool(7)
    long, _ = greedy(pool, LogDet(), size=20, prior=PRIOR)
    short, _ = greedy(pool, LogDet(), size=9, prior=PRIOR)
    np.testing.assert_array_equal(long[:9], short)


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


def test_a_users_criterion_picks_by_first_order_gain():
    pool = random_pool(10, "no")  # without draws the largest sensitivity is the largest gain of LogDet
    user = Criterion(lambda A: -jnp.linalg.slogdet(A)[1])
    pairs, _ = greedy(pool, user, size=20, prior=PRIOR)
    np.testing.assert_array_equal(pairs, greedy(pool, LogDet(), size=20, prior=PRIOR)[0])


def batch_of_pools(number, scores=True):
    arrays = [random_arrays(seed) for seed in range(number)]
    features, u, mask = (np.stack(a) for a in zip(*arrays, strict=True))
    features[~mask], u[~mask] = 0, 0
    return CompletionPool.tree_unflatten(None, (jnp.asarray(features), jnp.asarray(u) if scores else None, mask, None))


@pytest.mark.parametrize("name", LOG_DET_DAILY)
def test_vmap_over_pools_is_one_by_one(name):
    batch, criterion = batch_of_pools(3), criterion_with(TARGETS[name])
    together = jax.vmap(lambda pool: greedy(pool, criterion, size=20, prior=PRIOR))(batch)
    for k in range(3):
        pool = jax.tree.map(lambda a, k=k: a[k], batch)
        pairs, labels = greedy(pool, criterion, size=20, prior=PRIOR)
        np.testing.assert_array_equal(together[0][k], pairs)
        np.testing.assert_array_equal(together[1][k], labels)


def test_traced_prior_and_target_under_jit():
    pool = random_pool(11)
    inside = jax.jit(lambda pool, H, prior: greedy(pool, Trace(H), size=20, prior=prior))
    pairs, _ = inside(pool, jnp.asarray(TARGETS["Trace"]), jnp.asarray(PRIOR))
    check_picks(pool, TARGETS["Trace"], np.asarray(pairs), PRIOR)
    ridge = jax.jit(lambda pool, ridge: greedy(pool, LogDet(), size=20, prior=ridge))
    np.testing.assert_array_equal(ridge(pool, 0.5)[0], greedy(pool, LogDet(), size=20, prior=0.5)[0])


def test_the_x64_flag_changes_nothing(float64_scope):
    features, u, mask = random_arrays(12)
    with jax.enable_x64(False):
        expected = greedy(CompletionPool(features, u, mask), LogDet(), size=20, prior=PRIOR)
    pairs, labels = greedy(CompletionPool(features, u, mask), LogDet(), size=20, prior=PRIOR)
    assert pairs.dtype == jnp.int32 and labels.dtype == jnp.float32
    np.testing.assert_array_equal(pairs, expected[0])


@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=slow)])
def test_short_floats(dtype):
    features, u, mask = random_arrays(13)
    pool = CompletionPool(jnp.asarray(np.where(mask[..., None], features, 0)).astype(dtype), u, mask)
    pairs, _ = greedy(pool, LogDet(), size=20, prior=PRIOR)
    check_picks(pool, None, np.asarray(pairs), PRIOR)


def test_features_of_any_scale():
    features, _, mask = random_arrays(14)
    for scale in (1e-12, 1e12):
        pairs, _ = greedy(CompletionPool(features * np.float32(scale), mask=mask), Trace(np.eye(DIM)), size=20)
        expected, _ = greedy(CompletionPool(features, mask=mask), Trace(np.eye(DIM)), size=20)
        np.testing.assert_array_equal(pairs, expected)


def test_allocation_obeys_quotas_and_adds_repeats_up():
    pool = random_pool(15)
    limits = make_problem(pool, LogDet(), Budget(14, 2, np.array([2, 9, 1, 3, 5, 4]))).limits
    pairs, labels = greedy_allocation(pool, LogDet(), limits, PRIOR[None])
    assert labels.sum() == 14 and labels.max() <= 2
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert (np.bincount(pairs[:, 0], weights=labels, minlength=PROMPTS) <= [2, 9, 1, 3, 5, 4]).all()
    np.testing.assert_array_equal(pairs, pairs[np.lexsort(pairs.T[::-1])])


def test_nothing_is_compiled_again_for_other_values():
    pool = random_pool(16)
    traces = []

    def counted(A):
        traces.append(A.shape)
        return -jnp.linalg.slogdet(A)[1]

    crit = Criterion(counted)
    greedy(pool, crit, size=5, prior=PRIOR)
    number = len(traces)
    greedy(random_pool(17), crit, size=5, prior=2 * PRIOR, per_pair=3)
    assert len(traces) == number


BAD = {
    "a pool of another kind": (TypeError, "pool: expected jaxdesign.CompletionPool", {"pool": np.zeros((2, 2, 2))}),
    "a criterion class": (TypeError, r"crit: expected LogDet\(\)", {"crit": LogDet}),
    "a size that is a float": (TypeError, "size: expected a Python int, found float", {"size": 3.0}),
    "a size that is a bool": (TypeError, "size: expected a Python int, found bool", {"size": True}),
    "no labels": (ValueError, "size=0: must be at least 1", {"size": 0}),
    "a cap below one": (ValueError, "per_pair=0: must be at least 1", {"per_pair": 0}),
    "caps of another length": (
        ValueError,
        rf"per_pair: shape \(2,\) found; expected a scalar or \({PROMPTS},\)",
        {"per_pair": [1, 2]},
    ),
    "a target of another size": (ValueError, r"H: shape \(2, 2\) found", {"crit": Trace(np.eye(2))}),
    "a prior of another size": (ValueError, r"prior: shape \(2, 2\) found", {"prior": np.eye(2)}),
    "an indefinite prior": (ValueError, "prior: indefinite", {"prior": np.diag([1.0, 1, -1])}),
    "a negative ridge": (ValueError, "prior=-1: a ridge", {"prior": -1.0}),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    kind, text, changed = BAD[name]
    arguments = {"pool": random_pool(0), "crit": LogDet(), "size": 3, **changed}
    with pytest.raises(kind, match=text):
        greedy(arguments.pop("pool"), arguments.pop("crit"), **arguments)


def test_a_traced_prior_of_another_size_is_named():
    with pytest.raises(ValueError, match=r"prior: shape \(2, 2\) found"):
        jax.jit(lambda pool, prior: greedy(pool, LogDet(), size=3, prior=prior))(random_pool(0), jnp.eye(2))


def test_every_pair_of_copies_is_left_out():
    features = np.zeros((1, COMPLETIONS, DIM), np.float32)
    features[0, 0] = 1
    pairs, labels = jaxdesign.greedy(CompletionPool(features), LogDet(), size=10, prior=1.0)
    np.testing.assert_array_equal(pairs[:4], [[0, 0, j] for j in range(1, 5)])
    np.testing.assert_array_equal(labels, np.arange(10) < 4)


def bounds_decide(monkeypatch, at_once=2, block=8):
    """Small numbers, so that pools of a few prompts go through every step of the lazy search."""
    monkeypatch.setattr(lazy_greedy, "AT_ONCE", at_once)
    monkeypatch.setattr(lazy_greedy, "BLOCK", block)
    monkeypatch.setattr(lazy_greedy, "BLOCKS", 2)
    _greedy.clear_cache()


@pytest.fixture
def lazy(monkeypatch):
    bounds_decide(monkeypatch)
    yield
    monkeypatch.undo()
    _greedy.clear_cache()


@pytest.mark.parametrize("scores", YES_DAILY)
def test_prompts_passed_over_hold_no_better_pair(lazy, scores):
    for seed in range(4):
        pool = random_pool(20 + seed, scores, prompts=12)
        pairs, labels = greedy(pool, LogDet(), size=60, per_pair=2, prior=0.05 * PRIOR)
        np.testing.assert_array_equal(labels, np.ones(60))
        check_picks(pool, None, np.asarray(pairs), 0.05 * PRIOR, 2)
    weak, _ = greedy(pool, LogDet(), size=60, per_pair=2)  # leverages fall a millionfold while the space is spanned
    _, z, c = written_out(pool)
    even = information_of(z, c, np.full(len(z), 60 / len(z)))
    lift = LIFT * np.trace(even, axis1=1, axis2=2) / DIM
    check_picks(pool, None, np.asarray(weak), lift[:, None, None] * np.eye(DIM), 2)


@slow
def test_lazy_picks_of_float64_features(lazy, float64_scope):
    features, u, mask = random_arrays(25, prompts=12)
    pool = CompletionPool(np.asarray(features, np.float64), u, mask)
    assert pool.features.dtype == np.float64
    pairs, _ = greedy(pool, LogDet(), size=60, prior=PRIOR)
    check_picks(pool, None, np.asarray(pairs), PRIOR)


def test_lazy_ties_go_to_the_first_prompt(lazy):
    pairs, _ = greedy(regression_pool(np.ones((9, 1))), LogDet(), size=9, prior=1.0)
    np.testing.assert_array_equal(pairs[:, 0], np.arange(9))


@slow
def test_lazy_vmap_is_one_by_one(lazy):
    arrays = [random_arrays(seed, prompts=12) for seed in range(3)]
    features, u, mask = (np.stack(a) for a in zip(*arrays, strict=True))
    features[~mask], u[~mask] = 0, 0
    batch = CompletionPool.tree_unflatten(None, (jnp.asarray(features), jnp.asarray(u), mask, None))
    ridges = jnp.asarray([1e-4, 0.1, 3.0])
    together = jax.jit(jax.vmap(lambda pool, ridge: greedy(pool, LogDet(), size=40, prior=ridge)[0]))(batch, ridges)
    for k in range(3):
        pool = jax.tree.map(lambda a, k=k: a[k], batch)
        np.testing.assert_array_equal(together[k], greedy(pool, LogDet(), size=40, prior=float(ridges[k]))[0])


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    ridge=st.sampled_from([1e-5, 1e-2, 1.0]),
    cap=st.sampled_from([1, 2]),
    quotas=st.lists(st.integers(0, 9), min_size=PROMPTS, max_size=PROMPTS).filter(lambda q: sum(q) >= 4),
)
def test_picks_of_any_pool_are_the_best_within_caps_and_quotas(seed, ridge, cap, quotas):
    pool = random_pool(seed)
    pairs, z, c = written_out(pool)
    prior, quota = ridge * np.eye(DIM)[None], np.array(quotas, float)
    with jax.enable_x64(True):
        ordered, picked = _greedy(pool, LogDet(), prior, 16, np.full(PROMPTS, float(cap)), quota, rows=16)
    labels, matrix, rest = np.zeros(len(pairs)), information_of(z, c, np.zeros(len(pairs)), prior), quota.copy()
    prior_lift = LIFT * 16 * np.trace(information_of(z, c, np.full(len(z), 1 / len(z)))[0]) / DIM
    matrix = matrix + prior_lift * np.eye(DIM) * (ridge < prior_lift)
    for pick in np.asarray(ordered)[: int(picked)]:
        k = np.flatnonzero((pairs == pick).all(axis=1))[0]
        may = (labels < cap) & (rest[pairs[:, 0]] >= 1)
        gains = gains_of(z, c, matrix, None)
        assert may[k] and gains[k] >= (1 - 3e-5) * gains[may].max()
        labels[k] += 1
        rest[pick[0]] -= 1
        matrix = matrix + np.einsum("r,d,e->rde", c[:, k], z[k], z[k])
    assert int(picked) == min(16, np.minimum(cap * np.bincount(pairs[:, 0], minlength=PROMPTS), quota).sum())


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


def test_fewer_labels_than_dimensions_without_a_prior():
    pool = random_pool(18)
    for criterion in (LogDet(), Trace(np.eye(DIM))):
        pairs, labels = greedy(pool, criterion, size=DIM - 1)
        z = [np.asarray(pool.features)[p, i] - np.asarray(pool.features)[p, j] for p, i, j in pairs.tolist()]
        assert float(labels.sum()) == np.linalg.matrix_rank(np.stack(z)) == DIM - 1
