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
# ---

# %% [markdown]
# # Which pairs are worth a label?
#
# We have a pool of completions, several per prompt, and money for some hundred human comparisons. A policy will be
# trained on them by DPO. This page shows, on a problem that can be solved exactly,
#
# 1. where a design puts its labels,
# 2. that the policy gap it predicts is the one that training then has,
# 3. how many labels it saves against pairs drawn at random, and
# 4. where it does not, and what helps.
#
# It ends with the same comparison on real completions, people's votes and a small transformer, whose results are
# recorded in `bench/results`. Install with `pip install '.[preference,plots]'`; the page takes about two minutes.

# %%
import os
import sys

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxdesign as jd
from jaxdesign import preference as pf

sys.path.insert(0, "..")  # bench, which names and colours the rules, is in the checkout and not in the package
from bench.rules import RULES, look

jax.config.update("jax_enable_x64", True)  # gaps are small differences
SHORT = bool(os.environ.get("JAXDESIGN_SHORT"))  # small settings, for tests
PROMPTS, COMPLETIONS, DIM = (40, 6, 6) if SHORT else (200, 8, 16)
REPEATS = 20 if SHORT else 200
BETA = 0.5

# %% [markdown]
# ## A world we can see through
#
# Every completion has features $\phi$, with a heavy-tailed scale: most are alike, a few stand out, as in real pools.
# The reward is $u = \phi \cdot w$ for a $w$ that nobody knows; a person who compares completions $i$ and $j$ prefers
# $i$ with probability $\sigma(u_i - u_j)$. Policies are $\pi \propto \pi_{ref} \exp(\phi \cdot \theta)$, for which DPO
# is maximum likelihood, and the best one has $\theta = w / \beta$.


# %%
def world(spread, seed=0):
    """Features (P, K, d), log pi_ref (P, K), and w with standard deviation of u equal to `spread`."""
    rng = np.random.default_rng(seed)
    tails = np.abs(rng.standard_t(3, (PROMPTS, COMPLETIONS, 1)))
    features = tails * rng.standard_normal((PROMPTS, COMPLETIONS, DIM))
    features /= features.std(axis=(0, 1))
    w = rng.standard_normal(DIM)
    return jd.CompletionPool(features), rng.standard_normal((PROMPTS, COMPLETIONS)), w * spread / np.linalg.norm(w)


pool, log_reference, w = world(spread=0.6)

# %% [markdown]
# The gap of a policy trained on labels with information $A$ is, to second order, $\mathrm{tr}(H A^{-1}) / 2\beta$,
# where $H$ is the covariance of the features under the policy, over the prompts that matter. So that is what the design
# minimises. Here is the design for 200 labels, and as many pairs at random.

# %%
target = jd.policy_target(pool, log_reference)
labels = 100 if SHORT else 200
budget = jd.Budget(labels, per_pair=1)
trace = jd.select_pairs(pool, jd.Trace(target), budget, prior=1e-6)
random = jd.baselines.random(pool, jd.Trace(target), budget, prior=1e-6)
predicted = [design.certificate.value / (2 * BETA) for design in (trace, random)]
print(f"predicted gap {predicted[0]:.3f}, of random pairs {predicted[1]:.3f}")
print(f"proven: no {labels} pairs have a gap below {trace.certificate.efficiency:.1%} of this one")

# %% [markdown]
# ## Where the labels go
#
# To prompts whose completions differ, and there to the pairs far apart; but not simply to the longest differences: they
# must also point where the policy's loss is curved, and all directions must be covered.

# %%
features = np.asarray(pool.features)
centred = features - features.mean(axis=1, keepdims=True)
spread = np.sqrt((centred**2).sum(axis=-1).mean(axis=1))
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
for design, rule, marker in ((random, "random", "x"), (trace, "trace", "o")):
    count = np.bincount(design.pairs[:, 0], minlength=PROMPTS)
    left.plot(spread, count, marker, fillstyle="none", **look(rule))
left.set(xscale="log", xlabel="spread of the prompt's completions", ylabel="labels of the prompt")
left.legend()
i, j = np.triu_indices(COMPLETIONS, 1)
every = np.linalg.norm(features[:, i] - features[:, j], axis=-1).ravel()
bins = np.geomspace(every.min(), every.max(), 30)
for chosen, rule in ((random, "random"), (trace, "trace")):
    p, a, b = chosen.pairs.T
    length = np.linalg.norm(features[p, a] - features[p, b], axis=-1)
    right.hist(length, bins, weights=chosen.labels, histtype="step", **look(rule))
right.set(xscale="log", xlabel="distance of the two completions", ylabel="labels")
right.legend()
figure.tight_layout()

