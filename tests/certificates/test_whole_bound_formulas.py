"""Bounds that count whole labels equal their formulas: Hadamard, von Neumann, lifted priors, sums of concave worths."""

from fractions import Fraction
from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxdesign as jd
from jaxdesign import Budget, CompletionPool, LogDet, Trace, select_pairs
from jaxdesign.certificates import whole
from jaxdesign.certificates.label_sums import largest_sum, log_increments
from jaxdesign.certificates.lifted_prior import lifted, no_lift
from jaxdesign.door import make_problem
from tests.support.problems import (
    random_spd,
    regression_pool,
    written_out,
)
from tests.support.whole_batches import (
    COMPLETIONS,
    COST,
    CRITERIA,
    DIM,
    PROMPTS,
    H,
    allowed,
    batches,
    bound_of,
    pool_of,
)


def leverages_of(pool, prior):
    _, z, c = written_out(pool)
    return c[0] * np.einsum("sd,de,se->s", z, np.linalg.inv(prior), z)


def test_log_det_is_hadamards_bound_where_the_prior_is_not_lifted(monkeypatch):
    monkeypatch.setattr(whole, "ROUNDS", 0)
    for seed in range(6):
        pool, prior = pool_of(seed), 0.1 * random_spd(seed, DIM) + 0.1 * np.eye(DIM)
        best = np.sort(leverages_of(pool, prior))[::-1]
        bound, _ = bound_of(pool, LogDet(), Budget(4, 1), prior)
        plain = -np.linalg.slogdet(prior)[1] - np.log1p(best[:4]).sum()
        assert plain - 1e-9 <= bound <= plain + 1e-12
        repeated, _ = bound_of(pool, LogDet(), Budget(4), prior)
        terms = np.sort(np.concatenate([np.log1p(best / (1 + n * best)) for n in range(4)]))[::-1]
        assert abs(repeated + np.linalg.slogdet(prior)[1] + terms[:4].sum()) < 1e-9


def test_lifting_the_prior_never_loosens_the_bound_and_often_tightens_it(monkeypatch):
    cases = [(pool_of(seed), Budget(4, 1)) for seed in range(6)]
    raised = np.array([bound_of(pool, LogDet(), budget, 0.01)[0] for pool, budget in cases])
    monkeypatch.setattr(whole, "ROUNDS", 0)
    plain = np.array([bound_of(pool, LogDet(), budget, 0.01)[0] for pool, budget in cases])
    assert (raised >= plain).all()
    assert (raised - plain)[1::2].min() > 2  # nats, where one direction lies in the best pairs of all prompts


def test_a_lift_is_at_least_the_prior_and_stationary():
    """One pair with all labels: B = max(P, T) leaves F at its minimum, where lifting and the pair's worth balance."""
    rng = np.random.default_rng(0)
    rows, pairs = rng.standard_normal((1, 8, 4)) * 5, np.stack([np.arange(8), np.zeros(8), np.ones(8)], 1).astype(int)
    limits = jd.budget.Limits(3.0, np.ones(8), np.full(8, np.inf))
    c = np.full((1, 8), 0.25)
    found = lifted(limits, pairs, rows, c, no_lift(1, 4))
    assert found.lift.spectrum.min() >= 1
    matrix = found.lift.matrix(np.eye(4)[None])[0]
    assert np.linalg.eigvalsh(matrix).min() >= 1 - 1e-12
    leverages = 0.25 * np.einsum("sd,de,se->s", rows[0], np.linalg.inv(matrix), rows[0])
    again = np.linalg.slogdet(matrix)[1] + np.log1p(np.sort(leverages)[::-1][:3]).sum()
    assert abs(found.value - again) < 1e-9
    start = np.log1p(0.25 * np.sort((rows[0] ** 2).sum(axis=1))[::-1][:3]).sum()
    assert found.value < start


def least_trace(h, budget):
    """min sum h / (1 + lambda) over lambda >= 0 with sum lambda = budget, by bisection of the multiplier."""
    low, high = 0.0, h.max()
    for _ in range(200):
        v = (low + high) / 2
        spent = np.maximum(np.sqrt(h / v) - 1, 0).sum()
        low, high = (v, high) if spent > budget else (low, v)
    return (h / (1 + np.maximum(np.sqrt(h / v) - 1, 0))).sum()


