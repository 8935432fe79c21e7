"""What `frank_wolfe` and `multiplicative` share: they run inside jit and vmap and never certify too much."""

import importlib
from fractions import Fraction
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import Budget, CompletionPool, LogDet, Trace, evaluate, pair_information, reference
from jaxdesign.budget.limits import Limits
from jaxdesign.solvers import frank_wolfe, multiplicative
from tests.support.problems import (
    COMPLETIONS,
    DIM,
    PROMPTS,
    criterion_of,
    information_of,
    random_arrays,
    random_pool,
    random_spd,
    written_out,
)

BOTH = {"frank_wolfe": frank_wolfe, "multiplicative": multiplicative}
both = pytest.mark.parametrize("solve", BOTH.values(), ids=BOTH.keys())
slow = pytest.mark.slow
# programs of either solver take 3 to 6 s to compile: what the same lines make of both runs daily with one of them
frank_wolfe_daily = pytest.mark.parametrize("solve", [frank_wolfe, pytest.param(multiplicative, marks=slow)])
multiplicative_daily = pytest.mark.parametrize("solve", [pytest.param(frank_wolfe, marks=slow), multiplicative])
H, HELD = random_spd(1), random_spd(2)
LIMITS = {"total": 20.0, "per_pair": 3.0}
# criterion's H (None is LogDet), budget, prior, scores
CASES = {
    "LogDet, caps": (None, LIMITS, None, "yes"),
    "Trace, quotas, prior, draws": (H, {"total": 20.0, "per_pair": 3.0, "per_prompt": 5.0}, HELD, "draws"),
}
every_case = pytest.mark.parametrize(
    ("solve", "name"),
    [
        pytest.param(frank_wolfe, "LogDet, caps"),
        pytest.param(multiplicative, "LogDet, caps", marks=slow),
        pytest.param(frank_wolfe, "Trace, quotas, prior, draws", marks=slow),
        pytest.param(multiplicative, "Trace, quotas, prior, draws"),
    ],
)
seeds = st.integers(0, 2**32 - 1)


def labels_of(pool, allocation):
    """Labels of the pairs written out one by one, and a check that there are none elsewhere."""
    allocation = np.asarray(allocation, np.float64)
    assert (allocation == allocation.swapaxes(1, 2)).all()
    pairs = written_out(pool)[0]
    labels = allocation[tuple(pairs.T)]
    assert allocation.sum() == pytest.approx(2 * labels.sum(), rel=1e-12)
    return pairs, labels


def unstacked(batch, k):
    return jax.tree.map(lambda leaf: leaf[k], batch)


def batch_of_pools(count):
    pools = [random_pool(seed) for seed in range(count)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *pools)


# ---- never better than the truth


@pytest.mark.slow
@every_case
@settings(max_examples=8)
@given(seed=seeds, passes=st.integers(1, 200))
def test_certificates_are_those_of_the_allocation_and_never_better(solve, name, seed, passes):
    H, limits, prior, scores = CASES[name]
    pool, criterion, budget = random_pool(seed, scores), LogDet() if H is None else Trace(H), Budget(**limits)
    allocation, certificate = solve(pool, criterion, budget, prior=prior, passes=passes)
    pairs, labels = labels_of(pool, allocation)
    assert labels.sum() == pytest.approx(20, rel=1e-6)
    assert labels.max() <= 3 * (1 + 1e-6)
    _, z, c = written_out(pool)
    value = criterion_of(information_of(z, c, labels, 0 if prior is None else prior), H)
    scale = max(1.0, abs(value))
    assert float(certificate.value) == pytest.approx(value, abs=3e-6 * scale)
    exact = evaluate(pool, criterion, budget, pairs, labels * (20 / labels.sum()), prior).certificate
    assert certificate.lower_bound <= exact.lower_bound + 1e-6 * scale
    assert certificate.efficiency <= exact.efficiency + 1e-6
    assert certificate.efficiency >= exact.efficiency - 1e-5
    assert certificate.gap >= 0


