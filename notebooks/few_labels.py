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
# # Few labels: what choosing can be worth, what is believed, and what features miss
#
# With a few labels a parameter, what a policy lacks is mostly decided before any pair is chosen: by what the fit
# believes already, by how well the features say what people want, and by how policies are trained on what is found.
# This page takes these in turn, on a pool whose truth is known: a forecast says beforehand **whether choosing can
# matter**; a belief carries what is known; features are checked, and a residual counts what they miss; and a policy is
# trained on the posterior. It takes about a minute.

# %%
import os

import numpy as np

import jaxdesign as jd
from jaxdesign import preference as pf

SHORT = bool(os.environ.get("JAXDESIGN_SHORT"))  # small settings, for tests
PROMPTS, COMPLETIONS, DIM = (30, 6, 6) if SHORT else (120, 16, 24)
BETA = 1.0
rng = np.random.default_rng(0)
tails = np.abs(rng.standard_t(4, (PROMPTS, COMPLETIONS, 1)))  # a few completions stand out, as in real pools
features = tails * rng.standard_normal((PROMPTS, COMPLETIONS, DIM))
pool = jd.CompletionPool((features / features.std(axis=(0, 1))).astype(np.float32))
RIDGE = DIM / 1.5**2  # rewards are held to have a spread of about 1.5 within prompts, in units of margins

# %% [markdown]
# ## Before money is spent
#
# The policy that is trained on labels with information $A$ misses the best one by $\mathrm{tr}(H A^{-1}) / 2\beta$ in
# expectation. `forecast` says what random pairs leave of it, what no choice can go below (that is certified), and what
# the design leaves, in the unit of the reward. The difference of the first two is the controllable part: if it is
# smaller than a gain that you would notice, take random pairs of different completions and be done.

# %%
budget = jd.Budget(100, per_pair=1)
totals = [30, 60] if SHORT else [50, 100, 200, 800]
print(jd.forecast(pool, budget, totals, prior=RIDGE, beta=BETA).summary(worth=0.02))

# %% [markdown]
# The prior is not a detail: forecasts depend on it more than on all else. Two ways to an honest one are below.
#
# **More completions** of each prompt cost no label and offer better pairs. What they would be worth is told from random
# subsets of those that are there; what lies beyond is extrapolated, with the error that this makes:

# %%
print(jd.forecast_by_completions(pool, budget, totals[:1], prior=RIDGE, beta=BETA).summary())

# %% [markdown]
# The command says the same of features in a file, and of a proxy's scores (below): `jaxdesign forecast features.npy
# --labels 50 100 200 --spread 1.5 --by-completions --proxy scores.npy`.
#
# ## Beliefs
#
# Wherever a prior is asked for, a `Belief` may stand: mean and precision of the reward's parameter. It comes from
#
# | you have | the belief |
# |---|---|
# | a ridge, or a covariance | `Belief.from_ridge`, `Belief.from_covariance`, or the ridge itself |
# | a guess that rewards follow what completions differ in most | `smooth_belief(pool, tau)` |
# | a trained policy, its implicit rewards on the pool, the labels it saw | `implied_prior(...)`: the ridge that its training amounts to |
# | a reward model, a classifier, any score of unknown reliability | `proxy_belief(...)`, `pool_with_proxy(...)` |
# | labels of earlier rounds | `fit_posterior(...)` |
#
# The shape of a belief can matter as much as the choice of pairs, or not at all. On one pool of completions, with
# everything else tuned, a fit to random pairs with `smooth_belief` had 0.56 of the gap that a ridge left at 64 labels of
# a linear reward, and 0.90 to 0.99 with a judge. On the answers of a small language model it gained at most 0.008 J on
# any of four rewards, and lost up to 0.062 ([measured](../bench/README.md)). Compare both on labels of prompts that
# neither fit saw.
#
# Early stopping holds a policy back as a strong prior does. What is designed for should be what is trained: measure the
# ridge on a pilot. Here the "trained policy" is a fit with a ridge that nobody tells `implied_prior`:

