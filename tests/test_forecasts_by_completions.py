"""Forecasts by completions: of subsets they are those of the subset, and beyond them as good as they say."""

from typing import Any

import numpy as np
import pytest

from jaxdesign import Budget, CompletionPool, forecast, forecast_by_completions, policy_target
from jaxdesign.forecasts_by_completions import _beyond, with_completions
from jaxdesign.pricing import streamed_source
from tests.support.problems import random_pool
from tests.support.stored import ragged

RIDGE, BUDGET, SIZES = 0.5, Budget(1, per_pair=1), np.array([2, 4, 8, 16])


def test_subsets_are_drawn_evenly_among_what_is_there_and_nested():
    pool = random_pool(0, scores="no")
    mask, counts = np.asarray(pool.mask), np.zeros(pool.mask.shape)
    for seed in range(400):
        two, three = (np.asarray(with_completions(pool, number, seed).mask) for number in (2, 3))
        assert (two <= three).all() and (three <= mask).all()
        np.testing.assert_array_equal(three.sum(axis=1), np.minimum(mask.sum(axis=1), 3))
        counts += two
    whole = mask.all(axis=1)
    assert abs(counts[whole] - 400 * 2 / mask.shape[1]).max() < 5 * np.sqrt(400 * 0.4 * 0.6)


@pytest.mark.thorough
def test_rows_are_forecasts_of_the_subsets():
    pool = random_pool(0, scores="no", copies=False)
    found = forecast_by_completions(pool, BUDGET, [4, 12], prior=RIDGE, completions=[2, 4, 5], subsets=2, draws=3)
    H = policy_target(pool)
    for row, size in enumerate((2, 4, 5)):
        for column, total in enumerate((4, 12)):
            seeds = (0, 1) if size < 5 else (0,)
            if size == 2 and total == 12:  # five pairs
                assert np.isnan(found.gaps["random"][row, column])
                continue
            parts = [
                forecast(
                    with_completions(pool, size, seed), BUDGET, [total], prior=RIDGE, target=H, draws=3, seed=3 * seed
                )
                for seed in seeds
            ]
            for name in ("random", "least", "design"):
                right = np.mean([getattr(part, name)[0] for part in parts])
                assert found.gaps[name][row, column] == pytest.approx(right, rel=1e-6)
    assert found.beyond.tolist() == [10, 20] and np.isnan(found.extrapolated["design"]).all()  # three are too few
    said = found.summary()
    assert "12 labels, gap in units of J, by completions a prompt" in said and "nan" not in said
    assert said.count("Nothing is said of more: that takes 4 rows") == 2


@pytest.mark.parametrize(("law", "way"), [(lambda k: 1 / k, "levels off"), (np.log, "goes on")])
def test_gaps_that_follow_either_law_are_found_again(law, way):
    gaps = np.exp(0.3 - 0.2 * (law(SIZES)[:, None] * [1.0, -2.0]))
    values, errors, found = _beyond(SIZES, gaps, np.array([32, 64]))
    assert found == way
    np.testing.assert_allclose(values, np.exp(0.3 - 0.2 * (law(np.array([32, 64]))[:, None] * [1.0, -2.0])), rtol=1e-9)
    assert (errors > 0).all() and (errors[1] > errors[0]).all()  # the other law parts from it


def test_errors_are_at_least_what_the_largest_number_was_missed_by():
    gaps = np.array([1.0, 0.8, 0.7, 0.3])[:, None]  # nothing follows from the first three
    values, errors, _ = _beyond(SIZES, gaps, np.array([32]))
    misses = [np.polyval(np.polyfit(law(SIZES[:3]), np.log(gaps[:3, 0]), 1), law(16)) - np.log(0.3)
              for law in (np.log, lambda k: 1 / k)]  # fmt: skip
    assert errors[0, 0] >= np.expm1(min(misses)) * values[0, 0] > 0.5 * values[0, 0]
    few = np.where(SIZES[:, None] == 2, np.nan, gaps)
    assert np.isnan(_beyond(SIZES, few, np.array([32]))[0]).all()


@pytest.mark.slow
def test_errors_cover_what_more_completions_turn_out_to_leave():
    """Heavy-tailed pools of 32 completions, extrapolated from 16; a quarter of the cells may be missed, not more."""
    inside = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((60, 32, 4)) * np.exp(0.4 * rng.standard_normal((60, 32, 1)))
        pool = CompletionPool(features.astype(np.float32))
        settings = {"prior": 3.0, "target": policy_target(pool), "draws": 8}
        known = with_completions(pool, 16, 0)
        half = CompletionPool(np.asarray(pool.features)[np.asarray(known.mask)].reshape(60, 16, 4))
        told = forecast_by_completions(half, BUDGET, [20, 50], beyond=[32], **settings)
        truth = forecast(pool, BUDGET, [20, 50], **settings)
        for name in ("least", "design"):
            inside += list(abs(told.extrapolated[name][0] - getattr(truth, name)) <= 2 * told.error[name][0])
    assert np.mean(inside) >= 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completions": [4, 2]}, r"completions=\[4, 2\]: expected rising whole numbers of at least 2, at most 5"),
        ({"completions": [1, 2]}, r"completions=\[1, 2\]: expected"),
        ({"completions": [2, 6]}, r"completions=\[2, 6\]: expected"),
        ({"beyond": [5]}, r"beyond=\[5\]: expected rising whole numbers of at least 6"),
        ({"beyond": [7.5]}, r"beyond=\[7.5\]: expected"),
        ({"subsets": 0}, "subsets=0: at least one"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        forecast_by_completions(random_pool(0), BUDGET, [6], prior=RIDGE, **change)


def test_sources_are_refused():
    with pytest.raises(TypeError, match="needs all features in memory"):
        source: Any = streamed_source(chunk=50, **ragged(prompts=120))
        forecast_by_completions(source, BUDGET, [6], prior=RIDGE)
