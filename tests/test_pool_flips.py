"""Flip noise in a pool: what is kept and follows it, pools made inside of jit and stacked, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign
from jaxdesign import Budget, CompletionPool, LogDet
from jaxdesign.information import pair_sensitivities
from tests.support.flips import every_kind, pairs_daily
from tests.support.problems import (
    COMPLETIONS,
    DIM,
    PROMPTS,
    criterion_of,
    information_of,
    random_arrays,
    random_flips,
    random_pool,
    random_spd,
    written_out,
)

H = random_spd(1)
RIDGE = 0.1 * np.eye(DIM)
slow = pytest.mark.slow


# ---- what is kept


@every_kind
def test_a_pool_keeps_one_number_per_prompt_or_per_pair(flip):
    mask = random_arrays(0)[2]
    given_flip, pool = random_flips(0, mask, flip), random_pool(0, flip=flip)
    paired = mask[:, :, None] & mask[:, None, :] & ~np.eye(COMPLETIONS, dtype=bool)
    if flip != "pair":
        paired = paired.any(axis=(1, 2))
    assert pool.flip.shape == ((PROMPTS, COMPLETIONS, COMPLETIONS) if flip == "pair" else (PROMPTS,))
    assert pool.flip.dtype == jnp.float32
    np.testing.assert_array_equal(pool.flip, np.where(paired, np.float32(given_flip), 0))


def test_a_pool_does_not_follow_changes_of_the_array_it_was_given():
    features, _, mask = random_arrays(0)
    flip = np.full(PROMPTS, 0.2, np.float32)
    pool = CompletionPool(features, mask=mask, flip=flip)
    flip[:] = 0.4
    assert float(pool.flip[0]) == np.float32(0.2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_flips_of_half_precision_are_kept_in_float32(dtype):
    pool = CompletionPool(random_arrays(0, ragged=False)[0], flip=jnp.full(PROMPTS, 0.25, dtype))
    assert pool.flip.dtype == jnp.float32 and (np.asarray(pool.flip) == 0.25).all()


def test_zero_is_a_probability_and_an_integer_zero_too():
    features, u, mask = random_arrays(0)
    pairs = written_out(random_pool(0))[0]
    for zero in (0, 0.0, np.zeros(PROMPTS)):
        pool = CompletionPool(features, u, mask, flip=zero)
        expected = jaxdesign.label_information(CompletionPool(features, u, mask), pairs)
        np.testing.assert_array_equal(jaxdesign.label_information(pool, pairs), expected)


@every_kind
def test_the_range_of_a_pool_keeps_its_flips(flip):
    pool = random_pool(3, flip=flip)
    assert jaxdesign.restrict_to_range(pool)[0].flip is pool.flip


def test_rounding_in_a_symmetric_array_is_averaged_away():
    features = random_arrays(0, ragged=False)[0]
    flip = np.full((PROMPTS, COMPLETIONS, COMPLETIONS), 0.2, np.float32)
    flip[2, 1, 3] += 4e-6
    kept = np.asarray(CompletionPool(features, flip=flip).flip)
    assert kept[2, 1, 3] == kept[2, 3, 1] == pytest.approx(0.200002, abs=1e-7)


# ---- inside of jit and vmap


@pytest.mark.thorough
@pairs_daily
def test_a_pool_made_inside_of_jit_is_the_same(flip):
    features, u, mask = random_arrays(12)
    noise = np.nan_to_num(random_flips(12, mask, flip))
    outside = CompletionPool(features, u, mask, flip=noise)
    inside = jax.jit(CompletionPool)(np.nan_to_num(features), np.nan_to_num(u), mask, flip=np.float32(noise))
    np.testing.assert_array_equal(inside.flip, outside.flip)
    chosen = jax.jit(lambda f: jaxdesign.greedy(CompletionPool(f, u, mask, flip=noise), LogDet(), size=5, prior=1.0))
    np.testing.assert_array_equal(chosen(features)[0], jaxdesign.greedy(outside, LogDet(), size=5, prior=1.0)[0])


@slow
def test_pools_with_flips_are_stacked_and_mapped():
    pools = [random_pool(seed, "yes", "pair") for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pools)
    together = jax.vmap(pair_sensitivities, (0, None))(stacked, H)
    for pool, mapped in zip(pools, together, strict=True):
        np.testing.assert_allclose(mapped, pair_sensitivities(pool, H), rtol=1e-5, atol=1e-5)
    run = jax.vmap(lambda pool: jaxdesign.solvers.frank_wolfe(pool, LogDet(), Budget(20.0), passes=20, prior=RIDGE))
    allocations, certificates = run(stacked)
    for k, pool in enumerate(pools):
        pairs, z, c = written_out(pool)
        value = criterion_of(information_of(z, c, np.asarray(allocations[k], np.float64)[tuple(pairs.T)], RIDGE))
        assert float(certificates.value[k]) == pytest.approx(value, abs=1e-4)


# ---- bad input

FEATURES, _, MASK = random_arrays(0, ragged=False)


def noise(index, value, shape=(PROMPTS, COMPLETIONS, COMPLETIONS)):
    flip = np.full(shape, 0.1)
    flip[index] = value
    return flip


CASES = {
    "a half": (0.5, ValueError, ["flip", "0.5 at prompt 0", "6 such", "below 1/2", "no information", "mask"]),
    "just below a half in float64": (0.5 - 1e-12, ValueError, ["0.5 at prompt 0", "below 1/2"]),
    "negative": (noise(3, -0.1, PROMPTS), ValueError, ["flip", "-0.1 at prompt 3", "at least 0"]),
    "NaN": (noise((2, 0, 1), np.nan), ValueError, ["nan at prompt 2, completions 0 and 1", "1 such"]),
    "a pair": (noise((2, 1, 4), 0.7), ValueError, ["0.7 at prompt 2, completions 1 and 4"]),
    "not symmetric": (noise((2, 1, 4), 0.2), ValueError, ["prompt 2, completions 1 and 4", "mirror"]),
    "another shape": (np.zeros((PROMPTS, COMPLETIONS)), ValueError, ["flip", "(6, 5)", "(P,) or (P, K, K)"]),
    "other prompts": (np.zeros(PROMPTS + 1), ValueError, ["flip", "(7,)", "(6,)"]),
    "other completions": (np.zeros((PROMPTS, 4, 4)), ValueError, ["flip", "(6, 4, 4)", "(6, 5, 5)"]),
    "integers": (np.zeros(PROMPTS, int), TypeError, ["flip", "int64"]),
    "a truth": (True, TypeError, ["flip", "bool"]),
    "words": ("often", TypeError, ["flip", "<U5"]),
}


@pytest.mark.parametrize(("flip", "kind", "words"), CASES.values(), ids=CASES.keys())
def test_bad_flips_are_named(flip, kind, words):
    with pytest.raises(kind) as raised:
        CompletionPool(FEATURES, mask=MASK, flip=flip)
    assert all(word in str(raised.value) for word in words), raised.value
