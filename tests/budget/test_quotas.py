"""Quotas and costs are checked; the uniform floor, information held, and other selectors under coupled budgets."""

import numpy as np
import pytest

import jaxdesign
from jaxdesign import Budget, LogDet, Quota, held_information, select_pairs, with_uniform_floor
from jaxdesign.baselines import SELECTORS
from jaxdesign.exact.random_pairs import random_pairs
from tests.support.coupled import DOMAIN, LANGUAGE, coupled_case, obeys
from tests.support.problems import DIM, information_of, random_pool, written_out

PRIOR = 0.2 * np.eye(DIM)
ONES = np.ones((6, 5))

BAD = {
    "nothing limited": (lambda: Quota(DOMAIN), ValueError, ["neither at_least nor at_most"]),
    "a group nobody is in": (lambda: Quota(DOMAIN, {"law": 1.0}), ValueError, ["'law'", "'chat', 'code', 'math'"]),
    "crossed limits": (lambda: Quota(DOMAIN, 3.0, {"math": 2.0}), ValueError, ["math", "at_least=3", "at_most=2"]),
    "a negative limit": (lambda: Quota(DOMAIN, None, {"math": -1.0}), ValueError, ["-1", "'math'", "at least 0"]),
    "names on two axes": (lambda: Quota(ONES, 1.0), ValueError, ["(6, 5)", "(P,)"]),
    "a missing name": (lambda: Quota([0.0, np.nan], 1.0), ValueError, ["quota.of", "float64", "all integers"]),
    "lists for names": (lambda: Quota([0, [1]], 1.0), ValueError, ["quota.of", "one name per prompt"]),
    "words for numbers": (lambda: Quota(DOMAIN, "many"), TypeError, ["at_least", "'many'"]),
    "no quota": (lambda: Budget(5, quotas=[3]), TypeError, ["budget.quotas", "int"]),
    "another number of prompts": (
        lambda: jaxdesign.optimize(random_pool(1), LogDet(), Budget(5, quotas=Quota(DOMAIN[:4], 1.0))),
        ValueError,
        ["(4,)", "(6,)"],
    ),
    "no whole number between": (
        lambda: select_pairs(random_pool(1), LogDet(), Budget(5, quotas=Quota(DOMAIN, 1.2, {"math": 1.8})), prior=1.0),
        ValueError,
        ["no whole number", "'math'"],
    ),
    "a cost without a limit": (lambda: Budget(5, cost=ONES), ValueError, ["budget.cost_total", "missing"]),
    "a limit without a cost": (
        lambda: jaxdesign.optimize(random_pool(1), LogDet(), Budget(5, cost_total=3.0)),
        ValueError,
        ["cost_total=3", "cost nothing"],
    ),
    "a cost of another shape": (
        lambda: jaxdesign.optimize(random_pool(1), LogDet(), Budget(5, cost=np.ones(6), cost_total=3.0)),
        ValueError,
        ["budget.cost", "(6,)", "(6, 5)"],
    ),
    "a negative cost": (
        lambda: jaxdesign.optimize(random_pool(1), LogDet(), Budget(5, cost=-ONES, cost_total=3.0)),
        ValueError,
        ["budget.cost", "-1.0", "prompt 0"],
    ),
    "a negative constant": (
        lambda: Budget(5, cost_per_label=-1.0, cost_total=3.0),
        ValueError,
        ["cost_per_label=-1", "at least 0"],
    ),
    "a minimum of NaN": (lambda: Budget(5, per_prompt_min=np.nan), ValueError, ["per_prompt_min=nan"]),
    "half a task": (lambda: Budget(5, labels_per_task=1.5), TypeError, ["labels_per_task", "float"]),
    "a share of one": (lambda: with_uniform_floor(random_pool(1), Budget(5), 1.0), ValueError, ["share=1"]),
    "labels held of another length": (
        lambda: held_information(random_pool(1), [(0, 1, 2)], [1.0, 2.0]),
        ValueError,
        ["labels", "(2,)", "(1,)"],
    ),
    "labels held below zero": (
        lambda: held_information(random_pool(1), [(0, 1, 2)], [-1.0]),
        ValueError,
        ["labels", "-1", "row 0"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, kind, words = BAD[name]
    with pytest.raises(kind) as error:
        call()
    missing = [word for word in words if word not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"


def test_costs_of_completions_that_do_not_exist_may_be_anything():
    pool = random_pool(1)
    cost = np.where(np.asarray(pool.mask), 1.0, np.nan)
    design = jaxdesign.optimize(pool, LogDet(), Budget(5, cost=cost, cost_total=11.0), prior=PRIOR)
    assert design.labels.sum() == pytest.approx(5)


@pytest.mark.parametrize("scores", ["no", "yes", "draws"])
@pytest.mark.parametrize("flip", [None, "pair"])
def test_information_held_is_summed_pair_by_pair(scores, flip):
    pool = random_pool(3, scores, flip)
    pairs, z, c = written_out(pool)
    labels = np.random.default_rng(0).integers(0, 3, len(pairs)).astype(float)
    found = held_information(pool, pairs, labels)
    expected = information_of(z, c, labels)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected if scores == "draws" else expected[0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(held_information(pool, pairs), held_information(pool, pairs, np.ones(len(pairs))))


@pytest.mark.thorough
@pytest.mark.parametrize("coupled", [False, True])
def test_the_uniform_floor_is_drawn_and_kept(coupled):
    pool = random_pool(4, "no")
    more = {"quotas": Quota(DOMAIN, at_most=8), "cost": ONES, "cost_total": 44.0} if coupled else {"per_prompt": 6}
    budget = with_uniform_floor(pool, Budget(20, 1, **more), 0.3, seed=5)
    assert len(budget.required) == 6
    again = with_uniform_floor(pool, Budget(20, 1, **more), 0.3, seed=5)
    np.testing.assert_array_equal(budget.required, again.required)
    other = with_uniform_floor(pool, Budget(20, 1, **more), 0.3, seed=6)
    assert set(map(tuple, budget.required.tolist())) != set(map(tuple, other.required.tolist()))
    batch = select_pairs(pool, LogDet(), budget, prior=PRIOR)
    assert batch.labels.sum() == 20 and (batch.labels == 1).all()
    assert set(map(tuple, budget.required.tolist())) <= set(map(tuple, batch.pairs.tolist()))
    free = select_pairs(pool, LogDet(), Budget(20, 1, **more), prior=PRIOR)
    assert free.certificate.lower_bound <= batch.certificate.value  # the floor only takes freedom away


def test_the_floor_is_drawn_evenly():
    pool, counts = random_pool(4, "no", ragged=False, copies=False), np.zeros((6, 5, 5))
    for seed in range(300):
        pairs = with_uniform_floor(pool, Budget(30, 1), 0.2, seed=seed).required
        counts[tuple(pairs.T)] += 1
    found = counts[counts > 0]
    assert len(found) == 60 and counts.sum() == 300 * 6
    assert abs(found - 30).max() <= 5 * np.sqrt(30 * (1 - 6 / 60))


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_other_selectors_obey_coupled_budgets_or_say_that_they_cannot(name):
    case = coupled_case(3)
    case = case._replace(pool=random_pool(3, "yes"))  # the same features, and margins, which some rules need
    if name in ("adpo", "bait"):
        with pytest.raises(ValueError, match=f"baselines.{name} labels pair by pair"):
            SELECTORS[name](case.pool, LogDet(), case.budget, prior=PRIOR)
        return
    design = SELECTORS[name](case.pool, LogDet(), case.budget, prior=PRIOR)
    assert (design.labels == np.rint(design.labels)).all()
    assert obeys(case.budget, design.pairs, design.labels, 1e-9)
    best = jaxdesign.optimize(case.pool, LogDet(), case.budget, prior=PRIOR)
    assert design.certificate.value >= best.certificate.lower_bound - 1e-6


@pytest.mark.parametrize(  # adpo and bait compile loops of picks
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ("adpo", "bait") else []) for name in sorted(SELECTORS)],
)
def test_other_selectors_leave_decided_pairs_as_they_are(name):
    pool, required = random_pool(3), [(0, 0, 2), (4, 1, 3)]
    budget = Budget(12, 1, required=required, exclude=[(5, 1, 2), (0, 2, 4)])
    design = SELECTORS[name](pool, LogDet(), budget, prior=PRIOR)
    chosen = set(map(tuple, design.pairs.tolist()))
    assert design.labels.sum() == 12 and set(required) <= chosen
    assert not chosen & {(5, 1, 2), (0, 2, 4)}


def test_random_pairs_are_random_under_coupled_budgets_too():
    pool = random_pool(4, "no")
    budget = Budget(10, 1, quotas=[Quota(DOMAIN, {"chat": 3.0}), Quota(LANGUAGE, None, {0: 5.0})])
    drawn = [random_pairs(pool, budget, seed) for seed in range(5)]
    assert all(obeys(budget, *one) for one in drawn)
    assert len({tuple(map(tuple, pairs.tolist())) for pairs, _ in drawn}) == 5
