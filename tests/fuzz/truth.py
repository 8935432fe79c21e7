"""The independent judge: exact arithmetic on what a pool holds. It imports nothing of the library.

Features, priors, targets and labels are binary floating-point numbers, so A = prior + sum_e n_e c_e z_e z_e^T is a
matrix of integers times a power of two once c_e is: sigma'(margin) is taken with 60 digits and rounded down to a
multiple of a power of two. Determinants and adjugates by Bareiss elimination are exact; only the last division or
logarithm is rounded, to about 2e-16 relative. Conditioning plays no part.
"""

from __future__ import annotations

import decimal
import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

import numpy as np

DIGITS = decimal.Context(prec=60, Emin=-999_999_999, Emax=999_999_999)
SMALLEST = 1100  # label information below 2^-1100 counts as none


class Dyadic(NamedTuple):
    """Python integers times 2^-scale."""

    integers: np.ndarray  # dtype object
    scale: int

    @classmethod
    def of(cls, values) -> Dyadic:
        """Finite floats, exactly."""
        values = np.asarray(values, np.float64)
        mantissas, exponents = np.frexp(values)
        exponents = np.where(values == 0, 10**6, exponents) - 53
        least = int(exponents.min(initial=0))
        whole = [
            int(m * 2.0**53) << int(e - least) if m else 0 for m, e in zip(mantissas.flat, exponents.flat, strict=True)
        ]
        return cls(np.array(whole, dtype=object).reshape(values.shape), -least)


@functools.lru_cache(maxsize=100_000)
def label_information(margin: Fraction, flip: Fraction) -> Fraction:
    """[(1 - 2 eps) s']^2 / (p (1 - p)) with p = (1 - 2 eps) s + eps, 60 digits, rounded down to 2^-SMALLEST."""
    if margin == 0:
        return (1 - 2 * flip) ** 2 / 4
    u = DIGITS.divide(decimal.Decimal(margin.numerator), decimal.Decimal(margin.denominator))
    t = DIGITS.exp(-abs(u))  # in (0, 1)
    one = decimal.Decimal(1)
    slope = DIGITS.divide(t, DIGITS.power(DIGITS.add(one, t), 2))
    if flip:
        eps = DIGITS.divide(decimal.Decimal(flip.numerator), decimal.Decimal(flip.denominator))
        keep = DIGITS.subtract(one, DIGITS.multiply(2, eps))
        p = DIGITS.add(DIGITS.divide(DIGITS.multiply(keep, t), DIGITS.add(one, t)), eps)
        both = DIGITS.multiply(p, DIGITS.subtract(one, p))
        slope = DIGITS.divide(DIGITS.power(DIGITS.multiply(keep, slope), 2), both)
    if slope < decimal.Decimal(2) ** -SMALLEST:
        return Fraction(0)
    bits = 200 - int(slope.adjusted() * 3.33)
    return Fraction(math.floor(Fraction(slope) * (1 << bits)), 1 << bits)


@dataclass(frozen=True, eq=False)
class Elements:
    """Everything that can be labelled: pairs (p, i, j) with z != 0, once per annotator, with z and c exact."""

    rows: np.ndarray  # (E, 4) int: p, i, j, annotator
    z: Dyadic  # (E, d)
    c: np.ndarray  # (R, E) Fractions
    prior: Dyadic  # (R, d, d)
    dim: int

    @functools.cached_property
    def place(self) -> dict:
        """Row of an element."""
        return {tuple(row): k for k, row in enumerate(self.rows.tolist())}

    @functools.cached_property
    def weights(self) -> Dyadic:
        """c on one power of two."""
        scale = max((value.denominator.bit_length() - 1 for value in self.c.flat if value), default=0)
        if all(value.denominator & (value.denominator - 1) == 0 for value in self.c.flat):
            whole = [value.numerator << (scale - value.denominator.bit_length() + 1) for value in self.c.flat]
        else:  # flips that are no binary fractions never come up: they are floats, but 1/(p (1 - p)) may be
            scale = SMALLEST
            whole = [math.floor(value * (1 << scale)) for value in self.c.flat]
        return Dyadic(np.array(whole, dtype=object).reshape(self.c.shape), scale)


