"""Scores of completions from a reward parameter: u = phi . w, less the mean of each prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from jaxdesign import _arrays
from jaxdesign._arrays import AnyArray
from jaxdesign.pool import CompletionPool, centred_features, unchecked_pool


def scored_pool(pool: CompletionPool, parameters: Float[AnyArray, "*r d"]) -> CompletionPool:
    """The pool with scores u = phi . w: (P, K), or (R, P, K) for R parameters, over which criteria then average.

    The mean of each prompt is taken off, in float64 and before scores are rounded to float32, so that margins keep
    their digits; only differences within a prompt mean anything.

    Args:
        pool: any pool; scores it has are replaced.
        parameters: w, (d,) or (R, d).

    Returns:
        CompletionPool with float32 scores, in the unit of the reward.

    Raises:
        ValueError: parameters or scores that are not finite.

    Source: derived; checked by tests/preference/fit/test_posterior.py.
    """
    parameters, mask = np.asarray(parameters, np.float64), np.asarray(pool.mask)
    all_finite(parameters, "parameters")
    scores = np.einsum("pkd,...d->...pk", np.asarray(pool.features, np.float64), parameters, optimize=True)
    means = np.sum(scores, axis=-1, where=mask, keepdims=True) / np.maximum(mask.sum(axis=-1, keepdims=True), 1)
    scores = np.where(mask, scores - means, 0).astype(np.float32)
    return CompletionPool(pool.features, scores, mask, pool.ids, pool.flip, pool.residual)


def scored_where_it_lies(pool: CompletionPool, parameter: Any) -> CompletionPool:
    """The same for one w of a pool that is traced, or divided over devices: no feature leaves its device; unchecked."""
    rows = centred_features(pool)
    scores = _arrays.contract("pkd,d->pk", rows, _arrays.replicated(parameter).astype(rows.dtype))
    return unchecked_pool(pool.features, scores, pool.mask, pool.flip, pool.residual, pool.ids)


def all_finite(parameters: np.ndarray, name: str) -> None:
    """ValueError that names the first entry that is not finite."""
    if not np.isfinite(parameters).all():
        place = np.argwhere(~np.isfinite(parameters))[0].tolist()
        raise ValueError(f"{name}: {parameters[tuple(place)]} at {place}; must be finite")
