"""Bounds that one pass leaves for the next hold whatever the factors are, and are sharp where they are regular."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign.pricing.ceilings import ceilings_at, growth, no_ceilings, with_ceilings

DIM = 3
seeds = st.integers(0, 2**32 - 1)


def factors(seed, condition, draws=1):
    rng = np.random.default_rng(seed)
    turns = np.linalg.qr(rng.standard_normal((2, draws, DIM, DIM)))[0]
    return turns[0] * np.geomspace(1, condition, DIM) @ turns[1]


def exactly(factor):
    """F F^T in rational numbers."""
    rows = [[Fraction(float(a)) for a in row] for row in factor]
    return [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]


def is_semidefinite(matrix):
    """By minors, exactly."""
    (a, b, c), (_, d, e), (_, _, f) = matrix
    minors = [a, d, f, a * d - b * b, a * f - c * c, d * f - e * e]
    whole = a * (d * f - e * e) - b * (b * f - c * e) + c * (b * e - c * d)
    return all(minor >= 0 for minor in (*minors, whole))


@given(seed=seeds, old=st.floats(0, 9), new=st.floats(0, 9), draws=st.integers(1, 3))
def test_growth_bounds_every_ratio_exactly(seed, old, new, draws):
    before, after = factors([seed, 0], 10**old, draws), factors([seed, 1], 10**new, draws)
    share = growth(before, after)
    if share == np.inf:  # only where the inverse has no digits left
        assert old > 6
        return
    for one, other in zip(before, after, strict=True):
        G, H = exactly(one), exactly(other)
        assert is_semidefinite(
            [[Fraction(share) * g - h for g, h in zip(*rows, strict=True)] for rows in zip(G, H, strict=True)]
        )


@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_growth_is_the_largest_ratio_where_factors_are_regular(seed, scale):
    before, after = factors([seed, 0], 10.0), scale * factors([seed, 1], 10.0)
    largest = np.linalg.eigvals(np.linalg.solve(before[0] @ before[0].T, after[0] @ after[0].T)).real.max()
    np.testing.assert_allclose(growth(before, after), largest, rtol=1e-9)
    np.testing.assert_allclose(growth(before, scale * before), scale**2, rtol=1e-9)


@pytest.mark.parametrize(
    "old",
    [np.zeros((1, DIM, DIM)), np.ones((1, DIM, DIM)), np.full((1, DIM, DIM), np.nan), np.ones((1, DIM, 2))],
    ids=["zero", "rank one", "nan", "low rank"],
)
def test_of_singular_factors_nothing_is_known(old):
    assert growth(old, factors(0, 2.0)) == np.inf


def test_each_prompt_is_bounded_from_where_it_was_last_seen():
    first, second = factors(0, 2.0), 2 * factors(0, 2.0)
    known = no_ceilings(4)
    assert np.isinf(ceilings_at(known, first)).all()
    known = with_ceilings(known, np.arange(4), np.array([1.0, 2.0, 3.0, 0.0]), first)
    known = with_ceilings(known, np.array([1]), np.array([5.0]), second)
    np.testing.assert_allclose(ceilings_at(known, second), [4, 5, 12, 0], rtol=1e-9)
    np.testing.assert_allclose(ceilings_at(known, first), [1, 1.25, 3, 0], rtol=1e-9)
    known = with_ceilings(known, np.arange(4), np.ones(4), second)
    assert len(known.factors) == 1 and (ceilings_at(known, second) >= 1).all()
    assert np.isinf(
        ceilings_at(with_ceilings(known, np.arange(2), np.ones(2), np.zeros((1, DIM, DIM))), first)[:2]
    ).all()