def written_out(features, scores, mask, flips, prior) -> Elements:
    """Elements of a pool.

    Args:
        features: (P, K, d) as stored. scores: (R, P, K), (P, K) or None. mask: (P, K).
        flips: (A, P) of annotators, or None.
        prior: (d, d), (R, d, d), scalar ridge or None.
    """
    features = np.asarray(features, np.float64)
    prompts, completions, dim = features.shape
    flips = np.zeros((1, prompts)) if flips is None else np.asarray(flips, np.float64)
    if scores is not None:
        scores = np.asarray(scores, np.float64)
        scores = scores[None] if scores.ndim == 2 else scores
    draws = 1 if scores is None else len(scores)
    whole = Dyadic.of(np.where(mask[..., None], features, 0))
    rows, z, c = [], [], []
    for p in range(prompts):
        for i in range(completions):
            for j in range(i + 1, completions):
                if not (mask[p, i] and mask[p, j]) or (features[p, i] == features[p, j]).all():
                    continue
                margins = [Fraction(0)] if scores is None else [
                    Fraction(float(scores[r, p, i])) - Fraction(float(scores[r, p, j])) for r in range(draws)
                ]  # fmt: skip
                for a in range(len(flips)):
                    rows.append((p, i, j, a))
                    z.append(whole.integers[p, i] - whole.integers[p, j])
                    c.append([label_information(margin, Fraction(float(flips[a, p]))) for margin in margins])
    held = np.zeros((dim, dim)) if prior is None else np.asarray(prior, np.float64)
    held = held * np.eye(dim) if held.ndim == 0 else held
    held = np.broadcast_to((held + held.swapaxes(-1, -2)) / 2, (draws, dim, dim))
    count = len(rows)
    return Elements(
        np.array(rows, np.int64).reshape(count, 4),
        Dyadic(np.array(z, dtype=object).reshape(count, dim), whole.scale),
        np.array(c, dtype=object).reshape(count, draws).T,
        Dyadic.of(held),
        dim,
    )


def information(elements: Elements, labels) -> Dyadic:
    """A of labels (E,), exactly: (R, d, d)."""
    used = np.flatnonzero(labels)
    counts = Dyadic.of(np.asarray(labels, np.float64)[used])
    z, weights, prior = elements.z, elements.weights, elements.prior
    scale = 2 * z.scale + weights.scale + counts.scale
    common = max(scale, prior.scale)
    found = []
    for r in range(len(prior.integers)):
        total = prior.integers[r] * (1 << (common - prior.scale))
        if len(used):
            factor = counts.integers * weights.integers[r, used] * (1 << (common - scale))
            total = total + (z.integers[used] * factor[:, None]).T @ z.integers[used]
        found.append(total)
    return Dyadic(np.array(found, dtype=object), common)


class Inverse(NamedTuple):
    """det and adjugate of an integer matrix; det 0 where it is not positive definite."""

    det: int
    adjugate: list


