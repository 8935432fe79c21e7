"""Float64 features, and JAX with x64 switched on or off: the same designs, certificates always in float64."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxdesign
from jaxdesign import Budget, CompletionPool, LogDet, Status, Trace
from jaxdesign.door import make_problem
from tests.support.medium import DIM, medium_arrays, medium_pool, solve
from tests.support.problems import criterion_of, information_of, random_spd, written_out

H = random_spd(1, DIM)
BUDGET = Budget(100, per_pair=2)
slow = pytest.mark.slow
criteria = pytest.mark.parametrize("criterion", [LogDet(), Trace(H)], ids=["LogDet", "Trace"])


def wide_pool(seed):
    """Float64 features that float32 cannot hold, the same in float32 to rounding."""
    features, scores, mask = medium_arrays(seed)
    features = features.astype(np.float64) * (1 + 1e-9 * np.random.default_rng(seed).random(features.shape))
    return CompletionPool(features, scores, mask)


def value_in_numpy(pool, criterion, design):
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    rows = [index[tuple(pair)] for pair in design.pairs.tolist()]
    return criterion_of(information_of(z[rows], c[:, rows], design.labels), getattr(criterion, "H", None))


def test_float64_features_are_kept_where_x64_is_on_and_become_float32_where_it_is_off():
    features, scores, mask = medium_arrays(0)
    with jax.enable_x64(True):
        assert wide_pool(0).features.dtype == np.float64
        assert make_problem(wide_pool(0), LogDet(), BUDGET).source.dtype == np.float64
    with jax.enable_x64(False):
        assert CompletionPool(features.astype(np.float64), scores, mask).features.dtype == np.float32


@pytest.mark.thorough
@pytest.mark.parametrize("criterion", [LogDet(), pytest.param(Trace(H), marks=slow)], ids=["LogDet", "Trace"])
def test_float64_features_are_solved_in_float64(criterion):
    with jax.enable_x64(True):
        pool = wide_pool(0)
        design = solve(pool, criterion, BUDGET, tol=1e-9)
        assert design.status is Status.CERTIFIED
        assert design.certificate.efficiency >= 1 - 1e-9
        assert design.certificate.value == pytest.approx(value_in_numpy(pool, criterion, design), rel=1e-11)
    assert design.labels.dtype == np.float64 and design.pairs.dtype == np.int32
    assert all(type(number) is float for number in design.certificate)


@pytest.mark.parametrize("criterion", [LogDet(), pytest.param(Trace(H), marks=slow)], ids=["LogDet", "Trace"])
def test_float32_and_float64_features_give_the_same_criterion(criterion):
    features, scores, mask = medium_arrays(1)
    narrow = solve(CompletionPool(features, scores, mask), criterion, BUDGET, tol=1e-7)
    with jax.enable_x64(True):
        wide = solve(CompletionPool(features.astype(np.float64), scores, mask), criterion, BUDGET, tol=1e-7)
    assert narrow.status is wide.status is Status.CERTIFIED
    assert narrow.certificate.value == pytest.approx(wide.certificate.value, rel=1e-6)
    assert narrow.certificate.lower_bound <= wide.certificate.value + 1e-12 * abs(wide.certificate.value)
    assert wide.certificate.lower_bound <= narrow.certificate.value + 1e-12 * abs(narrow.certificate.value)


@criteria
@pytest.mark.parametrize("x64", [False, True])
def test_one_allocation_has_one_certificate_whatever_the_flag(criterion, x64):
    """The pool is made inside of the scope or outside of it; its stored features are float32 both times."""
    pool = medium_pool(2)
    design = solve(pool, criterion, BUDGET, tol=1e-4)
    with jax.enable_x64(x64):
        for given in (pool, medium_pool(2)):
            assert given.features.dtype == np.float32
            found = jaxdesign.evaluate(given, criterion, BUDGET, design.pairs, design.labels)
            assert found.certificate.value == pytest.approx(design.certificate.value, rel=1e-13)
            assert found.certificate.efficiency == pytest.approx(design.certificate.efficiency, abs=1e-4)


def test_the_flag_of_the_caller_is_left_alone():
    for x64 in (False, True):
        with jax.enable_x64(x64):
            solve(medium_pool(0), LogDet(), BUDGET, tol=1e-3)
            assert jax.config.jax_enable_x64 is x64
    assert jax.config.jax_enable_x64 is False


def test_a_prior_and_a_target_given_in_float64_stay_so():
    """A change of 2^-30, which float32 would lose, is found again in the criterion."""
    pool, labels = medium_pool(0), np.array([50.0, 50.0])
    prior, finer = random_spd(2, DIM) + np.eye(DIM), 1 + 2.0**-30
    pairs, z, c = written_out(pool)
    pairs, z, c = pairs[[0, -1]], z[[0, -1]], c[:, [0, -1]]
    matrix = information_of(z, c, labels, prior)[0]
    inverse = np.linalg.inv(matrix)

    def value(criterion, prior):
        return jaxdesign.evaluate(pool, criterion, Budget(100), pairs, labels, prior).certificate.value

    change = value(LogDet(), prior * finer) - value(LogDet(), prior)
    assert change == pytest.approx(-np.trace(inverse @ prior) * 2.0**-30, rel=1e-3)
    assert value(Trace(H * finer), prior) == pytest.approx(np.trace(H @ inverse) * finer, rel=1e-13)


SCRIPT = """
import numpy as np, jax
jax.config.update("jax_enable_x64", True)
import jaxdesign
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    pool = jaxdesign.CompletionPool(rng.standard_normal((6, 4, 3)).astype(dtype), rng.standard_normal((6, 4)))
    assert pool.features.dtype == dtype
    for crit in (jaxdesign.LogDet(), jaxdesign.Trace(np.eye(3))):
        design = jaxdesign.optimize(pool, crit, jaxdesign.Budget(12, per_pair=1.5, per_prompt=4), tol=1e-5)
        assert design.status is jaxdesign.Status.CERTIFIED, design
        again = jaxdesign.evaluate(
            pool, crit, jaxdesign.Budget(12, per_pair=1.5, per_prompt=4), design.pairs, design.labels
        )
        assert abs(again.certificate.value - design.certificate.value) <= 1e-12 * abs(design.certificate.value)
assert jax.config.jax_enable_x64
print("done")
"""


@pytest.mark.slow
def test_x64_switched_on_globally():
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "done"
