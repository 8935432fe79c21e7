"""Bounds that count whole labels: below every whole batch there is, equal to their formulas, told in words."""

from fractions import Fraction
from itertools import combinations, combinations_with_replacement

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign as jd
from bench.pools import real_pool
from jaxdesign import Annotators, Budget, CompletionPool, LogDet, Quota, Trace, WorstCase, select_pairs
from jaxdesign.analysis import analyse, information
from jaxdesign.annotators import repeated_budget, repeated_pool
from jaxdesign.budget.budget import whole_budget
from jaxdesign.certificates import whole
from jaxdesign.certificates.label_sums import largest_sum, log_increments
from jaxdesign.certificates.lifted_prior import lifted, no_lift
from jaxdesign.certificates.worst_case import with_mixture
from jaxdesign.door import make_problem
from jaxdesign.exact.choices import in_tasks
from tests.support.problems import (
    fisher_information,
    random_arrays,
    random_flips,
    random_spd,
    regression_pool,
    written_out,
)

PROMPTS, COMPLETIONS, DIM = 4, 3, 6  # 12 pairs in 6 dimensions
GROUP = np.array(["a", "b", "a", "b"])
H = random_spd(3, DIM)
DRAWN_H = np.stack([random_spd(3 + k, DIM) for k in range(3)])
CRITERIA = {
    "LogDet": LogDet(),
    "Trace": Trace(H),
    "low rank": Trace(random_spd(4, DIM, 2)),
    "worst case": WorstCase([H, random_spd(5, DIM)]),
}
COST = np.random.default_rng(0).gamma(2, 1, (PROMPTS, COMPLETIONS))


def pool_of(seed, scores="no", flip=None, scales=0.0):
    """Pairs in as many directions as there are, of lengths that differ by e^scales or so, and nearly parallel ones."""
    features, u, mask = random_arrays(
        seed, PROMPTS, COMPLETIONS, DIM, 3 if scores == "draws" else None, ragged=False, copies=False
    )
    rng = np.random.default_rng([seed, 3])
    features = features * np.exp(scales * rng.standard_normal((PROMPTS, COMPLETIONS, 1)))
    if seed % 2:  # one completion of every prompt far away in the same direction: few directions, large leverages
        features[:, 0] += 20 * np.eye(DIM)[0]
    flips = random_flips(seed, mask, flip)
    return CompletionPool(features.astype(np.float32), None if scores == "no" else u, mask, flip=flips)


def bound_of(pool, criterion, budget, prior, size=1):
    """The bound as `select_pairs` takes it, and the problem."""
    problem = make_problem(pool, criterion, whole_budget(budget), prior)
    if isinstance(criterion, WorstCase):
        problem = with_mixture(problem, np.ones(len(criterion.names)))
    return whole.whole_bound(problem, in_tasks(problem, size).limits, size), problem


def batches(count, total):
    """Labels of every whole batch, (N, count)."""
    ways = np.array(list(combinations_with_replacement(range(count), total)))
    return np.stack([np.sum(ways == k, axis=1) for k in range(count)], axis=1)


def values(criterion, z, c, labels, prior):
    """The criterion of many batches in plain NumPy, (N,)."""
    outer = np.einsum("rs,sd,se->rsde", c, z, z)
    matrices = prior + np.einsum("ns,rsde->nrde", labels, outer)
    if isinstance(criterion, LogDet):
        return -np.linalg.slogdet(matrices)[1].mean(axis=1)
    if isinstance(criterion, WorstCase):
        targets = [np.einsum("de,nred->n", T, np.linalg.inv(matrices)) / len(c) for T in np.asarray(criterion.H)]
        return np.max(targets, axis=0)
    target = np.broadcast_to(np.asarray(criterion.H), (len(c), DIM, DIM))
    return np.einsum("rde,nred->n", target, np.linalg.inv(matrices)) / len(c)


def allowed(pairs, labels, budget):
    """Which batches obey a budget, in plain NumPy."""
    spent = np.stack([labels[:, pairs[:, 0] == p].sum(axis=1) for p in range(PROMPTS)], axis=1)
    good = np.ones(len(labels), bool)
    if budget.per_pair is not None:
        good &= labels.max(axis=1) <= budget.per_pair
    if budget.per_prompt is not None:
        good &= (spent <= budget.per_prompt).all(axis=1)
    if budget.per_prompt_min is not None:
        good &= (spent >= budget.per_prompt_min).all(axis=1)
    for quota in budget.quotas:
        held = {name: spent[:, quota.of == name].sum(axis=1) for name in np.unique(quota.of).tolist()}
        for name, most in (quota.at_most or {}).items():
            good &= held[name] <= most
        for name, least in (quota.at_least or {}).items():
            good &= held[name] >= least
    if budget.cost_total is not None:
        p, i, j = pairs.T
        good &= labels @ (budget.cost[p, i] + budget.cost[p, j]) <= budget.cost_total
    return good


def check_below(criterion, pool, budget, prior, best_of=None):
    """The bound against every batch there is; returns both."""
    pairs, z, c = written_out(pool)
    labels = batches(len(pairs), int(budget.total))
    labels = labels[allowed(pairs, labels, budget)]
    best = values(criterion, z, c, labels, prior * np.eye(DIM) if np.ndim(prior) == 0 else prior).min()
    bound, _ = bound_of(pool, criterion, budget, prior)
    assert bound <= best + 1e-9 * max(1, abs(best)), (bound, best)
    return bound, best


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


def test_annotators_who_differ_in_noise_and_cost():
    for seed in range(3):
        pool = pool_of(seed)
        pairs, z, _ = written_out(pool)
        c = np.repeat([fisher_information(0.0, flip) for flip in (0.0, 0.2)], len(pairs))[None]
        labels = batches(2 * len(pairs), 3)
        first = labels[:, : len(pairs)].sum(axis=1)
        good = (labels.max(axis=1) <= 1) & (first <= 2) & (2 * first + (3 - first) <= 5)
        for criterion in CRITERIA.values():
            wide = repeated_pool(pool, PEOPLE), criterion, repeated_budget(THREE_PAID, pool, PEOPLE)
            best = values(criterion, np.concatenate([z, z]), c, labels[good], 0.01 * np.eye(DIM)).min()
            bound, _ = bound_of(*wide, 0.01)
            assert bound <= best + 1e-9 * abs(best)


@pytest.mark.slow
def test_labels_of_annotators_are_certified_by_the_bound():
    pool = pool_of(2)
    batch = select_pairs(pool, LogDet(), THREE_PAID, prior=0.01, annotators=PEOPLE)
    whole, _ = bound_of(repeated_pool(pool, PEOPLE), LogDet(), repeated_budget(THREE_PAID, pool, PEOPLE), 0.01)
    assert batch.report["whole_bound"] == whole and batch.certificate.lower_bound >= whole - 1e-12


# ---- the formulas


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


# ---- where it is used


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "LogDet" else pytest.mark.slow) for name in CRITERIA]
)
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
        matrix = information(problem, start.pairs, start.labels)
        value = analyse(problem, matrix).value
        assert bound < value and criterion.efficiency(value, bound, pool.dim) >= least
