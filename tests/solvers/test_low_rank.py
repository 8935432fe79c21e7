"""Designs found in the leading dimensions: certificates of all dimensions, the loss bound, what is refused."""

import numpy as np
import pytest

from jaxdesign import Budget, CompletionPool, Criterion, LogDet, Trace, evaluate, optimize
from jaxdesign.door import make_problem
from jaxdesign.solvers import low_rank_design
from jaxdesign.solvers.low_rank import leading_subspace

DIM, PRIOR = 12, 0.5
BUDGETS = [Budget(60), Budget(60, per_pair=1), Budget(40, per_prompt=3)]


def falling_pool(seed=0, decay=0.6):
    """Features whose spectrum falls, mixed so that no column is a direction of its own."""
    rng = np.random.default_rng(seed)
    mixing = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    features = rng.standard_normal((20, 5, DIM)) * decay ** np.arange(DIM) @ mixing
    return CompletionPool((3 * features).astype(np.float32))


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("budget", BUDGETS, ids=["repeats", "caps", "quotas"])
@pytest.mark.parametrize("rank", [2, 5])
def test_the_best_design_of_all_dimensions_is_within_the_bounds(rank, budget):
    pool = falling_pool()
    best = optimize(pool, LogDet(), budget, prior=PRIOR, tol=1e-6).certificate
    design = low_rank_design(pool, LogDet(), budget, rank, prior=PRIOR, tol=1e-5)
    given = evaluate(pool, LogDet(), budget, design.pairs, design.labels, PRIOR).certificate
    assert (design.certificate.value, design.certificate.efficiency) == (given.value, given.efficiency)
    assert best.lower_bound <= design.certificate.value
    said = design.report["subspace"]
    assert said["lower_bound"] <= best.value + 1e-5
    assert design.certificate.value - best.value <= said["loss"] + 1e-3


def test_losses_fall_with_the_rank_and_vanish_at_the_whole():
    problem = make_problem(falling_pool(), LogDet(), BUDGETS[0], PRIOR)
    losses = [leading_subspace(problem, rank).loss for rank in range(1, DIM + 1)]
    assert (np.diff(losses) < 0).all()
    assert losses[-1] == 0


def test_the_loss_is_that_of_its_formula():
    pool, rank = falling_pool(1), 4
    problem = make_problem(pool, LogDet(), Budget(60), PRIOR)
    features = np.asarray(pool.features, np.float64)
    i, j = np.triu_indices(features.shape[1], 1)
    z = (features[:, i] - features[:, j]).reshape(-1, DIM) / np.sqrt(PRIOR)
    W = np.linalg.eigh(z.T @ z)[1][:, : DIM - rank]
    S = 60 * np.max(np.sum((z @ W) ** 2, axis=1)) / 4  # all labels on the pair with most of it
    expected = (DIM - rank) * np.log1p(S / (DIM - rank))
    np.testing.assert_allclose(leading_subspace(problem, rank).loss, expected, rtol=1e-6)


@pytest.mark.parametrize("criterion", [LogDet(), Trace(np.diag(np.arange(1.0, DIM + 1)))], ids=["LogDet", "Trace"])
def test_in_all_dimensions_it_is_the_optimum(criterion):
    pool = falling_pool()
    design = low_rank_design(pool, criterion, Budget(60), DIM, prior=PRIOR, tol=1e-5)
    assert design.certificate.relative_gap() <= 3e-5
    best = optimize(pool, criterion, Budget(60), prior=PRIOR, tol=1e-5)
    np.testing.assert_allclose(design.certificate.value, best.certificate.value, rtol=1e-4)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("criterion", [LogDet(), Trace(np.eye(DIM))], ids=["LogDet", "Trace"])
def test_where_the_prior_dwarfs_what_is_left_out_little_is_lost(criterion):
    pool = falling_pool(decay=0.3)
    if isinstance(criterion, Trace):
        criterion = Trace(np.cov(np.asarray(pool.features).reshape(-1, DIM).T))
    design = low_rank_design(pool, criterion, Budget(60), 7, prior=PRIOR)
    assert design.certificate.efficiency > 0.95
    carried_on = optimize(pool, criterion, Budget(60), prior=PRIOR, start=design)
    assert carried_on.certificate.relative_gap() <= 1e-3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rank": DIM + 1}, ValueError, "more than the 12 dimensions"),
        ({"rank": 0}, ValueError, "rank=0"),
        ({"prior": None}, ValueError, "prior: singular"),
        ({"crit": Criterion(lambda A: -A.trace())}, TypeError, "expected LogDet"),
    ],
)
def test_what_is_refused(change, error, message):
    arguments = {"pool": falling_pool(), "crit": LogDet(), "budget": Budget(60), "rank": 3, "prior": PRIOR} | change
    with pytest.raises(error, match=message):
        low_rank_design(**arguments)
