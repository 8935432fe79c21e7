"""Families of regression problems with exact solutions, drawn at random and solved in one common shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import Budget, CompletionPool, LogDet, Status, Trace
from tests.support.padded import check_optimal, solve_padded
from tests.support.problems import random_spd, regression_pool
from tests.support.truths import FOUR, full_quadratic, monomials

seeds = st.integers(0, 2**32 - 1)
dims = st.integers(2, 7)
few = settings(max_examples=12)


def conditioned_square(seed, dim):
    """A random square matrix with singular values between 1/2 and 2."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((dim, dim)))[0] for _ in range(2))
    return left @ np.diag(np.exp2(rng.uniform(-1, 1, dim))) @ right


def spent_by_prompt(design, prompts):
    return np.bincount(design.pairs[:, 0], design.labels, prompts)


def stored_points(pool):
    return np.asarray(pool.features)[:, 0].astype(np.float64)


@few
@given(seed=seeds, dim=dims)
def test_saturated_designs_weigh_all_points_alike(seed, dim):
    pool = regression_pool(conditioned_square(seed, dim))
    design, value = solve_padded(pool, LogDet(), FOUR)
    assert design.status is Status.CERTIFIED
    expected = dim * np.log(dim) - 2 * np.linalg.slogdet(stored_points(pool))[1]
    assert value == pytest.approx(expected, abs=2e-6)
    np.testing.assert_allclose(spent_by_prompt(design, dim), 4 / dim, rtol=2e-3)


@few
@given(seed=seeds, dim=dims)
def test_saturated_trace_designs_weigh_points_by_the_root_of_their_cost(seed, dim):
    """w = c / sum c with c_i = sqrt((Z^-T H Z^-1)_ii), value (sum c)^2."""
    pool, H = regression_pool(conditioned_square(seed, dim)), random_spd(seed, dim) + 0.1 * np.eye(dim)
    design, value = solve_padded(pool, Trace(H), FOUR)
    assert design.status is Status.CERTIFIED
    inverse = np.linalg.inv(stored_points(pool))
    shares = np.sqrt(np.diag(inverse.T @ H @ inverse))
    assert value == pytest.approx(shares.sum() ** 2, rel=1e-6)
    np.testing.assert_allclose(spent_by_prompt(design, dim), 4 * shares / shares.sum(), atol=1e-2 / dim)


@few
@given(seed=seeds, dim=dims)
def test_one_linear_function_is_estimated_by_elfving(seed, dim):
    """H = h h': the best value is the squared l1 norm of Z^-T h."""
    pool, h = regression_pool(conditioned_square(seed, dim)), np.random.default_rng(seed).standard_normal(dim)
    design, value = solve_padded(pool, Trace(np.outer(h, h)), FOUR)
    assert design.status is Status.CERTIFIED
    expected = np.abs(np.linalg.solve(stored_points(pool).T, h)).sum() ** 2
    assert value == pytest.approx(expected, rel=2e-6)


@few
@given(seed=seeds, trace=st.booleans())
def test_water_filling_between_prior_and_caps(seed, trace):
    """z_i = s_i e_i: labels level - prior / s^2 (LogDet), level / s - prior / s^2 (Trace), clipped to [0, cap]."""
    rng = np.random.default_rng(seed)
    s = rng.uniform(0.5, 3, 6).astype(np.float32).astype(np.float64)
    held, caps = rng.uniform(0, 5, 6), rng.uniform(1, 8, 6)
    total = rng.uniform(0.2, 0.95) * caps.sum()
    offset = 4 * held / s**2  # label information is 1/4
    slope = 1 / s if trace else np.ones(6)
    low, high = 0.0, 1e4
    for _ in range(200):
        level = (low + high) / 2
        labels = np.clip(level * slope - offset, 0, caps)
        low, high = (level, high) if labels.sum() < total else (low, level)
    spectrum = held + labels * s**2 / 4
    expected = (1 / spectrum).sum() if trace else -np.log(spectrum).sum()

    pool, criterion, budget = regression_pool(np.diag(s)), Trace(np.eye(6)) if trace else LogDet(), Budget(total, caps)
    design, value = solve_padded(pool, criterion, budget, np.diag(held))
    assert design.status is Status.CERTIFIED
    assert value == pytest.approx(expected, abs=2e-6, rel=2e-6)
    np.testing.assert_allclose(spent_by_prompt(design, 6), labels, atol=5e-3 * total)
    check_optimal(pool, criterion, budget, design, value, np.diag(held))


