"""How well reliability is known: errors of many crowds, Beta posteriors, quadrature, the joint information."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import fixed_quad
from scipy.special import xlogy

from jaxdesign import CompletionPool
from jaxdesign.preference.fit import reliability
from jaxdesign.preference.fit.reliability import estimate_reliability
from jaxdesign.preference.labels.labels import FIRST, SECOND, as_labels
from tests.support.crowds import a_pool, a_truth, judged, log_likelihood, plain_pool


@pytest.mark.slow
def test_errors_are_as_large_as_stated():
    """Standardised errors of 12 crowds x 4 annotators, 1,800 labels each: mean square 1 +- 0.2."""
    pool, eta = a_pool(1), [0.9, 0.8, 0.7, 0.6]
    found = [estimate_reliability(pool, judged(pool, a_truth(pool, 1), eta, 10, seed=seed)) for seed in range(12)]
    squares = [((one.eta - eta) / one.standard_error) ** 2 for one in found]
    assert abs(np.mean(squares) - 1) < 3 * 0.2


def test_nothing_is_known_about_eta_where_margins_are_zero():
    """Labels that cancel: w = 0, and any eta is as good."""
    pool = CompletionPool(np.array([[[1.0], [0.0]]]))
    found = estimate_reliability(pool, as_labels([(0, 0, 1)] * 4, [FIRST, SECOND] * 2))
    assert abs(found.parameter[0]) < 1e-9
    assert found.standard_error[0] == pytest.approx(1 / np.sqrt(12)) and found.posterior_mean[0] == pytest.approx(0.5)


def sure(labels_of, pseudo=(0.0, 0.0)):
    """Annotators 2, 3 ... beside two who have settled that the first is better: p = sigma(w) close to 1."""
    pairs = [(p, 0, 1) for p in range(30)]
    extra = [
        (pairs[k], choice, 2 + a)
        for a, (right, wrong) in enumerate(labels_of)
        for k, choice in enumerate([FIRST] * right + [SECOND] * wrong)
    ]
    rows = pairs * 20 + [pair for pair, *_ in extra]
    choices = [FIRST] * 600 + [choice for _, choice, _ in extra]
    who = np.r_[np.repeat([0, 1], 300), [a for *_, a in extra]].astype(int)
    return estimate_reliability(plain_pool(), as_labels(rows, choices, who), prior=1e-6, pseudo_labels=pseudo)


@pytest.mark.thorough
def test_few_labels_leave_what_a_beta_prior_leaves():
    """At p = 1 the posterior is Beta(1 + a + right, 1 + b + wrong). A curvature at eta = 1 said 0.035 for one label."""
    few = [(1, 0), (3, 0), (4, 1), (2, 6), (0, 1)]
    for pseudo in ((0.0, 0.0), (4.0, 0.5)):
        found = sure(few, pseudo)
        for k, (right, wrong) in enumerate(few):
            a, b = 1 + pseudo[0] + right, 1 + pseudo[1] + wrong
            assert found.posterior_mean[2 + k] == pytest.approx(a / (a + b), abs=1e-3)
            assert found.standard_error[2 + k] == pytest.approx(np.sqrt(a * b / (a + b) ** 2 / (a + b + 1)), rel=0.06)
    assert sure([(1, 0)]).standard_error[2] == pytest.approx(0.2357, abs=5e-3)


def of_piece(log_density, low, high, top, middle, power):
    def density(etas):
        return np.array([np.exp(log_density(eta) - top) * (eta - middle) ** power for eta in etas])

    return fixed_quad(density, low, high, n=4)[0]


def test_the_posterior_of_eta_is_its_integral():
    """Against SciPy's quadrature in 360 pieces, label by label, with margins and numbers of labels of any size."""
    rng = np.random.default_rng(0)
    sizes = [1, 3, 40, 3000]
    who = np.repeat(np.arange(4), sizes)
    margins = 3 * rng.standard_normal(len(who))
    seen = rng.integers(0, 3, (len(who), 2)).astype(float)
    seen[who == 3, 1] = 0  # mode at an end
    margins[who == 3] = np.abs(margins[who == 3]) + 5
    for pseudo in (np.zeros(2), np.array([2.5, 0.3])):
        mean, variance = reliability._eta_posterior(margins, seen, who, pseudo, 4)
        for k in range(4):
            p = 1 / (1 + np.exp(-margins[who == k]))

            def log_density(eta, p=p, k=k, pseudo=pseudo):
                q = eta * p + (1 - eta) * (1 - p)
                data = (seen[who == k] * np.log(np.stack([q, 1 - q], axis=1))).sum()
                return data + xlogy(pseudo[0], eta) + xlogy(pseudo[1], 1 - eta)

            grid = np.r_[np.linspace(1e-9, 1 - 1e-9, 301), 1 - np.logspace(-2.2, -8, 60)]
            top = max(log_density(eta) for eta in grid)
            nodes = np.sort(np.r_[0, grid, 1])
            pieces = list(pairwise(nodes))
            values = [np.array([of_piece(log_density, *piece, top, mean[k], n) for piece in pieces]) for n in range(3)]
            total, first, second = (v.sum() for v in values)
            assert abs(first / total) < 1e-4 * np.sqrt(variance[k])
            assert variance[k] == pytest.approx(second / total, rel=1e-4)


def test_the_error_is_the_joint_one_where_w_is_uncertain_and_never_beyond_the_prior():
    """Large numbers: the inverse of the joint information of (w, eta), by differences of the likelihood."""
    pool = a_pool(1, prompts=6, dim=3)
    labels = judged(pool, a_truth(pool, 2), [0.9, 0.7], 400)
    found = estimate_reliability(pool, labels, tol=1e-9, max_iterations=5000)
    x, step = np.r_[found.parameter, found.eta], 1e-4
    joint = np.empty((5, 5))
    for a, b in np.ndindex(5, 5):
        ea, eb = step * np.eye(5)[a], step * np.eye(5)[b]
        f = [log_likelihood(pool, labels, y[:3], y[3:]) for y in (x + ea + eb, x + ea - eb, x - ea + eb, x - ea - eb)]
        joint[a, b] = -(f[0] - f[1] - f[2] + f[3]) / (4 * step**2)
    np.testing.assert_allclose(found.standard_error, np.sqrt(np.diagonal(np.linalg.inv(joint))[3:]), rtol=0.1)
    alone = 1 / np.sqrt(np.diagonal(joint)[3:])
    assert (found.standard_error > 1.1 * alone).all()
    # one pair, one annotator: w and eta cannot be told apart
    one = estimate_reliability(plain_pool(1), as_labels([(0, 0, 1)] * 50, [FIRST] * 40 + [SECOND] * 10), prior=1e-3)
    assert one.standard_error[0] == pytest.approx(1 / np.sqrt(12), rel=1e-6)
