"""Forecasts: what random pairs, the best choice and the design leave, against closed forms, simulation and words."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

from jaxdesign import Belief, Budget, CompletionPool, LogDet, Trace, forecast, policy_target, residual_of, select_pairs
from jaxdesign.door import make_problem
from jaxdesign.exact.random_pairs import random_candidates
from jaxdesign.forecasts import Forecast, forecast_beside
from jaxdesign.pricing import streamed_source
from tests.support.problems import DIM, information_of, random_pool, written_out
from tests.support.stored import ragged

POOL, RIDGE, BUDGET = random_pool(0, scores="no"), 0.5, Budget(1, per_pair=1)
H = np.asarray(policy_target(POOL), np.float64)


def pairs_and_rows(pool=POOL):
    pairs, z, c = written_out(pool)
    differ = np.abs(z).max(axis=1) > 0
    return pairs[differ], z[differ], c[0, differ]


def figures(found):
    return np.concatenate([[found.nothing], found.even, found.random, found.least, found.design])


@pytest.fixture(scope="module")
def found():
    return forecast(POOL, BUDGET, [6, 12], prior=RIDGE, draws=64)


def test_figures_are_those_of_matrices_written_out(found):
    pairs, z, c = pairs_and_rows()
    every = np.einsum("n,nd,ne->de", c, z, z)
    gap = lambda matrix: np.trace(np.linalg.solve(matrix + RIDGE * np.eye(DIM), H)) / 2  # noqa: E731
    assert found.nothing == pytest.approx(gap(0 * every), rel=1e-6)
    for place, total in enumerate((6, 12)):
        assert found.even[place] == pytest.approx(gap(every * total / len(pairs)), rel=1e-6)
        design = select_pairs(POOL, Trace(H), Budget(total, per_pair=1), prior=RIDGE)
        chosen = information_of(*written_out(POOL)[1:], labels_of(design), 0.0)[0]
        assert found.design[place] == pytest.approx(gap(chosen), rel=1e-6)
        assert found.least[place] == pytest.approx(design.certificate.lower_bound / 2, rel=1e-6)
        rng = np.random.default_rng(total)
        drawn = [rng.choice(len(pairs), total, replace=False) for _ in range(4000)]
        right = np.array([gap(np.einsum("n,nd,ne->de", c[some], z[some], z[some])) for some in drawn])
        off = np.hypot(found.random_error[place], right.std() / np.sqrt(len(right)))
        assert abs(found.random[place] - right.mean()) < 4 * off
        assert found.random_error[place] == pytest.approx(right.std() / 8, rel=0.4)
    assert (found.even < found.random).all()  # Jensen
    assert (found.least <= found.design).all() and (found.design < found.random).all()
    assert found.nothing > found.random[0] > found.random[1]


def labels_of(design, pool=POOL):
    index = {tuple(pair): k for k, pair in enumerate(written_out(pool)[0].tolist())}
    labels = np.zeros(len(index))
    labels[[index[tuple(pair)] for pair in design.pairs.tolist()]] = design.labels
    return labels


def test_pairs_are_drawn_evenly_from_those_of_completions_that_differ():
    problem = make_problem(POOL, Trace(H), Budget(3, per_pair=1, exclude=np.array([[0, 0, 1]])), RIDGE)
    pairs = {tuple(pair) for pair in pairs_and_rows()[0].tolist()} - {(0, 0, 1)}
    assert (0, 1, 3) not in pairs  # a copy
    counts = dict.fromkeys(pairs, 0)
    for seed in range(600):
        drawn, labels = random_candidates(problem, seed)
        assert labels.tolist() == [1, 1, 1] and len(np.unique(drawn, axis=0)) == 3
        for pair in drawn.tolist():
            counts[tuple(pair)] += 1
    mean = 1800 / len(pairs)
    assert abs(np.array(list(counts.values())) - mean).max() < 5 * np.sqrt(mean)


def test_more_labels_than_pairs_are_repeats_within_the_caps():
    problem = make_problem(POOL, Trace(H), Budget(90, per_pair=3, per_prompt=25), RIDGE)
    drawn, labels = random_candidates(problem, 0)
    assert labels.sum() == 90 and labels.max() <= 3 and len(drawn) == len(pairs_and_rows()[0])
    assert np.bincount(drawn[:, 0], weights=labels).max() <= 25


@pytest.mark.parametrize("slope", ["known", pytest.param("shrunk by a residual", marks=pytest.mark.thorough)])
def test_in_a_linear_world_with_normal_noise_trained_policies_have_these_gaps(slope):
    """Labels y = z . w + noise of variance 1 / c; the fit is the posterior mean; the gap is the quadratic one."""
    rng = np.random.default_rng(0)
    residual = None if slope == "known" else residual_of(POOL, 3.0)
    pool = CompletionPool(POOL.features, mask=POOL.mask, residual=residual)
    pairs, z, _ = pairs_and_rows()
    v = np.zeros(len(z)) if residual is None else np.sum((z @ residual.noise) ** 2, axis=1)
    variance = 4 + np.pi / 2 * v  # of a label's noise, at margin 0, with what the residual adds
    told = forecast(pool, BUDGET, [8], prior=RIDGE, target=H, beta=2.0, draws=64)
    assert told.linear is (residual is None)
    design = select_pairs(pool, Trace(H), Budget(8, per_pair=1), prior=RIDGE)
    asked = set(map(tuple, design.pairs.tolist()))
    chosen = np.array([k for k, pair in enumerate(pairs.tolist()) if tuple(pair) in asked])
    gaps = {"random": [], "design": []}
    for _ in range(4000):
        w = rng.standard_normal(DIM) / np.sqrt(RIDGE)
        for name, some in (("random", rng.choice(len(z), 8, replace=False)), ("design", chosen)):
            y = z[some] @ w + rng.standard_normal(8) * np.sqrt(variance[some])
            A = RIDGE * np.eye(DIM) + (z[some].T / variance[some]) @ z[some]
            off = np.linalg.solve(A, z[some].T @ (y / variance[some])) - w
            gaps[name].append(off @ H @ off / (2 * 2.0))
    for name, error in (("random", told.random_error[0]), ("design", 0.0)):
        own = np.array(gaps[name])
        assert abs(getattr(told, name)[0] - own.mean()) < 4 * np.hypot(error, own.std() / np.sqrt(len(own)))


def changed(kind, seed=3):
    """The same problem told otherwise: features and masks, prior, target, beta and what figures are multiplied by."""
    rng = np.random.default_rng(seed)
    features, mask = np.where(POOL.mask[..., None], POOL.features, 0).astype(np.float64), np.asarray(POOL.mask)
    prior, target, beta, times = RIDGE * np.eye(DIM), H, 1.0, 1.0
    if kind == "shift":
        features = features + rng.standard_normal((len(features), 1, DIM))
    if kind in ("rotation", "units"):
        turn = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0] if kind == "rotation" else np.diag([1e-3, 1.0, 1e4])
        features, prior, target = features @ turn, turn.T @ prior @ turn, turn.T @ target @ turn
    if kind == "order of prompts":
        order = rng.permutation(len(features))
        features, mask = features[order], mask[order]
    if kind == "beta":
        beta, times = 4.0, 0.25
    return CompletionPool(features.astype(np.float32), mask=mask), prior, target, beta, times


@pytest.mark.parametrize("kind", ["shift", "rotation", "units", "order of prompts", "beta"])
def test_what_figures_do_not_depend_on(kind, found):
    pool, prior, target, beta, times = changed(kind)
    other = forecast(pool, BUDGET, [6, 12], prior=prior, target=target, beta=beta, draws=64)
    for name in ("nothing", "even", "least", "design"):
        rtol = 2e-3 if name in ("least", "design") else 1e-5  # designs are solved for to a gap of 1e-3
        np.testing.assert_allclose(getattr(other, name), times * getattr(found, name), rtol=rtol, err_msg=name)
    if kind == "order of prompts":
        assert (abs(other.random - found.random) < 4 * np.hypot(other.random_error, found.random_error)).all()
    else:
        np.testing.assert_allclose(other.random, times * found.random, rtol=1e-4)


def test_a_residual_alike_for_all_pairs_is_label_noise_and_rescales_the_problem(found):
    """k^2 = 1 + pi v / 8 of every pair: labels reversed with (1 - 1 / k) / 2; k^2 times the gap at the prior k^2 L."""
    k = np.sqrt(1 + np.pi / 8 * 2.0)
    noisy = CompletionPool(POOL.features, mask=POOL.mask, flip=(1 - 1 / k) / 2)
    other = forecast(noisy, BUDGET, [6, 12], prior=RIDGE / k**2, target=H, draws=64)
    np.testing.assert_allclose(figures(other), k**2 * figures(found), rtol=2e-3)


@pytest.mark.thorough
def test_a_belief_with_a_mean_sets_margins_and_target():
    belief = Belief(np.array([1.0, -2.0, 0.5]), RIDGE * np.eye(DIM))
    found = forecast(POOL, BUDGET, [6], prior=belief, draws=3)
    scores = np.where(POOL.mask, np.nan_to_num(np.asarray(POOL.features)) @ belief.mean, 0)
    scored = CompletionPool(POOL.features, scores.astype(np.float32), POOL.mask)
    other = forecast(scored, BUDGET, [6], prior=RIDGE, target=policy_target(POOL, belief=belief), draws=3)
    np.testing.assert_allclose(figures(other), figures(found), rtol=1e-4)


def test_beside_a_design_that_is_there(found):
    budget = Budget(12, per_pair=1)
    for crit in (Trace(H), LogDet()):
        design = select_pairs(POOL, crit, budget, prior=RIDGE)
        other = forecast_beside(POOL, crit, budget, design, prior=RIDGE, draws=64)
        for name in ("even", "random", "random_error"):
            np.testing.assert_allclose(getattr(other, name)[0], getattr(found, name)[1], rtol=1e-5)
        if isinstance(crit, Trace):
            np.testing.assert_allclose(figures(other)[-2:], [found.least[1], found.design[1]], rtol=1e-5)
        assert other.least[0] <= found.design[1]  # certified, if not as closely
        assert other.design[0] >= found.least[1]


@pytest.mark.thorough
def test_of_a_file_it_is_that_of_the_pool_in_memory():
    given = ragged(prompts=120)
    one, other = (forecast(pool, BUDGET, [8], prior=RIDGE, target=np.diag(np.arange(1.0, 7)), draws=2)
                  for pool in (CompletionPool(**given), streamed_source(chunk=50, **given)))  # fmt: skip
    np.testing.assert_allclose(figures(other), figures(one), rtol=1e-8)


def test_pairs_of_a_large_pool_are_never_listed():
    """A list of its two million pairs would take 22 MB."""
    features = np.random.default_rng(0).standard_normal((60, 250, 2)).astype(np.float32)
    problem = make_problem(CompletionPool(features), Trace(np.eye(2)), Budget(50, per_pair=1), 1.0)
    assert problem.pair_counts.sum() > 1.8e6
    random_candidates(problem, 0)
    tracemalloc.start()
    drawn, labels = random_candidates(problem, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(drawn) == 50 and labels.sum() == 50 and peak < 2e6


def gaps(random, least, design, totals=(100.0,)):
    even, drawn, error, bound, leaves = (np.full(len(totals), value) for value in (least, random, 0.0, least, design))
    return Forecast(np.asarray(totals), 1.0, even, drawn, error, bound, leaves, 1.0, True)


@pytest.mark.parametrize(
    ("figures", "worth", "words"),
    [
        ((0.5, 0.495, 0.496), 0.01, "With 100 labels choosing cannot matter: no choice gains more than 0.005 over"),
        ((0.5, 0.40, 0.495), 0.01, "choosing is not expected to matter: the design gains 0.005 over"),
        ((0.5, 0.40, 0.42), 0.01, "choosing is expected to gain 0.08 over random pairs of different completions, and"),
        ((0.5, 0.40, 0.42), 0.2, "cannot matter: no choice gains more than 0.1 over"),
        ((np.inf, 0.4, 0.42), 0.01, "leave directions unknown"),
    ],
)
def test_users_are_told_whether_choosing_can_matter(figures, worth, words):
    told = gaps(*figures)
    assert words in told.summary(worth) and words in told.verdicts(worth)[0]
    assert told.matters(worth) == ["cannot" not in words]
    assert "training on the posterior" in told.summary() and "linear in the features" in told.summary()
    assert "with the residual of the pool" in dataclasses.replace(told, linear=False).summary()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"totals": []}, r"totals=\[\]: expected a list of rising"),
        ({"beta": 0.0}, "beta=0: must be positive"),
        ({"draws": 0}, "draws=0: at least one"),
        ({"seed": -1}, "seed=-1"),
        ({"totals": [6.5]}, "budget.total=6.5: whole labels"),
        ({"prior": -1.0}, "prior=-1"),
        ({"target": np.eye(2)}, r"target: shape \(2, 2\)"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"totals": [6], "prior": RIDGE, **change}
    with pytest.raises(ValueError, match=message):
        forecast(POOL, BUDGET, **arguments)


def test_a_gain_that_is_no_gain_is_named():
    with pytest.raises(ValueError, match="worth=0: must be positive and finite; it is the gain in J"):
        gaps(0.5, 0.4, 0.42).summary(0.0)
