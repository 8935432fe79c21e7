"""Random problems: values x prior x total x budget x criterion x solver x dtype x function, each from one seed.

Everything is plain NumPy; `library` turns it into the library's objects. H and matrix priors are products of small
integers and powers of two, so that what is positive semidefinite on paper is so to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .budgets import draw_budget
from .programs import MANY, PLAIN, TRACEABLE, Program, draw_program
from .values import FAMILIES, draw_values


@dataclass(frozen=True)
class Problem:
    """One problem as plain data."""

    seed: int
    family: str
    wide: bool  # float64 features with x64 on; float32 otherwise
    features: np.ndarray  # (P, K, d), in the dtype that is stored
    scores: np.ndarray | None  # (P, K), (R, P, K) of R draws, or None
    mask: np.ndarray | None
    prior: Any
    criterion: str
    H: np.ndarray | None  # (T, d, d)
    limits: str
    budget: dict
    annotators: dict | None
    function: str
    solver: str | None
    tol: float
    witness: np.ndarray = field(repr=False)  # (E, 5): p, i, j, annotator, labels that obey the budget


def draw(seed: int, programs: tuple[Program, ...] = MANY) -> Problem:
    """The problem of a seed, on one of the programs."""
    number, rng = draw_program(seed, programs)
    program = programs[number]
    criterion = str(rng.choice(program.criteria))
    far = [name for name in FAMILIES if name != "far_scores" or program.scored]
    family = str(rng.choice(far + 3 * ["far_scores"] * program.scored))
    shape, wide = program.shape, program.wide
    values = draw_values(rng, family, shape, wide)
    features = values.features.astype(np.float64 if wide else np.float32)
    mask = None
    if rng.random() < 0.2:
        mask = rng.random(shape[:2]) < 0.75
        mask[rng.integers(shape[0]), :2] = True
    scores = None
    if program.scored or values.scores is not None:
        scores = values.scores
        if scores is None:
            scores = rng.normal(0, rng.choice([0.0, 0.5, 2.0, 30.0]), shape[:2])
        if program.draws is not None:
            scores = scores + rng.normal(0, rng.choice([0.0, 0.1, 1.0, 10.0]), (program.draws, *shape[:2]))
        scores = scores.astype(features.dtype)
    exists = np.ones(shape[:2], bool) if mask is None else mask
    limits = str(rng.choice(program.limits))
    if program.function in TRACEABLE:
        limits = str(rng.choice(PLAIN))
    whole = program.function in ("select_pairs", "greedy")
    budget, annotators, witness = draw_budget(rng, features, exists, limits, whole)
    prior = draw_prior(rng, features, exists, values.units, budget["total"])
    units = 2.0 ** np.rint(np.log2(values.units))
    H = draw_targets(rng, criterion, units)
    if mask is not None:
        features = np.where(mask[..., None], features, np.nan)
    tol = float(rng.choice([1e-2, 1e-3, 1e-4, 1e-6, 1e-8], p=[0.1, 0.4, 0.1, 0.2, 0.2]))
    if program.solver in ("frank_wolfe", "multiplicative"):
        tol = max(tol, 1e-3)
    return Problem(
        seed, family, wide, features, scores, mask, prior, criterion, H, limits, budget, annotators,
        program.function, program.solver, tol, witness,
    )  # fmt: skip


def exact_psd(rng, units, rank=None, spread=0) -> np.ndarray:
    """D L diag(2^-k) L^T D with integers in L: exactly positive semidefinite, of the given rank."""
    dim = len(units)
    lower = np.tril(rng.integers(-2, 3, (dim, dim)), -1) + np.eye(dim)
    powers = 2.0 ** -rng.integers(0, spread + 1, dim)
    if rank is not None:
        powers[rng.permutation(dim)[rank:]] = 0
    return units[:, None] * (lower @ (powers[:, None] * lower.T)) * units


def draw_prior(rng, features, exists, units, total):
    """None, ridges of 1e-12 to 1e3 times the trace of a typical information, or matrices in the units of features."""
    kind = rng.choice(["none", "ridge", "matrix", "held"], p=[0.35, 0.4, 0.15, 0.1])
    if kind == "none":
        return None
    rows = np.where(exists[..., None], features, 0).astype(np.float64)
    rows = rows - rows.mean(axis=1, keepdims=True)
    share = 10.0 ** rng.uniform(-12, 3)
    if kind == "ridge":
        trace = total / 4 * 2 * (rows**2).sum() / max(exists.sum(), 1)
        return float(max(share * trace, 1e-300))
    powers = 2.0 ** np.rint(np.log2(units))
    scale = 2.0 ** np.rint(np.log2(share * total))
    rank = None if kind == "matrix" else int(rng.integers(1, len(units) + 1))
    return scale * exact_psd(rng, powers, rank)


def draw_targets(rng, criterion: str, units) -> np.ndarray | None:
    dim = len(units)
    if criterion in ("logdet", "own"):
        return None
    if criterion == "trace":
        return (np.eye(dim) if rng.random() < 0.5 else exact_psd(rng, units))[None]
    if criterion == "low_rank":
        return exact_psd(rng, units, rank=int(rng.integers(1, dim + 1)))[None]
    if criterion == "ill":
        return exact_psd(rng, units, spread=36)[None]
    ranks = [None, int(rng.integers(1, dim + 1)), int(rng.integers(1, dim + 1))]
    return np.array([exact_psd(rng, units, rank) * 2.0 ** rng.integers(-3, 4) for rank in ranks])
