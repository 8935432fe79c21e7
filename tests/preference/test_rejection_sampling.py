"""Rejection sampling: chances by hand, the law of what is accepted against enumeration, limits, padding, refusals."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.preference.rejection_sampling import acceptance_probabilities, accepted

REWARDS = np.array([1.0, 0.0, 2.0])
KEY = jax.random.key(0)


def law_of_sets(rewards, beta, number):
    """Probability of every set that algorithm 1 of arXiv 2309.06657 ends with, by all outcomes of all passes."""
    law = {}

    def run(taken, chance):
        if len(taken) == number:
            law[taken] = law.get(taken, 0) + chance
            return
        left = [k for k in range(len(rewards)) if k not in taken]
        top = max(rewards[k] for k in left)
        for hits in itertools.product([True, False], repeat=len(left)):
            odds = [math.exp((rewards[k] - top) / beta) for k in left]
            own = math.prod(p if hit else 1 - p for p, hit in zip(odds, hits, strict=True))
            if own:
                new = [k for k, hit in zip(left, hits, strict=True) if hit][: number - len(taken)]
                run(taken | frozenset(new), chance * own)

    run(frozenset(), 1.0)
    return law


def test_acceptance_probabilities_of_the_truth_table():
    with jax.enable_x64(True):
        found = acceptance_probabilities(REWARDS, 2.0)
    np.testing.assert_allclose(found, [0.6065306597, 0.3678794412, 1], atol=5e-11)
    np.testing.assert_allclose(acceptance_probabilities(REWARDS, 2.0), np.exp((REWARDS - 2) / 2), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3])
def test_accepted_sets_have_the_law_of_the_algorithm(number):
    rewards, draws = np.array([1.0, 0.0, 2.0, 1.5]), 40_000
    law = law_of_sets(rewards, 0.8, number)
    found = np.asarray(accepted(np.tile(rewards, (draws, 1)), 0.8, KEY, number=number))
    assert (found.sum(axis=1) == number).all() and abs(sum(law.values()) - 1) < 1e-12
    for members, chance in law.items():
        rows = np.isin(np.arange(4), list(members))
        share = (found == rows).all(axis=1).mean()
        assert abs(share - chance) < 4.5 * math.sqrt(chance * (1 - chance) / draws) + 1e-9, members


def test_one_pass_accepts_each_by_its_own_probability_and_gives_the_optimal_policy():
    """Of many draws from pi_ref the accepted ones have the law pi_ref exp(r / beta) / Z."""
    draws, reference = 60_000, np.array([0.5, 0.3, 0.2])
    which = np.random.default_rng(1).choice(3, draws, p=reference)
    kept = np.asarray(accepted(REWARDS[which], 1.5, KEY))
    best = reference * np.exp(REWARDS / 1.5)
    shares = np.bincount(which[kept], minlength=3) / kept.sum()
    np.testing.assert_allclose(shares, best / best.sum(), atol=0.01)
    for k, chance in enumerate(np.exp((REWARDS - 2) / 1.5)):
        np.testing.assert_allclose(kept[which == k].mean(), chance, atol=0.015)


@pytest.mark.slow
def test_a_small_beta_takes_the_best_and_a_large_one_the_first():
    rewards = np.random.default_rng(2).normal(size=(20, 7))
    best = np.argsort(-rewards, axis=1)[:, :3]
    small = np.asarray(accepted(rewards, 1e-7, KEY, number=3))
    assert all(set(np.flatnonzero(row)) == set(wanted) for row, wanted in zip(small, best, strict=True))
    large = accepted(rewards, 1e9, KEY, number=3)
    np.testing.assert_array_equal(large, np.tile(np.arange(7) < 3, (20, 1)))
    np.testing.assert_array_equal(accepted(rewards, 1e-30, KEY), rewards == rewards.max(axis=1, keepdims=True))


@pytest.mark.slow
def test_a_constant_per_prompt_changes_nothing_even_where_float32_would_lose_the_rewards():
    rewards = np.random.default_rng(3).normal(size=(50, 6))
    rewards = np.round(rewards * 1024) / 1024
    for constant in (1e8, -3e10):
        np.testing.assert_array_equal(
            accepted(rewards + constant, 0.5, KEY, number=2), accepted(rewards, 0.5, KEY, number=2)
        )


def test_prompts_draw_independently_and_beta_may_differ_between_them():
    kept = np.asarray(accepted(np.tile(REWARDS, (4000, 1)), np.repeat([0.5, 2.0], 2000), KEY))
    np.testing.assert_allclose(kept[:2000].mean(axis=0), np.exp((REWARDS - 2) / 0.5), atol=0.04)
    np.testing.assert_allclose(kept[2000:].mean(axis=0), np.exp((REWARDS - 2) / 2), atol=0.05)
    assert not (kept[:2000] == kept[0]).all()


def test_padding_is_never_accepted_and_short_prompts_keep_all():
    rewards = np.where(np.arange(6) < np.array([6, 3, 2, 1, 0])[:, None], 0.5, np.nan)
    mask = ~np.isnan(rewards)
    kept = np.asarray(accepted(rewards, 1.0, KEY, number=3, mask=mask))
    assert not kept[~mask].any()
    np.testing.assert_array_equal(kept.sum(axis=1), [3, 3, 2, 1, 0])
    chances = np.asarray(acceptance_probabilities(rewards, 1.0, mask=mask))
    np.testing.assert_array_equal(chances, mask.astype(float))


@pytest.mark.slow
def test_traced_and_mapped_it_is_the_same():
    rewards = np.random.default_rng(4).normal(size=(9, 5)).astype(np.float32)
    mask = np.random.default_rng(5).random((9, 5)) < 0.8
    plain = accepted(rewards, 0.7, KEY, number=2, mask=mask)
    traced = jax.jit(lambda r, beta, key, m: accepted(r, beta, key, number=2, mask=m))(rewards, 0.7, KEY, mask)
    np.testing.assert_array_equal(traced, plain)
    keys = jax.random.split(KEY, 9)
    mapped = jax.vmap(lambda r, key, m: accepted(r, 0.7, key, number=2, mask=m))(rewards, keys, mask)
    for k in range(9):
        np.testing.assert_array_equal(mapped[k], accepted(rewards[k], 0.7, keys[k], number=2, mask=mask[k]))
    chances = jax.jit(acceptance_probabilities)(rewards, 0.7)
    np.testing.assert_allclose(chances, acceptance_probabilities(rewards, 0.7), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32])
def test_rewards_of_half_precision_are_those_numbers(dtype):
    rewards = np.random.default_rng(6).normal(size=(8, 4)).astype(dtype)
    found = acceptance_probabilities(rewards, 0.3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, acceptance_probabilities(rewards.astype(np.float64), 0.3), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: accepted(REWARDS, 0.0, KEY), ValueError, "beta=0: must be above 0 and finite"),
        (lambda: accepted(REWARDS, np.ones(2), KEY), ValueError, r"beta: shape \(2,\) found"),
        (lambda: accepted(REWARDS, 1.0, KEY, number=4), ValueError, "number=4: only 3 completions found in a prompt"),
        (lambda: accepted(REWARDS, 1.0, KEY, number=0), ValueError, "number=0: must be a whole number of at least 1"),
        (lambda: accepted(REWARDS.astype(int), 1.0, KEY), TypeError, "rewards: dtype int64"),
        (lambda: accepted(np.float64(1.0), 1.0, KEY), ValueError, r"rewards: shape \(\) found; expected \(..., K\)"),
        (lambda: accepted(REWARDS, 1.0, KEY, mask=np.ones(2, bool)), ValueError, r"mask: shape \(2,\) found"),
        (lambda: acceptance_probabilities(REWARDS * np.nan, 1.0), ValueError, "rewards: nan found"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
