"""A source of a user's own: features made from a seed, chunk by chunk, and never stored; by public names only.

It gives what the same features give in a pool in memory, with every kind of budget.
"""

import weakref
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.pricing import Source, as_chunk, folded, memory_source, pair_rows
from tests.support.designs import agree

LENGTH, COMPLETIONS, DIM = 100, 64, 6  # prompts of a chunk; more than 512 prompts of 64 are never looked at together


@jax.jit(static_argnames=("draws", "scored"))
def made(seed, number, scale, *, draws, scored):
    """Features, scores, masks and flips of a chunk; heavy tails, common offsets, a ragged third, some copies."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), number), 5)
    shape = LENGTH, COMPLETIONS, DIM
    features = jax.random.normal(keys[0], shape) * jnp.exp(jax.random.normal(keys[1], (LENGTH, 1, 1)) / 2)
    features = (features + 3 * jax.random.normal(keys[2], (LENGTH, 1, DIM))) * scale[None, None]
    features = features.at[:, 5].set(features[:, 3])
    count = jnp.where(jnp.arange(LENGTH) % 3 == 0, 1 + jnp.arange(LENGTH) % 40, COMPLETIONS)
    mask = jnp.arange(COMPLETIONS)[None] < count[:, None]
    lead = (draws,) if draws > 1 else ()
    scores = jax.random.normal(keys[3], (*lead, *shape[:2])) if scored else None
    flip = 0.3 * jax.random.uniform(keys[4], (LENGTH,)) if scored else None
    return features, scores, mask, flip


@dataclass(frozen=True)
class Generated:
    """All a source has to be: five numbers and three methods."""

    seed: int
    prompts: int
    scored: bool = False
    draws: int = 1
    scale: tuple = (1.0,) * DIM
    completions = COMPLETIONS
    dim = DIM
    dtype = np.dtype(np.float32)
    made: list = field(default_factory=list)  # for the test: features made, by weak references
    held: list = field(default_factory=list)  # prompts of them in memory each time

    def fold(self, kernel, carry, per_prompt=None, merge=None):
        return folded((as_chunk(self.pool(k)) for k in range(-(-self.prompts // LENGTH))), kernel, carry, per_prompt)

    def rows(self, pairs):
        prompts, place = np.unique(pairs[:, 0], return_inverse=True)
        return pair_rows(self.pool_of(prompts), np.column_stack([place, pairs[:, 1:]]))

    def subset(self, prompts):
        return memory_source(self.pool_of(prompts))

    def pool(self, number):
        """A chunk of prompts; the last may be shorter."""
        size = min(LENGTH, self.prompts - number * LENGTH)
        scale = jnp.asarray(self.scale, jnp.float32)
        features, scores, mask, flip = made(self.seed, number, scale, draws=self.draws, scored=self.scored)
        scores = None if scores is None else scores[..., :size, :]
        return self.seen(features[:size], scores, mask[:size], flip=None if flip is None else flip[:size])

    def pool_of(self, prompts):
        """Some prompts, wherever they are; only the chunks that hold them are made."""
        parts = []
        for number in np.unique(prompts // LENGTH):
            some, pool = prompts[prompts // LENGTH == number] - number * LENGTH, self.pool(number)
            parts.append([None if a is None else np.asarray(a)[..., some, :] for a in (pool.scores, pool.mask)])
            parts[-1] += [None if a is None else np.asarray(a)[some] for a in (pool.features, pool.flip)]
        scores, mask, features, flip = (
            None if part[0] is None else np.concatenate(part, axis=-2 if k < 2 else 0)
            for k, part in enumerate(zip(*parts, strict=True))
        )
        return self.seen(features, scores, mask, flip=flip)

    def seen(self, features, *more, **rest):
        pool = jd.CompletionPool(features, *more, **rest)
        self.made.append(weakref.ref(pool.features))
        self.held.append(sum(len(array) for ref in self.made if (array := ref()) is not None))
        return pool


def in_memory(source):
    return source.pool_of(np.arange(source.prompts))


BUDGETS = {
    "repeats": jd.Budget(300),
    "caps": jd.Budget(300, per_pair=1),
    "quotas": jd.Budget(300, per_pair=1, per_prompt=5),
    "decided": jd.Budget(300, per_pair=1, exclude=[[7, 0, 1], [40, 2, 9]], required=[[3, 0, 1], [701, 2, 7]]),
}
CRITERIA = {"LogDet": jd.LogDet(), "Trace": jd.Trace(np.diag(np.arange(1.0, DIM + 1)))}


@pytest.fixture(scope="module")
def plain():
    source = Generated(0, 1130)
    return source, in_memory(source)


def test_it_is_a_source(plain):
    source, pool = plain
    assert isinstance(source, Source) and isinstance(memory_source(pool), Source)
    assert not isinstance(pool, Source)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_designs_are_those_of_the_pool_in_memory(plain, criterion, budget):
    found, expected = (jd.optimize(one, CRITERIA[criterion], BUDGETS[budget], prior=0.01) for one in plain)
    assert found.status == jd.Status.CERTIFIED
    agree(found, expected)
    given = found.pairs, found.labels
    agree(*(jd.evaluate(one, CRITERIA[criterion], BUDGETS[budget], *given, prior=0.01) for one in plain))


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.slow
def test_scores_flips_and_extreme_units_reach_the_passes(draws):
    source = Generated(1, 130, scored=True, draws=draws, scale=(1e8, 1e-9, 1.0, 1.0, 3.0, 1e3))
    agree(*(jd.optimize(one, jd.LogDet(), jd.Budget(50, per_pair=1)) for one in (source, in_memory(source))))


def test_targets_are_those_of_the_pool_in_memory(plain):
    source, pool = plain
    np.testing.assert_allclose(jd.second_moment(source), jd.second_moment(pool), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jd.policy_target(source), jd.policy_target(pool), rtol=1e-4, atol=1e-5)
    weights = np.random.default_rng(0).standard_normal((1130, COMPLETIONS))
    weights[3, :2] = -np.inf
    np.testing.assert_allclose(jd.policy_target(source, weights), jd.policy_target(pool, weights), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="log_weights"):
        jd.policy_target(source, weights[:5])
    weights[5, 0] = np.nan
    with pytest.raises(ValueError, match=r"log_weights.*prompt 5"):
        jd.policy_target(source, weights)


@pytest.mark.slow
def test_budgets_that_couple_prompts():
    source = Generated(2, 130)
    cost = np.random.default_rng(0).uniform(1, 2, (130, COMPLETIONS))
    quota = jd.Quota(np.arange(130) % 2, at_least=20, at_most=30)
    budget = jd.Budget(50, per_pair=1, quotas=quota, cost=cost, cost_total=130)
    agree(*(jd.optimize(one, jd.LogDet(), budget, prior=0.1, tol=1e-2) for one in (source, in_memory(source))))


@pytest.mark.slow
def test_annotators_see_it_as_they_see_a_pool():
    source = Generated(4, 130)
    budget = jd.Budget(50, per_pair=1, exclude=[[7, 0, 1]])
    people = jd.Annotators(flip=np.random.default_rng(0).uniform(0, 0.3, (2, 130)))
    found, pool = (
        jd.optimize(one, jd.LogDet(), budget, prior=0.1, tol=1e-2, annotators=people)
        for one in (source, in_memory(source))
    )
    agree(found, pool)
    np.testing.assert_array_equal(found.annotators, pool.annotators)
    noisy = Generated(4, 130, scored=True)
    with pytest.raises(ValueError, match=r"pool\.flip: annotators bring the noise"):
        jd.optimize(noisy, jd.LogDet(), budget, annotators=people)


@pytest.mark.thorough
def test_whole_labels_are_those_of_the_pool_in_memory():
    source = Generated(5, 230)
    call = jd.LogDet(), jd.Budget(30, per_pair=1)
    found, expected = (jd.select_pairs(one, *call, prior=0.01) for one in (source, in_memory(source)))
    agree(found, expected)
    assert found.report["candidates"]["exchange"]["optimal"] or found.certificate.efficiency > 0.999


@pytest.mark.thorough
def test_features_are_never_held():
    """A chunk at a time, and the prompts that a working set begins with: of a longer source no more."""
    held = []
    for prompts in (1100, 2200):
        source = Generated(3, prompts)
        jd.optimize(source, jd.LogDet(), jd.Budget(100))
        held.append(max(source.held))
        assert len(source.made) > 5 * prompts // LENGTH
    assert held[0] == held[1] <= 512 + 2 * LENGTH


def test_what_needs_the_whole_pool_says_so(plain):
    source, _ = plain
    for call in (
        lambda: jd.optimize(source, jd.LogDet(), jd.Budget(10), solver="frank_wolfe"),
        lambda: jd.baselines.first_two(source, jd.LogDet(), jd.Budget(10)),
        lambda: jd.label_curve(source, jd.LogDet(), jd.Budget(10), [10], rules=("random", "bait")),
        lambda: jd.reference.optimize(source, jd.LogDet(), jd.Budget(10)),
    ):
        with pytest.raises(TypeError, match=r"(pool: .*|rules: 'bait' .*)CompletionPool"):
            call()
    with pytest.raises(TypeError, match=r"pool: expected .*Source"):
        jd.optimize(np.zeros((3, 2, 1)), jd.LogDet(), jd.Budget(10))
