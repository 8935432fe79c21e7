"""Residuals wherever a pool lies: over devices, read in chunks, of one's own, in a basis, seen by annotators."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign._coarse import BFLOAT16, TF32
from jaxdesign.exact.greedy.greedy import greedy
from jaxdesign.pool import CompletionPool, prompts_of
from jaxdesign.pricing import as_chunk, folded, memory_source, pair_rows, price, sharded_source, streamed_source
from jaxdesign.pricing.annotated import pool_source
from jaxdesign.pricing.in_basis import source_in_basis
from jaxdesign.pricing.largest import largest
from jaxdesign.pricing.passes import pairs_information
from tests.support.annotated import repeated_pool
from tests.support.designs import agree
from tests.support.divided import divided, pool_of

PROMPTS, CHUNK = 61, 20
KINDS = {"noise": 1.5, "cap": "cap"}


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setitem(_arrays.CHUNK_ENTRIES, "cpu", 2**9)


def shrunk_pool(kind, prompts=PROMPTS, **given):
    pool = pool_of(prompts, **given)
    residual = jd.residual_of(pool, KINDS[kind])
    return CompletionPool(pool.features, pool.scores, pool.mask, flip=pool.flip, residual=residual), residual


@dataclass(frozen=True)
class Own:
    """A source that makes its chunks of a pool that has a residual."""

    pool: CompletionPool
    dtype = np.dtype(np.float32)

    @property
    def prompts(self):
        return self.pool.num_prompts

    @property
    def completions(self):
        return self.pool.completions

    @property
    def dim(self):
        return self.pool.dim

    @property
    def draws(self):
        return self.pool.num_draws or 1

    def fold(self, kernel, carry, per_prompt=None, merge=None):
        starts = range(0, self.prompts, CHUNK)
        parts = (as_chunk(prompts_of(self.pool, slice(k, k + CHUNK))) for k in starts)
        return folded(parts, kernel, carry, per_prompt)

    def rows(self, pairs):
        return pair_rows(self.pool, pairs)

    def subset(self, prompts):
        return memory_source(prompts_of(self.pool, prompts))


def sources(pool, residual):
    mesh = jax.make_mesh((4,), ("data",), (AxisType.Auto,), devices=jax.devices()[:4])
    given = {name: getattr(pool, name) for name in ("features", "scores", "mask", "flip")}
    given = {name: None if value is None else np.asarray(value) for name, value in given.items()}
    return {
        "sharded": sharded_source(pool, mesh, "data"),
        "streamed": streamed_source(**given, chunk=CHUNK, residual=residual),
        "own": Own(pool),
        "in a basis": source_in_basis(memory_source(pool), np.eye(pool.dim)),
    }


@pytest.mark.thorough(cases=4)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("where", ["sharded", "streamed", "own", "in a basis"])
def test_every_source_says_what_the_pool_in_memory_says(where, draws, kind):
    pool, residual = shrunk_pool(kind, scored=True, draws=draws)
    source, memory = sources(pool, residual)[where], memory_source(pool)
    factors = np.stack([np.eye(pool.dim, dtype=np.float32)] * draws)
    found, expected = (price(one, factors, np.float32(0.5)) for one in (source, memory))
    for name in ("best", "highest", "error"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=3e-5, atol=1e-6, err_msg=name)
    with _arrays.float64():
        totals = [np.asarray(pairs_information(one)) for one in (source, memory)]
    np.testing.assert_allclose(*totals, rtol=1e-6, atol=1e-6)
    pairs = np.zeros((4096, 3), np.int32)
    pairs[:3] = [[4, 0, 1], [7, 2, 4], [58, 0, 3]]
    np.testing.assert_allclose(source.rows(pairs).label_info, memory.rows(pairs).label_info, rtol=1e-6)
    some = np.array([1, 4, 30, 58])
    subsets = [one.subset(some).rows(np.array([[1, 0, 1], [3, 2, 4]])).label_info for one in (source, memory)]
    np.testing.assert_allclose(*subsets, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["sharded", "streamed", "own", "in a basis"])
def test_designs_are_those_of_the_pool_in_memory(where, kind):
    pool, residual = shrunk_pool(kind, scored=True)
    budget, crit = jd.Budget(40, per_pair=1, exclude=[[7, 2, 4]]), jd.Trace(np.eye(pool.dim))
    for solve in (jd.optimize, jd.select_pairs):
        one, other = (solve(each, crit, budget, prior=0.1) for each in (sources(pool, residual)[where], pool))
        assert one.certificate.lower_bound <= other.certificate.value * (1 + 1e-6)
        assert other.certificate.lower_bound <= one.certificate.value * (1 + 1e-6)
        if where in ("sharded", "own"):
            agree(one, other)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("kind", KINDS)
def test_annotators_reverse_what_is_left(kind):
    """Features shared against the pool written out once for each of them."""
    pool, _ = shrunk_pool(kind, prompts=13)
    scores = np.random.default_rng(0).standard_normal(pool.mask.shape).astype(np.float32)
    pool = CompletionPool(pool.features, scores, pool.mask, residual=pool.residual)
    flip = np.array([0.0, 0.1, 0.35])
    apart = repeated_pool(pool, flip)
    rows = jd.Residual(*(None if a is None else np.tile(a, (3, 1, 1)) for a in pool.residual))
    apart = CompletionPool(apart.features, apart.scores, apart.mask, flip=apart.flip, residual=rows)
    shared = pool_source(pool, np.broadcast_to(flip[:, None], (3, 13)).astype(np.float32))
    pairs = np.array([[4, 0, 1], [17, 2, 4], [30, 0, 1], [12, 0, 3]], np.int32)
    found, expected = (one.rows(pairs).label_info for one in (shared, memory_source(apart)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    found, expected = (
        price(one, np.eye(5, dtype=np.float32)[None], np.float32(0.1)) for one in (shared, memory_source(apart))
    )
    np.testing.assert_allclose(found.best, expected.best, rtol=1e-5, atol=1e-6)
    joint = jd.optimize(
        pool, jd.LogDet(), jd.Budget(20, per_pair=1), prior=0.1, annotators=jd.Annotators(flip=flip), tol=1e-5
    )
    assert joint.certificate.efficiency >= 1 - 1e-5 and set(joint.annotators) <= {0, 1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("crit", [jd.LogDet(), jd.Trace(np.eye(5))], ids=str)
def test_greedy_on_devices_picks_what_it_picks_on_one(crit, kind):
    pool, _ = shrunk_pool(kind, prompts=60)
    spread = divided(pool, "one axis", AxisType.Explicit)
    spread = replace_residual(spread, pool.residual)
    one, other = (np.asarray(greedy(each, crit, size=12, prior=0.1)[0]) for each in (pool, spread))
    np.testing.assert_array_equal(one, other)


def replace_residual(pool, residual):
    """With the same rows where the pool lies."""
    put = jax.tree.map(lambda a: jax.device_put(a, pool.features.sharding), residual)
    return CompletionPool(pool.features, pool.scores, pool.mask, flip=pool.flip, residual=put)


@pytest.mark.thorough(cases=2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coarse", [TF32, BFLOAT16], ids=["tf32", "bfloat16"])
def test_coarse_bounds_are_bounds(coarse, kind):
    pool, _ = shrunk_pool(kind, scored=True)
    F = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0] * 10.0 ** np.array([0, 0, -1, 1, 0])
    highest, error = largest(memory_source(pool), F[None].astype(np.float32), coarse)
    exact = memory_source(pool).in_dtype(np.float64)
    with _arrays.float64():
        truth, _ = largest(exact, F[None])
    truth = np.asarray(truth, np.float64)
    some = truth > 0
    assert (np.asarray(highest, np.float64) + np.asarray(error, np.float64) >= truth)[some].all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_certificates_hold_for_every_design_that_is_found(seed):
    """Random pools, kinds, noise and budgets: no allocation of any solver or rule is below the bound of another."""
    rng = np.random.default_rng(seed)
    kind, scored = rng.choice(list(KINDS)), bool(rng.random() < 0.7)
    given = pool_of(int(rng.integers(8, 40)), scored=scored, draws=int(rng.choice([1, 3])), seed=seed)
    variance = "cap" if kind == "cap" else float(10 ** rng.uniform(-2, 2))
    pool = CompletionPool(
        given.features, given.scores, given.mask, flip=given.flip, residual=jd.residual_of(given, variance)
    )
    crit = jd.LogDet() if rng.random() < 0.5 else jd.Trace(np.diag(rng.uniform(0.1, 2, pool.dim)))
    known = {"prior": float(10 ** rng.uniform(-3, 0))}
    budget = jd.Budget(int(rng.integers(5, 40)), per_pair=1, per_prompt=None if rng.random() < 0.5 else 5)
    designs = [jd.optimize(pool, crit, budget, solver=name, **known) for name in (None, "frank_wolfe")]
    designs += [jd.select_pairs(pool, crit, budget, **known), jd.baselines.random(pool, crit, budget, **known)]
    scale = 1e-9 * max(1, abs(designs[0].certificate.value))
    for one in designs:
        assert all(one.certificate.lower_bound <= other.certificate.value + scale for other in designs)
