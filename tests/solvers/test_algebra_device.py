"""Where the default backend has no float64, all of it is computed on the host, and designs are the same.

CPU devices play both: `algebra_device` is made to name another one than computations are placed on by default.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign._coarse import BFLOAT16
from jaxdesign.pricing import memory_source, price
from jaxdesign.pricing.largest import largest
from jaxdesign.pricing.listed import listed_rows
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
    assert {array.dtype for array in rows} == {np.dtype(np.float64)}
    assert all(array.devices() == {jax.devices()[HOST]} for array in rows)
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


@pytest.mark.slow
def test_designs_are_the_same_and_no_float64_leaves_the_host():
    """In a process of its own, where every program is compiled under observation."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.without_float64"],
        cwd=root, env=environment, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["float64"] == []
    assert found["passes"] > 10 and found["algebra"] > 10
    assert found["designs"] and max(found["designs"].values()) <= 1e-10, found["designs"]


@pytest.mark.slow
def test_second_moments_and_targets_of_sources(without_float64, monkeypatch):
    monkeypatch.setitem(_arrays.CHUNK_ENTRIES, "cpu", 2**9)  # several parts
    pool, weights = pool_of(64), np.random.default_rng(0).standard_normal((64, 6))
    source = memory_source(pool)
    np.testing.assert_allclose(jd.second_moment(source), jd.second_moment(pool), rtol=1e-5, atol=1e-6)
    found, expected = jd.policy_target(source, weights), jd.policy_target(pool, weights.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
