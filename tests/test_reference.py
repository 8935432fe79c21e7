"""The cvxpy reference against problems with known answers and against the optimality conditions."""

import builtins

import numpy as np
import pytest

from jaxdesign import reference
from jaxdesign.budget.budget import Budget
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.of_function import Criterion
from jaxdesign.criteria.trace import Trace
from jaxdesign.design import Status
from jaxdesign.pool import CompletionPool
from tests.support.padded import fits, padded_budget, padded_matrix, padded_pool
from tests.support.problems import (
    COMPLETIONS,
    PROMPTS,
    criterion_of,
    frank_wolfe_gap,
    information_of,
    random_pool,
    random_spd,
    written_out,
)
from tests.support.truths import TRUTHS

pytest.importorskip("cvxpy", reason="the reference solver needs the extra `reference`")


SMALL = [name for name, truth in TRUTHS.items() if truth.small]
TRACE = ["quadratic, A-optimal", "saturated, Trace", "water-filling, Trace", "three independent prompts, Trace"]
PADDED = [name for name in SMALL if fits(TRUTHS[name].pool()) and isinstance(TRUTHS[name].criterion, LogDet)]


def check(truth, design, value):
    assert design.status is Status.CERTIFIED
    assert value == pytest.approx(truth.value, abs=truth.atol)
    assert value - design.certificate.gap <= truth.value + truth.atol
    assert design.certificate.efficiency >= 1 - 1e-6
    assert design.labels.sum() == pytest.approx(truth.budget.total, rel=1e-12)
    if truth.by_prompt is not None:
        spent = np.bincount(design.pairs[:, 0], design.labels, len(truth.by_prompt))
        np.testing.assert_allclose(spent, truth.by_prompt, atol=2e-3 * truth.budget.total)
    if truth.labels is not None:
        found = dict(zip(map(tuple, design.pairs.tolist()), design.labels, strict=True))
        labels = [found.get(tuple(pair), 0.0) for pair in written_out(truth.pool())[0].tolist()]
        np.testing.assert_allclose(labels, truth.labels, atol=2e-3 * truth.budget.total)


@pytest.mark.parametrize("name", PADDED)
def test_known_answers_are_found(name):
    """In one common shape, with dimensions that the prior knows already."""
    truth = TRUTHS[name]
    pool = truth.pool()
    prior = padded_matrix(truth.prior, pool.dim)
    design = reference.optimize(padded_pool(pool), truth.criterion, padded_budget(truth.budget), prior)
    check(truth, design, design.certificate.value)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "water-filling, Trace" else [pytest.mark.slow]) for name in SMALL],
)
def test_known_answers_are_found_in_shapes_of_their_own(name):
    truth = TRUTHS[name]
    design = reference.optimize(truth.pool(), truth.criterion, truth.budget, truth.prior)
    check(truth, design, design.certificate.value)


BUDGETS = {
    "total": {"total": 20.0},
    "per pair": {"total": 20.0, "per_pair": 1.0},
    "per prompt": {"total": 20.0, "per_prompt": 6.0},
    "both": {"total": 20.0, "per_pair": 3.0, "per_prompt": 5.0},  # all quotas bind: 5 prompts offer 21 labels
    "per pair by prompt": {"total": 12.5, "per_pair": np.array([1, 2, 1, 3, 1.5, 1])},
    "both by prompt": {"total": 12.5, "per_pair": np.full(PROMPTS, 2.0), "per_prompt": np.array([4, 2, 1, 3, 1, 5.5])},
}
CRITERIA = {"LogDet": None, "Trace": random_spd(1), "Trace of a low-rank H": random_spd(2, rank=1)}


