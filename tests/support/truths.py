"""Design problems with known answers, as pools: the ground truth of every solver.

Independent of the package: classical results of optimal design, each with its source. A regression problem is a pool of
two-completion prompts (see `problems.regression_pool`); with 4 labels its information is the moment matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from jaxdesign.budget.budget import Budget
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.trace import Trace
from jaxdesign.pool import CompletionPool
from tests.support.problems import regression_pool


@dataclass(frozen=True)
class Truth:
    """A problem, its best value, and where they are known and unique the labels by prompt or by pair."""

    pool: Callable[[], CompletionPool]
    criterion: Any
    budget: Budget
    value: float
    prior: Any = None
    by_prompt: Any = None  # (P,) labels summed within prompts
    labels: Any = None  # (N,) labels of all pairs in order
    small: bool = True  # within reach of the reference solver in a second
    atol: float = 2e-6


def polynomial_nodes(degree):
    """Optimal support on [-1, 1]: the ends and the roots of P_p' (Fedorov 1972)."""
    return np.concatenate([[-1.0], np.sort(np.polynomial.Legendre.basis(degree).deriv().roots().real), [1.0]])


def polynomial_value(degree):
    """-log det of the D-optimal moment matrix of 1, x .. x^degree on [-1, 1]."""
    q = degree + 1
    squares = sum(k * np.log(k) for k in range(2, q + 1)) + sum(k * np.log(k) for k in range(2, q - 1))
    return q * np.log(q) - squares + sum(j * np.log(j) for j in range(3, 2 * q - 2, 2))


def monomials(x, degree):
    return np.vander(x, degree + 1, increasing=True)


def full_quadratic(grid):
    """1, x_k, x_k^2, x_k x_l of every row."""
    cross = [grid[:, a] * grid[:, b] for a, b in combinations(range(grid.shape[1]), 2)]
    return np.column_stack([np.ones(len(grid)), grid, grid**2, *cross])


def graph(vertices, edges):
    """z = e_i - e_j of every edge, the last vertex grounded."""
    rows = np.zeros((len(edges), vertices))
    for k, (i, j) in enumerate(edges):
        rows[k, i], rows[k, j] = 1, -1
    return rows[:, :-1]


def complete_graphs(*sizes):
    """Prompt p offers the complete graph on sizes[p] completions, in coordinates of its own."""
    dim = sum(size - 1 for size in sizes)
    features = np.zeros((len(sizes), max(sizes), dim), np.float32)
    mask = np.zeros(features.shape[:2], bool)
    start = 0
    for p, size in enumerate(sizes):
        features[p, : size - 1, start : start + size - 1] = np.eye(size - 1)
        mask[p, :size] = True
        start += size - 1
    return CompletionPool(features, mask=mask)


def grounded_trace_target(*sizes):
    """H = blocks I - 11'/k: with it tr(H A^-1) is the trace of the pseudo-inverse of the Laplacians."""
    blocks = [np.eye(size - 1) - 1 / size for size in sizes]
    dim = sum(len(block) for block in blocks)
    target, start = np.zeros((dim, dim)), 0
    for block in blocks:
        target[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return target


def profiles(attributes, interactions):
    """All profiles of +-1 attributes as the completions of one prompt, with two-factor interactions or without."""
    grid = np.array(list(product([-1.0, 1.0], repeat=attributes)))
    cross = [grid[:, a] * grid[:, b] for a, b in combinations(range(attributes), 2)] if interactions else []
    return CompletionPool(np.column_stack([grid, *cross])[None].astype(np.float32))


def three_items(strengths):
    return CompletionPool(np.float32([[[1, 0], [0, 1], [0, 0]]]), np.float32([strengths]))


def accbpg_instance(dim, points):
    """The random instance published with accbpg (Hanzely, Richtarik and Xiao 2021)."""
    return np.random.RandomState(10).randn(dim, points).T


def gaussian(points, dim):
    return np.random.default_rng(0).standard_normal((points, dim))


FOUR = Budget(4)  # 4 labels of information 1/4
SQUARE = np.array([[1.0, 2, 0], [0, 1, 1], [1, 0, 3]])
TARGET = np.array([[2.0, 0.5, 0], [0.5, 1, 0.2], [0, 0.2, 3]])
SHARES = np.sqrt(np.diag(np.linalg.inv(SQUARE).T @ TARGET @ np.linalg.inv(SQUARE)))
SCALES, CAPS, HELD = np.array([1, 2, 0.5, 3, 1.5]), np.array([0.1, 0.3, 0.5, 0.15, 0.4]), [0.3, 0.1, 0.02, 0.5, 0.05]
VERTEX, EDGE = 0.14579089, 0.08016085
CYCLE = [(k, (k + 1) % 5) for k in range(5)]
CUBE = [(i, j) for i, j in combinations(range(8), 2) if bin(i ^ j).count("1") == 1]
PETERSEN = (
    [(k, (k + 1) % 5) for k in range(5)] + [(k, k + 5) for k in range(5)] + [(5 + k, 5 + (k + 2) % 5) for k in range(5)]
)
TREE = [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5)]