@pytest.mark.parametrize("target", ["Trace", "low rank"])
def test_trace_is_von_neumanns_bound(target):
    for seed in range(6):
        pool, prior = pool_of(seed), 0.1 * random_spd(seed, DIM) + 0.1 * np.eye(DIM)
        for total in (1, 3, 5):
            root = np.linalg.inv(np.linalg.cholesky(prior))
            h = np.sort(np.linalg.eigvalsh(root @ np.asarray(CRITERIA[target].H) @ root.T))[::-1]
            budget = np.sort(leverages_of(pool, prior))[::-1][:total].sum()
            bound, _ = bound_of(pool, CRITERIA[target], Budget(total, 1), prior)
            exact = h[total:].sum() + least_trace(np.maximum(h[:total], 1e-300), budget)
            np.testing.assert_allclose(bound, exact, rtol=1e-9, atol=1e-9)
            cauchy = h[total:].sum() + np.sqrt(np.maximum(h[:total], 0)).sum() ** 2 / (total + budget)
            assert bound >= cauchy - 1e-9
            assert bound <= exact + 1e-12 * abs(exact)


@pytest.mark.thorough
def test_repeats_leave_the_trace_the_rank_of_the_pairs():
    # three prompts of one pair each: 7 labels lie on 3 different pairs, which leave 5 of 8 dimensions untouched
    pool = regression_pool(np.eye(8)[:3])
    bound, _ = bound_of(pool, Trace(np.eye(8)), Budget(7), 1.0)
    assert bound >= 5
    c = written_out(pool)[2]
    best = min(5 + (1 / (1 + labels * c[0])).sum() for labels in batches(3, 7))
    assert bound <= best


def test_orthogonal_pairs_meet_the_bounds():
    """Equal leverages on orthogonal pairs: nothing is lost in Hadamard, von Neumann or Cauchy."""
    pool, prior = regression_pool(4 * np.eye(8)), 0.5
    leverage = 0.25 * 16 / 0.5
    bound, _ = bound_of(pool, LogDet(), Budget(3, 1), prior)
    np.testing.assert_allclose(bound, -8 * np.log(0.5) - 3 * np.log1p(leverage), rtol=1e-9)
    bound, _ = bound_of(pool, Trace(np.eye(8)), Budget(3, 1), prior)
    np.testing.assert_allclose(bound, 2 * (5 + 3 / (1 + leverage)), rtol=1e-9)


@pytest.mark.slow
def test_a_choice_of_orthogonal_pairs_is_certified_as_the_best():
    pool, prior = regression_pool(4 * np.eye(8)), 0.5
    for criterion in (LogDet(), Trace(np.eye(8))):
        batch = select_pairs(pool, criterion, Budget(3, 1), prior=prior)
        assert batch.certificate.efficiency > 1 - 1e-9
        assert batch.report["relaxed"]["lower_bound"] < batch.certificate.lower_bound - 0.1


@given(seed=st.integers(0, 10**6), total=st.integers(1, 5), cap=st.integers(1, 4), quota=st.integers(1, 4))
def test_the_largest_sum_of_concave_worths(seed, total, cap, quota):
    """Rows in order of their worth fill quotas exactly as an enumeration does, unlisted pairs or not."""
    rng = np.random.default_rng(seed)
    pairs = np.array([(p, i, 2) for p in range(3) for i in range(2)])
    leverages = np.exp(rng.uniform(-6, 6, 6))
    limits = jd.budget.Limits(float(total), np.full(3, float(cap)), np.full(3, float(quota)))
    labels = batches(6, total)
    spent = labels.reshape(-1, 3, 2).sum(axis=2)
    labels = labels[(labels.max(axis=1) <= cap) & (spent.max(axis=1) <= quota)]
    if not len(labels):
        return
    best = np.log1p(labels * leverages).sum(axis=1).max()
    once = limits._replace(per_pair=np.ones(3))
    for listed in (6, 3):
        order = np.argsort(-leverages)[:listed]
        floor = 0.0 if listed == 6 else leverages[np.argsort(-leverages)[listed]]
        rows = log_increments(np.full(listed, float(cap)), leverages[order], floor)
        np.testing.assert_allclose(np.diff(rows.worth)[np.diff(rows.of) == 0] < 0, True)
        found = largest_sum(once, np.full(3, 9.0), pairs[order][rows.of], rows.worth, np.log1p(floor)).value
        assert found >= best - 1e-12
        if listed == 6:
            np.testing.assert_allclose(found, best, rtol=1e-9)


def test_prices_tighten_the_sum_where_costs_bind():
    pool = pool_of(0)
    free, _ = bound_of(pool, Trace(H), Budget(3, 1), 1.0)
    p, i, j = written_out(pool)[0].T
    cheapest = np.sort(COST[p, i] + COST[p, j])[:3].sum()
    dear, _ = bound_of(pool, Trace(H), Budget(3, 1, cost=COST, cost_total=1.1 * cheapest), 1.0)
    assert dear > free + 1e-3


