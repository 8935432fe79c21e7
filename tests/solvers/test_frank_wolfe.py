"""Frank-Wolfe: exact line searches, directions that descend and are allowed, linear convergence without quotas."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import Budget, CompletionPool, Criterion, LogDet, Status, Trace, _arrays, evaluate, optimize, reference
from jaxdesign.door import make_problem
from jaxdesign.methods.line_search import exact_step
from jaxdesign.methods.room import linear_oracle, rescale
from jaxdesign.solvers import frank_wolfe
from jaxdesign.solvers.dense.frank_wolfe import direction
from jaxdesign.solvers.dense.problem import dense_of
from tests.support.problems import DIM, PROMPTS, random_pool, random_spd

seeds = st.integers(0, 2**32 - 1)
H = random_spd(1)
needs_cvxpy = pytest.mark.skipif(find_spec("cvxpy") is None, reason="the reference solver needs the extra `reference`")
CRITERIA = {
    "LogDet": LogDet(),
    "Trace": Trace(H),
    "Trace of a low-rank H": Trace(random_spd(2, rank=1)),
    "Criterion": Criterion(lambda A: jnp.sum(jnp.linalg.inv(A @ A) * jnp.eye(DIM))),
}


@pytest.mark.thorough
@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA.keys())
@settings(max_examples=15)
@given(seed=seeds, scale=st.sampled_from([1e-3, 1.0, 30.0]), longest=st.sampled_from([0.1, 1.0]))
def test_the_line_search_finds_the_minimum(criterion, seed, scale, longest):
    """Against a grid, in directions that may leave the positive definite matrices before the end."""
    A = np.stack([random_spd(seed) + 0.01 * np.eye(DIM), random_spd(seed + 1) + np.eye(DIM)])
    D = scale * np.stack([random_spd(seed + 2, rank=2) - 0.4 * A[0], random_spd(seed + 3) - A[1]])
    with _arrays.float64():
        t = float(_searched(criterion, A, D, longest))
        grid = np.concatenate([np.linspace(0, longest, 201), longest * np.geomspace(1e-9, 1, 100), [t]])
        values = np.asarray(_values(criterion, A, D, grid))
    assert 0 <= t <= longest
    assert np.isfinite(values[-1])
    assert values[-1] <= np.nanmin(values) + 1e-9 * abs(np.nanmin(values))


_searched = jax.jit(lambda criterion, A, D, longest: exact_step(criterion, A, D, jnp.asarray(longest, A.dtype)))


@jax.jit
def _values(criterion, A, D, grid):
    def one(t):
        moved = A + t * D
        inside = jnp.linalg.eigvalsh(moved).min() > 0
        return jnp.where(inside, criterion.value(moved), jnp.nan)

    return jax.lax.map(one, grid)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "limits", [{"per_pair": 20.0}, {"per_pair": 2.0}, {"per_pair": 2.0, "per_prompt": 5.0}], ids=str
)
@given(seed=seeds, sparse=st.booleans())
def test_directions_are_allowed_and_descend(limits, seed, sparse):
    rng = np.random.default_rng(seed)
    problem = make_problem(random_pool(seed % 5, "no"), LogDet(), Budget(20, **limits))
    with _arrays.float64():
        dense = dense_of(problem)
        room, unit = dense.room, float(dense.labels)
        b = jnp.where(room.cap > 0, rng.exponential(size=room.cap.shape), 0).astype(room.cap.dtype)
        point = rng.exponential(size=room.cap.shape) ** (4 if sparse else 1)
        labels = _allowed(jnp.asarray(point, room.cap.dtype), room)
        if sparse:  # a vertex: every label is at a bound
            labels = _oracle(jnp.where(room.cap > 0, jnp.asarray(point, b.dtype), 0), room)
        move = np.asarray(_direction(b, labels, room), np.float64)[:PROMPTS]
        b, labels, best = (np.asarray(a, np.float64)[:PROMPTS] for a in (b, labels, _oracle(b, room)))
    move, labels, best = (unit * part for part in (move, labels, best))
    moved = labels + move
    assert abs(move.sum()) <= 1e-4
    assert moved.min() >= -1e-5 and moved.max() <= limits["per_pair"] * (1 + 1e-5)
    assert moved.sum(axis=(1, 2)).max() <= limits.get("per_prompt", 20.0) * (1 + 1e-4)
    gap = np.sum(b * (best - labels))
    if gap > 1e-3:
        assert np.sum(b * move) > 0


_direction, _oracle = jax.jit(direction), jax.jit(linear_oracle)
_allowed = jax.jit(lambda point, room: rescale(jnp.where(room.cap > 0, point, 0), room))


@pytest.mark.slow
def test_from_an_even_allocation_over_many_pairs_tens_of_passes_suffice():
    """Steps between single pairs would need one pass for each of the 1,800 pairs."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((64, 8, 8)) * np.abs(rng.standard_t(3, (64, 1, 1)))
    pool = CompletionPool(features.astype(np.float32))
    gaps = [1 - float(frank_wolfe(pool, LogDet(), Budget(100), passes=k)[1].efficiency) for k in (60, 120, 300)]
    assert gaps[0] < 0.05 and gaps[1] < 2e-3 and gaps[2] < 1e-5
    allocation, _ = frank_wolfe(pool, LogDet(), Budget(100), passes=300)
    assert (np.triu(np.asarray(allocation)) > 0).sum() < 40  # the others are exactly zero


@needs_cvxpy
@pytest.mark.parametrize(
    ("criterion", "limits", "tol"),
    [
        (LogDet(), {"total": 20.0}, 1e-5),
        (LogDet(), {"total": 20.0, "per_pair": 1.0}, 1e-5),
        (LogDet(), {"total": 20.0, "per_pair": 3.0, "per_prompt": 5.0}, 2e-3),
    ],
    ids=["no limits", "caps", "quotas"],
)
def test_optimize_reaches_its_tolerance(criterion, limits, tol):
    pool = random_pool(4)
    design = optimize(pool, criterion, Budget(**limits), prior=0.1, solver="frank_wolfe", tol=tol)
    best = reference.optimize(pool, criterion, Budget(**limits), 0.1)
    assert design.status is Status.CERTIFIED
    assert best.certificate.lower_bound <= design.certificate.value
    assert design.certificate.lower_bound <= best.certificate.value
    again = evaluate(pool, criterion, Budget(**limits), design.pairs, design.labels, prior=0.1)
    assert again.certificate.value == pytest.approx(design.certificate.value, rel=1e-12)


@needs_cvxpy
def test_a_start_saves_passes():
    pool, budget = random_pool(6), Budget(20)
    near = optimize(pool, LogDet(), budget, prior=0.1, tol=1e-6)
    cold = optimize(pool, LogDet(), budget, prior=0.1, solver="frank_wolfe", tol=1e-3)
    warm = optimize(pool, LogDet(), budget, prior=0.1, solver="frank_wolfe", tol=1e-3, start=near)
    assert warm.status is Status.CERTIFIED and warm.passes < cold.passes