def bipartite(a, b):
    return [(i, a + j) for i in range(a) for j in range(b)]


def row(points, value, criterion=None, **more):
    points = np.asarray(points, float)
    return Truth(lambda: regression_pool(points), criterion or LogDet(), more.pop("budget", FOUR), value, **more)


TRUTHS = {
    # Fedorov 1972; the values in closed form
    **{
        f"polynomial of degree {p}": row(
            monomials(np.unique(np.concatenate([polynomial_nodes(p), np.linspace(-1, 1, 41)])), p), polynomial_value(p)
        )
        for p in (1, 2, 3, 4, 5)
    },
    "quadratic, A-optimal": row(monomials(np.array([-1.0, 0, 1]), 2), 8.0, Trace(np.eye(3)), by_prompt=[1, 2, 1]),
    # Atkinson and Donev print 4.47 and 7.46
    "full quadratic on a 3 x 3 grid": row(
        full_quadratic(np.array(list(product([-1.0, 0, 1], repeat=2)))),
        4.4717764193,
        by_prompt=4 * np.array([VERTEX, EDGE, VERTEX, EDGE, 0.09619302, EDGE, VERTEX, EDGE, VERTEX]),
    ),
    "full quadratic on a 3 x 3 x 3 grid": row(
        full_quadratic(np.array(list(product([-1.0, 0, 1], repeat=3)))), 7.4553959088
    ),
    # saturated designs
    "saturated, LogDet": row(
        SQUARE, 3 * np.log(3) - 2 * np.log(abs(np.linalg.det(SQUARE))), by_prompt=np.full(3, 4 / 3)
    ),
    "saturated, Trace": row(SQUARE, SHARES.sum() ** 2, Trace(TARGET), by_prompt=4 * SHARES / SHARES.sum()),
    # water-filling between a prior and caps; labels are 20 times the weights, so that no cap is below one label
    "water-filling, LogDet": row(
        np.diag(SCALES),
        3.1403112657 - 5 * np.log(5),
        prior=5 * np.diag(HELD),
        budget=Budget(20, 20 * CAPS),
        by_prompt=20 * np.array([0.01930556, 0.29430556, 0.23930556, 0.15, 0.29708333]),
    ),
    "water-filling, Trace": row(
        np.diag(SCALES), 13.8196286472 / 5, Trace(np.eye(5)), prior=5 * np.diag(HELD), budget=Budget(20, 20 * CAPS)
    ),
    # graphs: resistances and spanning trees
    "complete graph K8": Truth(lambda: complete_graphs(8), LogDet(), FOUR, 10.8487823211, labels=np.full(28, 4 / 28)),
    "complete graph K8, Trace": Truth(lambda: complete_graphs(8), Trace(grounded_trace_target(8)), FOUR, 24.5),
    "three independent prompts": Truth(
        lambda: complete_graphs(3, 4, 2), LogDet(), FOUR, 9.7697275636, by_prompt=4 * np.array([2, 3, 1]) / 6
    ),
    "three independent prompts, Trace": Truth(
        lambda: complete_graphs(3, 4, 2),
        Trace(grounded_trace_target(3, 4, 2)),
        FOUR,
        18.0,
        by_prompt=4 * np.array([2, 3, 1]) / 6,
    ),
    "tree": row(graph(6, TREE), 5 * np.log(5), by_prompt=np.full(5, 4 / 5)),
    "cycle C5": row(graph(5, CYCLE), 4.8283137373, by_prompt=np.full(5, 4 / 5)),
    "bipartite K33": row(graph(6, bipartite(3, 3)), 6.5916737320, by_prompt=np.full(9, 4 / 9)),
    "bipartite K24": row(graph(6, bipartite(2, 4)), 6.9314718056, by_prompt=np.full(8, 4 / 8)),
    "cube": row(graph(8, CUBE), 11.4437039959, by_prompt=np.full(12, 4 / 12)),
    "Petersen graph": row(graph(10, PETERSEN), 16.7715493504, by_prompt=np.full(15, 4 / 15)),
    # Grasshoff and Schwabe 2008, three items under Bradley-Terry; one label, its information from the scores
    "three equal items": Truth(lambda: three_items([0, 0, 0]), LogDet(), Budget(1), np.log(48), labels=[1 / 3] * 3),
    "three items (.5, 0, -.5)": Truth(lambda: three_items([0.5, 0, -0.5]), LogDet(), Budget(1), 4.1059857694),
    "three items (1, 0, 0)": Truth(lambda: three_items([1, 0, 0]), LogDet(), Budget(1), 4.1801946867),
    "three items (2, 0, -2), a path": Truth(
        lambda: three_items([2, 0, -2]), LogDet(), Budget(1), 5.8940064053, labels=[0.5, 0, 0.5]
    ),
    # paired comparisons (van Berkum 1987; Grasshoff et al. 2003)
    "main effects of 4 attributes": Truth(lambda: profiles(4, False), LogDet(), FOUR, -4 * np.log(4)),
    "main effects of 4 attributes, Trace": Truth(lambda: profiles(4, False), Trace(np.eye(4)), FOUR, 1.0),
    "interactions of 3 attributes": Truth(lambda: profiles(3, True), LogDet(), FOUR, -5.8849755181),
    "interactions of 3 attributes, Trace": Truth(lambda: profiles(3, True), Trace(np.eye(6)), FOUR, 2.25),
    "interactions of 4 attributes": Truth(lambda: profiles(4, True), LogDet(), FOUR, -8.7546873735),
    "interactions of 4 attributes, Trace": Truth(lambda: profiles(4, True), Trace(np.eye(10)), FOUR, 4.1666667),
    "interactions of 5 attributes": Truth(lambda: profiles(5, True), LogDet(), FOUR, -13.1320310603, small=False),
    "interactions of 5 attributes, Trace": Truth(lambda: profiles(5, True), Trace(np.eye(15)), FOUR, 6.25, small=False),
    # minimum-volume ellipsoids
    "ellipsoid, centred": row([[-1, 1], [-1, -1], [1, -1], [2, 2]], -np.log(4)),
    "ellipsoid, lifted": row(
        [[-1, 1, 1], [-1, -1, 1], [1, -1, 1], [2, 2, 1]], -0.9287132519, by_prompt=np.array([9, 4, 9, 10]) / 8
    ),
    "ellipsoid of the cross-polytope": row(np.concatenate([np.eye(4), -np.eye(4)]), 4 * np.log(4)),
    "ellipsoid of the cube, lifted": row(
        np.column_stack([np.array(list(product([-1.0, 1], repeat=4))), np.ones(16)]), 0.0
    ),
    # random instances, solved to a gap below 1e-6 by several independent codes
    "accbpg 80 x 200": row(accbpg_instance(80, 200), 17.584910160803, small=False),
    "accbpg 80 x 120": row(accbpg_instance(80, 120), 37.268976490763, small=False),
    "Gaussian 300 x 10": row(gaussian(300, 10), -5.656841),
    "Gaussian 300 x 10, A-optimal": row(gaussian(300, 10), 6.004113, Trace(np.eye(10))),
    "Gaussian 2000 x 20": row(gaussian(2000, 20), -10.455810, small=False),
    "Gaussian 2000 x 20, A-optimal": row(gaussian(2000, 20), 12.33504, Trace(np.eye(20)), small=False, atol=2e-5),
}
