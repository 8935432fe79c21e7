"""Labels drawn from a real-valued design: never against the limits, exact in expectation, the published recipe."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign._pairs import Allocation
from jaxdesign.budget.limits import Limits
from jaxdesign.budget.oracle import exact_total
from jaxdesign.exact.rounding import dependent, drawn

seeds = st.integers(0, 2**32 - 1)
PROMPTS = 5
PAIRS = np.array([(p, i, j) for p in range(PROMPTS) for i in range(4) for j in range(i + 1, 4)], np.int32)


def design(seed, total, cap, quota):
    """Limits and an allowed real-valued allocation with some whole labels, some at the cap, some quotas that bind."""
    rng = np.random.default_rng(seed)
    limits = Limits(float(total), np.full(PROMPTS, float(cap)), np.full(PROMPTS, float(quota)))
    labels = exact_total(limits, Allocation(PAIRS, rng.exponential(size=len(PAIRS)) ** 2 + 1e-6))
    return limits, labels


@pytest.mark.parametrize(
    "draw", [dependent, drawn, lambda *a: drawn(*a, by_prompt=True)], ids=["dependent", "drawn", "by prompt"]
)
@settings(max_examples=60)
@given(seed=seeds, case=st.sampled_from([(7, 1, 3), (13, 2, 4), (20, 30, 5), (24, 1, 5), (60, 2, 12), (40, 40, 40)]))
def test_limits_are_obeyed_and_the_total_is_met(draw, seed, case):
    limits, labels = design(seed, *case)
    n = draw(limits, Allocation(PAIRS, labels), seed)
    assert (n == np.rint(n)).all() and (n >= 0).all()
    assert n.sum() == limits.total
    assert (n <= limits.per_pair[PAIRS[:, 0]]).all()
    assert (np.bincount(PAIRS[:, 0], n, PROMPTS) <= limits.per_prompt).all()


@given(seed=seeds)
def test_dependent_rounding_moves_each_number_to_a_neighbour(seed):
    limits, labels = design(seed, 20, 30, 5)
    n = dependent(limits, Allocation(PAIRS, labels), seed)
    assert (np.abs(n - labels) < 1 + 1e-6).all()
    spent, expected = (np.bincount(PAIRS[:, 0], x, PROMPTS) for x in (n, labels))
    assert (np.abs(spent - expected) < 1 + 1e-6).all()
    whole = np.bincount(np.arange(20) % len(PAIRS), minlength=len(PAIRS)).astype(float)
    assert (
        dependent(limits._replace(per_prompt=np.full(PROMPTS, np.inf)), Allocation(PAIRS, whole), seed) == whole
    ).all()


def test_dependent_rounding_is_exact_in_expectation():
    limits, labels = design(0, 13, 2, 4)
    mean = np.mean([dependent(limits, Allocation(PAIRS, labels), seed) for seed in range(4000)], axis=0)
    spread = np.sqrt(0.25 / 4000)
    np.testing.assert_allclose(mean, labels, atol=5 * spread)


def test_the_first_draw_follows_the_labels():
    limits = Limits(1.0, np.ones(PROMPTS), np.full(PROMPTS, np.inf))
    labels = np.random.default_rng(0).dirichlet(np.ones(len(PAIRS)))
    for by_prompt in (False, True):
        share = labels / np.bincount(PAIRS[:, 0], labels)[PAIRS[:, 0]] / PROMPTS if by_prompt else labels
        mean = np.mean(
            [drawn(limits, Allocation(PAIRS, labels), seed, by_prompt=by_prompt) for seed in range(4000)], axis=0
        )
        np.testing.assert_allclose(mean, share, atol=5 * np.sqrt(share.max() / 4000))


def test_seeds_repeat_and_differ():
    limits, labels = design(3, 13, 2, 4)
    for draw in (dependent, drawn):
        assert (draw(limits, Allocation(PAIRS, labels), 7) == draw(limits, Allocation(PAIRS, labels), 7)).all()
        assert len({draw(limits, Allocation(PAIRS, labels), seed).tobytes() for seed in range(10)}) > 5


def test_pairs_that_cannot_hold_the_total_give_nothing():
    limits = Limits(3.0, np.ones(PROMPTS), np.full(PROMPTS, 2.0))
    assert drawn(limits, Allocation(PAIRS[:6], np.full(6, 0.5)), 0) is None  # one prompt, whose quota is 2
