"""Pools that are streamed, divided or of a user's own on the range of their features: as the same pool in memory is.

Four virtual CPU devices (see conftest).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.tree_util import Partial

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign.pricing import ShardedSource, Source, memory_source, sharded_source, streamed_source
from jaxdesign.pricing.in_basis import BasisSource, source_in_basis
from jaxdesign.pricing.widened import SubsetSource, in_dtype
from tests.support.designs import agree
from tests.support.divided import LAYOUTS, divided, pool_of
from tests.support.stored import DIM, ragged

PROMPTS, RANK = 300, DIM + 1


def deficient(dtype=np.float32, prompts=PROMPTS, **more):
    """Columns beside the random ones: constant, a copy, a small one that is nearly another one, one below rounding."""
    given = ragged(np.float64, prompts, **more)
    first = given["features"][..., :1]
    rng = np.random.default_rng(1)
    near = first + 1e-3 * rng.standard_normal(first.shape)
    below = 1e4 + 1e-4 * rng.standard_normal(first.shape)  # float32 resolves 1e-3 there
    features = np.concatenate([given["features"], 0 * first + 3, first, 1e-3 * near, below], axis=-1)
    return given | {"features": features.astype(dtype)}


@dataclasses.dataclass(frozen=True)
class Own:
    """A source with no more than a source must have."""

    given: Source

    def __getattr__(self, name):
        if name not in ("prompts", "completions", "dim", "draws", "dtype"):
            raise AttributeError(name)
        return getattr(self.given, name)

    def fold(self, *args, **more):
        return self.given.fold(*args, **more)

    def rows(self, pairs):
        return self.given.rows(pairs)

    def subset(self, prompts):
        return self.given.subset(prompts)


def mesh_of(count=4):
    return jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])


def sources(given, counts=(4,)):
    pool = jd.CompletionPool(**given)
    streamed = {f"chunks of {chunk}": streamed_source(chunk=chunk, **given) for chunk in (70, 128)}
    spread = {f"{count} devices": sharded_source(pool, mesh_of(count), "data") for count in counts}
    return streamed | spread | {"own": Own(memory_source(pool))}


@Partial
def seen(chunk, carry, inputs):
    return carry, (chunk.rows, chunk.copies, inputs)


def test_rows_in_float64_are_centred_as_stored():
    """Whatever the source: to the digits of float64, of features with an offset that leaves float32 four."""
    given = ragged(np.float32, 90)
    given["features"] += np.float32(1000)
    pool = jd.CompletionPool(**given)
    exact = np.where(np.asarray(pool.mask)[..., None], np.asarray(pool.features, np.float64), 0)
    count = np.maximum(np.asarray(pool.mask).sum(axis=1), 1)[:, None, None]
    expected = np.where(np.asarray(pool.mask)[..., None], exact - exact.sum(axis=1, keepdims=True) / count, 0)
    for name, source in (sources(given) | {"memory": memory_source(pool)}).items():
        wide = in_dtype(source, np.float64)
        assert wide.dtype == np.float64 and isinstance(wide, Source)
        assert isinstance(wide, SubsetSource) == (name == "own")
        with _arrays.float64():
            found = wide.fold(seen, None, np.arange(90))[1]
        np.testing.assert_allclose(found[0], expected, atol=1e-12, err_msg=name)
        np.testing.assert_array_equal(found[2], np.arange(90))
        with _arrays.float64():
            part = wide.subset(np.array([4, 31])).fold(seen, None)[1]
        np.testing.assert_allclose(part[0], expected[[4, 31]], atol=1e-12, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_same_range(dtype):
    given = deficient(dtype)
    small, expected = jd.restrict_to_range(jd.CompletionPool(**given))
    for name, source in sources(given).items():
        found, basis = jd.restrict_to_range(source)
        assert isinstance(found, BasisSource) and isinstance(found, Source)
        assert basis.shape == expected.shape == (DIM + 4, RANK)
        assert found.dim == small.dim and found.dtype == source.dtype
        np.testing.assert_allclose(basis, expected, atol=1e-5, err_msg=name)  # columns that are alike may share


@pytest.mark.slow
def test_rows_are_those_of_the_restricted_pool():
    """To the rounding of the features that the latter stores; subsets to the last bit of the rest."""
    given = deficient(draws=2, noise=True)
    small, basis = jd.restrict_to_range(jd.CompletionPool(**given))
    memory = memory_source(small)
    pairs = np.zeros((4096, 3), np.int32)
    pairs[:3] = [[4, 0, 1], [1, 3, 5], [299, 2, 9]]
    some, inputs = np.array([2, 5, 128, 299]), np.arange(PROMPTS, dtype=np.float32)
    size = float(np.abs(np.asarray(small.features)).max())
    for name, given_source in sources(given).items():
        source = source_in_basis(given_source, basis)
        found, expected = source.rows(pairs), memory.rows(pairs)
        np.testing.assert_allclose(found.differences, expected.differences, atol=2e-7 * size, err_msg=name)
        np.testing.assert_array_equal(found.label_info, expected.label_info)
        assert not np.asarray(found.differences)[3:].any()
        rows, copies, seen_inputs = source.fold(seen, None, inputs)[1]
        expected = memory.fold(seen, None, inputs)[1]
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, expected[0], atol=2e-7 * size, err_msg=name)
        np.testing.assert_array_equal(copies, expected[1])
        np.testing.assert_array_equal(seen_inputs, inputs)
        part = source.subset(some)
        np.testing.assert_allclose(part.features, np.asarray(small.features)[some], atol=2e-7 * size, err_msg=name)
        assert part.dtype == np.float32
        np.testing.assert_allclose(part.fold(seen, None)[1][0], np.asarray(expected[0])[some], atol=2e-7 * size)


@pytest.mark.slow
def test_directions_in_which_features_hardly_differ_are_seen():
    """Two columns that differ by 1e-4 of their size and less than 1e-7 of the offset of float32 centring."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((90, 8, 1))
    given = {"features": np.concatenate([first, first + 2.0**-20 * rng.integers(-4, 5, first.shape)], axis=-1)}
    given["features"] = given["features"].astype(np.float32)
    small, basis = jd.restrict_to_range(jd.CompletionPool(**given), rtol=1e-15)
    assert basis.shape == (2, 2)
    spread = np.abs(np.asarray(small.features)[..., 1]).max()
    for source in sources(given).values():
        rows = source_in_basis(source, basis).fold(seen, None)[1][0]
        np.testing.assert_allclose(
            rows[..., 1], memory_source(small).fold(seen, None)[1][0][..., 1], atol=1e-6 * spread
        )


