"""The worst case over targets: against cvxpy, against enumeration, and what must hold for any targets."""

import itertools

import cvxpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign
from jaxdesign import Budget, CompletionPool, Status, Trace, WorstCase, evaluate, optimize, select_pairs
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.criteria.worst_case import PowerMean
from tests.support.counting import counting
from tests.support.problems import (
    COMPLETIONS,
    DIM,
    PROMPTS,
    criterion_of,
    even_allocation,
    information_of,
    random_arrays,
    random_pool,
    random_spd,
    written_out,
)

RIDGE = 0.1 * np.eye(DIM)
THREE = {"maths": random_spd(1), "code": random_spd(2, rank=1), "chat": 2 * random_spd(3, rank=2)}
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
seeds = st.integers(0, 2**32 - 1)


def worst(pool, targets, pairs, labels, prior=RIDGE):
    """The worst value of an allocation, from pairs written out."""
    every, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(every.tolist())}
    n = np.zeros(len(every))
    n[[index[tuple(pair)] for pair in np.asarray(pairs).tolist()]] = labels
    matrix = information_of(z, c, n, prior)
    return max(
        criterion_of(matrix, np.asarray(H)) for H in (targets.values() if isinstance(targets, dict) else targets)
    )


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


# ---- the criterion


@given(seeds, st.sampled_from([1.5, 8.0, 64.0]))
def test_the_smooth_criterion_has_the_derivatives_it_says(seed, power):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        mean = WorstCase(THREE).smooth(rng.random(3) + 0.1, power)
        A = jnp.asarray(np.stack([random_spd([seed, r]) + np.eye(DIM) for r in range(2)]))
        step = rng.standard_normal((2, DIM, DIM))
        step = jnp.asarray(step + step.swapaxes(1, 2))
        slope = jax.grad(mean.value)(A)
        G = mean.gradient(A)
        np.testing.assert_allclose(-2 * np.asarray(slope + slope.swapaxes(1, 2)) / 2, G, rtol=1e-8, atol=1e-10)
        bent = jax.jvp(mean.gradient, (A,), (step,))[1]
        scale = np.abs(bent).max()
        np.testing.assert_allclose(-np.asarray(bent) / scale, mean.curvature(A)(step) / scale, atol=1e-9)
        F = mean.factors(A)
        np.testing.assert_allclose(F @ F.swapaxes(1, 2), G, rtol=1e-9, atol=1e-11)


@given(seeds, st.sampled_from([2.0, 64.0]))
def test_the_power_mean_is_below_the_worst_and_its_bound_below_both(seed, power):
    """1 / M is concave: M(A') >= M(A)^2 / tr(G A') for any other A', which is what the bound rests on."""
    with jax.enable_x64(True):
        criterion = WorstCase(THREE)
        mean = criterion.smooth([0.2, 0.5, 0.3], power)
        A, other = (jnp.asarray(random_spd([seed, k]) + 0.1 * np.eye(DIM)) for k in range(2))
        value, linear = float(mean.value(A)), float(jnp.vdot(mean.gradient(A), other))
        assert value <= float(criterion.value(A)) * (1 + 1e-12)
        assert float(jnp.vdot(mean.gradient(A), A)) == pytest.approx(value, rel=1e-9)
        assert value**2 / linear <= float(mean.value(other)) * (1 + 1e-9)
        for mixture in (None, [0.2, 0.5, 0.3], [1, 0, 0]):
            fixed = WorstCase(THREE, mixture=mixture)
            G = fixed.gradient(A)
            current, linear = float(jnp.vdot(G, A)), float(jnp.vdot(G, other))
            bound = fixed.lower_bound(float(fixed.value(A)), linear, current, DIM)
            assert bound <= float(criterion.value(other)) * (1 + 1e-9)


def test_values_are_traces_over_scales_averaged_over_draws():
    A = np.stack([random_spd(r) + np.eye(DIM) for r in range(3)])
    criterion = WorstCase(THREE, scales={"chat": 4, "maths": 2, "code": 1})
    expected = [criterion_of(A, H) / s for H, s in zip(THREE.values(), (2, 1, 4), strict=True)]
    with jax.enable_x64(True):
        np.testing.assert_allclose(criterion.values(A), expected, rtol=1e-9)
        assert float(criterion.value(A)) == pytest.approx(max(expected), rel=1e-9)
    assert isinstance(criterion, CriterionLike) and isinstance(criterion.smooth(), CriterionLike)


