"""What earlier passes say of later ones: no pair of a prompt has a larger sensitivity than this.

Let b_e(G) = mean_r c_re z_e^T G_r z_e and G'_r <= lambda G_r for every draw. Then b_e(G') <= lambda b_e(G) for every
pair, so that the largest sensitivity of a prompt at G, times lambda, bounds that at G'. Near an optimum lambda is near
1, and few prompts have pairs that come close to what the best ones reach: only those need to be priced again.

lambda is that of `growth`, which holds for factors as stored, rounding included.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

EPS = float(np.finfo(np.float64).eps)


class Ceilings(NamedTuple):
    """Bounds on the sensitivities of each prompt, and at which factors they were found.

    Args:
        upper: (P,) no pair of the prompt is above it at its own factors; inf where nothing is known.
        found: (P,) which factors those are.
        factors: F, (R, d, q) float64, of the passes that some bound comes from.
        mattered: prompts whose bound reached what the last pass looked for.
    """

    upper: Float[np.ndarray, " p"]
    found: Int[np.ndarray, " p"]
    factors: tuple[Float[np.ndarray, "r d q"], ...]
    mattered: int = 0


def no_ceilings(prompts: int) -> Ceilings:
    """Nothing is known."""
    return Ceilings(np.full(prompts, np.inf), np.zeros(prompts, np.int64), ())


def ceilings_at(known: Ceilings, factors: Float[np.ndarray, "r d q"]) -> Float[np.ndarray, " p"]:
    """(P,) bounds at other factors."""
    if not known.factors:
        return known.upper
    grown = np.array([growth(old, factors) for old in known.factors])[known.found]
    with np.errstate(invalid="ignore"):  # 0 inf: nothing is known
        bounds = known.upper * grown
    return np.where(np.isnan(bounds), np.inf, bounds)


def with_ceilings(
    known: Ceilings, prompts: Int[np.ndarray, " m"], upper: Float[np.ndarray, " m"], factors: Float[np.ndarray, "r d q"]
) -> Ceilings:
    """The same, with what a pass at some factors found for some prompts; factors of no bound are let go."""
    everywhere, found = known.upper.copy(), known.found.copy()
    everywhere[prompts], found[prompts] = upper, len(known.factors)
    every = (*known.factors, factors)
    used = np.bincount(found, minlength=len(every)) > 0
    found = (np.cumsum(used) - 1)[found]
    return Ceilings(everywhere, found, tuple(f for f, kept in zip(every, used, strict=True) if kept), known.mattered)


def growth(old: Float[np.ndarray, "r d q"], new: Float[np.ndarray, "r d k"]) -> float:
    """lambda with |z new_r|^2 <= lambda |z old_r|^2 for all z and draws; inf where none is found.

    With X about old^-1, M = X new and the residual N = new - old M, exactly, z new = (z old) (M + old^-1 N), and
    old^-1 N = (I - E)^-1 X N for E = I - X old. So lambda = (|M|_2 + 2 |X N|_F)^2 where |E|_F <= 1/2. N and E are
    computed with errors of at most (d + 4) u times products of absolute values, which are added.

    Source: derived; checked by tests/pricing/test_ceilings.py against exact ratios.
    """
    dim = old.shape[-1]
    if (
        old.shape[-2] != dim
        or old.shape[-2:] != new.shape[-2:]
        or not (np.isfinite(old).all() and np.isfinite(new).all())
    ):
        return np.inf
    try:
        inverse = np.linalg.inv(old)
    except np.linalg.LinAlgError:
        return np.inf
    unit = (dim + 4) * EPS / 2
    M = inverse @ new
    E = np.eye(dim) - inverse @ old
    defect = _norm(E) + unit * _norm(np.abs(inverse) @ np.abs(old) + np.eye(dim))
    N = new - old @ M
    rest = _norm(inverse @ N) + 2 * unit * _norm(np.abs(inverse) @ (np.abs(old) @ np.abs(M) + np.abs(new) + np.abs(N)))
    if not (defect <= 0.5).all():  # NaN too
        return np.inf
    size = np.sqrt(np.linalg.eigvalsh(M.swapaxes(-1, -2) @ M)[..., -1] * (1 + 8 * dim * dim * EPS))
    return float(np.max((size + 2 * rest) ** 2) * (1 + 16 * EPS))


def _norm(matrix):
    return np.linalg.norm(matrix, axis=(-2, -1))
