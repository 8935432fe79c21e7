"""Forecasts beside measured gains: what is called right, and that they are those of the library."""

import numpy as np
import pytest

import jaxdesign as jd
from bench.experiments import arms, forecast_real_pools
from tests.experiments.test_real_pools_experiment import truth_of

pytestmark = pytest.mark.thorough


def test_rows_have_the_forecast_of_the_library_and_judge_it():
    truth, number = truth_of("well_specified"), 12
    pool, target = truth.problem.pool, truth.problem.target()
    ridges = {"random_distinct": 0.5, "random_distinct_smooth": 2.0}
    priors = {"random_distinct": 0.5, "random_distinct_smooth": arms.smooth_with(pool, 2.0)}
    told = {
        random: jd.forecast(pool, jd.Budget(number, per_pair=1), [number], prior=prior, target=target)
        for random, prior in priors.items()
    }
    gains = {random: float(one.random[0] - one.design[0]) for random, one in told.items()}
    assert min(gains.values()) > 0
    gap = {"random_distinct": 3.0, "trace": 3.0 - gains["random_distinct"] / 1.9}
    gap |= {"random_distinct_smooth": 2.0, "trace_smooth": 2.0 - gains["random_distinct_smooth"] / 2.1}
    case = {
        "given": {arm: {"gap": {str(number): value}} for arm, value in gap.items()},
        "ridges": {random: {str(number): ridge} for random, ridge in ridges.items()},
    }
    rows = {row["belief"]: row for row in forecast_real_pools.rows_of(case, [truth])}
    for random, row in rows.items():
        assert row["forecast"] == pytest.approx(gains[random]) and row["labels"] == number
        assert row["random leaves"] == pytest.approx(told[random].random[0])
    assert rows["random_distinct"]["right"] and not rows["random_distinct_smooth"]["right"]
    assert rows["random_distinct"]["measured"] == pytest.approx(gains["random_distinct"] / 1.9)
    twice = forecast_real_pools.rows_of(case, [truth, truth])
    assert [row["forecast"] for row in twice] == pytest.approx([gains[random] for random in rows])
    assert np.isfinite([row["random left"] for row in twice]).all()
