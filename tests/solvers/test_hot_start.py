"""The hot start: powers that keep labels spread over enough pairs, on pools where fixed powers lose the support."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import Budget, CompletionPool, LogDet, optimize
from jaxdesign.door import make_problem
from jaxdesign.solvers.column_generation import hot_start as module
from jaxdesign.solvers.column_generation.hot_start import hot_start, largest_power


def spread(weights):
    """Pairs that labels are spread over: (sum w)^2 / sum w^2, in float64."""
    weights = np.asarray(weights, np.float64)
    return weights.sum() ** 2 / (weights**2).sum()


@pytest.fixture(scope="module")
def entries():
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.1, 1, (40, 8, 8)).astype(np.float32)
    growth = -rng.standard_exponential((40, 8, 8)).astype(np.float32)
    return jnp.asarray(weights), jnp.asarray(growth)


@pytest.mark.parametrize("least", [20.0, 200.0, 1000.0])
def test_the_power_is_the_largest_that_keeps_so_many_pairs(entries, least):
    weights, growth = entries
    bounds = jnp.float32(0.05), jnp.float32(500.0)
    power = float(jax.jit(largest_power)(weights, growth, bounds, jnp.float32(least)))
    assert least <= spread(weights * np.exp(power * growth)) <= 1.12 * least


def test_the_power_keeps_to_its_bounds(entries):
    weights, growth = entries
    bounds = jnp.float32(1.0), jnp.float32(5.0)
    assert spread(weights * np.exp(5.0 * growth)) > 50
    assert float(largest_power(weights, growth, bounds, jnp.float32(50.0))) == 5.0
    assert float(largest_power(weights, growth, bounds, jnp.float32(2550.0))) == 1.0


def heavy_tailed(prompts, completions, dim):
    rng = np.random.default_rng(0)
    scale = np.abs(rng.standard_t(3, prompts))[:, None, None]
    return CompletionPool((scale * rng.standard_normal((prompts, completions, dim))).astype(np.float32))


@pytest.mark.slow
def test_labels_stay_spread_where_fixed_powers_leave_too_few_pairs(monkeypatch):
    pool = heavy_tailed(150, 16, 96)
    problem = make_problem(pool, LogDet(), Budget(2000), None)
    kept = spread(hot_start(problem).labels)
    jax.clear_caches()
    monkeypatch.setattr(module, "SPREAD", (0.0,) * 6)
    lost = spread(hot_start(problem).labels)
    jax.clear_caches()
    assert kept > 0.9 * module.SPREAD[-1] * pool.dim
    assert kept > 1.1 * lost


@pytest.mark.slow
def test_passes_stay_few_in_many_dimensions():
    """With fixed powers (5, 4, 3.5, 3, 3, 2.5) this pool takes 22 passes."""
    design = optimize(heavy_tailed(512, 32, 256), LogDet(), Budget(5000), tol=1e-3)
    assert design.certificate.relative_gap() <= 1e-3
    assert design.passes <= 10


def kept(labels, b, limit):
    """Labels of the pairs that a start with such labels and sensitivities leads to."""
    rows = len(labels)
    start = module.HotStart(np.arange(rows), labels[:, None, None], b[:, None, None], 7, 1.0, 1.0, None, None)
    return float(module.leading_pairs(start, np.full(rows, 1e3), 1.0, limit).labels.sum())


def test_pairs_whose_labels_will_shrink_make_room_where_few_labels_are_lost():
    labels = np.r_[np.full(90, 1.0), np.full(10, 1e-4), np.full(20, 1e-5)].astype(np.float32)
    b = np.r_[np.full(90, 1.0), np.full(10, 0.5), np.full(20, 3.0)].astype(np.float32)
    np.testing.assert_allclose(kept(labels, b, 100), 90 + 10 * 1e-5, rtol=1e-6)  # those with b = 3, not with b = 0.5


def test_labels_that_are_not_yet_where_they_go_are_not_left_out():
    """As in many dimensions: most labels are on pairs of b below the level, and outnumbered by pairs above it."""
    rng = np.random.default_rng(1)
    labels = np.r_[rng.uniform(1, 2, 100), np.full(300, 0.01)].astype(np.float32)
    b = np.r_[np.full(100, 0.9), np.full(300, 3.0)].astype(np.float32)
    most = np.sort(labels)[-150:].sum(dtype=np.float64)
    assert kept(labels, b, 150) >= most - module.LOST * labels.sum(dtype=np.float64)
