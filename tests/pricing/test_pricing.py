"""The pricing pass against brute force, and the bound on its rounding error that every certificate leans on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial

from jaxdesign import _arrays
from jaxdesign.analysis import analyse, exact_sensitivities
from jaxdesign.budget.budget import Budget
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.trace import Trace
from jaxdesign.door import make_problem
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.memory import memory_source
from jaxdesign.pricing.passes import Charges, PassResult, best_pairs, price, reaching_pairs
from jaxdesign.pricing.rows_on_host import moved_rows, rows_on_host
from jaxdesign.pricing.source import open_pairs, survey
from tests.support.counting import counting
from tests.support.problems import random_arrays, random_spd, sensitivities_of, written_out

PROMPTS, COMPLETIONS, DIM, DRAWS = 12, 8, 5, 2
NOWHERE = np.float32(np.inf)
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["no", "yes", "draws"])


def pool_of(seed, scores="yes", **shape):
    lead = {"prompts": PROMPTS, "completions": COMPLETIONS, "dim": DIM} | shape
    features, u, mask = random_arrays(seed, draws=DRAWS if scores == "draws" else None, **lead)
    return CompletionPool(features, None if scores == "no" else u, mask)


def priced(pool, seed, threshold=NOWHERE, ranks=None):
    """Pass result, and pairs with sensitivities in plain NumPy float64, at a random G."""
    G = np.stack([random_spd([seed, r], DIM) for r in range(pool.num_draws or 1)])
    source = memory_source(pool)
    factors = np.linalg.cholesky(G).astype(source.dtype)
    pairs, z, c = written_out(pool)
    ranks = None if ranks is None else ranks.astype(np.float32)
    return price(source, factors, threshold, ranks), pairs, sensitivities_of(z, c, G)


def as_dense(pairs, b):
    dense = np.full((PROMPTS, COMPLETIONS, COMPLETIONS), -1.0)
    dense[tuple(pairs.T)] = dense[tuple(pairs[:, [0, 2, 1]].T)] = b
    return dense


# ---- what a pass reports


@given(seeds, kinds)
def test_best_and_partner_are_the_two_largest_of_every_completion(seed, scores):
    result, pairs, b = priced(pool_of(seed, scores), seed)
    dense = as_dense(pairs, b)
    best, partner, error = np.asarray(result.best), np.asarray(result.partner), np.asarray(result.error)[:, None, None]
    expected = -np.sort(-dense, axis=-1)[..., :2]
    assert (np.abs(best - expected) <= error).all()
    assert ((best == -1) == (expected == -1)).all()
    at_partner = np.take_along_axis(dense, partner, axis=-1)
    assert (np.abs(at_partner - expected)[expected >= 0] <= (2 * error + 0 * expected)[expected >= 0]).all()


@given(seeds, kinds, st.floats(0, 1))
def test_every_pair_at_or_above_the_threshold_is_listed_and_few_below(seed, scores, quantile):
    pool = pool_of(seed, scores)
    threshold = np.float32(np.quantile(priced(pool, seed)[2], quantile))
    result, pairs, b = priced(pool, seed, threshold)
    listed = set(map(tuple, reaching_pairs(result, COMPLETIONS)))
    error = np.asarray(result.error)[pairs[:, 0]]
    assert listed >= set(map(tuple, pairs[b >= threshold]))
    assert listed <= set(map(tuple, pairs[b >= threshold - 3 * error]))


@pytest.mark.thorough
@given(seeds, kinds, st.sampled_from([1.0, 1e2, 1e4, 1e6]), st.floats(0, 1))
def test_charges_far_above_the_sensitivities_lose_no_pair(seed, scores, size, quantile):
    """Sensitivities net of charges, exact in float64, stay within the error and are listed down to the threshold.

    Prices of limits that pull against each other are large and nearly cancel: float32 then knows no net to better than
    6e-8 of the charges, whatever the sensitivities.
    """
    rng, pool = np.random.default_rng(seed), pool_of(seed, scores)
    G = np.stack([random_spd([seed, r], DIM) for r in range(pool.num_draws or 1)])
    source = memory_source(pool)
    of = (size * rng.standard_normal((PROMPTS, COMPLETIONS))).astype(np.float32)
    pairs, z, c = written_out(pool)
    p, i, j = pairs.T
    net = sensitivities_of(z, c, G) - of[p, i].astype(np.float64) - of[p, j].astype(np.float64)
    threshold = np.float32(np.quantile(net, quantile))
    charges = Charges(jnp.asarray(of), jnp.zeros(PROMPTS, jnp.float32))
    result = price(source, np.linalg.cholesky(G).astype(np.float32), threshold, None, charges)
    listed = set(map(tuple, reaching_pairs(result, COMPLETIONS).tolist()))
    assert set(map(tuple, pairs[net >= threshold].tolist())) <= listed
    dense = np.full((PROMPTS, COMPLETIONS, COMPLETIONS), -np.inf)
    dense[p, i, j] = dense[p, j, i] = net
    best, expected = np.asarray(result.best, np.float64)[..., 0], dense.max(axis=-1)
    some = np.isfinite(expected)
    assert (np.isfinite(best) == some).all()
    error = np.broadcast_to(np.asarray(result.error, np.float64)[:, None], best.shape)
    assert (np.abs(best[some] - expected[some]) <= error[some]).all()


@pytest.mark.thorough
@given(seeds, kinds)
def test_ranks_list_the_best_pairs_of_every_prompt_and_no_others(seed, scores):
    ranks = np.random.default_rng(seed).integers(0, 9, PROMPTS)
    result, pairs, b = priced(pool_of(seed, scores), seed, np.float32(-1), ranks)
    found = set(map(tuple, reaching_pairs(result, COMPLETIONS)))
    error = np.asarray(result.error)
    must, may = set(), set()
    for p in range(PROMPTS):
        mine = pairs[:, 0] == p
        kept = min(ranks[p], mine.sum())
        if kept:
            level = np.sort(b[mine])[::-1][kept - 1]
            must |= set(map(tuple, pairs[mine & (b >= level)]))
            may |= set(map(tuple, pairs[mine & (b >= level - 6 * error[p] - 1e-6 * b[mine].max())]))
    assert must <= found
    assert {pair for pair in found if ranks[pair[0]]} <= may


@given(seeds, st.integers(1, 12), st.floats(0, 1))
def test_best_pairs_are_the_largest_of_the_two_best_of_each_completion(seed, limit, quantile):
    result, _, b = priced(pool_of(seed), seed)
    above = float(np.quantile(b, quantile))
    best, partner = np.asarray(result.best), np.asarray(result.partner)
    values = {}
    for p, i, k in np.argwhere(best > above):
        j = partner[p, i, k]
        values[p, min(i, j), max(i, j)] = best[p, i, k]
    expected = sorted(values, key=lambda pair: (-values[pair], pair))[:limit]
    found, sensitivities = best_pairs(result, above, limit)
    assert [tuple(pair) for pair in found] == expected
    assert sensitivities.tolist() == [float(values[pair]) for pair in expected]


def test_pairs_are_unpacked_in_order():
    reaches = np.zeros((2, 10, 2), np.uint8)  # K = 10: two bytes a row
    reaches[1, 0] = [0b01000000, 0b01000000]
    reaches[0, 7] = [0, 0b10000000]
    result = PassResult(None, None, None, None, reaches, np.array([1, 3]))
    assert reaching_pairs(result, 10).tolist() == [[0, 7, 8], [1, 0, 1], [1, 0, 9]]


@pytest.mark.parametrize("length", [3, 600, 5000])
def test_rows_moved_from_a_device_are_those_asked_for(length):
    """The way from an accelerator, on whatever device there is."""
    array = np.random.default_rng(length).standard_normal((length, 2, 3))
    for number in (0, 1, length // 2, length):
        index = np.sort(np.random.default_rng(number).permutation(length)[:number])
        for moved in (moved_rows, rows_on_host):
            np.testing.assert_array_equal(moved(jnp.asarray(array, np.float32), index), array.astype(np.float32)[index])


def test_ties_go_to_the_smaller_partner():
    features = np.zeros((1, 4, 1), np.float32)
    features[0, 1:] = [[1], [-1], [1]]  # from 0 all are equally far; 1 and 3 are copies
    result = price(memory_source(CompletionPool(features)), np.ones((1, 1, 1), np.float32), NOWHERE)
    assert np.asarray(result.partner)[0, 0].tolist() == [1, 2]
    assert np.asarray(result.partner)[0, 2].tolist() == [1, 3]
    assert best_pairs(result, 0.9, 2)[0].tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.thorough
def test_chunks_change_no_answer(monkeypatch):
    """Four chunks of three for eleven prompts: the last one begins a prompt early, which must not count twice."""
    pool = pool_of(3, prompts=11)
    whole = priced(pool, 3, np.float32(0.5))[0]
    jax.clear_caches()
    monkeypatch.setitem(_arrays.CHUNK_ENTRIES, jax.default_backend(), 200)
    source = memory_source(pool)
    visited = source.fold(Partial(visit), jnp.zeros((), jnp.int32), np.arange(11))
    assert visited[0] == (np.asarray(pool.mask)).sum() and visited[1].tolist() == list(range(11))
    parts = priced(pool, 3, np.float32(0.5))[0]
    np.testing.assert_allclose(parts.best, whole.best, rtol=1e-5)
    assert (reaching_pairs(parts, COMPLETIONS) == reaching_pairs(whole, COMPLETIONS)).all()
    jax.clear_caches()


def visit(chunk, total, index):
    assert chunk.rows.shape == (3, COMPLETIONS, DIM)
    return total + jnp.sum(chunk.copies >= 0, dtype=total.dtype), index


@pytest.mark.thorough
def test_a_pass_is_compiled_once_whatever_the_values():
    with counting() as counts:
        for seed in range(3):
            priced(pool_of(seed, completions=7), seed, np.float32(seed), np.arange(PROMPTS) + seed)
            compiled = counts["compiled"] if seed == 0 else compiled
    assert compiled and counts["compiled"] == compiled


# ---- its rounding error


def error_ratio(pool, criterion):
    """Largest |b - b64| / bound over the two best pairs of every completion; b64 from the same float64 G."""
    problem = make_problem(pool, criterion, Budget(100.0))
    analysis = analyse(problem, problem.even)
    source, pairs = problem.source, written_out(pool)[0]
    result = price(source, analysis.scaled, np.asarray(np.inf, source.dtype))
    exact = exact_sensitivities(problem, pairs, analysis.factors) / analysis.unit
    dense = as_dense(pairs, exact)
    expected = -np.sort(-dense, axis=-1)[..., :2]
    found = np.asarray(result.best).astype(np.float64)
    bound = np.asarray(result.error)[:, None, None].astype(np.float64)
    return (np.abs(found - expected) / np.broadcast_to(bound, found.shape))[expected > 0].max()


def stretched(seed, condition, offset, oblique):
    """Features with a spread of scales along directions oblique to the axes (or the axes), plus a prompt offset."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((PROMPTS, COMPLETIONS, DIM)) * np.geomspace(1, 1 / condition, DIM)
    if oblique:
        rows = rows @ np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    return rows * np.exp(rng.standard_normal((PROMPTS, 1, 1))) + offset * rng.standard_normal((PROMPTS, 1, DIM))


