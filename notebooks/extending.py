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
# # Extending: a criterion, a solver, a constraint, a source of your own
#
# Each is one object that you pass in. Nothing has to be registered or edited elsewhere, and what comes back is
# certified like any other result, with the package's own bounds. The tests of `tests/extensions` hold each of these
# against an independent truth; take them as models for testing yours.

# %%
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxdesign as jd
from jaxdesign.pricing import as_chunk, folded, memory_source, pair_rows
from jaxdesign.solvers import ColumnGeneration, SolverState

rng = np.random.default_rng(0)
pool = jd.CompletionPool(rng.standard_normal((12, 4, 3)).astype("float32"))
budget = jd.Budget(20, per_pair=1, per_prompt=3)
RIDGE = 0.05

# %% [markdown]
# ## A criterion
#
# A criterion is a function of the information matrix $A$ that is convex and decreasing. Say the value, and how it
# scales:
#
# | `degree` | means | the bound it gives |
# |---|---|---|
# | `-1` | $f > 0$ and $1/f$ is concave and of degree 1 in $A$, as for $\mathrm{tr}(H A^{-1})$ | efficiency = bound / value |
# | `0` | $e^{-f/s}$ is concave and of degree 1, as for $-\log\det A$ with $s = d$ | efficiency = $e^{-\text{gap}/s}$ |
# | `None` | nothing more is known | a gap; efficiency NaN |
#
# Gradients, curvature and factors come from `jax`. Kiefer's $\phi_2$, $(\mathrm{tr} A^{-2} / d)^{1/2}$, punishes the
# worst directions more than a trace does:


# %%
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PhiTwo(jd.ConvexCriterion):
    """(tr A^-2 / d)^(1/2), averaged over draws."""

    degree: ClassVar = -1
    infinite_where_singular: ClassVar = True

    def value(self, information):  # (d, d), or (R, d, d) for R draws
        inverse = jnp.linalg.inv(information)
        return jnp.mean(jnp.sqrt(jnp.sum(inverse * inverse, axis=(-2, -1)) / information.shape[-1]))


design = jd.optimize(pool, PhiTwo(), budget, prior=RIDGE)
batch = jd.select_pairs(pool, PhiTwo(), budget, prior=RIDGE)
print(f"real labels:  {design.certificate.efficiency:.4f} of the best. {design.status}")
print(f"whole labels: {batch.certificate.efficiency:.4f}, by {batch.report['method']}")
inside = jax.jit(lambda pool: jd.solvers.frank_wolfe(pool, PhiTwo(), budget, prior=RIDGE, passes=200)[1].efficiency)
print(f"inside jit:   {inside(pool):.4f}")

# %% [markdown]
# Everything works with it: all solvers, greedy choice, exchange, the solvers inside `jit`. That a criterion decreases
# is checked at the even allocation; that it is convex cannot be, and a bound for one that is not convex is worth
# nothing. Where you know more, override it: `gradient`, `factors` (with $F F^T = G$, so that nothing cancels),
# `curvature`, and `expression` for the cvxpy reference.
#
# For a quick try a function will do. Its degree is not known, so it has a gap and no efficiency:

# %%
spread = jd.Criterion(lambda A: jnp.sum(jnp.linalg.inv(A) ** 2))
rough = jd.optimize(pool, spread, budget, prior=RIDGE)
print(
    f"value {rough.certificate.value:.4f}, gap {rough.certificate.gap:.1e}, efficiency {rough.certificate.efficiency}"
)

# %% [markdown]
# ## A solver
#
# `optimize(..., solver=...)` takes a name, `column_generation` (the default), `matrix_atoms`, `interior_point`,
# `frank_wolfe` or `multiplicative`, or an object of your own. A solver is two pure functions, `init` and `step`. The
# loop around them prices the pool, certifies, keeps the best allocation met, tells the callback and stops: a solver
# cannot certify itself. `step` gets a `Scored` state, with the answer of the linear oracle over the whole pool. An
# attribute `obeys`, a frozenset of fields of `Budget`, says whose limits the solver obeys; without it, all.
# Frank-Wolfe in its first form (Wynn 1970) is a step $1/(k+2)$ towards that answer:


# %%
class Wynn(NamedTuple):
    """Steps of 1 / (k + 2) towards the answer of the linear oracle."""

    max_passes: int = 400
    patience: int = 400  # passes without a smaller gap before it gives up

    def init(self, problem, start):
        return ColumnGeneration().init(problem, start)

    def step(self, problem, state: SolverState, scored, tol):
        length = 1 / (state.passes + 2)
        oracle = scored.priced.oracle.labels
        pairs = np.concatenate([state.pairs, scored.priced.pairs])
        labels = np.concatenate([(1 - length) * state.labels, length * oracle * problem.limits.total / oracle.sum()])
        pairs, place = np.unique(pairs, axis=0, return_inverse=True)
        labels = np.bincount(place.ravel(), labels)
        return state._replace(pairs=pairs[labels > 0].astype(np.int32), labels=labels[labels > 0])


