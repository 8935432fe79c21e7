"""Arrays made on the device itself: gigabytes would take longer to copy there than to measure."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import jaxdesign as jd


@partial(jax.jit, static_argnames=("shape", "dtype"))
def normal(shape: tuple[int, ...], dtype=jnp.float32, seed: int = 0) -> jax.Array:
    """Standard normal entries."""
    return jax.random.normal(jax.random.key(seed), shape, dtype)


@partial(jax.jit, static_argnames=("prompts", "completions", "dim"))
def _heavy_tailed(prompts, completions, dim):
    one, two = jax.random.split(jax.random.key(0))
    scale = jnp.abs(jax.random.t(one, 3.0, (prompts, 1, 1)))
    return jax.random.normal(two, (prompts, completions, dim)) * scale


def heavy_tailed(prompts: int, completions: int, dim: int) -> jd.CompletionPool:
    """A pool of the law of `bench.pools.heavy_tailed`, (P, K, d) float32."""
    return jd.CompletionPool(_heavy_tailed(prompts, completions, dim))


def factor(dim: int) -> np.ndarray:
    """F (1, d, d) float32 with F F^T = I + 0.1 1 1^T: a G that is neither diagonal nor badly conditioned."""
    return np.linalg.cholesky(np.eye(dim) + 0.1).astype(np.float32)[None]