@pytest.mark.thorough
@pytest.mark.parametrize("criterion", [LogDet(), Trace(np.eye(DIM)), Trace(random_spd(0, DIM, rank=1))])
@given(seed=seeds, condition=st.sampled_from([1, 1e2, 1e4]), oblique=st.booleans(), offset=st.sampled_from([0, 30]))
def test_float32_pricing_stays_well_within_its_error_bound(criterion, seed, condition, oblique, offset):
    features = stretched(seed, condition, offset if condition == 1 else 0, oblique).astype(np.float32)
    u = np.random.default_rng(seed).standard_normal((PROMPTS, COMPLETIONS)).astype(np.float32)
    assert error_ratio(CompletionPool(features, 3 * u), criterion) < 0.5


@pytest.mark.thorough
@pytest.mark.parametrize("criterion", [LogDet(), Trace(np.eye(DIM))])
@given(seed=seeds, condition=st.sampled_from([1, 1e3, 1e6]), oblique=st.booleans())
def test_float64_pricing_stays_within_its_error_bound(criterion, seed, condition, oblique):
    with jax.enable_x64(True):
        pool = CompletionPool(stretched(seed, condition, 0, oblique), np.zeros((PROMPTS, COMPLETIONS)))
        assert memory_source(pool).dtype == jnp.float64
        assert error_ratio(pool, criterion) < 1


