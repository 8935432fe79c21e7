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
# # Selecting inside a training step
#
# In online DPO every step samples completions from the current policy, asks for a few labels, and trains on them. Which
# pairs of the fresh completions? Here the choice is part of the compiled step: features, pool, pairs, labels, loss and
# update are one program, under `jit`, `scan` and `vmap`. Where prompts and parameters are divided over several devices,
# it is the same program: [a training step on several devices](sharded_training.ipynb).

# %%
import sys
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxdesign as jd
from jaxdesign import preference as pf

sys.path.insert(0, "..")  # bench, which names and colours the rules, is in the checkout and not in the package
from bench.rules import look

# %% [markdown]
# ## What can be traced
#
# | inside `jit`, `vmap`, `scan` | on the host |
# |---|---|
# | `CompletionPool`, `policy_target`, `pair_information`, `pair_sensitivities`, `pair_differences`, `label_information`, `held_information`, `second_moment` | `optimize`, `select_pairs`, `evaluate`, `label_curve` |
# | `greedy`: whole labels, with `per_pair`, `per_prompt`, `exclude`, information held | `restrict_to_range`, whose result's shape depends on values |
# | `solvers.frank_wolfe`, `solvers.multiplicative`: real-valued allocations with a certificate | `baselines`, rounds, stores, files |
# | the losses of `preference` | budgets that tie prompts together: quotas, spend, minima |
#
# Everything traced has static shapes: `size` of `greedy` is a Python number, and where no pair is left rows are `(0, 0,
# 0)` with label 0. Values are not looked at inside of `jit`, so NaN is not refused there: check what you pass in once,
# outside. The host functions say so where they meet a tracer:

# %%
pool = jd.CompletionPool(np.random.default_rng(0).standard_normal((4, 6, 3)).astype("float32"))
try:
    jax.jit(lambda pool: jd.select_pairs(pool, jd.LogDet(), jd.Budget(4)).labels)(pool)
except TypeError as error:
    print(error)
pairs, labels = jax.jit(partial(jd.greedy, size=3, per_prompt=1, prior=0.1))(pool, jd.LogDet())
print(pairs.tolist(), labels.tolist())

# %% [markdown]
# ## A world to train in
#
# A policy $\pi_\theta(y|x) \propto \exp(\theta \cdot \phi(x, y))$ over an embedding $\phi$; for a network take $\phi$
# from the step's own forward pass (the last hidden state) or from projected gradients. A step sees 8 prompts with 6
# completions each; some completions are far longer vectors than others, and some directions far larger, as in real
# embeddings. People compare by a reward $\phi \cdot w$ that nobody sees.

# %%
PROMPTS, COMPLETIONS, DIM, BETA, STEPS = 8, 6, 12, 0.5, 30
SCALES = jnp.geomspace(2.0, 0.3, DIM)


def fresh(key):
    """Features of this step's completions, (P, K, d)."""
    tail, rows = jax.random.split(key)
    length = jnp.abs(jax.random.t(tail, 3.0, (PROMPTS, COMPLETIONS, 1)))
    return length * jax.random.normal(rows, (PROMPTS, COMPLETIONS, DIM)) * SCALES


# %% [markdown]
# ## The step
#
# 1. **Pool.** Fresh features, and the policy's own rewards $u = \beta \theta \cdot \phi$ as scores, so that pairs whose
#    answer the policy knows already count for less.
# 2. **Pairs.** `greedy` for one label on each of `SIZE` prompts, given the information of all labels before: `held` is
#    carried from step to step. With `Trace(policy_target(pool, pool.scores / BETA))` instead of `LogDet()` the pairs
#    are those that help the policy on this step's prompts most.
# 3. **Labels.** Here simulated; in earnest the step ends here, and a second one begins when people have answered.
# 4. **Information** of the new labels, at the margins of this step, added to what is held.
# 5. **Loss** of this step's labels, and an update: here the gradient divided by the information that is carried anyway
#    (of $\beta\theta$, hence the $\beta^2$), for a network the optimiser you have.

# %%
SIZE = 4


def chosen_by_design(key, pool, held):
    return jd.greedy(pool, jd.LogDet(), size=SIZE, per_prompt=1, prior=held)


def chosen_at_random(key, pool, held):
    prompts, rows = jax.random.split(key)
    p = jax.random.permutation(prompts, PROMPTS)[:SIZE]
    two = jax.vmap(lambda k: jnp.sort(jax.random.permutation(k, COMPLETIONS)[:2]))(jax.random.split(rows, SIZE))
    return jnp.concatenate([p[:, None], two], axis=1).astype(jnp.int32), jnp.ones(SIZE, jnp.float32)


def loss(theta, pool, pairs, labels, first):
    """DPO on the labelled pairs: log-probabilities of the chosen and the rejected completion."""
    p, i, j = pairs.T
    log_pi = jax.nn.log_softmax(pool.features @ theta)  # the reference policy is uniform
    chosen, rejected = jnp.where(first, log_pi[p, i], log_pi[p, j]), jnp.where(first, log_pi[p, j], log_pi[p, i])
    even = jnp.zeros_like(chosen)
    return labels @ pf.dpo_loss(chosen, rejected, even, even, beta=BETA)


