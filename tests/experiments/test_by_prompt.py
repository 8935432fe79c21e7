"""Intervals over new prompts: right means, and limits that hold about as often as they say."""

from operator import itemgetter

import numpy as np
import pytest

from bench.experiments.by_prompt import laid_out, mean_interval, ratio_interval


def table(rng, splits=12, prompts=60, of_prompts=1.0, of_splits=0.0):
    """Differences with an effect of each prompt, one of each split, and noise; a quarter of the prompts held back."""
    effects = of_prompts * rng.standard_normal(prompts) + of_splits * rng.standard_normal((splits, 1))
    values = effects + 0.3 * rng.standard_normal((splits, prompts))
    held_back = rng.random((splits, prompts)).argsort(axis=1) < prompts // 4
    return np.where(held_back, values, np.nan)


def test_means_and_ratios_are_those_of_all_numbers():
    rng = np.random.default_rng(0)
    values = table(rng)
    found = mean_interval(values)
    assert found.mean == pytest.approx(np.nanmean(values)) and found.low < found.mean < found.high
    ratio = ratio_interval(values + 5, np.where(np.isnan(values), np.nan, 2.0))
    assert ratio.mean == pytest.approx((np.nanmean(values) + 5) / 2) and ratio.low < ratio.mean < ratio.high


@pytest.mark.parametrize("effects", [{}, {"of_splits": 1.0, "of_prompts": 0.2}])
def test_limits_hold(effects):
    rng = np.random.default_rng(1)
    found = [mean_interval(table(rng, **effects), draws=300) for _ in range(200)]
    assert np.mean([one.low <= 0 <= one.high for one in found]) > 0.9


def test_limits_over_splits_alone_would_be_too_narrow():
    rng = np.random.default_rng(2)
    tables = [table(rng) for _ in range(200)]
    spread = np.std([np.nanmean(one) for one in tables])
    by_split = [np.nanmean(one, axis=1).std(ddof=1) / np.sqrt(len(one)) for one in tables]
    ours = [(found.high - found.low) / 3.92 for found in (mean_interval(one, draws=300) for one in tables)]
    assert np.mean(by_split) < 0.7 * spread < 0.7 * 1.3 * np.mean(ours)


def test_tables_that_do_not_fit_are_named():
    values = table(np.random.default_rng(0))
    with pytest.raises(ValueError, match="same places"):
        ratio_interval(values, np.ones_like(values))
    with pytest.raises(ValueError, match="no number"):
        mean_interval(np.full((2, 3), np.nan))


def test_lines_are_laid_out_by_seed_and_prompt():
    lines = [
        {"seed": 7, "arm": "a", "prompts": [0, 2], "gains": [1.0, 2.0]},
        {"seed": 5, "arm": "a", "prompts": [1], "gains": [3.0]},
        {"seed": 5, "arm": "b", "prompts": [1], "gains": [4.0]},
    ]
    found = laid_out(lines, itemgetter("arm"), itemgetter("gains"))
    nan = np.nan
    np.testing.assert_array_equal(found["a"], [[nan, 3, nan], [1, nan, 2]])
    np.testing.assert_array_equal(found["b"], [[nan, 4, nan], [nan, nan, nan]])
