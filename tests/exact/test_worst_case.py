"""Whole labels for the worst case over targets: against enumeration, by what they are chosen, first picks."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign
from jaxdesign import Budget, WorstCase, evaluate, optimize, select_pairs
from tests.support.problems import even_allocation, random_pool, written_out
from tests.support.several_targets import RIDGE, THREE, worst

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.slow
@settings(max_examples=6)
@given(seed=seeds, repeats=st.booleans())
def test_no_allocation_has_a_bound_above_the_best_whole_one(seed, repeats):
    """Bounds of designs and of arbitrary allocations, against all whole allocations of a tiny pool."""
    pool = random_pool(seed, "yes", prompts=2, completions=3, ragged=False, copies=False)
    pairs = written_out(pool)[0]
    limits = {"total": 3, "per_pair": None if repeats else 1}
    choose = itertools.combinations_with_replacement if repeats else itertools.combinations
    values = []
    for chosen in choose(range(len(pairs)), 3):
        n = np.bincount(chosen, minlength=len(pairs))
        values.append(worst(pool, THREE, pairs[n > 0], n[n > 0]))
    criterion = WorstCase(THREE)
    for weights in (np.full(len(pairs), 0.5), even_allocation(pairs, 3.0, 1.0)):
        judged = evaluate(pool, criterion, Budget(**limits), pairs, weights, RIDGE).certificate
        assert judged.lower_bound <= min(values) * (1 + 1e-9)
    batch = select_pairs(pool, criterion, Budget(**limits), prior=RIDGE)
    assert batch.certificate.lower_bound <= min(values) * (1 + 1e-9)
    assert batch.certificate.value >= min(values) * (1 - 1e-9)
    assert batch.certificate.value <= 1.15 * min(values)


@pytest.mark.parametrize("scores", ["yes", pytest.param("draws", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_whole_labels_are_chosen_by_the_worst_case_itself(scores):
    pool, budget = random_pool(8, scores), Budget(12, per_pair=1)
    batch = select_pairs(pool, WorstCase(THREE), budget, prior=RIDGE)
    assert batch.certificate.value == pytest.approx(worst(pool, THREE, batch.pairs, batch.labels), rel=1e-9)
    told = batch.report
    assert batch.certificate.value == pytest.approx(min(one["value"] for one in told["candidates"].values()), rel=1e-12)
    assert told["binding"] and set(told["targets"]) == set(THREE)
    assert max(told["targets"].values()) == pytest.approx(batch.certificate.value, rel=1e-12)
    assert {"greedy", "greedy_logdet", "best_set"} <= set(told["candidates"])
    design = optimize(pool, WorstCase(THREE), budget, prior=RIDGE)
    same = select_pairs(pool, WorstCase(THREE), budget, prior=RIDGE, design=design)
    assert same.certificate.value <= batch.certificate.value * (1 + 5e-3)


def test_greedy_takes_first_order_gains():
    pool = random_pool(9)
    pairs, z, c = written_out(pool)
    picked, _ = jaxdesign.greedy(pool, WorstCase(THREE), size=5, prior=RIDGE)
    assert len({tuple(pair) for pair in np.asarray(picked).tolist()}) == 5
    G = np.asarray(WorstCase(THREE).gradient(RIDGE), np.float64)
    b = c[0] * np.einsum("sd,de,se->s", z, G, z)
    assert b[[tuple(p) for p in pairs.tolist()].index(tuple(np.asarray(picked)[0].tolist()))] >= b.max() * (1 - 1e-4)
