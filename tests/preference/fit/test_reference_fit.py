"""The reference fit against NumPy written out, and what it must recover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import CompletionPool, policy_target
from jaxdesign.preference.fit.reference import fit_reference, mapped, reference_target

P, K, D = 7, 5, 6


def problem(seed, offset=5.0):
    """Features with columns of very different size, large offsets per prompt, a masked slot; log-probabilities."""
    rng = np.random.default_rng(seed)
    phi = rng.standard_normal((P, K, D)) * 10.0 ** rng.uniform(-2, 2, D) + offset * rng.standard_normal((P, 1, D))
    mask = np.ones((P, K), bool)
    mask[0, 3:] = mask[2, 0] = False
    return phi.astype(np.float32), mask, 3 * rng.standard_normal((P, K)) - 20


def centred(values, mask):
    """Rows of existing completions minus the mean of their prompt."""
    return np.concatenate([v[m] - v[m].mean(axis=0) for v, m in zip(values.astype(np.float64), mask, strict=True)])


@pytest.mark.thorough
@settings(max_examples=10)
@given(st.integers(0, 10_000), st.integers(1, D), st.sampled_from([0.0, 1e-3, 0.7]))
def test_the_fit_is_the_recipe_written_out(seed, dimension, ridge):
    phi, mask, logs = problem(seed)
    fit = fit_reference(CompletionPool(phi, mask=mask), logs, dimension=dimension, ridge=ridge)
    rows, targets = centred(phi, mask), centred(logs, mask)
    scaled = rows / rows.std(axis=0)
    _, sizes, directions = np.linalg.svd(scaled, full_matrices=False)
    reduced = scaled @ directions[:dimension].T
    stacked = np.concatenate([reduced, np.sqrt(ridge * len(rows)) * np.eye(dimension)])
    theta = np.linalg.lstsq(stacked, np.concatenate([targets, np.zeros(dimension)]), rcond=None)[0]
    signs = np.sign(np.sum(directions[:dimension].T * fit.components, axis=0))
    np.testing.assert_allclose(fit.scale, rows.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(fit.components * signs, directions[:dimension].T, atol=1e-6)
    np.testing.assert_allclose(fit.theta * signs, theta, atol=1e-6 * np.abs(theta).max())
    assert fit.variance_kept == pytest.approx((sizes[:dimension] ** 2).sum() / (sizes**2).sum())
    left = targets - reduced @ theta
    assert fit.r_squared == pytest.approx(1 - left @ left / (targets @ targets), abs=1e-9)
    new = mapped(CompletionPool(phi, mask=mask), fit)
    np.testing.assert_allclose(np.asarray(new.features)[mask] * signs, reduced, atol=1e-5)


def test_a_log_linear_reference_is_found_and_gives_its_own_target():
    phi, mask, _ = problem(1)
    theta = np.random.default_rng(2).standard_normal(D) / np.sqrt(np.mean(centred(phi, mask) ** 2, axis=0))
    logs = phi.astype(np.float64) @ theta + np.linspace(-30, 30, P)[:, None]  # a constant of each prompt beside
    pool = CompletionPool(phi, mask=mask)
    fit = fit_reference(pool, logs, dimension=D, ridge=0.0)
    assert fit.r_squared == pytest.approx(1)
    np.testing.assert_allclose(fit.basis @ fit.theta, theta, rtol=1e-5)
    expected = fit.basis.T @ np.asarray(policy_target(pool, logs), np.float64) @ fit.basis
    np.testing.assert_allclose(reference_target(mapped(pool, fit), fit), expected, atol=1e-4 * np.abs(expected).max())


def test_another_pool_goes_through_the_same_map():
    phi, mask, logs = problem(3)
    fit = fit_reference(CompletionPool(phi, mask=mask), logs, dimension=3)
    other = np.random.default_rng(4).standard_normal((2, 9, D)).astype(np.float32)
    new = np.asarray(mapped(CompletionPool(other), fit).features)
    assert new.shape == (2, 9, 3)
    expected = (other[1, 0] - other[1, 4]) @ fit.basis
    np.testing.assert_allclose(new[1, 0] - new[1, 4], expected, atol=1e-5 * np.abs(new).max())


def test_constants_of_prompts_do_not_matter():
    phi, mask, logs = problem(5)
    first = fit_reference(CompletionPool(phi, mask=mask), logs, dimension=4)
    shifted = phi.astype(np.float64) + np.arange(P)[:, None, None]
    second = fit_reference(CompletionPool(shifted.astype(np.float32), mask=mask), logs + np.arange(P)[:, None],
                           dimension=4)  # fmt: skip
    np.testing.assert_allclose(second.basis @ second.theta, first.basis @ first.theta, rtol=2e-3)


def test_columns_that_never_change_and_repeated_ones():
    phi, mask, logs = problem(6, offset=0.0)
    wide = np.concatenate([phi, np.ones((P, K, 1), np.float32), phi[..., :1]], axis=2)
    fit = fit_reference(CompletionPool(wide, mask=mask), logs, dimension=8, ridge=0.0)
    assert fit.components.shape == (8, 6) and np.isfinite(fit.theta).all()
    np.testing.assert_allclose(fit.basis[6], 0, atol=1e-12)
    np.testing.assert_allclose(fit.basis[0], fit.basis[7], atol=1e-9)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"dimension": 0}, ValueError, "dimension=0: must be at least 1"),
        ({"dimension": 2.0}, TypeError, "dimension=2.0: must be an integer"),
        ({"ridge": -1.0}, ValueError, "ridge=-1: must be finite and at least 0"),
        ({"ridge": None}, TypeError, "ridge=None: expected a number"),
        ({"log_probabilities": np.zeros((P, K + 1))}, ValueError, r"log_probabilities: shape \(7, 6\)"),
        ({"log_probabilities": np.full((P, K), -np.inf)}, ValueError, "log_probabilities: -inf at prompt 0"),
        ({"pool": CompletionPool(np.ones((P, K, D)))}, ValueError, "features: constant within every prompt"),
    ],
)
def test_bad_input(change, error, words):
    phi, mask, logs = problem(0)
    arguments = {"pool": CompletionPool(phi, mask=mask), "log_probabilities": logs, "dimension": 2} | change
    with pytest.raises(error, match=words):
        fit_reference(**arguments)


def test_pools_of_another_dimension_are_refused():
    phi, mask, logs = problem(0)
    pool = CompletionPool(phi, mask=mask)
    fit = fit_reference(pool, logs, dimension=2)
    with pytest.raises(ValueError, match="pool: dimension 6 found; expected 2"):
        reference_target(pool, fit)
    with pytest.raises(ValueError, match=r"basis: shape \(6, 2\) found; expected \(4, r\)"):
        mapped(CompletionPool(phi[..., :4], mask=mask), fit)
