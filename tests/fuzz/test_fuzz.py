"""A few hundred random problems: no false bound, no broken budget, no exception without an argument's name."""

import os

import pytest

from . import harness, problems, programs, refusals, report

pytestmark = pytest.mark.thorough

BATCH = 25
DAILY = 1


@pytest.mark.parametrize(
    "batch", [pytest.param(batch, marks=[] if batch < DAILY else pytest.mark.slow) for batch in range(8)]
)
def test_random_problems_have_no_fault(batch):
    outcomes = [
        harness.run(problems.draw(seed, programs.FEW))
        for seed in range(10**6 + batch * BATCH, 10**6 + (batch + 1) * BATCH)
    ]
    assert not report.serious(outcomes), report.table(outcomes)
    assert sum(outcome.bounds for outcome in outcomes) > BATCH / 3


@pytest.mark.skipif("JAXDESIGN_TYPES" in os.environ, reason="annotations refuse bad arguments first")
def test_bad_arguments_are_refused_by_name():
    outcomes = [refusals.refuse(seed) for seed in range(12 * len(refusals.CASES))]
    assert not report.serious(outcomes), report.table(outcomes)
