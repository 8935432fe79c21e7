"""Pools divided over devices: what a source says of them is what the same pool in memory says; features stay put.

Four virtual CPU devices (see conftest).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxdesign as jd
from bench.exchanged import programs_recorded
from jaxdesign import _arrays
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import analyse, information
from jaxdesign.door import make_problem
from jaxdesign.pricing import Source, memory_source, price, sharded_source
from jaxdesign.pricing.listed import PAGE, held_rows
from jaxdesign.pricing.passes import pairs_information
from jaxdesign.pricing.source import survey
from jaxdesign.solvers.driver import score
from jaxdesign.solvers.states import solver_state
from tests.support.divided import LAYOUTS, divided, pool_of

KINDS = {"plain": {}, "scores, flips": {"scored": True}, "draws": {"scored": True, "draws": 3}}


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setitem(_arrays.CHUNK_ENTRIES, "cpu", 2**9)  # a few prompts: every device has several chunks


def source_on(pool, count, kind=AxisType.Auto):
    mesh = jax.make_mesh((count,), ("data",), (kind,), devices=jax.devices()[:count])
    return sharded_source(pool, mesh, "data")


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [4, 2, 1])
def test_it_says_what_the_pool_in_memory_says(count, kind):
    """61 prompts: no number of devices but one divides them."""
    pool = pool_of(61, **KINDS[kind])
    source, memory = source_on(pool, count), memory_source(pool)
    assert isinstance(source, Source)
    for name in ("prompts", "completions", "dim", "draws", "dtype"):
        assert getattr(source, name) == getattr(memory, name), name
    jax.tree.map(np.testing.assert_array_equal, survey(source), survey(memory))
    factors, level = np.stack([np.eye(pool.dim, dtype=np.float32)] * source.draws), np.float32(3)
    ranks = np.arange(61, dtype=np.float32) % 4
    found, expected = (price(one, factors, level, ranks) for one in (source, memory))
    for name in ("best", "highest", "error"):  # chunks of other heights may round differently
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(found.reaches, expected.reaches)
    with _arrays.float64():
        totals = [np.asarray(pairs_information(one)) for one in (source, memory)]
    np.testing.assert_allclose(*totals, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_listed_pairs_and_subsets_are_those_of_the_pool_in_memory_to_the_last_bit(kind):
    pool, rng = pool_of(61, **KINDS[kind]), np.random.default_rng(0)
    source, memory = source_on(pool, 4), memory_source(pool)
    pairs = rng.integers(0, [61, pool.completions, pool.completions], (PAGE, 3)).astype(np.int32)
    spread, of_one_device, again = np.sort(rng.permutation(61)[:23]), np.arange(1, 15), np.array([60, 3, 3, 17])
    cases = [(source.rows(pairs), memory.rows(pairs))]
    cases += [(source.subset(some), memory.subset(some)) for some in (spread, of_one_device, again)]
    for found, expected in cases:
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert one.dtype == other.dtype and len(one.devices()) == 1
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_half_precision_and_float64():
    for dtype in (np.float16, np.float64):
        with jax.enable_x64(dtype == np.float64):
            pool = pool_of(16, dtype=dtype)
            source, memory = source_on(pool, 4), memory_source(pool)
            assert source.dtype == memory.dtype and pool.features.dtype == dtype
            found, expected = (one.subset(np.arange(3, 9)) for one in (source, memory))
            jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_stay_where_they_lie(layout, kind):
    """Whatever the axes of the mesh: one, two for the prompts, one for something else. Each device has its prompts."""
    pool = pool_of(16, scored=True)
    spread = divided(pool, layout, kind)
    source = sharded_source(spread)
    pieces = {shard.data.unsafe_buffer_pointer() for shard in spread.features.addressable_shards}
    held = {shard.data.unsafe_buffer_pointer() for shard in source.parts.features.addressable_shards}
    assert held == pieces
    assert {shard.data.shape for shard in source.parts.features.addressable_shards} == {
        (16 // source.layout.parts, pool.completions, pool.dim)
    }
    outputs = price(source, np.eye(pool.dim, dtype=np.float32)[None], np.float32(3))
    assert outputs.best.sharding.shard_shape(outputs.best.shape)[0] == 16 // source.layout.parts
    jax.tree.map(np.testing.assert_array_equal, survey(source), survey(memory_source(pool)))


def test_carries_are_joined_in_the_order_of_the_devices():
    """The earlier part first, to the same bits every time, whatever the shape of the carry."""
    source, values = source_on(pool_of(61), 4), np.arange(61) ** 2 / 7

    def add(chunk, carry, inputs):
        return jax.tree.map(lambda a: a + jnp.sum(inputs), carry), None

    with _arrays.float64():
        start = jnp.zeros(()), jnp.zeros((3, 5))
        twice = [
            source.fold(jax.tree_util.Partial(add), start, values, lambda early, late: 2 * early + late)[0]
            for _ in range(2)
        ]
    parts = np.pad(values, (0, 3)).reshape(4, 16).sum(axis=1)
    for one, again, shape in zip(*twice, ((), (3, 5)), strict=True):
        np.testing.assert_allclose(one, np.full(shape, parts @ [8, 4, 2, 1]), rtol=1e-14)
        assert np.asarray(one).tobytes() == np.asarray(again).tobytes()


def test_what_devices_exchange_does_not_grow_with_the_pool():
    """No collective of a pass is larger than twice its carry, and none stands in the loop over chunks."""
    sizes = []
    for prompts in (64, 128):
        pool = pool_of(prompts)
        source = source_on(pool, 4)
        with programs_recorded() as programs, _arrays.float64():
            pairs_information(source)
            price(source, np.eye(pool.dim, dtype=np.float32)[None], np.float32(3))
        information, pricing = programs
        assert information.once and not pricing.collectives
        kinds = dict(information.collectives)
        assert set(kinds) == {"all-to-all", "all-gather"}
        sizes.append(information.exchanged)
        assert information.exchanged <= 16 * (pool.dim + 1) ** 2
    assert sizes[0] == sizes[1]


def test_a_pass_exchanges_numbers_of_pairs():
    """Bounds and listed pairs, rows at hand: 64 bytes a pair with what the host reads, and less than 16 d^2."""
    rng, dim = np.random.default_rng(0), 32
    pool = jd.CompletionPool(rng.standard_normal((256, 8, dim)).astype(np.float32))
    problem = make_problem(source_on(pool, 4), jd.LogDet(), jd.Budget(300, per_pair=1), 0.1)
    chosen = np.stack([rng.permutation(256), np.arange(256) % 3, 3 + np.arange(256) % 5], axis=1).astype(np.int32)
    state = solver_state(problem, Allocation(chosen, np.full(256, 300 / 256)), 0)
    held = held_rows(problem.source, chosen, 512)
    with programs_recorded() as programs:
        matrix = information(problem, state.allocation, held)
        scored = score(problem, state, matrix, analyse(problem, matrix))
    pairs = 2 * len(chosen) + len(scored.priced.swept.pairs)
    assert len(scored.priced.pairs) > 100
    assert {program.name for program in programs} == {"visited", "fold"}  # no rows are brought
    exchanged = sum(program.exchanged for program in programs)
    read = sum(4 * program.results for program in programs if program.name == "visited")
    assert exchanged + read <= 16 * dim**2 + 64 * pairs


def test_a_device_needs_a_quarter_of_the_memory():
    pool = pool_of(2048)
    needs = []
    for count in (1, 4):
        source = source_on(pool, count)
        with programs_recorded() as programs:
            price(source, np.eye(pool.dim, dtype=np.float32)[None], np.float32(3))
        needs.append(programs[-1].memory)
    assert needs[1] <= 0.25 * 1.2 * needs[0]


def test_a_mesh_or_axis_that_there_is_not():
    pool, mesh = pool_of(16), jax.make_mesh((4,), ("data",))
    with pytest.raises(ValueError, match="pool: its features are not divided over prompts"):
        sharded_source(pool)
    with pytest.raises(ValueError, match="axis='model': expected axes of the mesh, which has data"):
        sharded_source(pool, mesh, "model")
    whole = jax.device_put(pool.features, NamedSharding(Mesh(mesh.devices, ("data",)), PartitionSpec()))
    with pytest.raises(ValueError, match="pool: its features are not divided over prompts"):
        sharded_source(jd.CompletionPool(whole))
