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
# # Rounds, people and label stores
#
# One round is designed for what is known before any label, which is little. A pilot, a fit and a second design averaged
# over what the fit leaves open repair that: far from the reference policy, or where rewards do not follow the features,
# **use rounds**, with the residual that they have by default. This page runs them on the texts inside the package, hands tasks out as files, is interrupted, goes
# on, and finds out whose labels can be trusted. (The parts of `preference` that train policies need `pip install
# '.[preference]'`; nothing here does.)

# %%
import csv
import json
import os
import tempfile
from pathlib import Path

import jax
import numpy as np

import jaxdesign as jd
from jaxdesign import preference as pf

os.chdir(tempfile.mkdtemp())  # where everything is kept; in earnest a folder that stays
texts = jd.io.read_completions(jd.io.demo_pool_path())
features, mask = jd.io.featurise(texts.completions, dim=6)
pool, _ = jd.restrict_to_range(jd.CompletionPool(features, mask=mask, ids=texts.ids))
hidden = np.asarray(pool.features) @ np.array([4.0, -3.0, 3.0, 0, 0, 0])[: pool.dim]  # the reward that nobody sees

# %% [markdown]
# Give prompts `ids`. Every task is named by its prompt's id and its pair, the same in every run, so that labels find
# their pair again although prompts have moved.
#
# ## Rounds that survive being killed
#
# `run_rounds` designs a batch, writes it to the store, asks `label` for what is outstanding, fits, and designs the
# next. All state is in the store, on disk before the next thing is asked for. Here somebody pulls the plug after 20
# labels:

# %%
given = 0


def label(tasks):
    """People, in earnest: whatever is returned is on disk before the next tasks are asked."""
    global given
    repeats = np.array([task.repeat for task in tasks])
    found = pf.simulate_labels(jax.random.key(0), hidden, [task.pair for task in tasks], repeats=repeats)
    for task, choice in zip(tasks, found.choices, strict=True):
        if given == 20:
            given += 1
            raise KeyboardInterrupt("the plug")
        given += 1
        yield pf.answered(task, choice)


plan = pf.RoundPlan(totals=(30, 60), prior=1.0, beta=0.5)
store = pf.LabelStore("labels")
try:
    pf.run_rounds(pool, label, plan, store)
except KeyboardInterrupt:
    print("killed:", store)
result = pf.run_rounds(pool, label, plan, store)  # the same call again
print("done:  ", store, "of which asked twice:", given - 1 - 90)

# %% [markdown]
# - `totals`: labels of each round. Two rounds, the pilot a quarter to a third, are the usual case.
# - `prior`: the precision of the reward's parameter before any label, which is the fit's regulariser. Where the labels
#   will train a policy by DPO, what is held should be what such training holds: `implied_prior` of an earlier policy and
#   the labels that it saw ([few labels](few_labels.ipynb)).
# - `residual`: what features leave unexplained of a margin, in variance at the median pair; the default costs a label
#   there as much as its own noise. It keeps designs from the very longest pairs, whose promise is most in doubt; `"cap"`
#   is more careful, None trusts the features. With a residual a pair is asked about once.
# - `floor`: a share of every round to draw at random; none unless you say otherwise.
# - `stop_gap`: rounds end where the predicted gap is small enough.

# %%
print("predicted policy gap after each round:", np.round(result.gaps, 3))
w = result.posterior.parameter
print("fitted parameter:", np.round(w, 2))
held = store.labels()
print(
    len(held.pairs),
    "labels of",
    len(np.unique(held.pairs, axis=0)),
    "pairs; round sizes",
    [len(store.batch(r)) for r in store.rounds()],
)

# %% [markdown]
# The predicted gap is $\mathrm{tr}(H A^{-1}) / 2\beta$, with margins and $H$ at the fit. If it rises after a round, the
# pilot found rewards larger than the prior expected: clear answers tell less than the first design supposed.
#
# ## People are asked through files
#
# `write_tasks` gives out texts in an order drawn against position bias, `read_answers` takes in what came back, CSV or
# JSON lines, undoes the order, and tells every bad row at once. `store.append` keeps it: once it returns, a label is on
# disk.

# %%
batch = pf.next_batch(pool, jd.Budget(12, per_pair=1, exclude=held.pairs), held, prior=1.0, beta=0.5)
tasks = pf.make_tasks(2, batch.pairs, batch.labels, ids=pool.ids, swap_seed=7)
pf.write_tasks("tasks.csv", tasks, texts.prompts, texts.completions)
with open("tasks.csv", encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
for column in ("task_id", "prompt", "response_a", "response_b"):
    print(f"{column:10s} {rows[0][column]}")

# %%
answers = [{"task_id": row["task_id"], "choice": "a" if len(row["response_a"]) > 60 else "b"} for row in rows]
answers[3]["choice"] = "left"  # a word nobody agreed on
Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers), encoding="utf-8")
try:
    pf.read_answers("answers.jsonl", tasks)
except ValueError as error:
    print(error)
records = pf.read_answers("answers.jsonl", tasks, words={"left": "a", "right": "b"})
print(store.append(records), "stored;", len(store.outstanding(tasks)), "outstanding")
print("read in twice:", len(store.not_held(records)), "are new")
print(
    pf.write_preferences("preferences.jsonl", store.labels(2), texts.prompts, texts.completions),
    "rows for a trainer",
)

# %% [markdown]
# `write_preferences` hands prompt, chosen and rejected on; ties and skips cannot be said in that format and are left
# out. A store may be written by several processes at once, and refuses a second label of the same task by the same
# person.
#
# ## Whose labels can be trusted?
#
# Have some pairs labelled by several people, and let reward and reliability be estimated together. Here three people
# label the same 60 pairs, and are wrong in 2%, 15% and 35% of them.

# %%
FLIPS = [0.02, 0.15, 0.35]
many = jd.select_pairs(pool, jd.Trace(jd.policy_target(pool)), jd.Budget(60, per_pair=1), prior=1.0)
people = pf.make_annotators(flip=FLIPS)
who = np.tile(np.arange(3), 60)
labels = pf.simulate_labels(jax.random.key(1), hidden, np.repeat(many.pairs, 3, axis=0), people, who=who)
found = pf.estimate_reliability(pool, labels, annotators=3, prior=1.0, pseudo_labels=(2, 0.5))
for person in range(3):
    print(
        f"annotator {person}: wrong in {FLIPS[person]:.0%}, estimated {1 - found.posterior_mean[person]:.0%} "
        f"+- {found.standard_error[person]:.0%}"
    )

# %% [markdown]
# An estimate below 50% right is an annotator whose labels are informative turned round, and harmful as they are. The
# next design takes the estimates in, with prices if there are any, and says who labels what
# ([constraints](constraints.ipynb)):

# %%
team = pf.reliable_annotators(found.eta, cost=[3.0, 1.0, 1.0], names=["ann", "bob", "cem"])
paid = jd.optimize(pool, jd.LogDet(), jd.Budget(60, per_pair=1, cost_total=100), prior=1.0, annotators=team)
share = np.bincount(paid.annotators, paid.labels, minlength=3)
print(
    "labels to",
    dict(zip(team.names, np.round(share, 1).tolist(), strict=True)),
    f"efficiency {paid.certificate.efficiency:.4f}",
)

# %% [markdown]
# Fits can know of noise too: a pool with `flip` (`preference.with_estimated_flip`) is fitted and designed with it, and
# `preference.robust_dpo_loss` trains with it. Whether people prefer what is shown first is estimated by
# `preference.estimate_position_bias`; tasks are shown in a drawn order in any case.