def bareiss(matrix) -> Inverse:
    """Fraction-free Gauss-Jordan elimination of [A | I]; without pivoting, since only positive minors count."""
    d = len(matrix)
    rows = [[*map(int, matrix[k]), *(int(k == l) for l in range(d))] for k in range(d)]
    previous = 1
    for k in range(d):
        pivot = rows[k][k]
        if pivot <= 0:
            return Inverse(0, [])
        for m in range(d):
            if m != k:
                factor = rows[m][k]
                rows[m] = [(pivot * x - factor * y) // previous for x, y in zip(rows[m], rows[k], strict=True)]
        previous = pivot
    return Inverse(previous, [row[d:] for row in rows])


def as_float(numerator: int, denominator: int, exponent: int) -> float:
    """numerator / denominator * 2^exponent to 2e-16, whatever their sizes; inf beyond float64."""
    if numerator == 0:
        return 0.0
    shift = 64 - (numerator.bit_length() - denominator.bit_length())
    ratio = (numerator << shift) // denominator if shift >= 0 else numerator // (denominator << -shift)
    try:
        return math.ldexp(ratio, exponent - shift)
    except OverflowError:
        return math.inf


def log_of(integer: int, exponent: int) -> float:
    """log(integer 2^exponent)."""
    top = integer.bit_length()
    return math.log(as_float(integer, 1, -top)) + (top + exponent) * math.log(2)


class Criterion(NamedTuple):
    """kind: "logdet", "trace" (one target), "worst" (several), "square" (tr A^-2); H: (T, d, d) floats."""

    kind: str
    H: np.ndarray | None = None


def value(criterion: Criterion, matrix: Dyadic) -> float:
    """The criterion of an exact information matrix, averaged over draws; inf where one is singular."""
    inverses = [bareiss(a) for a in matrix.integers]
    if any(found.det == 0 for found in inverses):
        return math.inf
    d, scale = matrix.integers.shape[-1], matrix.scale
    if criterion.kind == "logdet":
        return -math.fsum(log_of(found.det, -d * scale) for found in inverses) / len(inverses)
    if criterion.kind == "square":
        squares = [sum(x * x for row in found.adjugate for x in row) for found in inverses]
        return math.fsum(
            as_float(s, found.det**2, 2 * scale) for s, found in zip(squares, inverses, strict=True)
        ) / len(inverses)  # fmt: skip
    target = Dyadic.of(criterion.H)

    def trace(H, found):
        entries = zip(chain(*H), chain(*found.adjugate), strict=True)
        return as_float(sum(h * x for h, x in entries), found.det, scale - target.scale)

    return max(math.fsum(trace(H, found) for found in inverses) / len(inverses) for H in target.integers.tolist())


def whitening(elements: Elements, labels) -> list | None:
    """W (d, d) of Fractions with W A W^T diagonal, its entries between 1/2 and 8; None where A is singular.

    W = S L^-1 of the exact factorisation A = L D L^T (first draw), S powers of two near D^-1/2.
    """
    matrix = information(elements, labels)
    d = elements.dim
    rows = [[Fraction(int(x), 1 << matrix.scale) for x in row] for row in matrix.integers[0]]
    lower = [[Fraction(int(k == l)) for l in range(d)] for k in range(d)]
    for k in range(d):
        if rows[k][k] <= 0:
            return None
        for m in range(k + 1, d):
            factor = rows[m][k] / rows[k][k]
            if factor:
                rows[m] = [x - factor * y for x, y in zip(rows[m], rows[k], strict=True)]
                lower[m] = [x - factor * y for x, y in zip(lower[m], lower[k], strict=True)]
    sizes = [rows[k][k].numerator.bit_length() - rows[k][k].denominator.bit_length() for k in range(d)]
    return [[x * Fraction(2) ** (-(size // 2)) for x in row] for row, size in zip(lower, sizes, strict=True)]


def on_one_denominator(W) -> tuple[np.ndarray, int]:
    """Integers and their common denominator."""
    common = math.lcm(*[x.denominator for row in W for x in row])
    return np.array([[int(x * common) for x in row] for row in W], dtype=object), common


def in_coordinates(W, vectors: Dyadic) -> np.ndarray:
    """(E, d) float64: W v of each vector, every entry rounded once."""
    whole, common = on_one_denominator(W)
    return rounded(vectors.integers @ whole.T, common, -vectors.scale)


def sandwiched(W, matrices: Dyadic) -> np.ndarray:
    """(N, d, d) float64: W M W^T of each matrix, every entry rounded once."""
    whole, common = on_one_denominator(W)
    found = [rounded(whole @ matrix @ whole.T, common**2, -matrices.scale) for matrix in matrices.integers]
    return np.array(found)


def rounded(numerators, denominator: int, exponent: int) -> np.ndarray:
    """Integers over a denominator times 2^exponent as float64."""
    found = [(-1 if x < 0 else 1) * as_float(abs(int(x)), denominator, exponent) for x in numerators.flat]
    return np.array(found, np.float64).reshape(numerators.shape)