def step(choose, w, state, key):
    theta, held = state
    sample, select, answer = jax.random.split(key, 3)
    features = fresh(sample)
    pool = jd.CompletionPool(features, scores=BETA * features @ theta)
    pairs, labels = choose(select, pool, held)
    p, i, j = pairs.T
    margin = (features[p, i] - features[p, j]) @ w
    first = jax.random.uniform(answer, margin.shape) < jax.nn.sigmoid(margin)
    held = held + jd.held_information(pool, pairs, labels)
    theta = theta - jnp.linalg.solve(held, jax.grad(loss)(theta, pool, pairs, labels, first)) / BETA**2
    return (theta, held), gap(theta, w)


def gap(theta, w):
    """Policy gap on prompts that are never labelled, against the best policy for w."""
    features = fresh(jax.random.key(10_000))
    best, found = (jax.nn.log_softmax(features @ x) for x in (w / BETA, theta))
    return BETA * jnp.mean(jnp.sum(jnp.exp(found) * (found - best), axis=-1))


# %% [markdown]
# ## A whole run is one program
#
# `scan` over steps and `map` over seeds: 32 runs of 30 steps, each with its own reward, compiled once for each way of
# choosing. (Why not `vmap` over seeds? See the end of the page.)


# %%
@partial(jax.jit, static_argnums=0)
def runs(choose, seeds):
    def run(seed):
        key, reward = jax.random.split(jax.random.key(seed))
        w = jax.random.normal(reward, (DIM,)) / SCALES / DIM**0.5
        start = jnp.zeros(DIM), 0.5 * jnp.eye(DIM)
        return jax.lax.scan(partial(step, choose, w), start, jax.random.split(key, STEPS))[1]

    return jax.lax.map(run, seeds)


seeds = jnp.arange(32)
figure, axis = plt.subplots(figsize=(6, 3.6))
gaps = {}
for rule, choose in (("random", chosen_at_random), ("logdet", chosen_by_design)):
    gaps[rule] = np.asarray(runs(choose, seeds))
    mean, error = gaps[rule].mean(axis=0), gaps[rule].std(axis=0) / len(seeds) ** 0.5
    axis.errorbar(SIZE * np.arange(1, STEPS + 1), mean, error, capsize=2, **look(rule))
axis.set(xlabel="labels", ylabel="policy gap", yscale="log")
axis.legend()
figure.tight_layout()
last = {rule: found[:, -1].mean() for rule, found in gaps.items()}
print(f"mean gap after {SIZE * STEPS} labels: " + ", ".join(f"{look(r)['label']} {x:.3f}" for r, x in last.items()))

# %% [markdown]
# Bars are standard errors over seeds. The two runs share prompts and rewards, not labels.
#
# ## Many small pools at once
#
# Where each microbatch or device has a pool of its own, `vmap` the choice rather than looping over it (bench/README.md
# has both measured). Pools of a batch must have one shape; `mask` makes ragged ones alike.

# %%
batch = jnp.stack([fresh(key) for key in jax.random.split(jax.random.key(1), 32)])
many = jax.jit(jax.vmap(lambda features: jd.greedy(jd.CompletionPool(features), jd.LogDet(), size=4, prior=0.5)))
pairs, labels = many(batch)
print(pairs.shape, int(labels.sum()), "labels; compiled", many._cache_size(), "time")

# %% [markdown]
# ## Pairs that were labelled before, and labels that were given
#
# Where prompts come back, pass `exclude`: rows of pairs that must not be chosen, which may be traced (their number is a
# shape; repeat one of them to fill up). Information of labels on other prompts, or of earlier steps, is `prior`;
# `greedy` adds a little to a prior that is singular, so that first picks span the space.

# %%
pool = jd.CompletionPool(batch[0])
again = jax.jit(lambda pool, held, taken: jd.greedy(pool, jd.LogDet(), size=4, prior=held, exclude=taken))
held = 0.5 * jnp.eye(DIM) + jd.held_information(pool, pairs[0])
second, _ = again(pool, held, pairs[0])
print(sorted(map(tuple, pairs[0].tolist())), "then", sorted(map(tuple, second.tolist())))

# %% [markdown]
# ## How good is a greedy choice?
#
# Inside of the step there is no time for a proof. Take a step's pool out now and then and have it judged:

# %%
H = jd.policy_target(pool)
for name, crit in (("log det", jd.LogDet()), ("trace", jd.Trace(H))):
    pairs, labels = jd.greedy(pool, crit, size=16, prior=0.5)
    found = jd.evaluate(pool, crit, jd.Budget(16, per_pair=1), pairs, labels, prior=0.5)
    print(f"{name}: greedy is at least {found.certificate.efficiency:.3f} of the best 16 labels")

# %% [markdown]
# ## Two things to know
#
# **Gradients.** The choice of pairs is piecewise constant: differentiate the loss given the pairs, as above, and not
# through them.
#
# **`vmap` goes inside.** The d x d algebra of `greedy` and of the two solvers is float64 whatever JAX's x64 flag.
# `jit(vmap(...))` of a function that calls them is fine, and so are `scan` and `map`. `vmap` of something that is
# traced already, a jitted function or a `scan` that holds such a call, is not: JAX then batches the float64 program
# with the flag off and refuses it. Use `jax.lax.map` there, as above, or switch x64 on.

# %%
batched = jax.vmap(jax.jit(lambda features: jd.greedy(jd.CompletionPool(features), jd.LogDet(), size=4, prior=0.5)[0]))
with jax.enable_x64(True):
    print("with x64 on, the same pairs:", bool((batched(batch) == many(batch)[0]).all()))