@pytest.mark.thorough
@every_case
def test_the_lower_bound_is_below_the_best_value_and_near_it(solve, name):
    pytest.importorskip("cvxpy", reason="the reference solver needs the extra `reference`")
    H, limits, prior, scores = CASES[name]
    pool, criterion, budget = random_pool(7, scores), LogDet() if H is None else Trace(H), Budget(**limits)
    best = reference.optimize(pool, criterion, budget, prior).certificate.value
    for passes in (1, 10, 500):
        _, certificate = solve(pool, criterion, budget, prior=prior, passes=passes)
        assert float(certificate.lower_bound) <= best
        assert float(certificate.value) >= best
    assert certificate.efficiency > 0.999


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("solve", "target"),
    [
        pytest.param(frank_wolfe, None, id="LogDet-frank_wolfe"),
        pytest.param(multiplicative, None, id="LogDet-multiplicative", marks=slow),
        pytest.param(frank_wolfe, H, id="Trace-frank_wolfe", marks=slow),
        pytest.param(multiplicative, H, id="Trace-multiplicative"),
    ],
)
def test_float32_certificates_are_rounded_to_the_safe_side(solve, target):
    """With every pair at its cap one allocation is allowed, so its value is the best: both are known in float64."""
    criterion = LogDet() if target is None else Trace(target)
    pairs = PROMPTS * COMPLETIONS * (COMPLETIONS - 1) // 2
    certify = jax.jit(lambda pool: solve(pool, criterion, Budget(pairs, per_pair=1), prior=1.0, passes=1)[1])
    for seed in range(16):
        pool = CompletionPool(random_arrays(seed, ragged=False, copies=False)[0])
        certificate = jax.tree.map(float, certify(pool))
        _, z, c = written_out(pool)
        truth = criterion_of(information_of(z, c, np.ones(pairs), np.eye(DIM)), target)
        rounding = 1e-13 * abs(truth)  # of float64; that of float32 is 6e-8
        assert certificate.value >= truth - rounding
        assert certificate.lower_bound <= truth + rounding
        assert 0 <= certificate.gap <= 4e-7 * abs(truth) and certificate.efficiency <= 1


@multiplicative_daily
def test_rounding_in_float64_makes_no_certificate_better(solve, float64_scope):
    """Badly conditioned features, against sensitivities and S = m max b in rational arithmetic: efficiency d / S."""
    total, dim, found = 8, 3, []
    certify = jax.jit(lambda pool: solve(pool, LogDet(), Budget(total), passes=20))
    for seed in range(16):
        rng = np.random.default_rng(seed)
        scaled = rng.standard_normal((4, 3, dim)) * np.array([1, 1e-2, 1e-4])
        pool = CompletionPool(scaled @ np.linalg.qr(rng.standard_normal((dim, dim)))[0])
        allocation, certificate = certify(pool)
        best = float(dim / (total * largest_sensitivity(pool.features, allocation)))
        assert certificate.efficiency <= best * (1 + 4e-15)
        found.append(float(certificate.efficiency) / best)
    assert min(found) > 1 - 1e-4  # and not much worse


def largest_sensitivity(features, allocation):
    """max z^T A^-1 z / 4 over all pairs, A = sum n z z^T / 4, as a fraction: d = 3."""
    rows = [[[Fraction(float(x)) for x in row] for row in prompt] for prompt in features]
    pairs = [(p, i, j) for p in range(len(rows)) for i, j in combinations(range(len(rows[0])), 2)]
    z = [[a - b for a, b in zip(rows[p][i], rows[p][j], strict=True)] for p, i, j in pairs]
    n = [Fraction(float(allocation[pair])) for pair in pairs]
    A = [[sum(w * v[k] * v[l] for w, v in zip(n, z, strict=True)) / 4 for l in range(3)] for k in range(3)]

    def minor(k, l):
        a, b = [r for r in range(3) if r != k], [r for r in range(3) if r != l]
        return (-1) ** (k + l) * (A[a[0]][b[0]] * A[a[1]][b[1]] - A[a[0]][b[1]] * A[a[1]][b[0]])

    det = sum(A[0][l] * minor(0, l) for l in range(3))
    return max(sum(v[k] * minor(k, l) * v[l] for k in range(3) for l in range(3)) / det / 4 for v in z)


# ---- transformations


@pytest.mark.thorough
@multiplicative_daily
def test_a_batch_equals_a_loop(solve):
    batch = batch_of_pools(8)
    one = lambda pool: solve(pool, LogDet(), Budget(**LIMITS), prior=HELD, passes=30)  # noqa: E731
    allocations, certificates = jax.jit(jax.vmap(one))(batch)
    assert allocations.shape == (8, PROMPTS, COMPLETIONS, COMPLETIONS)
    for k in range(8):
        allocation, certificate = one(unstacked(batch, k))
        # Frank-Wolfe stops moving at float32 rounding, a little earlier or later in another program
        np.testing.assert_allclose(certificates.value[k], certificate.value, rtol=2e-6)
        np.testing.assert_allclose(certificates.efficiency[k], certificate.efficiency, atol=1e-4)
        np.testing.assert_allclose(allocations[k], allocation, atol=0.1)


@pytest.mark.slow
@frank_wolfe_daily
def test_budgets_and_priors_may_be_traced_and_batched(solve):
    pool, totals, ridges = random_pool(3), jnp.array([5.0, 20.0, 40.0]), jnp.array([0.1, 0.0, 1.0])

    def value(total, ridge):
        return solve(pool, LogDet(), Limits(total, jnp.float32(3), None), prior=ridge, passes=jnp.int32(40))[1].value

    found = jax.jit(jax.vmap(value))(totals, ridges)
    for total, ridge, one in zip(totals, ridges, found, strict=True):
        budget = Budget(float(total), per_pair=3.0)
        assert float(one) == pytest.approx(
            float(solve(pool, LogDet(), budget, prior=float(ridge), passes=40)[1].value), abs=1e-4
        )