# %% [markdown]
# ## Predicted against simulated
#
# For every rule of choosing: simulate labels, train (unregularised maximum likelihood), measure the exact gap, many
# times. `closest_call` takes the pairs whose completions are most alike in score, a popular recipe for "informative"
# pairs.

# %%
best = pf.optimal_policy(pool.features @ w, BETA, pool.mask, log_reference)
scores = features @ w


@jax.jit
def gaps_of(pool, rows, counts, wins):
    """Exact policy gaps after training on wins (n, S); NaN where the labels can be separated."""

    def one(won):
        fit = pf.fit_bradley_terry(rows, won, counts)
        gap = pf.policy_gap(pf.log_policy(pool, fit.parameter / BETA, log_reference), best, BETA)
        return jnp.where(fit.converged, gap, jnp.nan)

    return jax.lax.map(one, wins, batch_size=20)


def simulate(pairs, counts, seed=0):
    """(predicted gap, simulated gaps) of labels of these pairs; the prediction knows w."""
    p, i, j = pairs.T
    rows = features[p, i] - features[p, j]
    chance = 1 / (1 + np.exp(-(scores[p, i] - scores[p, j])))
    information = np.einsum("s,sd,se->de", counts * chance * (1 - chance), rows, rows)
    H = np.asarray(jd.policy_target(pool, log_reference + scores / BETA))
    wins = np.random.default_rng(seed).binomial(counts.astype(int), chance, (REPEATS, len(pairs)))
    room = -len(pairs) % 256  # few shapes, few compilations
    padded = np.pad(rows, ((0, room), (0, 0))), np.pad(counts, (0, room)), np.pad(wins, ((0, 0), (0, room)))
    gaps = gaps_of(pool, *(jnp.asarray(a, float) for a in padded))
    return np.trace(np.linalg.solve(information, H)) / (2 * BETA), np.asarray(gaps)


def standard_error(gaps):
    """Of the mean of those trainings that have a maximum."""
    return np.nanstd(gaps, ddof=1) / np.isfinite(gaps).sum() ** 0.5


def whole(pairs, shares, n):
    """n labels in these shares."""
    counts = np.floor(n * shares / shares.sum())
    counts[: int(n - counts.sum())] += 1
    return pairs[counts > 0], counts[counts > 0]


# %%
informed = jd.CompletionPool(pool.features, scores=scores)
base = jd.Budget(60 if SHORT else 400, per_pair=1)
designs = {
    "trace": trace,
    "trace_oracle": jd.select_pairs(informed, jd.Trace(jd.policy_target(pool, log_reference + scores / BETA)), budget),
    "logdet": jd.select_pairs(pool, jd.LogDet(), budget, prior=1e-6),
    "random": random,
    "largest_distance": jd.baselines.largest_distance(pool, jd.LogDet(), base, prior=1e-6),
    "first_two": jd.baselines.first_two(pool, jd.LogDet(), base, prior=1e-6),
    "closest_call": jd.baselines.closest_call(informed, jd.LogDet(), base, prior=1e-6),
}
figure, axis = plt.subplots(figsize=(5, 5))
for rule, design in designs.items():
    found = [simulate(*whole(design.pairs, design.labels, n)) for n in ([2000] if SHORT else [2000, 8000, 32000])]
    predicted = [row[0] for row in found]
    simulated = [np.nanmean(row[1]) for row in found]
    errors = [standard_error(row[1]) for row in found]
    axis.errorbar(predicted, simulated, errors, fmt="o-", markersize=4, capsize=2, **look(rule))
    print(f"{RULES[rule].name:26s} predicted / simulated at the largest n: {predicted[-1] / simulated[-1]:.2f}")
