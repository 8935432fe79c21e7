"""`stage_value` against all pairs written out one by one, under every criterion, and in other bases and units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import CompletionPool, Criterion, LogDet, Trace, WorstCase, held_information
from jaxdesign.dynamics.stage_value import stage_value
from tests.support.problems import DIM, DRAWS, random_arrays, random_flips, random_pool

RNG = np.random.default_rng(0)
ROOT = RNG.standard_normal((2, DIM, DIM))
PRIOR, H = ROOT[0] @ ROOT[0].T + np.eye(DIM), ROOT[1] @ ROOT[1].T


def phi_two(matrix):
    return jnp.trace(jnp.linalg.inv(matrix) @ jnp.linalg.inv(matrix))


CRITERIA = {
    "LogDet": (LogDet(), np.linalg.inv),
    "Trace": (Trace(H), lambda A: np.linalg.inv(A) @ H @ np.linalg.inv(A)),
    "low rank": (Trace(np.diag([1.0, 0, 0])), lambda A: np.outer(np.linalg.inv(A)[0], np.linalg.inv(A)[0])),
    "function": (Criterion(phi_two), lambda A: 2 * np.linalg.matrix_power(np.linalg.inv(A), 3)),
    "worst case": (WorstCase([H, 1e-3 * np.eye(DIM)]), lambda A: np.linalg.inv(A) @ H @ np.linalg.inv(A)),
}


def by_hand(pool, gradients):
    """Mean sensitivity of the pairs of each prompt, pair by pair in float64; NaN where there is none."""
    features = np.asarray(pool.features, np.float64)
    draws = np.zeros((1, *features.shape[:2])) if pool.scores is None else np.asarray(pool.scores, np.float64)
    draws, mask = draws.reshape(-1, *features.shape[:2]), np.asarray(pool.mask)
    flip = np.zeros(len(features)) if pool.flip is None else np.asarray(pool.flip, np.float64)
    means = []
    for p in range(len(features)):
        there, worth = np.flatnonzero(mask[p]), []
        for a, i in enumerate(there):
            for j in there[a + 1 :]:
                z, eps = features[p, i] - features[p, j], flip[p] if flip.ndim == 1 else flip[p, i, j]
                right = 1 / (1 + np.exp(draws[:, p, j] - draws[:, p, i]))
                seen = (1 - 2 * eps) * right + eps
                info = ((1 - 2 * eps) * right * (1 - right)) ** 2 / (seen * (1 - seen))
                worth.append(np.mean([c * z @ G @ z for c, G in zip(info, gradients, strict=True)]))
        means.append(np.mean(worth) if worth else np.nan)
    return np.array(means)


def expected(on_pool, off_pool, gradients):
    on, off = by_hand(on_pool, gradients), by_hand(off_pool, gradients)
    both = ~np.isnan(on) & ~np.isnan(off)
    return on[both].mean() / off[both].mean(), on[both].mean(), off[both].mean(), both.sum()


def checked(found, expected):
    ratio, on, off, prompts = expected
    assert found.prompts == prompts
    assert (found.ratio, found.on, found.off) == pytest.approx((ratio, on, off), rel=1e-10)
    assert found.low <= found.ratio <= found.high


# ---- all pairs by hand


@pytest.mark.slow
@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_against_all_pairs(name):
    crit, gradient = CRITERIA[name]
    on, off = random_pool(1), random_pool(2, completions=4)
    checked(stage_value(on, off, crit, PRIOR), expected(on, off, [gradient(PRIOR)]))


@pytest.mark.parametrize("flip", [None, "one", "prompt", "pair"])
@pytest.mark.parametrize("scores", ["no", "yes", "draws"])
def test_label_information_of_scores_draws_and_flips(scores, flip):
    on, off = random_pool(3, scores, flip), random_pool(4, scores, None)
    shape = (DRAWS, 1, 1) if scores == "draws" else ()
    prior = PRIOR * (1 + np.arange(DRAWS).reshape(shape)) if shape else PRIOR
    gradients = np.linalg.inv(prior).reshape(-1, DIM, DIM)
    checked(stage_value(on, off, LogDet(), prior), expected(on, off, gradients))


@pytest.mark.slow
def test_a_ridge_and_information_held_are_priors():
    on, off = random_pool(5), random_pool(6)
    checked(stage_value(on, off, LogDet(), 0.5), expected(on, off, [2 * np.eye(DIM)]))
    held = held_information(on, [(0, 0, 2), (3, 1, 2)]) + 0.1 * np.eye(DIM)
    checked(stage_value(on, off, Trace(H), held), expected(on, off, [np.linalg.inv(held) @ H @ np.linalg.inv(held)]))


def test_prompts_without_pairs_in_one_pool_do_not_count_in_the_other():
    """Of the most valuable prompt the other pool has a single completion."""
    features = RNG.standard_normal((2, 6, 4, DIM))
    features[0, 2] *= 100
    mask = np.ones((6, 4), bool)
    mask[2, 1:] = False
    on, off = CompletionPool(features[0]), CompletionPool(features[1], mask=mask)
    found = stage_value(on, off, LogDet(), 1.0)
    assert found.prompts == 5 and found.ratio < 10
    checked(found, expected(on, off, [np.eye(DIM)]))


@pytest.mark.slow
def test_pools_longer_than_a_chunk(monkeypatch):
    on, off = random_pool(7), random_pool(8)
    whole = stage_value(on, off, LogDet(), PRIOR)
    monkeypatch.setattr("jaxdesign._arrays.CHUNK_ENTRIES", {"cpu": 2 * 5 * 5})
    jax.clear_caches()
    assert tuple(stage_value(on, off, LogDet(), PRIOR)) == pytest.approx(tuple(whole), rel=1e-12)


# ---- what changes nothing


def test_a_pool_is_worth_as_much_as_itself():
    pool = random_pool(9)
    assert stage_value(pool, pool, Trace(H), PRIOR)[:4] == (1, 1, 1, 0)


def test_one_is_the_other_upside_down():
    on, off = random_pool(10), random_pool(11)
    there, back = stage_value(on, off, LogDet(), PRIOR), stage_value(off, on, LogDet(), PRIOR)
    assert there.ratio * back.ratio == pytest.approx(1, rel=1e-12)
    assert (there.low * back.high, there.high * back.low) == pytest.approx((1, 1), rel=0.2)


@pytest.mark.parametrize("crit", [LogDet(), Trace(H)], ids=["LogDet", "Trace"])
@pytest.mark.parametrize("kind", ["rotation", "units"])
def test_another_basis_with_everything_moved_along(crit, kind):
    """phi -> phi B, A -> B^T A B, H -> B^T H B: the ratio, its interval and both means stay."""
    basis = np.linalg.qr(RNG.standard_normal((DIM, DIM)))[0] if kind == "rotation" else np.diag([1e-6, 1.0, 1e6])
    (f, u, mask), (g, v, _) = (random_arrays(seed, ragged=False) for seed in (12, 13))
    moved = Trace(basis.T @ H @ basis) if isinstance(crit, Trace) else crit
    with jax.enable_x64(True):
        pools = [CompletionPool(a.astype(float), b) for a, b in ((f, u), (g, v))]
        others = [CompletionPool(a.astype(float) @ basis, b, mask) for a, b in ((f, u), (g, v))]
        found = stage_value(*pools, crit, PRIOR)
        assert tuple(stage_value(*others, moved, basis.T @ PRIOR @ basis)) == pytest.approx(tuple(found), rel=1e-6)


def test_order_of_prompts_and_completions_and_what_a_prompt_has_in_common():
    (f, u, mask), (g, v, _) = (random_arrays(seed) for seed in (14, 15))
    on, off = CompletionPool(f, u, mask), CompletionPool(g, v, mask)
    prompts, completions = RNG.permutation(len(f)), RNG.permutation(f.shape[1])
    with jax.enable_x64(True):
        shifted = f.astype(float) + RNG.standard_normal((len(f), 1, DIM))
        turned = [array[prompts][:, completions] for array in (shifted, u, mask)]
        moved = CompletionPool(*turned), CompletionPool(g[prompts], v[prompts], mask[prompts])
        found = stage_value(*moved, Trace(H), PRIOR)
    assert tuple(found) == pytest.approx(tuple(stage_value(on, off, Trace(H), PRIOR)), rel=1e-9)


# ---- what it decides


def gaussian_pools(spread, prompts=60, seed=0):
    """On-policy completions `spread` times as far apart as off-policy ones: pairs are worth spread^2 as much."""
    rng = np.random.default_rng(seed)
    return [CompletionPool(scale * rng.standard_normal((prompts, 6, DIM))) for scale in (spread, 1.0)]


@pytest.mark.parametrize(("spread", "decided"), [(1.5, 1), (0.7, -1), (1.0, 0)])
def test_farther_apart_is_worth_more(spread, decided):
    found = stage_value(*gaussian_pools(spread), LogDet(), 1.0)
    assert found.decided == decided and found.low < spread**2 < found.high


def test_what_is_known_already_is_worth_less():
    """Off-policy pairs vary along a direction of which much is known, on-policy ones along the others."""
    rng = np.random.default_rng(1)
    on = CompletionPool(rng.standard_normal((40, 4, 3)) * [0.1, 1, 1])
    off = CompletionPool(rng.standard_normal((40, 4, 3)) * [10, 0.1, 0.1])
    crit = Trace(np.eye(3))
    assert stage_value(on, off, crit, 1.0).decided == -1
    assert stage_value(on, off, crit, np.diag([1e6, 1, 1])).decided == 1


def test_copies_of_completions_are_worth_nothing():
    features = RNG.standard_normal((30, 4, DIM))
    same = np.repeat(features[:, :2], 2, axis=1)  # of six pairs four differ
    pair = CompletionPool(features[:, :2])
    found = stage_value(CompletionPool(same), pair, LogDet(), 1.0)
    assert (found.ratio, found.low, found.high) == pytest.approx((2 / 3, 2 / 3, 2 / 3), rel=1e-6)


@pytest.mark.thorough
def test_the_interval_covers_the_ratio_of_all_prompts():
    held = []
    for seed in range(200):
        found = stage_value(*gaussian_pools(1.3, prompts=50, seed=seed), LogDet(), 1.0, level=0.1, resamples=500)
        held.append(found.low <= 1.69 <= found.high)
    assert 0.83 < np.mean(held) < 0.96


# ---- refusals


POOL = random_pool(16, "no")


def of_shape(*shape, **options):
    return CompletionPool(RNG.standard_normal(shape), **options)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((POOL, of_shape(6, 5, 2), LogDet(), 1.0), {}, ValueError, "off_pool: 2 found and 3 in on_pool, feature dim"),
        (
            (POOL, of_shape(7, 5, 3), LogDet(), 1.0),
            {},
            ValueError,
            "off_pool: 7 found and 6 in on_pool, prompts; row",
        ),
        (
            (POOL, random_pool(1, "draws"), LogDet(), 1.0),
            {},
            ValueError,
            "off_pool: 3 found and None in on_pool",
        ),
        ((POOL, None, LogDet(), 1.0), {}, TypeError, "off_pool: expected jaxdesign.CompletionPool, found NoneType"),
        ((None, POOL, LogDet(), 1.0), {}, TypeError, "pool: expected jaxdesign.CompletionPool, found NoneType"),
        ((POOL, POOL, "LogDet", 1.0), {}, TypeError, "crit: expected LogDet"),
        ((POOL, POOL, LogDet(), 0.0), {}, ValueError, "prior: too little information"),
        ((POOL, POOL, Trace(H), np.diag([1.0, 1, 0])), {}, ValueError, "prior: too little information"),
        ((POOL, POOL, Criterion(jnp.trace), 1.0), {}, ValueError, "crit: it increases with information"),
        ((POOL, POOL, LogDet(), 1.0), {"level": 1.0}, ValueError, "level=1: must be above 0"),
        (
            (POOL, POOL, LogDet(), 1.0),
            {"resamples": 10},
            ValueError,
            "resamples=10: must be a whole number",
        ),
        (
            (of_shape(2, 3, 3, ids=["a", "b"]), of_shape(2, 3, 3, ids=["b", "a"]), LogDet(), 1.0),
            {},
            ValueError,
            "off_pool: row 0 is 'b' and 'a' in on_pool",
        ),
        (
            (
                of_shape(2, 3, 3, mask=np.arange(3)[None] < np.array([[3], [1]])),
                of_shape(2, 3, 3, mask=np.arange(3)[None] < np.array([[1], [3]])),
                LogDet(),
                1.0,
            ),
            {},
            ValueError,
            "off_pool: no prompt has two completions here and in on_pool",
        ),
        (
            (POOL, CompletionPool(np.ones((6, 5, 3))), LogDet(), 1.0),
            {},
            ValueError,
            "off_pool: no pair is worth anything",
        ),
    ],
)
def test_bad_input_is_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        stage_value(*arguments, **options)


def test_traced_pools_are_refused():
    with pytest.raises(TypeError, match=r"jaxdesign.dynamics.stage_value runs on the host"):
        jax.jit(lambda pool: stage_value(pool, pool, LogDet(), 1.0).ratio)(POOL)


def test_random_flips_are_of_every_kind():
    """What the tests above rest on."""
    assert [np.ndim(random_flips(3, np.ones((6, 5), bool), kind)) for kind in ("one", "prompt", "pair")] == [0, 1, 3]
