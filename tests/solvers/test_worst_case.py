"""Designs for the worst case over targets: against cvxpy, every solver, reports, limits, budgets, flip noise."""

import itertools

import cvxpy
import jax
import numpy as np
import pytest

import jaxdesign
from jaxdesign import Budget, CompletionPool, Status, Trace, WorstCase, evaluate, optimize, select_pairs
from tests.support.counting import counting
from tests.support.problems import DIM, random_arrays, random_pool, random_spd, written_out
from tests.support.several_targets import RIDGE, THREE, worst

BUDGETS = {
    "repeats": {"total": 20.0},
    "caps": {"total": 15.0, "per_pair": 1.0},
    "quotas": {"total": 20.0, "per_pair": 3.0, "per_prompt": 5.0},
}
TARGETS = {
    "three": THREE,
    "one dominates": {"a": random_spd(1), "b": 1e-3 * random_spd(2), "c": 0.3 * random_spd(1)},
    "scaled very differently": {"a": 1e8 * random_spd(1), "b": 1e-8 * random_spd(2)},
    "identical": [random_spd(4)] * 3,
    "nearly identical": [random_spd(4), random_spd(4) * (1 + 1e-4)],
    "directions": list(np.eye(DIM)[:, :, None] * np.eye(DIM)[:, None, :]),
    "one of them zero": [random_spd(1), np.zeros((DIM, DIM))],
}


def best_by_cvxpy(pool, targets, total, per_pair=np.inf, per_prompt=np.inf):
    """min t, mean over draws of tr(H_k A^-1) <= t for every target, by a conic solver."""
    pairs, z, c = written_out(pool)
    matrices = list(targets.values()) if isinstance(targets, dict) else list(targets)
    unit = max(np.trace(H) for H in matrices)
    fractions, level = cvxpy.Variable(len(pairs), nonneg=True), cvxpy.Variable()
    outer = (z[:, :, None] * z[:, None, :]).reshape(len(z), -1)
    limits = [cvxpy.sum(fractions) == 1, fractions <= min(per_pair / total, 1)]
    limits += [cvxpy.sum(fractions[pairs[:, 0] == p]) <= min(per_prompt / total, 1) for p in np.unique(pairs[:, 0])]
    infos = [RIDGE / total + cvxpy.reshape((outer * info[:, None]).T @ fractions, (DIM, DIM), order="C") for info in c]
    for H in matrices:
        spectrum, vectors = np.linalg.eigh(H / unit)
        root = vectors[:, spectrum > 1e-12] * np.sqrt(spectrum[spectrum > 1e-12])
        if root.size:
            limits.append(sum(cvxpy.matrix_frac(root, info) for info in infos) / len(infos) <= level)
    tight = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
    cvxpy.Problem(cvxpy.Minimize(level), limits).solve(solver="CLARABEL", **tight)
    return float(level.value) * unit / total


# ---- the best real-valued design


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "budget"),
    [
        pytest.param(name, budget, marks=[] if name == "three" and budget != "quotas" else pytest.mark.slow)
        for name in TARGETS
        for budget in BUDGETS
    ],
)
def test_optimize_agrees_with_cvxpy(name, budget):
    targets, limits = TARGETS[name], BUDGETS[budget]
    pool = random_pool(1, "draws" if targets is THREE else "yes")
    expected = best_by_cvxpy(pool, targets, **limits)
    for tol in (1e-3, 1e-5):
        design = optimize(pool, WorstCase(targets), Budget(**limits), prior=RIDGE, tol=tol)
        found = design.certificate
        assert design.status is Status.CERTIFIED and found.efficiency >= 1 - tol
        assert found.value == pytest.approx(worst(pool, targets, design.pairs, design.labels), rel=1e-9)
        assert expected * (1 - 1e-6) <= found.value <= expected * (1 + 1.01 * tol + 1e-6)
        assert found.lower_bound <= expected * (1 + 1e-6)
        again = evaluate(pool, WorstCase(targets), Budget(**limits), design.pairs, design.labels, RIDGE).certificate
        assert again.value == pytest.approx(found.value, rel=1e-12)
        assert again.lower_bound <= expected * (1 + 1e-6)
    assert design.passes <= 120


