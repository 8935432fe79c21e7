"""Designs of pools divided over devices are those of one device; four virtual CPU devices (see conftest)."""

from itertools import pairwise

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxdesign as jd
from bench.exchanged import programs_recorded
from jaxdesign import _arrays
from jaxdesign.door import make_problem
from jaxdesign.pricing import ShardedSource, sharded_source
from jaxdesign.solvers.column_generation.hot_start import START
from tests.support.divided import DIM, divided, pool_of

EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto
PROMPTS = 64
COST = np.random.default_rng(0).uniform(1, 2, (PROMPTS, 6))
BUDGETS = {
    "repeats": jd.Budget(60),
    "caps": jd.Budget(60, per_pair=1),
    "quotas": jd.Budget(60, per_pair=1, per_prompt=2),
    "decided": jd.Budget(60, per_pair=1, exclude=[[1, 0, 1]], required=[[2, 0, 1], [50, 2, 4]]),
    "coupled": jd.Budget(
        60, quotas=jd.Quota(np.arange(PROMPTS) % 2, at_least=20, at_most=35), cost=COST, cost_total=170
    ),
}
CRITERIA = {"LogDet": jd.LogDet(), "Trace": jd.Trace(np.diag(np.arange(1.0, DIM + 1)))}
CASES = [
    ("LogDet", "caps", {"scored": True}),
    ("Trace", "quotas", {}),
    ("LogDet", "decided", {"scored": True, "draws": 3}),
    ("Trace", "repeats", {"scored": True}),
    ("LogDet", "coupled", {}),
]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setitem(_arrays.CHUNK_ENTRIES, "cpu", 2**9)  # a few prompts: every device has several chunks


def agree(found, expected, labels=1e-10):
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    np.testing.assert_allclose(found.labels, expected.labels, rtol=labels)
    np.testing.assert_allclose(found.certificate, expected.certificate, rtol=1e-10, atol=1e-12)
    assert found.status == expected.status and found.passes == expected.passes


def same_bits(found, again):
    assert found.labels.tobytes() == again.labels.tobytes() and found.certificate == again.certificate


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("kind", [AUTO, EXPLICIT])
@pytest.mark.parametrize("criterion, budget, scores", CASES)
def test_the_same_design_and_certificate(criterion, budget, scores, kind):
    pool, crit, limits = pool_of(PROMPTS, **scores), CRITERIA[criterion], BUDGETS[budget]
    spread = divided(pool, "two axes" if kind == AUTO else "one axis", kind)
    expected = jd.optimize(pool, crit, limits, prior=0.1)
    found, again = (jd.optimize(spread, crit, limits, prior=0.1) for _ in range(2))
    agree(found, expected)
    same_bits(found, again)
    given = expected.pairs, expected.labels
    agree(*(jd.evaluate(one, crit, limits, *given, prior=0.1) for one in (spread, pool)))


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_prompts_over_any_number_of_devices(count):
    pool, mesh = pool_of(PROMPTS - 3, scored=True), jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])
    budget = jd.Budget(40, per_pair=1)
    agree(*(jd.optimize(p, jd.LogDet(), budget, prior=0.1) for p in (sharded_source(pool, mesh, "data"), pool)))


@pytest.mark.slow
def test_annotators_and_a_mesh_that_the_caller_set():
    pool = pool_of(PROMPTS)
    people = jd.Annotators(flip=np.random.default_rng(0).uniform(0, 0.3, (2, PROMPTS)))
    expected = jd.optimize(pool, jd.LogDet(), BUDGETS["caps"], prior=0.1, annotators=people)
    for kind in (AUTO, EXPLICIT):
        spread = divided(pool, "one axis", kind)
        found = jd.optimize(spread, jd.LogDet(), BUDGETS["caps"], prior=0.1, annotators=people)
        agree(found, expected)
        np.testing.assert_array_equal(found.annotators, expected.annotators)
        with jax.set_mesh(spread.features.sharding.mesh):
            agree(jd.optimize(spread, jd.LogDet(), BUDGETS["caps"], prior=0.1, annotators=people), expected)


@pytest.mark.thorough
def test_features_are_never_gathered():
    """Devices exchange a few d x d matrices, rows of listed pairs, and the prompts a working set begins with."""
    pool = pool_of(1024)
    spread = divided(pool, "one axis", EXPLICIT)
    with programs_recorded() as programs:
        jd.optimize(jd.CompletionPool(spread.features, mask=spread.mask), jd.LogDet(), BUDGETS["caps"], prior=0.1)
    names = {program.name for program in programs}
    assert names - {"page_ends"} == {"fold", "picked", "visited", "page_prompts", "moved"}
    assert {program.name for program in programs if program.exchanged} == {"fold", "moved"}
    assert all(program.once for program in programs)
    assert max(p.exchanged for p in programs if p.name == "fold") <= 16 * (DIM + 1) ** 2


