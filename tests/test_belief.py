"""A belief about the reward parameter: one object for all that users pass as a prior, the same in every basis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign import (
    Belief,
    Budget,
    CompletionPool,
    LogDet,
    Trace,
    evaluate,
    greedy,
    label_curve,
    optimize,
    policy_target,
    restrict_to_range,
    second_moment,
    select_pairs,
)
from jaxdesign.baselines import SELECTORS
from jaxdesign.belief import as_belief, held_belief
from jaxdesign.door import make_problem
from jaxdesign.preference import (
    estimate_position_bias,
    estimate_reliability,
    fit_bradley_terry,
    fit_posterior,
    posterior_targets,
    scored_pool,
)
from jaxdesign.preference.labels.labels import as_labels
from jaxdesign.pricing import memory_source
from jaxdesign.pricing.believed import believed
from jaxdesign.solvers import multiplicative
from tests.support.problems import DIM, PROMPTS, random_pool, random_spd

POOL = random_pool(0, scores="no", ragged=False)
MEAN = np.array([1.5, -2.0, 0.7])
BELIEF = Belief(MEAN, random_spd(1))
SCORED = scored_pool(POOL, MEAN)
LABELS = as_labels([(p, 0, 2) for p in range(PROMPTS)] + [(p, 3, 4) for p in range(PROMPTS)], np.arange(12) % 3 % 2)


def random_belief(seed, dim, rank=None):
    rng = np.random.default_rng(seed)
    return Belief(rng.standard_normal(dim), random_spd(seed, dim, rank))


# ---- what it is


def test_every_kind_of_prior_becomes_one():
    nothing, ridge, matrix = (as_belief(prior, 3) for prior in (None, 2.0, BELIEF.precision))
    for found, precision in ((nothing, 0 * np.eye(3)), (ridge, 2 * np.eye(3)), (matrix, BELIEF.precision)):
        np.testing.assert_array_equal(found.precision, precision)
        np.testing.assert_array_equal(found.mean, 0)
    posterior = fit_posterior(POOL, LABELS, BELIEF)
    assert as_belief(BELIEF, 3) is BELIEF
    np.testing.assert_array_equal(as_belief(posterior, 3).mean, posterior.parameter)
    np.testing.assert_array_equal(as_belief(posterior, 3).precision, posterior.information)
    traced = jax.jit(lambda belief: belief)(BELIEF)
    assert as_belief(traced, 3).precision.dtype == np.float64 and isinstance(as_belief(traced, 3).mean, np.ndarray)
    assert held_belief(2.0) is None and held_belief(BELIEF.precision) is None
    np.testing.assert_array_equal(Belief.from_ridge(2.0, 3, MEAN).precision, 2 * np.eye(3))


@given(st.integers(0, 2**20), st.integers(1, 5))
def test_covariance_and_precision_are_inverse_in_any_units(seed, dim):
    belief = random_belief(seed, dim)
    units = 2.0 ** np.random.default_rng(seed).integers(-60, 60, dim)
    scaled = Belief.from_covariance(belief.covariance * np.outer(units, units), belief.mean * units)
    np.testing.assert_allclose(scaled.precision * np.outer(units, units), belief.precision, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(scaled.draws(3, 1) / units, belief.draws(3, 1), rtol=1e-4, atol=1e-9)


def test_draws_have_its_mean_and_covariance():
    drawn = BELIEF.draws(200_000, 0)
    np.testing.assert_allclose(drawn.mean(0), MEAN, atol=5 * np.sqrt(np.diag(BELIEF.covariance) / len(drawn)).max())
    np.testing.assert_allclose(np.cov(drawn.T), BELIEF.covariance, rtol=0.05, atol=0.01 * BELIEF.covariance.max())


def test_it_is_a_pytree_of_two_arrays():
    mean, precision = jax.tree.leaves(BELIEF)
    assert mean is BELIEF.mean and precision is BELIEF.precision
    assert repr(BELIEF) == "Belief(dim=3)" and repr(as_belief(1.0, 2)) == "Belief(dim=2, around 0)"
    doubled = jax.tree.map(lambda a: 2 * a, BELIEF)
    np.testing.assert_array_equal(doubled.mean, 2 * MEAN)
    found = jax.jit(lambda belief: belief.precision @ belief.mean)(BELIEF)
    np.testing.assert_allclose(found, BELIEF.precision @ MEAN, rtol=1e-5)


# ---- other bases


@given(st.integers(0, 2**20), st.integers(1, 5), st.data())
def test_margins_have_the_same_law_in_every_basis(seed, dim, data):
    """z . w and z' . w' with z' = B^T z for every z in the span of B: mean and variance."""
    rank = data.draw(st.integers(1, dim))
    rng, belief = np.random.default_rng(seed), random_belief(seed, dim)
    basis = rng.standard_normal((dim, rank)) * np.exp(4 * rng.standard_normal(rank))
    z = basis / np.linalg.norm(basis, axis=0) @ rng.standard_normal((rank, 6))
    found, turned = belief.in_basis(basis), basis.T @ z
    np.testing.assert_allclose(turned.T @ found.mean, z.T @ belief.mean, rtol=1e-5, atol=1e-8)
    expected = z.T @ belief.covariance @ z
    np.testing.assert_allclose(
        turned.T @ found.covariance @ turned, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max()
    )


