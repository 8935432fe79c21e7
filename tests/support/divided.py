"""Pools divided over virtual devices in several ways."""

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxdesign import CompletionPool

# shape of the mesh, its axes, and those along which prompts are divided
LAYOUTS = {
    "one axis": ((4,), ("data",), "data"),
    "two axes": ((2, 2), ("data", "more"), ("data", "more")),
    "beside copies": ((2, 2), ("model", "data"), "data"),
}
COMPLETIONS, DIM = 6, 5


def pool_of(prompts, *, scored=False, draws=1, dtype=np.float32, seed=0):
    """Ragged, with copies, with prompts that have one completion."""
    rng = np.random.default_rng(seed)
    shape = prompts, COMPLETIONS
    features = rng.standard_normal((*shape, DIM)) * np.exp(rng.standard_normal((prompts, 1, 1)) / 2)
    features[:, 5] = features[:, 3]
    mask = (
        np.arange(COMPLETIONS)[None]
        < np.where(np.arange(prompts) % 3, COMPLETIONS, 1 + np.arange(prompts) % 4)[:, None]
    )
    if not scored:
        return CompletionPool(features.astype(dtype), mask=mask)
    scores = rng.standard_normal(shape if draws == 1 else (draws, *shape)).astype(np.float32)
    return CompletionPool(features.astype(dtype), scores, mask, flip=rng.uniform(0, 0.3, prompts).astype(np.float32))


def divided(pool, layout, kind):
    """The pool over four devices, as `LAYOUTS` says, on axes of a kind."""
    shape, names, axes = LAYOUTS[layout]
    mesh = jax.make_mesh(shape, names, (kind,) * len(names))

    def put(leaf, before=0):
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*[None] * before, axes)))

    scores = None if pool.scores is None else put(pool.scores, pool.scores.ndim - 2)
    flip = None if pool.flip is None else put(pool.flip)
    return CompletionPool(put(pool.features), scores, put(pool.mask), flip=flip)
