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
# # Rounds over time
#
# Train on labels, sample from what was trained, ask again: who compares which answers in the next round depends on the
# last one, and so does where it all ends. `jaxdesign.dynamics` answers, before labels are paid for: where do my rounds
# end, do they get there, how far does my batch move the optimum, and should the next pairs be the policy's own at all?
# It changes nothing; designs stay what they are.
#
# ## What labels say about preferences
#
# P_ij = Pr(i beats j). Here are 60 labels of every pair of four answers of one prompt; nobody sees `truth`.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxdesign as jd
from jaxdesign import dynamics, preference

upper = np.zeros((4, 4))
upper[np.triu_indices(4, 1)] = [0.3, 0.1, -0.2, 0.25, 0.15, 0.35]
truth = 0.5 + upper - upper.T
counts = np.full((4, 4), 60) - 60 * np.eye(4)
won = np.triu(np.random.default_rng(0).binomial(60, truth), 1)
wins = won + np.tril(60 - won.T, -1)
known = dynamics.estimate_preferences(wins, counts, draws=500)
print("beats every other:", known.condorcet_probability.round(2), " Smith set:", np.flatnonzero(known.smith_set))
print(f"no scores explain {known.cyclic.share:.0%} of it; Bradley-Terry p = {known.bradley_terry.p_value:.1e}")

# %% [markdown]
# Draws of P are an axis that all that follows takes, so that answers come with what labels leave open. A single label a
# pair says nothing of one prompt's P; then use what holds for any preferences (`safe_for_all`, below), or the test of
# `sampler_shift`, which pools prompts.
#
# ## Where rounds end, and whether they get there
#
# A `LoopPlan` says what a round does, x = log pi: x+ = alpha x + (1 - alpha) x_ref + strength u, u the scores that the
# labels teach, strength = 1 / tau of IPO or 1 / beta of DPO, and `share` of the compared answers the policy's own. With
# alpha below 1 there is exactly one policy that a round of IPO leaves as it is (`fixed_point`). Whether rounds get
# there is another question:

# %%
plan = dynamics.LoopPlan(alpha=0.6, strength=9.0, share=0.7)
found = dynamics.stability(known.draws, plan)
print("ends at", np.exp(found.fixed_point.log_policy).mean(0).round(3))
print(f"rho {found.rho.min():.2f} to {found.rho.max():.2f}; below 1 in {found.probability:.0%} of the draws")
print(f"certified in {found.proven:.0%}; a certificate needs a share of {found.largest_share.min():.2f} or less")

# %% [markdown]
# `rho`, the rate close to the fixed point, is exact and proves nothing about a start elsewhere: below, it is .82, and
# rounds from the reference policy circle through three policies for ever. So `stability` never calls a loop stable for
# its rate. It names its `evidence`: a certificate (C1, C1R, C2: all starts), a simulation (the start it was given), or
# none.

# %%
upper = np.zeros((5, 5))
upper[np.triu_indices(5, 1)] = [-0.4, -0.4, -0.4, 0.2, 0.1, -0.3, -0.4, -0.3, -0.3, 0.1]
trap, reference = 0.5 + upper - upper.T, np.array([1.0, 1, 0, -2, -1])
jump = dynamics.LoopPlan(alpha=0.0, strength=20.0, reference=reference)
for name, start in (("reference", reference), ("uniform", np.zeros(5))):
    at = dynamics.stability(trap, jump, start)
    regime = dynamics.Regime(int(at.simulated.regime)).name
    print(f"from the {name} policy: rho {at.rho:.2f}, {regime}, evidence {dynamics.Evidence(int(at.evidence)).name}")

# %% [markdown]
# ## What to change
#
# The limit depends on strength / (1 - alpha) alone. `fastest_plan` keeps it and takes the pair that gets there fastest;
# training each round only part of the way does the same. Whatever the preferences are, rounds of IPO end at one policy
# if alpha + strength x share / 2 < 1.

# %%
slow = dynamics.LoopPlan(alpha=0.5, strength=3.8)  # the three-cycle .9, .9, .9 turns it
cycle = 0.5 + 0.4 * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
quick = dynamics.fastest_plan(slow, dynamics.stability(cycle, slow).omega)
print(f"alpha {quick.plan.alpha:.3f}, strength {quick.plan.strength:.3f}: rho {quick.rho:.3f}")

