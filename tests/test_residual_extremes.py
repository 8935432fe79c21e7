"""Residuals of extreme pools: any size of features and of v, against float64 arithmetic pair by pair, or words."""

from contextlib import nullcontext

import jax
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.pricing import memory_source, streamed_source
from jaxdesign.pricing.passes import chunk_sensitivities
from tests.support.problems import COMPLETIONS, DIM, PROMPTS, all_pairs_of

SHAPE = PROMPTS, COMPLETIONS, DIM
BASE = np.random.default_rng(0).standard_normal(SHAPE)
SCORES = 3 * np.random.default_rng(1).standard_normal(SHAPE[:2]).astype(np.float32)
MASK = np.ones(SHAPE[:2], bool)
MASK[1, 2:] = MASK[2, 1:] = MASK[3] = False  # two completions, one, none


def changed(prompt, factor):
    features = BASE.copy()
    features[prompt] *= factor
    return features


def lines():
    features = BASE.copy()
    features[0], features[4, :2] = 0, 0
    return features


NEARLY = np.stack([BASE[..., 0], BASE[..., 1], BASE[..., 0] + 1e-4 * BASE[..., 1]], axis=-1)
POOLS = {
    "ordinary": BASE,
    "zero rows": lines(),
    "tiny": 1e-30 * BASE,
    "huge": 7e37 * BASE,  # differences are beyond float32
    "units": BASE * np.array([1e30, 1, 1e-30]),
    "a column of subnormal numbers": BASE * np.array([1e30, 1, 1e-42]),
    "a zero column": BASE * np.array([1.0, 0, 1]),
    "a tiny prompt": changed(5, 1e-20),
    "a huge prompt": changed(5, 1e10),
    "far from 0": BASE + 1e4,
    "nearly dependent columns": NEARLY,
}
WIDE = {
    "tiny": 1e-200 * BASE,
    "huge": 1e200 * BASE,
    "units": BASE * np.array([1e200, 1, 1e-200]),
}


def expected(pool, v):
    """Pairs that differ, and c and l of each by hand, float64; subnormal float32 numbers are 0, as XLA has them."""
    features, mask = np.asarray(pool.features, np.float64), np.asarray(pool.mask)
    if pool.features.dtype == np.float32:
        features = np.where(np.abs(features) < np.finfo(np.float32).tiny, 0, features)
    pairs = all_pairs_of(*SHAPE[:2])
    pairs = pairs[mask[pairs[:, 0], pairs[:, 1]] & mask[pairs[:, 0], pairs[:, 2]]]
    p, i, j = pairs.T
    z = features[p, i] - features[p, j]
    largest = np.max(np.abs(z), axis=0)
    units = np.where(largest > 0, 1 / np.where(largest > 0, largest, 1), 0)
    z = z * units
    rows = np.where(mask[..., None], features * units, 0)
    rows = rows - np.where(mask[..., None], rows.sum(1, keepdims=True) / np.maximum(mask.sum(1), 1)[:, None, None], 0)
    rows = rows[mask]
    size = np.sqrt(np.mean(rows**2, axis=0))
    size = np.where(size > 0, size, 1)
    spectrum, vectors = np.linalg.eigh((rows / size).T @ (rows / size) / len(rows))
    some = spectrum > 1e-10 * spectrum[-1]
    lengths = np.sum(((z / size) @ vectors[:, some]) ** 2 / spectrum[some], axis=1)
    open_ = lengths > 0
    lengths = lengths / np.quantile(lengths[open_], 0.5, method="inverted_cdf")
    k2 = 1 + (0 if v == "cap" else np.pi * v / 8) * lengths
    scores = np.zeros(SHAPE[:2]) if pool.scores is None else np.asarray(pool.scores, np.float64)
    chance = 1 / (1 + np.exp(-np.abs(scores[p, i] - scores[p, j]) / np.sqrt(k2)))
    c = chance * (1 - chance) / k2 * (np.minimum(1, 1 / np.maximum(lengths, 1)) if v == "cap" else 1)
    return pairs[open_], c[open_]


def with_residual(features, v, scores=None):
    pool = jd.CompletionPool(features, scores, MASK)
    return jd.CompletionPool(pool.features, pool.scores, pool.mask, residual=jd.residual_of(pool, v))


