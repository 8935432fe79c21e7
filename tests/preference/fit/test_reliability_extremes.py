"""Reliability at its extremes: any start, separable labels, annotators of any number, any units; and refusals."""

import numpy as np
import pytest

from jaxdesign import CompletionPool
from jaxdesign.preference.fit.reliability import estimate_reliability, flip_of, with_estimated_flip
from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, as_labels
from tests.support.crowds import a_pool, plain_pool


@pytest.mark.thorough
def test_a_coin_among_the_good_is_found_from_any_start():
    """start = 1 was a fixed point: eta = (1, 1, 1) after one step, tens of nats below."""
    rng = np.random.default_rng(0)
    G = rng.normal(size=(100, 2, 3)).astype("f4") * 4
    u = (G[:, 0] - G[:, 1]) @ np.array([1.5, -1, 0.5])
    good = np.where(rng.random((2, 100)) < 1 / (1 + np.exp(-u)), 0, 1)
    pairs = [(p, 0, 1) for p in range(100)]
    coin = as_labels(pairs * 3, np.r_[good[0], good[1], rng.integers(0, 2, 100)], np.repeat([0, 1, 2], 100))
    found = [estimate_reliability(CompletionPool(G), coin, prior=1e-2, start=start) for start in (0.6, 0.9, 0.999)]
    for one in found:
        assert one.converged and abs(one.eta[2] - 0.5) < 0.15 and (one.eta[:2] > 0.9).all()
        np.testing.assert_allclose(one.log_likelihood[-1], found[0].log_likelihood[-1], atol=1e-3)


@pytest.mark.slow
def test_a_small_average_is_not_called_converged(crowd):
    pool, _, labels, _ = crowd
    assert not estimate_reliability(pool, labels, ema=1e-7, max_iterations=400).converged


@pytest.mark.parametrize("who", [[0, 0, 0, 0], pytest.param([0, 0, 1, 1], marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [1, 4])
def test_labels_that_can_be_separated_give_numbers_and_no_convergence_without_a_prior(count, who):
    labels = as_labels([(p, 0, 1) for p in range(count)], [FIRST] * count, who[:count])
    found = estimate_reliability(plain_pool(), labels)
    assert not found.converged
    for name in ("eta", "standard_error", "parameter", "information", "responsibilities", "log_likelihood"):
        assert np.isfinite(getattr(found, name)).all(), name
    assert (found.eta > 0.99).all() and found.parameter[0] > 10 and found.standard_error[0] > 0.1
    held = estimate_reliability(plain_pool(), labels, prior=1e-2)
    assert held.converged and np.isfinite(held.parameter).all()


@pytest.mark.thorough
def test_numbers_of_annotators_may_be_any(crowd):
    """Arrays are as long as there are annotators, not as their largest number."""
    pool, _, labels, plain = crowd
    numbers = np.array([3, 17, 900_000, 999_999])
    found = estimate_reliability(pool, labels._replace(annotators=numbers[labels.annotators]))
    assert found.annotators.tolist() == numbers.tolist() and plain.annotators.tolist() == [0, 1, 2, 3]
    for name in ("eta", "standard_error", "posterior_mean", "parameter", "responsibilities"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    spread = labels._replace(annotators=np.array([0, 2, 3, 5])[labels.annotators])
    found = estimate_reliability(pool, spread, annotators=7, start=[0.9, 0.1, 0.9, 0.9, 0.1, 0.9, 0.1])
    np.testing.assert_array_equal(found.eta[[0, 2, 3, 5]], plain.eta)
    assert np.isnan(found.eta[[1, 4, 6]]).all() and found.annotators.tolist() == list(range(7))


@pytest.mark.parametrize("units", [2.0**-60, 2.0**60, 2.0 ** np.array([-26, 0, 26, 9])])
def test_units_do_not_matter(crowd, units):
    pool, _, labels, _ = crowd
    prior = np.diag([1e-3, 1e-2, 1e-2, 0.1])
    plain = estimate_reliability(pool, labels, prior=prior)
    units = np.broadcast_to(units, 4)
    scaled = CompletionPool(np.asarray(pool.features) * units.astype(np.float32))
    found = estimate_reliability(scaled, labels, prior=prior * np.outer(units, units))
    np.testing.assert_allclose(found.parameter * units, plain.parameter, rtol=1e-9)
    for name in ("eta", "standard_error", "posterior_mean", "log_likelihood"):
        np.testing.assert_allclose(getattr(found, name), getattr(plain, name), rtol=1e-9)
    assert found.converged


# ---- refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": 0.0}, r"start: 0 found; must be from 0.001 to 0.999"),
        ({"start": 1.0}, r"start: 1 found; must be from 0.001 to 0.999"),
        ({"start": [0.9, 1 - 1e-9]}, r"start: 1 found"),
        ({"start": np.nan}, r"start: nan found"),
        ({"ema": 0.0}, "ema=0"),
        ({"pseudo_labels": (1.0, -1.0)}, "pseudo_labels"),
        ({"annotators": 1}, "labels.annotators: 1"),
        ({"start": [0.9, 0.8, 0.7]}, "start: shape"),
        ({"prior": -1.0}, "prior"),
    ],
)
def test_bad_parameters_are_refused(options, words):
    labels = as_labels([(0, 0, 1), (0, 0, 2)], [FIRST, SECOND], [0, 1])
    with pytest.raises(ValueError, match=words):
        estimate_reliability(a_pool(), labels, **options)


def test_other_refusals():
    with pytest.raises(ValueError, match="no judgement found"):
        estimate_reliability(a_pool(), as_labels([(0, 0, 1)], [SKIP]))
    with pytest.raises(ValueError, match="the pool has 30 prompts"):
        estimate_reliability(a_pool(), as_labels([(30, 0, 1)], [FIRST]))
    with pytest.raises(ValueError, match=r"largest=0.5: must be in \[0, 1/2\)"):
        flip_of([0.9], 0.5)
    with pytest.raises(ValueError, match="shares"):
        with_estimated_flip(a_pool(), [0.9, 0.8], shares=[0, 0])
    with pytest.raises(ValueError, match=r"shares: .* must be finite"):
        with_estimated_flip(a_pool(), [0.9, 0.8], shares=[np.inf, 1])
