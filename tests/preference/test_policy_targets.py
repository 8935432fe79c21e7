"""Scores and sampled targets against policies whose covariance can be enumerated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import CompletionPool, policy_target, restrict_to_range
from jaxdesign.preference.targets import deployment_target, effective_sample_size, implicit_rewards, sampled_target

ANSWERS, D = 6, 3


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def enumerable(seed=0, spread=1.0):
    """One prompt: features of all answers, the policy that matters, the one sampled from, the true H."""
    rng = np.random.default_rng(seed)
    phi = rng.standard_normal((ANSWERS, D))
    policy = softmax(rng.standard_normal(ANSWERS))
    sampling = softmax(np.log(policy) + spread * rng.standard_normal(ANSWERS))
    centred = phi - policy @ phi
    return phi, policy, sampling, centred.T @ (policy[:, None] * centred)


def drawn(phi, law, prompts, completions, seed):
    """(P, K) answers drawn independently, and the pool of them, repeats and all."""
    picks = np.random.default_rng(seed).choice(ANSWERS, (prompts, completions), p=law)
    return picks, CompletionPool(phi[picks].astype(np.float32))


def standard_errors(matrix, phi, picks, weights, truth):
    """Largest deviation from the truth in standard errors of the mean over prompts."""
    rows, w = phi[picks], weights
    centred = rows - np.einsum("pk,pkd->pd", w, rows)[:, None]
    each = np.einsum("pk,pkd,pke->pde", w, centred, centred) / (1 - (w**2).sum(axis=1))[:, None, None]
    np.testing.assert_allclose(matrix, each.mean(axis=0), rtol=2e-4, atol=1e-5)
    return np.abs((each.mean(axis=0) - truth) / (each.std(axis=0) / np.sqrt(len(each)))).max()


@pytest.mark.parametrize("completions", [2, 5])
def test_draws_from_the_policy_give_its_covariance_without_bias(completions):
    phi, policy, _, truth = enumerable()
    picks, pool = drawn(phi, policy, 20_000, completions, seed=1)
    found = sampled_target(pool)
    assert standard_errors(found.matrix, phi, picks, np.full(picks.shape, 1 / completions), truth) < 4
    plain = np.asarray(policy_target(pool))
    np.testing.assert_allclose(found.matrix, plain * completions / (completions - 1), rtol=1e-4)
    np.testing.assert_allclose(found.effective, completions)


def test_importance_weights_recover_the_policy_that_matters():
    phi, policy, sampling, truth = enumerable(spread=0.8)
    picks, pool = drawn(phi, sampling, 2_000, 60, seed=2)
    ratio = np.log(policy / sampling)[picks]
    found = sampled_target(pool, ratio)
    size = np.abs(truth).max()
    ignored = sampled_target(pool).matrix
    assert np.abs(found.matrix - truth).max() < 0.02 * size < 0.1 * size < np.abs(ignored - truth).max()
    shifted = sampled_target(pool, ratio - 50 + np.arange(len(ratio))[:, None])  # constants per prompt cancel
    np.testing.assert_allclose(shifted.matrix, found.matrix, atol=1e-6 * size)


def test_the_correction_takes_most_of_the_bias_of_weighted_samples_away():
    phi, policy, sampling, truth = enumerable(spread=0.5)
    picks, pool = drawn(phi, sampling, 40_000, 8, seed=3)
    ratio = np.log(policy / sampling)[picks]
    bias = np.trace(sampled_target(pool, ratio).matrix) / np.trace(truth) - 1
    plain = np.trace(np.asarray(policy_target(pool, ratio))) / np.trace(truth) - 1
    assert plain < -0.12 and abs(bias) < 0.25 * abs(plain)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_enumerated_answers_with_their_probabilities(seed):
    """Weights on all answers: Cov_pi / (1 - sum pi^2), which is the pair form of the docstring."""
    phi, policy, _, truth = enumerable(seed)
    found = sampled_target(CompletionPool(phi[None]), np.log(policy)[None], least_effective=1)
    np.testing.assert_allclose(found.matrix, truth / (1 - (policy**2).sum()), rtol=2e-5, atol=1e-6)
    pairs = [(i, j) for i in range(ANSWERS) for j in range(i)]
    top = sum(policy[i] * policy[j] * np.outer(phi[i] - phi[j], phi[i] - phi[j]) for i, j in pairs)
    bottom = 2 * sum(policy[i] * policy[j] for i, j in pairs)
    np.testing.assert_allclose(found.matrix, top / bottom, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(found.effective, 1 / (policy**2).sum())


def test_ragged_prompts_count_with_their_own_number_of_completions():
    rng = np.random.default_rng(0)
    phi = rng.standard_normal((4, 5, D)).astype(np.float32)
    mask = np.arange(5) < np.array([5, 3, 1, 0])[:, None]
    phi[~mask] = np.nan
    found = sampled_target(CompletionPool(phi, mask=mask))
    expected = (np.cov(phi[0].T) + np.cov(phi[1, :3].T)) / 2  # one completion has no covariance
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-5)
    np.testing.assert_allclose(found.effective, [5, 3, 1, 0])
    assert found.matrix.dtype == np.float64


def test_effective_sample_size_of_known_weights():
    pool = CompletionPool(np.random.default_rng(0).standard_normal((3, 4, D)))
    logs = np.log(np.array([[1, 1, 1, 1], [1, 1, 0, 0], [3, 1, 0, 0]]) + 1e-30)
    np.testing.assert_allclose(effective_sample_size(pool, logs), [4, 2, 1.6], rtol=1e-6)
    with pytest.raises(ValueError, match="log_weights: shape"):
        effective_sample_size(pool, logs[:, 1:])


def test_weights_on_single_completions_are_refused_or_warned_of():
    pool = CompletionPool(np.random.default_rng(0).standard_normal((4, 4, D)).astype(np.float32))
    logs = np.zeros((4, 4))
    logs[0, 0] = 30
    with pytest.warns(UserWarning, match="1 of 4 prompts have an effective sample size below 2"):
        found = sampled_target(pool, logs)
    rest = sampled_target(CompletionPool(np.asarray(pool.features)[1:]))
    np.testing.assert_allclose(found.matrix, rest.matrix, rtol=1e-5)  # what sits on one completion has no covariance
    logs[1:3, 1] = 4
    with pytest.raises(ValueError, match=r"3 of 4 prompts .* sample more completions"):
        sampled_target(pool, logs)
    accepted = sampled_target(pool, logs, least_effective=1)
    assert np.isfinite(accepted.matrix).all() and (accepted.effective[:3] < 1.2).all()


def test_scores_are_implicit_rewards():
    rng = np.random.default_rng(0)
    policy, reference = rng.standard_normal((2, 3, 4)), rng.standard_normal((3, 4))
    mask = np.ones((3, 4), bool)
    mask[1, 2] = False
    reference[1, 2] = -np.inf
    scores = implicit_rewards(policy, reference, 0.1, mask)
    expected = np.where(mask, 0.1 * (policy - np.where(mask, reference, 0)), 0)
    np.testing.assert_allclose(scores, expected, rtol=2e-5, atol=1e-7)
    pool = CompletionPool(rng.standard_normal((3, 4, D)), scores=scores, mask=mask)
    assert pool.num_draws == 2
    with pytest.raises(ValueError, match="log_policy - log_reference: inf at draw 0, prompt 1, completion 2"):
        implicit_rewards(policy, reference, 0.1)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32])
def test_scores_of_low_precision_are_float32_and_their_difference_is_exact(dtype):
    low = [np.array([row]).astype(dtype) for row in ((-512.0, -508.0), (-500.0, -501.0))]
    right = 0.1 * (np.float64(low[0]) - np.float64(low[1]))  # bfloat16 gave -1.203
    for pair in (low, [jnp.asarray(a) for a in low]):
        for scores in (implicit_rewards(*pair, 0.1), jax.jit(lambda a, b: implicit_rewards(a, b, 0.1))(*pair)):
            assert scores.dtype == np.float32
            np.testing.assert_allclose(scores, right, rtol=1e-6)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        draws = np.stack([low[0]] * 3)
        mask = np.array([[True, False]])
        for found in (
            implicit_rewards(draws, low[1].astype(np.float32), 0.1, mask),
            jax.jit(lambda a, b: implicit_rewards(a, b, 0.1, mask))(draws, low[1].astype(np.float32)),
        ):
            np.testing.assert_allclose(found, np.array([right * mask] * 3), rtol=1e-6)


def test_scores_keep_the_digits_of_float64_sums():
    rng = np.random.default_rng(0)
    gaps = rng.standard_normal((4, 3))
    reference = 1e7 * rng.standard_normal((4, 3))
    np.testing.assert_allclose(implicit_rewards(reference + gaps, reference, 0.5), gaps / 2, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_among_many_scores_are_seen(dtype, value):
    values = np.zeros((25_000, 4)).astype(dtype)
    values[17_001, 2] = value
    with pytest.raises(ValueError, match=r"at prompt 17001, completion 2 \(1 such"):
        implicit_rewards(values, np.zeros_like(values), 0.1)
    with pytest.raises(ValueError, match=r"log_weights: (nan|inf) at prompt 17001, completion 2"):
        sampled_target(CompletionPool(np.zeros((25_000, 4, 1), np.float32)), values)


@pytest.mark.parametrize("units", [2.0**-100, 2.0**-60, 2.0**60, 2.0**100, 2.0 ** np.array([-99, 5, 70])])
@pytest.mark.parametrize("x64", [False, True])
def test_units_of_features_do_not_matter_to_sampled_targets(units, x64):
    rng = np.random.default_rng(1)
    features, logs = rng.standard_normal((20, 5, D)), 0.3 * rng.standard_normal((20, 5))
    units = np.broadcast_to(units, D)
    with jax.enable_x64(x64):
        dtype = np.float64 if x64 else np.float32
        plain, found = (sampled_target(CompletionPool((features * u).astype(dtype)), logs) for u in (np.ones(D), units))
    np.testing.assert_allclose(found.matrix / np.outer(units, units), plain.matrix, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found.effective, plain.effective)


def test_deployment_targets_in_the_basis_of_the_labelled_pool():
    rng = np.random.default_rng(0)
    labelled = rng.standard_normal((5, 4, D))
    labelled[..., 2] = 0  # a direction that no labelled pair tells anything about
    _, basis = restrict_to_range(CompletionPool(labelled))
    deployment = CompletionPool(rng.standard_normal((9, 7, D)).astype(np.float32))
    found = deployment_target(deployment, basis)
    whole = sampled_target(deployment).matrix
    np.testing.assert_allclose(found.matrix, basis.T @ whole @ basis, rtol=1e-6)
    assert found.outside == pytest.approx(whole[2, 2] / np.trace(whole))
    assert found.effective.shape == (9,)
    stretched = deployment_target(deployment, 3 * basis @ np.array([[1.0, 1.0], [0.0, 1.0]]))
    assert stretched.outside == pytest.approx(found.outside)  # a share of the span, whatever the basis of it
    repeated = np.concatenate([basis, basis[:, :1]], axis=1)
    assert deployment_target(deployment, repeated).outside == pytest.approx(found.outside)
    np.testing.assert_array_equal(deployment_target(deployment).matrix, whole)
    with pytest.raises(ValueError, match=r"basis: shape \(2, 2\) found; expected \(3, r\)"):
        deployment_target(deployment, np.eye(2))


@pytest.mark.parametrize(
    ("logs", "error", "words"),
    [
        (np.zeros((2, 3)), ValueError, r"log_weights: shape \(2, 3\) found"),
        (np.array([[0, np.nan], [0, 0]]), ValueError, "nan at prompt 0, completion 1"),
        (np.array([[0, 0], [np.inf, 0]]), ValueError, "inf at prompt 1, completion 0"),
        (np.array([[0, 0], [-np.inf, -np.inf]]), ValueError, "-inf for every completion of prompt 1"),
        (np.zeros((2, 2), int), TypeError, "log_weights: dtype int64"),
    ],
)
def test_bad_weights(logs, error, words):
    with pytest.raises(error, match=words):
        sampled_target(CompletionPool(np.eye(4).reshape(2, 2, 4)), logs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta": 0}, "beta=0: must be positive"),
        ({"log_reference": np.zeros((2, 3))}, r"log_reference: shape \(2, 3\) found; expected \(2, 2\)"),
        ({"log_policy": np.zeros(2)}, r"log_policy: shape \(2,\) found"),
        ({"mask": np.ones((1, 2), bool)}, r"mask: shape \(1, 2\) found"),
    ],
)
def test_bad_scores(change, words):
    arguments = {"log_policy": np.zeros((2, 2)), "log_reference": np.zeros((2, 2)), "beta": 1.0} | change
    with pytest.raises(ValueError, match=words):
        implicit_rewards(**arguments)
