"""Sixteen families of feature values, the shapes that break certificates: (P, K, d) float64 and the units of columns.

`units` is what a reasonable user would measure each column in; priors and targets are drawn in these units. Families
that need scores or more than features bring them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Values(NamedTuple):
    """Features before they are stored."""

    features: np.ndarray  # (P, K, d) float64
    units: np.ndarray  # (d,)
    scores: np.ndarray | None = None  # (P, K)


def gaussian(rng, shape, wide):
    return rng.standard_normal(shape)


def duplicates(rng, shape, wide):
    """Completions repeated within prompts, and prompts repeated."""
    rows = rng.standard_normal(shape)
    kept = rng.integers(0, max(2, shape[1] - 1), shape[:2])
    rows = np.take_along_axis(rows, kept[..., None], axis=1)
    return rows[rng.integers(0, shape[0], shape[0])] if rng.random() < 0.5 else rows


def zeros(rng, shape, wide):
    """Most rows zero; sometimes a column or a whole prompt."""
    rows = rng.standard_normal(shape) * (rng.random(shape[:2]) < rng.uniform(0.2, 0.7))[..., None]
    if rng.random() < 0.3:
        rows[..., rng.integers(shape[2])] = 0
    if rng.random() < 0.3:
        rows[rng.integers(shape[0])] = 0
    return rows


def rank_deficient(rng, shape, wide):
    """Exactly (integers) or nearly (rounded products, faint noise) of rank r < d."""
    rank = rng.integers(1, max(shape[2], 2))
    if rng.random() < 0.4:
        return (rng.integers(-3, 4, (*shape[:2], rank)) @ rng.integers(-3, 4, (rank, shape[2]))).astype(np.float64)
    rows = rng.standard_normal((*shape[:2], rank)) @ rng.standard_normal((rank, shape[2]))
    noise = rng.choice([0.0, 10.0 ** rng.uniform(-9, -2)])
    return rows + noise * rng.standard_normal(shape)


def scaled(rng, shape, wide):
    """2^-60 to 2^60 in float32, 2^-100 to 2^100 in float64; two fifths further out."""
    reach = 100 if wide else 60
    if rng.random() < 0.4:
        reach = 150 if wide else 100
    base = FAMILIES[rng.choice(["gaussian", "lattice", "heavy_tails", "plus_minus_one"])](rng, shape, wide)
    return base * 2.0 ** (rng.choice([-1, 1]) * rng.integers(reach // 2, reach + 1))


def column_scales(rng, shape, wide):
    return rng.standard_normal(shape) * 10.0 ** rng.uniform(-8, 8, shape[2])


def offsets(rng, shape, wide):
    """A common offset of each prompt, up to 1e6 (1e9 in float64) times the differences."""
    offset = rng.standard_normal((shape[0], 1, shape[2])) * 10.0 ** rng.uniform(0, 9 if wide else 6)
    return rng.standard_normal(shape) + offset


def heavy_tails(rng, shape, wide):
    return np.clip(rng.standard_t(rng.choice([0.5, 1.0, 2.0]), shape), -1e8, 1e8)


def one_hot(rng, shape, wide):
    rows = np.eye(shape[2])[rng.integers(0, shape[2], shape[:2])]
    return rows * (10.0 ** rng.uniform(-3, 3) if rng.random() < 0.3 else 1.0)


def lattice(rng, shape, wide):
    return rng.integers(-rng.integers(1, 5), 5, shape).astype(np.float64)


def plus_minus_one(rng, shape, wide):
    return rng.choice([-1.0, 1.0], shape)


def dominant_pair(rng, shape, wide):
    """One completion far from all others."""
    rows = rng.standard_normal(shape)
    rows[rng.integers(shape[0]), rng.integers(shape[1])] *= 10.0 ** rng.uniform(2, 7)
    return rows


def sparse(rng, shape, wide):
    return rng.standard_normal(shape) * (rng.random(shape) < rng.uniform(0.1, 0.4))


def mixed(rng, shape, wide):
    """Every prompt from another family."""
    names = ["gaussian", "duplicates", "zeros", "heavy_tails", "one_hot", "lattice", "plus_minus_one", "sparse"]
    return np.concatenate([FAMILIES[rng.choice(names)](rng, (1, *shape[1:]), wide) for _ in range(shape[0])])


def tiny_offsets(rng, shape, wide):
    """Completions that differ by a few units of the last places of a common row."""
    base = rng.standard_normal((shape[0], 1, shape[2])) + 3 * rng.choice([-1, 1], (shape[0], 1, shape[2]))
    step = 2.0 ** (-rng.integers(16, 22) if not wide else -rng.integers(30, 48))
    return base + step * rng.integers(-4, 5, shape)


def few_sizes(rng, shape, wide):
    """Differences of few sizes or of many: among equal ones, scores alone decide."""
    return FAMILIES[rng.choice(["gaussian", "plus_minus_one", "lattice"])](rng, shape, wide)


FAMILIES = {
    "gaussian": gaussian, "duplicates": duplicates, "zeros": zeros, "rank_deficient": rank_deficient,
    "scaled": scaled, "column_scales": column_scales, "offsets": offsets, "heavy_tails": heavy_tails,
    "one_hot": one_hot, "lattice": lattice, "plus_minus_one": plus_minus_one, "dominant_pair": dominant_pair,
    "sparse": sparse, "mixed": mixed, "far_scores": few_sizes, "tiny_offsets": tiny_offsets,
}  # fmt: skip


def far_scores(rng, shape):
    """Two clusters of scores in each prompt, 10 to 10^6.5 apart, a few units wide."""
    distance = 10.0 ** rng.uniform(1, 6.5)
    return distance * rng.choice([-0.5, 0.5], shape[:2]) + rng.normal(0, rng.choice([0.3, 1.0, 3.0]), shape[:2])


def near_ties(rng, features, scores):
    """Features of four completions a prompt with c z^2 of a pair in one cluster near that of a pair in the other."""
    distance = 10.0 ** rng.uniform(4, 6)
    for p in range(len(features)):
        u = rng.uniform(0.5, 4, 2)
        scores[p, :4] = np.float32([distance + u[0], distance, -distance, -distance - u[1]])
        c = 1 / (2 + 2 * np.cosh(np.diff(scores[p, :4])[[0, 2]]))
        features[p, 1:3] = 0
        features[p, 3] = features[p, 0] * np.sqrt(c[0] / c[1]) * (1 + rng.choice([-1, 1]) * 10.0 ** rng.uniform(-5, -2))
    return features, scores


def draw_values(rng: np.random.Generator, family: str, shape: tuple[int, int, int], wide: bool) -> Values:
    """Values of a family; `wide` for what is stored as float64."""
    features, scores = FAMILIES[family](rng, shape, wide), None
    if family == "far_scores":
        scores = far_scores(rng, shape)
        if 4 <= shape[1] < 10 and rng.random() < 0.7:
            features, scores = near_ties(rng, features, scores)
    spread = np.abs(features - features.mean(axis=1, keepdims=True))
    units = spread.max(axis=(0, 1))
    units = np.where(units > 0, units, units.max() if units.max() > 0 else 1.0)
    return Values(features, units, scores)
