"""A pass that looks closely only where it matters lists what a pass over all pairs lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign import _arrays
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing import sweep as sweeping
from jaxdesign.pricing.ceilings import ceilings_at, no_ceilings
from jaxdesign.pricing.largest import largest
from jaxdesign.pricing.memory import memory_source
from jaxdesign.pricing.passes import Charges, in_pricing_units
from jaxdesign.pricing.sweep import Factored, Wanted, bounded, sweep
from tests.support.problems import random_arrays, random_spd, sensitivities_of, written_out

PROMPTS, COMPLETIONS, DIM, DRAWS = 23, 6, 4, 2
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["no", "yes", "draws"])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Five prompts a chunk, so that pools of a few are taken apart."""
    monkeypatch.setattr(_arrays, "chunk_entries", lambda: 5 * COMPLETIONS * COMPLETIONS)
    monkeypatch.setattr(sweeping, "LARGE", 10 * COMPLETIONS**2)


class Case:
    """A pool with some pairs closed; factors at two points; all sensitivities written out in float64."""

    def __init__(self, seed, scores="no"):
        rng = np.random.default_rng(seed)
        shape = {"prompts": PROMPTS, "completions": COMPLETIONS, "dim": DIM}
        features, u, mask = random_arrays(seed, draws=DRAWS if scores == "draws" else None, **shape)
        features = features * np.exp(rng.standard_normal((PROMPTS, 1, 1)))
        flip = None if scores == "no" else rng.uniform(0, 0.3, PROMPTS)
        self.pool = CompletionPool(features, None if scores == "no" else u, mask, flip=flip)
        pairs, z, c = written_out(self.pool)
        is_closed = rng.random(len(pairs)) < 0.1
        self.source = memory_source(self.pool, closed=pairs[is_closed])
        self.pairs, (self.z, self.c) = pairs[~is_closed], (z[~is_closed], np.atleast_2d(c)[:, ~is_closed])
        draws = self.pool.num_draws or 1
        G = np.stack([random_spd([seed, r], DIM) for r in range(draws)])
        self.points = [self.at(G), self.at(G + 0.2 * np.stack([random_spd([seed, r, 1], DIM) for r in range(draws)]))]

    def at(self, G):
        exact = np.linalg.cholesky(G)
        return Factored(exact, *in_pricing_units(exact, self.source.dtype)), sensitivities_of(self.z, self.c, G)


def as_set(pairs):
    return set(map(tuple, np.asarray(pairs).tolist()))


@given(seeds, kinds, st.floats(0.5, 1), st.booleans())
def test_what_may_reach_the_level_is_listed_and_bounds_hold(seed, scores, quantile, warm):
    case = Case(seed, scores)
    (first, _), (at, b) = case.points
    known = bounded(case.source, first, no_ceilings(PROMPTS)).known if warm else None
    level = float(np.quantile(b, quantile))
    found = sweep(case.source, at, Wanted(level), known=known)
    assert found.complete and (np.diff(found.pairs @ [10**4, 100, 1]) > 0).all()
    error = np.asarray(largest(case.source, at.scaled)[1], np.float64) * at.unit
    assert as_set(case.pairs[b >= level]) <= as_set(found.pairs)
    assert as_set(found.pairs) <= as_set(case.pairs[b >= level - 4 * error[case.pairs[:, 0]]])
    np.testing.assert_array_equal(found.counts, np.bincount(found.pairs[:, 0], minlength=PROMPTS))
    best = np.full(PROMPTS, -np.inf)
    np.maximum.at(best, case.pairs[:, 0], b)
    assert (found.upper >= best).all() and (ceilings_at(found.ceilings, at.exact) >= best * (1 - 1e-12)).all()
    again, before = ceilings_at(found.ceilings, first.exact), np.zeros(PROMPTS)
    np.maximum.at(before, case.pairs[:, 0], case.points[0][1])
    assert (again >= before).all()


