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


def test_no_gap_is_worth_endlessly_many_labels():
    assert paired.labels_saved({100: 0.0}, RANDOM) == {100: np.inf}


def test_counts_may_differ():
    assert paired.labels_saved({50: 2.0, 1000: 2.0}, RANDOM) == pytest.approx({50: 4, 1000: 0.2})


def test_worse_than_the_first_count_is_nan():
    assert np.isnan(paired.labels_saved({100: 5.0, 200: 1.0}, RANDOM)[100])


def test_a_curve_that_rises_by_noise_counts_from_where_it_was_reached():
    noisy = {1: 4.0, 2: 2.0, 4: 2.5}
    assert paired.labels_saved({2: 2.0}, noisy)[2] == pytest.approx(1)
    assert paired.labels_saved({2: 1.0}, noisy)[2] == pytest.approx(2)  # not 4


def table(values, prompts=40, seed=0):
    """Gaps of splits around these, a quarter of the prompts held back in each: (splits, prompts)."""
    rng = np.random.default_rng(seed)
    held_back = rng.random((len(values), prompts)).argsort(axis=1) < prompts // 4
    return np.where(held_back, np.asarray(values)[:, None] * rng.uniform(0.5, 1.5, (len(values), prompts)), np.nan)


def test_ratios_are_of_means_and_paired_by_prompt():
    """Gaps that differ tenfold between splits and by 10% between arms: the interval must not see the splits."""
    random = table([1.0, 10.0, 100.0])
    found = paired.compared({10: {"random": random, "trace": 0.9 * random}}, "random")["trace"]
    assert found["ratio"][10] == pytest.approx((0.9, 0.9, 0.9))
    assert found["gap"][10] == pytest.approx(0.9 * np.nanmean(random))


def test_a_ratio_of_two_arms_that_are_alike_is_near_one():
    """Heavy tails: the mean of the ratios of splits would be far above 1, whichever arm is divided by the other."""
    rng = np.random.default_rng(1)
    places = np.where(np.isnan(table(np.ones(400), prompts=8)), np.nan, 1.0)
    own, other = (places * np.exp(1.5 * rng.standard_normal((400, 1))) for _ in range(2))
    assert np.nanmean(own / other) > 3
    found = paired.compared({10: {"random": other, "same": own}}, "random")["same"]["ratio"][10]
    assert found[1] < 1 < found[2] and found[2] / found[1] < 2.5


def test_labels_saved_have_limits_of_the_resampled_curves():
    gaps = {n: table([1.0] * 6, seed=n) for n in (100, 200, 400)}
    gaps = {n: np.where(np.isnan(gaps[100]), np.nan, np.nan_to_num(gaps[100]) * 100 / n) for n in gaps}
    tables = {n: {"random": values, "half": values / 2} for n, values in gaps.items()}
    found = paired.compared(tables, "random")["half"]["labels_saved"]
    for n in gaps:
        assert found[n] == pytest.approx((2, 2, 2))