def test_a_common_offset_of_a_prompt_costs_no_accuracy():
    """Real embeddings share most of their norm within a prompt; uncentred, small sensitivities would drown in it."""
    rng = np.random.default_rng(0)
    features = (rng.integers(-99, 100, (PROMPTS, COMPLETIONS, DIM)) / 128).astype(np.float32)
    near, far = (memory_source(CompletionPool(features + np.float32(offset))) for offset in (0, 1024))  # both exact
    factors = np.eye(DIM, dtype=np.float32)[None]
    plain, moved = (price(source, factors, NOWHERE) for source in (near, far))
    np.testing.assert_allclose(moved.best, plain.best, rtol=1e-3)  # means of the moved rows are rounded
    np.testing.assert_allclose(moved.error, plain.error, rtol=1e-2)


@pytest.mark.thorough
def test_a_common_offset_of_float64_scores_does_not_touch_float32_pricing():
    with jax.enable_x64(True):
        features = stretched(0, 1, 0, True).astype(np.float32)
        u = np.random.default_rng(0).standard_normal((PROMPTS, COMPLETIONS))
        pool = CompletionPool(features, u - 12345.678)
        assert memory_source(pool).dtype == jnp.float32
        assert error_ratio(pool, LogDet()) < 0.5


@pytest.mark.parametrize("dtype", [pytest.param("float16", marks=pytest.mark.slow), "bfloat16"])
def test_short_floats_are_priced_in_float32(dtype):
    pool = CompletionPool(jnp.asarray(stretched(1, 1, 3, True), dtype))
    assert memory_source(pool).dtype == jnp.float32
    assert error_ratio(pool, LogDet()) < 0.5


# ---- closed pairs


@pytest.mark.parametrize("prompts, completions", [(1, 2), (1, 8), (2, 4), (3, 8), (2, 31), (1, 32), (2, 33), (1, 65)])
def test_closed_pairs_are_no_candidates(prompts, completions):
    """Words of bits of every length; eight bytes of them, one prompt of eight completions, once ended the process."""
    rng = np.random.default_rng(completions)
    pool = CompletionPool(rng.standard_normal((prompts, completions, 2)))
    expected = np.triu(np.ones((prompts, completions, completions), bool), 1)
    pairs = np.argwhere(expected)
    closed = pairs[rng.random(len(pairs)) < 0.5]
    closed = closed if len(closed) else pairs[:1]
    expected[tuple(closed.T)] = False
    for some, want in ((closed, expected), (closed[:0], np.triu(np.ones_like(expected), 1))):
        source = memory_source(pool, closed=some)
        found = source.fold(Partial(lambda chunk, carry, _: (carry, open_pairs(chunk))), None)[1]
        assert np.array_equal(found, want) and np.array_equal(survey(source).pair_counts, want.sum(axis=(1, 2)))
