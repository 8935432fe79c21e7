"""Designs under flip noise: against the reference and pairs written out, every solver, and what noise must do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign
from jaxdesign import Budget, CompletionPool, LogDet, Trace, evaluate, optimize
from jaxdesign.information import pair_sensitivities
from tests.support.flips import every_kind, pairs_daily, random_G
from tests.support.padded import DIM as PADDED_DIM
from tests.support.padded import padded_pool, solve_padded
from tests.support.problems import (
    COMPLETIONS,
    DIM,
    DRAWS,
    PROMPTS,
    criterion_of,
    even_allocation,
    frank_wolfe_gap,
    information_of,
    random_arrays,
    random_pool,
    random_spd,
    stored,
    written_out,
)

H = random_spd(1)
RIDGE = 0.1 * np.eye(DIM)
seeds = st.integers(0, 2**32 - 1)
slow = pytest.mark.slow
BUDGETS = {"repeats": {"total": 20.0}, "caps": {"total": 20.0, "per_pair": 1.0}}
BUDGETS["quotas"] = {"total": 20.0, "per_pair": 3.0, "per_prompt": 5.0}


# ---- solvers


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize(
    ("name", "limits", "flip"),
    [
        ("LogDet", "quotas", "prompt"),
        ("Trace", "caps", "pair"),
        pytest.param("LogDet", "repeats", "one", marks=slow),
        pytest.param("LogDet", "caps", "pair", marks=slow),
        pytest.param("Trace", "repeats", "one", marks=slow),
        pytest.param("Trace", "quotas", "prompt", marks=slow),
    ],
)
def test_optimize_agrees_with_the_reference_and_with_the_arithmetic_of_pairs(name, limits, flip):
    target, limits = {"LogDet": None, "Trace": H}[name], BUDGETS[limits]
    pool = random_pool(len(limits), "draws" if flip == "pair" else "no" if flip == "one" else "yes", flip)
    criterion = LogDet() if target is None else Trace(target)
    reference = jaxdesign.reference.optimize(pool, criterion, Budget(**limits), RIDGE)
    design = optimize(pool, criterion, Budget(**limits), prior=RIDGE, tol=1e-6)
    found, expected = design.certificate, reference.certificate
    assert found.value == pytest.approx(expected.value, rel=1e-5, abs=1e-5)
    assert found.lower_bound <= expected.value + 1e-9 and expected.lower_bound <= found.value + 1e-9
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    labels[[index[tuple(pair)] for pair in design.pairs.tolist()]] = design.labels
    assert found.value == pytest.approx(criterion_of(information_of(z, c, labels, RIDGE), target), rel=1e-9)
    assert frank_wolfe_gap(pairs, z, c, labels, limits, RIDGE, target) <= 2e-5 * max(1, abs(found.value))


@pytest.mark.thorough
@pairs_daily
@pytest.mark.parametrize("solver", ["frank_wolfe", "multiplicative", "matrix_atoms", "interior_point"])
def test_every_solver_knows_flips(solver, flip):
    pool = random_pool(4, "yes", flip)
    expected = optimize(pool, LogDet(), Budget(20.0), prior=RIDGE, tol=1e-6).certificate
    tol = 1e-5 if solver == "interior_point" else 2e-3
    found = optimize(pool, LogDet(), Budget(20.0), prior=RIDGE, tol=tol, solver=solver).certificate
    assert found.efficiency >= 1 - tol
    assert found.value == pytest.approx(expected.value, abs=DIM * 1.1 * tol)
    assert found.lower_bound <= expected.value + 1e-9


@slow
@every_kind
@settings(max_examples=3)
@given(seed=seeds)
def test_padding_and_the_certificate_of_an_even_allocation(seed, flip):
    pool = random_pool(seed, flip=flip)
    pairs, z, c = written_out(pool)
    labels = even_allocation(pairs, 20.0)
    found = evaluate(pool, Trace(H), Budget(20.0), pairs, labels, RIDGE).certificate
    gap = frank_wolfe_gap(pairs, z, c, labels, {"total": 20.0}, RIDGE, H)
    assert found.gap <= gap * (1 + 1e-6)
    design, value = solve_padded(pool, Trace(H), Budget(20.0), RIDGE)
    assert padded_pool(pool).features.shape[-1] == PADDED_DIM
    assert found.lower_bound <= value * (1 + 1e-9) and value <= found.value
    assert design.certificate.efficiency > 1 - 1e-6


# ---- what noise must do


@pytest.mark.thorough
@pairs_daily
def test_flips_move_along_with_prompts_and_completions(flip):
    pool = random_pool(9, "draws", flip)
    features, scores, mask = stored(pool)
    noise = np.asarray(pool.flip)
    rng = np.random.default_rng(0)
    prompts, slots = rng.permutation(PROMPTS), np.argsort(rng.random((PROMPTS, COMPLETIONS)))
    rows = np.arange(PROMPTS)[:, None]

    def moved(array):
        return array[prompts][rows, slots]

    noise = noise[prompts]
    if flip == "pair":
        noise = noise[rows[:, :, None], slots[:, :, None], slots[:, None, :]]
    u = np.stack([moved(one) for one in scores])
    other = CompletionPool(moved(features).astype(np.float32), u.astype(np.float32), moved(mask), flip=noise)
    first, second = (optimize(p, Trace(H), Budget(20.0), prior=RIDGE, tol=1e-6).certificate for p in (pool, other))
    assert first.value == pytest.approx(second.value, rel=1e-5)
    G = random_G(0, DRAWS)
    b, moved_b = np.asarray(pair_sensitivities(pool, G)), np.asarray(pair_sensitivities(other, G))
    expected = b[prompts][rows[:, :, None], slots[:, :, None], slots[:, None, :]]
    np.testing.assert_allclose(moved_b, expected, rtol=1e-4, atol=1e-5 * b.max())


@slow
def test_even_noise_without_scores_makes_every_label_worth_less():
    features, _, mask = random_arrays(10)
    plain, noisy = CompletionPool(features, mask=mask), CompletionPool(features, mask=mask, flip=0.3)
    share = (1 - 2 * 0.3) ** 2
    first = optimize(plain, Trace(H), Budget(20.0 * share), prior=RIDGE, tol=1e-6)
    second = optimize(noisy, Trace(H), Budget(20.0), prior=RIDGE, tol=1e-6)
    assert first.certificate.value == pytest.approx(second.certificate.value, rel=1e-5)
    fewer = evaluate(plain, Trace(H), Budget(20.0 * share), second.pairs, second.labels * share, RIDGE).certificate
    assert fewer.value == pytest.approx(second.certificate.value, rel=1e-6)


def test_labels_avoid_noisy_prompts():
    features = random_arrays(11, ragged=False)[0]
    flip = np.zeros(PROMPTS)
    flip[::2] = 0.45
    design = optimize(CompletionPool(features, flip=flip), LogDet(), Budget(20.0), prior=RIDGE)
    spent = np.bincount(design.pairs[:, 0], design.labels, PROMPTS)
    plain = optimize(CompletionPool(features), LogDet(), Budget(20.0), prior=RIDGE)
    before = np.bincount(plain.pairs[:, 0], plain.labels, PROMPTS)
    assert spent[::2].sum() < 0.2 * before[::2].sum()
