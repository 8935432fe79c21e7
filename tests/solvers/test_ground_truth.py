"""`optimize` against problems with known answers, each also judged by the equivalence theorem.

Every problem that fits is solved in one common shape (see `padded`); with -m slow all are solved in their own.
"""

import numpy as np
import pytest

import jaxdesign
from jaxdesign import LogDet, Status, Trace
from tests.support.padded import check_optimal, fits, labels_of_all_pairs, solve_padded
from tests.support.problems import regression_pool
from tests.support.truths import FOUR, TRUTHS, accbpg_instance, gaussian

SMALL = [name for name, truth in TRUTHS.items() if truth.small and fits(truth.pool())]


def check(truth, pool, design, value):
    assert design.status is Status.CERTIFIED
    assert design.certificate.efficiency >= 1 - 1e-6
    assert value == pytest.approx(truth.value, abs=truth.atol)
    lower_bound = value - design.certificate.gap
    assert lower_bound <= truth.value + truth.atol
    check_optimal(pool, truth.criterion, truth.budget, design, value, truth.prior)
    if truth.by_prompt is not None:
        spent = np.bincount(design.pairs[:, 0], design.labels, len(truth.by_prompt))
        np.testing.assert_allclose(spent, truth.by_prompt, atol=2e-3 * truth.budget.total)
    if truth.labels is not None:
        labels = labels_of_all_pairs(pool, design)[0]
        np.testing.assert_allclose(labels, truth.labels, atol=2e-3 * truth.budget.total)


@pytest.mark.parametrize("name", SMALL)
def test_known_answers_are_found(name):
    truth = TRUTHS[name]
    pool = truth.pool()
    check(truth, pool, *solve_padded(pool, truth.criterion, truth.budget, truth.prior))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUTHS)
def test_known_answers_are_found_in_their_own_shapes(name):
    truth = TRUTHS[name]
    pool = truth.pool()
    design = jaxdesign.optimize(pool, truth.criterion, truth.budget, prior=truth.prior, tol=1e-7)
    check(truth, pool, design, design.certificate.value)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("name", ["Gaussian 300 x 10", "Gaussian 300 x 10, A-optimal"])
def test_published_gaussian_instances_are_solved_without_prior_or_scores(name):
    truth = TRUTHS[name]
    pool = truth.pool()
    design = jaxdesign.optimize(pool, truth.criterion, truth.budget, tol=1e-7)
    check(truth, pool, design, design.certificate.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("points", "dim", "criterion", "low", "high"),
    [
        (10_000, 30, LogDet(), -15.730447, -15.729517),
        (100_000, 50, LogDet(), -25.186682, -25.185687),
        (10_000, 30, Trace(np.eye(30)), 18.2137, 18.2228),
        (100_000, 50, Trace(np.eye(50)), 30.7842, 30.7995),
    ],
)
def test_large_gaussian_instances_fall_between_published_bounds(points, dim, criterion, low, high):
    design = jaxdesign.optimize(regression_pool(gaussian(points, dim)), criterion, FOUR, tol=1e-6)
    assert design.status is Status.CERTIFIED
    assert low - 1e-6 <= design.certificate.value <= high + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("points", "value"), [(200, 19.103641098376), (120, 37.644727474028)])
def test_the_uniform_design_has_its_published_value(points, value):
    pool = regression_pool(accbpg_instance(80, points))
    pairs = np.stack([np.arange(points), np.zeros(points, int), np.ones(points, int)], axis=1)
    design = jaxdesign.evaluate(pool, LogDet(), FOUR, pairs, np.full(points, 4 / points))
    assert design.certificate.value == pytest.approx(value, abs=2e-6)
    assert design.certificate.lower_bound <= TRUTHS[f"accbpg 80 x {points}"].value


@pytest.mark.parametrize(
    "name", ["polynomial of degree 3", "cube", "ellipsoid, lifted", "interactions of 4 attributes"]
)
def test_the_largest_sensitivity_is_the_dimension(name):
    """Kiefer and Wolfowitz 1960: at the optimum max b = d / m, equal on the support, and above d / m anywhere else."""
    truth = TRUTHS[name]
    pool = truth.pool()
    design, _ = solve_padded(pool, truth.criterion, truth.budget)
    labels, _, z, c = labels_of_all_pairs(pool, design)
    level = pool.dim / truth.budget.total
    A = np.einsum("s,sd,se->de", labels * c[0], z, z)
    b = c[0] * np.einsum("sd,de,se->s", z, np.linalg.inv(A), z)
    assert level * (1 - 1e-9) <= b.max() <= level * (1 + 2e-6)
    heavy = labels > 0.01 * labels.max()
    np.testing.assert_allclose(b[heavy], level, rtol=1e-3)
    even = np.linalg.inv(np.einsum("s,sd,se->de", c[0] * truth.budget.total / len(z), z, z))
    assert (c[0] * np.einsum("sd,de,se->s", z, even, z)).max() >= level * (1 - 1e-12)
