"""The information of labels under flip noise: kernels against pairs written out one by one, margins, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign
from jaxdesign import Budget, CompletionPool, LogDet
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import exact_sensitivities, information
from jaxdesign.baselines._common import information_of_all, pair_forms
from jaxdesign.door import make_problem
from jaxdesign.information import margin_information, pair_information, pair_sensitivities
from tests.support.flips import every_kind_and_score, random_G, symmetric
from tests.support.problems import (
    COMPLETIONS,
    DIM,
    PROMPTS,
    gradients_of,
    information_of,
    random_arrays,
    random_pool,
    sensitivities_of,
    written_out,
)

RIDGE = 0.1 * np.eye(DIM)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=5)


# ---- kernels against pairs written out


@every_kind_and_score
@few
@given(seed=seeds)
def test_both_forms_are_sums_over_pairs(seed, scores, flip):
    pool = random_pool(seed, scores, flip)
    pairs, z, c = written_out(pool)
    labels = np.random.default_rng(seed).random(len(pairs))
    close = {"rtol": 0, "atol": 3e-6}
    expected = information_of(z, c, labels)
    found = pair_information(pool, symmetric(pairs, labels))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, (expected if pool.num_draws else expected[0]) / scale, **close)
    G = random_G(seed, pool.num_draws)
    expected = symmetric(pairs, sensitivities_of(z, c, G))
    found = np.asarray(pair_sensitivities(pool, G if pool.num_draws else G[0]))
    np.testing.assert_allclose(found / expected.max(), expected / expected.max(), **close)
    assert (found == found.swapaxes(1, 2)).all()


@every_kind_and_score
def test_lists_of_pairs_know_their_flips(scores, flip):
    pool = random_pool(1, scores, flip)
    pairs, _, c = written_out(pool)
    found = jaxdesign.label_information(pool, pairs)
    np.testing.assert_allclose(found, c if pool.num_draws else c[0], rtol=2e-5)
    turned = jaxdesign.label_information(pool, pairs[:, [0, 2, 1]])
    np.testing.assert_allclose(turned, found, rtol=1e-6)


@pytest.mark.thorough
@every_kind_and_score
def test_float64_kernels_of_a_problem(scores, flip):
    pool = random_pool(2, scores, flip)
    pairs, z, c = written_out(pool)
    c = np.broadcast_to(c, (pool.num_draws or 1, len(pairs)))
    problem = make_problem(pool, LogDet(), Budget(30.0), RIDGE)
    labels = np.random.default_rng(0).random(len(pairs))
    np.testing.assert_allclose(
        information(problem, Allocation(pairs, labels)), information_of(z, c, labels, RIDGE), rtol=1e-10
    )
    again = Allocation(np.concatenate([pairs] * 3), np.concatenate([labels / 3] * 3))  # long lists take another way
    assert len(again.pairs) > 2 * PROMPTS * COMPLETIONS
    np.testing.assert_allclose(information(problem, again), information_of(z, c, labels, RIDGE), rtol=1e-10)
    even = np.full(len(pairs), 30 / len(pairs))
    np.testing.assert_allclose(problem.even, information_of(z, c, even, RIDGE), rtol=2e-6, atol=1e-6)
    G = random_G(0, pool.num_draws)
    np.testing.assert_allclose(
        exact_sensitivities(problem, pairs, np.linalg.cholesky(G)), sensitivities_of(z, c, G), rtol=1e-9
    )
    np.testing.assert_allclose(information_of_all(problem), information_of(z, c, 1.0), rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(pair_forms(problem.pool, G, pairs), sensitivities_of(z, c, G), rtol=1e-9)


# ---- margins


@given(st.floats(-60, 60), st.floats(1e-12, 0.4999))
def test_float32_information_is_accurate_at_any_margin_and_noise(margin, flip):
    margin, flip = np.float32(margin), np.float32(flip)
    with jax.enable_x64(True):
        expected = float(margin_information(jnp.float64(margin), jnp.float64(flip)))
    assert float(margin_information(jnp.asarray(margin), jnp.asarray(flip))) == pytest.approx(expected, rel=3e-5)


def test_no_noise_among_noise_is_no_noise_and_never_nan():
    margins = jnp.asarray([0.0, 3.0, -50.0, 200.0, -1e4])
    np.testing.assert_array_equal(margin_information(margins, jnp.zeros(5)), margin_information(margins))
    slopes = jax.vmap(jax.grad(margin_information), (0, 0))(margins, jnp.zeros(5))
    assert np.isfinite(slopes).all()


@given(st.floats(-20, 20), st.floats(0, 0.49), st.floats(0, 0.49))
def test_more_noise_never_tells_more(margin, a, b):
    with jax.enable_x64(True):
        low, high = (float(margin_information(margin, e)) for e in sorted([a, b]))
    assert high <= low * (1 + 1e-12)


# ---- gradients


def test_gradients_with_respect_to_flips():
    features, u, mask = random_arrays(13)
    features, u = np.nan_to_num(features), np.nan_to_num(u)
    weights = symmetric(written_out(random_pool(13))[0], 1.0)

    def value(flip):
        pool = CompletionPool(features, u, mask, flip=flip)
        return LogDet().value(pair_information(pool, weights) + jnp.eye(DIM))

    flip = jnp.linspace(0.05, 0.4, PROMPTS)
    slope = np.asarray(jax.jit(jax.grad(value))(flip))
    for p in (0, 1, 3):
        step = jnp.where(jnp.arange(PROMPTS) == p, 1e-2, 0)
        difference = (value(flip + step) - value(flip - step)) / 2e-2
        assert slope[p] == pytest.approx(float(difference), rel=2e-2, abs=1e-4)
    assert slope[2] == 0  # a single completion
    assert (slope[[0, 1, 3, 4, 5]] > 0).all()


def test_gradient_of_the_design_matters_not_for_pairs_that_do_not_exist():
    pool = random_pool(0, "yes", "pair")
    G = gradients_of(information_of(*written_out(pool)[1:], 1.0))[0]

    def total(flip):
        return jnp.sum(pair_sensitivities(CompletionPool.tree_unflatten(None, (*jax.tree.leaves(pool)[:3], flip)), G))

    slope = np.asarray(jax.grad(total)(pool.flip))
    assert np.isfinite(slope).all() and (slope[~np.asarray(pool.mask)] == 0).all()