@pytest.mark.thorough
@frank_wolfe_daily
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_working_dtype_with_x64_on(solve, dtype, float64_scope):
    features, scores, mask = random_arrays(4)
    pool = CompletionPool(features.astype(dtype), scores.astype(dtype), mask)
    allocation, certificate = solve(pool, LogDet(), Budget(**LIMITS), passes=300)
    assert allocation.dtype == dtype and all(number.dtype == dtype for number in certificate)
    value = criterion_of(np.asarray(pair_information(pool, allocation), np.float64)[None])
    assert float(certificate.value) == pytest.approx(value, abs=1e-5 if dtype == np.float32 else 1e-12)
    # Frank-Wolfe converges linearly: float64 reaches what float32 cannot
    assert certificate.efficiency > (1 - 1e-9 if dtype == np.float64 and solve is frank_wolfe else 0.999)


@pytest.mark.thorough
@multiplicative_daily
def test_differentiation_takes_the_allocation_for_a_constant(solve):
    pool = random_pool(5, "no")

    def loss(features, allocation=None):
        inner = CompletionPool(features, mask=pool.mask)
        if allocation is None:
            allocation, _ = solve(inner, LogDet(), Budget(**LIMITS), passes=5)
        return jnp.sum(pair_information(inner, allocation) ** 2)

    allocation, _ = solve(pool, LogDet(), Budget(**LIMITS), passes=5)
    expected = jax.grad(loss)(pool.features, allocation)
    np.testing.assert_allclose(jax.grad(loss)(pool.features), expected, rtol=1e-4, atol=1e-4)


@both
def test_new_numbers_compile_nothing(solve):
    program = getattr(importlib.import_module(solve.__module__), f"_{solve.__name__}")
    solve(random_pool(0), LogDet(), Budget(**LIMITS), prior=0.1, passes=3)
    before = program._cache_size()
    for seed in range(3):
        budget = Budget(10 + seed, per_pair=1 + seed)
        solve(random_pool(seed), LogDet(), budget, prior=random_spd(seed), passes=4 + seed)
    assert program._cache_size() == before


# ---- values that leave no answer, and wrong arguments


@both
def test_what_cannot_be_held_or_is_singular_is_not_certified(solve):
    pool = random_pool(0)
    pairs = len(written_out(pool)[0])
    flat = CompletionPool(jnp.where(jnp.arange(DIM) == 1, 0, pool.features), pool.scores, pool.mask)
    for case, limits, prior in ((pool, Limits(pairs + 1.0, 1.0, None), 0.1), (flat, Limits(20.0, 1.0, None), None)):
        _, certificate = solve(case, LogDet(), limits, prior=prior, passes=5)
        assert certificate.value == np.inf and certificate.lower_bound == -np.inf
        assert certificate.gap == np.inf and certificate.efficiency == 0
    _, certificate = solve(flat, LogDet(), Limits(20.0, 1.0, None), prior=0.1, passes=5)
    assert np.isfinite(certificate.value)


@pytest.mark.thorough(cases=1)
@both
@pytest.mark.parametrize("size", [1e41, 1e-41])
def test_values_out_of_the_range_of_the_dtype_are_not_certified(solve, size):
    pool, limits = random_pool(0), Limits(20.0, 1.0, None)
    _, certificate = solve(pool, Trace(np.eye(DIM) * size), limits, prior=0.1, passes=5)
    assert certificate.value == np.inf and certificate.lower_bound == -np.inf and certificate.efficiency == 0


BAD = {
    "pool": (TypeError, "pool: expected jaxdesign.CompletionPool, found str", {"pool": "pool"}),
    "criterion": (TypeError, r"crit: expected LogDet\(\)", {"crit": LogDet}),
    "target": (ValueError, r"H: shape \(2, 2\) found; expected \(3, 3\)", {"crit": Trace(np.eye(2))}),
    "budget": (TypeError, "budget: expected jaxdesign.Budget or .*Limits, found float", {"budget": 20.0}),
    "cap": (ValueError, r"budget.per_pair: shape \(4,\) found", {"budget": Budget(20, per_pair=np.ones(4))}),
    "prior": (ValueError, r"prior: shape \(2, 2\) found", {"prior": np.eye(2)}),
    "indefinite": (ValueError, "prior: indefinite", {"prior": -np.eye(3)}),
    "passes": (ValueError, "passes=0: must be a whole number of at least 1", {"passes": 0}),
}


@both
@pytest.mark.parametrize("name", BAD)
def test_wrong_arguments_are_named(solve, name):
    error, message, change = BAD[name]
    arguments = {"pool": random_pool(0), "crit": LogDet(), "budget": Budget(20), "passes": 3, "prior": None, **change}
    with pytest.raises(error, match=message):
        solve(arguments.pop("pool"), arguments.pop("crit"), arguments.pop("budget"), **arguments)


@both
def test_shapes_are_checked_while_tracing(solve):
    pool = random_pool(0)
    with pytest.raises(ValueError, match=r"prior: shape \(2, 2\) found"):
        jax.jit(lambda prior: solve(pool, LogDet(), Budget(20), prior=prior))(jnp.eye(2))
