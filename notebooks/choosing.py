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
# # Choosing: which criterion, which ridge, how many labels
#
# We can afford some number of human comparisons and must say which pairs of completions they go to. Four decisions come
# before the list: features, criterion, ridge and budget. This page takes them in turn, on the small pool inside the
# package.

# %%
import sys

import matplotlib.pyplot as plt
import numpy as np

import jaxdesign as jd

sys.path.insert(0, "..")  # bench, which names and colours the rules, is in the checkout and not in the package
from bench.rules import look

# %% [markdown]
# ## A pool
#
# A pool is prompts with several completions each, one row of features per completion. Here the features are hashed
# n-grams, which see wording and nothing else; they need no model, and that is their only merit. **For real work pass
# features of the policy you will train**: projected gradients of the log-probability by what will be trained
# (`preference.gradient_pool`), which training follows, or the mean hidden state of a completion
# (`preference.mean_hidden_pool`), which told three to five times as much of rewards as that of the last token on a real
# small model ([measured](../bench/README.md)). A design cannot see what its features miss;
# [few labels](few_labels.ipynb) has what to do about it.
#
# Real features are nearly always rank-deficient. `restrict_to_range` expresses them in a basis of the directions in
# which completions of the same prompt differ; nothing is lost, as only such differences can be labelled.

