"""Quotas of groups, minima, spend limits: obeyed, certified by linear programmes and cvxpy, exact by enumeration."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import jaxdesign
from jaxdesign import Budget, CompletionPool, LogDet, Quota, Status, Trace, select_pairs
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import analyse, information
from jaxdesign.certificates.allowed import canonical_allocation
from jaxdesign.certificates.coupled import certify_coupled
from jaxdesign.door import make_problem
from tests.support.coupled import DOMAIN, LANGUAGE, TOTAL, costs_of, coupled_case, obeys, rows_of
from tests.support.problems import (
    DIM,
    criterion_of,
    gradients_of,
    information_of,
    random_arrays,
    random_pool,
    random_spd,
    sensitivities_of,
    written_out,
)

TARGET = random_spd(2)
PRIOR = 0.2 * np.eye(DIM)
seeds = st.integers(0, 10_000)
caps = st.sampled_from([1, None])


def largest(budget, pairs, gains):
    """max of gains @ n over allowed n, by a linear programme over all pairs that is written out here."""
    rows, low, high = rows_of(budget, pairs)
    found = linprog(
        -gains,
        A_ub=np.concatenate([rows[1:], -rows[1:]])[np.isfinite(np.concatenate([high[1:], -low[1:]]))],
        b_ub=np.concatenate([high[1:], -low[1:]])[np.isfinite(np.concatenate([high[1:], -low[1:]]))],
        A_eq=rows[:1],
        b_eq=low[:1],
        bounds=(0, budget.per_pair),
    )
    assert found.status == 0
    return -found.fun


@pytest.mark.thorough
@given(seeds, caps, st.booleans())
def test_the_oracle_is_the_linear_programme_over_all_pairs(seed, per_pair, priced):
    case = coupled_case(seed, per_pair, priced)
    problem = make_problem(case.pool, LogDet(), case.budget, PRIOR)
    pairs, labels = canonical_allocation(problem, case.pairs, case.labels)
    matrix = information(problem, Allocation(pairs, labels))
    priced_pool = certify_coupled(problem, matrix, analyse(problem, matrix), Allocation(pairs, labels))
    every, z, c = written_out(case.pool)
    b = sensitivities_of(z, c, gradients_of(matrix))
    truth = largest(case.budget, every, b)
    assert truth * (1 - 1e-7) <= priced_pool.oracle.value
    gap = truth - b @ information_labels(every, pairs, labels)
    assert priced_pool.oracle.value <= truth + 0.12 * gap + 1e-6 * truth
    assert obeys(case.budget, priced_pool.pairs, priced_pool.oracle.labels)


def information_labels(every, pairs, labels):
    index = {tuple(pair): k for k, pair in enumerate(every.tolist())}
    dense = np.zeros(len(every))
    dense[[index[tuple(pair)] for pair in pairs.tolist()]] = labels
    return dense


@pytest.mark.thorough
@settings(max_examples=12)
@given(seeds, caps, st.booleans(), st.booleans())
def test_designs_obey_the_budget_and_equal_the_reference(seed, per_pair, priced, traced):
    case, criterion = coupled_case(seed, per_pair, priced), Trace(TARGET) if traced else LogDet()
    design = jaxdesign.optimize(case.pool, criterion, case.budget, prior=PRIOR, tol=1e-4)
    assert design.status is Status.CERTIFIED
    assert design.labels.sum() == pytest.approx(TOTAL, rel=1e-9)
    assert obeys(case.budget, design.pairs, design.labels)
    reference = jaxdesign.reference.optimize(case.pool, criterion, case.budget, prior=PRIOR)
    allowance = 1e-4 * (DIM if not traced else reference.certificate.value)
    assert design.certificate.value <= reference.certificate.value + 1.2 * allowance
    assert design.certificate.lower_bound <= reference.certificate.value + 1e-7 * abs(reference.certificate.value)
    evaluated = jaxdesign.evaluate(case.pool, criterion, case.budget, design.pairs, design.labels, prior=PRIOR)
    assert evaluated.certificate.value == pytest.approx(design.certificate.value, rel=1e-9)


@pytest.mark.slow
@settings(max_examples=12)
@given(seeds, caps, st.booleans())
def test_whole_labels_obey_the_budget(seed, per_pair, priced):
    case = coupled_case(seed, per_pair, priced)
    batch = select_pairs(case.pool, LogDet(), case.budget, prior=PRIOR)
    assert batch.status is Status.EXACT and (batch.labels == np.rint(batch.labels)).all()
    assert batch.labels.sum() == TOTAL
    assert obeys(case.budget, batch.pairs, batch.labels, 1e-9)
    every, z, c = written_out(case.pool)
    value = criterion_of(information_of(z, c, information_labels(every, batch.pairs, batch.labels), PRIOR))
    assert batch.certificate.value == pytest.approx(value, rel=1e-6)
    # the labels that the limits were drawn around are allowed too
    rival = criterion_of(information_of(z, c, information_labels(every, case.pairs, case.labels), PRIOR))
    assert value <= rival + 1e-9 and batch.certificate.lower_bound <= rival


@pytest.mark.parametrize(
    "traced", [pytest.param(False, id="LogDet"), pytest.param(True, id="Trace", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_enumeration_finds_nothing_below_the_bound(traced):
    H, found = TARGET if traced else None, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        features, _, _ = random_arrays(seed, 3, 3, ragged=False, copies=False)
        pool, cost = CompletionPool(features), rng.gamma(3, 1, (3, 3))
        pairs, z, c = written_out(pool)
        quotas = [Quota(["a", "b", "a"], {"a": 2.0}, name="one"), Quota([0, 0, 1], None, {0: 3.0}, name="two")]
        free = Budget(4, 1, cost=cost, cost_total=1e3, quotas=quotas)
        paid = np.array([costs_of(free, pairs[list(chosen)]).sum() for chosen in combinations(range(9), 4)])
        budget = Budget(4, 1, cost=cost, cost_total=float(np.quantile(paid, 0.4)), quotas=quotas)
        values = []
        for chosen in combinations(range(9), 4):
            labels = np.zeros(9)
            labels[list(chosen)] = 1
            if (
                all(sum(labels[np.isin(pairs[:, 0], of)]) <= most for of, most in (([0, 1], 3), ([1], 2)))
                and labels @ costs_of(budget, pairs) <= budget.cost_total
            ):
                values.append(criterion_of(information_of(z, c, labels, PRIOR), H))
        if not values:
            continue
        batch = select_pairs(pool, Trace(H) if traced else LogDet(), budget, prior=PRIOR, tol=1e-6)
        best = min(values)
        assert batch.certificate.value >= best - 1e-7 * abs(best)
        assert batch.certificate.lower_bound <= best + 1e-9 * abs(best)
        found += batch.certificate.value <= best + 1e-6 * abs(best)
    assert found >= 11


def test_limits_are_tight_where_they_bind():
    pool = random_pool(3, "no")
    free = jaxdesign.optimize(pool, LogDet(), Budget(TOTAL, 1), prior=PRIOR)
    spent = np.bincount(free.pairs[:, 0], free.labels, 6)
    held = {name: spent[DOMAIN == name].sum() for name in np.unique(DOMAIN).tolist()}
    group = max(held, key=held.get)
    bound = Budget(TOTAL, 1, quotas=Quota(DOMAIN, None, {group: held[group] / 2}))
    design = jaxdesign.optimize(pool, LogDet(), bound, prior=PRIOR)
    found = np.bincount(design.pairs[:, 0], design.labels, 6)[DOMAIN == group].sum()
    assert found == pytest.approx(held[group] / 2, rel=1e-6)
    cost = np.random.default_rng(0).gamma(3, 1, (6, 5))
    paid = free.labels @ costs_of(Budget(TOTAL, cost=cost, cost_total=1.0), free.pairs)
    design = jaxdesign.optimize(pool, LogDet(), Budget(TOTAL, 1, cost=cost, cost_total=0.8 * paid), prior=PRIOR)
    assert design.labels @ costs_of(Budget(TOTAL, cost=cost, cost_total=1.0), design.pairs) == pytest.approx(0.8 * paid)


def test_a_quota_over_everything_changes_nothing():
    pool = random_pool(5)
    plain = jaxdesign.optimize(pool, LogDet(), Budget(TOTAL, 1), prior=PRIOR, tol=1e-6)
    idle = Quota(np.zeros(6, int), at_most=TOTAL)
    coupled = jaxdesign.optimize(pool, LogDet(), Budget(TOTAL, 1, quotas=idle), prior=PRIOR, tol=1e-6)
    assert coupled.certificate.value == pytest.approx(plain.certificate.value, abs=1e-5)


IMPOSSIBLE = {
    "a group that its prompts cannot hold": (
        {"per_pair": 1, "quotas": Quota(DOMAIN, {"math": 25.0}, name="domain")},
        ["domain math", "at_least=25", "at most 19"],
    ),
    "minima that the total cannot pay": ({"per_prompt_min": [3, 1, 0, 3, 3, 3]}, ["budget.total=12", "from 13"]),
    "a minimum where there are no pairs": ({"per_prompt_min": 1}, ["per_prompt_min", "prompt 2", "at most 0"]),
    "quotas that leave too little": (
        {"quotas": Quota(DOMAIN, None, 3.0, name="domain")},
        ["budget.total=12", "domain", "to 9"],
    ),
    "crossing quotas": (
        {
            "per_pair": 1,
            "quotas": [
                Quota(DOMAIN, {"code": 11.0}, name="domain"),
                Quota(LANGUAGE, None, {0: 0.5, 1: 12.0}, name="language"),
            ],
        },
        ["domain and language", "relax"],
    ),
    "a spend limit": ({"cost": np.ones((6, 5)), "cost_total": 20.0}, ["cost_total=20", "cost 24", "at most 10"]),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_met_is_named_with_how_far_it_can_go(name):
    limits, words = IMPOSSIBLE[name]
    for solve in (jaxdesign.optimize, select_pairs):
        with pytest.raises(ValueError) as error:
            solve(random_pool(1, "no"), LogDet(), Budget(TOTAL, **limits), prior=PRIOR)
        missing = [word for word in words if word not in str(error.value)]
        assert not missing, f"{missing} not in: {error.value}"


def test_other_solvers_refuse():
    case = coupled_case(0)
    with pytest.raises(ValueError, match="solver='column_generation': knows caps"):
        jaxdesign.optimize(case.pool, LogDet(), case.budget, prior=PRIOR, solver="column_generation")


def test_a_violation_is_named():
    case = coupled_case(1)
    spent = np.bincount(case.pairs[:, 0], case.labels, 6)
    held = {name: spent[DOMAIN == name].sum() for name in np.unique(DOMAIN).tolist()}
    group, cost = max(held, key=held.get), np.ones((6, 5))
    cost[case.pairs[:, 0], case.pairs[:, 1]] = 2.0
    paid = case.labels @ costs_of(Budget(TOTAL, cost=cost, cost_total=1.0), case.pairs)
    prompt = int(np.argmin(np.where(np.isin(np.arange(6), [0, 3, 4, 5]), spent, 99)))
    for limits, words in (
        ({"quotas": Quota(DOMAIN, None, {group: held[group] - 1}, "domain")}, f"domain {group} has {held[group]:g}"),
        ({"quotas": Quota(DOMAIN, {"chat": held["chat"] + 1}, None, "domain")}, "below its at_least"),
        ({"cost": cost, "cost_total": paid - 1}, f"they cost {paid:g}, above budget.cost_total={paid - 1:g}"),
        ({"per_prompt_min": spent + np.eye(6)[prompt]}, f"prompt {prompt} has {spent[prompt]:g} labels, below"),
    ):
        total = TOTAL + 1 if "per_prompt_min" in limits else TOTAL
        labels = case.labels + (total - TOTAL) * (np.arange(len(case.labels)) == np.argmax(case.pairs[:, 0] != prompt))
        with pytest.raises(ValueError) as error:
            jaxdesign.evaluate(case.pool, LogDet(), Budget(total, **limits), case.pairs, labels, prior=PRIOR)
        assert words in str(error.value)