@given(st.integers(0, 2**20), st.integers(2, 5))
def test_bases_can_be_changed_one_after_the_other(seed, dim):
    rng, belief = np.random.default_rng(seed), random_belief(seed, dim)
    first, second = rng.standard_normal((dim, dim - 1)), rng.standard_normal((dim - 1, dim - 1))
    once, twice = belief.in_basis(first @ second), belief.in_basis(first).in_basis(second)
    np.testing.assert_allclose(once.mean, twice.mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(once.precision, twice.precision, rtol=1e-5, atol=1e-7 * np.abs(once.precision).max())


def test_where_nothing_is_known_nothing_is_known_in_another_basis():
    """A singular precision is the limit of regular ones."""
    basis = np.random.default_rng(0).standard_normal((4, 3))
    singular = Belief(np.zeros(4), random_spd(2, 4, 2))
    limit = Belief(np.zeros(4), singular.precision + 1e-9 * np.eye(4)).in_basis(basis)
    np.testing.assert_allclose(singular.in_basis(basis).precision, limit.precision, atol=1e-6)
    np.testing.assert_allclose(as_belief(3.0, 4).in_basis(basis).precision, 3 * basis.T @ basis, rtol=1e-12)


@pytest.mark.thorough
def test_designs_of_a_restricted_pool_are_those_of_the_pool():
    wide = CompletionPool(np.asarray(POOL.features) @ np.eye(3, 5, dtype=np.float32))
    belief = random_belief(3, 5)
    pool, basis = restrict_to_range(wide)
    found = select_pairs(pool, LogDet(), Budget(5, per_pair=1), prior=belief.in_basis(basis))
    assert basis.shape == (5, 3)
    within = Belief.from_covariance(belief.covariance[:3, :3], belief.mean[:3])
    expected = select_pairs(POOL, LogDet(), Budget(5, per_pair=1), prior=within)
    np.testing.assert_array_equal(found.pairs, expected.pairs)


# ---- every door takes one


def test_problems_take_precision_and_mean():
    found, expected, without = (
        make_problem(pool, LogDet(), Budget(5), prior)
        for pool, prior in ((POOL, BELIEF), (SCORED, BELIEF.precision), (POOL, Belief(0 * MEAN, BELIEF.precision)))
    )
    for problem in (found, without):
        np.testing.assert_array_equal(problem.prior, expected.prior)
    np.testing.assert_array_equal(found.gathered.scores, expected.gathered.scores)
    assert without.gathered is POOL


def designs(pool, prior):
    """Something of every function that takes a prior for a design."""
    crit, budget = Trace(second_moment(POOL)), Budget(5, per_pair=1)
    chosen = select_pairs(pool, crit, budget, prior=prior)
    yield chosen.pairs
    yield np.array(chosen.certificate)
    yield np.array(optimize(pool, crit, budget, prior=prior).certificate)
    yield np.array(evaluate(pool, crit, budget, chosen.pairs, chosen.labels, prior).certificate)
    yield greedy(pool, LogDet(), size=4, prior=prior)[0]


@pytest.mark.thorough
def test_designs_take_precision_and_mean():
    with_margins, without = list(designs(SCORED, BELIEF.precision)), list(designs(POOL, BELIEF.precision))
    for found, expected in zip(designs(POOL, BELIEF), with_margins, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert any((a != b).any() for a, b in zip(with_margins, without, strict=True))
    for found, expected in zip(designs(POOL, Belief(0 * MEAN, BELIEF.precision)), without, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.thorough
@pytest.mark.parametrize("rule", ["closest_call", "largest_score_gap", "square_root", "t_pilaf", "bait"])
def test_rules_of_others_take_margins_from_it(rule):
    found, expected = (
        SELECTORS[rule](pool, LogDet(), Budget(5, per_pair=1), prior=prior)
        for pool, prior in ((POOL, BELIEF), (SCORED, BELIEF.precision))
    )
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    np.testing.assert_array_equal(found.certificate, expected.certificate)


def test_scores_of_the_pool_come_before_the_mean():
    own = scored_pool(POOL, -2 * MEAN)
    assert believed(own, BELIEF)[0] is own
    np.testing.assert_array_equal(believed(POOL, BELIEF)[0].scores, SCORED.scores)
    assert believed(POOL, 2.0) == (POOL, 2.0)


@pytest.mark.thorough
def test_traceable_functions_take_traced_beliefs():
    @jax.jit
    def choose(mean, precision):
        return greedy(POOL, LogDet(), size=4, prior=Belief(mean, precision))[0]

    arrays = jnp.asarray(MEAN, jnp.float32), jnp.asarray(BELIEF.precision, jnp.float32)
    np.testing.assert_array_equal(choose(*arrays), greedy(SCORED, LogDet(), size=4, prior=BELIEF.precision)[0])
    found = multiplicative(POOL, LogDet(), Budget(5.0), prior=BELIEF, passes=4)[1]
    expected = multiplicative(SCORED, LogDet(), Budget(5.0), prior=BELIEF.precision, passes=4)[1]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.thorough
def test_label_curves_take_one():
    settings = {"rules": ("random",), "beta": 0.5}
    found = label_curve(POOL, LogDet(), Budget(1, per_pair=1), [3, 6], prior=BELIEF, **settings)
    target = posterior_targets(POOL, MEAN, 0.5)
    expected = label_curve(
        SCORED, LogDet(), Budget(1, per_pair=1), [3, 6], prior=BELIEF.precision, target=target, **settings
    )
    for rule in found.values:
        np.testing.assert_array_equal(found.values[rule], expected.values[rule])
        np.testing.assert_allclose(found.gaps[rule], expected.gaps[rule], rtol=1e-5)


@pytest.mark.parametrize("reference", [None, np.random.default_rng(0).standard_normal((PROMPTS, 5))])
def test_policy_targets_of_a_belief_are_those_of_the_policy_its_mean_leads_to(reference):
    found = policy_target(POOL, reference, belief=BELIEF, beta=0.7)
    expected = posterior_targets(POOL, MEAN, 0.7, reference)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    of_source = policy_target(memory_source(POOL), reference, belief=BELIEF, beta=0.7)
    np.testing.assert_allclose(of_source, expected, rtol=1e-4, atol=1e-6)
    traced = jax.jit(lambda belief: policy_target(POOL, reference, belief=belief, beta=0.7))(BELIEF)
    np.testing.assert_allclose(traced, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found - np.asarray(policy_target(POOL, reference))).max() > 0.01


# ---- fits


@given(st.integers(0, 2**20), st.sampled_from([1, 3]))
def test_a_fit_is_pulled_towards_the_mean(seed, dim):
    """The gradient of the log posterior is 0 there, which it is at one place only."""
    rng, belief = np.random.default_rng(seed), random_belief(seed, dim)
    z, counts = 3 * rng.standard_normal((8, dim)), np.ones(8)
    wins = rng.integers(0, 2, 8).astype(float)
    fit = fit_bradley_terry(z, wins, counts, prior=belief)
    w = np.asarray(fit.parameter)
    gradient = z.T @ (wins - 1 / (1 + np.exp(-z @ w))) - belief.precision @ (w - belief.mean)
    assert bool(fit.converged)
    np.testing.assert_allclose(gradient, 0, atol=1e-5 * np.abs(z).sum())


@pytest.mark.thorough
@pytest.mark.parametrize("flip", [0.0, 0.2])
def test_units_of_columns_do_not_matter_to_fits_with_a_mean(flip):
    rng, units = np.random.default_rng(0), 2.0 ** np.array([-30, 2, 40])
    z, wins, counts = 3 * rng.standard_normal((8, 3)), rng.integers(0, 2, 8).astype(float), np.ones(8)
    plain = fit_bradley_terry(z, wins, counts, prior=BELIEF, flip=flip)
    scaled = fit_bradley_terry(z * units, wins, counts, prior=BELIEF.in_basis(np.diag(units)), flip=flip)
    np.testing.assert_allclose(np.asarray(scaled.parameter) * units, plain.parameter, rtol=1e-6)


@pytest.mark.thorough
def test_with_flips_the_best_of_several_ends_is_judged_by_the_belief():
    """A label against what is believed: it was reversed (w near 3), or the belief is off (w below 0): two maxima."""
    belief = Belief(np.array([3.0]), np.array([[0.5]]))
    fit = fit_bradley_terry(np.full((1, 1), 10.0), np.zeros(1), np.ones(1), prior=belief, flip=0.2)
    grid = np.linspace(-10, 10, 200_001)
    p = 0.6 / (1 + np.exp(-10 * grid)) + 0.2
    best = grid[np.argmax(np.log(1 - p) - (grid - 3) ** 2 / 4)]
    assert float(fit.parameter[0]) == pytest.approx(best, abs=1e-3) and best > 2


@pytest.mark.thorough
def test_fits_of_annotators_are_pulled_towards_the_mean_too():
    strong = Belief(MEAN, 1e7 * np.eye(DIM))
    who = np.arange(len(LABELS.pairs)) % 2
    found = estimate_reliability(POOL, LABELS._replace(annotators=who), prior=strong)
    np.testing.assert_allclose(found.parameter, MEAN, atol=1e-5)
    biased = estimate_position_bias(POOL, LABELS._replace(annotators=who), who == 0, prior=strong)
    np.testing.assert_allclose(biased.parameter, MEAN, atol=1e-5)


def test_without_labels_a_posterior_is_the_belief_and_with_strong_belief_nearly():
    none = as_labels(np.zeros((0, 3), int), np.zeros(0, int))
    found = fit_posterior(POOL, none, BELIEF)
    np.testing.assert_array_equal(found.parameter, MEAN)
    np.testing.assert_array_equal(found.information, BELIEF.precision)
    strong = fit_posterior(POOL, LABELS, Belief(MEAN, 1e8 * np.eye(DIM)))
    np.testing.assert_allclose(strong.parameter, MEAN, atol=1e-6)


def test_labels_that_come_in_parts_tell_what_they_tell_at_once():
    """To the error of Laplace's approximation, which the prior of the second part has."""
    first, second = (as_labels(LABELS.pairs[part], LABELS.choices[part]) for part in (slice(6), slice(6, None)))
    at_once = fit_posterior(POOL, LABELS, 20.0)
    in_parts = fit_posterior(POOL, second, fit_posterior(POOL, first, 20.0))
    np.testing.assert_allclose(in_parts.parameter, at_once.parameter, atol=0.02)
    np.testing.assert_allclose(in_parts.information, at_once.information, rtol=0.02, atol=0.5)
    forgotten = fit_posterior(POOL, second, 20.0)
    assert np.abs(forgotten.parameter - at_once.parameter).max() > 0.05


# ---- what is refused


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: Belief(np.zeros(2), np.eye(3)), ValueError, r"precision: shape \(3, 3\) found"),
        (lambda: Belief(np.zeros((2, 1)), np.eye(2)), ValueError, "mean: shape"),
        (lambda: Belief(np.array([0, np.nan]), np.eye(2)), ValueError, "mean: nan at"),
        (lambda: Belief(np.zeros(2), np.diag([1.0, -1.0])), ValueError, "precision: indefinite"),
        (lambda: Belief(np.zeros(2, int), np.eye(2)), TypeError, "mean: dtype int64"),
        (lambda: Belief.from_ridge(-1.0, 2), ValueError, "ridge=-1: must be finite and at least 0"),
        (lambda: Belief.from_covariance(np.diag([1.0, 0.0])), ValueError, "covariance: singular"),
        (lambda: Belief(np.zeros(2), np.diag([1.0, 0.0])).draws(1, 0), ValueError, "nothing to draw from"),
        (lambda: BELIEF.draws(0, 0), ValueError, "number=0: at least one draw"),
        (lambda: BELIEF.in_basis(np.eye(4)), ValueError, r"basis: shape \(4, 4\) found; expected \(3, r\)"),
        (lambda: BELIEF.in_basis(np.ones((3, 2))), ValueError, "linearly dependent"),
        (lambda: as_belief(BELIEF, 4), ValueError, "about 3 parameters found for 4 features; belief.in_basis"),
        (lambda: as_belief(np.eye(2), 3), ValueError, r"prior: shape \(2, 2\) found"),
        (lambda: optimize(POOL, LogDet(), Budget(5), prior=Belief(np.zeros(2), np.eye(2))), ValueError, "2 parameters"),
        (lambda: optimize(np.eye(3), LogDet(), Budget(5), prior=BELIEF), TypeError, "pool: expected"),
        (lambda: policy_target(POOL, belief=BELIEF, beta=0.0), ValueError, "beta=0: must be positive"),
    ],
)
def test_what_is_refused(make, kind, words):
    with pytest.raises(kind, match=words):
        make()
