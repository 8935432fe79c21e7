"""A matrix B >= P at which few pairs look worth much: what makes the LogDet bound on whole labels tight.

With any B >= P in place of the prior P the bound of `certificates.whole` stays true, and where a few directions lie in
the best pairs of many prompts, lifting the prior there costs little and makes all these pairs worth less. To be
minimised is

    F(B) = log det B + max over labels n of sum_e log(1 + n_e l_e(B)),     l_e(B) = c_e z_e^T B^-1 z_e.

For given labels F is, in G = B^-1, convex plus concave: -log det G + sum_e log(1 + n_e l_e). The tangent of the second
part at the last G has the matrix T = sum_e n_e c_e z_e z_e^T / (1 + n_e l_e), and the minimum of -log det G + tr(T G)
over G <= P^-1 is, in coordinates where P = I and T = U diag(t) U^T, B = U diag(max(1, t)) U^T. Labels and T are
averaged over the steps, because the best labels change with B.

Nothing rests on how near to the minimum this comes: the bound is computed afresh at the B that is found.

Source: derived; checked by tests/certificates/test_whole_bound_formulas.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign.budget.limits import Limits
from jaxdesign.certificates.label_sums import largest_sum, log_increments

STEPS = 20


class Lift(NamedTuple):
    """B = U diag(t) U^T per draw, in coordinates where P = I."""

    vectors: Float[np.ndarray, "r d d"]
    spectrum: Float[np.ndarray, "r d"]  # at least 1

    def leverages(self, rows: Float[np.ndarray, "r s d"], c: Float[np.ndarray, "r s"]) -> Float[np.ndarray, " s"]:
        """c y^T B^-1 y, averaged over draws."""
        forms = np.sum((rows @ self.vectors) ** 2 / self.spectrum[:, None], axis=-1)
        return np.mean(c * forms, axis=0)

    def matrix(self, roots: Float[np.ndarray, "r d d"]) -> Float[np.ndarray, "r d d"]:
        """B in the coordinates of the features, for roots F with F P F^T = I."""
        back = np.linalg.inv(roots) @ self.vectors
        return (back * self.spectrum[:, None]) @ back.swapaxes(-1, -2)


class Lifted(NamedTuple):
    """The best B found."""

    lift: Lift
    value: float  # of F, were there no other pairs


def no_lift(draws: int, dim: int) -> Lift:
    """B = P."""
    return Lift(np.broadcast_to(np.eye(dim), (draws, dim, dim)), np.ones((draws, dim)))


def lifted(
    limits: Limits,
    pairs: Int[np.ndarray, "s 3"],
    rows: Float[np.ndarray, "r s d"],
    c: Float[np.ndarray, "r s"],
    start: Lift,
) -> Lifted:
    """Search for the B with the smallest F over some pairs.

    Args:
        limits: whole caps; those of `label_sums.largest_sum` for pairs, not rows.
        rows: y = F z for roots with F P F^T = I, per draw.
        c: information of a label of each pair.
        start: where to begin.

    Complexity: STEPS times 2 S d^2 + 10 d^3 floating-point operations for each draw.
    """
    caps = np.minimum(limits.per_pair[pairs[:, 0]], limits.total)
    ones, counts = limits._replace(per_pair=np.minimum(limits.per_pair, 1)), np.zeros(len(limits.per_pair))
    wanted = int(min(limits.total, len(pairs))) - 1
    lift, tangent, best = start, 0.0, None
    for step in range(STEPS):
        leverages = lift.leverages(rows, c)
        least = -np.partition(-leverages, wanted)[wanted] if wanted < len(pairs) - 1 else 0.0
        found = log_increments(caps, leverages, least)
        sums = largest_sum(ones, counts, pairs[found.of], found.worth, 0.0)
        value = float(np.mean(np.sum(np.log(lift.spectrum), axis=-1))) + sums.value
        if best is None or value < best.value:
            best = Lifted(lift, value)
        weights = c * np.bincount(found.of, sums.labels * found.slope, len(pairs))
        share = 2 / (step + 2)
        tangent = (1 - share) * tangent + share * ((rows * weights[..., None]).swapaxes(-1, -2) @ rows)
        spectrum, vectors = np.linalg.eigh(tangent)
        lift = Lift(vectors, np.maximum(spectrum, 1.0))
    assert best is not None  # STEPS is positive
    return best
