"""Selectors that draw: their laws by hand and by what they promise, and draws that follow them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign import Budget, CompletionPool, LogDet, policy_target
from jaxdesign.baselines import square_root, square_root_law, t_pilaf, t_pilaf_law
from jaxdesign.baselines.sampled import draw_labels
from jaxdesign.budget.limits import Limits
from tests.support.problems import DRAWS, PROMPTS, information_of, random_arrays, random_pool, stored, written_out

# ---- laws


def test_laws_by_hand():
    # pi = 1, 2, 4 sevenths; with beta = 1 the T-PILAF weight is (pi_i + pi_j)^2
    pool = CompletionPool(np.eye(3)[None], np.log([[1.0, 2, 4]]))
    roots, pilaf = np.array([2**0.5, 2, 8**0.5]), np.array([9.0, 25, 36])
    upper = ([0, 0, 0], [0, 0, 1], [1, 2, 2])
    np.testing.assert_allclose(square_root_law(pool)[upper], roots / roots.sum(), rtol=1e-6)
    np.testing.assert_allclose(t_pilaf_law(pool)[upper], pilaf / pilaf.sum(), rtol=1e-6)
    # beta = 1/2 squares the policy: 1, 4, 16; the margins stay
    pilaf = np.array([4 * 4.5, 16 * 6.25, 64 * 4.5])
    np.testing.assert_allclose(t_pilaf_law(pool, beta=0.5)[upper], pilaf / pilaf.sum(), rtol=1e-6)
    np.testing.assert_allclose(square_root_law(pool, log_weights=np.zeros((1, 3)))[upper], 1 / 3, rtol=1e-12)


@pytest.mark.parametrize("law", [square_root_law, t_pilaf_law])
@pytest.mark.parametrize("scores", ["no", "yes", "draws"])
def test_laws_are_laws(law, scores):
    pool = random_pool(2, scores)
    found, pairs = law(pool, beta=0.3), written_out(pool)[0]
    np.testing.assert_array_equal(found, found.swapaxes(1, 2))
    assert found[tuple(pairs.T)].sum() == pytest.approx(1, rel=1e-12) and (found[tuple(pairs.T)] > 0).all()
    assert np.count_nonzero(found) == 2 * len(pairs)  # none at masked completions and copies


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 5.0]))
def test_the_t_pilaf_law_makes_the_information_proportional_to_H(seed, beta):
    pool = random_pool(seed)
    pairs, z, c = written_out(pool)
    features, scores, mask = stored(pool)
    law = t_pilaf_law(pool, beta=beta)[tuple(pairs.T)]
    found = information_of(z, c, law)[0]

    logits = np.where(mask, scores[0] / beta, -np.inf)
    policy = np.exp(logits - logits.max(axis=1, keepdims=True))
    policy /= policy.sum(axis=1, keepdims=True)
    features = np.where(mask[..., None], features, 0)
    centred = features - np.einsum("pk,pkd->pd", policy, features)[:, None]
    target = np.einsum("pk,pkd,pke->de", policy, centred, centred) / PROMPTS
    p, i, j = pairs.T
    copies = 1 / c[0]  # 2 + e^D + e^-D
    constant = PROMPTS / np.sum(policy[p, i] * policy[p, j] * copies)
    np.testing.assert_allclose(found, constant * target, rtol=1e-9, atol=1e-12 * np.abs(found).max())
    if beta == 1.0:
        np.testing.assert_allclose(
            target, policy_target(pool, pool.scores), rtol=2e-4, atol=1e-4 * np.abs(target).max()
        )


def test_normalised_prompt_by_prompt_it_would_not_be():
    pool = random_pool(0)
    pairs, z, c = written_out(pool)
    law = t_pilaf_law(pool)[tuple(pairs.T)]
    joint = information_of(z, c, law)[0]
    single = information_of(z, c, law / np.bincount(pairs[:, 0], law)[pairs[:, 0]])[0]
    assert np.abs(single / single[0, 0] - joint / joint[0, 0]).max() > 0.1


def test_laws_survive_large_margins_and_constants():
    features, scores, mask = random_arrays(1)
    pool = CompletionPool(features, 500 * scores, mask)
    law = t_pilaf_law(pool)
    assert np.isfinite(law).all() and law.sum() == pytest.approx(2, rel=1e-9)
    assert square_root(pool, LogDet(), Budget(30, per_pair=1), prior=1.0).labels.sum() == 30
    shifted = CompletionPool(features, np.round(scores * 64) / 64 + np.arange(PROMPTS)[:, None], mask)
    plain = CompletionPool(features, np.round(scores * 64) / 64, mask)
    np.testing.assert_allclose(t_pilaf_law(shifted), t_pilaf_law(plain), rtol=1e-12)


def test_with_draws_the_law_is_the_mean_of_the_laws():
    features, scores, mask = random_arrays(3, draws=DRAWS)
    single = [t_pilaf_law(CompletionPool(features, u, mask), beta=2.0) for u in scores]
    np.testing.assert_allclose(t_pilaf_law(CompletionPool(features, scores, mask), beta=2.0), np.mean(single, axis=0))


def test_log_weights_are_a_policy_like_any_other():
    pool = random_pool(4)
    logits = np.asarray(pool.scores) / 0.5
    np.testing.assert_allclose(square_root_law(pool, log_weights=logits), square_root_law(pool, beta=0.5), rtol=1e-5)
    for select in (square_root, t_pilaf):
        one = select(pool, LogDet(), Budget(9), prior=1.0, seed=2, log_weights=logits)
        two = select(pool, LogDet(), Budget(9), prior=1.0, seed=2, beta=0.5)
        np.testing.assert_array_equal(one.pairs, two.pairs)


def test_bad_arguments_of_laws_are_named():
    pool = random_pool(0)
    for law in (square_root_law, t_pilaf_law):
        with pytest.raises(ValueError, match="beta=0: must be positive and finite"):
            law(pool, beta=0)
        with pytest.raises(ValueError, match=r"log_weights: shape \(5, 6\) found"):
            law(pool, log_weights=np.zeros((5, 6)))
        with pytest.raises(ValueError, match="log_weights: nan at prompt 0, completion 0"):
            law(pool, log_weights=np.full((6, 5), np.nan))
    with pytest.raises(ValueError, match="features: all completions of every prompt are identical"):
        t_pilaf_law(CompletionPool(np.ones((2, 3, 2))))


# ---- draws


def test_pairs_are_drawn_with_the_probabilities_of_the_law():
    weights = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
    pairs = np.column_stack([np.arange(5), np.zeros(5, int), np.ones(5, int)]).astype(np.int32)
    rng, draws = np.random.default_rng(0), 4000
    for total in (1, 2):
        limits = Limits(float(total), np.ones(5), np.full(5, np.inf))
        share = sum(draw_labels(limits, pairs, np.log(weights), rng) for _ in range(draws)) / draws
        expected = weights.copy()
        if total == 2:  # first, or second after another
            expected += [sum(weights[f] * weights[e] / (1 - weights[f]) for f in range(5) if f != e) for e in range(5)]
        assert (np.abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws)).all()


def test_a_quota_passes_pairs_over():
    pairs = np.array([[0, 0, 1], [0, 0, 2], [1, 0, 1]], np.int32)
    limits = Limits(2.0, np.ones(2), np.array([1.0, np.inf]))
    labels = draw_labels(limits, pairs, np.log([0.5, 0.49, 0.01]), np.random.default_rng(0))
    assert labels[2] == 1 and labels[:2].sum() == 1
