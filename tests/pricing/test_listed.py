"""Listed pairs: whatever source they are of, kernels see the rows of the pool in memory, each pair once."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial

from jaxdesign import _arrays
from jaxdesign.pricing import memory_source, sharded_source
from jaxdesign.pricing.adapted import AdaptedSource
from jaxdesign.pricing.annotated import AnnotatedSource
from jaxdesign.pricing.listed import PromptsHeld, by_pages, held_rows, holding, listed_rows, over_pairs
from jaxdesign.pricing.source import Derived
from tests.support.divided import COMPLETIONS, DIM, pool_of

PROMPTS = 61


@dataclass(frozen=True, eq=False)
class Plain(Derived):
    """A user's source: no more than five numbers and three methods; says what was asked of it."""

    asked: list = field(default_factory=list)

    def fold(self, *args):
        return self.given.fold(*args)

    def rows(self, pairs):
        self.asked.append((pairs, _arrays.in_float64()))
        return self.given.rows(pairs)

    def subset(self, prompts):
        return self.given.subset(prompts)


def divided(pool):
    return sharded_source(pool, jax.make_mesh((4,), ("data",)), "data")


SOURCES = {"in memory": memory_source, "divided": divided, "a user's": lambda pool: Plain(memory_source(pool))}


def seen(source, kind):
    """As several annotators see it, or in other units, or both."""
    if "annotators" in kind:
        source = AnnotatedSource(source, np.linspace(0, 0.4, 2 * PROMPTS, dtype=np.float32).reshape(2, PROMPTS))
    return AdaptedSource(source, 2.0 ** np.arange(DIM)) if "units" in kind else source


def weighted(rows, carry, inputs):
    """Sums that tell every row, information and input from every other; the same of each pair."""
    total, largest = carry
    weights, cubes = weighed(rows, inputs)
    total = total + jnp.matmul((rows.differences * weights[:, None]).T, rows.differences, precision=_arrays.HIGHEST)
    return (total, largest), (weights, cubes)


def weighed(rows, inputs):
    z, c, _ = rows
    assert z.dtype == c.dtype == inputs.dtype == jnp.float64
    return jnp.mean(c, axis=0) * inputs, jnp.sum(z**3, axis=1)


