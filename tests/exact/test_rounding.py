"""Rounding: whole labels that sum to the total within caps and quotas, as near to the design as each way promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign._pairs import Allocation
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.limits import Limits
from jaxdesign.budget.oracle import exact_total
from jaxdesign.budget.quota import Quota
from jaxdesign.exact import random_pairs as chance
from jaxdesign.exact.random_pairs import random_pairs
from jaxdesign.exact.rounding import adams, best_set, largest_remainder, once_each
from tests.support.problems import random_pool

PROMPTS, COMPLETIONS = 5, 6
seeds = st.integers(0, 2**32 - 1)


def random_design(seed, cap=np.inf, quota=np.inf, total=60):
    """Pairs in order and positive labels that sum to the total within whole caps and quotas."""
    rng = np.random.default_rng(seed)
    upper = np.stack(np.triu_indices(COMPLETIONS, 1), axis=1)
    pairs = np.concatenate([np.column_stack([np.full(len(upper), p), upper]) for p in range(PROMPTS)]).astype(np.int32)
    limits = Limits(float(total), np.broadcast_to(cap, (PROMPTS,)) * 1.0, np.broadcast_to(quota, (PROMPTS,)) * 1.0)
    keep = np.sort(rng.permutation(len(pairs))[: rng.integers(40, len(pairs) + 1)])
    pairs = pairs[keep]
    return limits, pairs, exact_total(limits, Allocation(pairs, np.exp(2 * rng.standard_normal(len(pairs)))))


def check_whole(limits, pairs, n):
    assert n.sum() == limits.total
    np.testing.assert_array_equal(n, np.rint(n))
    assert (n >= 0).all() and (n <= limits.per_pair[pairs[:, 0]]).all()
    assert (np.bincount(pairs[:, 0], weights=n, minlength=PROMPTS) <= limits.per_prompt).all()


@given(seeds, st.integers(75, 400))
def test_adams_keeps_every_pair_and_its_bound(seed, total):
    limits, pairs, labels = random_design(seed, total=total)
    n = adams(limits, Allocation(pairs, labels))
    check_whole(limits, pairs, n)
    assert (n >= 1).all()
    assert (n / labels).min() >= 1 - len(pairs) / total - 1e-9
    # apportionment: no label can move from a pair to another and make the worse of the two better off
    assert ((n - 1) / labels).max() <= (n / labels).min() + 1e-9


@given(seeds)
def test_adams_with_caps_and_quotas(seed):
    limits, pairs, labels = random_design(seed, np.array([2, 7, 3, 9, 2]), np.array([16, 25, 99, 30, 18]), total=90)
    n = adams(limits, Allocation(pairs, labels))
    held = np.bincount(pairs[:, 0], minlength=PROMPTS)
    if (held > limits.per_prompt).any():
        assert n is None
    elif n is not None:
        check_whole(limits, pairs, n)
        assert (n >= 1).all()


def test_adams_by_hand():
    pairs = np.array([[0, 0, 1], [1, 0, 1], [2, 0, 1]], np.int32)
    limits = Limits(10.0, np.full(3, np.inf), np.full(3, np.inf))
    np.testing.assert_array_equal(adams(limits, Allocation(pairs, np.array([5.0, 4.0, 1.0]))), [5, 4, 1])
    # ceil of 6.8, 2.9, 0.3 is one too many; t falls until the first pair gives one back at 6 / 6.8
    np.testing.assert_array_equal(adams(limits, Allocation(pairs, np.array([6.8, 2.9, 0.3]))), [6, 3, 1])
    # three equal pairs: 10 = 4 + 3 + 3, the first in order gains
    np.testing.assert_array_equal(adams(limits, Allocation(pairs, np.full(3, 10 / 3))), [4, 3, 3])


def test_adams_has_no_answer_for_more_pairs_than_labels():
    limits, pairs, labels = random_design(0, total=20)
    assert adams(limits, Allocation(pairs, labels)) is None
    limits, pairs, labels = random_design(0, quota=12, total=55)
    assert adams(limits, Allocation(pairs, labels)) is None or np.bincount(pairs[:, 0]).max() <= 12


@given(
    seeds,
    st.sampled_from([(np.inf, np.inf), (3, np.inf), (1, np.inf), (2, 9), (np.inf, 9), (np.array([1, 2, 3, 4, 5]), 10)]),
)
def test_largest_remainder_is_whole_and_near(seed, caps):
    limits, pairs, labels = random_design(seed, *caps, total=40)
    b = np.random.default_rng(seed).random(len(pairs))
    n = largest_remainder(limits, Allocation(pairs, labels), b)
    check_whole(limits, pairs, n)
    assert (n >= np.floor(labels + 1e-9)).all()
    if np.isinf(limits.per_prompt).all():  # without quotas nobody needs a second extra label
        assert (n <= np.floor(labels + 1e-9) + 1).all()


def test_largest_remainder_breaks_ties_by_sensitivity_then_by_order():
    pairs = np.array([[0, 0, 1], [1, 0, 1], [2, 0, 1], [3, 0, 1]], np.int32)
    limits = Limits(6.0, np.full(4, np.inf), np.full(4, np.inf))
    labels = np.full(4, 1.5)
    np.testing.assert_array_equal(
        largest_remainder(limits, Allocation(pairs, labels), np.array([1.0, 3, 2, 1])), [1, 2, 2, 1]
    )
    np.testing.assert_array_equal(largest_remainder(limits, Allocation(pairs, labels), np.ones(4)), [2, 2, 1, 1])


def test_largest_remainder_of_whole_labels_changes_nothing():
    limits, pairs, labels = random_design(1, total=60)
    whole = largest_remainder(limits, Allocation(pairs, labels), labels)
    kept = whole > 0
    jitter = whole[kept] * (1 + 1e-12 * np.random.default_rng(0).standard_normal(kept.sum()))
    np.testing.assert_array_equal(largest_remainder(limits, Allocation(pairs[kept], jitter), jitter), whole[kept])


@given(seeds)
def test_best_set_holds_the_largest_labels(seed):
    limits, pairs, labels = random_design(seed, total=30)
    chosen = best_set(limits, Allocation(pairs, labels), np.ones(len(pairs))).astype(bool)
    assert chosen.sum() == 30
    assert labels[chosen].min() >= labels[~chosen].max()


@given(seeds)
def test_best_set_under_quotas_is_the_best_allowed_one(seed):
    limits, pairs, labels = random_design(seed, 1, np.array([3, 9, 1, 5, 7]), total=20)
    n = best_set(limits, Allocation(pairs, labels), np.ones(len(pairs)))
    check_whole(limits, pairs, n)
    spent = np.bincount(pairs[:, 0], weights=n, minlength=PROMPTS)
    out = (n == 0) & (spent < limits.per_prompt)[pairs[:, 0]]
    assert labels[n > 0].max() >= labels[out].max(initial=0)
    for p in np.flatnonzero(spent):  # within a prompt the largest labels are in
        mine = pairs[:, 0] == p
        assert labels[mine & (n > 0)].min() >= labels[mine & (n == 0)].max(initial=0)


def test_best_set_has_no_answer_for_fewer_pairs_than_labels():
    limits, pairs, labels = random_design(2, total=200)
    assert best_set(limits, Allocation(pairs, labels), labels) is None


def test_best_set_breaks_ties_by_sensitivity_then_by_order():
    pairs = np.array([[0, 0, 1], [1, 0, 1], [2, 0, 1], [3, 0, 1]], np.int32)
    limits = Limits(2.0, np.ones(4), np.full(4, np.inf))
    np.testing.assert_array_equal(
        best_set(limits, Allocation(pairs, np.full(4, 0.5)), np.array([1.0, 1, 2, 1])), [1, 0, 1, 0]
    )


def test_once_each_takes_what_quotas_allow():
    pairs = np.array([[0, 0, 1], [0, 0, 2], [1, 0, 1]], np.int32)
    np.testing.assert_array_equal(once_each(5, np.array([1.0, 9.0]), pairs, np.array([1.0, 2.0, 0.5])), [0, 1, 1])


@pytest.mark.parametrize("caps", [{}, {"per_pair": 1}, {"per_pair": 2, "per_prompt": 5}, {"per_prompt": 4}])
def test_random_pairs_obey_the_budget(caps):
    pool, budget = random_pool(0), Budget(17, **caps)
    pairs, labels = random_pairs(pool, budget, seed=3)
    assert labels.sum() == 17 and (labels == np.rint(labels)).all() and (labels > 0).all()
    assert labels.max() <= caps.get("per_pair", np.inf)
    assert np.bincount(pairs[:, 0], weights=labels).max() <= caps.get("per_prompt", np.inf)
    assert (
        np.asarray(pool.mask)[pairs[:, 0], pairs[:, 1]].all() and np.asarray(pool.mask)[pairs[:, 0], pairs[:, 2]].all()
    )
    again = random_pairs(pool, budget, seed=3)
    np.testing.assert_array_equal(pairs, again[0])
    assert (
        len(pairs) != len(random_pairs(pool, budget, seed=4)[0])
        or (pairs != random_pairs(pool, budget, seed=4)[0]).any()
    )


def test_more_random_labels_than_pairs_are_spread_evenly():
    pool = random_pool(0)
    _, labels = random_pairs(pool, Budget(100))
    assert labels.max() - labels.min() <= 1


@pytest.mark.parametrize(
    "caps", [{}, {"per_pair": 1, "per_prompt": 3}, {"quotas": Quota([0, 1, 0, 1, 0, 1], at_least=4)}]
)
def test_pairs_of_pools_too_large_to_be_listed_are_drawn_one_by_one(caps, monkeypatch):
    """They obey the budget, leave out what is excluded, and every pair comes as often as any other."""
    pool, drawn = random_pool(0), []
    closed = [[1, 0, 1], [4, 1, 2]]
    listed = random_pairs(pool, Budget(9, exclude=closed, **caps))
    monkeypatch.setattr(chance, "MANY", 0)
    monkeypatch.setattr(chance, "FIRST", 2)
    for seed in range(200):
        pairs, labels = random_pairs(pool, Budget(9, exclude=closed, **caps), seed)
        assert labels.sum() == listed.labels.sum() == 9 and labels.max() == 1 and pairs.dtype == np.int32
        assert np.bincount(pairs[:, 0], weights=labels).max() <= caps.get("per_prompt", np.inf)
        assert not any(pair in closed for pair in pairs.tolist())
        np.testing.assert_array_equal(pairs, pairs[np.lexsort(pairs.T[::-1])])
        drawn.append(pairs)
    if not caps:
        exists = np.asarray(pool.mask)
        every = np.argwhere(np.triu(exists[:, :, None] & exists[:, None, :], 1))
        names, counts = np.unique(np.concatenate(drawn), axis=0, return_counts=True)
        assert len(names) == len(every) - 2
        expected = 200 * 9 / len(names)
        assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_random_pairs_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r"budget\.total=1000: the caps allow at most"):
        random_pairs(random_pool(0), Budget(1000, per_pair=1))
    with pytest.raises(ValueError, match=r"budget\.total=60: the caps allow at most"):
        random_pairs(random_pool(0), Budget(60, per_pair=1.9))  # whole labels: one a pair
