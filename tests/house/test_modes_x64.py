"""JAX's 64-bit flag on and off, and transfers between host and device: neither changes what the functions do.

The flag is the caller's. Answers agree with those of float32 callers, and what a jitted function needs lies on the
device once it is compiled: a second call moves nothing, which a transfer guard would refuse.
"""

import jax
import numpy as np
import pytest

from tests.support.every_function import HOST, QUICK, SIBLINGS, TRACEABLE, agree, arrays, daily, pool_of


@pytest.fixture(scope="module")
def pool():
    return pool_of(*arrays())


@pytest.mark.parametrize("name", daily([*TRACEABLE, *QUICK], [*SIBLINGS, *QUICK]))
def test_the_64_bit_flag_changes_no_answer(name, pool):
    function = {**TRACEABLE, **HOST}[name]
    off = jax.tree.map(np.asarray, function(pool))
    with jax.enable_x64(True):
        agree(function(pool), off)


def test_pools_made_with_the_flag_on_keep_float64(pool):
    features, scores, mask, flip = arrays()
    with jax.enable_x64(True):
        wide = pool_of(features.astype(np.float64), scores.astype(np.float64), mask, flip)
        assert {wide.features.dtype, wide.scores.dtype, wide.flip.dtype} == {np.dtype(np.float64)}
        for name in ("pair_information", "pair_sensitivities", "policy_target", "label_information"):
            found = TRACEABLE[name](wide)
            assert found.dtype == np.float64
            agree(found, TRACEABLE[name](pool))


@pytest.mark.thorough(cases=3)
@pytest.mark.parametrize("name", daily(TRACEABLE, SIBLINGS))
def test_a_compiled_function_moves_nothing_between_host_and_device(name, pool):
    compiled = jax.jit(TRACEABLE[name])
    first = compiled(pool)
    with jax.transfer_guard("disallow"):
        again = jax.block_until_ready(compiled(pool))
    agree(again, first)


def test_the_guard_refuses_what_comes_from_the_host():
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        jax.jit(lambda x: x + 1)(np.ones(3, np.float32))