@pytest.mark.parametrize("kind", ["plain", "units", "annotators", "annotators, units"])
@pytest.mark.parametrize("name", SOURCES)
def test_kernels_see_every_pair_once(name, kind, monkeypatch):
    monkeypatch.setattr("jaxdesign.pricing.listed.PAGE", 64)
    monkeypatch.setattr("jaxdesign.pricing.owned.PAGE", 64)  # several pages on every device
    pool, rng = pool_of(PROMPTS, scored="annotators" not in kind, seed=3), np.random.default_rng(0)
    source, memory = seen(SOURCES[name](pool), kind), seen(memory_source(pool), kind)
    pairs = rng.integers(0, [source.prompts, COMPLETIONS, COMPLETIONS], (500, 3)).astype(np.int32)
    pairs[:300, 0] //= 3  # not as many on every device
    labels = rng.uniform(0, 1, 500)
    start = np.zeros((DIM, DIM)), np.zeros(())
    weights, cubes = over_pairs(source, Partial(weighed), pairs, labels)
    (total, _), again = by_pages(source, Partial(weighted), start, pairs, labels)
    z, c = listed_rows(memory, pairs)
    expected = c.mean(axis=0) * labels
    np.testing.assert_allclose([weights, again[0]], [expected, expected], rtol=1e-14)
    for found in (cubes, again[1]):
        np.testing.assert_allclose(found, np.sum(z**3, axis=1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(total, (z * expected[:, None]).T @ z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SOURCES)
def test_a_list_of_no_pairs(name):
    none, start = np.zeros((0, 3), np.int32), np.ones((DIM, DIM))
    source = SOURCES[name](pool_of(16))
    carry, outputs = by_pages(source, Partial(weighted), start, none, np.zeros(0))
    assert outputs is None and carry is start and over_pairs(source, Partial(weighed), none, np.zeros(0)) is None


def test_a_source_is_asked_in_the_callers_precision():
    source = Plain(memory_source(pool_of(PROMPTS)))
    pairs = np.array([[0, 0, 1], [4, 1, 2]], np.int32)
    with _arrays.float64():
        over_pairs(AdaptedSource(source, np.ones(DIM), wide=False), Partial(weighed), pairs, np.ones(2))
    over_pairs(source, Partial(weighed), pairs, np.ones(2))
    assert [wide for _, wide in source.asked] == [False, False]


def test_sums_over_pairs_of_several_devices_are_the_same_bits_again_and_those_of_memory():
    source, rng = divided(pool_of(PROMPTS)), np.random.default_rng(0)
    memory = memory_source(pool_of(PROMPTS))
    pairs = rng.integers(0, [PROMPTS, COMPLETIONS, COMPLETIONS], (100, 3)).astype(np.int32)
    start = np.zeros((DIM, DIM)), np.zeros(())
    first, again, held = (
        by_pages(one, Partial(weighted), start, pairs, np.ones(100))[0] for one in (source, source, memory)
    )
    assert np.asarray(first[0]).tobytes() == np.asarray(again[0]).tobytes() == np.asarray(held[0]).tobytes()


def test_other_carries_than_sums():
    def highest(rows, carry, inputs):
        return jnp.maximum(carry, jnp.max(jnp.where(inputs > 0, jnp.abs(rows.differences[:, 0]), 0))), None

    pool, rng = pool_of(PROMPTS), np.random.default_rng(1)
    pairs = rng.integers(0, [PROMPTS, COMPLETIONS, COMPLETIONS], (100, 3)).astype(np.int32)
    expected = np.abs(listed_rows(memory_source(pool), pairs)[0][:, 0]).max()
    for make in SOURCES.values():
        found = by_pages(make(pool), Partial(highest), np.zeros(()), pairs, np.ones(100))[0]
        assert float(found) == expected


@given(st.integers(0, 2**32 - 1), st.integers(0, 90), st.integers(1, 90))
def test_rows_that_are_held_are_not_asked_for_again(seed, before, now):
    rng, pool = np.random.default_rng(seed), pool_of(8, scored=True, draws=2)
    every = np.array([(p, i, j) for p in range(8) for i in range(COMPLETIONS) for j in range(i)], np.int32)
    source = Plain(memory_source(pool))
    first, second = (every[rng.permutation(len(every))[:count]] for count in (before, now))
    held = held_rows(source, first, 96)
    source.asked.clear()
    found = held_rows(source, second, 96, held)
    z, c = listed_rows(memory_source(pool), second)
    assert found.pairs is second and found.rows.differences.shape == (96, DIM)
    np.testing.assert_array_equal(found.rows.differences[:now], z)
    np.testing.assert_array_equal(found.rows.label_info[:, :now], c)
    assert not np.asarray(found.rows.differences[now:]).any() and not np.asarray(found.rows.label_info[:, now:]).any()
    old, new = ({tuple(pair) for pair in some.tolist()} for some in (first, second))
    asked = [tuple(pair) for page, _ in source.asked for pair in page.tolist() if any(pair)]
    assert sorted(asked) == sorted(new - old)


def test_rows_at_hand_are_those_of_the_source_and_others_are_asked_for():
    pool = pool_of(PROMPTS, scored=True)
    source, memory = Plain(memory_source(pool)), memory_source(pool)
    rng = np.random.default_rng(5)
    prompts = rng.permutation(PROMPTS)[:30]
    pairs = np.stack([prompts, np.arange(30) % 3, 3 + np.arange(30) % (COMPLETIONS - 3)], axis=1).astype(np.int32)
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    held = held_rows(source, pairs[:20], 32)
    source.asked.clear()
    shuffled = pairs[rng.permutation(20)]
    found, expected = (listed_rows(one, shuffled) for one in (holding(source, held), memory))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not source.asked
    for one, other in zip(listed_rows(holding(source, held), pairs), listed_rows(memory, pairs), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(source.asked) == 1
    assert holding(source, None) is source


def test_rows_of_prompts_at_hand_are_not_asked_for():
    pool = pool_of(PROMPTS, scored=True)
    source, memory = Plain(memory_source(pool)), memory_source(pool)
    prompts = np.sort(np.random.default_rng(6).permutation(PROMPTS)[:20])
    having = PromptsHeld(source, prompts, memory.subset(prompts))
    pairs = np.stack([prompts[::-1], np.zeros(20), np.arange(20) % (COMPLETIONS - 1) + 1], axis=1).astype(np.int32)
    for one, other in zip(listed_rows(having, pairs), listed_rows(memory, pairs), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not source.asked
    others = np.setdiff1d(np.arange(PROMPTS), prompts)
    mixed = np.concatenate([pairs, [[others[0], 0, 1], [others[-1], 1, 2]]]).astype(np.int32)
    for one, other in zip(listed_rows(having, mixed), listed_rows(memory, mixed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(source.asked) == 1
