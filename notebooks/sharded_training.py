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
# # A training step on several devices
#
# The parameters are divided over a mesh, and so are the prompts of a step. Features are computed where the prompts are,
# the pool is made of them there, and pairs are chosen without any device seeing the features of another: sample,
# features, pool, choice, batch, loss and update are one compiled program. This page builds such a step for a small
# language model, reads off the compiled program what its devices send each other, and checks that it trains as on one
# device. What can be traced at all, and how to carry the information of earlier labels from step to step, is on the
# page of [one device](training_step.ipynb).

# %%
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

import jaxdesign as jd
from jaxdesign import preference as pf

sys.path.insert(0, "..")  # bench, which reads compiled programs, is in the checkout and not in the package
from bench.exchanged import collectives

jax.config.update("jax_num_cpu_devices", 4)  # virtual devices, so that the page runs anywhere; not for real ones

# %% [markdown]
# ## The model
#
# A small language model: the next word depends on the prompt and the word before. As in fully sharded training each
# device keeps a quarter of every parameter and of its Adam moments, and they come together only where they are used
# (`whole`): what moves are parameters, never activations. Axes of `jax.make_mesh` are Explicit: the program says how
# its arrays lie, and JAX refuses what it would have to guess.

# %%
PROMPTS, COMPLETIONS, LENGTH, WORDS, WIDTH = 512, 8, 6, 24, 32
mesh = jax.make_mesh((4,), ("data",))


def initial(key):
    shapes = {"prompt": (WORDS, WIDTH), "word": (WORDS, WIDTH), "hidden": (WIDTH, WIDTH), "next": (WIDTH, WORDS)}
    keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
    return {name: jax.random.normal(keys[name], shape) / WIDTH**0.5 for name, shape in shapes.items()}


def whole(params):
    return jax.tree.map(lambda array: jax.sharding.reshard(array, P()), params)


def states(params, prompts, words):
    """Hidden states after each of the words, (n, ..., WIDTH)."""
    about = params["prompt"].at[prompts].get(out_sharding=P("data"))
    about = about.reshape(len(prompts), *[1] * (words.ndim - 1), WIDTH)
    return jnp.tanh((about + params["word"].at[words].get(out_sharding=P("data"))) @ params["hidden"])


def log_prob(params, prompts, words):
    """log pi of completions, (n, ...), and the mean hidden state they were written from, (n, ..., WIDTH)."""
    before = jnp.concatenate([jnp.zeros_like(words[..., :1]), words[..., :-1]], axis=-1)
    h = states(params, prompts, before)
    logits = jax.nn.log_softmax(h @ params["next"])
    return jnp.sum(logits * jax.nn.one_hot(words, WORDS), axis=(-2, -1)), h.mean(axis=-2)


def sampled(params, prompts, key):
    """COMPLETIONS of every prompt, word by word: (n, COMPLETIONS, LENGTH)."""

    def next_word(words, key):
        new = jax.random.categorical(key, states(params, prompts, words) @ params["next"])
        return new, new

    first = jnp.zeros((len(prompts), COMPLETIONS), jnp.int32, device=jax.typeof(prompts).sharding)
    return jnp.moveaxis(jax.lax.scan(next_word, first, jax.random.split(key, LENGTH))[1], 0, -1)


# %% [markdown]
# ## The step
#
# 1. **Features** of fresh completions: their mean hidden states, (P, K, d), each device those of its own prompts.
# 2. **Pool and choice.** `greedy` sees that prompts are divided, and runs on every device over its own. For every pick
#    the devices agree on the best pair and tell each other its d numbers.
# 3. **Batch.** Only the chosen completions leave their devices, and are divided anew.
# 4. **Labels**, here by somebody who likes some words and has noise; in earnest a step ends before, and another begins.
# 5. **Loss and update**: DPO and Adam, on parameters that stay divided.

# %%
SIZE, BETA, RIDGE = 32, 0.5, 1e-2
liked = jnp.linspace(-1, 1, WORDS)  # by word: what nobody has told the policy
adam = optax.adam(3e-2)


def rewards(words):
    return jnp.sum(jax.nn.one_hot(words, WORDS) @ liked, axis=-1)


def chosen(features):
    return jd.greedy(jd.CompletionPool(features), jd.LogDet(), size=SIZE, per_prompt=1, prior=RIDGE)


def loss(params, reference, prompts, pair, labels, first):
    """DPO on a batch: prompts (SIZE,), both completions (SIZE, 2, LENGTH), labels, which was preferred (SIZE,)."""
    now, before = (log_prob(whole(p), prompts, pair)[0] for p in (params, reference))
    won, lost = (jnp.where(first, a, b) for a, b in ((now[:, 0], now[:, 1]), (now[:, 1], now[:, 0])))
    won0, lost0 = (jnp.where(first, a, b) for a, b in ((before[:, 0], before[:, 1]), (before[:, 1], before[:, 0])))
    return jnp.mean(labels * pf.dpo_loss(won, lost, won0, lost0, beta=BETA))


