"""Where the default backend has no float64, all of it is computed on the host, and designs are the same.

CPU devices play both: `algebra_device` is made to name another one than computations are placed on by default.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign._coarse import BFLOAT16
from jaxdesign.door import make_problem
from jaxdesign.pricing import memory_source, pair_rows, price, sharded_source, widened
from jaxdesign.pricing.adapted import AdaptedSource
from jaxdesign.pricing.in_basis import source_in_basis
from jaxdesign.pricing.largest import largest
from jaxdesign.pricing.listed import listed_rows
from jaxdesign.pricing.source import survey
from jaxdesign.pricing.widened import at_algebra, in_dtype
from tests.support.divided import pool_of

HOST = 3


@pytest.fixture
def without_float64(monkeypatch):
    monkeypatch.setattr(_arrays, "algebra_device", lambda: jax.devices()[HOST])


def test_backends_that_have_float64_compute_it(monkeypatch):
    assert _arrays.algebra_device() is None
    for backend, device in (("gpu", None), ("tpu", jax.devices()[0])):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert _arrays.algebra_device() == device


def test_scopes_place_what_begins_in_them(without_float64):
    assert jax.numpy.ones(2).devices() == {jax.devices()[0]}
    with _arrays.float64():
        wide = jax.numpy.ones(2)
        with _arrays.scope(False):
            assert jax.numpy.ones(2).devices() == {jax.devices()[0]}
        assert jax.numpy.ones(2).devices() == {jax.devices()[HOST]}
    assert wide.dtype == np.float64 and wide.devices() == {jax.devices()[HOST]}
    assert jax.numpy.ones(2).devices() == {jax.devices()[0]}


@pytest.mark.parametrize("put", [lambda pool: pool, lambda pool: jax.device_put(pool, jax.devices()[1])])
def test_rows_of_listed_pairs_are_subtracted_on_the_host(put, without_float64):
    pool = pool_of(16, scored=True, draws=2)
    pairs = np.array([[1, 0, 2], [4, 3, 1], [11, 5, 0]], np.int32)
    rows = memory_source(put(pool)).rows(pairs)
    assert {array.dtype for array in jax.tree.leaves(rows)} == {np.dtype(np.float64)}
    assert all(array.devices() == {jax.devices()[HOST]} for array in jax.tree.leaves(rows))
    with _arrays.scope(False):
        z, c = listed_rows(memory_source(pool), pairs)
    np.testing.assert_array_equal(rows.differences, z)
    np.testing.assert_array_equal(rows.label_info, c)


def test_programs_of_a_pass_have_no_float64_on_a_tpu(without_float64):
    """Lowered for one: what is surveyed, bounded, priced, taken apart and looked up there."""
    source = memory_source(pool_of(64, scored=True, draws=2))
    factors = np.stack([np.eye(source.dim, dtype=np.float32)] * 2)
    programs = {
        "survey": lambda source: source.fold(jax.tree_util.Partial(_surveyed), None)[1],
        "price": lambda source: price(source, factors, np.float32(1), np.ones(64, np.float32)),
        "largest": lambda source: largest(source, factors),
        "largest, coarse": lambda source: largest(source, factors, BFLOAT16),
        "ends": lambda source: source.ends(np.zeros((8, 3), np.int32)),
        "subset": lambda source: source.subset(np.arange(5, dtype=np.int32)),
    }
    for name, program in programs.items():
        with _arrays.scope(name == "ends"):  # as it is called
            text = jax.export.export(jax.jit(program), platforms=["tpu"])(source).mlir_module()
        assert "f64" not in text, name


def _surveyed(chunk, carry, _):
    return carry, chunk.copies


class Own:
    """No more than a source must have; it remembers in which precision it is asked, and for how many prompts."""

    def __init__(self, pool):
        self.pool, self.given, self.wide, self.most = pool, memory_source(pool), set(), 0

    def __getattr__(self, name):
        if name not in ("prompts", "completions", "dim", "draws", "dtype", "fold"):
            raise AttributeError(name)
        return getattr(self.given, name)

    def rows(self, pairs):
        self.wide.add(_arrays.in_float64())
        return pair_rows(self.pool, pairs)

    def subset(self, prompts):
        self.wide.add(_arrays.in_float64())
        self.most = max(self.most, len(prompts))
        return self.given.subset(prompts)


@Partial
def summed(chunk, total, inputs):
    return total + jnp.sum(chunk.rows**2, dtype=total.dtype), (chunk.rows, chunk.copies, inputs)


def test_sources_are_folded_over_where_float64_is(monkeypatch):
    """Once, in order, at most so many pair slots at a time; as they are on a backend that has it."""
    pool, inputs = jax.device_put(pool_of(16), jax.devices()[0]), np.arange(16, dtype=np.float32)
    memory, own = memory_source(pool), Own(pool)
    with _arrays.float64():
        expected = [np.asarray(a) for a in in_dtype(memory, np.float64).fold(summed, np.zeros(()), inputs)[1]]
    monkeypatch.setattr(_arrays, "algebra_device", lambda: jax.devices()[HOST])
    monkeypatch.setattr(widened, "SUBSET", 5 * 36)
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    spread = sharded_source(pool, mesh, "data")
    adapted, in_a_basis = AdaptedSource(own, np.ones(5)), source_in_basis(own, np.eye(5))
    for source, wide in ((memory, True), (spread, False), (adapted, True), (in_a_basis, False)):
        with _arrays.float64():
            found = in_dtype(source, np.float64) if wide else at_algebra(source)
            total, (rows, copies, seen) = found.fold(summed, np.zeros(()), inputs)
        assert total.devices() == {jax.devices()[HOST]}
        assert rows.dtype == found.dtype == (np.float64 if wide else np.float32)
        np.testing.assert_allclose(rows, expected[0], atol=1e-14 if wide else 1e-6)
        np.testing.assert_array_equal(copies, expected[1])
        np.testing.assert_array_equal(seen, inputs)
        np.testing.assert_allclose(total, np.sum(expected[0] ** 2), rtol=1e-13 if wide else 1e-5)
    assert own.wide == {False} and own.most == 5


def test_a_problem_with_a_source_is_taken_there(without_float64):
    """Passes over it, the prompts that greedy looks at and listed pairs, though it puts its arrays elsewhere."""
    pool = jax.device_put(pool_of(16), jax.devices()[0])
    problem = make_problem(Own(pool), jd.LogDet(), jd.Budget(4, exclude=[[4, 0, 1]]), 0.1).at_algebra()
    some = np.array([1, 4, 5])
    part, rows = problem.part(some), problem.source.rows(np.array([[1, 0, 2]], np.int32))
    assert all(array.devices() == {jax.devices()[HOST]} for array in (part.features, part.mask, *jax.tree.leaves(rows)))
    np.testing.assert_array_equal(part.features, np.asarray(pool.features)[some])
    assert survey(problem.source).pair_counts[4] == problem.pair_counts[4] == 13


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pools", "sources"])
def test_designs_are_the_same_and_no_float64_leaves_the_host(kind):
    """In a process of its own, where every program is compiled under observation."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.without_float64", kind],
        cwd=root, env=environment, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["float64"] == []
    assert found["passes"] > 10 and found["algebra"] > 10
    assert found["designs"] and max(found["designs"].values()) <= 1e-10, found["designs"]