low, high = axis.get_xlim()
axis.plot([low, high], [low, high], color="grey", linewidth=0.8)
axis.set(xscale="log", yscale="log", xlabel="predicted gap", ylabel="simulated gap")
axis.legend(fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## Labels saved
#
# The same training, now over the number of labels, each pair at most once; random pairs are drawn anew at every number.
# What counts is the horizontal distance. Bars are standard errors over trainings.

# %%
sizes = [100, 200] if SHORT else [100, 200, 400, 800, 1600]
rules = {
    "random": lambda n: jd.baselines.random(pool, jd.LogDet(), jd.Budget(n, per_pair=1), prior=1e-6, seed=n),
    "logdet": lambda n: jd.select_pairs(pool, jd.LogDet(), jd.Budget(n, per_pair=1), prior=1e-6, methods=["best_set"]),
    "trace": lambda n: jd.select_pairs(
        pool, jd.Trace(target), jd.Budget(n, per_pair=1), prior=1e-6, methods=["best_set"]
    ),
}
figure, axis = plt.subplots(figsize=(6, 4))
curves = {}
for rule, choose in rules.items():
    made = [choose(n) for n in sizes]
    gaps = [simulate(design.pairs, design.labels)[1] for design in made]
    curves[rule] = [np.nanmean(found) for found in gaps]
    axis.errorbar(sizes, curves[rule], [standard_error(found) for found in gaps], fmt="o-", capsize=2, **look(rule))
axis.set(xscale="log", yscale="log", xlabel="labels", ylabel="policy gap")
axis.legend()
figure.tight_layout()
for n, gap in zip(sizes, curves["trace"], strict=True):
    needed = np.exp(np.interp(-np.log(gap), -np.log(curves["random"]), np.log(sizes)))
    if gap > min(curves["random"]):
        print(f"trace with {n} labels is as good as random pairs with {needed:.0f}: {needed / n:.1f} times as many")

# %% [markdown]
# ## Where one round is not enough: far from the reference policy
#
# The design above supposes that nothing is known of $w$: every pair tells $c = 1/4$. With strong rewards the long pairs
# it likes have labels that are all but certain, and tell little. The remedy is a pilot: a quarter of the labels, a fit,
# and a second design averaged over draws of what the fit leaves open (`preference.run_rounds` does this, on disk).

# %%
PRIOR = 0.1


def compare(world, total, seed, designs):
    """Policy gaps of random pairs, the plug-in design and two rounds with the same people."""
    pool, log_reference, w = world
    scores = np.asarray(pool.features) @ w
    best = pf.optimal_policy(jnp.asarray(scores), BETA, pool.mask, log_reference)
    luck = np.random.default_rng(seed).random((PROMPTS, COMPLETIONS, COMPLETIONS))

    def label(pairs):  # the same answer for the same pair
        p, i, j = pairs.T
        return pf.as_labels(pairs, np.where(luck[p, i, j] < 1 / (1 + np.exp(scores[p, j] - scores[p, i])), 0, 1))

    def gap(labels):
        theta = pf.fit_posterior(pool, labels, PRIOR).parameter / BETA
        return float(pf.policy_gap(pf.log_policy(pool, theta, log_reference), best, BETA))

    random = jd.baselines.random(pool, jd.LogDet(), jd.Budget(total, per_pair=1), prior=PRIOR, seed=seed)
    plug_in, pilot = designs
    held = label(pilot.pairs)
    rest = jd.Budget(total - len(pilot.pairs), per_pair=1, exclude=pilot.pairs)
    second = pf.next_batch(pool, rest, held, PRIOR, BETA, reference=log_reference, seed=seed)
    both = label(np.concatenate([pilot.pairs, second.pairs]))
    return gap(label(random.pairs)), gap(label(plug_in.pairs)), gap(both)


print("policy gap       labels  random  trace  two rounds")
for strength in (0.6, 3.0) if SHORT else (0.6, 1.5, 3.0):
    far = world(strength)
    crit = jd.Trace(jd.policy_target(far[0], far[1]))
    for total in [100] if SHORT else [400, 800]:
        designs = [jd.select_pairs(far[0], crit, jd.Budget(n, per_pair=1), prior=PRIOR) for n in (total, total // 4)]
        gaps = np.mean([compare(far, total, seed, designs) for seed in range(2 if SHORT else 12)], axis=0)
        print(f"sd of u {strength:3.1f} {total:12d} {gaps[0]:8.3f} {gaps[1]:6.3f} {gaps[2]:9.3f}")

# %% [markdown]
# ## Real completions, people, and a transformer
#
# The experiments in `bench/experiments` ask the same of real features, of human votes and of a transformer that is
# trained end to end, with every rule of choosing; tables with all numbers, and what they show, are in
# [bench/README.md](../bench/README.md). Real features and four rewards: one linear in the features, a language-model
# judge's at two temperatures, which is not, and scores of professional raters, of which these features see next to
# nothing; there no choice of pairs helps much, nor does any number of labels. Above, fits have the ridge that suits
# random pairs; below, ridge and scale are tuned for every rule, and random pairs lose less: what a fit believes is
# worth about as much as which pairs it has. Two rounds with a residual gain in both; capped ones, tuned so, in every
# cell of the judge.
#
# ![Policy gap over that of random pairs, by rule](../bench/results/real-pools.png)
#
# Votes of people on pairs of the `pandalm` pool, none of them simulated:
#
# ![Log loss of votes on other prompts, by rule](../bench/results/human-votes.png)
#
# The transformer: completions sampled from it, pairs chosen, DPO, and J = reward - beta KL on prompts without labels.
# Repeated texts are left out for every rule but plain random pairs: leaving them out is a gain that needs no design.
#
# ![Gain in J, by rule](../bench/results/transformer.png)
