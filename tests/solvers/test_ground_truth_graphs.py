"""Graphs and paired comparisons with exact solutions, drawn at random and solved in one common shape."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import Budget, CompletionPool, LogDet, Status, Trace
from tests.support.padded import check_optimal, labels_of_all_pairs, solve_padded
from tests.support.problems import regression_pool
from tests.support.truths import FOUR, complete_graphs, graph, grounded_trace_target, profiles, three_items

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=12)


@pytest.mark.thorough
@pytest.mark.parametrize("vertices", [3, 5, 8, 11])
def test_complete_graphs_are_weighed_evenly(vertices):
    n, pool = vertices, complete_graphs(vertices)
    edges = n * (n - 1) // 2
    design, value = solve_padded(pool, LogDet(), FOUR)
    assert design.status is Status.CERTIFIED
    assert value == pytest.approx(-(n - 2) * np.log(n) + (n - 1) * np.log(edges), abs=2e-6)
    np.testing.assert_allclose(labels_of_all_pairs(pool, design)[0], 4 / edges, atol=2e-2 / edges)
    _, value = solve_padded(pool, Trace(grounded_trace_target(n)), FOUR)
    assert value == pytest.approx((n - 1) ** 2 / 2, rel=1e-6)


@pytest.mark.thorough
@few
@given(seed=seeds, vertices=st.integers(3, 11))
def test_trees_are_weighed_evenly(seed, vertices):
    rng = np.random.default_rng(seed)
    edges = [(int(rng.integers(k)), k) for k in range(1, vertices)]
    design, value = solve_padded(regression_pool(graph(vertices, edges)), LogDet(), FOUR)
    assert design.status is Status.CERTIFIED
    assert value == pytest.approx((vertices - 1) * np.log(vertices - 1), abs=2e-6)
    spent = np.bincount(design.pairs[:, 0], design.labels, vertices - 1)
    np.testing.assert_allclose(spent, 4 / (vertices - 1), rtol=5e-3)


@pytest.mark.thorough
@few
@given(sizes=st.lists(st.integers(2, 5), min_size=2, max_size=4).filter(lambda s: sum(s) - len(s) <= 10))
def test_independent_prompts_share_labels_by_their_dimension(sizes):
    dims = np.array(sizes) - 1
    pool, D = complete_graphs(*sizes), dims.sum()
    design, value = solve_padded(pool, LogDet(), FOUR)
    assert design.status is Status.CERTIFIED
    inside = sum((k - 2) * np.log(k) - (k - 1) * np.log(k * (k - 1) / 2) for k in sizes)
    assert value == pytest.approx(-inside - dims @ np.log(dims / D), abs=2e-6)
    spent = np.bincount(design.pairs[:, 0], design.labels, len(sizes))
    np.testing.assert_allclose(spent, 4 * dims / D, atol=4e-3)
    design, value = solve_padded(pool, Trace(grounded_trace_target(*sizes)), FOUR)
    assert design.status is Status.CERTIFIED
    assert value == pytest.approx(D**2 / 2, rel=1e-6)
    spent = np.bincount(design.pairs[:, 0], design.labels, len(sizes))
    np.testing.assert_allclose(spent, 4 * dims / D, atol=8e-3)


@few
@given(strengths=st.tuples(*[st.floats(-2.5, 2.5, width=16)] * 3))
def test_three_items_under_bradley_terry(strengths):
    """Grasshoff and Schwabe 2008: a triangle if the mu = 2 + 2 cosh obey the triangle inequality, else a path."""
    b = np.array(strengths)
    mu = np.array([2 + 2 * np.cosh(b[i] - b[j]) for i, j in combinations(range(3), 2)])  # 12, 13, 23
    p, q, r = mu
    largest = int(np.argmax(mu))
    if mu.sum() - 2 * mu[largest] > 0:
        S = 2 * (p * q + p * r + q * r) - (mu**2).sum()
        weights = np.array([p * (q + r - p), q * (p + r - q), r * (p + q - r)]) / S
        expected = np.log(S)
    else:
        weights = np.full(3, 0.5)
        weights[largest] = 0
        expected = np.log(4 * np.prod(np.delete(mu, largest)))
    pool = three_items(strengths)
    design, value = solve_padded(pool, LogDet(), Budget(1))
    assert design.status is Status.CERTIFIED
    assert value == pytest.approx(expected, abs=2e-6)
    np.testing.assert_allclose(labels_of_all_pairs(pool, design)[0], weights, atol=5e-3)


@pytest.mark.parametrize("attributes", [1, 2, 3])
def test_main_effects_are_compared_by_foldover_pairs(attributes):
    pool = profiles(attributes, False)
    design, value = solve_padded(pool, LogDet(), FOUR)
    assert value == pytest.approx(-attributes * np.log(4), abs=2e-6)
    features = np.asarray(pool.features)[0]
    opposite = (features[design.pairs[:, 1]] == -features[design.pairs[:, 2]]).all(axis=1)
    assert design.labels[opposite].sum() == pytest.approx(4, abs=1e-3)
    assert solve_padded(pool, Trace(np.eye(attributes)), FOUR)[1] == pytest.approx(attributes / 4, rel=1e-6)


@pytest.mark.parametrize("attributes", [2, 3, 4])
def test_interactions_fix_how_many_attributes_a_pair_changes(attributes):
    """K odd: (K + 1) / 2 attributes differ; K even: K / 2, and K / 2 + 1 with a share K / (2 (K + 1))."""
    K, pool = attributes, profiles(attributes, True)
    eigenvalue = 2 * (K + 1) / K if K % 2 else 2 * (K + 2) / (K + 1)
    dim = K * (K + 1) // 2
    design, value = solve_padded(pool, LogDet(), FOUR)
    assert value == pytest.approx(-dim * np.log(eigenvalue), abs=2e-6)
    assert solve_padded(pool, Trace(np.eye(dim)), FOUR)[1] == pytest.approx(dim / eigenvalue, rel=1e-6)
    features = np.asarray(pool.features)[0, :, :K]
    depth = (features[design.pairs[:, 1]] != features[design.pairs[:, 2]]).sum(axis=1)
    shares = np.bincount(depth, design.labels, K + 1) / 4
    expected = np.zeros(K + 1)
    if K % 2:
        expected[(K + 1) // 2] = 1
    else:
        expected[K // 2 + 1] = K / (2 * (K + 1))
        expected[K // 2] = 1 - expected[K // 2 + 1]
    np.testing.assert_allclose(shares, expected, atol=5e-3)


@pytest.mark.parametrize(("vertices", "edges", "best"), [(6, 9, 81), (10, 15, 2000)], ids=["K33", "Petersen"])
def test_relaxed_designs_bound_the_best_exact_graph(vertices, edges, best):
    """Most spanning trees with so many edges: K33 (all 5,005 graphs tried) and the Petersen graph. Each edge once."""
    pool, budget = complete_graphs(vertices), Budget(edges, per_pair=1)
    design, value = solve_padded(pool, LogDet(), budget)
    assert design.status is Status.CERTIFIED
    check_optimal(pool, LogDet(), budget, design, value)
    share = edges / (vertices * (vertices - 1) / 2)  # by symmetry and convexity every edge has the same share
    relaxed = (vertices - 2) * np.log(vertices) + (vertices - 1) * np.log(share)
    assert relaxed >= np.log(best)
    unit = (vertices - 1) * np.log(4)  # label information 1/4
    assert value == pytest.approx(unit - relaxed, abs=2e-6)
    assert value - design.certificate.gap <= unit - np.log(best)


def test_prompts_of_a_disconnected_graph_share_no_information():
    """One pool, two ways: components as prompts, or as one prompt per edge."""
    pool = complete_graphs(3, 4, 2)
    features, mask = np.asarray(pool.features), np.asarray(pool.mask)
    rows = [features[p, i] - features[p, j] for p in range(3) for i, j in combinations(np.flatnonzero(mask[p]), 2)]
    by_edge = CompletionPool(np.stack([rows, np.zeros_like(rows)], axis=1).astype(np.float32))
    first, second = (solve_padded(which, LogDet(), FOUR)[1] for which in (pool, by_edge))
    assert first == pytest.approx(9.7697275636, abs=2e-6)
    assert second == pytest.approx(first, abs=2e-6)
