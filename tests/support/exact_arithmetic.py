"""Criteria of integer features in exact rational arithmetic: what float64 results are held against."""

from fractions import Fraction
from math import log

import numpy as np


def information(features, pairs, labels, ridge):
    """A = ridge I + sum n / 4 z z^T as rows of fractions; features are floats, taken as they are, c = 1/4."""
    dim = features.shape[-1]
    A = [[Fraction(ridge) if i == j else Fraction(0) for j in range(dim)] for i in range(dim)]
    for (p, i, j), n in zip(np.asarray(pairs).tolist(), np.asarray(labels).tolist(), strict=True):
        z = [Fraction(float(a)) - Fraction(float(b)) for a, b in zip(features[p, i], features[p, j], strict=True)]
        for k in range(dim):
            for l in range(dim):
                A[k][l] += Fraction(n) / 4 * z[k] * z[l]
    return A


def inverse_and_determinant(A):
    """Gauss-Jordan elimination of a positive definite matrix of fractions."""
    dim = len(A)
    rows = [list(row) + [Fraction(int(i == j)) for j in range(dim)] for i, row in enumerate(A)]
    determinant = Fraction(1)
    for k in range(dim):
        pivot = rows[k][k]
        determinant *= pivot
        rows[k] = [entry / pivot for entry in rows[k]]
        for i in range(dim):
            if i != k and rows[i][k]:
                factor = rows[i][k]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    return [row[dim:] for row in rows], determinant


def minus_log_det(A) -> float:
    """-log det A, correct to the last digits: the logarithm is taken of whole numbers."""
    determinant = inverse_and_determinant(A)[1]
    return log(determinant.denominator) - log(determinant.numerator)


def trace_of_inverse(A, H) -> float:
    """tr(H A^-1) for a float64 H, rounded once."""
    inverse = inverse_and_determinant(A)[0]
    return float(sum(Fraction(float(H[k][l])) * inverse[l][k] for k in range(len(A)) for l in range(len(A))))
