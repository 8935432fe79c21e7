"""Greedy selection: large pools against a full update per pick, and many small pools at once against a loop."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdesign as jd
from bench import pools
from bench.measure import interleaved, timed

HIGHEST = jax.lax.Precision.HIGHEST


@partial(jax.jit, static_argnames=("size", "completions"))
def eager(features, candidates, inverse, *, size: int, completions: int):
    """The competitor: rank-one greedy for log det that updates the leverages of all pairs at every pick.

    features (P K, d) float32, centred within prompts; candidates (P, K, K); inverse (d, d) float64; c = 1/4. One
    compiled loop, pairs as differences of completions (never materialised), float32 leverages, one label a pair.
    """
    shape = (-1, completions, completions)

    def spread(y):
        y = y.reshape(-1, completions)
        return y[:, :, None] - y[:, None, :]

    product = jnp.matmul(features, inverse.astype(jnp.float32), precision=HIGHEST).reshape(
        -1, completions, inverse.shape[0]
    )
    rows = features.reshape(product.shape)
    gram = jnp.einsum("pid,pjd->pij", product, rows, precision=HIGHEST)
    own = jnp.sum(product * rows, axis=-1)
    leverage = jnp.where(candidates, (own[:, :, None] + own[:, None, :] - 2 * gram) / 4, -jnp.inf)

    def pick(t, state):
        leverage, inverse, pairs = state
        slot = jnp.argmax(leverage.reshape(-1))
        p, i, j = slot // completions**2, slot // completions % completions, slot % completions
        z = (features[p * completions + i] - features[p * completions + j]).astype(jnp.float64)
        v = inverse @ z
        s = 0.25 / (1 + 0.25 * (z @ v))
        y = spread(jnp.matmul(features, v.astype(jnp.float32), precision=HIGHEST))
        leverage = (leverage - (s / 4).astype(jnp.float32) * y * y).reshape(shape).at[p, i, j].set(-jnp.inf)
        return leverage, inverse - s * jnp.outer(v, v), pairs.at[t].set(jnp.stack([p, i, j]))

    start = (leverage, inverse, jnp.zeros((size, 3), int))
    return jax.lax.fori_loop(0, size, pick, start)[2]


def _eager(pool: jd.CompletionPool, prior: np.ndarray, size: int):
    features, mask = np.asarray(pool.features), np.asarray(pool.mask)
    mean = (features * mask[..., None]).sum(1, keepdims=True) / mask.sum(1)[:, None, None]
    rows = np.where(mask[..., None], features - mean, 0).reshape(-1, pool.dim)
    K = pool.completions
    differ = np.stack([(f[:, None] != f[None]).any(-1) for f in features])
    candidates = differ & mask[:, :, None] & mask[:, None, :] & np.triu(np.ones((K, K), bool), 1)
    with jax.enable_x64(True):
        arguments = [jnp.asarray(a) for a in (rows, candidates, np.linalg.inv(prior))]
        return lambda: eager(*arguments, size=size, completions=K)


def _value(pool: jd.CompletionPool, pairs, prior: np.ndarray) -> float:
    features = np.asarray(pool.features, np.float64)
    p, i, j = np.asarray(pairs).T
    z = features[p, i] - features[p, j]
    return float(np.linalg.slogdet(prior + z.T @ z / 4)[1])


def greedy() -> dict[str, Any]:
    """LogDet, one label a pair, prior 1e-3 (m/4) C: 5,000 picks of a real pool, 10,000 of two million pairs; vmap."""
    rows = {"two million pairs": _against(jd.CompletionPool(pools.heavy_tailed(4032, 32, 64)), 10_000)}
    features, mask, reason = pools.real_pool("alpacaeval")
    if features is None:
        rows["real"] = {"skipped": reason}
    else:
        rows["real"] = _against(jd.restrict_to_range(jd.CompletionPool(features, mask=mask))[0], 5000)
    rows |= {f"64 pools of {prompts} prompts": many(prompts=prompts) for prompts in (1, 4)}
    return {"problem": "LogDet, one label a pair, prior 1e-3 (m/4) C", "rows": rows}


def _against(pool: jd.CompletionPool, size: int) -> dict[str, Any]:
    prior = 1e-3 * size / 4 * jd.second_moment(pool)
    other = _eager(pool, prior, size)

    def ours():
        return jd.greedy(pool, jd.LogDet(), size=size, prior=prior)[0]

    def theirs():
        with jax.enable_x64(True):
            return other()

    seconds = timed(ours, 3)
    found = np.asarray(ours())
    began = time.perf_counter()  # once, compilation (a second or so) included: this takes minutes
    expected = np.asarray(theirs())
    eager_seconds = time.perf_counter() - began
    same = len(set(map(tuple, found.tolist())) & set(map(tuple, expected.tolist())))
    return {
        "shape": list(pool.features.shape),
        "picks": size,
        "seconds": seconds,
        "eager_seconds": eager_seconds,
        "speedup": eager_seconds / seconds["median"],
        "pairs_in_common": same,
        "log_det_difference": _value(pool, found, prior) - _value(pool, expected, prior),
    }


def many(number: int = 64, prompts: int = 1) -> dict[str, Any]:
    """8 labels for each of 64 pools (K = 16, d = 64): one vmapped call, a loop over jitted calls, a loop over calls."""
    features = jnp.asarray(pools.heavy_tailed(number * prompts, 16, 64).reshape(number, prompts, 16, 64))

    def choose(features):
        return jd.greedy(jd.CompletionPool(features), jd.LogDet(), size=8, prior=1.0)[0]

    together, single = jax.jit(jax.vmap(choose)), jax.jit(choose)
    seconds = interleaved(
        {
            "vmap": lambda: together(features),
            "loop over a jitted call": lambda: [single(f) for f in features],
            "loop": lambda: [choose(f) for f in features],
        },
        repeats=9,
    )
    ours = seconds["vmap"]["median"]
    return {name: row | {"times_vmap": row["median"] / ours} for name, row in seconds.items()}
