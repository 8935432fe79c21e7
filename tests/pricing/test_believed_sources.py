"""A belief's mean gives sources the margins that it gives the same pool in memory, wherever the source has its rows."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign.pool import CompletionPool
from jaxdesign.preference import scored_pool
from jaxdesign.pricing import memory_source, sharded_source, streamed_source
from jaxdesign.pricing.believed import believed, completion_scores
from jaxdesign.pricing.in_basis import source_in_basis
from jaxdesign.pricing.widened import SubsetSource
from tests.pricing.test_residual_sources import Own
from tests.support.divided import pool_of

PROMPTS, CHUNK, DIM = 61, 20, 5
MEAN = np.array([1.0, -2.0, 0.5, 0.3, 2.0])
BELIEF = jd.Belief(MEAN, np.diag([1.0, 2.0, 3.0, 2.0, 1.0]))
PAIRS = np.array([[4, 0, 1], [7, 2, 4], [58, 0, 3], [59, 1, 2]], np.int32)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setitem(_arrays.CHUNK_ENTRIES, "cpu", 2**9)


def source_of(pool, where):
    if where == "sharded":
        mesh = jax.make_mesh((4,), ("data",), (AxisType.Auto,), devices=jax.devices()[:4])
        return sharded_source(pool, mesh, "data")
    if where == "streamed":
        given = {name: getattr(pool, name) for name in ("features", "scores", "mask", "flip")}
        given = {name: None if value is None else np.asarray(value) for name, value in given.items()}
        return streamed_source(**given, chunk=CHUNK)
    memory = memory_source(pool)
    return {
        "memory": memory,
        "in a basis": source_in_basis(memory, np.eye(DIM)),
        "in subsets": SubsetSource(memory, np.dtype(np.float64)),
    }[where]


WHERE = ["memory", "streamed", "in a basis", "in subsets", pytest.param("sharded", marks=pytest.mark.thorough)]


@pytest.mark.parametrize("where", WHERE)
def test_margins_are_those_of_the_pool_in_memory(where):
    pool = pool_of(PROMPTS)
    pool = CompletionPool(pool.features, mask=pool.mask, flip=np.full(PROMPTS, 0.1, np.float32))
    expected = scored_pool(pool, MEAN)
    source, precision = believed(source_of(pool, where), BELIEF)
    np.testing.assert_array_equal(precision, BELIEF.precision)
    assert source.scored and source.draws == 1
    info = jd.label_information(expected, PAIRS)
    np.testing.assert_allclose(np.asarray(source.rows(PAIRS).label_info)[0], info, rtol=1e-6)
    some = np.array([4, 7, 58, 59])
    own = np.array([[0, 0, 1], [1, 2, 4], [2, 0, 3], [3, 1, 2]], np.int32)
    np.testing.assert_allclose(np.asarray(source.subset(some).rows(own).label_info)[0], info, rtol=1e-6)
    again, _ = believed(source, jd.Belief(-MEAN, np.eye(DIM)))
    assert again is source  # its own scores come before the mean


def test_scores_keep_the_digits_of_differences():
    """Features of far clusters: 1e4 in common, and a mean along which that is 1e4 times the difference."""
    rng = np.random.default_rng(0)
    features = (1e4 + rng.integers(-64, 64, (40, 6, DIM)) / 16).astype(np.float32)
    mean = 1e-2 * MEAN
    found = completion_scores(memory_source(CompletionPool(features)), mean).astype(np.float64)
    exact = np.asarray(features, np.float64) @ mean
    np.testing.assert_allclose(found - found[:, :1], exact - exact[:, :1], rtol=1e-5, atol=1e-8)


def test_a_mean_of_nothing_changes_nothing():
    source = source_of(pool_of(PROMPTS), "streamed")
    assert believed(source, jd.Belief(0 * MEAN, np.eye(DIM)))[0] is source
    assert believed(source, 2.0) == (source, 2.0)


@pytest.mark.parametrize(
    ("make", "belief", "words"),
    [
        (lambda pool: Own(pool), BELIEF, "no way to give Own any; let its chunks have .* prior=belief.precision"),
        (
            lambda pool: source_in_basis(Own(pool), np.eye(DIM)),
            BELIEF,
            "no way to give Own any; let its chunks have .* prior=belief.precision",
        ),
        (memory_source, jd.Belief(1e39 * MEAN, np.eye(DIM)), "phi . prior.mean: .*inf at prompt"),
        (memory_source, jd.Belief(np.ones(2), np.eye(2)), "about 2 parameters found for 5 features"),
    ],
)
def test_what_cannot_be_is_refused_and_says_what_to_do(make, belief, words):
    with pytest.raises(ValueError, match=words):
        jd.optimize(make(pool_of(PROMPTS)), jd.LogDet(), jd.Budget(9, per_pair=1), prior=belief)


@pytest.mark.thorough(cases=2)
@pytest.mark.parametrize("where", ["streamed", "in a basis", "sharded"])
def test_designs_are_those_of_the_pool_in_memory(where):
    pool, budget, crit = pool_of(PROMPTS), jd.Budget(20, per_pair=1), jd.Trace(np.eye(DIM))
    source = source_of(pool, where)
    found, expected = (jd.optimize(one, crit, budget, prior=BELIEF) for one in (source, pool))
    assert found.certificate.lower_bound <= expected.certificate.value * (1 + 1e-6)
    assert expected.certificate.lower_bound <= found.certificate.value * (1 + 1e-6)
    plain = jd.optimize(source, crit, budget, prior=BELIEF.precision)
    assert abs(plain.certificate.value - expected.certificate.value) > 1e-2 * expected.certificate.value


@pytest.mark.slow
def test_curves_of_a_file_are_those_of_the_pool_in_memory():
    pool = pool_of(PROMPTS)
    given = {"prior": BELIEF, "rules": ("random",), "beta": 0.5}
    found, expected = (
        jd.label_curve(one, jd.LogDet(), jd.Budget(1, per_pair=1), [6, 12], **given)
        for one in (source_of(pool, "streamed"), pool)
    )
    for rule in ("design", "random"):
        np.testing.assert_allclose(found.gaps[rule], expected.gaps[rule], rtol=1e-3)