def alike(designs):
    first, *others = designs
    for other in others:
        agree(other, first)
    return first


@pytest.mark.slow
@pytest.mark.parametrize("crit", ["LogDet", "Trace"])
def test_designs_are_the_same_however_the_pool_is_kept(crit):
    """Of all sources to ten digits; of a pool in memory, whose features are rounded to float32, to six."""
    given = deficient(draws=1)
    small, basis = jd.restrict_to_range(jd.CompletionPool(**given))
    criterion = jd.LogDet() if crit == "LogDet" else jd.Trace(jd.policy_target(small))
    budget, options = jd.Budget(100, per_pair=1), {"prior": 0.01 * np.eye(RANK)}
    found = alike(
        jd.optimize(source_in_basis(source, basis), criterion, budget, **options)
        for source in sources(given, (1, 2, 4)).values()
    )
    expected = jd.optimize(small, criterion, budget, **options)
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    np.testing.assert_allclose(found.certificate, expected.certificate, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_float64_features_give_ten_digits(float64_scope):
    given = deficient(np.float64)
    small, _ = jd.restrict_to_range(jd.CompletionPool(**given))
    for source in sources(given).values():
        found, _ = jd.restrict_to_range(source)
        assert found.dtype == small.features.dtype == np.float64
        designs = (jd.optimize(one, jd.LogDet(), jd.Budget(60), prior=0.01) for one in (found, small))
        alike(designs)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_divided_features_stay_divided(layout, kind):
    pool = pool_of(64)
    features = jnp.concatenate([pool.features, pool.features[..., :2]], axis=-1)
    pool = jd.CompletionPool(features, mask=pool.mask)
    spread = divided(pool, layout, kind)
    found, basis = jd.restrict_to_range(spread)
    expected, other = jd.restrict_to_range(pool)
    assert basis.shape == other.shape == (7, 5)
    assert found.features.sharding.is_equivalent_to(spread.features.sharding, 3)
    np.testing.assert_allclose(basis, other, atol=1e-10)
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-6, atol=1e-7)
    problem_source = sharded_source(found)
    assert isinstance(problem_source, ShardedSource) and problem_source.dim == 5


def test_what_is_refused():
    source = sources(ragged(prompts=90))["chunks of 70"]
    with pytest.raises(ValueError, match="rtol=1: must be in"):
        jd.restrict_to_range(source, 1.0)
    with pytest.raises(TypeError, match=r"pool: expected jaxdesign.CompletionPool, or a jaxdesign.pricing.Source"):
        jd.restrict_to_range(np.zeros((3, 2, 1)))
    with pytest.raises(ValueError, match="features: the completions of every prompt are identical"):
        jd.restrict_to_range(streamed_source(np.ones((9, 4, 3), np.float32)))
