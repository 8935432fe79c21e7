"""Derivatives of the fixed point, forward and reverse, are those of the equation it solves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.dynamics import LoopPlan, fixed_point

TURN = jnp.zeros((4, 4)).at[0, 1].set(1.0).at[1, 0].set(-1.0)


def first(size):
    """log pi* of an answer that beats another by this much; at 0 the search starts where it ends."""
    return fixed_point(jnp.full((4, 4), 0.5) + size * TURN, LoopPlan(0.5, 2.0)).log_policy[0]


@pytest.mark.parametrize("at", [0.0, 0.1])
def test_forward_and_reverse_agree_with_differences(at):
    expected = (first(at + 1e-2) - first(at - 1e-2)) / 2e-2
    np.testing.assert_allclose(jax.jvp(first, (at,), (1.0,))[1], expected, rtol=1e-3)
    np.testing.assert_allclose(jax.grad(first)(at), expected, rtol=1e-3)
