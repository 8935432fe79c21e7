"""Greedy under vmap and jit, with the x64 flag, of half precision, at any scale, and without compiling again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import CompletionPool, Criterion, LogDet, Trace, greedy
from tests.support.greedy_gains import LOG_DET_DAILY, PRIOR, TARGETS, check_picks, criterion_with
from tests.support.problems import DIM, random_arrays, random_pool

slow = pytest.mark.slow


def batch_of_pools(number, scores=True):
    arrays = [random_arrays(seed) for seed in range(number)]
    features, u, mask = (np.stack(a) for a in zip(*arrays, strict=True))
    features[~mask], u[~mask] = 0, 0
    return CompletionPool.tree_unflatten(None, (jnp.asarray(features), jnp.asarray(u) if scores else None, mask, None))


@pytest.mark.slow
@pytest.mark.parametrize("name", LOG_DET_DAILY)
def test_vmap_over_pools_is_one_by_one(name):
    batch, criterion = batch_of_pools(3), criterion_with(TARGETS[name])
    together = jax.vmap(lambda pool: greedy(pool, criterion, size=20, prior=PRIOR))(batch)
    for k in range(3):
        pool = jax.tree.map(lambda a, k=k: a[k], batch)
        pairs, labels = greedy(pool, criterion, size=20, prior=PRIOR)
        np.testing.assert_array_equal(together[0][k], pairs)
        np.testing.assert_array_equal(together[1][k], labels)


@pytest.mark.slow
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