@pytest.mark.parametrize("v", [1.0, "cap", *(pytest.param(v, marks=pytest.mark.thorough) for v in (1e-30, 1e12))])
@pytest.mark.parametrize("wide", [False, pytest.param(True, marks=pytest.mark.thorough)], ids=["float32", "float64"])
def test_information_is_that_of_float64_arithmetic(v, wide):
    for number, (name, features) in enumerate((WIDE if wide else POOLS).items()):
        for scores in ((None, SCORES), (SCORES, np.float32(1e30) * SCORES))[number % 2]:
            with jax.enable_x64(True) if wide else nullcontext():
                pool = with_residual(features if wide else features.astype(np.float32), v, scores)
                pairs, c = expected(pool, v)
                found = np.asarray(jd.label_information(pool, pairs))
            rtol = 1e-4 if name == "nearly dependent columns" else 2e-6
            np.testing.assert_allclose(found, c, rtol=rtol, atol=1e-37, err_msg=name)


@pytest.mark.parametrize(
    ("features", "v", "words"),
    [
        (BASE, 1e38, "residual.noise: variances of prompt 0 are beyond float32; pass a smaller variance"),
        (BASE, 1e300, "residual.noise: variances of prompt 0 are beyond float32"),
        (changed(5, 1e15), 1e20, "residual.noise: variances of prompt 5 are beyond float32.*clip_rows"),
        (changed(5, 1e25), 1.0, "features: the median pair has no length beside the longest ones.*clip_rows"),
        (0 * BASE, 1.0, "features: the completions of every prompt are identical"),
        (1e-42 * BASE, "cap", "features: the completions of every prompt are identical"),
    ],
)
def test_what_float32_cannot_hold_is_refused_in_words(features, v, words):
    with pytest.raises(ValueError, match=words):
        with_residual(features.astype(np.float32), v)


@pytest.mark.thorough
def test_streamed_pools_refuse_it_too_and_name_the_prompt():
    pool = jd.CompletionPool(BASE.astype(np.float32), mask=MASK)
    residual = jd.Residual(1e15 * np.asarray(jd.residual_of(pool, 1.0).noise))
    features = changed(5, 1e10).astype(np.float32)
    source = streamed_source(features, mask=MASK, chunk=4, residual=residual)
    with pytest.raises(ValueError, match=r"residual\.noise: variances of prompt 5 are beyond float32"):
        jd.optimize(source, jd.LogDet(), jd.Budget(3, per_pair=1), prior=1.0)


@pytest.mark.parametrize("units", [2.0**-100, 2.0**100, np.array([2.0**90, 1, 2.0**-90])])
def test_units_change_no_digit(units):
    pairs = np.array([[0, 0, 1], [4, 1, 3], [5, 2, 4]])
    one, other = (with_residual(f.astype(np.float32), 3.0, SCORES) for f in (BASE, BASE.astype(np.float32) * units))
    np.testing.assert_allclose(
        jd.label_information(other, pairs), jd.label_information(one, pairs), rtol=1e-7 if np.ndim(units) else 0
    )


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(40))
def test_bounds_of_float32_hold_for_any_sizes(seed):
    """Random units, prompts of any size, any v: prices of all pairs are within their error of float64."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-6, 6, (SHAPE[0], 1, 1)) if seed % 2 else 1.0
    turned = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    features = (rng.standard_normal(SHAPE) * sizes) @ turned * 10.0 ** rng.uniform(-3, 3, 3)
    v = "cap" if seed % 5 == 0 else float(10 ** rng.uniform(-12, 12))
    pool = with_residual(features.astype(np.float32), v, SCORES if seed % 3 else None)
    unit = np.max(np.abs(np.asarray(pool.features)))
    factors = (rng.standard_normal((1, 3, 3)) / unit).astype(np.float32)
    source = memory_source(pool)
    found, error = source.fold(jax.tree_util.Partial(_with, factors), None)[1]
    pairs, _ = expected(pool, v)
    p, i, j = pairs.T
    rows = source.rows(pairs.astype(np.int32))
    exact = np.asarray(rows.label_info)[0] * np.sum((np.asarray(rows.differences) @ factors[0]) ** 2, axis=1)
    off = np.abs(np.asarray(found, np.float64)[p, i, j] - exact)
    assert np.isfinite(found).all() and np.isfinite(error).all()
    assert (off <= np.asarray(error, np.float64)[p]).all()


def _with(factors, chunk, carry, _):
    return carry, chunk_sensitivities(chunk, factors)
