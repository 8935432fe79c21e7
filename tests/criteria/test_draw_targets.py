"""Trace with one target per parameter draw: mean of tr(H_r A_r^-1), by all solvers and choices of whole labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign
from jaxdesign import Budget, Trace, greedy, select_pairs
from jaxdesign._pairs import Allocation
from jaxdesign.door import make_problem
from jaxdesign.exact.exchange.exchange import exchange
from tests.support.problems import (
    DIM,
    DRAWS,
    gradients_of,
    information_of,
    random_pool,
    random_spd,
    sensitivities_of,
    written_out,
)

TARGETS = np.stack([random_spd(seed) for seed in range(DRAWS)])
PRIOR = 0.2 * np.eye(DIM)


def value_of(pool, design):
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    labels[[index[tuple(pair)] for pair in np.asarray(design.pairs).tolist()]] = design.labels
    matrices = information_of(z, c, labels, PRIOR)
    return float(np.mean([np.trace(np.linalg.solve(A, H)) for A, H in zip(matrices, TARGETS, strict=True)]))


def test_value_gradient_and_curvature():
    matrices = np.stack([random_spd(10 + r) + np.eye(DIM) for r in range(DRAWS)])
    with jax.enable_x64(True):
        criterion = Trace(TARGETS)
        expected = np.mean([np.trace(np.linalg.solve(A, H)) for A, H in zip(matrices, TARGETS, strict=True)])
        assert float(criterion.value(matrices)) == pytest.approx(expected)
        for r in range(DRAWS):
            np.testing.assert_allclose(criterion.gradient(matrices)[r], gradients_of(matrices, TARGETS[r])[r])
        change = np.stack([random_spd(20 + r) for r in range(DRAWS)])
        slope = jax.jvp(criterion.gradient, (jnp.asarray(matrices),), (jnp.asarray(change),))[1]
        np.testing.assert_allclose(criterion.curvature(jnp.asarray(matrices))(change), -slope, rtol=1e-9)


@pytest.mark.parametrize(
    "solver", ["column_generation", "interior_point", pytest.param("matrix_atoms", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_designs_agree_with_the_reference(solver):
    pool, budget = random_pool(2, "draws"), Budget(15, 2)
    design = jaxdesign.optimize(pool, Trace(TARGETS), budget, prior=PRIOR, tol=1e-5, solver=solver)
    reference = jaxdesign.reference.optimize(pool, Trace(TARGETS), budget, prior=PRIOR)
    assert design.certificate.value == pytest.approx(value_of(pool, design), rel=1e-6)
    assert design.certificate.value == pytest.approx(reference.certificate.value, rel=3e-5)
    assert design.certificate.lower_bound <= reference.certificate.value * (1 + 1e-9)


@pytest.mark.slow
def test_whole_labels_and_their_swaps():
    pool, budget = random_pool(2, "draws"), Budget(10, 1)
    batch = select_pairs(pool, Trace(TARGETS), budget, prior=PRIOR, tol=1e-6)
    assert batch.certificate.value == pytest.approx(value_of(pool, batch), rel=1e-6)
    problem = make_problem(pool, Trace(TARGETS), budget, PRIOR)
    picks, _ = greedy(pool, Trace(TARGETS), size=10, prior=PRIOR)
    found = exchange(problem, Allocation(np.asarray(picks), np.ones(10)))
    assert found[2].optimal
    pairs, z, c = written_out(pool)
    labels = np.array([tuple(pair) in set(map(tuple, found[0].tolist())) for pair in pairs.tolist()], float)
    best = np.inf
    for k in np.flatnonzero(labels):
        for other in np.flatnonzero(labels == 0):
            moved = labels + np.eye(len(pairs))[other] - np.eye(len(pairs))[k]
            matrices = information_of(z, c, moved, PRIOR)
            best = min(best, np.mean([np.trace(np.linalg.solve(A, H)) for A, H in zip(matrices, TARGETS, strict=True)]))
    assert best >= found[2].value * (1 - 1e-7)


@pytest.mark.slow
def test_the_certificate_uses_the_draws_own_targets():
    pool, budget = random_pool(2, "draws"), Budget(10)
    design = jaxdesign.optimize(pool, Trace(TARGETS), budget, prior=PRIOR)
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    labels[[index[tuple(pair)] for pair in design.pairs.tolist()]] = design.labels
    matrices = information_of(z, c, labels, PRIOR)
    G = np.stack([gradients_of(matrices, H)[r] for r, H in enumerate(TARGETS)])
    b = sensitivities_of(z, c, G)
    linear = np.mean(np.trace(G @ PRIOR, axis1=1, axis2=2)) + 10 * b.max()
    evaluated = jaxdesign.evaluate(pool, Trace(TARGETS), budget, design.pairs, design.labels, prior=PRIOR).certificate
    assert evaluated.lower_bound == pytest.approx(evaluated.value**2 / linear, rel=1e-5)


@pytest.mark.parametrize("scores", ["yes", "draws"])
def test_as_many_targets_as_draws(scores):
    with pytest.raises(ValueError, match=r"H: shape \(2, 3, 3\) found; expected \(3, 3\)"):
        jaxdesign.optimize(random_pool(2, scores), Trace(TARGETS[:2]), Budget(10))
