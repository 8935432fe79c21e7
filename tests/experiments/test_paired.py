"""Statistics of paired arms, against values known by hand."""

import numpy as np
import pytest

from bench.experiments import paired

pytestmark = pytest.mark.thorough


def test_interval_is_students():
    mean, low, high = paired.mean_interval([1.0, 2.0, 3.0])
    assert mean == 2 and high - mean == pytest.approx(4.302653 / np.sqrt(3), abs=1e-6) and mean - low == high - mean


RANDOM = {100: 4.0, 200: 2.0, 400: 1.0}


def test_half_the_gap_at_rate_one_over_n_saves_half_the_labels():
    half = {100: 2.0, 200: 1.0, 400: 0.5}
    assert paired.labels_saved(half, RANDOM) == pytest.approx({100: 2, 200: 2, 400: 2})  # the last extrapolated
    assert paired.labels_saved(RANDOM, RANDOM) == pytest.approx({100: 1, 200: 1, 400: 1})
    assert paired.labels_saved({200: 2.0, 400: 2.0}, RANDOM) == pytest.approx({200: 1, 400: 0.5})


def test_counts_may_differ():
    assert paired.labels_saved({50: 2.0, 1000: 2.0}, RANDOM) == pytest.approx({50: 4, 1000: 0.2})


def test_worse_than_the_first_count_is_nan():
    assert np.isnan(paired.labels_saved({100: 5.0, 200: 1.0}, RANDOM)[100])


def test_a_curve_that_rises_by_noise_counts_from_where_it_was_reached():
    noisy = {1: 4.0, 2: 2.0, 4: 2.5}
    assert paired.labels_saved({2: 2.0}, noisy)[2] == pytest.approx(1)
    assert paired.labels_saved({2: 1.0}, noisy)[2] == pytest.approx(2)  # not 4


def test_ratios_are_paired_by_seed():
    """Gaps that differ tenfold between seeds and by 10% between arms: the interval must not see the seeds."""
    gaps = {10: {"random": [1.0, 10.0, 100.0], "trace": [0.9, 9.0, 90.0]}}
    found = paired.compared(gaps)["trace"]
    assert found["ratio"][10] == pytest.approx((0.9, 0.9, 0.9))
    assert found["gap"][10] == pytest.approx(33.3)
