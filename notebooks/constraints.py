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
# # Constraints and annotators
#
# What annotation projects ask for: caps, quotas, a spend limit, pairs that must or must not be in, tasks of several
# labels, people who differ in noise and price. Everything a `Budget` says is obeyed by real-valued designs (`optimize`)
# and by whole labels (`select_pairs`) alike, and certified: the bound holds for all allocations that obey it, over all
# pairs of the pool.

# %%
import numpy as np

import jaxdesign as jd

rng = np.random.default_rng(0)
pool = jd.CompletionPool(rng.standard_normal((60, 6, 8)).astype("float32"))  # 60 prompts x 6 completions: 900 pairs
crit, RIDGE = jd.LogDet(), 0.1

# %% [markdown]
# ## Caps
#
# `per_pair` and `per_prompt` are caps, scalars or one value a prompt. They are the cheapest constraints: solvers treat
# them exactly and as fast as no constraint. `mask` in the pool excludes completions, `exclude` pairs.

# %%
free = jd.optimize(pool, crit, jd.Budget(100, per_pair=1), prior=RIDGE)
capped = jd.optimize(pool, crit, jd.Budget(100, per_pair=1, per_prompt=2), prior=RIDGE)


def price(rule, without):
    """Efficiency that a rule costs: the best designs with it and without it lie between their values and bounds."""
    least = rule.certificate.lower_bound - without.certificate.value
    most = rule.certificate.value - without.certificate.lower_bound
    return f"{1 - np.exp(-least / pool.dim):.2%} to {1 - np.exp(-most / pool.dim):.2%}"


for name, design in (("one a pair", free), ("and two a prompt", capped)):
    counts = np.bincount(design.pairs[:, 0], design.labels, minlength=60)
    print(f"{name:17s} prompts used {np.sum(counts > 1e-9):2d}, most labels on one {counts.max():.1f}")
print("two a prompt cost, of the efficiency,", price(capped, free))

# %% [markdown]
# That is what a certificate is good for: the price of a rule is known before anybody is paid, as an interval that holds
# whatever the solver did.
#
# ## Quotas, minima, a spend limit
#
# Rules that tie prompts together. Groups may cross; numbers may be given group by group.

# %%
domain = np.array(["math", "code", "chat", "chat"] * 15)  # of every prompt
language = np.array(["en", "de"] * 30)  # crosses the domains
tokens = rng.integers(100, 900, size=(60, 6)).astype(float)
budget = jd.Budget(
    100,
    per_pair=1,
    per_prompt=4,
    quotas=[
        jd.Quota(domain, at_least={"math": 40}, name="domain"),
        jd.Quota(language, at_most=55, name="language"),
    ],
    cost=tokens,  # a label costs the two completions that are read ...
    cost_per_label=50.0,  # ... and this,
    cost_total=90_000.0,  # and all labels together at most this
    exclude=[(0, 0, 1)],
)
batch = jd.select_pairs(pool, crit, budget, prior=RIDGE)
p, i, j = batch.pairs.T
spent = (tokens[p, i] + tokens[p, j] + 50) @ batch.labels
print(batch.status)
print(f"proven efficiency {batch.certificate.efficiency:.3f}, spent {spent:,.0f}")
for name, of in (("domain", domain), ("language", language)):
    print(name, {str(group): int(batch.labels[of[p] == group].sum()) for group in np.unique(of)})

# %% [markdown]
# | you want | use |
# |---|---|
# | every prompt labelled | `Budget(..., per_prompt_min=1)` |
# | shares of domains, languages, sources | `Quota(names, at_least=..., at_most=...)`, several where they cross |
# | a spend limit | `cost=` per completion, `cost_per_label=`, `cost_total=` |
# | pairs that must be in; must not | `required=pairs`; `exclude=pairs` |
# | part of the labels drawn at random | `with_uniform_floor(pool, budget, share=0.2)` |
# | any other linear limit: readings of a completion, one person's time, tokens by source | `Constraint(charges, low, high, per=..., annotators=...)`: [extending](extending.ipynb) |
# | three labels on every chosen pair | `Budget(..., per_pair=3, labels_per_task=3)` |
#
# Budgets that tie prompts together are solved by mixtures of whole allocations, slower than caps alone and with a
# looser bound where many of them bind. For whole labels exchange then ends where it finds no allowed swap that helps,
# which is not a proof that there is none. If the certificate is not good enough, raise `max_passes` first.
#
# A budget that nothing can meet is refused before any work, with the constraints in conflict and how far each can go:

# %%
for wrong in (
    jd.Budget(100, per_prompt=1),
    jd.Budget(100, per_pair=1, quotas=jd.Quota(domain, at_least={"math": 60, "code": 60}, name="domain")),
    jd.Budget(100, per_pair=1, per_prompt_min=2),
):
    try:
        jd.optimize(pool, crit, wrong, prior=RIDGE)
    except ValueError as error:
        print(error)

# %% [markdown]
# ## A part at random
#
# A design is as good as its features. A share of labels drawn evenly from all pairs is an honest sample whatever the
# features miss, and lets you see afterwards how far the fit misses on pairs that nobody chose. It is paid for in
# efficiency; what is designed is designed around it.

# %%
floor = jd.with_uniform_floor(pool, jd.Budget(100, per_pair=1), share=0.25)
mixed = jd.optimize(pool, crit, floor, prior=RIDGE)
print(f"{len(floor.required)} labels at random cost, of the efficiency, {price(mixed, free)}")

# %% [markdown]
# ## Tasks of several labels
#
# Three people on every chosen pair: noise is averaged, and agreement can be measured. Fewer pairs are seen, so ask for
# it only where one label is not trusted.

# %%
thrice = jd.select_pairs(pool, crit, jd.Budget(99, per_pair=3, labels_per_task=3), prior=RIDGE)
print(np.unique(thrice.labels).tolist(), "labels a pair, on", len(thrice.pairs), "pairs")

# %% [markdown]
# ## Annotators
#
# Experts who are rarely wrong and cost nine times as much as a crowd that often is: who labels what? A label that is
# reversed with probability $\epsilon$ carries $c = [(1 - 2\epsilon)\sigma']^2 / (p (1 - p))$, so at margin 0 a label of
# somebody who is wrong one time in four is worth a quarter of a sure one. Pairs and people are chosen together, and
# certified together.

# %%
people = jd.Annotators(flip=[0.05, 0.25], cost=[900.0, 100.0], names=["expert", "crowd"])
for spend in (20_000, 60_000, 85_000):
    joint = jd.optimize(pool, crit, jd.Budget(100, per_pair=1, cost_total=spend), prior=RIDGE, annotators=people)
    share = joint.labels[joint.annotators == 0].sum()
    print(
        f"spend {spend:,}: {share:5.1f} labels by experts, value {joint.certificate.value:7.3f}, "
        f"proven efficiency {joint.certificate.efficiency:.4f}"
    )

# %% [markdown]
# `design.annotators` says who labels each row of `design.pairs`, by number; a pair that two of them label has two rows,
# and `per_pair` counts the labels of a pair by one of them. `at_most` and `at_least` are their capacities; `flip` may
# differ by prompt, (A, P), for people who know some languages only. Where reliabilities are not known they can be
# estimated from labels: [rounds](rounds.ipynb).
#
# Annotators share the features, and eight of them take about twice as long as one; what is kept of pairs and prompts
# grows with their number.
