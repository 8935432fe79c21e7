"""Cholesky factors with their inverses: against NumPy, in blocks and in batches, badly conditioned, indefinite."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign import _arrays, _linalg
from jaxdesign._linalg import LEAF, LEAVES, cholesky_and_inverse

factorise = jax.jit(cholesky_and_inverse)


def spd(seed, size, condition=1.0):
    """Symmetric with eigenvalues spread evenly in logarithm over a factor of `condition`."""
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]
    matrix = (turn * np.geomspace(1, 1 / condition, size)) @ turn.T
    return (matrix + matrix.T) / 2


@pytest.mark.thorough
@pytest.mark.parametrize("size", [1, 2, LEAF, LEAF + 1, 3 * LEAF - 1, 5 * LEAF])
@given(
    seed=st.integers(0, 2**32 - 1),
    condition=st.sampled_from([1.0, 1e4, 1e10]),
    scale=st.sampled_from([1e-20, 1, 1e20]),
)
def test_factor_and_inverse_are_those_of_numpy(size, seed, condition, scale):
    matrix = scale * spd(seed, size, condition)
    with _arrays.float64():
        L, X = (np.asarray(part) for part in factorise(jnp.asarray(matrix)))
    assert (np.triu(L, 1) == 0).all() and (np.triu(X, 1) == 0).all()
    np.testing.assert_allclose(L @ L.T, matrix, atol=1e-14 * size * scale)
    np.testing.assert_allclose(L @ X, np.eye(size), atol=1e-15 * size * condition**0.5)
    np.testing.assert_allclose(X @ matrix @ X.T, np.eye(size), atol=1e-15 * size * condition)


@pytest.mark.parametrize("size", [LEAF * LEAVES, 3 * LEAF * LEAVES + 7])
def test_a_program_has_at_most_so_many_leaves(size, monkeypatch):
    sizes, leaf = [], _linalg._leaf
    monkeypatch.setattr(_linalg, "_leaf", lambda matrix: sizes.append(len(matrix)) or leaf(matrix))
    jax.eval_shape(cholesky_and_inverse, jax.ShapeDtypeStruct((size, size), jnp.float32))
    assert LEAVES / 2 <= len(sizes) <= LEAVES and sum(sizes) == size


def test_batches_and_float32():
    stack = np.stack([spd(k, 2 * LEAF + 5, 10.0) for k in range(3)]).astype(np.float32)
    L, X = factorise(jnp.asarray(stack))
    assert L.dtype == X.dtype == jnp.float32
    np.testing.assert_allclose(L, np.linalg.cholesky(stack.astype(np.float64)), atol=2e-6)
    np.testing.assert_allclose(L @ X, np.broadcast_to(np.eye(2 * LEAF + 5), stack.shape), atol=2e-6)


@pytest.mark.parametrize("where", [0, LEAF, 2 * LEAF + 4])
def test_indefinite_matrices_give_nan(where):
    matrix = spd(0, 2 * LEAF + 5)
    matrix[where, where] = -1
    L, X = factorise(jnp.asarray(matrix, jnp.float32))
    assert np.isnan(np.diagonal(L)).any() and np.isnan(X).any()


ALONGSIDE = """
import jax, jax.numpy as jnp, numpy as np
from jaxdesign._linalg import cholesky_and_inverse

jax.config.update("jax_enable_x64", True)

@jax.jit
def run(batches):
    def step(_, total):
        moved = [batch + 1e-9 * total for batch in batches]
        batched = sum(cholesky_and_inverse(batch)[0].sum() for batch in moved)
        return batched + sum(jax.vmap(cholesky_and_inverse)(batch)[0].sum() for batch in moved)
    return jax.lax.fori_loop(0, 500, step, 0.0)

rows = np.random.default_rng(0).standard_normal((4, 4, 96, 96))
assert np.isfinite(float(run(list(jnp.asarray(rows @ rows.swapaxes(-1, -2) + 96 * np.eye(96))))))
"""


@pytest.mark.thorough
def test_batches_side_by_side_do_not_wait_for_each_other_for_ever():
    """LAPACK calls on batches, as jaxlib makes them, hang here on machines of few cores."""
    subprocess.run([sys.executable, "-c", ALONGSIDE], check=True, timeout=300)


def test_calls_outside_of_jit_are_compiled_once():
    """Else its loops would be compiled at every call, which is slow and in the end kills the process."""
    batch = jnp.asarray(np.stack([np.eye(7), 2 * np.eye(7)]))
    cholesky_and_inverse(batch)
    before = cholesky_and_inverse._cache_size()
    for shift in range(5):
        cholesky_and_inverse(batch + shift)
    assert cholesky_and_inverse._cache_size() == before


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_derivatives_are_those_of_lapack_factors(size):
    """First order both ways, second order as a Hessian-vector product, alone and in a batch."""
    with _arrays.float64():
        rows = np.random.default_rng(0).standard_normal((3, size, size))
        batch = jnp.asarray(rows @ rows.swapaxes(-1, -2) + size * np.eye(size))
        weights = jnp.asarray(np.random.default_rng(1).standard_normal((2, size, size)))
        change = batch[::-1] / size

        def ours(matrix):
            factor, inverse = cholesky_and_inverse(matrix)
            return jnp.sum(weights[0] * jnp.sin(factor) + weights[1] * inverse)

        def theirs(matrix):
            factor = jnp.linalg.cholesky(matrix)
            return jnp.sum(weights[0] * jnp.sin(factor) + weights[1] * jnp.linalg.inv(factor))

        for map_over in (lambda f: f(batch[0], change[0]), lambda f: jax.vmap(f)(batch, change)):
            own, other = (map_over(lambda a, v, f=f: jax.jvp(jax.grad(f), (a,), (v,))) for f in (ours, theirs))
            for mine, his in zip(own, other, strict=True):
                both = [(g + jnp.swapaxes(g, -1, -2)) / 2 for g in (mine, his)]
                np.testing.assert_allclose(*both, rtol=1e-7, atol=1e-9)
