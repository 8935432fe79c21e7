"""Clipped rows: no longer than the quantile, in their directions, whatever the units and offsets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.preference.features.clipping import clip_rows


def pool_of(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((9, 5, 4)) * np.exp(rng.standard_normal((9, 5, 1)))
    mask = np.ones((9, 5), bool)
    mask[2, 3:] = False
    return jd.CompletionPool(features.astype(dtype), mask=mask, flip=0.1, ids=[f"p{k}" for k in range(9)])


def centred(pool):
    features, mask = np.asarray(pool.features, np.float64), np.asarray(pool.mask)
    means = np.where(mask[..., None], features, 0).sum(axis=1, keepdims=True) / mask.sum(axis=1)[:, None, None]
    return np.where(mask[..., None], features - means, 0)


@pytest.mark.parametrize("quantile", [0.25, 0.6, 1.0])
def test_rows_keep_their_direction_and_long_ones_the_length_of_the_quantile(quantile):
    pool = pool_of()
    found = clip_rows(pool, quantile)
    before, after = centred(pool), np.asarray(found.pool.features, np.float64)
    norms, mask = np.linalg.norm(before, axis=-1), np.asarray(pool.mask)
    np.testing.assert_allclose(found.length, np.quantile(norms[mask], quantile), rtol=1e-6)
    np.testing.assert_allclose(
        after, before * np.minimum(1, found.length / np.maximum(norms, 1e-9))[..., None], atol=1e-6
    )
    assert found.shortened == np.mean(norms[mask] > found.length * (1 + 1e-7))
    assert found.pool.ids == pool.ids and found.pool.features.dtype == jnp.float32
    np.testing.assert_array_equal(found.pool.mask, pool.mask)
    np.testing.assert_array_equal(found.pool.flip, pool.flip)


def test_offsets_and_units_change_nothing_but_the_unit():
    pool = pool_of()
    moved = jd.CompletionPool(1024 * (pool.features + np.arange(9)[:, None, None].astype(np.float32)), mask=pool.mask)
    found, other = clip_rows(pool), clip_rows(moved)
    np.testing.assert_allclose(other.length, 1024 * found.length, rtol=1e-5)
    there = np.asarray(pool.mask)
    np.testing.assert_allclose(other.pool.features[there] / 1024, found.pool.features[there], atol=1e-5)


def test_another_pool_is_clipped_to_a_length_that_is_known():
    found, other = clip_rows(pool_of()), pool_of(1)
    again = clip_rows(other, length=found.length)
    assert again.length == found.length
    assert np.linalg.norm(np.asarray(again.pool.features), axis=-1).max() <= found.length * (1 + 1e-6)
    np.testing.assert_allclose(clip_rows(other, 1.0).pool.features, centred(other), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quantile": 0.0}, "quantile=0: must be above 0"),
        ({"quantile": float("nan")}, "quantile=nan"),
        ({"length": 0.0}, "length=0: must be positive"),
        ({"length": float("inf")}, "length=inf"),
    ],
)
def test_bad_settings_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        clip_rows(pool_of(), **options)


def test_pools_that_cannot_be_clipped_are_named():
    with pytest.raises(ValueError, match="nothing to clip"):
        clip_rows(jd.CompletionPool(np.ones((3, 4, 2), np.float32)))
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda pool: clip_rows(pool).pool.features)(pool_of())
