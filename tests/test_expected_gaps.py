"""The criterion of few labels: its three special cases, what it does not depend on, and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign import Belief, expected_gap


def matrices(seed, dim):
    """S, L_t, M, H and the means m, m_t, all regular."""
    rng = np.random.default_rng(seed)
    roots = rng.standard_normal((4, dim, dim + 3)) * np.exp(rng.standard_normal((4, 1, 1)))
    return (*(root @ root.T for root in roots), *rng.standard_normal((2, dim)))


problems = st.tuples(st.integers(0, 2**20), st.integers(1, 5))


@given(problems, st.floats(0.1, 10))
def test_with_the_right_prior_it_is_the_trace_of_the_bayes_design(problem, beta):
    S, _, M, H, m, _ = matrices(*problem)
    belief = Belief.from_covariance(S, m)
    right = np.trace(H @ np.linalg.inv(np.linalg.inv(S) + M)) / (2 * beta)
    assert expected_gap(belief, belief, M, H, beta) == pytest.approx(right, rel=1e-8)


@given(problems)
def test_pulled_to_zero_the_best_precision_is_that_of_the_second_moment(problem):
    S, L, M, H, m, _ = matrices(*problem)
    belief = Belief.from_covariance(S, m)
    best = belief.around_zero()
    np.testing.assert_allclose(np.linalg.inv(best.precision), S + np.outer(m, m), rtol=1e-6)
    value = expected_gap(belief, best, M, H)
    assert value == pytest.approx(np.trace(H @ np.linalg.inv(best.precision + M)) / 2, rel=1e-7)
    for training in (L, best.precision + 0.01 * L, 1.1 * best.precision, 0.9 * best.precision, belief.precision):
        assert expected_gap(belief, training, M, H) >= value * (1 - 1e-9)


@given(problems)
def test_what_is_known_exactly_leaves_bias_along_one_direction(problem):
    _, L, M, H, m, start = matrices(*problem)
    known = Belief(m, 1e12 * np.eye(len(m)))
    B, off = np.linalg.inv(L + M), m - start
    noise = np.trace(H @ B @ M @ B) / 2
    found = expected_gap(known, Belief(start, L), M, H)
    bias = off @ L @ B @ H @ B @ L @ off / 2
    assert found == pytest.approx(bias + noise, rel=1e-5)
    n = 1e10  # bias falls as 1 / n^2, noise as 1 / n, so that the trace design is what remains
    assert n * expected_gap(known, Belief(start, L), n * M, H) == pytest.approx(
        np.trace(H @ np.linalg.inv(M)) / 2, rel=1e-3
    )


@given(problems)
def test_units_and_rotations_do_not_matter(problem):
    S, L, M, H, m, start = matrices(*problem)
    dim = len(m)
    rng = np.random.default_rng(problem[0])
    T = np.linalg.qr(rng.standard_normal((dim, dim)))[0] * np.exp(3 * rng.standard_normal(dim))
    belief, training = Belief.from_covariance(S, m), Belief(start, L)
    turned = [a.in_basis(T) for a in (belief, training)]
    plain = expected_gap(belief, training, M, H)
    assert expected_gap(*turned, T.T @ M @ T, T.T @ H @ T) == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("dim", [1, 3])
def test_simulation_in_the_linear_model_agrees(dim):
    """w, labels that tell M w + e, the fit that is pulled: the mean gap over half a million of them."""
    S, L, M, H, m, start = matrices(3, dim)
    rng, beta, number = np.random.default_rng(0), 0.7, 500_000
    w = m + rng.standard_normal((number, dim)) @ np.linalg.cholesky(S).T
    told = w @ M + rng.standard_normal((number, dim)) @ np.linalg.cholesky(M).T
    fit = np.linalg.solve(L + M, (L @ start + told).T).T
    gaps = np.einsum("nd,de,ne->n", fit - w, H, fit - w) / (2 * beta)
    error = gaps.std() / number**0.5
    assert error < 0.005 * gaps.mean()
    found = expected_gap(Belief.from_covariance(S, m), Belief(start, L), M, H, beta)
    assert abs(found - gaps.mean()) < 4 * error


def test_what_nothing_tells_of_is_an_infinite_gap():
    assert expected_gap(1.0, None, np.diag([1.0, 0.0]), np.eye(2)) == np.inf
    assert expected_gap(1.0, 0.5, np.diag([1.0, 0.0]), np.eye(2)) == pytest.approx((1.25 / 2.25 + 1) / 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None, 1.0, np.eye(2), np.eye(2)), "precision: singular, so there is no covariance"),
        ((1.0, 1.0, np.eye(3), np.eye(2)), r"information: shape \(3, 3\) found; expected \(2, 2\)"),
        ((Belief(np.zeros(3), np.eye(3)), 1.0, np.eye(2), np.eye(2)), "about 3 parameters found for 2 features"),
        ((1.0, 1.0, np.eye(2), np.eye(2), 0.0), "beta=0: must be positive"),
        ((1.0, -1.0, np.eye(2), np.eye(2)), "prior: indefinite"),
    ],
)
def test_what_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        expected_gap(*arguments)
