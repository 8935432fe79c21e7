"""Random budgets that couple prompts, each with an allocation that obeys it, and the arithmetic they are judged by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxdesign import Budget, Quota
from tests.support.problems import COMPLETIONS, PROMPTS, random_pool, written_out

DOMAIN = np.array(["math", "code", "chat", "math", "code", "chat"])
LANGUAGE = np.array([0, 1, 1, 0, 0, 1])  # crosses the domains
TOTAL = 12


class Case(NamedTuple):
    """A pool, a budget, and whole labels that obey it."""

    pool: object
    budget: Budget
    pairs: np.ndarray
    labels: np.ndarray


def coupled_case(seed, per_pair=1, priced=True):
    """Limits drawn around random labels, some of them exactly on these; groups and costs in arrays of one shape."""
    rng = np.random.default_rng([seed, 7])
    pool = random_pool(seed, "no")
    pairs, _, _ = written_out(pool)
    labels = np.zeros(len(pairs))
    while labels.sum() < TOTAL:
        k = rng.integers(len(pairs))
        labels[k] += labels[k] < (per_pair or 3)
    spent = np.bincount(pairs[:, 0], labels, PROMPTS)
    quotas = []
    for name, of in (("domain", DOMAIN), ("language", LANGUAGE)):
        names = np.unique(of)
        held = np.array([spent[of == group].sum() for group in names])
        low = np.where(rng.random(len(names)) < 0.6, np.maximum(held - rng.integers(0, 3, len(names)), 0), 0)
        high = np.where(rng.random(len(names)) < 0.6, held + rng.integers(0, 3, len(names)), TOTAL)
        at_least, at_most = (dict(zip(names.tolist(), v.astype(float).tolist(), strict=True)) for v in (low, high))
        quotas.append(Quota(of, at_least, at_most, name))
    limits = {"per_pair": per_pair, "quotas": quotas}
    if rng.random() < 0.5:
        limits["per_prompt_min"] = np.maximum(spent - rng.integers(0, 3, PROMPTS), 0)
    if rng.random() < 0.5:
        limits["per_prompt"] = np.maximum(spent + rng.integers(0, 3, PROMPTS), 1)
    if priced:
        cost = rng.gamma(3, 1, (PROMPTS, COMPLETIONS))
        paid = labels @ (cost[pairs[:, 0], pairs[:, 1]] + cost[pairs[:, 0], pairs[:, 2]] + 0.5)
        limits |= {"cost": cost, "cost_per_label": 0.5, "cost_total": paid * rng.uniform(1, 1.2)}
    return Case(pool, Budget(TOTAL, **limits), pairs[labels > 0], labels[labels > 0])


def rows_of(budget, pairs):
    """(rows, low, high): the limits of a budget but its caps, written out for listed pairs; the total comes first."""
    rows, low, high = [np.ones(len(pairs))], [budget.total], [budget.total]
    for p in range(PROMPTS):
        rows.append((pairs[:, 0] == p).astype(float))
        low.append(0 if budget.per_prompt_min is None else np.broadcast_to(budget.per_prompt_min, PROMPTS)[p])
        high.append(np.inf if budget.per_prompt is None else np.broadcast_to(budget.per_prompt, PROMPTS)[p])
    for quota in budget.quotas:
        for group in np.unique(quota.of):
            rows.append((quota.of[pairs[:, 0]] == group).astype(float))
            low.append((quota.at_least or {}).get(group.item(), 0))
            high.append((quota.at_most or {}).get(group.item(), np.inf))
    if budget.cost_total is not None:
        rows.append(costs_of(budget, pairs))
        low.append(-np.inf)
        high.append(budget.cost_total)
    return np.array(rows), np.array(low, float), np.array(high, float)


def costs_of(budget, pairs):
    p, i, j = pairs.T
    return budget.cost[p, i] + budget.cost[p, j] + budget.cost_per_label


def obeys(budget, pairs, labels, slack=1e-6):
    rows, low, high = rows_of(budget, pairs)
    found = rows @ labels
    cap = np.inf if budget.per_pair is None else budget.per_pair
    within = (found >= low * (1 - slack) - slack).all() and (found <= high * (1 + slack) + slack).all()
    return bool(within and (labels >= 0).all() and (labels <= cap * (1 + slack)).all())