@pytest.mark.parametrize("mixture", [None, pytest.param([3.0], marks=pytest.mark.slow)])
@pytest.mark.slow
def test_one_target_is_trace(mixture):
    pool, criterion = random_pool(2), WorstCase({"all": random_spd(1)}, mixture=mixture)
    found = optimize(pool, criterion, Budget(20.0), prior=RIDGE, tol=1e-6)
    expected = optimize(pool, Trace(random_spd(1)), Budget(20.0), prior=RIDGE, tol=1e-6)
    assert found.certificate.value == pytest.approx(expected.certificate.value, rel=2e-6)
    assert abs(found.passes - expected.passes) <= 2 and len(found.trace) == 1  # steps differ by rounding


@pytest.mark.slow
def test_scales_are_what_values_are_divided_by():
    pool = random_pool(3)
    alone = [optimize(pool, Trace(H), Budget(20.0), prior=RIDGE).certificate.value for H in THREE.values()]
    scaled = optimize(pool, WorstCase(THREE, scales=alone), Budget(20.0), prior=RIDGE)
    given_scaled = {name: H / s for (name, H), s in zip(THREE.items(), alone, strict=True)}
    divided = optimize(pool, WorstCase(given_scaled), Budget(20.0), prior=RIDGE)
    assert scaled.certificate.value == pytest.approx(divided.certificate.value, rel=1e-9)
    assert all(ratio >= 1 - 1e-3 for ratio in scaled.report["targets"].values())


@pytest.mark.thorough
def test_the_report_names_the_binding_targets():
    pool = random_pool(4)
    targets = {"hard": random_spd(1), "easy": 1e-2 * random_spd(2), "twin": random_spd(1)}
    design = optimize(pool, WorstCase(targets), Budget(20.0), prior=RIDGE)
    assert design.report["binding"] == ["hard", "twin"]
    assert sum(design.report["mixture"].values()) == pytest.approx(1)
    for name, H in targets.items():
        assert design.report["targets"][name] == pytest.approx(worst(pool, [H], design.pairs, design.labels), rel=1e-9)
    assert max(design.report["targets"].values()) == design.certificate.value
    given_mixture = WorstCase(targets, mixture=design.report["mixture"])
    judged = evaluate(pool, given_mixture, Budget(20.0), design.pairs, design.labels, RIDGE)
    assert judged.certificate.efficiency > 1 - 2e-3
    assert judged.report["targets"] == design.report["targets"]


@pytest.mark.thorough
def test_limits_start_and_callback(tmp_path):
    pool, criterion, rows = random_pool(5), WorstCase(THREE), []
    design = optimize(pool, criterion, Budget(20.0), prior=RIDGE, tol=1e-5, callback=rows.append)
    assert tuple(rows) == design.trace and [row.passes for row in rows] == sorted(row.passes for row in rows)
    assert all(a.lower_bound <= b.lower_bound and a.value >= b.value for a, b in itertools.pairwise(rows))
    stopped = optimize(pool, criterion, Budget(20.0), prior=RIDGE, tol=1e-5, callback=lambda row: True)
    assert stopped.status is Status.STOPPED_BY_CALLBACK and len(stopped.trace) == 1
    short = optimize(pool, criterion, Budget(20.0), prior=RIDGE, tol=1e-9, max_passes=9)
    assert short.status is Status.NOT_CERTIFIED and short.certificate.efficiency < 1
    again = optimize(pool, criterion, Budget(21.0), prior=RIDGE, tol=1e-3, start=design)
    assert again.status is Status.CERTIFIED
    design.save(tmp_path / "design.npz")
    assert jaxdesign.Design.load(tmp_path / "design.npz").report == design.report


# ---- other solvers, and programs


@pytest.mark.parametrize(
    "solver", ["frank_wolfe", "interior_point", pytest.param("matrix_atoms", marks=pytest.mark.slow)]
)
def test_other_solvers(solver):
    pool = random_pool(6)
    expected = best_by_cvxpy(pool, THREE, 20.0)
    design = optimize(pool, WorstCase(THREE), Budget(20.0), prior=RIDGE, tol=0.02, solver=solver)
    assert design.certificate.efficiency >= 0.98
    assert design.certificate.lower_bound <= expected * (1 + 1e-6)
    with pytest.raises(TypeError, match="crit: multiplicative steps on a worst case"):
        optimize(pool, WorstCase(THREE), Budget(20.0), prior=RIDGE, solver="multiplicative")