@given(seeds, kinds, st.integers(1, 12))
def test_the_best_pairs_of_completions_are_entered(seed, scores, number):
    case = Case(seed, scores)
    at, b = case.points[1]
    dense = np.full((PROMPTS, COMPLETIONS, COMPLETIONS), -1.0)
    dense[tuple(case.pairs.T)] = dense[tuple(case.pairs[:, [0, 2, 1]].T)] = b
    second = np.sort(dense, axis=-1)[..., -2]  # of each completion
    p, i, j = case.pairs.T
    among = b >= np.minimum(second[p, i], second[p, j])
    found = sweep(case.source, at, Wanted(np.inf, 0.0, 0, number))
    np.testing.assert_allclose(found.values[0], b.max(), rtol=1e-4)
    assert (found.values >= np.sort(np.unique(np.round(b[among], 4)))[::-1][:number][-1] * (1 - 1e-4)).all()
    assert len(as_set(found.entered)) == len(found.entered) and as_set(found.entered) <= as_set(case.pairs)
    above = float(np.sort(b)[len(b) // 2 - 1 : len(b) // 2 + 1].mean())
    some = sweep(case.source, at, Wanted(np.inf, above, 0, 10**6))
    expected = b[among & (b > above)]  # copies tie: of those that do, two of a completion are entered
    for one, other in ((some.values, expected), (expected, some.values)):
        assert (np.abs(one[:, None] - other[None, :]).min(axis=1, initial=np.inf) <= 1e-4 * one).all()


@given(seeds, st.floats(0.3, 1))
def test_ranks_and_charges_are_those_of_each_prompt(seed, quantile):
    case, rng = Case(seed, "yes"), np.random.default_rng(seed)
    (first, _), (at, b) = case.points
    of = rng.normal(size=(PROMPTS, COMPLETIONS)) * np.median(b)
    p, i, j = case.pairs.T
    net = b - of[p, i] - of[p, j]
    level = float(np.quantile(net, quantile))
    listed = rng.integers(0, 3, PROMPTS) * (rng.random(PROMPTS) < 0.2)
    known = bounded(case.source, first, no_ceilings(PROMPTS)).known
    found = sweep(case.source, at, Wanted(level), None, Charges(of, listed.astype(np.float32)), known)
    reached = case.pairs[net >= level + 1e-5 * np.abs(of).max()]
    assert as_set(reached) <= as_set(found.pairs)
    best, raw = np.full(PROMPTS, -np.inf), np.zeros(PROMPTS)
    np.maximum.at(best, p, net)
    np.maximum.at(raw, p, b)
    assert (found.upper >= best).all() and (ceilings_at(found.ceilings, at.exact) >= raw * (1 - 1e-12)).all()
    for prompt in np.flatnonzero(listed):
        mine = case.pairs[p == prompt][np.argsort(-net[p == prompt])][: listed[prompt]]
        assert as_set(mine) <= as_set(found.pairs) or len(np.unique(net[p == prompt])) < (p == prompt).sum()
    ranks = np.ones(PROMPTS, np.float32)
    once = sweep(case.source, at, Wanted(0.0), ranks, known=known)
    assert set(np.unique(p)) == set(once.pairs[:, 0].tolist())
    best_pairs = {q: tuple(case.pairs[p == q][np.argmax(b[p == q])].tolist()) for q in np.unique(p)}
    assert set(best_pairs.values()) <= as_set(once.pairs)


def test_too_many_pairs_are_counted_and_not_kept():
    case = Case(0)
    at, b = case.points[0]
    found = sweep(case.source, at, Wanted(0.0, most_listed=len(b) - 1))
    assert not found.complete and not len(found.pairs) and found.counts.sum() == len(b)
    assert sweep(case.source, at, Wanted(0.0, most_listed=len(b))).complete


def test_few_prompts_are_looked_at_once_bounds_are_known(monkeypatch):
    case = Case(3)
    at, b = case.points[0]
    level = float(np.sort(b)[-3])
    first = sweep(case.source, at, Wanted(level))
    folds = []
    monkeypatch.setattr(sweeping, "largest", lambda *args: folds.append(1) or largest(*args))
    again = sweep(case.source, at, Wanted(level), known=first.ceilings)
    assert not folds and again.looked <= 3 and as_set(again.pairs) == as_set(first.pairs)


def test_where_most_prompts_mattered_bounds_are_made_anew():
    case = Case(5)
    (first, _), (at, b) = case.points
    known = sweep(case.source, first, Wanted(0.0)).ceilings
    assert known.mattered > PROMPTS / 2
    doubled = Factored(2 * at.exact, *in_pricing_units(2 * at.exact, case.source.dtype))
    found, best = sweep(case.source, doubled, Wanted(0.0), known=known), np.full(PROMPTS, -np.inf)
    np.maximum.at(best, case.pairs[:, 0], 4 * b)
    assert found.looked == PROMPTS and (found.upper >= best).all()


def test_a_prompt_that_is_not_finite_is_looked_at_and_listed_whole():
    features = np.random.default_rng(0).standard_normal((PROMPTS, COMPLETIONS, DIM)).astype(np.float32)
    features[7] *= 3e19  # squares leave float32
    source = memory_source(CompletionPool(features))
    exact = np.eye(DIM)[None]
    found = sweep(source, Factored(exact, *in_pricing_units(exact, source.dtype)), Wanted(1e30))
    assert set(found.pairs[:, 0].tolist()) == {7} and found.counts[7] == COMPLETIONS * (COMPLETIONS - 1) / 2
    assert np.isinf(found.upper[7]) and np.isfinite(np.delete(found.upper, 7)).all()


def test_levels_are_rounded_down_to_the_working_dtype():
    for level in (0.1, 1 / 3, 1e-50, -0.7, 1e300):
        assert float(sweeping.rounded_down(level, np.dtype(np.float32))) <= level
