"""The cost model of `bench.growth` by hand, and that its figures are those of a call."""

import numpy as np
import pytest

from bench import growth
from bench.growth import Shape, memory, work
from jaxdesign.pricing.memory import MemorySource


def test_work_by_hand():
    shape = Shape(100, 4, 5)
    assert work(shape, "information", 3) == 2 * 3 * 4 * 5 * 5
    assert work(shape, "pass", 3) == 2 * 3 * 4 * 5 * 5 + 2 * 3 * 4 * 4 * 5
    assert work(shape, "survey", 3) == 0
    assert shape.pairs == 600


def test_memory_grows_by_what_a_prompt_and_a_pair_need():
    shape = Shape(500_000, 4, 8)
    assert memory(shape._replace(prompts=600_000), 0) - memory(shape, 0) == 100_000 * (64 + 32 + 20)
    assert memory(shape, 10) - memory(shape, 0) == 10 * 8 * 24


@pytest.mark.thorough
def test_a_call_is_measured_as_it_is():
    fold = MemorySource.fold
    found = growth.measured(Shape(3_000, 8, 4, 50))
    assert MemorySource.fold is fold
    assert found["efficiency"] >= 0.999 and found["pairs"] == 3_000 * 28
    assert 0 < found["seconds_of_folds"] < found["seconds"]["max"]
    even, bounds = work(Shape(3_000, 8, 4), "information", 3_000), work(Shape(3_000, 8, 4), "pass", 3_000)
    np.testing.assert_allclose(found["operations"], even + (found["sweeps"] - 1 + found["looked_at"]) * bounds)
