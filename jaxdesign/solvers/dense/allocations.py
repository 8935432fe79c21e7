"""Allocations over all pairs of a pool as (P, K, K) arrays: information, sensitivities, multiplicative steps.

Storage is K / d of the features. Traceable, chunked like pricing; only pairs i < j carry labels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdesign.information import laplacian_information, prompt_label_information
from jaxdesign.pricing.memory import MemorySource, map_chunks, open_pairs, sum_chunks
from jaxdesign.pricing.passes import chunk_sensitivities


@jax.jit
def dense_candidates(source: MemorySource) -> Float[Array, "p k k"]:
    """1 at candidate pairs i < j, else 0."""
    return _flat(map_chunks(lambda chunk, _: open_pairs(chunk).astype(source.dtype), source))


def dense_information(source: MemorySource, labels: Float[Array, "p k k"]) -> Float[Array, "r d d"]:
    """sum_e n_e c_e z_e z_e^T per draw (R = 1 without draws), in the dtype of the source."""
    labels = labels.reshape(*source.copies.shape[:2], *labels.shape[1:])

    def of_chunk(chunk, dense):
        scores = chunk.scores
        if scores is not None:
            scores = scores[None] if scores.ndim == 2 else jnp.moveaxis(scores, 1, 0)
        symmetric = (dense + jnp.swapaxes(dense, 1, 2))[None]
        info = prompt_label_information(scores, chunk.rows.dtype, chunk.flip)
        return laplacian_information(chunk.rows, symmetric, info)

    start = jnp.zeros((source.draws, *source.means.shape[-1:] * 2), source.dtype)
    start = start + 0 * source.means[0, 0, 0]  # varies like the data under shard_map and vmap
    return sum_chunks(of_chunk, source, start, labels)


def dense_sensitivities(source: MemorySource, factors: Float[Array, "r d d"]) -> Float[Array, "p k k"]:
    """b of candidate pairs i < j, 0 elsewhere; F F^T = G per draw."""

    def of_chunk(chunk, _):
        b, _ = chunk_sensitivities(chunk, factors)
        return jnp.where(open_pairs(chunk), jnp.maximum(b, 0), 0)

    return _flat(map_chunks(of_chunk, source))


def _flat(array):
    return array.reshape(-1, *array.shape[2:])
