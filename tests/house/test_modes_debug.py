"""JAX's debugging modes: which public functions run under `jax_debug_nans` and `jax_debug_infs`.

With `jax_debug_nans` JAX stops at a compiled program that gives a NaN back, with `jax_debug_infs` at an inf.
All functions of `every_function` run under the first, on a pool whose masked slots and flips are made of NaN, and all
but those of `STOPS` under the second. Both are used on purpose, but stay inside of compiled programs:

- a Cholesky factorisation gives NaN where a matrix is not positive definite, and the caller looks at that: line
  searches, the lift before a greedy choice, the spectral factors of a singular G;
- -inf is the gain of what may not be picked, +inf the level of what has no limit.

What comes out is NaN or inf by definition: the criterion of a singular matrix (inf or NaN), the efficiency of a
`Criterion` that has no formula for it (NaN), the log-probability of a completion that does not exist (-inf).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import Budget, Criterion, LogDet
from jaxdesign.budget.limits import Limits
from jaxdesign.solvers import multiplicative
from tests.support.every_function import DIM, HOST, QUICK, SIBLINGS, TARGET, TRACEABLE, arrays, daily, pool_of

pytestmark = pytest.mark.thorough

STOPS = {  # under `jax_debug_infs`
    "log_policy": "-inf for completions that do not exist",
    "posterior_targets": "computes log_policy on its way",
    "select_pairs, coupled, LogDet": "the exchange pads its lists with inf; charged sensitivities are -inf at no pair",
}
EVERY = {name: {**TRACEABLE, **HOST}[name] for name in [*TRACEABLE, *QUICK]}


@pytest.fixture(scope="module")
def pool():
    return pool_of(*arrays())


@pytest.fixture
def nans():
    with jax.debug_nans(True):
        yield


@pytest.fixture
def infs():
    with jax.debug_infs(True):
        yield


LONG = [*QUICK, *SIBLINGS]  # what compiles most


@pytest.mark.thorough(cases=4)
@pytest.mark.parametrize("name", daily(EVERY, LONG))
def test_no_function_gives_nan_back(name, nans):
    pool = pool_of(*arrays())
    EVERY[name](pool)
    if name in TRACEABLE:
        jax.jit(EVERY[name])(pool)


@pytest.mark.parametrize("name", daily([name for name in EVERY if name not in STOPS], LONG))
def test_no_other_function_gives_inf_back(name, pool, infs):
    EVERY[name](pool)


@pytest.mark.parametrize("name", STOPS)
def test_what_gives_inf_back_is_listed(name, pool, infs):
    with pytest.raises(FloatingPointError):
        EVERY[name](pool)


SINGULAR = np.zeros((DIM, DIM), np.float32)
TOO_MANY = Limits(1e4, 1.0, None)  # labels for what the caps hold
GAP = Criterion(lambda A: -jnp.trace(A))


@pytest.mark.slow
def test_answers_that_are_nan_or_inf_by_definition(pool):
    value = multiplicative(pool, LogDet(), TOO_MANY, prior=TARGET, passes=2)[1].value
    assert value == np.inf and not np.isfinite(LogDet().value(SINGULAR))
    assert np.isnan(multiplicative(pool, GAP, Budget(5), prior=TARGET, passes=2)[1].efficiency)
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        LogDet().value(SINGULAR)


@pytest.mark.slow  # JAX looks for the culprit by running the whole solver again, one operation at a time
def test_solvers_that_answer_with_them_are_stopped(pool):
    with jax.debug_infs(True), pytest.raises(FloatingPointError):
        multiplicative(pool, LogDet(), TOO_MANY, prior=TARGET, passes=2)
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        multiplicative(pool, GAP, Budget(5), prior=TARGET, passes=2)
