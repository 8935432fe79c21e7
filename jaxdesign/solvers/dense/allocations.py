"""Allocations over all pairs of a pool as (P, K, K) arrays: information, sensitivities, multiplicative steps.

Storage is K / d of the features, laid out by slots of the source. Traceable; only pairs i < j carry labels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxdesign.pricing.memory import MemorySource
from jaxdesign.pricing.passes import chunk_sensitivities, labelled_information
from jaxdesign.pricing.source import open_pairs


@jax.jit
def dense_candidates(source: MemorySource) -> Float[Array, "p k k"]:
    """1 at candidate pairs i < j, else 0."""
    return source.fold_slots(Partial(_candidates), None)[1]


def _candidates(chunk, carry, _):
    return carry, open_pairs(chunk).astype(chunk.rows.dtype)


def dense_information(source: MemorySource, labels: Float[Array, "p k k"]) -> Float[Array, "r d d"]:
    """sum_e n_e c_e z_e z_e^T per draw (R = 1 without draws), in the dtype of the source."""
    start = jnp.zeros((source.draws, source.dim, source.dim), source.dtype)
    start = start + 0 * source.means[0, 0, 0]  # varies like the data under shard_map and vmap
    return source.fold_slots(Partial(_add_information), start, labels)[0]


def _add_information(chunk, total, labels):
    return total + labelled_information(chunk, labels), None


def dense_sensitivities(source: MemorySource, factors: Float[Array, "r d d"]) -> Float[Array, "p k k"]:
    """b of candidate pairs i < j, 0 elsewhere; F F^T = G per draw."""
    return source.fold_slots(Partial(_sensitivities, factors), None)[1]


def _sensitivities(factors, chunk, carry, _):
    b, _ = chunk_sensitivities(chunk, factors)
    return carry, jnp.where(open_pairs(chunk), jnp.maximum(b, 0), 0)