figure, axes = plt.subplots(1, 2, figsize=(8, 2.4), sharey=True)
for axis, (name, used) in zip(
    axes, {"alpha 0.5, strength 3.8": slow, "the fastest plan": quick.plan}.items(), strict=True
):
    path = dynamics.iterate(cycle, used, [0.4, 0.0, -0.2], steps=150, keep=50)
    regime = dynamics.Regime(int(path.regime)).name.lower()
    axis.plot(np.exp(path.kept))
    axis.set(title=f"{name}: {regime}", xlabel="last 50 of 150 rounds", ylim=(0, 1))
axes[0].set_ylabel("probability of each answer")
plt.show()

# %% [markdown]
# `python -m bench.experiments.phase_diagrams` draws the whole map of alpha, strength and share, the certificates beside
# the simulation ([picture](../bench/results/phase-diagrams.png), [counts](../bench/README.md)). At alpha = 1 nothing
# pulls back: a best answer takes all, a cycle spirals outward (`iterate` says COLLAPSING or SPIRALLING, `fixed_point`
# refuses).
#
# Rounds of n labels are noisy, and noise is amplified close to the threshold:

# %%
for strength in (1.0, 3.0, 3.6):
    noise = dynamics.round_noise(cycle, dynamics.LoopPlan(0.5, strength), labels_per_round=300)
    print(
        f"strength {strength}: wanders {noise.kl:.4f} nats from its limit; "
        f".001 needs {noise.labels_for(0.001):,.0f} labels a round"
    )

# %% [markdown]
# ## Does the batch move the optimum?
#
# Where features and the Bradley-Terry model are right, no choice of pairs moves what DPO converges to. Where they are
# not, it does: here rewards flatten out, and a design asks for long pairs, whose rewards differ by less than their
# features say. `sampler_shift` fits the labels as they are and with weights to the law that matters (the policy's own
# pairs), and asks whether noise explains the difference.

# %%
rng = np.random.default_rng(1)
tails = np.sqrt(3 / rng.chisquare(3, (150, 6, 1)))
pool = jd.CompletionPool(tails * rng.standard_normal((150, 6, 3)))
features = np.asarray(pool.features)
rewards = 3 * np.tanh(features[..., 0]) + 0.3 * features[..., 1]
target = jd.policy_target(pool)

i, j = np.triu_indices(6, 1)
every = np.stack([np.repeat(np.arange(150), 15), np.tile(i, 150), np.tile(j, 150)], axis=1)
drawn = preference.simulate_labels(jax.random.key(1), rewards, rng.permutation(every)[:600])
batch = jd.select_pairs(pool, jd.Trace(target), jd.Budget(1200, per_pair=6), prior=1.0)
tasks = preference.make_tasks(0, batch.pairs, batch.labels)
designed = preference.simulate_labels(
    jax.random.key(0), rewards, [task.pair for task in tasks], repeats=np.array([task.repeat for task in tasks])
)
held = preference.concatenated(drawn, designed)

own = np.zeros((150, 6))  # log-probabilities of the answers that matter: all alike
shift = dynamics.sampler_shift(pool, held, own, beta=0.5, target=target)
low, high = shift.gap_interval
print(f"p = {shift.p_value:.0e}: weights are worth {shift.gap:.2f} [{low:.2f}, {high:.2f}] in reward")
print(f"they leave {shift.effective:.0%} of the labels and cannot reach {shift.uncovered:.0%} of the law")
print("w by the labels as they are", shift.plain.round(2), "and with weights", shift.weighted.round(2))
print("temper of the weights:", dynamics.best_temper(pool, held, own, beta=0.5, target=target).temper)

# %% [markdown]
# `check_round` says all of this at once before a round, with reasons, and `run_rounds(check=...)` keeps what it said
# with each round. Nothing is changed silently: to follow its advice, pass `importance_weights` to
# `preference.importance_weighted_dpo_loss`.

# %%
report = dynamics.check_round(pool, batch, plan, beta=0.5, labels=held, target=target, preferences=known.draws)
for entry in report.advice:
    print(f"{entry.about}: {entry.do}\n    {entry.because}")

