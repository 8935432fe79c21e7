"""Rank-one and rank-k updates agree with fresh factorisations; what is not positive definite is NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign.rank_updates import InverseState, rank_k_update, rank_one_update, refreshed, start_inverse
from tests.support.problems import random_spd

DIM, K = 6, 4
seeds = st.integers(0, 2**32 - 1)
one, many, start = jax.jit(rank_one_update), jax.jit(rank_k_update), jax.jit(start_inverse)


def problem(seed, dtype=np.float32):
    """A well conditioned A, rows of length about one, weights of both signs that leave it positive definite."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((K, DIM)) / DIM**0.5
    weights = rng.uniform(0.1, 2, K) * [1, 1, -1, 0]
    A = random_spd(seed, DIM) + np.eye(DIM) + 2 * Z.T @ Z
    return A.astype(dtype), Z.astype(dtype), weights.astype(dtype)


def agrees(state, A, rtol):
    fresh = np.linalg.inv(A.astype(np.float64))
    np.testing.assert_allclose(state.information, A, rtol=0, atol=rtol * np.abs(A).max())
    np.testing.assert_allclose(state.inverse, fresh, rtol=0, atol=rtol * np.abs(fresh).max())
    np.testing.assert_allclose(state.log_det, np.linalg.slogdet(A)[1], rtol=0, atol=DIM * rtol)


@given(seeds)
def test_updates_agree_with_a_fresh_factorisation(seed):
    A, Z, weights = problem(seed)
    state = start(A)
    agrees(state, A, 2e-5)
    for z, w in zip(Z, weights, strict=True):
        state = one(state, z, w)
    agrees(state, A + (Z.T * weights) @ Z, 2e-5)
    assert int(state.updates) == K
    agrees(many(start(A), Z, weights), A + (Z.T * weights) @ Z, 2e-5)


@pytest.mark.thorough
def test_updates_in_float64_stay_float64(float64_scope):
    A, Z, weights = problem(0, np.float64)
    state = rank_k_update(start_inverse(A), Z, weights)
    assert all(x.dtype == jnp.float64 for x in state[:3])
    agrees(state, A + (Z.T * weights) @ Z, 1e-13)
    agrees(rank_one_update(start_inverse(A), Z[0], weights[0]), A + weights[0] * np.outer(Z[0], Z[0]), 1e-13)


@given(seeds)
def test_an_update_taken_back_is_no_update(seed):
    A, Z, weights = problem(seed)
    state = many(many(start(A), Z, weights), Z, -weights)
    agrees(state, A, 5e-5)


@pytest.mark.parametrize("weight", [-1.0, -1.5, -1e30])
def test_a_downdate_to_a_singular_or_indefinite_matrix_is_nan(weight):
    state = start(jnp.eye(DIM))
    for after in (
        one(state, jnp.eye(DIM)[0], jnp.float32(weight)),
        many(state, jnp.eye(DIM)[:K], jnp.float32([weight, 0, 0, 1])),
    ):
        assert np.isnan(after.log_det)
        assert np.isnan(after.inverse).all()


def test_two_directions_turned_negative_are_nan_although_the_determinant_is_positive():
    after = many(start(jnp.eye(DIM)), jnp.eye(DIM)[:K], jnp.float32([-2, -2, 0, 0]))
    assert np.isnan(after.log_det)
    assert np.isnan(after.inverse).all()


def test_a_singular_start_is_nan():
    assert np.isnan(start(jnp.zeros((DIM, DIM))).log_det)


@pytest.mark.thorough
def test_updates_pass_through_vmap():
    problems = [problem(seed) for seed in range(3)]
    A, Z, weights = (np.stack(part) for part in zip(*problems, strict=True))
    states = jax.vmap(rank_k_update)(jax.vmap(start_inverse)(A), Z, weights)
    single = jax.vmap(rank_one_update)(jax.vmap(start_inverse)(A), Z[:, 0], weights[:, 0])
    for k in range(3):
        agrees(jax.tree.map(lambda x, k=k: x[k], states), A[k] + (Z[k].T * weights[k]) @ Z[k], 2e-5)
        agrees(jax.tree.map(lambda x, k=k: x[k], single), A[k] + weights[k, 0] * np.outer(Z[k, 0], Z[k, 0]), 2e-5)


def test_a_refresh_waits_for_its_turn_and_bounds_the_drift():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2000, DIM)).astype(np.float32)
    signs = np.where(np.arange(2000) % 2, -1, 1).astype(np.float32)
    rows[1::2] = rows[::2]  # each row is added and taken away again

    def walk(state, part):
        return refreshed(rank_one_update(state, *part), every=64), None

    state = jax.jit(lambda state: jax.lax.scan(walk, state, (rows, signs))[0])(start(jnp.eye(DIM)))
    agrees(state, np.asarray(state.information), 1e-5)
    assert int(state.updates) == 2000 % 64

    young = InverseState(jnp.eye(DIM), 2 * jnp.eye(DIM), jnp.float32(1), jnp.int32(63))
    assert refreshed(young).log_det == 1
    assert refreshed(young._replace(updates=jnp.int32(64))).log_det == 0
