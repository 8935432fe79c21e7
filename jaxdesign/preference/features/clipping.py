"""Features whose longest rows are shortened: a guard against features that promise more than the reward keeps."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdesign import _arrays
from jaxdesign.pool import CompletionPool, centred_features, with_features


class ClippedRows(NamedTuple):
    """What `clip_rows` made.

    Args:
        pool: the pool with clipped features; scores, mask, flips and ids are those that were given.
        length: the length that rows were shortened to, in the unit of the features; pass it to clip other pools alike.
        shortened: share of the rows that were longer.
    """

    pool: CompletionPool
    length: float
    shortened: float


def clip_rows(pool: CompletionPool, quantile: float = 0.25, *, length: float | None = None) -> ClippedRows:
    """phi_pk <- phi_pk min(1, r / |phi_pk|), phi centred within each prompt, r a quantile of the norms of all rows.

    Designs ask about the longest differences of features. Where the reward does not grow in proportion to them (long
    rows of a language model are completions of another format, say) such pairs teach less than they promise, and pull
    the fit. Where the signal is in the long rows, clipping throws it away: `length_slopes` tells from a pilot which
    features are right. Train, fit and evaluate in the same features: pass `length` for pools of other prompts.

    Args:
        pool: any pool of concrete arrays; reduce its features first (to principal components, say), since norms are
            taken in the coordinates that are given.
        quantile: of the norms of the existing rows, in (0, 1]: 1 changes nothing but the centring.
        length: r where it is known, from another pool; None: the quantile of this one.

    Returns:
        ClippedRows. Features are float32 (float64 for float64 features), rows that are not shortened centred alone.

    Raises:
        TypeError: traced features. ValueError: a quantile out of range, a length that is not positive and finite, no
            row that differs from the mean of its prompt.

    Numerics: means and norms in float64.
    Source: derived (bounded influence, as in Krasker and Welsch 1982, doi:10.1080/01621459.1982.10477855, applied to
    the rows of a design); checked by tests/preference/features/test_clipping.py.
    """
    if _arrays.is_traced(pool):
        raise TypeError("pool: traced features; clip rows outside of jit, where their quantile is a number")
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile={quantile:g}: must be above 0 and at most 1")
    if length is not None and not (np.isfinite(length) and length > 0):
        raise ValueError(f"length={length:g}: must be positive and finite; None takes the quantile of this pool")
    with _arrays.float64():
        rows = centred_features(pool, jnp.float64)
        norms = np.asarray(jnp.linalg.norm(rows, axis=-1))
    there = np.asarray(pool.mask) & (norms > 0)
    if not there.any():
        raise ValueError("pool: no completion differs from the others of its prompt, so there is nothing to clip")
    radius = float(np.quantile(norms[there], quantile)) if length is None else float(length)
    factor = np.minimum(1, radius / np.where(there, norms, radius))
    with _arrays.float64():
        features = (rows * factor[..., None]).astype(_arrays.compute_dtype(pool.features.dtype))
    return ClippedRows(with_features(pool, features), radius, float(np.mean(factor[there] < 1)))
