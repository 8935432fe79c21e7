"""Pricing and information kernels against a plain matrix product of the same size and against pair-by-pair forms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import peers, pools
from bench.measure import interleaved
from jaxdesign import CompletionPool
from jaxdesign.pricing import memory_source, price
from jaxdesign.solvers.dense.allocations import dense_candidates, dense_information


def kernels(prompts: int = 2048, completions: int = 32, dim: int = 256) -> dict[str, Any]:
    """Seconds and GFLOP/s; the Gram form counts 2 P K d^2 + 2 P K^2 d floating-point operations for its pass."""
    features = pools.heavy_tailed(prompts, completions, dim, seed=0)
    source = memory_source(CompletionPool(features))
    rng = np.random.default_rng(1)
    factor = np.linalg.cholesky(np.cov(rng.standard_normal((dim, 3 * dim)))).astype(np.float32)
    G = jnp.asarray(factor @ factor.T)
    rows, square = jnp.asarray(features.reshape(-1, dim)), jnp.asarray(rng.standard_normal((2048, 2048)), jnp.float32)
    weights = dense_candidates(source)
    never = np.float32(np.inf)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))
    assemble = jax.jit(dense_information)
    seconds = interleaved(
        {
            "matmul, same size (PK x d x d)": lambda: product(rows, G),
            "matmul, 2048 cubed": lambda: product(square, square),
            "pricing pass": lambda: price(source, factor[None], never),
            "information": lambda: assemble(source, weights),
            "pair by pair": lambda: peers.sensitivities_pair_by_pair(jnp.asarray(features), G),
        }
    )
    gram = 2.0 * prompts * completions * dim * (dim + completions)
    work = {
        "matmul, same size (PK x d x d)": 2.0 * prompts * completions * dim * dim,
        "matmul, 2048 cubed": 2.0 * 2048**3,
        "pricing pass": gram,
        "information": gram,
        "pair by pair": prompts * completions * (completions - 1) / 2 * (2.0 * dim * dim + 3 * dim),
    }
    for name, row in seconds.items():
        row["gflops"] = work[name] / row["median"] / 1e9
    pricing = seconds["pricing pass"]
    return {
        "problem": {"P": prompts, "K": completions, "d": dim},
        "seconds": seconds,
        "pricing_share_of_same_size_matmul": pricing["gflops"] / seconds["matmul, same size (PK x d x d)"]["gflops"],
        "pricing_share_of_square_matmul": pricing["gflops"] / seconds["matmul, 2048 cubed"]["gflops"],
        "pricing_times_faster_than_pair_by_pair": seconds["pair by pair"]["median"] / pricing["median"],
    }