# %%
w = rng.standard_normal(DIM) * 1.5 / np.sqrt(DIM)
rewards = np.asarray(pool.features, np.float64) @ w
luck = rng.random((PROMPTS, COMPLETIONS, COMPLETIONS))


def label(pairs, rewards=rewards):
    """A person's answer, the same for the same pair."""
    p, i, j = np.asarray(pairs).T
    return pf.as_labels(pairs, np.where(luck[p, i, j] < 1 / (1 + np.exp(rewards[p, j] - rewards[p, i])), 0, 1))


random = jd.baselines.random(pool, jd.LogDet(), budget, prior=RIDGE)
trained = np.asarray(pool.features) @ pf.fit_posterior(pool, label(random.pairs), 4 * RIDGE).parameter
found = pf.implied_prior(trained, pool, label(random.pairs))
print(f"implied ridge {found.ridge:.3g} (true {4 * RIDGE:.3g}), worth {found.labels_worth:.0f} labels")

# %% [markdown]
# ### A proxy belongs in the fit
#
# Scores that tell something of the reward are tempting as a rule of choosing: best against worst. That leaks the proxy
# into a fit that starts at nothing, and ends when labels are many. As a belief the labels decide how far it is
# followed. In DPO of a small language model, with training on the posterior, such a proxy (the same reward of the first
# half of an answer) gained +0.061 to +0.072 J with the very pairs, 100 at random, of plain DPO, on three rewards; what
# choosing pairs alone gained there was 0.02 at most. It is not free: with a linear reward on real completions a useless
# proxy cost designs up to 7% of the gap, and beside a smooth belief one of .8 added next to nothing. `proxy_worth` says beforehand
# what a proxy would be worth, by how well it may turn out to correlate:

# %%
proxy = rewards + rewards.std() * 0.75 * rng.standard_normal(rewards.shape)  # correlation .8
print(pf.proxy_worth(pool, proxy, budget, totals[:1], prior=RIDGE, beta=BETA).summary())
believed = pf.proxy_belief(pool, proxy, RIDGE)
target = jd.policy_target(pool)
best = pf.optimal_policy(rewards, BETA, pool.mask)


def gap_of(pairs, belief):
    """What the policy of a fit to labels of these pairs misses."""
    theta = pf.fit_posterior(pool, label(pairs), belief).parameter / BETA
    return float(pf.policy_gap(pf.log_policy(pool, theta), best, BETA))


for name, belief in (("without", RIDGE), ("with", believed.belief)):
    design = jd.select_pairs(pool, jd.Trace(target), budget, prior=belief)
    print(f"{name:7s} proxy: gap {gap_of(random.pairs, belief):.3f} random, {gap_of(design.pairs, belief):.3f} design")

# %% [markdown]
# ## Features that keep what they promise
#
# A design asks for pairs that are far apart in the features. Where long differences promise more than the reward keeps,
# those are the wrong pairs. Three things help.
#
# **Which features.** On a real small language model (SmolLM2-135M) the mean hidden state of a completion told three to
# five times as much of rewards as that of its last token ([measured](../bench/README.md)): `mean_hidden_pool`,
# `mean_hidden_states` before `hidden_pool`; projected gradients where rewards are known to lie in the parameters that
# will be trained.
#
# **Which rows.** `clip_rows` shortens rows longer than a quantile of all norms to it. Whether to is a question for
# labels: `length_slopes` fits the slope of the margins on what labels of other prompts predict, by length.