@pytest.mark.parametrize("trace", [False, True])
def test_a_direct_sum_splits_the_labels_by_dimension_or_by_root_of_value(trace):
    blocks = [
        full_quadratic(np.array([[x] for x in (-1.0, -0.5, 0, 1)])),
        monomials(np.linspace(-1, 1, 9), 3),
        np.eye(2),
    ]
    criterion = (lambda dim: Trace(np.eye(dim))) if trace else (lambda dim: LogDet())
    dims = np.array([block.shape[1] for block in blocks])
    values = np.array([solve_padded(regression_pool(b), criterion(b.shape[1]), FOUR)[1] for b in blocks])
    whole = np.zeros((sum(map(len, blocks)), dims.sum()))
    row = column = 0
    owner = []
    for k, block in enumerate(blocks):
        whole[row : row + len(block), column : column + dims[k]] = block
        row, column = row + len(block), column + dims[k]
        owner += [k] * len(block)
    design, value = solve_padded(regression_pool(whole), criterion(dims.sum()), FOUR)
    assert design.status is Status.CERTIFIED
    if trace:
        shares, expected = np.sqrt(values) / np.sqrt(values).sum(), np.sqrt(values).sum() ** 2
    else:
        shares, expected = dims / dims.sum(), values.sum() - dims @ np.log(dims / dims.sum())
    assert value == pytest.approx(expected, rel=2e-6)
    spent = np.bincount(np.array(owner)[design.pairs[:, 0]], design.labels, 3)
    np.testing.assert_allclose(spent, 4 * shares, atol=4e-3)


@few
@given(seed=seeds, dim=dims)
def test_the_ellipsoid_of_a_simplex_is_its_circumscribed_ball(seed, dim):
    """Lifted vertices of any simplex: w = 1 / (d + 1), a saturated design."""
    rng = np.random.default_rng(seed)
    vertices = np.concatenate([np.zeros((1, dim)), conditioned_square(rng.integers(2**32), dim)])
    pool = regression_pool(np.column_stack([vertices, np.ones(dim + 1)]))
    design, value = solve_padded(pool, LogDet(), FOUR)
    assert design.status is Status.CERTIFIED
    expected = (dim + 1) * np.log(dim + 1) - 2 * np.linalg.slogdet(stored_points(pool))[1]
    assert value == pytest.approx(expected, abs=2e-6)
    np.testing.assert_allclose(spent_by_prompt(design, dim + 1), 4 / (dim + 1), rtol=5e-3)


def test_points_inside_the_ellipsoid_get_no_labels():
    rng = np.random.default_rng(0)
    inner = rng.standard_normal((30, 4))
    inner = 0.8 * inner / np.linalg.norm(inner, axis=1, keepdims=True)
    pool = regression_pool(np.concatenate([np.eye(4), -np.eye(4), inner]))
    design, value = solve_padded(pool, LogDet(), FOUR)
    assert value == pytest.approx(4 * np.log(4), abs=2e-6)
    assert spent_by_prompt(design, 38)[8:].sum() <= 1e-4


def test_a_completion_pair_and_its_regression_point_are_the_same_problem():
    """Points x as the pair (x, 0), as (0, x), or as (x + o, o): only differences count."""
    points = np.round(np.random.default_rng(1).standard_normal((20, 3)) * 64) / 64
    offsets = np.round(np.random.default_rng(2).standard_normal((20, 1, 3)) * 64) / 64
    first = solve_padded(regression_pool(points), LogDet(), FOUR)[1]
    shifted = np.stack([np.zeros_like(points), points], axis=1) + offsets
    assert solve_padded(CompletionPool(shifted.astype(np.float32)), LogDet(), FOUR)[1] == pytest.approx(first, abs=2e-6)
