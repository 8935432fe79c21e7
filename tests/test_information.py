"""Laws of the Laplacian and Gram forms, against pairs written out one by one in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign import _arrays
from jaxdesign.information import (
    label_information,
    margin_information,
    pair_differences,
    pair_information,
    pair_sensitivities,
    sparse_information,
)
from jaxdesign.pool import CompletionPool
from jaxdesign.targets import policy_target, second_moment
from tests.support.problems import (
    COMPLETIONS,
    DIM,
    DRAWS,
    PROMPTS,
    information_of,
    random_arrays,
    random_pool,
    random_spd,
    sensitivities_of,
    stored,
    written_out,
)

seeds = st.integers(0, 2**32 - 1)
TOLERANCE = {"float16": 2e-6, "bfloat16": 2e-6, "float32": 2e-6, "float64": 1e-14}  # relative to the largest entry


def close(found, expected, tolerance=2e-6):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max(initial=1e-300))


def symmetric_weights(seed, lead=()):
    weights = np.random.default_rng(seed).random((*lead, PROMPTS, COMPLETIONS, COMPLETIONS))
    return weights + weights.swapaxes(-1, -2)


def cast(pool, dtype):
    scores = None if pool.scores is None else pool.scores.astype(dtype)
    return CompletionPool(pool.features.astype(dtype), scores, pool.mask, flip=pool.flip)


# ---- the two forms are sums over pairs


def check_both_forms(pool, seed, tolerance):
    pairs, z, c = written_out(pool)
    p, i, j = pairs.T
    weights = symmetric_weights(seed)
    expected = information_of(z, c, weights[p, i, j])
    found = np.asarray(pair_information(pool, weights))
    close(found, expected if pool.num_draws else expected[0], tolerance)
    assert (found == found.swapaxes(-1, -2)).all()

    G = np.stack([random_spd([seed, r]) for r in range(len(c))])
    expected = np.zeros((PROMPTS, COMPLETIONS, COMPLETIONS))
    expected[p, i, j] = expected[p, j, i] = sensitivities_of(z, c, G)
    found = np.asarray(pair_sensitivities(pool, G if pool.num_draws else G[0]))
    close(found, expected, tolerance)
    assert (found == found.swapaxes(1, 2)).all()
    assert not found[:, np.arange(COMPLETIONS), np.arange(COMPLETIONS)].any()
    mask = np.asarray(pool.mask)
    assert not found[~(mask[:, :, None] & mask[:, None, :])].any()


@given(seeds, st.sampled_from(["no", "yes", "draws"]), st.sampled_from(["float16", "bfloat16", "float32"]))
def test_laplacian_and_gram_forms_are_sums_over_pairs(seed, scores, dtype):
    check_both_forms(cast(random_pool(seed, scores), dtype), seed, TOLERANCE[dtype])


@pytest.mark.thorough
@given(seeds, st.sampled_from(["no", "yes", "draws"]))
def test_laplacian_and_gram_forms_are_exact_in_float64(seed, scores):
    with jax.enable_x64(True):
        features, u, mask = random_arrays(seed, draws=DRAWS if scores == "draws" else None)
        u = None if scores == "no" else u.astype(np.float64) / 3
        pool = CompletionPool(features.astype(np.float64) / 3, u, mask)
        assert pair_information(pool, symmetric_weights(seed)).dtype == jnp.float64
        check_both_forms(pool, seed, TOLERANCE["float64"])


def test_chunks_change_nothing(monkeypatch):
    pool = random_pool(0, "draws")
    weights, G = symmetric_weights(0), np.stack([random_spd(r) for r in range(DRAWS)])
    whole = pair_information(pool, weights), pair_sensitivities(pool, G), policy_target(pool)
    monkeypatch.setitem(_arrays.CHUNK_ENTRIES, jax.default_backend(), 100)
    assert _arrays.chunk_length(PROMPTS, COMPLETIONS, DIM) == 4  # two chunks, the second padded
    parts = pair_information(pool, weights), pair_sensitivities(pool, G), policy_target(pool)
    for a, b in zip(whole, parts, strict=True):
        close(b, np.asarray(a))


@pytest.mark.parametrize("value", [np.nan, np.inf, 5.0])
def test_weights_on_the_diagonal_and_in_masked_slots_do_not_count(value):
    pool = random_pool(1)
    mask = np.asarray(pool.mask)
    unused = ~(mask[:, :, None] & mask[:, None, :]) | np.eye(COMPLETIONS, dtype=bool)
    weights = symmetric_weights(1)
    a = pair_information(pool, np.where(unused, 0, weights))
    b = pair_information(pool, np.where(unused, value, weights))
    assert (a == b).all()


def test_one_G_serves_all_draws():
    pool, G = random_pool(2, "draws"), random_spd(2)
    close(pair_sensitivities(pool, G), np.asarray(pair_sensitivities(pool, np.stack([G] * DRAWS))))


# ---- what changes nothing


@given(seeds)
def test_a_constant_added_within_a_prompt_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-256, 257, (PROMPTS, COMPLETIONS, DIM)) / 256  # such that adding the shift is exact
    shift = rng.integers(-2000, 2001, (PROMPTS, 1, DIM))
    a = CompletionPool(rows.astype(np.float32))
    b = CompletionPool((rows + shift).astype(np.float32))
    weights, G = symmetric_weights(seed), random_spd(seed)
    close(pair_information(b, weights), np.asarray(pair_information(a, weights)))
    close(pair_sensitivities(b, G), np.asarray(pair_sensitivities(a, G)))
    close(policy_target(b), np.asarray(policy_target(a)))
    close(second_moment(b), second_moment(a), 1e-12)


@given(seeds)
def test_reordered_prompts_and_completions_reorder_the_answers(seed):
    rng = np.random.default_rng(seed)
    features, scores, mask = random_arrays(seed)
    prompts, completions = rng.permutation(PROMPTS), rng.permutation(COMPLETIONS)

    def moved(array):
        return array[prompts][:, completions]

    pool = CompletionPool(features, scores, mask)
    other = CompletionPool(moved(features), moved(scores), moved(mask))
    weights, G = symmetric_weights(seed), random_spd(seed)
    moved_weights = moved(weights)[:, :, completions]
    close(pair_information(other, moved_weights), np.asarray(pair_information(pool, weights)))
    b = np.asarray(pair_sensitivities(pool, G))
    close(pair_sensitivities(other, G), moved(b)[:, :, completions])
    close(policy_target(other), np.asarray(policy_target(pool)))


@given(seeds)
def test_rotated_features_rotate_information_and_keep_sensitivities(seed):
    features, scores, mask = random_arrays(seed)
    rotation = np.linalg.qr(random_spd(seed) + np.eye(DIM))[0]
    pool = CompletionPool(features, scores, mask)
    turned = CompletionPool((features @ rotation).astype(np.float32), scores, mask)
    weights, G = symmetric_weights(seed), random_spd(seed)
    size = np.abs(stored(pool)[0]).max() ** 2  # the offset of a prompt is rounded when it is turned
    a, b = np.asarray(pair_information(pool, weights)), np.asarray(pair_information(turned, weights))
    np.testing.assert_allclose(
        b, rotation.T @ a @ rotation, rtol=0, atol=2e-6 * (np.abs(a).max() + weights.sum() * size)
    )
    a, b = pair_sensitivities(pool, G), pair_sensitivities(turned, rotation.T @ G @ rotation)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(G).max() * size)


# ---- under transformations


@pytest.mark.thorough
def test_kernels_under_jit_vmap_and_both_agree_with_one_pool_at_a_time():
    pools = [random_pool(seed, "draws") for seed in (1, 2, 3, 4)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pools)
    weights = symmetric_weights(0, (4,))
    G = np.stack([[random_spd([b, r]) for r in range(DRAWS)] for b in range(4)])
    for kernel, extra in ((pair_information, (weights,)), (pair_sensitivities, (G,)), (policy_target, ())):
        together = jax.jit(jax.vmap(kernel))(batch, *extra)
        for k, pool in enumerate(pools):
            close(together[k], np.asarray(kernel(pool, *(x[k] for x in extra))))


def test_kernels_take_a_pool_sharded_by_prompt():
    pool = random_pool(5)
    mesh = jax.make_mesh((2,), ("prompts",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(pool, jax.NamedSharding(mesh, jax.P("prompts")))
    assert len(spread.features.sharding.device_set) == 2
    weights, G = symmetric_weights(5), random_spd(5)
    close(jax.jit(pair_information)(spread, weights), np.asarray(pair_information(pool, weights)))
    close(jax.jit(pair_sensitivities)(spread, G), np.asarray(pair_sensitivities(pool, G)))


def test_gradients_flow_through_both_forms():
    pool = random_pool(6)
    weights, G = jnp.asarray(symmetric_weights(6), jnp.float32), jnp.asarray(random_spd(6), jnp.float32)
    found = jax.grad(lambda w: jnp.vdot(pair_information(pool, w), G))(weights)
    # tr(G A) = sum over i < j of w b, and the dense form counts each pair twice
    close(found + jnp.swapaxes(found, 1, 2), np.asarray(pair_sensitivities(pool, G)))


# ---- label information and sparse pairs


@pytest.mark.thorough
@given(seeds, st.sampled_from(["no", "yes", "draws"]))
def test_sparse_lists_agree_with_the_pairs_written_out(seed, scores):
    pool = random_pool(seed, scores, ragged=False, copies=False)  # always 60 pairs
    pairs, z, c = written_out(pool)
    differences, info = pair_differences(pool, pairs), label_information(pool, pairs)
    close(differences, z)
    close(info, c if scores == "draws" else c[0])
    assert info.dtype == differences.dtype == jnp.float32
    labels = np.random.default_rng(seed).random(len(pairs))
    expected = information_of(z, c, labels)
    close(sparse_information(differences, np.asarray(info) * labels), expected if scores == "draws" else expected[0])


@given(seeds)
def test_differences_are_exact_in_a_float64_scope(seed):
    pool = random_pool(seed, ragged=False, copies=False)
    pairs, z, _ = written_out(pool)
    with jax.enable_x64(True):
        assert (np.asarray(pair_differences(pool, pairs)) == z).all()


@given(st.floats(-30, 30), st.floats(0, 0.45))
def test_label_information_is_the_fisher_information_of_a_flipped_label(margin, flip):
    with jax.enable_x64(True):
        slope = (1 - 2 * flip) / (2 + 2 * np.cosh(margin))
        chances = [(1 - 2 * flip) / (1 + np.exp(-u)) + flip for u in (margin, -margin)]  # of either answer
        expected = sum(slope**2 / chance for chance in chances)
        np.testing.assert_allclose(margin_information(margin, flip), expected, rtol=1e-12)
        assert margin_information(0.0, flip) == pytest.approx((1 - 2 * flip) ** 2 / 4, rel=1e-12)


def test_rare_flips_at_large_margins_stay_finite_in_float32():
    assert float(margin_information(jnp.float32(25.0), 1e-9)) == pytest.approx(1.7e-13, rel=0.2)


def test_extreme_margins_give_zero_not_nan():
    assert np.asarray(margin_information(jnp.asarray([0.0, 1e4, -1e4]))).tolist() == [0.25, 0.0, 0.0]


# ---- the policy target


@given(seeds)
def test_policy_target_is_the_mean_weighted_covariance(seed):
    pool = random_pool(seed)
    features, _, mask = stored(pool)
    log_weights = 3 * np.random.default_rng(seed).standard_normal((PROMPTS, COMPLETIONS))
    expected, even = np.zeros((DIM, DIM)), np.zeros((DIM, DIM))
    for p in range(PROMPTS):
        rows, share = features[p, mask[p]], np.exp(log_weights[p, mask[p]])
        if len(rows) > 1:  # a single completion has covariance zero
            expected += np.cov(rows.T, aweights=share, ddof=0) / PROMPTS
            even += np.cov(rows.T, ddof=0) / PROMPTS
    close(policy_target(pool, log_weights), expected, 5e-6)
    close(policy_target(pool), even, 5e-6)
    shifted = np.where(mask, log_weights + 50.0, np.nan)  # constants cancel, masked slots do not count
    close(policy_target(pool, shifted), expected, 5e-5)


def test_prompts_without_completions_do_not_count_in_the_target():
    features, _, mask = random_arrays(7, ragged=False)
    mask[2] = False
    H = policy_target(CompletionPool(features, mask=mask))
    close(H, np.asarray(policy_target(CompletionPool(np.delete(features, 2, axis=0)))))


def test_without_masked_slots_the_target_is_the_second_moment():
    pool = random_pool(8, ragged=False)
    close(policy_target(pool), second_moment(pool))


# ---- truths of the theory


def dense_law(pool, log_policy):
    """pi_i pi_j of every pair, per prompt, in float64."""
    mask = np.asarray(pool.mask)
    policy = np.where(mask, np.exp(np.where(mask, log_policy, 0)), 0)
    policy = policy / policy.sum(axis=1, keepdims=True)
    return policy[:, :, None] * policy[:, None, :]


@given(seeds)
def test_t_pilaf_pairs_make_information_proportional_to_the_target(seed):
    with jax.enable_x64(True):
        features, u, mask = random_arrays(seed)
        log_policy = np.random.default_rng(seed).standard_normal(u.shape)
        pool = CompletionPool(features.astype(np.float64), u.astype(np.float64), mask)
        margin = np.asarray(pool.scores)[:, :, None] - np.asarray(pool.scores)[:, None, :]
        law = dense_law(pool, log_policy) * (2 + np.exp(margin) + np.exp(-margin))
        law = law * ~np.eye(COMPLETIONS, dtype=bool)
        H = np.asarray(policy_target(pool, log_policy))
        joint = np.asarray(pair_information(pool, law / law.sum()))
        close(joint / np.trace(joint), H / np.trace(H), 1e-12)
        per_prompt = law / np.maximum(law.sum(axis=(1, 2), keepdims=True), 1e-300)
        other = np.asarray(pair_information(pool, per_prompt))
        assert np.abs(other / np.trace(other) - H / np.trace(H)).max() > 1e-4


@given(seeds)
def test_on_policy_pairs_at_the_reference_have_trace_d_over_2(seed):
    with jax.enable_x64(True):
        features, _, mask = random_arrays(seed)
        log_policy = np.random.default_rng(seed).standard_normal((PROMPTS, COMPLETIONS))
        pool = CompletionPool(features.astype(np.float64), mask=mask)
        # two independent draws y, y' ~ pi: sum over ordered pairs of pi pi z z^T = 2 x the sum over i < j; c is 1/4
        moment = 4 * 2 * np.asarray(pair_information(pool, dense_law(pool, log_policy))) / PROMPTS
        H = np.asarray(policy_target(pool, log_policy))
        assert np.trace(np.linalg.solve(moment, H)) == pytest.approx(DIM / 2, rel=1e-9)


@pytest.mark.parametrize("exponent", [-56, 56])
def test_targets_need_only_be_in_range_themselves(exponent):
    """Sums of squares of single terms would leave float32 long before their mean does."""
    features = np.random.default_rng(0).standard_normal((64, 8, 3)).astype(np.float32)
    plain = np.asarray(policy_target(CompletionPool(features)), np.float64)
    other = np.asarray(policy_target(CompletionPool(np.ldexp(features, exponent))), np.float64)
    np.testing.assert_array_equal(other, np.ldexp(plain, 2 * exponent))
