"""Annotators who share the features of a pool against the pool written out once for each of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import information
from jaxdesign.annotators import asked
from jaxdesign.certificates.evaluate import evaluated
from jaxdesign.door import make_problem
from jaxdesign.exact.exchange.exchange import exchange
from jaxdesign.information import reversed_information
from jaxdesign.pricing.annotated import pool_source
from jaxdesign.pricing.listed import listed_rows
from jaxdesign.pricing.memory import memory_source
from jaxdesign.pricing.passes import pairs_information, price, reaching_pairs
from jaxdesign.pricing.source import Source, survey
from jaxdesign.solvers.optimize import checked_options, solve
from tests.support.annotated import repeated_pool
from tests.support.problems import random_arrays, random_spd

PROMPTS, COMPLETIONS, DIM, PEOPLE = 11, 6, 4, 3
seeds, kinds = st.integers(0, 2**32 - 1), st.sampled_from(["no", "yes", "draws"])


def case(seed, scores):
    """A pool, and probabilities of reversal by annotator and prompt as a pool would hold them."""
    rng = np.random.default_rng(seed)
    shape = {"prompts": PROMPTS, "completions": COMPLETIONS, "dim": DIM}
    features, u, mask = random_arrays(seed, draws=2 if scores == "draws" else None, **shape)
    pool = jd.CompletionPool(features, None if scores == "no" else u, mask)
    flip = rng.uniform(0, 0.45, (PEOPLE, PROMPTS)).astype(np.float32)
    flip[0] = 0
    return pool, np.where(np.asarray(mask).sum(axis=1) > 1, flip, 0)


def closed_of(pool, seed):
    """A few pairs of single annotators that may not be used."""
    exists = np.tile(np.asarray(pool.mask), (PEOPLE, 1))
    p, i = np.argwhere(exists).T
    rng = np.random.default_rng(seed)
    some = [(q, *sorted(rng.choice(i[p == q], 2, replace=False))) for q in np.unique(p) if (p == q).sum() > 1]
    return np.array(some, np.int32)[:: max(len(some) // 5, 1)]


@pytest.mark.slow
@given(seeds, st.sampled_from([("no", False), ("yes", True), ("draws", True)]))
def test_a_pass_says_what_it_says_of_every_annotators_own_pool(seed, kind):
    scores, closing = kind
    pool, flip = case(seed, scores)
    closed = closed_of(pool, seed) if closing else None
    shared, apart = pool_source(pool, flip, closed=closed), memory_source(repeated_pool(pool, flip), closed=closed)
    assert isinstance(shared, Source)
    assert (shared.prompts, shared.draws, shared.dtype) == (apart.prompts, apart.draws, apart.dtype)
    factors = np.stack([np.linalg.cholesky(random_spd([seed, r], DIM)) for r in range(apart.draws)]).astype(np.float32)
    threshold, ranks = np.float32(0.3), np.random.default_rng(seed).integers(0, 4, apart.prompts).astype(np.float32)
    found, expected = (price(source, factors, threshold, ranks) for source in (shared, apart))
    for name in ("best", "highest", "error"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(reaching_pairs(found, COMPLETIONS), reaching_pairs(expected, COMPLETIONS))
    with _arrays.float64():
        totals = [np.asarray(pairs_information(source)) for source in (shared, apart)]
    np.testing.assert_allclose(*totals, rtol=1e-6, atol=1e-9)  # chunks may be of another length
    counted, expected = survey(shared), survey(apart)
    np.testing.assert_array_equal(counted.exists, expected.exists)
    np.testing.assert_array_equal(counted.pair_counts, expected.pair_counts)


@pytest.mark.slow
@given(seeds, kinds)
def test_listed_pairs_and_subsets_too(seed, scores):
    pool, flip = case(seed, scores)
    shared, apart = pool_source(pool, flip), memory_source(repeated_pool(pool, flip))
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, [apart.prompts, COMPLETIONS, COMPLETIONS], (50, 3)).astype(np.int32)
    for found, expected in zip(listed_rows(shared, pairs), listed_rows(apart, pairs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-14)
    some = np.sort(rng.permutation(apart.prompts)[:7])
    factors = np.stack([random_spd([seed, r], DIM) for r in range(apart.draws)]).astype(np.float32)
    found, expected = (price(source.subset(some), factors, np.float32(0.3)) for source in (shared, apart))
    np.testing.assert_allclose(found.best, expected.best, rtol=1e-6)


@given(st.floats(-340, 340), st.floats(0, 0.49))
def test_information_with_reversal_follows_from_that_without(margin, flip):
    sides = 1 / (1 + np.exp(-margin)), 1 / (1 + np.exp(margin))
    plain = sides[0] * sides[1]
    p, q = ((1 - 2 * flip) * side + flip for side in sides)  # of one answer and of the other
    with _arrays.float64():
        found = float(reversed_information(np.float64(plain), np.float64(flip)))
    np.testing.assert_allclose(
        found, ((1 - 2 * flip) * plain) * ((1 - 2 * flip) * plain / p / q), rtol=1e-12, atol=1e-290
    )


BUDGETS = {
    "caps": jd.Budget(12, per_pair=1),
    "quotas": jd.Budget(12, per_pair=1, per_prompt=3, exclude=[[0, 0, 1]]),
    "costs": jd.Budget(12, per_pair=1, cost=np.ones((PROMPTS, COMPLETIONS)), cost_total=30),
}
CRITERIA = {"LogDet": jd.LogDet(), "Trace": jd.Trace(np.diag(np.arange(1.0, DIM + 1)))}


def both_problems(seed, scores, criterion, budget):
    """The same joint problem with shared features and written out."""
    pool, flip = case(seed, scores)
    people = jd.Annotators(flip, at_most=[5, np.inf, np.inf])
    joint = asked(pool, budget, people)
    shared = make_problem(joint.pool, criterion, joint.budget, 0.01, flip=joint.flip)
    return shared, make_problem(repeated_pool(pool, flip), criterion, joint.budget, 0.01)


@pytest.mark.thorough
def test_information_of_more_pairs_than_are_looked_up_one_by_one():
    rng = np.random.default_rng(2)
    pool = jd.CompletionPool(
        rng.standard_normal((PROMPTS, COMPLETIONS, DIM)), rng.standard_normal((PROMPTS, COMPLETIONS))
    )
    people = jd.Annotators(rng.uniform(0, 0.4, (PEOPLE, PROMPTS)))
    joint = asked(pool, jd.Budget(1), people)
    problem = make_problem(pool, jd.LogDet(), joint.budget, 0.01, flip=joint.flip)
    pairs = np.array(
        [(p, i, j) for p in range(problem.prompts) for j in range(COMPLETIONS) for i in range(j)], np.int32
    )
    assert len(pairs) > 2 * problem.prompts * COMPLETIONS
    labels = rng.uniform(0, 1, len(pairs))
    halves = [
        information(problem, Allocation(pairs[part], labels[part])) for part in (slice(None, 100), slice(100, None))
    ]
    whole = information(problem, Allocation(pairs, labels))
    np.testing.assert_allclose(whole, sum(halves) - problem.prior, rtol=1e-12, atol=1e-14)


@pytest.mark.thorough(cases=2)
@pytest.mark.parametrize("scores", ["yes", pytest.param("draws", marks=pytest.mark.slow)])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_designs_and_certificates_are_the_same(criterion, budget, scores):
    problems = both_problems(0, scores, CRITERIA[criterion], BUDGETS[budget])
    found, expected = (solve(problem, None, checked_options(1e-4, None, None)).design for problem in problems)
    assert found.status == expected.status
    np.testing.assert_allclose(found.certificate.value, expected.certificate.value, rtol=1e-4)
    allocation = Allocation(expected.pairs, expected.labels)
    again = [evaluated(problem, allocation, found.status).design for problem in problems]
    np.testing.assert_allclose(again[0].certificate, again[1].certificate, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.slow
def test_exchange_searches_what_annotators_share(criterion):
    problems = both_problems(1, "yes", CRITERIA[criterion], jd.Budget(12, per_pair=1))
    pairs = np.array([(p, 0, 1) for p in np.flatnonzero(problems[0].exists[:, :2].all(axis=1))[::2][:12]], np.int32)
    found, expected = (exchange(problem, Allocation(pairs, np.ones(12))) for problem in problems)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[2][:2], expected[2][:2], rtol=1e-12)