# %%
bent = 1.6 * np.tanh(rewards / 1.6)  # long pairs keep less than they promise
pilot = jd.baselines.random(pool, jd.LogDet(), jd.Budget(80 if SHORT else 800, per_pair=1), prior=RIDGE, seed=1)
for name, truth in (("linear", rewards), ("bent", bent)):
    slopes = pf.length_slopes(pool, label(pilot.pairs, truth), RIDGE, groups=4)
    print(f"{name:7s} slope by length {np.round(slopes.slopes, 2)}, trend {slopes.trend:+.2f} +- {slopes.error:.2f}")
    print(f"        {slopes.summary()['in words']}")
clipped = pf.clip_rows(pool)
print(f"clip_rows shortens {clipped.shortened:.0%} of the rows to length {clipped.length:.2f}")

# %% [markdown]
# In rounds the same is a check between them, kept with the labels: `run_rounds(..., check=lambda labels:
# length_slopes(pool, labels, prior).summary())`.
#
# **What is left.** A residual is what features do not explain of a margin. It belongs to the pair: every label of the
# pair meets the same one, and it grows with the length. `residual_of(pool, v)` says how much less a label is then
# worth, designs count that, and one label a pair is required; `"cap"` needs no number. `estimate_residual` tells `v`
# from a pilot with several labels on some pairs, with its error, and says when it cannot tell.

# %%
unexplained = rewards + 1.5 * rng.standard_normal(rewards.shape)
some = jd.baselines.random(pool, jd.LogDet(), jd.Budget(60 if SHORT else 300, per_pair=1), prior=RIDGE, seed=2).pairs
p, i, j = some.T
chance = 1 / (1 + np.exp(unexplained[p, j] - unexplained[p, i]))
wins = rng.binomial(3, chance)  # three people each
told = pf.estimate_residual(pool, some, wins.astype(float), np.full(len(some), 3.0), prior=RIDGE)
print(f"v {told.variance:.2f} [{told.interval[0]:.2f}, {told.interval[1]:.2f}], told: {told.told}")
held = np.asarray(pool.features)
length = lambda design: np.linalg.norm(  # noqa: E731
    held[tuple(design.pairs[:, [0, 1]].T)] - held[tuple(design.pairs[:, [0, 2]].T)], axis=-1
).mean()
for name, residual in (("none", None), ("v", told.residual), ("cap", jd.residual_of(pool, "cap"))):
    aware = jd.CompletionPool(pool.features, residual=residual)
    design = jd.select_pairs(aware, jd.Trace(target), budget, prior=RIDGE)
    print(f"residual {name:4s}: pairs of mean length {length(design):.2f}, random {length(random):.2f}")

# %% [markdown]
# `RoundPlan(residual=...)` takes the same: a variance, `"cap"`, or `"pilot"`.
#
# ## Training on the posterior
#
# DPO on a hundred labels stays close to the reference: bias, not noise, is what is missing then. The fit relates those
# labels to all pairs of the pool, and its soft labels have no noise that a policy could overfit: train on them.
# `train_on_posterior` does it for the small transformer of this package, `soft_labels` are what any trainer takes, and
# for log-linear policies `posterior_policy` is where it ends.
#
# It is as good as the features are. In a small transformer, on gradients by what is trained, it gained +0.028 J at 400
# labels of random pairs and nothing at 100, once the rate of plain DPO is tuned at each number of labels; on mean hidden
# states of a real model, which DPO does not follow, it lost 0.053 at 100, on letters of a word, and on two other rewards
# gained 0.002 and 0.004. With a proxy in the fit both gained much.

# %%
posterior = pf.fit_posterior(pool, label(design.pairs), RIDGE)
pairs, probabilities = pf.soft_labels(pool, posterior, number=1000)
print(f"{len(pairs)} pairs, the first {pairs[0].tolist()} with probability {probabilities[0]:.2f}")
end = pf.posterior_policy(pool, posterior, BETA)
print(f"gap of the policy {float(pf.policy_gap(end, best, BETA)):.3f}, without labels ", end="")
print(f"{float(pf.policy_gap(pf.log_policy(pool, np.zeros(DIM)), best, BETA)):.3f}")