@jax.jit
def step(state, reference, prompts, key):
    params, moments = state
    sample, answer = jax.random.split(key)
    words = sampled(whole(params), prompts, sample)
    _, features = log_prob(whole(params), prompts, words)
    pairs, labels = chosen(features)
    p, i, j = pairs.T
    rows = words.at[p[:, None], jnp.stack([i, j], axis=1)].get(out_sharding=P())  # SIZE pairs of completions
    batch = jax.sharding.reshard((prompts.at[p].get(out_sharding=P()), rows, labels), P("data"))
    margin = rewards(rows[:, 0]) - rewards(rows[:, 1])
    first = jax.sharding.reshard(jax.random.uniform(answer, margin.shape) < jax.nn.sigmoid(margin), P("data"))
    gradient = jax.grad(loss)(params, reference, *batch, first)
    change, moments = adam.update(gradient, moments)
    return (optax.apply_updates(params, change), moments), (pairs, jnp.mean(rewards(words)))


# %% [markdown]
# ## A run
#
# Forty steps, each with fresh completions, 32 labels and an update.


# %%
def start(mesh, prompts=PROMPTS):
    """Parameters with their moments, the reference policy and the prompts, divided over a mesh."""
    with jax.set_mesh(mesh):
        params = jax.device_put(initial(jax.random.key(0)), P("data"))
        prompts = jax.device_put(np.arange(prompts, dtype=np.int32) % WORDS, P("data"))
        return (params, jax.jit(adam.init)(params)), params, prompts


def run(mesh, steps=40):
    """The last state, the pairs of every step, (steps, SIZE, 3), and the mean reward of its samples."""
    state, reference, prompts = start(mesh)
    told = []
    with jax.set_mesh(mesh):
        for key in jax.random.split(jax.random.key(1), steps):
            state, found = step(state, reference, prompts, key)
            told.append(jax.tree.map(np.asarray, found))
    return state, *(np.stack(part) for part in zip(*told, strict=True))


state, pairs, reward = run(mesh)
print(f"mean reward of samples: {reward[0]:.2f} at first, {reward[-1]:.2f} after {SIZE * len(reward)} labels")
print("hidden layer:", jax.typeof(state[0]["hidden"]))

# %% [markdown]
# ## What the devices send each other
#
# The compiled program lists every exchange with its size. The largest is the gradient's: all parameters, once a step.
# What the choice adds are two d x d matrices and, for every pick, a few hundred bytes. Four times the prompts change
# none of it; the features, which would be the largest of all, stay where they were made.


# %%
def exchanges(function, mesh, *arguments):
    """Kind, bytes, and whether it happens once, of everything that devices send each other in a compiled function."""
    with jax.set_mesh(mesh):
        return collectives(jax.jit(function).lower(*arguments).compile().as_text())


print(f"{'prompts':>8} {'features, bytes':>16} {'largest exchange':>17} {'all, once a step':>17}")
for prompts in (PROMPTS, 4 * PROMPTS):
    sent = exchanges(step, mesh, *start(mesh, prompts), jax.random.key(1))
    features, once = 4 * prompts * COMPLETIONS * WIDTH, sum(size for _, size, once in sent if once)
    print(f"{prompts:8} {features:16} {max(size for _, size, _ in sent):17} {once:17}")

# %% [markdown]
# ## As on one device
#
# The same code on a mesh of one device. Random numbers do not depend on the mesh, so both runs are the same up to
# rounding: features that differ in their last digit may break a near tie otherwise, and from there on the runs differ
# as two seeds of rounding do.

# %%
one = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
alone, pairs_alone, reward_alone = run(one)
same = (pairs == pairs_alone).all(axis=(1, 2))
print(f"the same {SIZE} pairs in {same.sum()} of {len(same)} steps, from the first on in {np.argmin([*same, False])}")
print(f"mean rewards differ by at most {np.abs(reward - reward_alone).max():.1e}")

# %% [markdown]
# ## Where the step has Auto axes
#
# On Auto axes, the kind most training code still uses, arrays that are traced do not say how they lie, and the compiler
# places the work of the choice as it places any other: it brings all features to every device. `explicit_axes` says for
# the choice alone how its input lies:

# %%
auto = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
explicit = jax.sharding.explicit_axes(chosen, axes=("data",), in_sharding=(P("data"),))
with jax.set_mesh(auto):
    features = jax.device_put(jax.random.normal(jax.random.key(0), (PROMPTS, COMPLETIONS, WIDTH)), P("data"))
print("features:", features.nbytes, "bytes")
for name, choose in (("as it is", chosen), ("explicit_axes", explicit)):
    print(f"{name:14} largest exchange: {max(size for _, size, _ in exchanges(choose, auto, features))} bytes")
with jax.set_mesh(auto):
    print("the same pairs:", bool((jax.jit(chosen)(features)[0] == jax.jit(explicit)(features)[0]).all()))

# %% [markdown]
# ## To know
#
# - Only the axis of the prompts may divide the features: where hidden states are divided over a `model` axis too, each
#   device brings together the columns of its own prompts, d numbers a completion, before it chooses.
# - P must be a multiple of the devices, as for any array that is divided; fill up with prompts whose `mask` is False.
# - `greedy` is the function that works where prompts lie. `policy_target` and the real-valued solvers inside of `jit`
#   copy the pool to every device: compute the target now and then, outside, and pass `Trace(H)` in.
# - Devices wait for each other about eight times a pick: at 10 microseconds each, 2.6 ms for 32 picks.
# - Outside of `jit`, `optimize` and `evaluate` work on divided pools where they lie:
#   [beyond memory](beyond_memory.ipynb).
