"""Some prompts of a source as a pool in memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxdesign import _arrays
from jaxdesign.pool import CompletionPool, bare_pool
from jaxdesign.pricing.memory import MemorySource
from jaxdesign.pricing.source import SUBSET, Source


def pool_of(source: Source, prompts: Int[np.ndarray, " m"]) -> CompletionPool:
    """Some prompts, ascending, as a pool with the features of the source, in its units; closed pairs are not."""
    length = max(SUBSET // source.completions**2, 1)
    some = [source.subset(prompts[start : start + length]) for start in range(0, len(prompts), length)]
    with _arrays.float64():
        pools = [_as_pool(part) for part in some]
        if len(pools) == 1:
            return pools[0]
        features, mask, flip = (_joined([getattr(p, name) for p in pools]) for name in ("features", "mask", "flip"))
        residual = jax.tree.map(lambda *rows: jnp.concatenate(rows), *[p.residual for p in pools])
        return bare_pool(features, mask, _joined([p.scores for p in pools], -2), flip, residual)


def _as_pool(source: MemorySource) -> CompletionPool:
    prompts = source.prompts
    exists = source.copies.reshape(-1, source.completions)[:prompts] >= 0
    if source.margins is None:
        return bare_pool(source.features, exists)
    scores, flip, residual = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:prompts], source.margins)
    if scores is not None:
        scores = jnp.moveaxis(scores, 0, 1) if scores.shape[1] > 1 else scores[:, 0]
    if flip is not None and flip.shape[1] == 1:
        flip = flip[:, 0, 0]
    return bare_pool(source.features, exists, scores, flip, residual)


def _joined(arrays, axis=0):
    return None if arrays[0] is None else jnp.concatenate(arrays, axis)