def test_a_worst_case_is_a_pytree():
    criterion = WorstCase(THREE, mixture=[1, 2, 1])
    leaves, tree = jax.tree.flatten(criterion)
    back = jax.tree.unflatten(tree, leaves)
    assert back.names == ("maths", "code", "chat") and back.mixture.tolist() == [0.25, 0.5, 0.25]
    assert float(jax.jit(lambda c: c.value(jnp.eye(DIM)))(criterion)) == pytest.approx(
        max(np.trace(H) for H in THREE.values()), rel=1e-5
    )


# ---- the best real-valued design


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


@pytest.mark.slow
@settings(max_examples=6)
@given(seed=seeds, repeats=st.booleans())
def test_no_allocation_has_a_bound_above_the_best_whole_one(seed, repeats):
    """Bounds of designs and of arbitrary allocations, against all whole allocations of a tiny pool."""
    pool = random_pool(seed, "yes", prompts=2, completions=3, ragged=False, copies=False)
    pairs = written_out(pool)[0]
    limits = {"total": 3, "per_pair": None if repeats else 1}
    choose = itertools.combinations_with_replacement if repeats else itertools.combinations
    values = []
    for chosen in choose(range(len(pairs)), 3):
        n = np.bincount(chosen, minlength=len(pairs))
        values.append(worst(pool, THREE, pairs[n > 0], n[n > 0]))
    criterion = WorstCase(THREE)
    for weights in (np.full(len(pairs), 0.5), even_allocation(pairs, 3.0, 1.0)):
        judged = evaluate(pool, criterion, Budget(**limits), pairs, weights, RIDGE).certificate
        assert judged.lower_bound <= min(values) * (1 + 1e-9)
    batch = select_pairs(pool, criterion, Budget(**limits), prior=RIDGE)
    assert batch.certificate.lower_bound <= min(values) * (1 + 1e-9)
    assert batch.certificate.value >= min(values) * (1 - 1e-9)
    assert batch.certificate.value <= 1.15 * min(values)


# ---- whole labels


@pytest.mark.parametrize("scores", ["yes", pytest.param("draws", marks=pytest.mark.slow)])
def test_whole_labels_are_chosen_by_the_worst_case_itself(scores):
    pool, budget = random_pool(8, scores), Budget(12, per_pair=1)
    batch = select_pairs(pool, WorstCase(THREE), budget, prior=RIDGE)
    assert batch.certificate.value == pytest.approx(worst(pool, THREE, batch.pairs, batch.labels), rel=1e-9)
    told = batch.report
    assert batch.certificate.value == pytest.approx(min(one["value"] for one in told["candidates"].values()), rel=1e-12)
    assert told["binding"] and set(told["targets"]) == set(THREE)
    assert max(told["targets"].values()) == pytest.approx(batch.certificate.value, rel=1e-12)
    assert {"greedy", "greedy_logdet", "best_set"} <= set(told["candidates"])
    design = optimize(pool, WorstCase(THREE), budget, prior=RIDGE)
    same = select_pairs(pool, WorstCase(THREE), budget, prior=RIDGE, design=design)
    assert same.certificate.value <= batch.certificate.value * (1 + 5e-3)


def test_greedy_takes_first_order_gains():
    pool = random_pool(9)
    pairs, z, c = written_out(pool)
    picked, _ = jaxdesign.greedy(pool, WorstCase(THREE), size=5, prior=RIDGE)
    assert len({tuple(pair) for pair in np.asarray(picked).tolist()}) == 5
    G = np.asarray(WorstCase(THREE).gradient(RIDGE), np.float64)
    b = c[0] * np.einsum("sd,de,se->s", z, G, z)
    assert b[[tuple(p) for p in pairs.tolist()].index(tuple(np.asarray(picked)[0].tolist()))] >= b.max() * (1 - 1e-4)


def test_whole_labels_go_by_a_trace():
    trace = WorstCase(THREE, mixture=[1, 1, 2]).for_whole_labels()
    np.testing.assert_allclose(trace.H, (THREE["maths"] + THREE["code"] + 2 * THREE["chat"]) / 4, rtol=1e-12)
    assert trace.for_whole_labels() is trace