@pytest.mark.parametrize("scores", ["no", "yes", "draws"])
@pytest.mark.parametrize("limits", BUDGETS.values(), ids=BUDGETS.keys())
@pytest.mark.parametrize("H", CRITERIA.values(), ids=CRITERIA.keys())
def test_no_allowed_allocation_is_better(H, limits, scores):
    """The gap S - sum b n, with S from an LP solver and everything else in NumPy, proves the value."""
    pool = random_pool(len(limits), scores)
    prior = 0.3 if scores == "yes" else None
    design = reference.optimize(pool, LogDet() if H is None else Trace(H), Budget(**limits), prior)
    assert design.status is Status.CERTIFIED

    pairs, z, c = written_out(pool)
    labels = np.zeros(len(pairs))
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels[[index[tuple(pair)] for pair in design.pairs.tolist()]] = design.labels
    assert labels.sum() == pytest.approx(limits["total"], rel=1e-12)
    assert (labels <= np.broadcast_to(limits.get("per_pair", np.inf), PROMPTS)[pairs[:, 0]] * (1 + 1e-12)).all()
    spent = np.bincount(pairs[:, 0], labels, PROMPTS)
    assert (spent <= np.broadcast_to(limits.get("per_prompt", np.inf), PROMPTS) * (1 + 1e-12)).all()

    held = 0 if prior is None else prior * np.eye(pool.dim)
    value = criterion_of(information_of(z, c, labels, held), H)
    assert design.certificate.value == pytest.approx(value, rel=1e-9)
    gap = frank_wolfe_gap(pairs, z, c, labels, limits, held, H)
    assert gap <= 1e-5 * (1 if H is None else value)
    assert value - design.certificate.lower_bound <= gap + 1e-8 * abs(value)


def test_a_prior_matrix_counts_as_information():
    pool, prior = random_pool(3), random_spd(3)
    with_prior = reference.optimize(pool, LogDet(), Budget(5), prior)
    without = reference.optimize(pool, LogDet(), Budget(5))
    pairs, z, c = written_out(pool)
    assert with_prior.certificate.value < without.certificate.value
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    rows = [index[tuple(pair)] for pair in with_prior.pairs.tolist()]
    expected = criterion_of(information_of(z[rows], c[:, rows], with_prior.labels, prior))
    assert with_prior.certificate.value == pytest.approx(expected, rel=1e-10)


def test_a_budget_that_fills_the_pool_leaves_no_choice():
    pool = random_pool(4)
    pairs = written_out(pool)[0]
    design = reference.optimize(pool, LogDet(), Budget(len(pairs), per_pair=1))
    assert (design.pairs == pairs).all()
    np.testing.assert_allclose(design.labels, 1, rtol=1e-9)
    assert design.certificate.efficiency == pytest.approx(1, abs=1e-9)


def test_scales_of_features_do_not_matter():
    features = np.asarray(random_pool(5, ragged=False).features)
    small, large = (
        reference.optimize(CompletionPool(features * np.float32([1, 1, 1]) * s), LogDet(), Budget(10)).certificate
        for s in (np.float32(2**-10), np.float32(2**10))
    )
    shift = 3 * 2 * 20 * np.log(2)  # d log s^2
    assert small.value == pytest.approx(large.value + shift, abs=1e-6)


# ---- refusals


def test_other_criteria_are_refused():
    with pytest.raises(TypeError, match=r"crit: .*LogDet\(\) and Trace\(H\), found Criterion"):
        reference.optimize(random_pool(0), Criterion(lambda A: A.sum()), Budget(5))


def test_large_pools_are_refused():
    features = np.random.default_rng(0).standard_normal((30, 20, 2)).astype(np.float32)
    with pytest.raises(ValueError, match=r"pool: 5700 candidate pairs .* at most 5000; use jaxdesign.optimize"):
        reference.optimize(CompletionPool(features), LogDet(), Budget(5))


def test_singular_information_names_its_rank_and_a_ridge():
    features = np.zeros((PROMPTS, COMPLETIONS, 3), np.float32)
    features[..., :2] = np.asarray(random_pool(0, ragged=False).features)[..., :2]
    with pytest.raises(ValueError, match=r"rank 2 of 3.*restrict_to_range.*prior=.*ridge"):
        reference.optimize(CompletionPool(features), LogDet(), Budget(5))


def test_a_missing_cvxpy_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without_cvxpy(name, *args, **kwargs):
        if name == "cvxpy":
            raise ImportError("No module named 'cvxpy'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_cvxpy)
    with pytest.raises(ImportError, match=r"pip install 'jaxdesign\[reference\]'"):
        reference.optimize(random_pool(0), LogDet(), Budget(5))


def test_a_solver_that_fails_is_not_believed(monkeypatch):
    monkeypatch.setattr(
        reference, "_solve", lambda cvxpy, problem, pairs, settings: np.full(len(pairs), 1 / len(pairs))
    )
    design = reference.optimize(random_pool(0), LogDet(), Budget(5))
    assert design.status is Status.INACCURATE
    assert design.certificate.efficiency < 0.99
    monkeypatch.setattr(reference, "_solve", lambda *_: None)
    with pytest.raises(RuntimeError, match="neither Clarabel nor SCS returned a solution"):
        reference.optimize(random_pool(0), LogDet(), Budget(5))
