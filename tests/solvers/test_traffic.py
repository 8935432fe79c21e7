"""Programs run and bytes moved by a pass: they do not grow with the chunks, or the devices, that a pool is cut into.

An accelerator waits a few microseconds for every program and moves a few GB a second to the host and from it: so both
are counted here, on a CPU, whose speed is not: bytes as if arrays had to be moved.
"""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign.pricing import rows_on_host, sharded_source, streamed, streamed_source, sweep
from jaxdesign.pricing.listed import PAGE
from jaxdesign.solvers.column_generation.hot_start import START
from tests.support.traffic import array_in, by_python, traffic

COMPLETIONS, DIM, CHUNK = 8, 16, 32
A_CALL, A_PASS, A_LOOK = 30, 20, 2  # programs: of a call, of a pass, of prompts that are looked at together
PAGES, MATRICES = 5, 20  # that go to a device in a pass: pages of listed pairs and a number of each; d x d in float64


def features(prompts):
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.standard_normal((prompts, COMPLETIONS, 1)) / 2)
    return (lengths * rng.standard_normal((prompts, COMPLETIONS, DIM))).astype(np.float32)


def pool_of(prompts):
    return jd.CompletionPool(features(prompts))


@pytest.fixture(autouse=True)
def accelerated(monkeypatch):
    """Arrays are moved as where the host cannot read them, and what is moved is known."""
    monkeypatch.setattr(rows_on_host, "_on_cpu", lambda array: False)
    with by_python():
        yield


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
    """The design, and traffic of a second call: the first one compiles and keeps what it works out of the pool."""

    def solve():
        return jd.optimize(pool, jd.LogDet(), jd.Budget(200, per_pair=1), tol=1e-6)

    solve()
    looks.clear()
    with traffic() as found:
        design = solve()
    assert design.status is jd.Status.CERTIFIED
    assert found.bytes_down <= bytes_down(design, pool)
    assert bytes_of_features(found) == 0 or not isinstance(pool, jd.CompletionPool)
    return design, found


def bytes_of_features(found):
    """That went to devices: of all completions of some prompts."""
    return sum(
        count * jnp.dtype(dtype).itemsize * math.prod(shape)
        for (dtype, shape), count in found.sent.items()
        if shape[-2:] == (COMPLETIONS, DIM)
    )


def bytes_up(design, looks, devices=1):
    """Besides features and rows of listed pairs: names of pairs and matrices a pass, a float32 matrix a look."""
    a_pass = PAGES * PAGE * (3 * 4 + 8) + devices * MATRICES * 8 * DIM**2
    return 8 * START + len(design.trace) * a_pass + len(looks) * devices * (4 * DIM**2 + 8 * CHUNK)


def bytes_down(design, pool):
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
    assert found.bytes_up == 0


SENDING = {  # NumPy arrays of 8 x 4 float32, and how many devices they go to
    "made an array": (jnp.asarray, 1),
    "copied": (jnp.array, 1),
    "put there": (jax.device_put, 1),
    "an argument": (jax.jit(lambda a: a + 1), 1),
    "of a function that is passed on": (lambda a: jax.jit(lambda f: f(2.0))(jax.tree_util.Partial(jnp.multiply, a)), 1),
    "beside one that is there": (lambda a: jax.device_put(jnp.zeros((8, 4)), jax.devices()[0]) + a, 1),
    "put on four devices": (lambda a: jax.device_put(a, jax.NamedSharding(mesh_of(4), jax.P("data"))), 4),
}


def mesh_of(count):
    return jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])


@pytest.mark.parametrize("way", SENDING)
def test_the_counter_counts_what_goes_to_a_device(way, capfd):
    send, devices = SENDING[way]
    x = np.ones((8, 4), np.float32)
    send(x)
    with traffic() as found:
        send(x)
        np.asarray(x + x)
        print("something else", file=sys.stderr)
    assert found.sent["float32", (8, 4)] == devices
    assert found.bytes_up - devices * x.nbytes <= 8  # numbers that are written in the function
    assert capfd.readouterr().err == "something else\n"


def test_a_transfer_of_unknown_size_is_an_error():
    with pytest.raises(RuntimeError, match="by_python"):
        array_in("W1127 guard_lib.cc:125] host-to-device transfer: ")


@pytest.mark.thorough
def test_a_pass_runs_as_many_programs_however_many_chunks_a_pool_in_memory_has(chunks, looks):
    counts = []
    for length in (8 * CHUNK, CHUNK):
        chunks(length)
        design, found = run(pool_of(2048), looks)
        assert set(looks) == {length}
        assert found.bytes_up <= bytes_up(design, looks)
        counts.append(found.programs.total() - A_LOOK * len(looks))
    assert counts[0] == counts[1] <= A_CALL + A_PASS * len(design.trace)


@pytest.mark.slow
def test_more_prompts_need_as_many_programs(chunks, looks):
    counts = []
    for prompts in (2048, 8192):
        design, found = run(pool_of(prompts), looks)
        assert found.bytes_up <= bytes_up(design, looks)
        counts.append(found.programs.total() - A_LOOK * len(looks))
    assert counts[0] == counts[1] <= A_CALL + A_PASS * len(design.trace)


@pytest.mark.slow
def test_more_devices_need_no_more_programs(chunks, looks):
    """Each of them looks at a chunk of its own prompts at a time, so that there is less to do."""
    counts = []
    for count in (1, 2, 4):
        design, found = run(sharded_source(pool_of(2048), mesh_of(count), "data"), looks)
        programs = found.programs.total()
        assert not bytes_of_features(found)  # what the hot start has of several devices goes to one without the host
        assert found.bytes_up <= bytes_up(design, looks, count)
        assert programs <= A_CALL + 2 * A_PASS * len(design.trace) + 5 * len(looks)
        counts.append(programs)
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.slow
def test_a_chunk_that_is_read_costs_four_programs_a_sweep(chunks, looks, monkeypatch):
    """It is brought to the device, cast, centred and folded over, and that is all; every feature comes once a sweep."""
    visited, sweeps, counts, sent = streamed.visited, [], [], set()
    monkeypatch.setattr(streamed, "visited", lambda *args: sweeps.append(0) or visited(*args))
    for length in (1024, 256, 64):
        source = streamed_source(features(2048), chunk=length)
        sweeps.clear()
        design, found = run(source, looks)
        counts.append(found.programs.total())
        sent.add(found.bytes_up)
        number, of_one = len(sweeps) // 2, features(1).nbytes
        assert bytes_of_features(found) <= of_one * (2048 * number + sum(looks) + START * DIM // COMPLETIONS)
        pages = found.sent["int32", (PAGE, 3)] + found.sent["float32", (PAGE, 2, DIM)]
        assert pages <= 2 * (PAGES + 1) * len(design.trace)
    assert len(sweeps) % 2 == 0  # as many in both calls
    assert np.diff(counts).tolist() == [4 * len(sweeps) // 2 * more for more in (8 - 2, 32 - 8)]
    assert len(sent) == 1
