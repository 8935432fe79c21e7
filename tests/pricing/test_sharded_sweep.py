"""Passes over a divided pool that look closely at some prompts find what they find in memory, and move no features."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign as jd
from bench.exchanged import programs_recorded
from jaxdesign import _arrays
from jaxdesign.pricing import memory_source, sharded_source
from jaxdesign.pricing import sweep as sweeping
from jaxdesign.pricing.adapted import AdaptedSource
from jaxdesign.pricing.annotated import AnnotatedSource
from jaxdesign.pricing.passes import Charges, in_pricing_units
from jaxdesign.pricing.source import closed_bits, in_turn, some_of
from jaxdesign.pricing.sweep import Factored, Wanted, sweep
from jaxdesign.solvers.column_generation import hot_start
from tests.support.divided import COMPLETIONS, DIM, pool_of
from tests.support.problems import random_spd

PROMPTS, PEOPLE = 61, 2


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(_arrays, "chunk_entries", lambda: 3 * COMPLETIONS**2)  # three prompts a chunk
    monkeypatch.setattr(sweeping, "LARGE", 4 * COMPLETIONS**2)  # so that no pool is looked at as a whole


def seen(source, kind, rng):
    """A source as it is, or with pairs closed and in other units, or as several annotators see it, or both."""
    if "annotators" in kind:
        source = AnnotatedSource(source, rng.uniform(0, 0.3, (PEOPLE, PROMPTS)).astype(np.float32))
    if "closed" in kind:
        closed = np.array([[p, 0, 1] for p in range(0, source.prompts, 2)])
        source = AdaptedSource(source, 2.0 ** np.arange(DIM), closed_bits(closed, source.prompts, COMPLETIONS))
    return source


def factored(seed):
    exact = np.linalg.cholesky(random_spd([seed], DIM))[None]
    return Factored(exact, *in_pricing_units(exact, np.dtype(np.float32)))


def mesh_of(count=4):
    return jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("kind", ["plain", "closed", "annotators", "annotators, closed"])
@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.99), st.booleans())
def test_the_same_pairs_counts_and_bounds(kind, seed, quantile, charged):
    pool, rng = pool_of(PROMPTS, scored="annotators" not in kind, seed=seed), np.random.default_rng(seed)
    given = sharded_source(pool, mesh_of(), "data"), memory_source(pool)
    divided, memory = (seen(source, kind, np.random.default_rng(seed)) for source in given)
    at, prompts = factored(seed), divided.prompts
    charges = None
    if charged:
        charges = Charges(rng.uniform(0, 1, (prompts, COMPLETIONS)), rng.integers(0, 2, prompts).astype(np.float32))
    ranks = rng.integers(1, 5, prompts).astype(np.float32)
    everything = sweep(memory, at, Wanted(0.0, -np.inf, most_entered=10**4), ranks, charges)
    level = float(np.quantile(everything.values, quantile))
    found, expected = (
        sweep(one, at, Wanted(level * (1 + 1e-3), level * (1 + 1e-3), most_entered=9), ranks, charges)
        for one in (divided, memory)
    )
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.entered, expected.entered)
    assert found.looked == expected.looked and found.complete == expected.complete
    np.testing.assert_allclose(found.upper, expected.upper, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.ceilings.upper, expected.ceilings.upper, rtol=1e-5, atol=1e-6)


def test_devices_look_at_as_many_prompts_each():
    source, some = sharded_source(pool_of(64), mesh_of(), "data"), np.arange(3, 64, 2)
    turns = in_turn(source, some)
    assert sorted(turns) == some.tolist()
    for start in range(0, 28, 4):
        assert len(set(source.home(turns[start : start + 4]))) == 4
    picked = some_of(source, turns)
    assert picked.prompts == len(turns) and picked.given.prompts == 4 * 8  # eight of each device, in one program
    assert some_of(memory_source(pool_of(64)), some).prompts == len(some)


@pytest.mark.slow
def test_a_design_is_found_without_moving_features(monkeypatch):
    """But for the prompts that a working set begins with: many pages, and few prompts at the beginning."""
    monkeypatch.setattr(hot_start, "LARGE", 12 * COMPLETIONS**2)
    pool, budget = pool_of(256, scored=True), jd.Budget(60, per_pair=1)
    expected = jd.optimize(pool, jd.LogDet(), budget, prior=0.1)
    with programs_recorded() as programs:
        found = jd.optimize(sharded_source(pool, mesh_of(), "data"), jd.LogDet(), budget, prior=0.1)
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    np.testing.assert_allclose(found.labels, expected.labels, rtol=1e-10)
    np.testing.assert_allclose(found.certificate, expected.certificate, rtol=1e-10)
    names = [program.name for program in programs]
    assert "picked" in names and names.count("page_prompts") == 1
    for program in programs:
        if program.name in ("fold", "picked"):
            assert program.exchanged <= 16 * (DIM + 1) ** 2 and program.once
