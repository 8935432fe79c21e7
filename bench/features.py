"""Projected per-example gradients against the batched gradient, for the package's own small transformer."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bench.measure import interleaved
from jaxdesign.preference.features.projection import CHUNK, SPREAD, signs

PROMPT, COMPLETION, MICROBATCH = 12, 28, 32


def features(batches: tuple[int, ...] = (64, 256), dimensions: tuple[int, ...] = (128, 512)) -> dict[str, Any]:
    """Seconds, flops and ratios to the batched gradient of the same examples, the better of two ways to take it.

    The batched gradient is that of the summed log-probability, taken in one piece and summed over microbatches (which
    is kinder to caches); ratios are of the smallest times. The figure to reach is at most 3.
    """
    from flax import nnx

    from jaxdesign.preference.features.gradients import projected_gradients
    from jaxdesign.preference.features.nnx_policy import split_model
    from jaxdesign.preference.features.pools import Completed, _log_probability
    from jaxdesign.preference.small_model.language_model import LanguageModel, LanguageModelConfig

    config = LanguageModelConfig(characters=60, max_length=PROMPT + COMPLETION, width=96, depth=3)
    function, params = split_model(LanguageModel(config, rngs=nnx.Rngs(0)), _log_probability)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    results: dict[str, Any] = {"parameters": size, "tokens": PROMPT + COMPLETION, "microbatch": MICROBATCH}
    for count in batches:
        drawn = np.random.default_rng(count).integers(1, 61, (count, PROMPT + COMPLETION), dtype=np.int32)
        examples = Completed(jnp.asarray(drawn[:, :PROMPT]), jnp.asarray(drawn[:, PROMPT:]))
        cases = {
            "batched gradient": partial(_batched, function, params, examples),
            "batched gradient in microbatches": partial(_summed, function, params, examples),
            "per-example gradients, squared norms": partial(_norms, function, params, examples),
        }
        for dimension in dimensions:
            settings = {"dimension": dimension, "key": jax.random.key(0), "microbatch": MICROBATCH}
            cases[f"projected, D={dimension}"] = partial(projected_gradients, function, params, examples, **settings)
            cases[f"dense signs, D={dimension}"] = partial(_dense, function, params, examples, dimension)
        seconds = interleaved(cases, repeats=5)
        gradient = 6.0 * size * (PROMPT + COMPLETION) * count
        work = dict.fromkeys(cases, gradient)
        for dimension in dimensions:
            buckets = SPREAD * dimension
            work[f"projected, D={dimension}"] += 2.0 * (size + buckets * dimension) * count
            work[f"dense signs, D={dimension}"] += 2.0 * size * dimension * count
        base = min(seconds["batched gradient"]["min"], seconds["batched gradient in microbatches"]["min"])
        for name, row in seconds.items():
            row["gflops"] = work[name] / row["min"] / 1e9
            row["times_batched_gradient"] = row["min"] / base
            row["flops_over_batched_gradient"] = work[name] / gradient
        results[f"batch {count}"] = seconds
    return results


@partial(jax.jit, static_argnums=0)
def _batched(function, params, examples):
    return jax.grad(lambda params: jnp.sum(jax.vmap(function, (None, 0))(params, examples)))(params)


@partial(jax.jit, static_argnums=0)
def _summed(function, params, examples):
    def add(total, part):
        one = jax.grad(lambda params: jnp.sum(jax.vmap(function, (None, 0))(params, part)))(params)
        return jax.tree.map(jnp.add, total, one), None

    return lax.scan(add, jax.tree.map(jnp.zeros_like, params), _microbatches(examples))[0]


@partial(jax.jit, static_argnums=0)
def _norms(function, params, examples):
    def one(example):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(jax.grad(function)(params, example)))

    return lax.map(jax.vmap(one), _microbatches(examples))


@partial(jax.jit, static_argnums=(0, 3))
def _dense(function, params, examples, dimension):
    """The plain way: an N x D sign matrix, made anew for each microbatch in blocks of rows, times the gradients."""

    def one(example):
        leaves = jax.tree.leaves(jax.grad(function)(params, example))
        flat = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])
        flat = jnp.pad(flat, (0, -flat.shape[0] % CHUNK))

        def step(total, number):
            block = signs(jax.random.fold_in(jax.random.key(0), number), (CHUNK, dimension))
            return total + lax.dynamic_slice(flat, (number * CHUNK,), (CHUNK,)) @ block, None

        return lax.scan(step, jnp.zeros(dimension), jnp.arange(flat.shape[0] // CHUNK))[0] / dimension**0.5

    return lax.map(jax.vmap(one), _microbatches(examples))


def _microbatches(examples):
    return jax.tree.map(lambda a: a.reshape(-1, MICROBATCH, *a.shape[1:]), examples)
