"""Whole labels under flip noise: the search for swaps, swaps until none helps, greedy picks."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign
from jaxdesign import Budget, CompletionPool, LogDet, Trace, _arrays, select_pairs
from jaxdesign._pairs import Allocation
from jaxdesign.budget.limits import Limits
from jaxdesign.certificates.allowed import check_allowed
from jaxdesign.door import make_problem
from jaxdesign.exact.exchange import search, swap_gains
from jaxdesign.exact.exchange.exchange import exchange
from jaxdesign.exact.greedy.greedy import myopic_allocation
from jaxdesign.pricing.memory import memory_source
from tests.support.flips import every_kind_and_score, symmetric
from tests.support.problems import DIM, PROMPTS, criterion_of, information_of, random_pool, random_spd, written_out

H = random_spd(1)
RIDGE = 0.1 * np.eye(DIM)
slow = pytest.mark.slow


# ---- swaps


@every_kind_and_score
def test_the_search_for_swaps_scores_pairs_with_their_flips(scores, flip):
    pool = random_pool(3, scores, flip)
    pairs, z, c = written_out(pool)
    matrix = information_of(z, np.broadcast_to(c, (pool.num_draws or 1, len(pairs))), 0.3, RIDGE)
    with _arrays.float64():
        source = memory_source(pool, np.float64)
        _, factors = swap_gains.factors_of(jnp.asarray(matrix), None)
        closed = np.full((4, 3), search.NO_PROMPT, np.int32)
        rules = search.Rules(closed, np.arange(PROMPTS, dtype=np.int32), np.full(PROMPTS, -1.0), np.ones(PROMPTS, bool))
        found = np.asarray(search.found(source, search.promising(factors, rules), rules).best)[..., 0]
    leverage = c * np.einsum("sd,rde,se->rs", z, np.linalg.inv(matrix), z)
    expected = symmetric(pairs, np.log1p(leverage).mean(axis=0)).max(axis=-1)
    np.testing.assert_allclose(np.where(np.isfinite(found), found, 0), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize(("scores", "flip"), [pytest.param("no", "prompt", marks=slow), ("yes", "pair")])
@pytest.mark.parametrize("name", ["LogDet", pytest.param("Trace", marks=slow)])
def test_whole_labels(name, scores, flip):
    pool = random_pool(5, scores, flip)
    budget = Budget(12, per_pair=1)
    criterion, target = {"LogDet": (LogDet(), None), "Trace": (Trace(H), H)}[name]
    batch = select_pairs(pool, criterion, budget, prior=RIDGE)
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    labels[[index[tuple(pair)] for pair in batch.pairs.tolist()]] = batch.labels
    value = criterion_of(information_of(z, c, labels, RIDGE), target)
    assert batch.certificate.value == pytest.approx(value, rel=1e-9)
    problem = make_problem(pool, criterion, budget, RIDGE)
    after, moved, told = exchange(problem, Allocation(pairs[::-1][:12], np.ones(12)))
    check_allowed(problem, Allocation(after, moved))
    assert told.optimal and told.value < told.value_before
    rest = np.ones(len(pairs), bool)
    rest[[index[tuple(pair)] for pair in after.tolist()]] = False
    n = (~rest).astype(float)
    for k in np.flatnonzero(n):  # no swap helps, by enumeration
        for l in np.flatnonzero(rest):
            n[[k, l]] = 0, 1
            assert criterion_of(information_of(z, c, n, RIDGE), target) >= told.value - 2e-9 * max(1, abs(value))
            n[[k, l]] = 1, 0


# ---- greedy picks


def check_gains(pool, target, picked):
    """Every pick lowers the criterion as much as any other pair would."""
    pairs, z, c = written_out(pool)
    labels = np.zeros(len(pairs))
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    for pair in picked:
        values = []
        for k in range(len(pairs)):
            more = labels + (np.arange(len(pairs)) == k)
            values.append(np.inf if labels[k] else criterion_of(information_of(z, c, more, RIDGE), target))
        chosen = index[tuple(pair)]
        assert values[chosen] - min(values) <= 1e-5 * max(1, abs(min(values)))
        labels[chosen] = 1


@pytest.mark.thorough
@every_kind_and_score
def test_greedy_takes_the_largest_gain_each_time(scores, flip):
    pool = random_pool(6, scores, flip)
    picked, _ = jaxdesign.greedy(pool, LogDet(), size=8, prior=RIDGE)
    check_gains(pool, None, np.asarray(picked).tolist())


@pytest.mark.parametrize("scores", ["no", pytest.param("draws", marks=slow)])
@pytest.mark.slow
def test_greedy_for_trace_takes_the_largest_gain(scores):
    # by gains at A itself; what `greedy` anticipates for Trace is tested in test_greedy_picks
    pool = random_pool(6, scores, "pair")
    pairs, z, c = written_out(pool)
    limits = Limits(1.0, np.ones(PROMPTS), np.full(PROMPTS, np.inf))
    picked, held = [], np.zeros(len(pairs))
    for _ in range(4):
        at = information_of(z, c, held, RIDGE[None].repeat(len(c), 0))
        picked.append(tuple(myopic_allocation(pool, Trace(H), limits, at, pairs[held > 0])[0][0].tolist()))
        held += (pairs == picked[-1]).all(axis=1)
    check_gains(pool, H, picked)


@pytest.mark.thorough(cases=1)
def test_a_greedy_choice_among_some_prompts_keeps_their_flips():
    from jaxdesign.exact import candidates

    pool = random_pool(7, "yes", "pair")
    problem = make_problem(pool, LogDet(), Budget(4, per_pair=1), RIDGE)
    prompts = np.array([3, 4])
    found, _ = candidates._greedy_among(problem, LogDet(), prompts)
    mask = np.asarray(pool.mask) & np.isin(np.arange(PROMPTS), prompts)[:, None]
    masked = CompletionPool(pool.features, pool.scores, mask, flip=pool.flip)
    expected, _ = jaxdesign.greedy(masked, LogDet(), size=4, prior=RIDGE)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, np.asarray(expected).tolist()))
