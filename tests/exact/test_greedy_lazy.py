"""The lazy search of greedy: bounds on prompts pass over none that holds a better pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import CompletionPool, LogDet, greedy
from jaxdesign.exact.greedy import lazy as lazy_greedy
from jaxdesign.exact.greedy.greedy import LIFT, _greedy
from tests.support.greedy_gains import PRIOR, check_picks
from tests.support.problems import DIM, information_of, random_arrays, random_pool, regression_pool, written_out

slow = pytest.mark.slow
YES_DAILY = [pytest.param("no", marks=slow), "yes", pytest.param("draws", marks=slow)]


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


@pytest.mark.slow
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


@pytest.mark.thorough
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