# %%
texts = jd.io.read_completions(jd.io.demo_pool_path())
features, mask = jd.io.featurise(texts.completions, dim=12)
pool, basis = jd.restrict_to_range(jd.CompletionPool(features, mask=mask, ids=texts.ids))
pairs = sum(k * (k - 1) // 2 for k in mask.sum(axis=1))
print(f"{pool.num_prompts} prompts, {pairs} pairs, features of rank {pool.dim}")

# %% [markdown]
# ## Which criterion
#
# Labels give information $A = \text{ridge} \cdot I + \sum_e n_e c_e z_e z_e^T$ about the reward's parameters: $n_e$
# labels of pair $e$, whose features differ by $z_e$, each worth $c_e$ (1/4 where nothing is known of the answer). A
# criterion says what to do with it.
#
# | you want | use |
# |---|---|
# | the best policy from these labels | `Trace(policy_target(pool))`: the expected policy gap is $\mathrm{tr}(H A^{-1}) / 2\beta$, with $H$ the curvature of the policy's loss |
# | good estimates in all directions, or no trust in $H$ yet | `LogDet()` |
# | to be good for several deployments, whichever comes | `WorstCase({"math": H1, "chat": H2})`: the largest of several traces |
# | something else | a class or a function of your own: [extending](extending.ipynb) |
#
# `Trace` is the command's default. How different are they? Each design, judged by the other's criterion:

# %%
H = jd.policy_target(pool)  # of the prompts that matter: those of deployment, if you have their completions
budget = jd.Budget(60, per_pair=1)
RIDGE = 0.02
criteria = {"trace": jd.Trace(H), "log det": jd.LogDet()}
designs = {name: jd.optimize(pool, crit, budget, prior=RIDGE) for name, crit in criteria.items()}
for judge, crit in criteria.items():
    for name, design in designs.items():
        found = jd.evaluate(pool, crit, budget, design.pairs, design.labels, prior=RIDGE).certificate
        print(f"efficiency of the {name:8s} design for {judge:8s} {found.efficiency:.3f}")

# %% [markdown]
# An efficiency is a proven share of the best possible, so these numbers need no trust in the solver. What a choice
# costs if $H$ was the wrong target is the number off the diagonal. On this pool it is small, which is common where
# completions of all prompts spread alike; it is large where deployment differs from the pool. Measured on labels, log
# det needed about as many as trace or more for the same policy ([bench/README.md](../bench/README.md)).
#
# Several deployments: with a target for each, `WorstCase` makes the largest of their traces small, each over a scale (1
# unless given). A target is made from the prompts of its deployment; here those about cooking and those about code.

# %%
targets = {}
for topic in ("cooking", "code"):
    of = np.array([name.startswith(topic) for name in texts.ids])
    targets[topic] = np.asarray(jd.policy_target(jd.CompletionPool(pool.features[of], mask=pool.mask[of])))
several = {f"{topic} alone": jd.Trace(target) for topic, target in targets.items()}
several |= {"their mean": jd.Trace(sum(targets.values()) / 2), "the worst": jd.WorstCase(targets)}
for name, crit in several.items():
    design = jd.optimize(pool, crit, budget, prior=RIDGE)
    each = [jd.evaluate(pool, jd.Trace(t), budget, design.pairs, design.labels, prior=RIDGE) for t in targets.values()]
    found = ", ".join(f"{topic} {one.certificate.value:.3f}" for topic, one in zip(targets, each, strict=True))
    print(f"designed for {name:13s} tr(H A^-1) of {found}")

# %% [markdown]
# ## Which ridge
#
# `prior` is the information that is there before any label: a ridge, a matrix, or that of labels held. The honest value
# is **the regulariser of the fit that will use the labels**, in units of label information about the reward: a fit that
# penalises $\frac{\lambda}{2} |w|^2$ has `prior=lambda`. How much depends on it? Designs for ridges from a thousandth
# of what the labels will bring to a mean direction up to a hundred times that, all judged with one ridge in the end:

# %%
scale = float(np.trace(jd.second_moment(pool))) / pool.dim  # mean squared size of a direction
for labels in (12, 60):
    budget = jd.Budget(labels, per_pair=1)
    for share in (0.001, 0.1, 1, 10, 100):
        ridge = share * labels / 4 * scale
        design = jd.optimize(pool, criteria["trace"], budget, prior=ridge)
        judged = jd.evaluate(pool, criteria["trace"], budget, design.pairs, design.labels, RIDGE).certificate
        print(
            f"{labels} labels, ridge {share:5g} times the labels' own: tr(H A^-1) {design.certificate.value:.3f} by "
            f"its own ridge, {judged.value:.3f} at {RIDGE}"
        )

# %% [markdown]
# The choice hardly depends on a ridge that is smaller than the labels' own information; the number it is judged by
# does. So a ridge that is a guess spoils the predicted gap long before it spoils the pairs. One far larger than the
# labels says that nothing is left to learn, and gives pairs accordingly. Where you know nothing, take a thousandth of
# the labels' own information, `1e-3 * labels / 4 * scale`; with none at all (`prior=None`) a design must span the
# space, and is refused where it cannot ([when numbers go wrong](when_numbers_go_wrong.ipynb)).
#
# ## Which budget
#
# `Budget(total, per_pair=1)` is the usual case: every pair at most once. `per_pair=None` allows repeats without limit,
# for instance where labels are noisy and cheap; `per_prompt=q` spreads labels over prompts.
# [constraints](constraints.ipynb) has the rest.
#
# How many labels? `label_curve` chooses pairs for several numbers of them and predicts the policy gap of each choice,
# by design and by any rule of `jaxdesign.baselines.SELECTORS`.

# %%
totals = [24, 48, 96, 192]
rules = ("random", "first_two", "largest_distance")
curve = jd.label_curve(pool, criteria["trace"], budget, totals, prior=RIDGE, rules=rules, seeds=range(8))
figure, axis = plt.subplots(figsize=(6, 3.6))
for rule, gaps in curve.gaps.items():
    mean, spread = gaps.mean(axis=1), gaps.std(axis=1)
    axis.errorbar(totals, mean, spread, marker="o", capsize=2, **look("trace" if rule == "design" else rule))
axis.set(xscale="log", yscale="log", xlabel="labels", ylabel="predicted policy gap")
axis.set_xticks(totals, [str(n) for n in totals])
axis.minorticks_off()
axis.legend()
figure.tight_layout()
print(
    f"random pairs need {curve.labels_saved(96):.1f} times the labels of the design for the gap that they have with 96"
)

# %% [markdown]
# Bars are standard deviations over eight seeds, of the rules that draw. The curve is a prediction, and as good as the
# features: where rewards are linear in them it is close to what training then shows ([labels_saved](labels_saved.ipynb)
# checks that), elsewhere it is too hopeful. Read it for its shape. It falls faster than $1/n$ while labels still open
# new directions (with fewer labels than dimensions the ridge decides more than they do) and like $1/n$ afterwards;
# **one to a few labels a dimension is where design matters most**, and a budget that stops in the steep part is cut at
# the wrong place.
#
# ## What the answer says
#
# `optimize` gives the best real-valued allocation; `select_pairs` the whole labels to ask for.

# %%
budget = jd.Budget(60, per_pair=1)
batch = jd.select_pairs(pool, criteria["trace"], budget, prior=RIDGE)
print(batch.certificate)
print(batch.status)
print(batch.report["bound"])
print("rows (prompt, i, j):", batch.pairs[:3].tolist(), "of prompt", texts.ids[batch.pairs[0, 0]])

# %% [markdown]
# - `value` is the criterion, `lower_bound` a number that no allowed choice goes below, `efficiency` their ratio (for
#   `LogDet` $e^{-\text{gap}/d}$). The bound is computed in float64 from the stored features and counts its own
#   rounding. It is about the features you passed: what they miss, no certificate sees.
# - Of whole labels some gap remains even where the choice is the best there is, most with one to three labels a
#   dimension. Below one label a dimension the bound counts whole labels by itself; `report["bound"]` says which bound
#   it is.
# - `status` is a sentence. A solver that did not reach its tolerance says so; its certificate holds all the same.
#
# ## Margins, noise, labels already there
#
# | you know | pass |
# |---|---|
# | the policy's own rewards $u = \beta \log(\pi / \pi_{ref})$ | `CompletionPool(features, scores=u)`: a label of a pair whose answer is clear is worth less, $c = \sigma'(u_i - u_j)$ |
# | several draws of them | `scores` of shape (draws, prompts, completions): designs average over draws |
# | that labels are sometimes wrong | `flip=0.1`, or one per prompt, or (P, K, K) per pair |
# | which completions are too long to show | `mask=lengths <= limit` |
# | labels that are held | `prior=ridge * I + held_information(pool, pairs)`, and `exclude=pairs` in the budget |
#
# Far from the reference policy margins matter: a design that takes every label for worth 1/4 asks for pairs whose
# answers are known beforehand. If you have no scores yet, spend a part of the labels on a pilot:
# [rounds](rounds.ipynb).

# %%
held = jd.held_information(pool, batch.pairs)
more = jd.select_pairs(
    pool,
    criteria["trace"],
    jd.Budget(60, per_pair=1, exclude=batch.pairs),
    prior=RIDGE * np.eye(pool.dim) + held,
)
print(f"tr(H A^-1) {batch.certificate.value:.3f} with 60 labels, {more.certificate.value:.3f} with 60 more")

# %% [markdown]
# ## The same from the command line
#
# `jaxdesign select` does all of this on files; `--criterion`, `--ridge`, `--per-pair`, `--per-prompt` and `--seed` are
# the decisions above, and `jaxdesign select --help` has the rest.
#
#     jaxdesign select completions.jsonl --labels 500 --output pairs.jsonl
#     jaxdesign select features.npy --texts completions.jsonl --labels 5000 --output pairs.csv
#     jaxdesign select pool.npz --labels 5000 --output pairs.jsonl
#
# - Texts are JSON lines, `{"prompt": ..., "completions": [...]}`. Features are (prompts, completions, dimension), alone
#   in a `.npy`, or as `np.savez("pool.npz", features=..., ids=..., mask=..., scores=...)`. `--texts` are joined to them
#   by prompt_id where the features have ids, else by order.
# - Every line of the output is one label to ask for: a `task_id` that is the same in every run, the pair, and the
#   completions `a` and `b` in the order to show them in, drawn with `--seed`. `preference.make_tasks(0, pairs, labels,
#   ids=ids, swap_seed=seed)` makes the same tasks again, for `read_answers` ([rounds](rounds.ipynb)).
# - Beside it lies a report with the certificate, settings, versions and seed.
# - Progress goes to stderr. Ctrl-C ends the command at once (exit code 130), and files are whole or not there; where a
#   disk is full the answer is written elsewhere, and the command says where (exit code 1). Compiled programs are kept
#   in your cache folder, so that later runs on pools of the same shapes take a fraction of the time; `--no-cache` turns
#   that off.
