"""Whole labels of a pool are the same whether it is held in memory, read a chunk at a time, or lies on several devices.

Four virtual CPU devices (see conftest).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign.door import make_problem
from jaxdesign.exact import candidates
from jaxdesign.exact.exchange import exchange, listing, search
from jaxdesign.exact.greedy import greedy
from jaxdesign.pricing import memory_source, sharded_source, streamed_source
from jaxdesign.pricing.adapted import AdaptedSource
from jaxdesign.pricing.listed import listed_rows
from tests.support.divided import divided, pool_of
from tests.support.stored import COMPLETIONS, DIM, ragged

PROMPTS = 240
BUDGETS = {
    "repeats": jd.Budget(40),
    "caps": jd.Budget(40, per_pair=1),
    "few": jd.Budget(4, per_pair=1),
    "quotas": jd.Budget(50, per_pair=1, per_prompt=2),
    "decided": jd.Budget(40, per_pair=1, exclude=[[7, 0, 1], [40, 2, 9]], required=[[4, 0, 1], [201, 2, 7]]),
    "coupled": jd.Budget(40, per_pair=1, quotas=jd.Quota(np.arange(PROMPTS) % 2, at_least=15, at_most=22)),
}
CRITERIA = {"LogDet": jd.LogDet(), "Trace": jd.Trace(np.diag(np.arange(1.0, DIM + 1)))}


def sources(given, counts=(4,)):
    pool = jd.CompletionPool(**given)
    yield from (streamed_source(chunk=chunk, **given) for chunk in (77, 128))
    for count in counts:
        yield sharded_source(pool, jax.make_mesh((count,), ("data",), devices=jax.devices()[:count]), "data")


def same(found, expected):
    """The labels of a choice, and its certificate to ten digits."""
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.certificate, expected.certificate, rtol=1e-10, atol=1e-12)
    for name in ("method", "bound"):
        assert found.report[name] == expected.report[name]
    assert found.report["candidates"].keys() == expected.report["candidates"].keys()
    for name, other in expected.report["candidates"].items():
        one = found.report["candidates"][name]
        assert {k: one.get(k) for k in ("swaps", "start", "prompts")} == {
            k: other.get(k) for k in ("swaps", "start", "prompts")
        }, name


@pytest.mark.parametrize("methods", [("best_set",), pytest.param(("best_set", "exchange"), marks=pytest.mark.thorough)])
def test_labels_of_a_file_are_those_of_the_pool_in_memory(methods):
    given = ragged(prompts=PROMPTS)
    budget = jd.Budget(20, per_pair=1)
    first, again, expected = (
        jd.select_pairs(one, jd.LogDet(), budget, prior=0.01, tol=1e-6, max_passes=3, methods=methods)
        for one in (streamed_source(chunk=77, **given), streamed_source(chunk=77, **given), jd.CompletionPool(**given))
    )
    same(first, expected)
    assert first.report["candidates"].get("exchange", {"optimal": True})["optimal"]
    np.testing.assert_array_equal(first.pairs, again.pairs)
    assert first.certificate == again.certificate


@pytest.mark.slow
@pytest.mark.parametrize("looked", ["at once", "closely"])
@pytest.mark.parametrize("criterion, budget", [("LogDet", "caps"), ("Trace", "quotas")])
def test_any_number_of_devices(criterion, budget, looked, monkeypatch):
    test_the_same_labels_however_the_pool_is_kept(criterion, budget, looked, monkeypatch, (1, 2, 4))


@pytest.mark.thorough(cases=2)
@pytest.mark.parametrize("looked", ["closely", "at once"])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_same_labels_however_the_pool_is_kept(criterion, budget, looked, monkeypatch, counts=(4,)):
    """Also where no more is looked at than the prompts that may hold the best pairs, and greedy sees half of those."""
    if looked == "closely":
        monkeypatch.setattr(listing, "LARGE", 0)
        monkeypatch.setattr(exchange, "OTHERS", 100)
        monkeypatch.setattr(candidates, "GREEDY_MEMORY", 150 * COMPLETIONS * (COMPLETIONS + DIM))
    given = ragged(prompts=PROMPTS)
    options = {"prior": 0.01, "tol": 1e-2 if budget == "coupled" else 1e-3}
    call = CRITERIA[criterion], BUDGETS[budget]
    expected = jd.select_pairs(jd.CompletionPool(**given), *call, **options)
    for source in sources(given, counts):
        same(jd.select_pairs(source, *call, **options), expected)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_scores_flips_and_draws(dtype, draws):
    given = ragged(dtype, prompts=PROMPTS, draws=draws, noise=True)
    call = jd.LogDet(), jd.Budget(20, per_pair=1)
    expected = jd.select_pairs(jd.CompletionPool(**given), *call, prior=0.01)
    for source in sources(given):
        same(jd.select_pairs(source, *call, prior=0.01), expected)


@pytest.mark.slow
@pytest.mark.parametrize("looked", ["at once", "closely"])
def test_annotators_units_and_pools_on_a_mesh(looked, monkeypatch):
    if looked == "closely":
        monkeypatch.setattr(listing, "LARGE", 0)
        monkeypatch.setattr(exchange, "OTHERS", 30)
    monkeypatch.setitem(_arrays.CHUNK_ENTRIES, "cpu", 2**9)
    pool = pool_of(64)
    scale = np.array([1e8, 1e-9, 1, 1, 1e3], np.float32)
    pool = jd.CompletionPool(pool.features * scale[None, None], mask=pool.mask)
    people = jd.Annotators(flip=np.random.default_rng(0).uniform(0, 0.3, (2, 64)))
    for options in ({}, {"annotators": people}):
        call = jd.LogDet(), jd.Budget(20, per_pair=1)
        expected = jd.select_pairs(pool, *call, **options)
        for kind in (AxisType.Auto, AxisType.Explicit):
            found = jd.select_pairs(divided(pool, "two axes", kind), *call, **options)
            same(found, expected)
            if options:
                np.testing.assert_array_equal(found.annotators, expected.annotators)


@pytest.mark.slow
def test_ranges_of_sources():
    """Whole labels on the range of features, which no source has stored."""
    given = ragged(prompts=PROMPTS)
    given["features"] = np.concatenate([given["features"], given["features"][..., :2]], axis=-1)
    call = jd.LogDet(), jd.Budget(20, per_pair=1)
    first, *others = (jd.select_pairs(jd.restrict_to_range(source)[0], *call, prior=0.01) for source in sources(given))
    for other in others:
        same(other, first)
    small, _ = jd.restrict_to_range(jd.CompletionPool(**given))
    held = jd.select_pairs(small, *call, prior=0.01)
    np.testing.assert_array_equal(first.pairs, held.pairs)
    np.testing.assert_allclose(first.certificate.value, held.certificate.value, rtol=1e-6)


def test_looking_closely_finds_what_looking_at_everything_finds(monkeypatch):
    """The best pairs, what they gain, and which pairs should give them a label: a quick search and a complete one."""
    pool = jd.CompletionPool(**ragged(prompts=90))
    problem = make_problem(pool, jd.LogDet(), jd.Budget(20, per_pair=1), 0.01)
    pairs, _ = greedy.greedy_allocation(pool, jd.LogDet(), problem.limits, problem.prior)
    pairs = np.concatenate([pairs[:10], [[2, 0, 1], [4, 1, 3], [4, 1, 4], [4, 2, 9], [5, 0, 1]]]).astype(np.int32)
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    with _arrays.float64():
        batch = exchange._batch(problem, None, exchange.Allocation(pairs, np.ones(len(pairs))))
        for source in (memory_source(pool, np.float64), streamed_source(chunk=40, **ragged(prompts=90))):
            wide = source.in_dtype(np.float64)
            for complete in (False, True):
                found = []
                for large in (2**21, 0):
                    monkeypatch.setattr(listing, "LARGE", large)
                    monkeypatch.setattr(exchange, "OTHERS", 40)
                    found.append(exchange._search(problem, batch, wide, 1e-9, complete=complete))
                everything, closely = found
                np.testing.assert_array_equal(everything.others, closely.others)
                np.testing.assert_allclose(everything.gains, closely.gains, rtol=1e-9)
                assert len(everything.others) == 40 and not (everything.others[:, None] == pairs).all(axis=-1).any()
                if complete:
                    assert everything.labelled[0] == closely.labelled[0]


def test_pairs_that_may_not_gain_are_shut_whatever_the_order_of_prompts():
    closed = np.array([[1, 0, 1], [4, 0, 2], [4, 1, 2], [9, 0, 1], [search.NO_PROMPT] * 3], np.int32)
    prompts = np.array([9, 4, 0, 4, 2], np.int32)
    found = np.asarray(search._shut(jnp.asarray(closed), jnp.asarray(prompts), (5, 3, 3)))
    expected = np.zeros((5, 3, 3), bool)
    for row, prompt in enumerate(prompts):
        for p, i, j in closed[:4]:
            expected[row, i, j] |= p == prompt
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_prompts_that_greedy_sees_are_those_with_labels_and_those_with_the_best_pairs(monkeypatch):
    given = ragged(prompts=PROMPTS)
    monkeypatch.setattr(candidates, "GREEDY_MEMORY", 150 * COMPLETIONS * (COMPLETIONS + DIM))
    for one in (jd.CompletionPool(**given), streamed_source(chunk=77, **given)):
        problem = make_problem(one, jd.LogDet(), jd.Budget(20, per_pair=1), 0.01)
        assert isinstance(problem.source, AdaptedSource) == (problem.whole is None)
        design = jd.optimize(one, jd.LogDet(), jd.Budget(20, per_pair=1), prior=0.01)
        seen = candidates._greedy_prompts(problem, jd.LogDet(), exchange.Allocation(design.pairs, design.labels))
        A = np.asarray(problem.prior[0])
        z, c = (np.asarray(part) for part in listed_rows(problem.source, design.pairs))
        A = A + np.einsum("s,si,sj->ij", design.labels * c[0], z, z)
        pool = jd.CompletionPool(**given)
        b = np.asarray(jd.pair_sensitivities(pool, np.linalg.inv(A))).max(axis=(1, 2))
        with_labels = np.unique(design.pairs[:, 0])
        assert len(seen) == 128 and set(with_labels) <= set(seen)
        beside = np.setdiff1d(seen, with_labels)
        left = np.setdiff1d(np.arange(PROMPTS), seen)
        assert len(beside) > 64 and b[beside].min() >= b[left].max() * (1 - 1e-5)
