"""Ranking accuracy and strength correlation: the truth table, scipy, ties, padding, extreme values, refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxdesign.preference.ranking_metrics import ranking_accuracy, strength_correlation

GOLD = np.array([[2.0, 1.0, 0.0, -1.0], [0.5, 0.5, 1.0, -2.0]])
LOGS = np.array([[-10.0, -12.0, -11.0, -20.0], [-9.0, -8.0, -7.0, -30.0]])


def pairs_by_hand(scores, gold):
    """(right, untied) over all pairs of one prompt."""
    right = untied = 0
    for i, j in itertools.permutations(range(len(gold)), 2):
        if gold[i] > gold[j]:
            untied += 1
            right += 1 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0
    return right, untied


def test_both_metrics_of_the_truth_table():
    accuracy = ranking_accuracy(LOGS, GOLD)
    np.testing.assert_allclose(accuracy.accuracy, 0.9090909091, atol=5e-11)  # 10 of 11
    np.testing.assert_allclose(accuracy.by_prompt, [5 / 6, 1])
    np.testing.assert_array_equal(accuracy.pairs, [6, 5])
    strength = strength_correlation(LOGS, GOLD)
    np.testing.assert_allclose(strength.spearman, [0.8, 0.9486832981], atol=5e-11)
    np.testing.assert_allclose(strength.pearson, [0.8186082836, 0.9931897618], atol=5e-11)


@pytest.mark.slow
@given(st.integers(0, 10**6), st.sampled_from([2, 3, 8]))
def test_against_scipy_and_all_pairs_with_many_ties(seed, completions):
    rng = np.random.default_rng(seed)
    scores, gold = rng.integers(0, 4, (2, completions)) * rng.normal(size=2)[:, None] + rng.normal(size=2)[:, None]
    right, untied = pairs_by_hand(scores, gold)
    found, strength = ranking_accuracy(scores, gold), strength_correlation(scores, gold)
    assert found.pairs == untied
    if not untied:
        assert np.isnan(found.accuracy) and np.isnan(found.by_prompt)
    else:
        np.testing.assert_allclose(found.accuracy, right / untied)
    if np.ptp(scores) == 0 or np.ptp(gold) == 0:
        assert np.isnan(strength.spearman) and np.isnan(strength.pearson)
    else:
        np.testing.assert_allclose(strength.spearman, stats.spearmanr(scores, gold).statistic, atol=1e-12)
        np.testing.assert_allclose(strength.pearson, stats.pearsonr(scores, gold).statistic, atol=1e-12)


def test_prompts_count_by_their_pairs_in_one_number_and_alike_in_the_other():
    rng = np.random.default_rng(1)
    scores, gold, mask = rng.normal(size=(6, 8)), rng.integers(0, 3, (6, 8)) * 1.0, rng.random((6, 8)) < 0.7
    by_hand = np.array([pairs_by_hand(s[m], g[m]) for s, g, m in zip(scores, gold, mask, strict=True)])
    found = ranking_accuracy(scores, gold, mask=mask)
    np.testing.assert_allclose(found.accuracy, by_hand[:, 0].sum() / by_hand[:, 1].sum())
    np.testing.assert_allclose(found.by_prompt, by_hand[:, 0] / by_hand[:, 1])


def test_ties_of_the_policy_count_half_and_no_opinion_is_one_half():
    assert ranking_accuracy(np.zeros(5), np.arange(5.0)).accuracy == 0.5
    assert ranking_accuracy(np.array([1.0, 1.0, 0.0]), np.array([2.0, 1.0, 0.0])).accuracy == 2.5 / 3
    assert ranking_accuracy(np.arange(5.0), np.arange(5.0)).accuracy == 1
    assert ranking_accuracy(-np.arange(5.0), np.arange(5.0)).accuracy == 0


def test_only_the_order_counts_for_accuracy_and_only_proportion_for_strength():
    rng = np.random.default_rng(2)
    scores, gold = rng.normal(size=(2, 7, 5))
    assert ranking_accuracy(np.exp(scores), gold**3).accuracy == ranking_accuracy(scores, gold).accuracy
    assert (strength_correlation(np.exp(scores), gold**3).spearman == strength_correlation(scores, gold).spearman).all()
    np.testing.assert_allclose(strength_correlation(gold / 0.3 - 40, gold).pearson, 1)
    np.testing.assert_allclose(strength_correlation(-2 * gold, gold).pearson, -1)
    assert (strength_correlation(np.exp(scores), gold).pearson != strength_correlation(scores, gold).pearson).all()


@pytest.mark.slow
def test_padding_may_hold_anything():
    mask = np.arange(9) < np.array([9, 5, 2, 1, 0])[:, None]
    scores, gold = np.where(mask, np.random.default_rng(3).normal(size=(2, 5, 9)), np.nan)
    found, strength = ranking_accuracy(scores, gold, mask=mask), strength_correlation(scores, gold, mask=mask)
    np.testing.assert_array_equal(found.pairs, [36, 10, 1, 0, 0])
    for k in range(3):
        alone = scores[k, mask[k]], gold[k, mask[k]]
        assert found.by_prompt[k] == ranking_accuracy(*alone).accuracy
        np.testing.assert_allclose(strength.pearson[k], strength_correlation(*alone).pearson, rtol=1e-12)
        np.testing.assert_allclose(strength.spearman[k], strength_correlation(*alone).spearman, rtol=1e-12)
    assert np.isnan(found.by_prompt[3:]).all() and np.isnan(strength).sum() == 4


def test_values_of_any_size_and_close_together():
    """float64 on the host tells 1e9 and 1e9 + 1 apart; squares of 1e200 are never taken; equal ones are exactly so."""
    close = 1e9 + np.array([0.0, 1.0, 2.0, 4.0])
    assert ranking_accuracy(close, np.arange(4.0)).accuracy == 1
    for scale in (1e-200, 1.0, 1e200):
        values = np.array([0.0, 1.0, 2.0, 4.0]) * scale
        np.testing.assert_allclose(strength_correlation(values, np.arange(4.0)).pearson, 0.9827076298, atol=1e-9)
    np.testing.assert_allclose(strength_correlation(close, np.arange(4.0)).pearson, 0.9827076298, atol=1e-9)
    assert np.isnan(strength_correlation(np.full(7, 0.1), np.arange(7.0))).all()


@pytest.mark.slow
def test_traced_and_mapped_they_are_the_same():
    rng = np.random.default_rng(4)
    scores, gold, mask = *rng.normal(size=(2, 4, 6)).astype(np.float32), rng.random((4, 6)) < 0.9
    for metric in (ranking_accuracy, strength_correlation):
        plain = metric(scores, gold, mask=mask)
        traced = jax.jit(lambda s, g, m, metric=metric: metric(s, g, mask=m))(scores, gold, mask)
        assert all(isinstance(value, np.ndarray) and value.dtype == np.float64 for value in (plain[0], plain[1]))
        assert traced[0].dtype == jnp.float32
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, traced)
        mapped = jax.vmap(lambda s, g, m, metric=metric: metric(s, g, mask=m))(scores, gold, mask)
        np.testing.assert_allclose(mapped[1], plain[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", [ranking_accuracy, strength_correlation])
@pytest.mark.parametrize(
    ("scores", "gold", "mask", "error", "words"),
    [
        (LOGS, GOLD[:1], None, ValueError, r"gold: shape \(1, 4\) found; expected \(2, 4\)"),
        (LOGS, GOLD, np.ones(4, bool), ValueError, r"mask: shape \(4,\) found; expected \(2, 4\)"),
        (LOGS, GOLD.astype(int), None, TypeError, "gold: dtype int64"),
        (LOGS * np.inf, GOLD, None, ValueError, "scores: -inf at"),
        (np.float64(1), np.float64(1), None, ValueError, r"scores: shape \(\) found; expected \(..., K\)"),
    ],
)
def test_bad_input_is_refused(metric, scores, gold, mask, error, words):
    with pytest.raises(error, match=words):
        metric(scores, gold, mask=mask)
