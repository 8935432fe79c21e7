"""Passes over a pool with flip noise: sensitivities of pairs written out, bounds on their rounding, chunks."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import Budget, CompletionPool, LogDet, Trace, _arrays
from jaxdesign.analysis import analyse, exact_sensitivities
from jaxdesign.door import make_problem
from jaxdesign.information import pair_information, pair_sensitivities
from jaxdesign.pricing.memory import memory_source
from jaxdesign.pricing.passes import price
from tests.support.flips import every_kind_and_score, random_G, symmetric
from tests.support.problems import (
    COMPLETIONS,
    DIM,
    PROMPTS,
    random_arrays,
    random_flips,
    random_pool,
    random_spd,
    sensitivities_of,
    written_out,
)

H = random_spd(1)
RIDGE = 0.1 * np.eye(DIM)
seeds = st.integers(0, 2**32 - 1)
slow = pytest.mark.slow
few = settings(max_examples=5)


@every_kind_and_score
@few
@given(seed=seeds)
def test_a_pass_over_the_pool(seed, scores, flip):
    pool = random_pool(seed, scores, flip)
    pairs, z, c = written_out(pool)
    G = random_G(seed, pool.num_draws)
    factors = np.linalg.cholesky(G).astype(np.float32)
    expected = -np.sort(-np.where(np.eye(COMPLETIONS, dtype=bool), 0, symmetric(pairs, sensitivities_of(z, c, G))))
    source = memory_source(pool)
    for view in (source, source.subset(np.arange(PROMPTS))):
        result = price(view, factors, np.float32(np.inf))
        best, error = np.asarray(result.best), np.asarray(result.error)[:, None, None]
        assert (np.abs(np.where(best == -1, 0, best) - expected[..., :2]) <= error + 0 * best).all()


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("level", [0.0, 0.3, 0.49, 0.4999])
@pytest.mark.parametrize("flip", ["prompt", "pair"])
@given(seed=seeds, dtype=st.sampled_from(["float32", "float64"]))
def test_the_bound_on_the_rounding_error_shrinks_with_the_information(seed, level, flip, dtype):
    """It stays a bound, and a small share of the largest sensitivities however noisy the labels."""
    features, u, mask = random_arrays(seed)
    noise = random_flips(seed, mask, flip)
    noise = level + noise * (0.49999 - level)
    with jax.enable_x64(dtype == "float64"):
        pool = CompletionPool(features, (3 * u).astype(dtype), mask, flip=noise.astype(dtype))
        problem = make_problem(pool, LogDet(), Budget(100.0))
        analysis = analyse(problem, problem.even)
        pairs = written_out(pool)[0]
        exact = symmetric(pairs, exact_sensitivities(problem, pairs, analysis.factors) / analysis.unit)
        result = price(problem.source, analysis.scaled, np.float32(np.inf))
    best, error = np.asarray(result.best, np.float64)[..., 0], np.asarray(result.error)
    assert (np.abs(best - exact.max(axis=-1))[best > 0] <= (0.5 * error[:, None] + 0 * best)[best > 0]).all()
    assert error.max() <= 1e-3 * exact.max()


@slow  # and forgets all compiled programs
def test_chunks_change_nothing(monkeypatch):
    results = []
    for entries in (_arrays.chunk_entries(), 100):
        monkeypatch.setitem(_arrays.CHUNK_ENTRIES, jax.default_backend(), entries)
        jax.clear_caches()
        pool = random_pool(0, "draws", "pair")
        problem = make_problem(pool, Trace(H), Budget(30.0), RIDGE)
        uniform = problem.even
        analysis = analyse(problem, uniform)
        passed = price(problem.source, analysis.scaled, np.float32(0.1))
        kernels = pair_information(pool, np.ones((PROMPTS, COMPLETIONS, COMPLETIONS))), pair_sensitivities(pool, H)
        results.append([uniform, np.asarray(passed.best), *kernels])
    assert _arrays.chunk_length(PROMPTS, COMPLETIONS, DIM) < PROMPTS
    jax.clear_caches()
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
