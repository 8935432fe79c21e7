"""A pool that is read a chunk at a time gives what it gives in memory: rows, designs, certificates, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxdesign as jd
from jaxdesign.pricing import Source, memory_source, streamed_source
from jaxdesign.pricing.stored.protocol import Mapped
from jaxdesign.pricing.streamed import StreamedSource
from tests.support.designs import agree
from tests.support.stored import COMPLETIONS, DIM, PROMPTS, ragged

CHUNKS = [None, 100, 333]
BUDGETS = {
    "repeats": jd.Budget(300),
    "caps": jd.Budget(300, per_pair=1),
    "quotas": jd.Budget(300, per_pair=1, per_prompt=5),
    "decided": jd.Budget(300, per_pair=1, exclude=[[7, 0, 1], [40, 2, 9]], required=[[4, 0, 1], [701, 2, 7]]),
    "coupled": jd.Budget(60, per_pair=1, quotas=jd.Quota(np.arange(PROMPTS) % 2, at_least=20, at_most=40)),
}
CRITERIA = {"LogDet": jd.LogDet(), "Trace": jd.Trace(np.diag(np.arange(1.0, DIM + 1)))}


def both(chunk=None, **given):
    return streamed_source(chunk=chunk, **given), jd.CompletionPool(**given)


@Partial
def seen(chunk, carry, inputs):
    """All that a kernel can see."""
    flip = chunk.margins.flip + jnp.zeros_like(chunk.rows[:, :, :1])
    scores = inputs if chunk.margins.scores is None else chunk.margins.scores
    return carry + jnp.sum(chunk.copies >= 0), (chunk.rows, chunk.copies, flip, scores, inputs)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_kernels_see_what_they_see_of_the_pool_in_memory(dtype, chunk):
    source, pool = both(chunk, **ragged(dtype, draws=1, noise=True))
    inputs = np.arange(PROMPTS, dtype=np.float32)
    found, expected = (one.fold(seen, jnp.int32(0), inputs) for one in (source, memory_source(pool)))
    jax.tree.map(np.testing.assert_array_equal, found, expected)  # to the last bit


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_listed_pairs_and_subsets_are_those_of_the_pool_in_memory(dtype):
    source, pool = both(100, **ragged(dtype, draws=3, noise=True))
    exists = np.argwhere(np.asarray(pool.mask).sum(axis=1) > 1)[:, 0]
    pairs = np.zeros((4096, 3), np.int32)  # a page, most of it the pair (0, 0, 0)
    pairs[: len(exists)] = np.stack([exists, 0 * exists, 0 * exists + 1], axis=1)
    inside = memory_source(pool)
    jax.tree.map(np.testing.assert_array_equal, source.rows(pairs), inside.rows(pairs))
    some = np.array([3, 5, 99, 100, 1129])
    jax.tree.map(
        np.testing.assert_array_equal, source.subset(some).rows(pairs[:1]), inside.subset(some).rows(pairs[:1])
    )
    count = jnp.int32(0), np.zeros(5, np.float32)
    found, expected = (one.subset(some).fold(seen, *count) for one in (source, inside))
    for one, other in zip(*(jax.tree.leaves(result) for result in (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)  # means of chunks of other heights round otherwise


@pytest.mark.thorough
def test_flips_of_every_pair_are_those_of_the_pool_in_memory():
    given = ragged(prompts=40)
    flip = np.random.default_rng(0).uniform(0, 0.4, (40, COMPLETIONS, COMPLETIONS))
    flip = (flip + flip.swapaxes(1, 2)) / 2
    flip[~(given["mask"][:, :, None] & given["mask"][:, None])] = np.nan
    source, pool = both(9, **given | {"flip": flip})
    pairs = np.array([[4, 0, 1], [0, 0, 0], [38, 2, 9], *[[7, 1, 3]] * 4093], np.int32)
    jax.tree.map(np.testing.assert_array_equal, source.rows(pairs), memory_source(pool).rows(pairs))
    agree(*(jd.optimize(one, jd.LogDet(), jd.Budget(60, per_pair=1), prior=0.1) for one in (source, pool)))


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_designs_are_those_of_the_pool_in_memory(criterion, budget, chunk):
    options = {"prior": 0.01, "tol": 1e-2 if budget == "coupled" else 1e-3}
    crit, budget = CRITERIA[criterion], BUDGETS[budget]
    source, pool = both(chunk, **ragged(np.float16))
    found, expected = (jd.optimize(one, crit, budget, **options) for one in (source, pool))
    assert found.status == jd.Status.CERTIFIED
    agree(found, expected)
    given = found.pairs, found.labels
    agree(*(jd.evaluate(one, crit, budget, *given, prior=0.01) for one in (source, pool)))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_flips_and_draws(dtype, draws, chunk):
    pair = both(chunk, **ragged(dtype, draws=draws, noise=True))
    agree(*(jd.optimize(one, jd.LogDet(), jd.Budget(100, per_pair=1), prior=0.01) for one in pair))


@pytest.mark.slow
def test_float64_features_stay_float64_for_those_who_ask_for_it(float64_scope):
    source, pool = both(100, **ragged(np.float64, 300, draws=1, noise=True))
    assert source.dtype == pool.features.dtype == np.float64
    agree(*(jd.optimize(one, jd.LogDet(), jd.Budget(100), prior=0.01) for one in (source, pool)))


@pytest.mark.thorough
def test_a_run_is_the_same_to_the_last_bit_every_time():
    first, again = (
        jd.optimize(streamed_source(chunk=77, **ragged()), jd.LogDet(), jd.Budget(100, per_pair=1), prior=0.01)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.pairs, again.pairs)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.certificate == again.certificate and first.passes == again.passes


class Watched(Mapped):
    """Counts the numbers that are read."""

    read = 0

    def between(self, start, stop):
        return self._counted(super().between(start, stop))

    def take(self, *index):
        return self._counted(super().take(*index))

    def _counted(self, found):
        type(self).read += found.size
        return found


def test_no_more_is_read_than_is_asked_for():
    given = ragged()
    del given["features"], given["mask"]
    features = np.random.default_rng(0).standard_normal((PROMPTS, COMPLETIONS, DIM), np.float32)
    source = StreamedSource(Watched(features), **given, mask=None, length=100, wide=False)
    assert isinstance(source, Source)
    pairs = np.zeros((4096, 3), np.int32)
    source.rows(pairs)
    assert Watched.read == 2 * 4096 * DIM
    source.subset(np.array([3, 700]))
    assert Watched.read == 2 * 4096 * DIM + 2 * COMPLETIONS * DIM
    source.fold(Partial(lambda chunk, carry, _: (carry, None)), None)
    assert Watched.read == 2 * 4096 * DIM + 2 * COMPLETIONS * DIM + features.size


def test_a_chunk_is_made_once_for_all_pairs_that_are_listed_together():
    """Both completions of a pair are in one chunk; where chunks are dear, as those of Parquet files, that is half."""
    features, asked = np.random.default_rng(0).standard_normal((40, 4, 3)).astype(np.float32), []
    source = streamed_source(lambda *part: asked.append(part) or features[slice(*part)], prompts=40, chunk=10)
    asked.clear()
    pairs = np.array([[31, 0, 2], [3, 1, 2], [5, 0, 3], [38, 2, 3]])
    rows = source.rows(pairs)
    assert asked == [(0, 10), (30, 40)]
    p, i, j = pairs.T
    np.testing.assert_array_equal(rows.differences, features[p, i].astype(float) - features[p, j].astype(float))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": (np.nan, (701, 2, 4))}, "features: nan at prompt 701, completion 2, dimension 4 .1 such value"),
        ({"features": (np.inf, (1129, 0, 0))}, "features: inf at prompt 1129, completion 0, dimension 0"),
        ({"scores": (np.nan, (1, 250, 1))}, "scores: nan at draw 1, prompt 250, completion 1"),
        ({"flip": (0.5, (400,))}, "flip: 0.5 at prompt 400"),
    ],
)
def test_what_is_no_number_is_named_by_its_place_in_the_pool(change, message):
    given = ragged(draws=2, noise=True)
    for name, (value, place) in change.items():
        given[name][place] = value
    source = streamed_source(chunk=100, **given)
    with pytest.raises(ValueError, match=message):
        jd.optimize(source, jd.LogDet(), jd.Budget(10))
    with pytest.raises(ValueError, match=message.partition(" .1")[0]):  # a pool in memory says the same
        jd.CompletionPool(**given)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": np.zeros((3, 4), np.float32)}, ValueError, r"features: shape \(3, 4\) found"),
        ({"features": np.zeros((3, 1, 4), np.float32)}, ValueError, "features: shape .* two completion slots"),
        ({"features": np.zeros((3, 2, 4), int)}, TypeError, "features: dtype int64 found"),
        ({"features": jnp.zeros((3, 2, 4))}, TypeError, "features: expected a path, a NumPy array or a function"),
        ({"mask": np.ones((PROMPTS, COMPLETIONS))}, TypeError, "mask: dtype float64 found; expected bool"),
        ({"mask": np.ones((PROMPTS, 3), bool)}, ValueError, r"mask: shape \(1130, 3\) found"),
        ({"mask": np.zeros((PROMPTS, COMPLETIONS), bool)}, ValueError, "mask: no prompt has two completions"),
        ({"scores": np.zeros((PROMPTS, 3))}, ValueError, r"scores: shape \(1130, 3\) found"),
        ({"flip": np.zeros(3)}, ValueError, r"flip: shape \(3,\) found"),
        ({"chunk": 0}, ValueError, "chunk=0: must be a whole number of at least 1"),
    ],
)
def test_what_is_refused_at_once(change, error, message):
    with pytest.raises(error, match=message):
        streamed_source(**ragged() | change)
