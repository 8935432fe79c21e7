"""Allocations over all pairs of a pool as (P, K, K) arrays: information, sensitivities, multiplicative steps.

Storage is K / d of the features. Traceable, chunked like pricing; only pairs i < j carry labels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdesign.information import laplacian_information, prompt_label_information
from jaxdesign.pool import candidate_pairs
from jaxdesign.pricing.memory import MemorySource, chunk_sensitivities


@jax.jit
def dense_candidates(source: MemorySource) -> Float[Array, "p k k"]:
    """1 at candidate pairs i < j, else 0."""
    return _flat(jax.lax.map(lambda c: candidate_pairs(c).astype(source.features.dtype), source.copies))


def dense_information(source: MemorySource, labels: Float[Array, "p k k"]) -> Float[Array, "r d d"]:
    """sum_e n_e c_e z_e z_e^T per draw (R = 1 without draws), in the dtype of the source."""
    chunks, length, completions, _ = source.features.shape
    labels = labels.reshape(chunks, length, completions, completions)

    def add(total, part):
        rows, scores, dense = part
        if scores is not None:
            scores = scores[None] if scores.ndim == 2 else jnp.moveaxis(scores, 1, 0)
        label_info = prompt_label_information(scores, rows.dtype)
        symmetric = (dense + jnp.swapaxes(dense, 1, 2))[None]
        return total + laplacian_information(rows, symmetric, label_info), None

    draws = 1 if source.scores is None or source.scores.ndim == 3 else source.scores.shape[2]
    start = jnp.zeros((draws, *source.features.shape[-1:] * 2), source.features.dtype)
    start = start + 0 * source.features[0, 0, 0, 0]  # varies like the data under shard_map and vmap
    return jax.lax.scan(add, start, (source.features, source.scores, labels))[0]


def dense_sensitivities(source: MemorySource, factors: Float[Array, "r d d"]) -> Float[Array, "p k k"]:
    """b of candidate pairs i < j, 0 elsewhere; F F^T = G per draw."""

    def chunk(part):
        rows, scores, copies = part
        b, _ = chunk_sensitivities(rows, scores, factors)
        return jnp.where(candidate_pairs(copies), jnp.maximum(b, 0), 0)

    return _flat(jax.lax.map(chunk, source))


def _flat(array):
    return array.reshape(-1, *array.shape[2:])
