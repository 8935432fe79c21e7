"""Statistics of paired arms, against values known by hand."""

import numpy as np
import pytest

from bench.experiments import paired


def test_interval_is_students():
    mean, low, high = paired.mean_interval([1.0, 2.0, 3.0])
    assert mean == 2 and high - mean == pytest.approx(4.302653 / np.sqrt(3), abs=1e-6) and mean - low == high - mean


def test_half_the_gap_at_rate_one_over_n_saves_half_the_labels():
    counts = [100, 200, 400]
    random = [4.0, 2.0, 1.0]
    assert paired.labels_saved(counts, [2.0, 1.0, 0.5], random) == pytest.approx([2, 2, 2])  # the last extrapolated
    assert paired.labels_saved(counts, random, random) == pytest.approx([1, 1, 1])
    assert paired.labels_saved(counts, [8.0, 2.0, 2.0], random)[1:] == pytest.approx([1, 0.5])


def test_worse_than_the_first_count_is_nan():
    assert np.isnan(paired.labels_saved([100, 200], [5.0, 1.0], [4.0, 2.0])[0])


def test_a_curve_that_rises_by_noise_counts_from_where_it_was_reached():
    assert paired.labels_saved([1, 2, 4], [9.0, 2.0, 9.0], [4.0, 2.0, 2.5])[1] == pytest.approx(1)
    assert paired.labels_saved([1, 2, 4], [9.0, 1.0, 9.0], [4.0, 2.0, 2.5])[1] == pytest.approx(2)  # not 4


def test_ratios_are_paired_by_seed():
    """Gaps that differ tenfold between seeds and by 10% between arms: the interval must not see the seeds."""
    gaps = {10: {"random": [1.0, 10.0, 100.0], "trace": [0.9, 9.0, 90.0]}}
    found = paired.compared(gaps)["trace"]
    assert found["ratio"][10] == pytest.approx((0.9, 0.9, 0.9))
    assert found["gap"][10] == pytest.approx(33.3)
