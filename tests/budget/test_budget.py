"""The budget's linear oracle against an LP solver, its capacity, and the exact totals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign._pairs import Allocation, candidate_counts, first_copies
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.limits import Limits, capacity, resolve
from jaxdesign.budget.oracle import exact_total, linear_oracle
from tests.support.problems import lp_oracle, random_pool, written_out

seeds = st.integers(0, 2**32 - 1)
PROMPTS = 5


@st.composite
def limited_lists(draw):
    """A list of pairs with sensitivities (ties included), and limits that can be met."""
    rng = np.random.default_rng(draw(seeds))
    pairs = np.array([(p, i, j) for p in range(PROMPTS) for i in range(4) for j in range(i + 1, 4)], np.int32)
    pairs = pairs[np.sort(rng.choice(len(pairs), 18, replace=False))]
    caps = draw(st.sampled_from(["none", "scalar", "per prompt"]))
    quotas = draw(st.sampled_from(["none", "scalar", "per prompt"]))
    kinds = {
        "none": lambda: np.inf,
        "scalar": lambda: rng.integers(1, 5),
        "per prompt": lambda: rng.uniform(1, 6, PROMPTS),
    }
    caps, quotas = (np.broadcast_to(np.asarray(kinds[k](), float), (PROMPTS,)) for k in (caps, quotas))
    room = capacity(Limits(1.0, caps, quotas), np.bincount(pairs[:, 0], minlength=PROMPTS).astype(float))
    total = float(draw(st.floats(0.1, 1.0)) * min(room, 30.0))
    sensitivities = rng.integers(0, 6, len(pairs)) / 2 if draw(st.booleans()) else rng.exponential(size=len(pairs))
    return Limits(total, caps, quotas), pairs, sensitivities


def is_allowed(limits, pairs, labels, total=True, rtol=1e-12):
    spent = np.bincount(pairs[:, 0], labels, minlength=len(limits.per_prompt))
    assert (labels >= 0).all()
    assert (labels <= limits.per_pair[pairs[:, 0]] * (1 + rtol)).all()
    assert (spent <= limits.per_prompt * (1 + rtol)).all()
    if total:
        assert labels.sum() == pytest.approx(limits.total, rel=rtol)


# ---- the oracle


@given(limited_lists())
def test_the_oracle_solves_the_linear_programme(case):
    limits, pairs, b = case
    found = linear_oracle(limits, pairs, b)
    is_allowed(limits, pairs, found.labels)
    expected = lp_oracle(pairs, b, *limits[:3])[1]
    assert found.value == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert b @ found.labels == pytest.approx(found.value, rel=1e-12, abs=1e-12)
    assert found.level == b[found.labels > 0].min()


@given(limited_lists(), st.floats(0, 3))
def test_a_partial_list_with_its_floor_bounds_the_oracle_from_above(case, floor):
    limits, pairs, b = case
    exact = lp_oracle(pairs, b, *limits[:3])[1]
    listed = b >= floor
    found = linear_oracle(limits, pairs[listed], b[listed], floor)
    is_allowed(limits, pairs[listed], found.labels, total=False)
    assert found.value >= exact - 1e-9 * max(1, exact)
    # it is the dual function at the level `floor`: exact where the list holds every label at or above it
    excess = lp_oracle_without_total(limits, pairs, np.maximum(b - floor, 0))
    assert found.value == pytest.approx(excess + floor * limits.total, rel=1e-9, abs=1e-9)


def lp_oracle_without_total(limits, pairs, gains):
    """Largest gain of at most `total` labels: a free pair of no gain takes what is left."""
    spare = np.concatenate([pairs, [[PROMPTS, 0, 1]]])
    caps, quotas = (np.append(x, np.inf) for x in limits[1:3])
    return lp_oracle(spare, np.append(gains, 0.0), limits.total, caps, quotas)[1]


@given(limited_lists(), st.floats(0, 3), st.floats(0, 1))
def test_pairs_missing_from_the_list_below_the_floor_cost_tightness_not_truth(case, floor, share):
    limits, pairs, b = case
    exact = lp_oracle(pairs, b, *limits[:3])[1]
    low = np.flatnonzero(b <= floor)
    kept = np.setdiff1d(np.arange(len(b)), low[: int(share * len(low))])
    assert linear_oracle(limits, pairs[kept], b[kept], floor).value >= exact - 1e-9 * max(1, exact)


def test_an_empty_list_is_worth_the_floor():
    found = linear_oracle(Limits(3.0, np.ones(2), np.ones(2)), np.zeros((0, 3), np.int32), np.zeros(0), 0.5)
    assert (found.value, found.level, len(found.labels)) == (1.5, 0.5, 0)


def test_ties_go_to_the_first_pair_by_prompt_i_j():
    pairs = np.array([(1, 0, 1), (0, 1, 2), (0, 0, 2), (0, 0, 1)], np.int32)
    found = linear_oracle(Limits(2.0, np.ones(2), np.full(2, np.inf)), pairs, np.ones(4))
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_without_caps_everything_goes_to_the_best_pair():
    pairs = np.array([(0, 0, 1), (0, 0, 2), (1, 0, 1)], np.int32)
    found = linear_oracle(Limits(7.5, np.full(2, np.inf), np.full(2, np.inf)), pairs, np.array([1.0, 3, 2]))
    assert found.labels.tolist() == [0, 7.5, 0]


# ---- capacity


@given(seeds, st.sampled_from([np.inf, 1.0, 2.5]), st.sampled_from([np.inf, 1.0, 4.5]))
def test_capacity_is_the_largest_total_the_limits_allow(seed, per_pair, per_prompt):
    counts = candidate_counts(first_copies(random_pool(seed)))
    found = capacity(Limits(1.0, np.full(6, per_pair), np.full(6, per_prompt)), counts)
    assert found == sum(min(per_prompt, per_pair * n) for n in counts if n > 0)


def test_identical_completions_and_skipped_prompts_are_no_capacity():
    pool = random_pool(0)
    counts = candidate_counts(first_copies(pool))
    assert counts.tolist() == np.bincount(written_out(pool)[0][:, 0], minlength=6).tolist() == [9, 1, 0, 10, 10, 6]
    resolve(Budget(36, 1), counts)
    with pytest.raises(ValueError, match="at most 36 labels on the 36 candidate pairs"):
        resolve(Budget(36.001, 1), counts)


def test_limits_are_one_number_per_prompt_and_idle_quotas_are_dropped():
    limits = resolve(Budget(4, per_pair=2, per_prompt=[1, 2, 3]), np.full(3, 6.0))
    assert limits.per_pair.tolist() == [1, 2, 2]  # a pair cannot take more than its prompt
    assert limits.per_prompt.tolist() == [1, 2, 3]
    assert (limits.has_caps, limits.has_quotas) == (True, True)
    limits = resolve(Budget(4, per_pair=2, per_prompt=12), np.full(3, 6.0))
    assert (limits.has_caps, limits.has_quotas) == (True, False)
    limits = resolve(Budget(4, per_pair=4), np.full(3, 6.0))
    assert (limits.has_caps, limits.has_quotas) == (False, False)


# ---- exact totals


@given(limited_lists(), seeds)
def test_exact_totals_obey_the_budget_and_move_labels_by_rounding_only(case, seed):
    limits, pairs, b = case
    labels = 0.5 * linear_oracle(limits, pairs, b).labels + 0.5 * linear_oracle(limits, pairs, -b).labels
    rounded = labels * (1 + 1e-7 * np.random.default_rng(seed).uniform(-1, 1, len(labels)))
    found = exact_total(limits, Allocation(pairs, rounded))
    is_allowed(limits, pairs, found, rtol=1e-13)
    np.testing.assert_allclose(found, labels, rtol=2e-6)


def test_exact_totals_keep_the_shares_where_quotas_hold_the_whole_total():
    pairs = np.array([(p, 0, j) for p in range(4) for j in (1, 2)], np.int32)
    labels = np.array([3, 2, 2.9, 2.1, 2.5, 2.5, 1, 4.0])
    found = exact_total(Limits(20.0, np.full(4, 4.0), np.full(4, 5.0)), Allocation(pairs, labels * (1 - 1e-9)))
    np.testing.assert_allclose(found, labels, rtol=1e-8)
    assert found.sum() == pytest.approx(20, rel=1e-13)
