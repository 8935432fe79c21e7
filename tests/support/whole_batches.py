"""Small pools of which every whole batch can be written out, and the bound on their values."""

from itertools import combinations_with_replacement

import numpy as np

from jaxdesign import CompletionPool, LogDet, Trace, WorstCase
from jaxdesign.budget.budget import whole_budget
from jaxdesign.certificates import whole
from jaxdesign.certificates.worst_case import with_mixture
from jaxdesign.door import make_problem
from jaxdesign.exact.choices import in_tasks
from tests.support.problems import (
    random_arrays,
    random_flips,
    random_spd,
    written_out,
)

PROMPTS, COMPLETIONS, DIM = 4, 3, 6  # 12 pairs in 6 dimensions
GROUP = np.array(["a", "b", "a", "b"])
H = random_spd(3, DIM)
DRAWN_H = np.stack([random_spd(3 + k, DIM) for k in range(3)])
CRITERIA = {
    "LogDet": LogDet(),
    "Trace": Trace(H),
    "low rank": Trace(random_spd(4, DIM, 2)),
    "worst case": WorstCase([H, random_spd(5, DIM)]),
}
COST = np.random.default_rng(0).gamma(2, 1, (PROMPTS, COMPLETIONS))


def pool_of(seed, scores="no", flip=None, scales=0.0):
    """Pairs in as many directions as there are, of lengths that differ by e^scales or so, and nearly parallel ones."""
    features, u, mask = random_arrays(
        seed, PROMPTS, COMPLETIONS, DIM, 3 if scores == "draws" else None, ragged=False, copies=False
    )
    rng = np.random.default_rng([seed, 3])
    features = features * np.exp(scales * rng.standard_normal((PROMPTS, COMPLETIONS, 1)))
    if seed % 2:  # one completion of every prompt far away in the same direction: few directions, large leverages
        features[:, 0] += 20 * np.eye(DIM)[0]
    flips = random_flips(seed, mask, flip)
    return CompletionPool(features.astype(np.float32), None if scores == "no" else u, mask, flip=flips)


def bound_of(pool, criterion, budget, prior, size=1):
    """The bound as `select_pairs` takes it, and the problem."""
    problem = make_problem(pool, criterion, whole_budget(budget), prior)
    if isinstance(criterion, WorstCase):
        problem = with_mixture(problem, np.ones(len(criterion.names)))
    return whole.whole_bound(problem, in_tasks(problem, size).limits, size), problem


def batches(count, total):
    """Labels of every whole batch, (N, count)."""
    ways = np.array(list(combinations_with_replacement(range(count), total)))
    return np.stack([np.sum(ways == k, axis=1) for k in range(count)], axis=1)


def values(criterion, z, c, labels, prior):
    """The criterion of many batches in plain NumPy, (N,)."""
    outer = np.einsum("rs,sd,se->rsde", c, z, z)
    matrices = prior + np.einsum("ns,rsde->nrde", labels, outer)
    if isinstance(criterion, LogDet):
        return -np.linalg.slogdet(matrices)[1].mean(axis=1)
    if isinstance(criterion, WorstCase):
        targets = [np.einsum("de,nred->n", T, np.linalg.inv(matrices)) / len(c) for T in np.asarray(criterion.H)]
        return np.max(targets, axis=0)
    target = np.broadcast_to(np.asarray(criterion.H), (len(c), DIM, DIM))
    return np.einsum("rde,nred->n", target, np.linalg.inv(matrices)) / len(c)


def allowed(pairs, labels, budget):
    """Which batches obey a budget, in plain NumPy."""
    spent = np.stack([labels[:, pairs[:, 0] == p].sum(axis=1) for p in range(PROMPTS)], axis=1)
    good = np.ones(len(labels), bool)
    if budget.per_pair is not None:
        good &= labels.max(axis=1) <= budget.per_pair
    if budget.per_prompt is not None:
        good &= (spent <= budget.per_prompt).all(axis=1)
    if budget.per_prompt_min is not None:
        good &= (spent >= budget.per_prompt_min).all(axis=1)
    for quota in budget.quotas:
        held = {name: spent[:, quota.of == name].sum(axis=1) for name in np.unique(quota.of).tolist()}
        for name, most in (quota.at_most or {}).items():
            good &= held[name] <= most
        for name, least in (quota.at_least or {}).items():
            good &= held[name] >= least
    if budget.cost_total is not None:
        p, i, j = pairs.T
        good &= labels @ (budget.cost[p, i] + budget.cost[p, j]) <= budget.cost_total
    return good


def check_below(criterion, pool, budget, prior, best_of=None):
    """The bound against every batch there is; returns both."""
    pairs, z, c = written_out(pool)
    labels = batches(len(pairs), int(budget.total))
    labels = labels[allowed(pairs, labels, budget)]
    best = values(criterion, z, c, labels, prior * np.eye(DIM) if np.ndim(prior) == 0 else prior).min()
    bound, _ = bound_of(pool, criterion, budget, prior)
    assert bound <= best + 1e-9 * max(1, abs(best)), (bound, best)
    return bound, best
