"""Compilations are counted, and a pool is a pytree: it passes through jit, vmap, grad and scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign
from jaxdesign import Budget, CompletionPool, LogDet, Trace
from tests.support.counting import counting
from tests.support.medium import COMPLETIONS, DIM, DRAWS, PROMPTS, medium_arrays, medium_pool, solve
from tests.support.problems import random_spd


def numbers(seed):
    """Budgets, priors and targets with other numbers of the same kinds."""
    rng = np.random.default_rng(seed)
    caps, quotas = 1 + rng.integers(0, 3, PROMPTS), 2 + 4 * rng.random(PROMPTS)
    total = 50 + 10 * rng.random()
    limits = [{}, {"per_pair": 1 + rng.random()}, {"per_pair": caps}]
    quota_limits = [{"per_prompt": 4 + rng.random()}, {"per_prompt": quotas, "per_pair": caps}]
    return (
        [Budget(total, **more) for more in limits],
        [Budget(total, **more) for more in quota_limits],
        [random_spd(seed, DIM), 0.1 + rng.random(), None],
        [LogDet(), Trace(random_spd(seed + 1, DIM))],
    )


def test_the_counter_counts():
    with counting() as counts:
        jax.jit(lambda x: jnp.sin(x) + 123.5)(1.0)
    assert counts["traced"] >= 1 and counts["compiled"] >= 1


@pytest.mark.thorough
@pytest.mark.parametrize("quotas", [False, True], ids=["caps", "quotas"])
def test_other_numbers_compile_nothing(quotas):
    """Features, scores, masks, targets, priors and budgets are data: one compilation for all of their values."""

    def run(seed):
        budgets, with_quotas, priors, criteria = numbers(seed)
        pool = medium_pool(seed)
        for criterion in criteria[:1] if quotas else criteria:
            for budget in with_quotas if quotas else budgets:
                for prior in priors:
                    solve(pool, criterion, budget, prior, tol=1e-4)

    run(100)
    with counting() as counts:
        for seed in (101, 102):
            run(seed)
    assert not counts


def test_other_lists_of_pairs_compile_nothing():
    pool, other = medium_pool(0), medium_pool(1)
    few, many = solve(pool, LogDet(), Budget(40), tol=1e-3), solve(other, LogDet(), Budget(300, per_pair=1), tol=1e-3)
    jaxdesign.evaluate(pool, LogDet(), Budget(40), few.pairs, few.labels)
    with counting() as counts:
        jaxdesign.evaluate(other, LogDet(), Budget(300), many.pairs, many.labels)
        jaxdesign.evaluate(other, LogDet(), Budget(300, per_pair=1), many.pairs, many.labels, 0.5)
        solve(pool, LogDet(), Budget(45), tol=1e-3, start=few)
    assert not counts


@pytest.mark.slow
def test_names_of_prompts_compile_nothing():
    arrays, G = medium_arrays(0), random_spd(1, DIM).astype(np.float32)

    def run(pool):
        solve(pool, LogDet(), Budget(50), tol=1e-3)
        jaxdesign.greedy(pool, LogDet(), size=9)
        jaxdesign.pair_sensitivities(pool, G)
        jaxdesign.policy_target(pool)

    run(CompletionPool(*arrays))
    with counting() as counts:
        for first in (0, 100):
            run(CompletionPool(*arrays, ids=np.arange(PROMPTS) + first))
    assert not counts


# ---- pools as pytrees


def test_a_pool_passes_through_jit():
    pool = medium_pool(0)
    same = jax.jit(lambda p: p)(pool)
    assert isinstance(same, CompletionPool)
    assert all(bool(jnp.array_equal(a, b)) for a, b in zip(jax.tree.leaves(pool), jax.tree.leaves(same), strict=True))
    traced = []

    @jax.jit
    def information(pool, weights):
        traced.append(pool)
        return jaxdesign.pair_information(pool, weights)

    weights = np.ones((PROMPTS, COMPLETIONS, COMPLETIONS), np.float32)
    first = information(pool, weights)
    np.testing.assert_allclose(first, jaxdesign.pair_information(pool, weights), rtol=1e-5)
    information(medium_pool(1), weights)
    assert len(traced) == 1


def test_a_pool_made_inside_of_jit_is_the_same():
    features, scores, mask = medium_arrays(0)
    inside = jax.jit(CompletionPool)(features, scores, mask)
    outside = CompletionPool(features, scores, mask)
    assert (inside.features == outside.features).all() and (inside.scores == outside.scores).all()
    constant = jax.jit(lambda: CompletionPool(features, scores, mask, flip=0.1))()
    assert (constant.features == outside.features).all() and (constant.mask == outside.mask).all()


@pytest.mark.thorough
def test_pools_are_stacked_and_mapped():
    """vmap over pools, over scores alone, and over targets G."""
    pools = [medium_pool(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pools)
    G = random_spd(1, DIM).astype(np.float32)
    together = jax.vmap(jaxdesign.pair_sensitivities, (0, None))(stacked, G)
    for pool, mapped in zip(pools, together, strict=True):
        np.testing.assert_allclose(mapped, jaxdesign.pair_sensitivities(pool, G), rtol=1e-4, atol=1e-5)

    pool, draws = pools[0], medium_pool(0, DRAWS)
    with_scores = jax.vmap(lambda u: jaxdesign.pair_sensitivities(CompletionPool(draws.features, u, draws.mask), G))
    average = with_scores(draws.scores).mean(axis=0)
    np.testing.assert_allclose(average, jaxdesign.pair_sensitivities(draws, G), rtol=1e-4, atol=1e-5)

    several = jnp.stack([G, 2 * G])
    mapped = jax.vmap(jaxdesign.pair_sensitivities, (None, 0))(pool, several)
    np.testing.assert_allclose(mapped[1], 2 * mapped[0], rtol=1e-5)


def test_a_pool_passes_through_scan_and_grad():
    pool, weights = medium_pool(0), np.ones((PROMPTS, COMPLETIONS, COMPLETIONS), np.float32)

    def body(pool, _):
        return pool, LogDet().value(jaxdesign.pair_information(pool, weights))

    carried, values = jax.lax.scan(body, pool, None, length=2)
    assert isinstance(carried, CompletionPool) and values[0] == values[1]

    def value(scores):
        return LogDet().value(jaxdesign.pair_information(CompletionPool(pool.features, scores, pool.mask), weights))

    gradient = np.asarray(jax.jit(jax.grad(value))(pool.scores))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    shift = gradient[np.asarray(pool.mask).sum(axis=1) > 1].sum(axis=1)
    np.testing.assert_allclose(shift, 0, atol=1e-4)  # a constant added to a prompt's scores changes nothing


HELD = np.array([[0, 0, 1], [1, 0, 2], [1, 0, 2], [2, 1, 0]]), np.array([1.0, 0.5, 2.0, 0.0])
FROM_POOL = {
    "held_information": lambda pool: jaxdesign.held_information(pool, *HELD),
    "held_information, one each": lambda pool: jaxdesign.held_information(pool, HELD[0]),
    "second_moment": jaxdesign.second_moment,
}


@pytest.mark.thorough(cases=3)
@pytest.mark.parametrize("draws", [None, DRAWS])
@pytest.mark.parametrize("name", FROM_POOL)
def test_what_is_float64_on_the_host_can_be_traced(name, draws):
    function, pools = FROM_POOL[name], [medium_pool(seed, draws) for seed in (0, 1)]
    pools = [CompletionPool(pool.features, pool.scores, flip=0.1) for pool in pools]
    expected = [function(pool) for pool in pools]
    assert all(isinstance(one, np.ndarray) and one.dtype == np.float64 for one in expected)
    jitted = jax.jit(function)(pools[0])
    assert jitted.dtype == np.float32
    np.testing.assert_array_equal(jitted, expected[0].astype(np.float32))
    together = jax.vmap(function)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *pools))
    np.testing.assert_allclose(together, np.stack(expected), rtol=1e-6, atol=1e-7 * np.abs(expected).max())


def test_labels_and_pairs_of_held_information_can_be_traced():
    pool = CompletionPool(medium_pool(0).features)
    found = jax.jit(lambda pairs, labels: jaxdesign.held_information(pool, pairs, labels))(*HELD)
    np.testing.assert_allclose(found, jaxdesign.held_information(pool, *HELD), rtol=1e-6, atol=1e-6)


def test_criteria_pass_through_jit():
    A = (random_spd(3, DIM) + np.eye(DIM)).astype(np.float32)
    for criterion in (LogDet(), Trace(random_spd(1, DIM))):
        value = jax.jit(lambda criterion, A: criterion.value(A))(criterion, A)
        assert value == pytest.approx(float(criterion.value(A)), rel=1e-5)


def test_a_traced_pool_is_refused_where_the_loop_runs_on_the_host():
    with pytest.raises(TypeError, match="pool: is traced"):
        jax.jit(lambda pool: solve(pool, LogDet(), Budget(50)).labels)(medium_pool(0))


# ---- fits


@pytest.mark.slow
def test_a_fit_of_a_few_more_labels_compiles_nothing():
    """Services refit after every label: numbers of pairs are filled up to powers of two."""
    preference = pytest.importorskip("jaxdesign.preference")
    pool = medium_pool(0)
    mask = np.asarray(pool.mask)
    pairs = np.argwhere(np.triu(mask[:, :, None] & mask[:, None, :], 1))
    choices = np.random.default_rng(0).integers(0, 4, len(pairs))  # skips too
    who = np.arange(len(pairs)) % 2

    def fits(number):
        labels = preference.as_labels(pairs[:number], choices[:number], who[:number])
        preference.fit_posterior(pool, labels, 1.0)
        return preference.estimate_reliability(pool, labels, annotators=2, prior=1.0, max_iterations=5)

    def compiled(number):
        with counting() as counts:
            fits(number)
        return counts["compiled"]

    assert compiled(25) > 0  # between 17 and 32 pairs with a judgement
    assert [compiled(number) for number in (26, 27, 28)] == [0, 0, 0]
