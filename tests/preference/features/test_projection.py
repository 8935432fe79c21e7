"""The random projection: linear, unbiased, of known variance, the same for every batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign.preference.features.projection import SPREAD, project, project_leaves, signs

SHAPES = {"a": (3, 5), "b": (), "c": (7, 2, 20), "d": (64,)}  # with D = 4 the buckets are 64: c takes five chunks
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())


def tree_of(flat):
    leaves, start = {}, 0
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        leaves[name] = jnp.asarray(flat)[..., start : start + size].reshape(*flat.shape[:-1], *shape)
        start += size
    return leaves


@partial(jax.jit, static_argnums=1)
def projected(rows, dimension, key):
    return jax.vmap(lambda row: project(tree_of(row), dimension, key))(rows)


def matrix(dimension, key):
    """R written out: the projections of the unit vectors."""
    return np.asarray(projected(jnp.eye(SIZE), dimension, key), np.float64)


@pytest.mark.slow
@given(st.integers(0, 2**31 - 1), st.sampled_from([1, 4]))
def test_the_projection_is_one_linear_map(seed, dimension):
    key = jax.random.key(seed)
    rows = np.random.default_rng(seed).standard_normal((6, SIZE)).astype(np.float32)
    expected = rows.astype(np.float64) @ matrix(dimension, key)
    batch = projected(rows, dimension, key)
    np.testing.assert_allclose(batch, expected, atol=2e-5 * np.abs(expected).max())
    alone = np.stack([project(tree_of(row), dimension, key) for row in rows[:2]])
    np.testing.assert_allclose(alone, batch[:2], atol=1e-5 * np.abs(expected).max())


def test_every_entry_has_size_one_over_root_dimension():
    np.testing.assert_allclose(np.abs(matrix(4, jax.random.key(1))), 0.5, rtol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("dimension", [2, 16])
def test_inner_products_are_unbiased_and_spread_as_stated(dimension):
    rng, seeds = np.random.default_rng(0), 3000
    x = rng.standard_normal(SIZE).astype(np.float32)
    y = (x + rng.standard_normal(SIZE)).astype(np.float32)
    x[::20] *= 8  # one outlying column of leaf c, which chunks of a fixed layout would put into few buckets
    y[::20] *= 8
    pair = tree_of(jnp.stack([x, y]))

    @jax.jit
    def products(keys):
        def one(key):
            first, second = jax.vmap(lambda t: project(t, dimension, key))(pair)
            return first @ second, first @ first

        return jax.lax.map(one, keys)

    cross, square = (np.asarray(v, np.float64) for v in products(jax.random.split(jax.random.key(5), seeds)))
    for found, (a, b) in ((cross, (x, y)), (square, (x, x))):
        a, b = a.astype(np.float64), b.astype(np.float64)
        assert abs(found.mean() - a @ b) < 4 * found.std() / np.sqrt(seeds)
        buckets = SPREAD * dimension
        shares = 1 / dimension + 1 / buckets + 3 / (buckets * dimension)
        bound = shares * ((a @ a) * (b @ b) + (a @ b) ** 2)
        assert 0.75 * bound < found.var() < 1.15 * bound  # Monte Carlo error of a variance here: about 4%


def test_leaves_left_out_count_as_zero():
    key = jax.random.key(2)
    tree = tree_of(jnp.arange(float(SIZE)))
    zeroed = {**tree, "a": jnp.zeros(SHAPES["a"]), "d": jnp.zeros(SHAPES["d"])}
    some = project_leaves({1: tree["b"], 2: tree["c"]}, 4, key)
    np.testing.assert_allclose(some, project(zeroed, 4, key), rtol=1e-6)


@pytest.mark.thorough
def test_low_precision_leaves_are_summed_in_float32():
    tree = {"w": jnp.ones(100_000, jnp.bfloat16)}
    key = jax.random.key(0)
    found = project(tree, 8, key)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, project({"w": jnp.ones(100_000)}, 8, key))


def test_keys_decide_and_nothing_else_does():
    tree = tree_of(jnp.linspace(-1, 1, SIZE))
    first = project(tree, 8, jax.random.key(0))
    np.testing.assert_array_equal(first, project(tree, 8, jax.random.key(0)))
    assert np.abs(first - project(tree, 8, jax.random.key(1))).max() > 0.1
    with jax.enable_x64(True):
        again = project(jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree), 8, jax.random.key(0))
        assert again.dtype == jnp.float32
    np.testing.assert_allclose(first, again, rtol=1e-5)


def test_signs_are_fair_and_independent():
    drawn = np.asarray(signs(jax.random.key(3), (4096, 33)))
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=5 / 64)
    np.testing.assert_allclose(drawn.T @ drawn / 4096, np.eye(33), atol=5.5 / 64)


@pytest.mark.parametrize(
    ("dimension", "tree", "error", "words"),
    [
        (0, {"w": np.ones(3)}, ValueError, "dimension=0: must be at least 1"),
        (2.0, {"w": np.ones(3)}, TypeError, "must be an integer, found float"),
        (2, {}, ValueError, "tree: holds no array"),
    ],
)
def test_bad_input(dimension, tree, error, words):
    with pytest.raises(error, match=words):
        project(tree, dimension, jax.random.key(0))
