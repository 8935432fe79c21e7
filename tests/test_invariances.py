"""What must not change a design: each test changes the problem in a way whose effect is known.

`follow` evaluates one allocation in both problems, where the certificates must agree to rounding; `agree` optimises
both, where the values must agree within the certified gaps.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

import jaxdesign
from jaxdesign import Budget, CompletionPool, LogDet, Trace, _arrays
from tests.support.medium import COMPLETIONS, DIM, PROMPTS, dense, dyadic, medium_arrays, solve
from tests.support.problems import even_allocation, random_spd, written_out

H, HELD = random_spd(1, DIM), random_spd(2, DIM)


@dataclasses.dataclass
class Case:
    """A problem in NumPy, so that it can be changed."""

    features: Any
    scores: Any
    mask: Any
    target: Any = None
    prior: Any = None
    total: float = 60.0
    per_pair: Any = None
    per_prompt: Any = None

    but = dataclasses.replace

    def problem(self):
        criterion = LogDet() if self.target is None else Trace(self.target)
        pool = CompletionPool(np.where(self.mask[..., None], self.features, np.nan), self.scores, self.mask)
        return pool, criterion, Budget(self.total, self.per_pair, self.per_prompt), self.prior

    @functools.cached_property
    def design(self):
        return solve(*self.problem())

    @functools.cached_property
    def mixture(self):
        """An allowed allocation over all pairs with a gap worth comparing, and its certificate."""
        pool, criterion, budget, prior = self.problem()
        pairs = written_out(pool)[0]
        caps = [np.inf if cap is None else cap for cap in (self.per_pair, self.per_prompt)]
        even = np.zeros((*pool.mask.shape, pool.completions))
        even[tuple(pairs.T)] = even_allocation(
            pairs, self.total, *(permuted(c, slice(pairs[:, 0].max() + 1)) for c in caps)
        )
        labels = (0.7 * dense(pool, self.design) + 0.3 * even)[tuple(pairs.T)]
        return pairs, labels, jaxdesign.evaluate(pool, criterion, budget, pairs, labels, prior).certificate


def make_cases():
    rng = np.random.default_rng(0)
    caps, quotas = rng.integers(1, 4, PROMPTS).astype(float), rng.integers(2, 6, PROMPTS).astype(float)
    return {
        "LogDet": Case(*medium_arrays(0)),
        "LogDet, caps, prior": Case(*medium_arrays(1), prior=HELD, per_pair=caps),
        "Trace, caps": Case(*medium_arrays(2), target=H, per_pair=caps),
        "Trace, prior": Case(*medium_arrays(3), target=H, prior=HELD),
        "LogDet, caps, quotas": Case(*medium_arrays(4), per_pair=caps, per_prompt=quotas),
    }


CASES = make_cases()
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.fixture
def rng(request):
    return np.random.default_rng(sum(map(ord, request.node.name)))


def agree(case, changed, shift=0.0, scale=1.0):
    """Best values agree: changed = scale * original + shift."""
    first, second = case.design, solve(*changed.problem())
    assert min(first.certificate.efficiency, second.certificate.efficiency) > 1 - 1e-4
    low, high = (scale * bound + shift for bound in (first.certificate.lower_bound, first.certificate.value))
    slack = 1e-8 * max(1, abs(high))
    assert second.certificate.value >= low - slack
    assert second.certificate.lower_bound <= high + slack
    return first, second


def follow(case, changed, pairs=lambda pairs: pairs, shift=0.0, scale=1.0, rel=1e-9, labels=1.0):
    """The certificate of one allocation agrees: changed = scale * original + shift."""
    listed, given, expected = case.mixture
    pool, criterion, budget, prior = changed.problem()
    found = jaxdesign.evaluate(pool, criterion, budget, pairs(listed), labels * given, prior).certificate
    close = {"rel": rel, "abs": 10 * rel}
    assert found.value == pytest.approx(scale * expected.value + shift, **close)
    assert found.lower_bound == pytest.approx(scale * expected.lower_bound + shift, **close)
    assert found.efficiency == pytest.approx(expected.efficiency, **close)
    assert expected.efficiency < 0.999


def permuted(values, order):
    return values if np.ndim(values) == 0 else values[order]


@pytest.mark.thorough
@every_case
def test_order_of_prompts(case, rng):
    order = rng.permutation(PROMPTS)
    changed = case.but(
        features=case.features[order],
        scores=case.scores[order],
        mask=case.mask[order],
        per_pair=permuted(case.per_pair, order),
        per_prompt=permuted(case.per_prompt, order),
    )
    place = np.argsort(order)
    follow(case, changed, lambda pairs: np.column_stack([place[pairs[:, 0]], pairs[:, 1:]]))
    agree(case, changed)


@pytest.mark.thorough(cases=2)
@every_case
def test_order_of_completions(case, rng):
    orders = np.argsort(rng.random((PROMPTS, COMPLETIONS)), axis=1)
    changed = case.but(
        features=np.take_along_axis(case.features, orders[..., None], axis=1),
        scores=np.take_along_axis(case.scores, orders, axis=1),
        mask=np.take_along_axis(case.mask, orders, axis=1),
    )
    place = np.argsort(orders, axis=1)
    follow(case, changed, lambda pairs: np.column_stack([pairs[:, 0], place[pairs[:, :1], pairs[:, 1:]]]))
    agree(case, changed)


@every_case
def test_sign(case):
    changed = case.but(features=-case.features, scores=-case.scores)
    follow(case, changed)
    follow(case, case, lambda pairs: pairs[:, [0, 2, 1]])
    agree(case, changed)


@every_case
def test_a_constant_added_to_the_features_of_a_prompt(case, rng):
    changed = case.but(features=case.features + dyadic(8 * rng.standard_normal((PROMPTS, 1, DIM))))
    follow(case, changed)
    agree(case, changed)


@every_case
def test_a_constant_added_to_the_scores_of_a_prompt(case, rng):
    changed = case.but(scores=case.scores + dyadic(8 * rng.standard_normal((PROMPTS, 1))))
    follow(case, changed)
    agree(case, changed)


@every_case
def test_rotation(case, rng):
    Q = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    turned = [None if matrix is None else Q.T @ matrix @ Q for matrix in (case.target, case.prior)]
    changed = case.but(features=(case.features @ Q).astype(np.float32), target=turned[0], prior=turned[1])
    follow(case, changed, rel=2e-6)  # the stored features are rounded anew
    design, other = case.design, solve(*changed.problem())
    assert other.certificate.value == pytest.approx(design.certificate.value, rel=1e-5, abs=1e-4)


@every_case
@pytest.mark.parametrize("log2", [-6, 6])
def test_scale_of_the_features(case, log2):
    """log det shifts by 2 d log s, tr(H A^-1) is divided by s^2, the efficiency stays."""
    s = 2.0**log2
    prior = None if case.prior is None else s**2 * case.prior
    changed = case.but(features=(s * case.features).astype(np.float32), prior=prior)
    shift, scale = (-2 * DIM * np.log(s), 1.0) if case.target is None else (0.0, s**-2)
    follow(case, changed, shift=shift, scale=scale)
    first, second = agree(case, changed, shift, scale)
    assert second.certificate.efficiency == pytest.approx(first.certificate.efficiency, abs=1e-4)


def test_affine_map(rng):
    """Z -> Z B shifts log det A by 2 log |det B|; the sensitivities stay."""
    case = CASES["LogDet"]
    B = rng.standard_normal((DIM, DIM)) + 2 * np.eye(DIM)
    changed = case.but(features=(case.features @ B).astype(np.float32))
    shift = -2 * np.linalg.slogdet(B)[1]
    follow(case, changed, shift=shift, rel=2e-5)
    design, other = case.design, solve(*changed.problem())
    assert other.certificate.value == pytest.approx(design.certificate.value + shift, abs=1e-3)


@every_case
def test_prompts_offered_twice(case):
    """Half the prompts, then each of them twice with half the cap and quota: the mass can be split at will."""
    half = PROMPTS // 2
    mask, again = case.mask.copy(), np.concatenate([np.arange(half)] * 2)
    mask[half:] = False

    def halved(cap):
        return None if cap is None else np.full(PROMPTS, 2.0) * permuted(cap, again)

    once = case.but(mask=mask, total=20.0, per_pair=halved(case.per_pair), per_prompt=halved(case.per_prompt))
    twice = case.but(
        features=case.features[again],
        scores=case.scores[again],
        mask=case.mask[again],
        total=20.0,
        per_pair=permuted(case.per_pair, again),
        per_prompt=permuted(case.per_prompt, again),
    )
    _, second = agree(once, twice)
    joined = np.column_stack([second.pairs[:, 0] % half, second.pairs[:, 1:]])
    pool, criterion, budget, prior = once.problem()
    value = jaxdesign.evaluate(pool, criterion, budget, joined, second.labels, prior).certificate.value
    assert value == pytest.approx(second.certificate.value, rel=1e-9, abs=1e-9)


@every_case
def test_completions_offered_twice(case):
    """Copies of a completion are never compared with each other, and add nothing where there are no caps."""
    mask, features, scores = case.mask.copy(), case.features.copy(), case.scores.copy()
    mask[:, COMPLETIONS // 2 :] = False
    features[:, COMPLETIONS // 2 :] = features[:, : COMPLETIONS // 2]
    scores[:, COMPLETIONS // 2 :] = scores[:, : COMPLETIONS // 2]
    half = case.but(mask=mask, total=20.0, per_pair=None)
    both = np.concatenate([mask[:, : COMPLETIONS // 2]] * 2, axis=1)
    changed = case.but(features=features, scores=scores, mask=both, total=20.0, per_pair=None)
    _, design = agree(half, changed)
    p, i, j = design.pairs.T
    assert (features[p, i] != features[p, j]).any(axis=1).all()


@every_case
def test_masked_slots(case):
    """A pool without its last two completions, and one that has them masked."""
    fewer = case.but(features=case.features[:, :-2], scores=case.scores[:, :-2], mask=case.mask[:, :-2])
    mask = case.mask.copy()
    mask[:, -2:] = False
    masked = case.but(mask=mask)
    design = masked.design
    pool, criterion, budget, prior = fewer.problem()
    found = jaxdesign.evaluate(pool, criterion, budget, design.pairs, design.labels, prior)
    assert found.certificate.value == pytest.approx(design.certificate.value, rel=1e-12, abs=1e-12)
    assert found.certificate.efficiency > 1 - 1e-4


@pytest.mark.slow
def test_a_pool_without_masked_slots_gives_the_same_design():
    case = CASES["LogDet"]
    mask = case.mask.copy()
    mask[:, -2:] = False
    fewer = case.but(features=case.features[:, :-2], scores=case.scores[:, :-2], mask=case.mask[:, :-2])
    agree(case.but(mask=mask), fewer)


@every_case
def test_names_of_prompts(case):
    pool, criterion, budget, prior = case.problem()
    named = CompletionPool(pool.features, pool.scores, pool.mask, ids=[f"prompt {p}" for p in range(PROMPTS)])
    first, second = case.design, solve(named, criterion, budget, prior)
    assert (first.pairs == second.pairs).all() and (first.labels == second.labels).all()
    assert first.certificate == second.certificate


@every_case
def test_number_of_labels(case):
    """Twice the labels, caps and prior: the same design twice, log det shifted by d log 2, the trace halved."""

    def double(value):
        return None if value is None else 2 * value

    changed = case.but(
        total=120.0, prior=double(case.prior), per_pair=double(case.per_pair), per_prompt=double(case.per_prompt)
    )
    shift, scale = (-DIM * np.log(2), 1.0) if case.target is None else (0.0, 0.5)
    follow(case, changed, shift=shift, scale=scale, labels=2.0)
    first, second = agree(case, changed, shift, scale)
    pool = case.problem()[0]
    assert np.abs(dense(pool, second) - 2 * dense(pool, first)).sum() < 0.05 * 120


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "chunk"), [pytest.param(17, 1, marks=pytest.mark.slow), (19, 7)])
def test_prompts_per_chunk(prompts, chunk, monkeypatch):
    """One prompt at a time, and chunks whose last one is not full, in shapes that no other test has compiled."""
    case = CASES["LogDet"]
    fewer = case.but(
        features=case.features[:prompts], scores=case.scores[:prompts], mask=case.mask[:prompts], total=20.0
    )
    mask = case.mask.copy()
    mask[prompts:] = False
    whole = case.but(mask=mask, total=20.0)
    monkeypatch.setitem(_arrays.CHUNK_ENTRIES, jax.default_backend(), chunk * COMPLETIONS * DIM)
    assert _arrays.chunk_length(prompts, COMPLETIONS, DIM) == chunk
    follow(whole, fewer)


@pytest.mark.slow
def test_prompts_per_chunk_of_a_solver(monkeypatch):
    case = CASES["LogDet, caps, quotas"]
    features, scores, mask = case.features[:21], case.scores[:21], case.mask[:21]
    fewer = case.but(
        features=features,
        scores=scores,
        mask=mask,
        per_pair=case.per_pair[:21],
        per_prompt=case.per_prompt[:21],
        total=20.0,
    )
    mask = case.mask.copy()
    mask[21:] = False
    monkeypatch.setitem(_arrays.CHUNK_ENTRIES, jax.default_backend(), 4 * COMPLETIONS * DIM)
    agree(case.but(mask=mask, total=20.0), fewer)
