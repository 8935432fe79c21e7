# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3

# %% [markdown]
# # When numbers go wrong
#
# Singular information, NaN, float32, units, time spent compiling, memory: what each looks like, why, and what to do.
# Errors name the argument, what was found and what is allowed; statuses are sentences. Read them first: most of this
# page only says more slowly what they say.

# %%
import time

import jax
import numpy as np

import jaxdesign as jd

rng = np.random.default_rng(0)
features = rng.standard_normal((30, 6, 6)).astype("float32")
pool, budget = jd.CompletionPool(features), jd.Budget(40, per_pair=1)


def told(function):
    """The error a call ends with."""
    try:
        function()
    except (ValueError, TypeError) as error:
        print(f"{type(error).__name__}: {error}")


# %% [markdown]
# ## Singular information
#
# Without a prior, labels must tell about every direction of the features. Real features have directions in which no two
# completions of a prompt differ (dead units, padded columns, columns that are sums of others), and then nothing can.

# %%
dead = jd.CompletionPool(np.concatenate([features, 2 * features[..., :1]], axis=-1))
told(lambda: jd.optimize(dead, jd.LogDet(), budget))

# %% [markdown]
# - `restrict_to_range` drops what no label can tell. Targets and priors are carried over as $B^T H B$. Nearly always
#   right.
# - A ridge says what is known beforehand ([choosing](choosing.ipynb)); the message has a number to begin with.
#
# Whole labels, fewer than dimensions, are singular whatever the pool is, and only a prior helps.

# %%
restricted, basis = jd.restrict_to_range(dead)
print(f"rank {restricted.dim} of {dead.dim}:", jd.optimize(restricted, jd.LogDet(), budget).status)
told(lambda: jd.select_pairs(pool, jd.LogDet(), jd.Budget(4, per_pair=1)))

# %% [markdown]
# An allocation of your own that is singular is no error: `evaluate` says that its value is infinite and that nothing is
# proven.

# %%
few = jd.evaluate(pool, jd.LogDet(), jd.Budget(2), [[0, 0, 1], [0, 1, 2]], [1, 1]).certificate
print(few)

# %% [markdown]
# `Status.ILL_CONDITIONED` is the neighbour of singular: regular, but float64 cannot tell the criterion any better. Its
# sentence names the remedies, a larger ridge or a larger `rtol` of `restrict_to_range`. The certificate counts that
# rounding and holds.
#
# ## NaN
#
# A NaN in a completion that exists is refused, with its place. Under a mask anything may stand.

# %%
broken = features.copy()
broken[3, 2, 1] = np.nan
told(lambda: jd.CompletionPool(broken))
print(jd.CompletionPool(broken, mask=np.isfinite(broken).all(axis=-1)))

# %% [markdown]
# Inside of `jit` values cannot be looked at: check pools once outside. A NaN that appears there usually is a score:
# $\log \pi / \pi_{ref}$ of a completion whose probability is 0 under both.
#
# ## float32
#
# Passes over the pool run in float32 (float64 for float64 features with x64 on), the d x d algebra and every
# certificate in float64, whatever JAX's flag; no global switch is touched. So certificates are about the features as
# stored. Where x64 is off, float64 features are stored as float32, less an offset that all completions of a prompt
# share, which no pair sees. Without that, embeddings that share most of their norm would lose the digits that matter:

# %%
shared = 1e5 * rng.standard_normal((30, 1, 6)) + 1e-2 * features.astype("float64")
kept = jd.CompletionPool(shared)
lost = jd.CompletionPool(shared.astype("float32"))  # rounded before the pool could see the offset
truth = jd.optimize(pool, jd.LogDet(), budget, prior=1e-3)
for name, given in (("float64 handed over", kept), ("float32 handed over", lost)):
    design = jd.optimize(given, jd.LogDet(), budget, prior=1e-7)  # 100 times smaller, the ridge 10^4 times
    found = jd.evaluate(pool, jd.LogDet(), budget, design.pairs, design.labels, prior=1e-3)
    print(f"{name}: {found.certificate.efficiency:.4f} of the best, by the true features")

# %% [markdown]
# So hand float64 over, or centre each prompt's features yourself, before anything casts them. Half precision is
# accepted, and is rounded already: what its last bits leave of a dead column is not a dimension, and
# `restrict_to_range` knows.
#
# How small a gap can be proven? With float32 features a relative gap of $10^{-6}$ is ordinary; where passes no longer
# reduce the gap the status is `PRECISION_LIMIT`. For choosing pairs `tol=1e-3`, the default, is enough.