for name, solver in (("Wynn", Wynn()), ("the default", None)):
    design = jd.optimize(pool, jd.LogDet(), jd.Budget(20), solver=solver, tol=5e-4, max_passes=100)
    print(f"{name}: {design.certificate.efficiency:.5f} of the best after {design.passes} passes. {design.status}")

# %% [markdown]
# ## A constraint
#
# Any linear limit on labels: `Constraint(charges, low, high, per=...)`. A label of pair $(p, i, j)$ uses `charges` of a
# row; `per` says which rows there are: one for all, one a prompt, one a completion, or one for each name that you give.
# Here no completion is to be read more than twice, and the labels of each of three sources are to read at most so many
# tokens:

# %%
tokens = rng.integers(50, 400, size=(12, 4)).astype(float)
source = np.array(["forum", "manual", "chat"] * 4)
limits = [
    jd.Constraint(1, high=2, name="readings", per="completion"),
    jd.Constraint(tokens, high={"forum": 2500.0, "manual": 4000.0}, name="tokens", per=source),
]
batch = jd.select_pairs(pool, jd.LogDet(), jd.Budget(20, per_pair=1, constraints=limits), prior=RIDGE)
p, i, j = batch.pairs.T
readings = np.zeros((12, 4))
np.add.at(readings, (np.tile(p, 2), np.concatenate([i, j])), np.tile(batch.labels, 2))
read = np.bincount(np.unique(source, return_inverse=True)[1][p], batch.labels * (tokens[p, i] + tokens[p, j]))
print(
    f"at most {readings.max():.0f} readings of a completion; tokens",
    dict(zip(np.unique(source).tolist(), read.tolist(), strict=True)),
)
print(f"proven efficiency {batch.certificate.efficiency:.3f}")

# %% [markdown]
# `annotators=` limits the labels of some people only: `Constraint(easy, high=2, annotators="expert")` keeps the
# expert's time for what is hard, with `easy` 1 for prompts that a crowd can judge. Constraints may cross in any way;
# the bound is Lagrange's, with a price for every row, and holds over all pairs of the pool. What nothing can obey is
# refused in words:

# %%
try:
    jd.optimize(
        pool, jd.LogDet(), jd.Budget(30, constraints=jd.Constraint(1, high=1, name="readings", per="completion"))
    )
except ValueError as error:
    print(error)

# %% [markdown]
# ## A source
#
# A pool that does not fit in memory, or is never stored at all, is a source: five numbers (`prompts`, `completions`,
# `dim`, `draws`, `dtype`) and three methods. `fold` visits all prompts in order, chunk by chunk, with a function it is
# given; `rows` gives listed pairs exactly; `subset` some prompts in memory. Here features stay in a file, and a pass
# reads 250 prompts at a time:


# %%
class OnDisk:
    """Features of a .npy file, (prompts, completions, dimension)."""

    draws, dtype = 1, np.dtype(np.float32)

    def __init__(self, path, length=250):
        self.features, self.length = np.load(path, mmap_mode="r"), length
        self.prompts, self.completions, self.dim = self.features.shape

    def pool(self, prompts):
        return jd.CompletionPool(np.asarray(self.features[prompts]))

    def fold(self, kernel, carry, per_prompt=None, merge=None):  # one chunk after the other: nothing to merge
        parts = (slice(start, start + self.length) for start in range(0, self.prompts, self.length))
        return folded((as_chunk(self.pool(part)) for part in parts), kernel, carry, per_prompt)

    def rows(self, pairs):  # always as many at a time: compiled once
        return pair_rows(self.pool(pairs[:, 0]), np.column_stack([np.arange(len(pairs)), pairs[:, 1:]]))

    def subset(self, prompts):
        return memory_source(self.pool(prompts))


file = Path(tempfile.mkdtemp()) / "features.npy"
np.save(file, rng.standard_normal((1100, 6, 8)).astype("float32"))
read, held = (
    jd.optimize(pool, jd.LogDet(), jd.Budget(200, per_pair=1))
    for pool in (OnDisk(file), jd.CompletionPool(np.load(file)))
)
print(f"{read.certificate.efficiency:.4f} of the best. {read.status}")
print("the same pairs as in memory:", bool((read.pairs == held.pairs).all()))

# %% [markdown]
# Designs and certificates are those of the same features in memory. Every fold must visit the same numbers: a
# certificate says of the pairs that were not listed that a pass has seen them. `optimize`, `evaluate`,
# `select_pairs`, `label_curve` and `restrict_to_range` take sources; the solvers inside `jit` and the baselines need the
# pool in memory, and say so:

# %%
try:
    jd.baselines.first_two(OnDisk(file), jd.LogDet(), jd.Budget(200, per_pair=1))
except TypeError as error:
    print(error)
