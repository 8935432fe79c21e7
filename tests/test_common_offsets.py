"""Completions that differ in the last places of a large common row: every kernel sees the differences exactly.

A compiler may sum a mean in another order for every use of the rows; units in the last place of the offset are then
differences between completions.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import Budget, CompletionPool, LogDet, evaluate, pair_information, pair_sensitivities
from jaxdesign._centring import centred, less_first
from jaxdesign.budget.limits import Limits
from jaxdesign.solvers import frank_wolfe, multiplicative
from tests.support.exact_arithmetic import information, minus_log_det
from tests.support.problems import all_pairs_of

PROMPTS, COMPLETIONS, DIM = 4, 6, 3
PAIRS = all_pairs_of(PROMPTS, COMPLETIONS)
LABELS = np.random.default_rng(9).integers(1, 8, len(PAIRS)) / 8
DTYPES = {"float32": (np.float32, -19), "float64": (np.float64, -43)}
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def features_of(dtype, seed):
    """Rows around 3, steps of a few dozen units in the last place."""
    kind, exponent = DTYPES[dtype]
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((PROMPTS, 1, DIM)) + 3 * rng.choice([-1, 1], (PROMPTS, 1, DIM))
    return (common + 2.0**exponent * rng.integers(-4, 5, (PROMPTS, COMPLETIONS, DIM))).astype(kind)


def exactly(features, labels, pairs=PAIRS):
    """A without a prior, float64, from fractions in units of the steps."""
    return np.array([[float(entry) for entry in row] for row in information(features, pairs, labels, 0)])


def dense(labels):
    weights = np.zeros((PROMPTS, COMPLETIONS, COMPLETIONS))
    np.add.at(weights, tuple(PAIRS.T), labels)
    return weights + weights.swapaxes(1, 2)


@pytest.mark.slow
@each_dtype
def test_information_of_dense_and_of_listed_labels(dtype):
    with jax.enable_x64(dtype == "float64"):
        for seed in range(8):
            features = features_of(dtype, seed)
            A, pool = exactly(features, LABELS), CompletionPool(features)
            share = np.abs(np.asarray(pair_information(pool, dense(LABELS))) - A).max() / np.abs(A).max()
            assert share < 32 * np.finfo(features.dtype).eps
            design = evaluate(pool, LogDet(), Budget(float(LABELS.sum())), PAIRS, LABELS)
            value = minus_log_det(information(features, PAIRS, LABELS, 0))
            assert design.certificate.value == pytest.approx(value, rel=1e-13)


@pytest.mark.thorough(cases=1)
@each_dtype
@pytest.mark.parametrize("solve", [frank_wolfe, multiplicative])
def test_the_value_of_traceable_solvers_is_that_of_their_labels(solve, dtype):
    budget = Limits(4.0, None, None)
    with jax.enable_x64(dtype == "float64"):
        for seed in range(3):
            features = features_of(dtype, seed)
            labels, certificate = solve(CompletionPool(features), LogDet(), budget, passes=10)
            labels = np.asarray(labels, np.float64)[tuple(PAIRS.T)]
            value = minus_log_det(information(features, PAIRS, labels, 0))
            assert float(certificate.value) == pytest.approx(value, rel=8 * float(np.finfo(features.dtype).eps))


@each_dtype
def test_sensitivities(dtype):
    with jax.enable_x64(dtype == "float64"):
        features = features_of(dtype, 3)
        unit = 2.0 ** DTYPES[dtype][1]
        b = np.asarray(pair_sensitivities(CompletionPool(features), np.eye(DIM) / unit**2))
        z = features.astype(np.float64)[:, :, None] - features.astype(np.float64)[:, None]
        exact = (z / unit) ** 2 @ np.ones(DIM) / 4
        assert np.abs(b - exact)[tuple(PAIRS.T)].max() < 64 * np.finfo(features.dtype).eps * exact.max()


def test_centring_skips_what_is_masked():
    rng = np.random.default_rng(0)
    rows, exists = rng.standard_normal((5, 4, 3)) + 1e3, rng.random((5, 4)) < 0.6
    exists[0], exists[1, :2] = False, [False, True]
    rows = jnp.asarray(np.where(exists[..., None], rows, np.nan), jnp.float32)
    found = np.asarray(centred(rows, jnp.asarray(exists)))
    assert np.isfinite(found).all() and (found[~exists] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-4)
    there = np.asarray(rows, np.float64)[1][exists[1]]
    np.testing.assert_array_equal(np.asarray(less_first(rows, jnp.asarray(exists)))[1][exists[1]], there - there[0])