@pytest.mark.slow
def test_inside_of_jit_the_certificate_is_valid():
    pool = random_pool(7)
    expected = best_by_cvxpy(pool, THREE, 20.0)
    solve = jaxdesign.solvers.frank_wolfe
    run = jax.jit(lambda p: solve(p, WorstCase(THREE), Budget(20.0), passes=100, prior=RIDGE))
    allocation, certificate = run(pool)
    pairs = written_out(pool)[0]
    value = worst(pool, THREE, pairs, np.asarray(allocation, np.float64)[tuple(pairs.T)])
    assert float(certificate.value) == pytest.approx(value, rel=1e-4)
    assert float(certificate.lower_bound) <= expected * (1 + 1e-6) <= float(certificate.value) * (1 + 1e-5)
    assert 0.8 < float(certificate.efficiency) <= 1


def test_other_numbers_compile_nothing():
    def run(seed):
        pool = CompletionPool(*random_arrays(seed, ragged=False))
        targets = {name: random_spd([seed, k]) for k, name in enumerate("abc")}
        optimize(pool, WorstCase(targets), Budget(20.0), prior=RIDGE, tol=1e-4)

    run(0)
    with counting() as counts:
        run(1)
    assert not counts


# ---- beside other features


def test_singular_information_is_seen():
    pool = random_pool(0)
    criterion = WorstCase({"seen": np.eye(DIM)})
    judged = evaluate(pool, criterion, Budget(3.0), [[0, 0, 2]], [3.0])
    assert judged.certificate.value == np.inf and judged.certificate.efficiency == 0
    with pytest.raises(ValueError, match=r"budget\.total=2: .* at least 3 are needed"):
        select_pairs(pool, criterion, Budget(2))


@pytest.mark.slow
def test_required_and_excluded_pairs_and_quotas_of_groups():
    pool = random_pool(1)
    pairs = written_out(pool)[0]
    decided = Budget(15.0, per_pair=1, required=pairs[[0, 7]], exclude=pairs[[3]])
    groups = Budget(15.0, per_pair=1, quotas=jaxdesign.Quota(list("aabbab"), {"b": 9.0}, name="domain"))
    for budget in (decided, groups):
        design = optimize(pool, WorstCase(THREE), budget, prior=RIDGE, tol=2e-3)
        found = design.certificate
        assert design.status is Status.CERTIFIED
        assert found.value == pytest.approx(worst(pool, THREE, design.pairs, design.labels), rel=1e-9)
        assert max(design.report["targets"].values()) == pytest.approx(found.value, rel=1e-9)
        for H in THREE.values():  # no target alone can be worse than all of them
            alone = optimize(pool, Trace(H), budget, prior=RIDGE, tol=2e-3).certificate
            assert found.value >= alone.lower_bound * (1 - 1e-9)
        judged = evaluate(pool, WorstCase(THREE), budget, design.pairs, design.labels, RIDGE)
        assert judged.certificate.value == pytest.approx(found.value, rel=1e-9)
        assert judged.certificate.lower_bound <= found.value
        batch = select_pairs(pool, WorstCase(THREE), budget, prior=RIDGE, tol=2e-3)
        assert batch.certificate.value == pytest.approx(worst(pool, THREE, batch.pairs, batch.labels), rel=1e-9)
        assert batch.certificate.value >= found.lower_bound * (1 - 1e-9)
        assert batch.report["binding"]
    assert design.labels[np.isin(design.pairs[:, 0], [2, 3, 5])].sum() >= 9 - 1e-6


@pytest.mark.slow
def test_flip_noise_counts():
    pool = random_pool(2, flip="pair")
    design = optimize(pool, WorstCase(THREE), Budget(20.0), prior=RIDGE)
    expected = best_by_cvxpy(pool, THREE, 20.0)
    assert design.certificate.value == pytest.approx(worst(pool, THREE, design.pairs, design.labels), rel=1e-9)
    assert expected * (1 - 1e-6) <= design.certificate.value <= expected * 1.0011
