"""Certificates are never better than the truth, and as tight as their formula.

The truth comes from the reference solver, whose allocations tests/test_reference.py proves best with an LP solver; the
formula is recomputed here in NumPy from pairs written out one by one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign import reference
from jaxdesign._pairs import Allocation, candidate_counts, first_copies
from jaxdesign.analysis import analyse, exact_sensitivities, information
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.limits import resolve
from jaxdesign.budget.oracle import linear_oracle
from jaxdesign.certificates import separable
from jaxdesign.certificates.evaluate import evaluate
from jaxdesign.certificates.separable import cold_level
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.of_function import Criterion
from jaxdesign.criteria.trace import Trace
from jaxdesign.design import Status
from jaxdesign.door import make_problem
from jaxdesign.pool import CompletionPool
from tests.support.problems import (
    DIM,
    PROMPTS,
    criterion_of,
    gradients_of,
    information_of,
    lp_oracle,
    random_arrays,
    random_pool,
    random_spd,
    sensitivities_of,
    written_out,
)
from tests.support.truths import FOUR, complete_graphs

seeds = st.integers(0, 2**32 - 1)
FULL, LOW, HELD = random_spd(1), random_spd(2, rank=1), random_spd(3)

# criterion's H (None is LogDet), budget, prior, scores
CASES = {
    "LogDet": (None, {"total": 20.0}, None, "yes"),
    "LogDet, prior": (None, {"total": 20.0}, 0.5, "no"),
    "LogDet, caps": (None, {"total": 20.0, "per_pair": 1.0}, None, "no"),
    "LogDet, caps by prompt, prior": (None, {"total": 12.5, "per_pair": np.array([1, 2, 1, 3, 1.5, 1])}, HELD, "yes"),
    "LogDet, quotas": (None, {"total": 20.0, "per_prompt": 6.0}, None, "yes"),
    "LogDet, both, prior, draws": (None, {"total": 20.0, "per_pair": 3.0, "per_prompt": 5.0}, 0.5, "draws"),
    "Trace": (FULL, {"total": 20.0}, None, "no"),
    "Trace, prior, draws": (FULL, {"total": 20.0}, HELD, "draws"),
    "Trace, caps": (FULL, {"total": 20.0, "per_pair": 1.0}, 0.1, "yes"),
    "Trace, quotas by prompt": (FULL, {"total": 12.5, "per_prompt": np.array([4, 2, 1, 3, 1, 5.5])}, None, "yes"),
    "Trace, both": (FULL, {"total": 20.0, "per_pair": 3.0, "per_prompt": 5.0}, None, "no"),
    "Trace of a low-rank H, caps": (LOW, {"total": 20.0, "per_pair": 2.0}, 0.1, "draws"),
}
every_case = pytest.mark.parametrize("name", CASES)


class Case:
    """A pool and problem with its pairs written out, and the best allocation from the reference solver."""

    def __init__(self, name):
        self.H, self.limits, prior, scores = CASES[name]
        self.pool = random_pool(sum(map(ord, name)), scores)
        self.criterion = LogDet() if self.H is None else Trace(self.H)
        self.budget, self.prior = Budget(**self.limits), prior
        self.pairs, self.z, self.c = written_out(self.pool)
        self.held = 0.0 if prior is None else prior if np.ndim(prior) else prior * np.eye(DIM)
        self.resolved = resolve(self.budget, candidate_counts(first_copies(self.pool)))
        design = reference.optimize(self.pool, self.criterion, self.budget, prior)
        index = {tuple(pair): k for k, pair in enumerate(self.pairs.tolist())}
        self.best = np.zeros(len(self.pairs))
        self.best[[index[tuple(pair)] for pair in design.pairs.tolist()]] = design.labels
        self.best_value = self.value(self.best)

    def value(self, labels):
        return criterion_of(information_of(self.z, self.c, labels, self.held), self.H)

    def formula(self, labels):
        """Lower bound of DESIGN.md section 4 with S from an LP solver."""
        A = information_of(self.z, self.c, labels, self.held)
        G, value = gradients_of(A, self.H), self.value(labels)
        linear = np.mean([np.trace(g @ (np.zeros((DIM, DIM)) + self.held)) for g in G])
        linear += lp_oracle(self.pairs, sensitivities_of(self.z, self.c, G), **self.limits)[1]
        return value - DIM * np.log(linear / DIM) if self.H is None else value**2 / linear

    def allocation(self, seed, distance):
        """An allowed allocation at some distance from the best one: a mixture with a random one."""
        rng = np.random.default_rng(seed)
        vertices = [linear_oracle(self.resolved, self.pairs, rng.random(len(self.pairs))).labels for _ in range(5)]
        return (1 - distance) * self.best + distance * (rng.dirichlet(np.ones(5)) @ np.array(vertices))


solved = functools.lru_cache(Case)


def certified(case, labels):
    return evaluate(case.pool, case.criterion, case.budget, case.pairs, labels, case.prior)


# ---- never better than the truth


@every_case
@given(seed=seeds, digits=st.integers(0, 8))
def test_no_certificate_is_better_than_the_truth(name, seed, digits):
    case = solved(name)
    labels = case.allocation(seed, 10.0**-digits)
    design = certified(case, labels)
    value, bound, gap, efficiency = design.certificate
    scale = max(1.0, abs(value)) if case.H is None else value
    assert value == pytest.approx(case.value(labels), rel=1e-9)
    assert bound <= case.best_value + 1e-10 * scale
    assert gap == value - bound >= 0
    expected = np.exp(-gap / DIM) if case.H is None else bound / value
    assert efficiency == pytest.approx(expected, rel=1e-12)
    # and it is the formula's: pricing in float32 has cost nothing
    assert bound == pytest.approx(case.formula(labels), rel=1e-8, abs=1e-8)


@every_case
def test_the_best_allocation_is_certified_as_such(name):
    case = solved(name)
    assert certified(case, case.best).certificate.efficiency > 1 - 1e-6


@every_case
@given(seed=seeds, factor=st.floats(0, 3), sparse=st.booleans())
def test_a_wrong_guess_of_the_level_never_makes_a_certificate_false(name, seed, factor, sparse):
    case = solved(name)
    problem = make_problem(case.pool, case.criterion, case.budget, case.prior)
    matrix = information(problem, Allocation(case.pairs, case.allocation(seed, 0.3)))
    analysis = analyse(problem, matrix)
    with pytest.MonkeyPatch.context() as patch:
        if sparse:  # as if too many pairs had been listed
            patch.setattr(separable, "listing_limit", lambda problem: 0)
        priced = separable.certify(problem, matrix, analysis, factor * cold_level(problem, analysis))
    assert priced.certificate.lower_bound <= case.best_value + 1e-10 * abs(case.best_value)
    exact = lp_oracle(case.pairs, exact_sensitivities(problem, case.pairs, analysis.factors), **case.limits)[1]
    assert priced.oracle.value >= exact * (1 - 1e-12)
    unlisted = set(map(tuple, case.pairs.tolist())) - set(map(tuple, priced.pairs.tolist()))
    rows = np.array(sorted(unlisted), np.int32).reshape(-1, 3)
    if not problem.limits.has_quotas:  # with quotas, pairs that their prompt cannot use are left out as well
        assert (exact_sensitivities(problem, rows, analysis.factors) <= priced.floor).all()


@pytest.mark.thorough
@given(
    seed=seeds,
    dtype=st.sampled_from(["float16", "bfloat16", "float32"]),
    offset=st.sampled_from([0, 100]),
    condition=st.sampled_from([1, 1e4]),
    quota=st.booleans(),
)
def test_badly_conditioned_pools_are_never_certified_too_well(seed, dtype, offset, condition, quota):
    """S from the float32 pass and the listed pairs against S over all pairs in float64."""
    rng = np.random.default_rng(seed)
    features, scores, mask = random_arrays(seed)
    features = np.nan_to_num(features) * np.geomspace(1, 1 / condition, DIM)
    features = features @ np.linalg.qr(rng.standard_normal((DIM, DIM)))[0] + offset * rng.standard_normal(
        (PROMPTS, 1, DIM)
    )
    pool = CompletionPool(jnp.asarray(features, dtype), 5 * scores, mask)
    limits = {"total": 6.0, "per_pair": 1.0, "per_prompt": 2.0} if quota else {"total": 9.0, "per_pair": 2.0}
    pairs = written_out(pool)[0]
    problem = make_problem(pool, LogDet(), Budget(**limits), 1e-9)
    matrix = problem.even
    analysis = analyse(problem, matrix)
    found = separable.certify(problem, matrix, analysis, cold_level(problem, analysis))
    exact = exact_sensitivities(problem, pairs, analysis.factors)
    best = linear_oracle(problem.limits, pairs, exact).value
    assert found.oracle.value >= best * (1 - 1e-13)
    if condition == 1:
        assert found.oracle.value <= best * (1 + 1e-6)


# ---- evaluate


def test_the_uniform_design_of_a_complete_graph_has_its_known_values():
    pool = complete_graphs(8)
    pairs = written_out(pool)[0]
    labels = np.full(28, 4 / 28)
    design = evaluate(pool, Trace(np.eye(7)), FOUR, pairs, labels)
    assert design.certificate.value == pytest.approx(49, rel=1e-12)
    design = evaluate(pool, LogDet(), FOUR, pairs, labels)
    assert design.certificate.value == pytest.approx(10.8487823211, abs=1e-9)
    assert design.certificate.efficiency == pytest.approx(1, abs=1e-12)


def test_turned_and_repeated_pairs_are_put_in_order_and_zeros_dropped():
    pool = random_pool(1)
    pairs = [[4, 3, 0], [0, 0, 2], [4, 0, 3], [5, 1, 2], [3, 1, 2]]
    design = evaluate(pool, LogDet(), Budget(7.5), pairs, [1, 2, 3, 0, 1.5], prior=1.0)
    assert design.pairs.tolist() == [[0, 0, 2], [3, 1, 2], [4, 0, 3]]
    assert design.pairs.dtype == np.int32
    assert design.labels.tolist() == [2, 1.5, 4]
    assert design.status is Status.EVALUATED
    assert design.skipped_prompts == 1
    assert all(type(number) is float for number in design.certificate)


@pytest.mark.parametrize("criterion", [LogDet(), Trace(FULL)], ids=["LogDet", "Trace"])
def test_an_allocation_that_leaves_information_singular_has_efficiency_zero(criterion):
    design = evaluate(random_pool(1), criterion, Budget(2), [[0, 0, 2]], [2])
    assert design.certificate.value == float("inf")
    assert design.certificate.efficiency == 0
    assert design.certificate.relative_gap() == 1


@pytest.mark.parametrize("criterion", [LogDet(), Trace(FULL)], ids=["LogDet", "Trace"])
@given(seed=seeds, scale=st.sampled_from([2.0**-20, 1.0, 2.0**20]))
def test_rounding_makes_no_singular_information_regular(criterion, seed, scale):
    """Completions in a plane: a Cholesky factorisation often succeeds all the same, with a last pivot of rounding."""
    rng = np.random.default_rng(seed)
    plane = rng.integers(-9, 10, (PROMPTS, 5, 2)) @ rng.integers(-9, 10, (2, DIM))  # exact in float32
    pool = CompletionPool((scale * plane).astype(np.float32))
    pairs = written_out(pool)[0]
    labels = rng.dirichlet(np.ones(len(pairs))) * 20
    certificate = evaluate(pool, criterion, Budget(20), pairs, labels).certificate
    assert certificate.value == float("inf") and certificate.efficiency == 0


def test_a_criterion_of_the_users_has_a_gap_and_no_efficiency():
    case = solved("Trace, caps")
    user = Criterion(lambda A: jnp.trace(jnp.linalg.solve(A, jnp.asarray(FULL, A.dtype))))
    for distance in (0.0, 0.1):
        labels = case.allocation(0, distance)
        design = evaluate(case.pool, user, case.budget, case.pairs, labels, case.prior)
        value, bound, gap, efficiency = design.certificate
        assert value == pytest.approx(case.value(labels), rel=1e-9)
        assert bound <= case.best_value * (1 + 1e-10)
        assert np.isnan(efficiency)
        assert design.certificate.relative_gap() == gap / max(1, abs(value))
        if distance == 0:
            assert gap < 1e-6 * value


@pytest.mark.parametrize("name", ["LogDet, quotas", "Trace, prior, draws"])
def test_certificates_do_not_depend_on_the_x64_flag(name):
    case = solved(name)
    labels = case.allocation(0, 0.3)
    off = certified(case, labels).certificate
    with jax.enable_x64(True):
        on = certified(case, labels).certificate
    np.testing.assert_allclose(on, off, rtol=1e-9, atol=1e-11)


def test_float64_pools_are_certified_from_their_float64_features(float64_scope):
    features, u, mask = random_arrays(8)
    pool = CompletionPool(features.astype(np.float64) / 3, u.astype(np.float64) / 3, mask)
    pairs, z, c = written_out(pool)
    labels = np.full(len(pairs), 1 / 3)
    design = evaluate(pool, LogDet(), Budget(len(pairs) / 3), pairs, labels)
    assert design.certificate.value == pytest.approx(criterion_of(information_of(z, c, labels)), rel=1e-13)


def test_nothing_is_worth_more_information_than_a_target_of_zero():
    case = solved("Trace")
    design = evaluate(case.pool, Trace(np.zeros((DIM, DIM))), case.budget, case.pairs, case.best)
    assert tuple(design.certificate) == (0, 0, 0, 1)


# ---- information from sparse and dense lists


@pytest.mark.parametrize(
    "scores", [pytest.param("no", marks=pytest.mark.slow), pytest.param("yes", marks=pytest.mark.slow), "draws"]
)
def test_long_lists_take_the_dense_way_to_the_same_matrix(scores):
    pool = random_pool(9, scores, prompts=3, completions=8)
    pairs, z, c = written_out(pool)
    problem = make_problem(pool, LogDet(), Budget(5.0), 0.25)
    labels = np.random.default_rng(9).random(len(pairs))
    dense_labels = np.where(np.arange(len(pairs)) < 20, labels, 0.0)
    limit = 2 * 3 * 8  # longer lists go the dense way
    padded = np.concatenate([pairs, np.tile(pairs[:1], (limit, 1))])  # repeated pairs add up, here with no labels
    expected = information_of(z, c, dense_labels, 0.25 * np.eye(DIM))
    short = information(problem, Allocation(pairs[:20], labels[:20]))
    long = information(problem, Allocation(padded, np.concatenate([dense_labels, np.zeros(limit)])))
    np.testing.assert_allclose(short, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(long, expected, rtol=1e-12, atol=1e-13)


def test_lists_longer_than_a_page_are_added_up(monkeypatch):
    monkeypatch.setattr("jaxdesign.pricing.listed.PAGE", 7)
    case = solved("LogDet")
    problem = make_problem(case.pool, case.criterion, case.budget, case.prior)
    found = information(problem, Allocation(case.pairs, case.best))
    np.testing.assert_allclose(found, information_of(case.z, case.c, case.best), rtol=1e-12, atol=1e-13)
    G = gradients_of(found)
    expected = sensitivities_of(case.z, case.c, G)
    np.testing.assert_allclose(exact_sensitivities(problem, case.pairs, np.linalg.cholesky(G)), expected, rtol=1e-12)
