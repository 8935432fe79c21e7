"""Laws of CompletionPool: what is stored, which pairs there are, what leaves pairs unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxdesign
from jaxdesign import _arrays
from jaxdesign._pairs import candidate_counts, candidate_pairs, first_copies, pair_slot, slot_pair
from jaxdesign.basis import restrict_to_range
from jaxdesign.information import pair_differences
from jaxdesign.pool import CompletionPool, centred_features
from jaxdesign.targets import second_moment
from tests.support.problems import COMPLETIONS, DIM, PROMPTS, random_arrays, random_pool, stored, written_out

seeds = st.integers(0, 2**32 - 1)


# ---- what is stored


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_features_are_stored_as_given(dtype):
    features = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4)), dtype)
    pool = CompletionPool(features)
    assert pool.features.dtype == dtype
    assert (pool.features == features).all()
    assert centred_features(pool).dtype == jnp.float32


def test_float64_features_become_float32_where_x64_is_off():
    assert CompletionPool(np.ones((1, 2, 1)) * [[[1.0], [2.0]]]).features.dtype == jnp.float32


def test_float64_features_stay_float64_where_x64_is_on(float64_scope):
    features = np.random.default_rng(0).standard_normal((2, 3, 4))
    pool = CompletionPool(features)
    assert pool.features.dtype == centred_features(pool).dtype == jnp.float64
    assert (np.asarray(pool.features) == features).all()


def test_lists_of_numbers_are_features_too():
    assert CompletionPool([[[1.0, 2.0], [3.0, 4.0]]]).dim == 2


@given(seeds)
def test_masked_slots_may_hold_anything_and_are_zero(seed):
    features, scores, mask = random_arrays(seed)
    pool = CompletionPool(features, scores, mask)
    other = CompletionPool(np.where(mask[..., None], features, np.inf), np.where(mask, scores, 7.0), mask)
    assert not np.asarray(pool.features)[~mask].any()
    assert not np.asarray(pool.scores)[~mask].any()
    assert (pool.features == other.features).all()
    assert (pool.scores == other.scores).all()


def test_a_pool_made_under_jit_zeroes_masked_slots():
    features, scores, mask = random_arrays(0)
    traced = jax.jit(CompletionPool)(features, scores, mask)
    pool = CompletionPool(features, scores, mask)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(traced), jax.tree.leaves(pool), strict=True))


def test_shapes_and_draws_are_properties():
    pool = random_pool(0, "draws")
    assert (pool.num_prompts, pool.completions, pool.dim, pool.num_draws) == (PROMPTS, COMPLETIONS, DIM, 3)
    assert random_pool(0, "yes").num_draws is None
    assert repr(pool) == "CompletionPool(prompts=6, completions=5, dim=3, draws=3)"


# ---- a pytree


@pytest.mark.parametrize("flip", [None, 0.1])
@pytest.mark.parametrize("scores", ["no", "yes", "draws"])
def test_a_pool_survives_flattening(scores, flip):
    features, u, mask = random_arrays(1, draws=3 if scores == "draws" else None)
    names = [f"q{p}" for p in range(PROMPTS)]
    pool = CompletionPool(features, None if scores == "no" else u, mask, ids=names, flip=flip)
    leaves, tree = jax.tree.flatten(pool)
    back = jax.tree.unflatten(tree, leaves)
    assert pool.ids == ("q0", "q1", "q2", "q3", "q4", "q5") and back.ids is None
    assert all(a is b for a, b in zip(jax.tree.leaves(back), leaves, strict=True))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(pool)]
    assert paths == [f".{name}" for name in ("features", "scores", "mask", "flip") if getattr(pool, name) is not None]


def test_tree_map_never_validates():
    pools = [random_pool(seed) for seed in (1, 2)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pools)
    assert batch.features.shape == (2, PROMPTS, COMPLETIONS, DIM)
    assert jax.tree.map(lambda _: None, pools[0]) is not None
    axes = jax.tree.map(lambda _: 0, batch)
    assert jax.vmap(centred_features, in_axes=(axes,))(batch).shape == batch.features.shape


def test_other_names_are_no_other_program_and_never_come_out_of_one():
    """Kept in the program, names of the first pool would come out of jit with the arrays of the second."""
    features, _, mask = random_arrays(3)
    traces = []

    @jax.jit
    def doubled(pool):
        traces.append(pool.ids)
        return jax.tree.map(lambda leaf: leaf if leaf.dtype == bool else 2 * leaf, pool)

    found = [doubled(CompletionPool(features, mask=mask, ids=np.arange(PROMPTS) + first)) for first in (0, 10)]
    assert traces == [None] and [pool.ids for pool in found] == [None, None]


# ---- centring


@given(seeds)
def test_centred_features_have_mean_zero_over_existing_completions(seed):
    pool = random_pool(seed)
    features, _, mask = stored(pool)
    centred = np.asarray(centred_features(pool))
    assert not centred[~mask].any()
    np.testing.assert_allclose(centred.sum(axis=1), 0, atol=1e-5 * np.abs(features).max())
    p, i, j = written_out(pool)[0].T
    np.testing.assert_allclose(
        centred[p, i] - centred[p, j], features[p, i] - features[p, j], atol=1e-5 * np.abs(features).max()
    )


# ---- pairs


@given(seeds)
def test_candidates_are_the_pairs_of_different_existing_completions(seed):
    pool = random_pool(seed)
    copies = first_copies(pool)
    pairs = np.argwhere(np.asarray(candidate_pairs(copies)))
    expected = written_out(pool)[0]
    assert (pairs == expected).all()
    assert (candidate_counts(copies) == np.bincount(expected[:, 0], minlength=PROMPTS)).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["float16", "bfloat16", "float32"]))
def test_first_copies_match_brute_force(seed, dtype):
    rng = np.random.default_rng(seed)
    rows = rng.choice([-1.0, -0.0, 0.0, 1.0, 1.0078125], (4, 6, 2))  # few values: many copies, zeros of both signs
    mask = rng.random((4, 6)) < 0.8
    mask[0, :2] = True
    pool = CompletionPool(jnp.asarray(rows, dtype), mask=mask)
    stored_rows = np.asarray(pool.features).astype(np.float64)
    expected = np.full((4, 6), -1)
    for p, i in np.argwhere(mask):
        expected[p, i] = next(k for k in range(6) if mask[p, k] and (stored_rows[p, k] == stored_rows[p, i]).all())
    assert (np.asarray(first_copies(pool)) == expected).all()
    assert (np.asarray(jax.jit(first_copies)(pool)) == expected).all()


def test_rows_that_differ_in_one_bit_are_no_copies():
    row = np.ones((1, 2, 300), np.float32)
    row[0, 1, 299] = np.nextafter(np.float32(1), np.float32(2))
    assert np.asarray(first_copies(CompletionPool(row))).tolist() == [[0, 1]]


def test_copies_in_float64_are_told_apart_in_float64(float64_scope):
    rows = np.ones((1, 2, 2))
    rows[0, 1, 1] += 1e-12
    assert np.asarray(first_copies(CompletionPool(rows))).tolist() == [[0, 1]]


@given(st.integers(2, 200), st.data())
def test_slots_number_pairs_one_to_one(completions, data):
    i, j = (data.draw(st.integers(0, completions - 1)) for _ in range(2))
    slot = pair_slot(i, j, completions)
    assert 0 <= slot < completions**2
    assert slot_pair(slot, completions) == (i, j)


def test_chunks_change_no_copy(monkeypatch):
    features = np.random.default_rng(7).integers(-1, 2, (50, 4, 2)).astype(np.float32)
    pool = CompletionPool(features)
    whole = first_copies(pool)
    monkeypatch.setitem(_arrays.CHUNK_ENTRIES, jax.default_backend(), 64)
    assert _arrays.chunk_length(50, 4, 2) == 4  # thirteen chunks, the last one padded
    assert (first_copies(pool) == whole).all()
    assert candidate_counts(whole).sum() == len(written_out(pool)[0])


# ---- restrict_to_range


@given(seeds)
def test_restriction_is_orthonormal_and_keeps_every_distance(seed):
    rng = np.random.default_rng(seed)
    low = random_arrays(seed)[0] @ rng.standard_normal((DIM, 7)).astype(np.float32)
    pool = CompletionPool(low, mask=random_arrays(seed)[2])
    restricted, basis = restrict_to_range(pool, rtol=1e-10)
    assert basis.shape == (7, DIM)
    assert basis.dtype == np.float64
    assert restricted.dim == DIM
    np.testing.assert_allclose(basis.T @ basis, np.eye(DIM), atol=1e-12)
    pairs, z, _ = written_out(pool)
    restricted_z = np.asarray(pair_differences(restricted, pairs))
    np.testing.assert_allclose(restricted_z, z @ basis, atol=2e-6 * np.abs(z).max())
    np.testing.assert_allclose(
        np.linalg.norm(restricted_z, axis=1), np.linalg.norm(z, axis=1), atol=5e-6 * np.abs(z).max()
    )
    assert not np.asarray(restricted.features)[~np.asarray(pool.mask)].any()


def test_restriction_orders_directions_and_keeps_scores_mask_and_ids():
    features, scores, mask = random_arrays(4)
    pool = CompletionPool(features, scores, mask, ids=range(PROMPTS))
    restricted, basis = restrict_to_range(pool)
    assert restricted.ids == pool.ids
    assert restricted.scores is pool.scores
    moment = second_moment(restricted)
    np.testing.assert_allclose(moment, np.diag(np.diag(moment)), atol=1e-5 * moment[0, 0])
    assert (np.diff(np.diag(moment)) <= 0).all()
    np.testing.assert_allclose(basis.T @ second_moment(pool) @ basis, moment, atol=1e-5 * moment[0, 0])


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_copies_stay_bit_identical_under_restriction(dtype):
    features = np.random.default_rng(5).standard_normal((3, 40, 33))
    features[:, 20:] = features[:, :20]
    restricted, _ = restrict_to_range(CompletionPool(jnp.asarray(features, dtype)))
    assert restricted.features.dtype == jnp.float32
    assert (restricted.features[:, 20:] == restricted.features[:, :20]).all()
    assert candidate_counts(first_copies(restricted)).tolist() == [40 * 39 / 2 - 20] * 3


def test_the_second_moment_is_that_of_the_centred_rows():
    pool = random_pool(6)
    features, _, mask = stored(pool)
    rows = [features[p, mask[p]] - features[p, mask[p]].mean(axis=0) for p in range(PROMPTS)]
    rows = np.concatenate(rows)
    moment = second_moment(pool)
    assert moment.dtype == np.float64
    np.testing.assert_allclose(moment, rows.T @ rows / mask.sum(), rtol=1e-12, atol=1e-14)


# ---- float64 features where JAX has float32


@pytest.mark.slow
def test_a_common_offset_of_float64_features_costs_no_digits():
    """Differences do not change with it; rounded before it is taken off, they would differ by tenths here."""
    rng = np.random.default_rng(1)
    plain = rng.standard_normal((12, 5, 4))
    far = plain + 1e7 * rng.standard_normal((12, 1, 4))
    index = np.array([(p, 0, k) for p in range(12) for k in range(1, 5)])
    exact = far[index[:, 0], index[:, 1]] - far[index[:, 0], index[:, 2]]
    np.testing.assert_allclose(pair_differences(CompletionPool(far), index), exact, atol=5e-7)
    design = jaxdesign.optimize(CompletionPool(far), jaxdesign.LogDet(), jaxdesign.Budget(20, per_pair=1))
    z = far[design.pairs[:, 0], design.pairs[:, 1]] - far[design.pairs[:, 0], design.pairs[:, 2]]
    value = -np.linalg.slogdet((design.labels / 4 * z.T) @ z)[1]
    assert design.certificate.value == pytest.approx(value, abs=1e-5)


def test_float64_features_that_are_float32_numbers_stay_as_they_are():
    features = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(CompletionPool(features.astype(np.float64)).features, features)


def test_one_far_completion_does_not_cost_the_others_their_digits():
    features = np.random.default_rng(0).standard_normal((2, 5, 3)) + 1e3
    features[:, 0] += 1e9
    mask = np.ones((2, 5), bool)
    mask[1, 4], features[1, 4] = False, np.nan
    pool = CompletionPool(features, mask=mask)
    index = np.array([(0, 1, 4), (0, 2, 3), (1, 1, 2), (1, 2, 3)])
    exact = features[index[:, 0], index[:, 1]] - features[index[:, 0], index[:, 2]]
    np.testing.assert_allclose(pair_differences(pool, index), exact, atol=1e-6)


def test_host_functions_say_that_they_are_inside_of_jit():
    pool = CompletionPool(np.random.default_rng(0).standard_normal((3, 4, 2)).astype(np.float32))
    calls = {
        "restrict_to_range": lambda p: restrict_to_range(p)[1],
    }
    for name, function in calls.items():
        with pytest.raises(TypeError, match=rf"pool: is traced; jaxdesign\.{name} runs on the host"):
            jax.jit(function)(pool)


def test_a_pool_is_a_copy_of_numpy_arrays_that_devices_could_share():
    """Arrays that begin at a multiple of 64 bytes are taken over without a copy by `jax.device_put`, asked or not."""

    def aligned(shape):
        room = np.zeros(4 * int(np.prod(shape)) + 64, np.uint8)
        start = -room.ctypes.data % 64
        array = room[start : start + 4 * int(np.prod(shape))].view(np.float32).reshape(shape)
        array[:] = np.random.default_rng(0).uniform(0.1, 0.4, shape)
        return array

    features, scores, flip = aligned((64, 8, 16)), aligned((64, 8)), aligned((64,))
    pool = CompletionPool(features, scores, flip=flip)
    before = [np.array(leaf) for leaf in (pool.features, pool.scores, pool.flip)]
    for array in (features, scores, flip):
        array[:] = 0.25
    for leaf, expected in zip((pool.features, pool.scores, pool.flip), before, strict=True):
        np.testing.assert_array_equal(leaf, expected)