# %%
design = jd.optimize(pool, jd.LogDet(), budget, tol=1e-6)
print(f"{design.certificate.relative_gap():.1e} in {design.passes} passes. {design.status}")
hasty = jd.optimize(pool, jd.LogDet(), budget, tol=1e-6, max_passes=2)
print(f"{hasty.certificate.relative_gap():.1e} in {hasty.passes} passes. {hasty.status}")

# %% [markdown]
# `design.trace` has value, bound and seconds after every pass; `callback=print` shows them as they come.
#
# ## Units
#
# Units of features do not matter, column by column, as long as prior and target are in the same ones: pools are solved
# in units in which every column has a spread of about 1. In float32 that holds for sizes from 2^-60 to 2^60.

# %%
for unit in (2.0**-40, 1.0, 2.0**40):
    other = jd.CompletionPool(features * np.float32(unit))
    value = jd.optimize(other, jd.Trace(jd.policy_target(other)), budget, prior=1e-3 * unit**2).certificate
    print(f"features times {unit:.0e}: tr(H A^-1) {value.value:.6f}, efficiency {value.efficiency:.6f}")

# %% [markdown]
# A ridge that is not scaled along is another problem, and that is how units go wrong: 1e-3 is nothing for features of
# size 100, and all there is for features of size 0.01.
#
# ## Compile time
#
# A first call compiles, for seconds up to half a minute; later calls on pools of the same shapes do not, whatever the
# values, the prior or the budget's numbers. What compiles anew: another shape (prompts, completions, dimension, draws),
# another kind of criterion or budget (caps or none, quotas or none), scores or flips where there were none.

# %%
for name, total in (("first call of its shapes", 41), ("another total and prior", 55)):
    began = time.perf_counter()
    jd.optimize(jd.CompletionPool(features[:, :5]), jd.LogDet(), jd.Budget(total, per_pair=1), prior=total / 1e3)
    print(f"{name}: {'under a second' if time.perf_counter() - began < 1 else 'a second or more'}")

# %% [markdown]
# - **Between processes**: JAX's compilation cache. The `jaxdesign` command switches it on by itself; in Python set
#   `JAX_COMPILATION_CACHE_DIR` and `JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0` before `import jax`.
# - **Many shapes**: pad pools to a few shapes with `mask`, which changes no result.
# - **Very many shapes in one process**: JAX keeps every program it compiled, and Linux ends a process that has more
#   than 65,530 memory maps (about 2,000 a shape, if all functions are used on it). Beyond some twenty shapes call
#   `jax.clear_caches()` in between.
#
# ## Memory
#
# Pairs are never materialised: what is held is the features, once on the device, chunks of a pass, and d x d matrices.
# 10 million pairs (84,000 x 16, d = 64) took 2.4 times the memory of their features, the pool's own copy included
# ([bench/README.md](../bench/README.md)). What takes more:
#
# | what | memory beside the features |
# |---|---|
# | `pair_sensitivities`, `pair_information`'s weights, `frank_wolfe`, `multiplicative` | P K^2 numbers a matrix: allocations are dense there |
# | `greedy` | P K^2 numbers, twice that for `Trace`, times the draws |
# | `annotators=` | what is kept of prompts and pairs, not the features, once per annotator |
# | `baselines.random` | 40 bytes a pair |
# | scores with R draws | R P K numbers, and R d x d matrices |
#
# Whole labels need the pool in one host's memory, or in the device's; real-valued designs can read it chunk by chunk
# from wherever it is ([extending](extending.ipynb) has a source that reads a file). To take up less: fewer dimensions
# (`restrict_to_range` with a larger `rtol`, or a random projection), float16 features, fewer completions a prompt.

# %%
big = jd.CompletionPool(rng.standard_normal((4000, 16, 32), dtype=np.float32))
print(
    f"{4000 * 16 * 15 // 2:,} pairs; features {big.features.nbytes / 2**20:.0f} MiB, all differences would be", end=" "
)
print(f"{4000 * 16 * 15 // 2 * 32 * 4 / 2**20:.0f} MiB")
print("devices:", jax.devices()[0].platform, "-", jd.optimize(big, jd.LogDet(), jd.Budget(500)).status)