@pytest.mark.thorough
def test_a_pass_exchanges_no_more_than_a_matrix_and_numbers_of_pairs():
    """16 d^2 bytes and 64 a pair that is looked up, what the host reads and rows of columns that enter included.

    The first working set is made of the prompts that the hot start brought, once a call: no row of it is asked for.
    """
    rng, mesh, dim = np.random.default_rng(0), jax.make_mesh((4,), ("data",)), 32
    features = rng.standard_normal((2048, 8, dim)) * rng.exponential(1, (2048, 8, 1))
    given = sharded_source(jd.CompletionPool(features.astype(np.float32)), mesh, "data")
    asked, brought, marks = [], [], []

    class Counted(ShardedSource):
        def rows(self, pairs):
            brought.extend(map(tuple, np.unique(pairs[pairs.any(axis=1)], axis=0)))
            return super().rows(pairs)

        def over_pairs(self, kernel, pairs, *rest):
            asked.append(len(pairs))
            return super().over_pairs(kernel, pairs, *rest)

    def mark(_):
        marks.append((len(programs), sum(asked), len(brought)))

    with programs_recorded() as programs:
        source, budget = Counted(given.parts, given.layout), jd.Budget(400)
        design = jd.optimize(source, jd.LogDet(), budget, prior=0.1, tol=1e-6, callback=mark)
    assert len(marks) > 2 and design.status is jd.Status.CERTIFIED
    assert len(brought) == len(set(brought))  # no row is sent twice
    assert marks[0][2] == 0 < marks[-1][2]
    for before, after in pairwise(marks):
        some, pairs = programs[before[0] : after[0]], after[1] - before[1]
        exchanged = sum(program.exchanged for program in some)
        read = sum(4 * program.results for program in some if program.name == "visited")  # the host reads all slots
        assert exchanged + read <= 16 * dim**2 + 64 * pairs
    subset = START * dim * (4 * dim + 4) + 16 * dim**2  # features and copies of START d completions
    assert sum(program.exchanged for program in programs[: marks[0][0]]) <= 1.25 * subset


@pytest.mark.thorough
def test_a_run_goes_on_with_the_same_bits_without_the_rows_it_held(tmp_path):
    """A checkpoint keeps no rows: those of a working set are asked for again."""
    spread = divided(pool_of(256, scored=True), "one axis", AUTO)
    options = {"prior": 0.1, "tol": 1e-7}
    whole = jd.optimize(spread, jd.LogDet(), BUDGETS["caps"], **options)
    options["checkpoint"] = tmp_path / "run.npz"
    calls = []
    jd.optimize(
        spread, jd.LogDet(), BUDGETS["caps"], callback=lambda row: calls.append(row) or len(calls) == 2, **options
    )
    resumed = jd.optimize(spread, jd.LogDet(), BUDGETS["caps"], **options)
    assert len(whole.trace) > 2 and resumed.passes == whole.passes
    same_bits(resumed, whole)


def test_only_a_pool_divided_over_prompts_goes_there():
    """Extreme units, a target computed from the divided pool, and solvers that need the whole pool, which get it."""
    pool = pool_of(16)
    spread = divided(pool, "one axis", EXPLICIT)
    budget = jd.Budget(20, per_pair=1)
    problem = make_problem(spread, jd.Trace(jd.policy_target(spread)), budget, 0.1)
    assert isinstance(problem.source.given, ShardedSource)
    assert len(problem.pool.features.devices()) == 1
    np.testing.assert_array_equal(problem.pool.features, pool.features)
    over_rows = NamedSharding(jax.make_mesh((2,), ("data",), devices=jax.devices()[:2]), PartitionSpec(None, "data"))
    other = jd.CompletionPool(jax.device_put(pool.features, over_rows), mask=pool.mask)
    assert len(make_problem(other, jd.LogDet(), budget, 0.1).pool.features.devices()) == 1
    whole = make_problem(spread, jd.LogDet(), budget, 0.1, whole=True)
    assert len(whole.source.features.devices()) == 1


@pytest.mark.slow
def test_extreme_units_and_dense_solvers():
    pool = pool_of(16, scored=True)
    scale = np.array([1e8, 1e-9, 1, 1, 1e3], np.float32)
    big = jd.CompletionPool(pool.features * scale[None, None], pool.scores, pool.mask, flip=pool.flip)
    budget = jd.Budget(20, per_pair=1)
    agree(*(jd.optimize(p, jd.LogDet(), budget) for p in (divided(big, "one axis", EXPLICIT), big)))
    for solver in ("frank_wolfe", "interior_point"):
        options = {"prior": 0.1, "solver": solver, "tol": 1e-2}
        agree(*(jd.optimize(p, jd.LogDet(), budget, **options) for p in (divided(pool, "one axis", AUTO), pool)))
