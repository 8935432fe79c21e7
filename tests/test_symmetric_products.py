"""Symmetric products by panels: the same numbers as one product, symmetric to the last bit, with derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import _arrays, _linalg
from jaxdesign._linalg import symmetric_product


@pytest.mark.parametrize("size", [5, _linalg.WIDE - 1, _linalg.WIDE, 200, 261])
@pytest.mark.parametrize("draws", [(), (2,)])
def test_it_is_the_product(size, draws):
    rng = np.random.default_rng(size)
    rows, weights = rng.standard_normal((70, size)), rng.uniform(0, 1, (*draws, 70, 1))
    with _arrays.float64():
        found = np.asarray(jax.jit(symmetric_product)(jnp.asarray(weights * rows), jnp.asarray(rows)))
    np.testing.assert_array_equal(found, np.swapaxes(found, -1, -2))
    np.testing.assert_allclose(found, np.swapaxes(weights * rows, -1, -2) @ rows, rtol=1e-12, atol=1e-12)


def test_panels_have_the_derivative_of_the_product():
    rng = np.random.default_rng(0)
    rows, probe = rng.standard_normal((9, _linalg.WIDE + 3)), rng.standard_normal((_linalg.WIDE + 3,) * 2)
    with _arrays.float64():
        rows, probe = jnp.asarray(rows), jnp.asarray(probe + probe.T)
        slope = jax.grad(lambda w: jnp.sum(symmetric_product(w[:, None] * rows, rows) * probe))(jnp.ones(9))
        np.testing.assert_allclose(slope, np.einsum("nd,de,ne->n", rows, probe, rows), rtol=1e-10)


def test_a_cpu_is_spared_the_lower_panels():
    rows = jax.ShapeDtypeStruct((1024, 512), jnp.float32)
    flops = jax.jit(symmetric_product).lower(rows, rows).compile().cost_analysis()["flops"]
    assert flops < 0.7 * 2 * 1024 * 512**2
