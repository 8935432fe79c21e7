"""Bounds that count whole labels: below every whole batch there is, and told in words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign as jd
from bench.pools import real_pool
from jaxdesign import Annotators, Budget, CompletionPool, LogDet, Quota, Trace, select_pairs
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import analyse, information
from jaxdesign.annotators import repeated_budget
from tests.support.annotated import repeated_pool
from tests.support.problems import (
    fisher_information,
    random_spd,
    written_out,
)
from tests.support.whole_batches import (
    COST,
    CRITERIA,
    DIM,
    DRAWN_H,
    GROUP,
    batches,
    bound_of,
    check_below,
    pool_of,
    values,
)

BUDGETS = {
    "repeats": {},
    "one a pair": {"per_pair": 1},
    "two a pair": {"per_pair": 2},
    "a quota": {"per_prompt": 1},
    "quotas": {"per_pair": 1, "per_prompt": np.array([2, 1, 1, 2])},
    "minima": {"per_pair": 2, "per_prompt_min": np.array([1, 0, 1, 0])},
    "groups": {"quotas": [Quota(GROUP, {"a": 1}, {"b": 2})]},
    "costs": {"per_pair": 1, "cost": COST, "cost_total": 6.0},
    "costs, repeats": {"cost": COST, "cost_total": 5.0},
}


@pytest.mark.thorough
@pytest.mark.parametrize("limits", BUDGETS)
@pytest.mark.parametrize("name", CRITERIA)
def test_no_whole_batch_is_below_the_bound(name, limits):
    for seed, ridge in enumerate((1e-4, 0.05, 20.0)):
        check_below(CRITERIA[name], pool_of(seed), Budget(3, **BUDGETS[limits]), ridge)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    name=st.sampled_from(sorted(CRITERIA)),
    limits=st.sampled_from(sorted(BUDGETS)),
    total=st.integers(2, 4),
    exponent=st.floats(-6, 3),
    scales=st.floats(0, 3),
    full=st.booleans(),
)
def test_any_pool_and_any_prior(seed, name, limits, total, exponent, scales, full):
    prior = 10**exponent * (random_spd(seed, DIM) + 1e-4 * np.eye(DIM) if full else np.eye(DIM))
    try:
        check_below(CRITERIA[name], pool_of(seed, scales=scales), Budget(total, **BUDGETS[limits]), prior)
    except ValueError as error:
        assert "budget" in str(error)  # what two or four labels cannot meet


DAILY = [("no", None), ("yes", "prompt"), ("draws", "pair")]


@pytest.mark.parametrize(
    ("scores", "flip"),
    [
        pytest.param(scores, flip, marks=[] if (scores, flip) in DAILY else pytest.mark.slow)
        for scores in ("no", "yes", "draws")
        for flip in (None, "prompt", "pair")
    ],
)
def test_scores_draws_and_noise(scores, flip):
    for seed in range(2):
        for criterion in (*CRITERIA.values(), *([Trace(DRAWN_H)] if scores == "draws" else [])):
            check_below(criterion, pool_of(seed, scores, flip), Budget(3, 1 + seed % 2), 0.01)


def test_required_pairs_are_part_of_the_prior():
    pool, required = pool_of(1), np.array([[0, 0, 1], [2, 1, 2]])
    pairs, z, c = written_out(pool)
    held = np.array([(pairs == row).all(axis=1) for row in required]).any(axis=0)
    for name, criterion in CRITERIA.items():
        bound, _ = bound_of(pool, criterion, Budget(5, required=required), 0.01)
        labels = batches(len(pairs), 3)
        labels = labels[labels[:, held].sum(axis=1) == 0] + held
        best = values(criterion, z, c, labels, 0.01 * np.eye(DIM)).min()
        assert bound <= best + 1e-9 * abs(best), name


@pytest.mark.parametrize("size", [2, 3])
def test_labels_come_in_tasks(size):
    for seed in range(4):
        pool = pool_of(seed)
        _, z, c = written_out(pool)
        for criterion in CRITERIA.values():
            bound, _ = bound_of(pool, criterion, Budget(3 * size, labels_per_task=size), 0.01, size)
            best = values(criterion, z, c, size * batches(len(z), 3), 0.01 * np.eye(DIM)).min()
            assert bound <= best + 1e-9 * abs(best)


PEOPLE, THREE_PAID = Annotators([0.0, 0.2], cost=[2.0, 1.0], at_most=[2, 3]), Budget(3, 1, cost_total=5.0)


def every_annotators(pool, budget):
    return repeated_budget(budget, np.asarray(pool.mask), PEOPLE)


def test_annotators_who_differ_in_noise_and_cost():
    for seed in range(3):
        pool = pool_of(seed)
        pairs, z, _ = written_out(pool)
        c = np.repeat([fisher_information(0.0, flip) for flip in (0.0, 0.2)], len(pairs))[None]
        labels = batches(2 * len(pairs), 3)
        first = labels[:, : len(pairs)].sum(axis=1)
        good = (labels.max(axis=1) <= 1) & (first <= 2) & (2 * first + (3 - first) <= 5)
        for criterion in CRITERIA.values():
            wide = (
                repeated_pool(pool, PEOPLE.flip),
                criterion,
                repeated_budget(THREE_PAID, np.asarray(pool.mask), PEOPLE),
            )
            best = values(criterion, np.concatenate([z, z]), c, labels[good], 0.01 * np.eye(DIM)).min()
            bound, _ = bound_of(*wide, 0.01)
            assert bound <= best + 1e-9 * abs(best)


@pytest.mark.slow
def test_labels_of_annotators_are_certified_by_the_bound():
    pool = pool_of(2)
    batch = select_pairs(pool, LogDet(), THREE_PAID, prior=0.01, annotators=PEOPLE)
    whole, _ = bound_of(
        repeated_pool(pool, PEOPLE.flip), LogDet(), repeated_budget(THREE_PAID, np.asarray(pool.mask), PEOPLE), 0.01
    )
    assert batch.report["whole_bound"] == whole and batch.certificate.lower_bound >= whole - 1e-12


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "LogDet" else pytest.mark.slow) for name in CRITERIA]
)
@pytest.mark.slow
def test_select_pairs_takes_the_better_bound_and_says_which(name):
    pool, criterion = pool_of(1), CRITERIA[name]
    batch = select_pairs(pool, criterion, Budget(3, 1), prior=1e-3)
    _, best = check_below(criterion, pool, Budget(3, 1), 1e-3)
    relaxed, whole = batch.report["relaxed"]["lower_bound"], batch.report["whole_bound"]
    proven = min(max(relaxed, whole), batch.certificate.value)
    assert batch.certificate.lower_bound <= proven  # less what rounding does to the value
    assert batch.certificate.lower_bound == pytest.approx(proven, rel=1e-8)
    assert batch.certificate.lower_bound <= best + 1e-9 * abs(best)
    words = "on at most 3 pairs they leave at least 3 of 6 dimensions" if whole > relaxed else "fractions of labels"
    assert words in batch.report["bound"]
    if name in ("LogDet", "Trace"):
        assert whole > relaxed
    # a real-valued allocation may go below it: `evaluate` and `optimize` do not use it
    again = jd.evaluate(pool, criterion, Budget(3, 1), batch.pairs, batch.labels, 1e-3)
    assert again.certificate.lower_bound <= relaxed + 1e-3 * abs(relaxed)


@pytest.mark.slow
def test_with_enough_labels_the_bound_counts_fractions():
    batch = select_pairs(pool_of(0), LogDet(), Budget(20), prior=0.1)
    assert batch.report["whole_bound"] is None and "fractions of labels" in batch.report["bound"]
    proven = min(batch.report["relaxed"]["lower_bound"], batch.certificate.value)
    assert batch.certificate.lower_bound == pytest.approx(proven, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "log_det"), [("alpacaeval", 0.86), ("wmt21_ted_zhen", 0.9), ("pandalm", 0.96)])
def test_half_a_label_a_dimension_on_real_pools(name, log_det):
    """Proven at 0.02 (LogDet) and 0.0005 (Trace) by the bound on fractions of labels."""
    found = real_pool(name)
    if found.features is None:
        pytest.skip(found.reason)
    pool, _ = jd.restrict_to_range(CompletionPool(found.features, mask=found.mask))
    moment = np.asarray(jd.second_moment(pool))
    prior = 1e-3 * 190 / 4 * moment
    start = jd.baselines.adpo(pool, LogDet(), Budget(190, 1), prior=prior)
    for criterion, least in ((LogDet(), log_det), (Trace(moment), 0.9999)):
        bound, problem = bound_of(pool, criterion, Budget(190, 1), prior)
        matrix = information(problem, Allocation(start.pairs, start.labels))
        value = analyse(problem, matrix).value
        assert bound < value and criterion.efficiency(value, bound, pool.dim) >= least
