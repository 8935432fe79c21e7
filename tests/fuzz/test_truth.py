"""The judge against closed forms: exact values, the best allocations it finds, and the rules of budgets."""

import math
from fractions import Fraction

import numpy as np
import pytest

from . import best, truth
from .allowed import best_vertex, broken, spread, whole_vertex, written_rules

QUADRATIC = np.array([[1, x, x * x] for x in (-1.0, 0.0, 1.0)])


def regression(points, prior=None):
    """A pool of two-completion prompts, x and 0, so that z = x and c = 1/4."""
    features = np.zeros((len(points), 2, points.shape[1]))
    features[:, 0] = points
    return truth.written_out(features, None, np.ones(features.shape[:2], bool), None, prior)


def found(elements, criterion, **budget):
    allowed = written_rules(elements.rows, elements.rows[:, 0].max() + 1, budget, None, whole=False)
    labels = best.relaxed(best.prepare(elements, allowed, criterion))
    assert not [share for _, share in broken(allowed, labels) if share > 1e-12]
    return labels, truth.value(criterion, truth.information(elements, labels))


def test_values_are_exact_where_floating_point_has_no_digit_left():
    scale, faint = 2.0**300, 2.0**-60
    prior = np.array([[1.0, 1.0], [1.0, 1.0 + faint * 2**8]]) * scale
    elements = regression(np.array([[0.0, 2.0**-400]]), prior)
    matrix = truth.information(elements, [4.0])
    det = Fraction(2) ** 600 * Fraction(2) ** -52 + Fraction(2) ** 300 * Fraction(2) ** -800
    assert truth.value(truth.Criterion("logdet"), matrix) == pytest.approx(-(600 - 52) * math.log(2), rel=1e-15)
    assert Fraction(truth.bareiss(matrix.integers[0]).det, 1 << 2 * matrix.scale) == det
    trace = Fraction(2) ** 300 * (2 + Fraction(2) ** -52) / det
    assert truth.value(truth.Criterion("trace", np.eye(2)[None]), matrix) == pytest.approx(float(trace), rel=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_values_agree_with_floating_point_where_that_is_good(seed):
    rng = np.random.default_rng(seed)
    features, scores = rng.standard_normal((4, 3, 3)), rng.standard_normal((2, 4, 3))
    root = rng.standard_normal((3, 3))
    H = root @ root.T
    elements = truth.written_out(features, scores, np.ones((4, 3), bool), None, 0.1)
    labels = rng.random(len(elements.rows))
    p, i, j, _ = elements.rows.T
    z, margin = features[p, i] - features[p, j], scores[:, p, i] - scores[:, p, j]
    A = 0.1 * np.eye(3) + np.einsum("re,ed,ef->rdf", labels / (2 + 2 * np.cosh(margin)), z, z)
    inverse = np.linalg.inv(A)
    matrix = truth.information(elements, labels)
    expected = {
        "logdet": -np.linalg.slogdet(A)[1].mean(),
        "trace": np.mean([np.trace(H @ x) for x in inverse]),
        "worst": max(np.mean([np.trace(h @ x) for x in inverse]) for h in (H, np.eye(3))),
        "square": np.mean([np.trace(x @ x) for x in inverse]),
    }
    for kind, number in expected.items():
        targets = {"trace": H[None], "worst": np.array([H, np.eye(3)])}.get(kind)
        assert truth.value(truth.Criterion(kind, targets), matrix) == pytest.approx(number, rel=1e-12)


def test_flips_cost_information_as_the_formula_says():
    u, eps = 1.3, 0.2
    p = (1 - 2 * eps) / (1 + math.exp(-u)) + eps
    slope = (1 - 2 * eps) / (2 + 2 * math.cosh(u))
    value = truth.label_information(Fraction(u), Fraction(eps))
    assert float(value) == pytest.approx(slope**2 / (p * (1 - p)), rel=1e-13)
    assert truth.label_information(Fraction(-u), Fraction(eps)) == pytest.approx(float(value), rel=1e-14)
    assert truth.label_information(Fraction(0), Fraction(0)) == Fraction(1, 4)


def test_the_own_solver_finds_the_best_quadratic_regressions():
    elements = regression(QUADRATIC)
    labels, _ = found(elements, truth.Criterion("logdet"), total=12.0)
    assert labels == pytest.approx([4, 4, 4], abs=1e-4)
    labels, value = found(elements, truth.Criterion("trace", np.eye(3)[None]), total=4.0)
    assert labels == pytest.approx([1, 2, 1], abs=1e-4) and value == pytest.approx(8.0, rel=1e-10)
    labels, _ = found(elements, truth.Criterion("logdet"), total=12.0, per_pair=np.array([np.inf, np.inf, 2.0]))
    assert labels == pytest.approx([5, 5, 2], abs=1e-4)
    far = {"of": [0, 0, 1], "at_least": {1: 6.0}, "at_most": None, "name": "side"}
    labels, _ = found(elements, truth.Criterion("logdet"), total=12.0, quotas=[far])
    assert labels == pytest.approx([3, 3, 6], abs=1e-4)


def test_the_own_solver_finds_the_best_worst_case():
    elements = regression(np.eye(2))  # A = diag(n) / 4: the largest of 4 / n_1 and 8 / n_2
    H = np.array([np.diag([1.0, 0.0]), np.diag([0.0, 2.0])])
    labels, value = found(elements, truth.Criterion("worst", H), total=3.0)
    assert labels == pytest.approx([1, 2], rel=1e-3) and value == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize("scale", [2.0**-200, 1.0, 2.0**200])
def test_the_own_solver_knows_no_units(scale):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((9, 3))
    plain, _ = found(regression(points), truth.Criterion("logdet"), total=7.0)
    labels, _ = found(
        regression(points * scale * np.array([1, 2.0**30, 2.0**-30])), truth.Criterion("logdet"), total=7.0
    )
    assert labels == pytest.approx(plain, abs=1e-4)


def test_every_rule_that_is_broken_is_named():
    rows = np.array([(0, 0, 1, 0), (0, 0, 2, 0), (1, 0, 1, 0), (1, 1, 2, 0)])
    cost = np.array([[1.0, 0, 2], [0, 3, 0]])
    budget = {
        "total": 6.0, "per_pair": 2.0, "per_prompt": np.array([4.0, np.inf]), "per_prompt_min": 1.0,
        "cost": cost, "cost_total": 13.0, "exclude": [(1, 2, 1)], "required": [(0, 1, 0)],
        "quotas": [{"of": ["a", "b"], "at_most": {"b": 3.0}, "name": "kind"}],
    }  # fmt: skip
    allowed = written_rules(rows, 2, budget, None, whole=True)

    def names(labels):
        return {name for name, _ in broken(allowed, labels)}

    assert names([1, 2, 2, 0]) == {"total"}
    assert names([1, 3, 2, 0]) == {"cap", "cost at most"}
    assert names([0, 2, 2, 0]) == {"total", "required"}
    assert names([2, 2, 2, 0]) == {"closed", "cost at most"}
    assert names([1, 2, 2, 1]) == {"closed"} | {"cost at most"}
    assert names([1, 5, 0, 0]) == {"cap", "prompt 0 at most", "prompt 1 at least", "cost at most"}
    assert names([1, 1.5, 3.5, 0]) == {"cap", "kind b at most", "cost at most", "whole"}
    assert spread(allowed) is None and best_vertex(allowed, np.ones(4)) is None  # no six labels obey all of that
    less = written_rules(rows, 2, budget | {"total": 5.0}, None, whole=True)
    assert not broken(less, best_vertex(less, np.arange(4.0))) and not broken(less, whole_vertex(less, np.arange(4.0)))


def test_enumeration_finds_every_whole_allocation():
    rows = np.array([(0, 0, 1, 0), (0, 0, 2, 0), (0, 1, 2, 0)])
    assert len(best.enumerated(written_rules(rows, 1, {"total": 4.0}, None, whole=True))) == 15
    assert len(best.enumerated(written_rules(rows, 1, {"total": 4.0, "per_pair": 2.0}, None, whole=True))) == 6
    assert len(best.enumerated(written_rules(rows, 1, {"total": 4.0, "labels_per_task": 2}, None, whole=True))) == 6
