"""What greedy may pick: caps, quotas, excluded pairs, copies, no pair left; and arguments that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign
from jaxdesign import Budget, CompletionPool, LogDet, Trace, greedy
from jaxdesign.door import make_problem
from jaxdesign.exact.greedy.greedy import LIFT, _greedy, greedy_allocation
from tests.support.greedy_gains import LOG_DET_DAILY, PRIOR, gains_of
from tests.support.problems import COMPLETIONS, DIM, PROMPTS, information_of, random_pool, written_out


def test_unused_rows_are_zero_when_no_pair_is_left():
    pool = random_pool(5)
    number = len(written_out(pool)[0])
    pairs, labels = greedy(pool, LogDet(), size=number + 3, prior=1.0)
    np.testing.assert_array_equal(labels, np.arange(number + 3) < number)
    np.testing.assert_array_equal(pairs[number:], np.zeros((3, 3)))
    assert len(np.unique(pairs[:number], axis=0)) == number


def test_caps_by_prompt():
    cap = np.array([1, 3, 1, 2, 1, 2.9])
    pool = random_pool(6)
    pairs, labels = greedy(pool, LogDet(), size=200, per_pair=cap, prior=1.0)
    found, counts = np.unique(np.asarray(pairs)[np.asarray(labels) > 0], axis=0, return_counts=True)
    np.testing.assert_array_equal(counts, np.floor(cap)[found[:, 0]])
    assert len(found) == len(written_out(pool)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", LOG_DET_DAILY)
def test_numbers_by_prompt_and_excluded_pairs_inside_of_jit(name):
    pool, criterion = random_pool(3), LogDet() if name == "LogDet" else Trace(np.eye(DIM))
    free = np.asarray(greedy(pool, criterion, size=8, prior=0.1)[0])
    shut = free[:3, [0, 2, 1]]  # the other way round

    @jax.jit
    def chosen(pool, shut):
        return greedy(pool, criterion, size=8, per_prompt=2, exclude=shut, prior=0.1)

    for pairs, labels in (chosen(pool, shut), greedy(pool, criterion, size=8, per_prompt=2, exclude=shut, prior=0.1)):
        pairs = np.asarray(pairs)[np.asarray(labels) > 0]
        assert np.bincount(pairs[:, 0]).max() <= 2
        assert not {tuple(row) for row in pairs.tolist()} & {tuple(row) for row in free[:3].tolist()}
    with pytest.raises(ValueError, match="per_prompt=0: must be at least 1"):
        greedy(pool, criterion, size=2, per_prompt=0)
    with pytest.raises(ValueError, match="pairs: row 0 is"):
        greedy(pool, criterion, size=2, exclude=[[0, 1, 1]])


def test_allocation_obeys_quotas_and_adds_repeats_up():
    pool = random_pool(15)
    limits = make_problem(pool, LogDet(), Budget(14, 2, np.array([2, 9, 1, 3, 5, 4]))).limits
    pairs, labels = greedy_allocation(pool, LogDet(), limits, PRIOR[None])
    assert labels.sum() == 14 and labels.max() <= 2
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert (np.bincount(pairs[:, 0], weights=labels, minlength=PROMPTS) <= [2, 9, 1, 3, 5, 4]).all()
    np.testing.assert_array_equal(pairs, pairs[np.lexsort(pairs.T[::-1])])


def test_every_pair_of_copies_is_left_out():
    features = np.zeros((1, COMPLETIONS, DIM), np.float32)
    features[0, 0] = 1
    pairs, labels = jaxdesign.greedy(CompletionPool(features), LogDet(), size=10, prior=1.0)
    np.testing.assert_array_equal(pairs[:4], [[0, 0, j] for j in range(1, 5)])
    np.testing.assert_array_equal(labels, np.arange(10) < 4)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    ridge=st.sampled_from([1e-5, 1e-2, 1.0]),
    cap=st.sampled_from([1, 2]),
    quotas=st.lists(st.integers(0, 9), min_size=PROMPTS, max_size=PROMPTS).filter(lambda q: sum(q) >= 4),
)
def test_picks_of_any_pool_are_the_best_within_caps_and_quotas(seed, ridge, cap, quotas):
    pool = random_pool(seed)
    pairs, z, c = written_out(pool)
    prior, quota = ridge * np.eye(DIM)[None], np.array(quotas, float)
    with jax.enable_x64(True):
        ordered, picked = _greedy(pool, LogDet(), prior, 16, np.full(PROMPTS, float(cap)), quota, rows=16)
    labels, matrix, rest = np.zeros(len(pairs)), information_of(z, c, np.zeros(len(pairs)), prior), quota.copy()
    prior_lift = LIFT * 16 * np.trace(information_of(z, c, np.full(len(z), 1 / len(z)))[0]) / DIM
    matrix = matrix + prior_lift * np.eye(DIM) * (ridge < prior_lift)
    for pick in np.asarray(ordered)[: int(picked)]:
        k = np.flatnonzero((pairs == pick).all(axis=1))[0]
        may = (labels < cap) & (rest[pairs[:, 0]] >= 1)
        gains = gains_of(z, c, matrix, None)
        assert may[k] and gains[k] >= (1 - 3e-5) * gains[may].max()
        labels[k] += 1
        rest[pick[0]] -= 1
        matrix = matrix + np.einsum("r,d,e->rde", c[:, k], z[k], z[k])
    assert int(picked) == min(16, np.minimum(cap * np.bincount(pairs[:, 0], minlength=PROMPTS), quota).sum())


# ---- bad input

BAD = {
    "a pool of another kind": (TypeError, "pool: expected jaxdesign.CompletionPool", {"pool": np.zeros((2, 2, 2))}),
    "a criterion class": (TypeError, r"crit: expected LogDet\(\)", {"crit": LogDet}),
    "a size that is a float": (TypeError, "size: expected a Python int, found float", {"size": 3.0}),
    "a size that is a bool": (TypeError, "size: expected a Python int, found bool", {"size": True}),
    "no labels": (ValueError, "size=0: must be at least 1", {"size": 0}),
    "a cap below one": (ValueError, "per_pair=0: must be at least 1", {"per_pair": 0}),
    "caps of another length": (
        ValueError,
        rf"per_pair: shape \(2,\) found; expected a scalar or \({PROMPTS},\)",
        {"per_pair": [1, 2]},
    ),
    "a target of another size": (ValueError, r"H: shape \(2, 2\) found", {"crit": Trace(np.eye(2))}),
    "a prior of another size": (ValueError, r"prior: shape \(2, 2\) found", {"prior": np.eye(2)}),
    "an indefinite prior": (ValueError, "prior: indefinite", {"prior": np.diag([1.0, 1, -1])}),
    "a negative ridge": (ValueError, "prior=-1: a ridge", {"prior": -1.0}),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    kind, text, changed = BAD[name]
    arguments = {"pool": random_pool(0), "crit": LogDet(), "size": 3, **changed}
    with pytest.raises(kind, match=text):
        greedy(arguments.pop("pool"), arguments.pop("crit"), **arguments)


def test_a_traced_prior_of_another_size_is_named():
    with pytest.raises(ValueError, match=r"prior: shape \(2, 2\) found"):
        jax.jit(lambda pool, prior: greedy(pool, LogDet(), size=3, prior=prior))(random_pool(0), jnp.eye(2))