def test_prices_count_what_is_not_listed():
    """Half of the pairs listed, the others known by a floor and the cheapest costs: never below an enumeration."""
    pool = pool_of(0)
    pairs, _, _ = written_out(pool)
    labels = batches(len(pairs), 3)
    tight = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        cost = np.exp(1.5 * rng.standard_normal((PROMPTS, COMPLETIONS)))
        worth = np.exp(0.7 * rng.standard_normal(len(pairs)))
        order = np.argsort(-worth)
        half = order[:6]
        costs = cost[pairs[:, 0], pairs[:, 1]] + cost[pairs[:, 0], pairs[:, 2]]
        budget = Budget(3, 1, cost=cost, cost_total=np.sort(costs[half])[:3].sum() * rng.uniform(1, 1.5))
        limits = make_problem(pool, LogDet(), budget, 1.0).limits
        best = (labels[allowed(pairs, labels, budget)] @ worth).max()
        counts = np.full(PROMPTS, 3.0)
        found = largest_sum(limits, counts, pairs[half], worth[half], worth[order[6]]).value
        assert found >= best - 1e-9
        tight += found < np.sort(worth)[-3:].sum() * (1 - 1e-6)
    assert tight > 20


# ---- rounding


def test_a_matrix_below_the_prior_is_raised_until_it_is_not():
    pool, prior = pool_of(0), 0.1 * random_spd(0, DIM) + 0.1 * np.eye(DIM)
    problem = make_problem(pool, LogDet(), Budget(3, 1), prior)
    found = whole._listing(problem, problem.limits, 1, 0.95 * problem.prior)
    np.testing.assert_allclose(found.log_det, np.linalg.slogdet(prior)[1], rtol=0, atol=1e-9)
    assert whole._listing(problem, problem.limits, 1, 0.5 * problem.prior) is None
    above = whole._listing(problem, problem.limits, 1, 3 * problem.prior)
    np.testing.assert_allclose(above.log_det, np.linalg.slogdet(3 * prior)[1], rtol=0, atol=1e-9)


def determinant(rows):
    """Exactly, of a list of lists of Fractions."""
    rows, product = [list(row) for row in rows], Fraction(1)
    for k in range(len(rows)):
        pivot = next((r for r in range(k, len(rows)) if rows[r][k] != 0), None)
        if pivot is None:
            return Fraction(0)
        if pivot != k:
            rows[k], rows[pivot], product = rows[pivot], rows[k], -product
        product *= rows[k][k]
        for r in range(k + 1, len(rows)):
            factor = rows[r][k] / rows[k][k]
            rows[r] = [a - factor * b for a, b in zip(rows[r], rows[k], strict=True)]
    return product


def log_of(fraction):
    shift = fraction.numerator.bit_length() - fraction.denominator.bit_length()
    return float(np.log(float(fraction / Fraction(2) ** shift)) + shift * np.log(2))


@pytest.mark.parametrize("ridge", [2.0**-10, 2.0**-30, 2.0**-40, 2.0**-46])
def test_an_ill_conditioned_prior_counts_its_rounding(ridge):
    """Prior of integers of rank 3 and a tiny ridge, pairs inside and outside of its range; exact rational values."""
    found = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        held = rng.integers(-3, 4, (3, DIM))
        prior = (held.T @ held).astype(float) + ridge * np.eye(DIM)
        features = rng.integers(-3, 4, (PROMPTS, COMPLETIONS, DIM)).astype(np.float32)
        features[:2] = (rng.integers(-2, 3, (2, COMPLETIONS, 3)) @ held).astype(np.float32)
        pool = CompletionPool(features)
        _, z, _ = written_out(pool)
        outer = [[[Fraction(int(a * b), 4) for b in row] for a in row] for row in z]
        exact = [[Fraction(float(v)) for v in row] for row in prior]
        best = min(
            -log_of(
                determinant([[exact[a][b] + outer[i][a][b] + outer[j][a][b] for b in range(DIM)] for a in range(DIM)])
            )
            for i, j in combinations(range(len(z)), 2)
        )
        bound, _ = bound_of(pool, LogDet(), Budget(2, 1), prior)
        assert bound <= best
        found += bound > best - 30
    assert found >= 5 or ridge <= 2.0**-40  # there, -inf is the only honest answer


def test_without_a_regular_prior_there_is_no_such_bound():
    pool = pool_of(0)
    for prior in (None, np.diag([1.0, 1, 1, 0, 0, 0])):
        for criterion in CRITERIA.values():
            assert bound_of(pool, criterion, Budget(4), prior)[0] == -np.inf
    assert bound_of(pool, jd.Criterion(lambda A: jnp.trace(jnp.linalg.inv(A))), Budget(4), 1.0)[0] == -np.inf
    assert bound_of(pool, LogDet(), Budget(DIM), 1.0)[0] == -np.inf