def test_singular_information_is_seen():
    pool = random_pool(0)
    criterion = WorstCase({"seen": np.eye(DIM)})
    judged = evaluate(pool, criterion, Budget(3.0), [[0, 0, 2]], [3.0])
    assert judged.certificate.value == np.inf and judged.certificate.efficiency == 0
    with pytest.raises(ValueError, match=r"budget\.total=2: .* at least 3 are needed"):
        select_pairs(pool, criterion, Budget(2))


def test_other_numbers_compile_nothing():
    def run(seed):
        pool = CompletionPool(*random_arrays(seed, ragged=False))
        targets = {name: random_spd([seed, k]) for k, name in enumerate("abc")}
        optimize(pool, WorstCase(targets), Budget(20.0), prior=RIDGE, tol=1e-4)

    run(0)
    with counting() as counts:
        run(1)
    assert not counts


# ---- bad input


EYE = np.eye(DIM)
CASES = {
    "no targets": (lambda: WorstCase([]), ValueError, ["targets", "none found"]),
    "a number": (lambda: WorstCase(3.0), TypeError, ["targets", "mapping", "float"]),
    "integers": (lambda: WorstCase([np.eye(3, dtype=int)]), TypeError, ["targets['0']", "int64"]),
    "one matrix": (lambda: WorstCase(EYE), ValueError, ["targets['0']", "(3,)", "square"]),
    "indefinite": (lambda: WorstCase({"a": EYE, "b": -EYE}), ValueError, ["targets['b']", "indefinite"]),
    "not symmetric": (lambda: WorstCase({"b": np.triu(np.ones((3, 3)))}), ValueError, ["targets['b']", "symmetric"]),
    "two sizes": (lambda: WorstCase({"a": EYE, "b": np.eye(2)}), ValueError, ["'b'", "(2, 2)", "'a'", "(3, 3)"]),
    "one name twice": (lambda: WorstCase({1: EYE, "1": EYE}), ValueError, ["two have the name '1'"]),
    "scale of zero": (lambda: WorstCase([EYE, EYE], scales=[1, 0]), ValueError, ["scales", "0 for target '1'"]),
    "too few scales": (lambda: WorstCase([EYE, EYE], scales=[1]), ValueError, ["scales", "2 finite numbers"]),
    "scales of others": (lambda: WorstCase({"a": EYE}, scales={"b": 1}), ValueError, ["scales", "['b']", "['a']"]),
    "words": (lambda: WorstCase([EYE], scales=["x"]), TypeError, ["scales", "one number per target"]),
    "negative mixture": (lambda: WorstCase([EYE, EYE], mixture=[2, -1]), ValueError, ["mixture", "at least 0"]),
    "empty mixture": (lambda: WorstCase([EYE, EYE], mixture=[0, 0]), ValueError, ["mixture", "positive"]),
    "another dimension": (
        lambda: optimize(random_pool(0), WorstCase([np.eye(4)]), Budget(9.0)),
        ValueError,
        ["targets", "(4, 4)", "(3, 3)"],
    ),
}


@pytest.mark.parametrize(("call", "kind", "words"), CASES.values(), ids=CASES.keys())
def test_bad_targets_are_named(call, kind, words):
    with pytest.raises(kind) as raised:
        call()
    assert all(word in str(raised.value) for word in words), raised.value


def test_shapes_used_here_are_those_of_the_other_files():
    assert random_pool(0).features.shape == (PROMPTS, COMPLETIONS, DIM)
    assert isinstance(WorstCase(THREE).smooth(), PowerMean)


def test_the_bound_inside_of_jit_is_that_of_the_mixture():
    mixture, current = jnp.float32(0.8), jnp.float32(0.8)
    bound = WorstCase(THREE).lower_bound(mixture, jnp.float32(0.9), current, DIM)
    assert float(bound) == pytest.approx(0.64 / 0.9)
    assert float(WorstCase(THREE).efficiency(jnp.float32(1.0), bound, DIM)) == pytest.approx(0.64 / 0.9)
    assert float(WorstCase(THREE).lower_bound(mixture, jnp.float32(0.7), current, DIM)) == pytest.approx(0.8)


# ---- beside other features


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
