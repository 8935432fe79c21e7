"""Programs run and bytes moved by a pass: they do not grow with the chunks, or the devices, that a pool is cut into.

An accelerator waits a few microseconds for every program and moves a few GB a second to the host, so both are counted
here, on a CPU, whose speed is not: bytes as if arrays had to be moved.
"""

import jax
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign.pricing import rows_on_host, sharded_source, streamed, streamed_source, sweep
from jaxdesign.pricing.listed import PAGE
from jaxdesign.solvers.column_generation.hot_start import START
from tests.support.traffic import traffic

COMPLETIONS, DIM, CHUNK = 8, 16, 32
A_CALL, A_PASS, A_LOOK = 30, 20, 2  # programs: of a call, of a pass, of prompts that are looked at together


def features(prompts):
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.standard_normal((prompts, COMPLETIONS, 1)) / 2)
    return (lengths * rng.standard_normal((prompts, COMPLETIONS, DIM))).astype(np.float32)


def pool_of(prompts):
    return jd.CompletionPool(features(prompts))


@pytest.fixture(autouse=True)
def accelerated(monkeypatch):
    """Arrays are moved as where the host cannot read them."""
    monkeypatch.setattr(rows_on_host, "_on_cpu", lambda array: False)


@pytest.fixture
def chunks(monkeypatch):
    """Sets the prompts of a chunk."""

    def of(prompts):
        monkeypatch.setattr(_arrays, "chunk_entries", lambda: prompts * COMPLETIONS * DIM)

    of(CHUNK)
    return of


@pytest.fixture
def looks(monkeypatch):
    """The numbers of prompts that were looked at together, in order."""
    price, found = sweep.price, []

    def counted(source, *args):
        found.append(source.prompts)
        return price(source, *args)

    monkeypatch.setattr(sweep, "price", counted)
    return found


def run(pool, looks):
    """The design, and what a second call asks for: the first one compiles and keeps what it works out of the pool."""

    def solve():
        return jd.optimize(pool, jd.LogDet(), jd.Budget(200, per_pair=1), tol=1e-6)

    solve()
    looks.clear()
    with traffic() as found:
        design = solve()
    assert design.status is jd.Status.CERTIFIED
    assert found.bytes_down <= allowed_bytes(design, pool)
    return design, found.programs.total()


def allowed_bytes(design, pool):
    """Numbers by prompt a call, those of the pair slots that the hot start has, and pages of listed pairs a pass."""
    prompts = pool.num_prompts if isinstance(pool, jd.CompletionPool) else pool.prompts
    return 40 * prompts + 8 * START * DIM * COMPLETIONS + len(design.trace) * 8 * 8 * PAGE


def test_the_counter_counts():
    add, x = jax.jit(lambda a: jax.jit(lambda b: b + 1)(a)), np.ones((8, 16), np.float32)
    y = add(x)
    y + y, jax.block_until_ready(add(y))  # compiled
    with traffic() as found:
        z = add(add(y))
        w = y + y
        np.asarray(z), np.asarray(x)
    assert found.programs == {"<lambda>": 2, "add": 1}
    assert found.bytes_down == z.nbytes == w.nbytes


@pytest.mark.thorough
def test_a_pass_runs_as_many_programs_however_many_chunks_a_pool_in_memory_has(chunks, looks):
    counts = []
    for length in (8 * CHUNK, CHUNK):
        chunks(length)
        design, programs = run(pool_of(2048), looks)
        assert set(looks) == {length}
        counts.append(programs - A_LOOK * len(looks))
    assert counts[0] == counts[1] <= A_CALL + A_PASS * len(design.trace)


@pytest.mark.slow
def test_more_prompts_need_as_many_programs(chunks, looks):
    counts = []
    for prompts in (2048, 8192):
        design, programs = run(pool_of(prompts), looks)
        counts.append(programs - A_LOOK * len(looks))
    assert counts[0] == counts[1] <= A_CALL + A_PASS * len(design.trace)


@pytest.mark.slow
def test_more_devices_need_no_more_programs(chunks, looks):
    """Each of them looks at a chunk of its own prompts at a time, so that there is less to do."""
    counts = []
    for count in (1, 2, 4):
        mesh = jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])
        design, programs = run(sharded_source(pool_of(2048), mesh, "data"), looks)
        assert programs <= A_CALL + 2 * A_PASS * len(design.trace) + 5 * len(looks)
        counts.append(programs)
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.slow
def test_a_chunk_that_is_read_costs_four_programs_a_sweep(chunks, looks, monkeypatch):
    """It is brought to the device, cast, centred and folded over, and that is all."""
    visited, sweeps, counts = streamed.visited, [], []
    monkeypatch.setattr(streamed, "visited", lambda *args: sweeps.append(0) or visited(*args))
    for length in (1024, 256, 64):
        source = streamed_source(features(2048), chunk=length)
        sweeps.clear()
        counts.append(run(source, looks)[1])
    assert len(sweeps) % 2 == 0  # as many in both calls
    assert np.diff(counts).tolist() == [4 * len(sweeps) // 2 * more for more in (8 - 2, 32 - 8)]