# %% [markdown]
# ## Whose pairs next: which stage am I in?
#
# | question | function | use it to |
# |---|---|---|
# | do on-policy answers win more than half of their comparisons with others? | `boundary_score` | watch a run |
# | is a label worth more on an on-policy pair, for what is known already? | `stage_value` | decide |

# %%
wins = rng.binomial(8, rng.beta(2.6, 2.0, 400))  # 400 prompts, 8 votes each, on-policy against off-policy
score = dynamics.boundary_score(wins, np.full(400, 8), flip=0.1)  # by a scorer that errs one time in ten
alike = jd.CompletionPool(0.6 * rng.standard_normal((400, 4, 16)))  # on-policy answers resemble each other
other = jd.CompletionPool(rng.standard_normal((400, 4, 16)))
value = dynamics.stage_value(alike, other, jd.Trace(jd.policy_target(alike)), prior=1.0)
print(f"score {score.score:.2f} [{score.low:.2f}, {score.high:.2f}], decided {score.decided:+d} by {score.evidence}")
print(f"an on-policy pair is worth {value.ratio:.2f} [{value.low:.2f}, {value.high:.2f}] of an off-policy one")

# %% [markdown]
# On-policy answers win more than half, and yet a label of an off-policy pair is worth almost three times as much: the
# score alone would send the budget to the wrong place. **"Wins more than half" is not closeness to the ideal policy**:
# with rewards (2, 0, -2), an on-policy (.97, .02, .01) wins .57 against an off-policy (.80, .15, .05) and is five times
# as far from the ideal softmax(2, 0, -2) in KL; a policy that has collapsed on one good answer wins, too. What a score
# is good for is a trend:
#
# - Prompts are the units. Eight votes on one prompt resemble each other; the interval counts effective votes.
# - The interval holds for a number of votes fixed beforehand. Who looks again and again uses the e-value, which may be
#   looked at whenever one likes, and costs more votes. `more_votes` and `more_votes_any_time` say how many are missing.
# - A scorer that errs at random with probability `flip` is corrected for. One that prefers a position or length is not:
#   score both orders, and calibrate on labels.
#
# The value knows what the score does not: which directions matter now and which are known. It speaks of pairs drawn at
# random, and takes the features for right.
#
# ## Losses, selectors and metrics of related work
#
# In `jaxdesign.preference`, each a pure function with its formula and source:
#
# | question | function |
# |---|---|
# | labels are shares of votes, or probabilities | `soft_label_dpo_loss` (arXiv 2509.24159) |
# | which labels of a policy's training set are right | `label_log_odds`, `label_posterior`, `updated_reliability` (RE-PO, arXiv 2509.24159) |
# | labels are noisy, annotators unknown | `ropo_loss` (arXiv 2404.04102) |
# | rewards of whole lists are known | `listwise_exo_loss` (arXiv 2402.00856) |
# | a loss's authors divide by length | `per_token` |
# | candidates nearer to the optimal policy | `accepted`, `acceptance_probabilities` (RSO, arXiv 2309.06657) |
# | does the policy rank as the rewards do | `ranking_accuracy`, `strength_correlation` (HEAL, arXiv 2508.19922) |
#
# Left out, and why:
#
# | method | why | nearest thing that is here |
# |---|---|---|
# | SymPO's clip (2505.24709) | outside of +-10 its gradient is 0: a label is dropped silently | `sigmoid_loss`, `ramp_loss` |
# | RecPO (2506.02261) | ratings with times on a loss of lists: recommendation, not pairs | `margin_dpo_loss` |
# | PD selector (2508.07638) | filters labels that were paid for; needs a reward per aspect | a design before labelling |
# | SAGE (2602.01207) | its score is not established from what could be read | `pair_sensitivities` |
# | PMPO (2410.04166), PIPA (2502.05773) | unpaired labels: no pair to design | |
# | reward-augmented DPO (2410.08067) | a matter of prompts' text, then plain DPO | `dpo_loss` |
# | BMC (2408.07471) | writes new completions and weighs tokens | |
# | SSO (2410.17131) | trains what generates pairs | `per_token`, `dpo_loss` |
# | SimPO (2405.14734) | no reference policy, so labels tell another quantity than certificates are about | `margin_dpo_loss` |
