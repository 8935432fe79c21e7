"""Random budgets, drawn around labels that obey them, so that every budget can be met."""

from __future__ import annotations

import numpy as np

from .allowed import rows_of_constraint


def pairs_of(features, exists) -> np.ndarray:
    """(E, 3) candidate pairs."""
    prompts, completions = exists.shape
    found = [
        (p, i, j)
        for p in range(prompts)
        for i in range(completions)
        for j in range(i + 1, completions)
        if exists[p, i] and exists[p, j] and (features[p, i] != features[p, j]).any()
    ]
    return np.array(found, np.int64).reshape(-1, 3)


def draw_total(rng, dim, limits) -> int:
    kind = rng.choice(["one", "few", "dimension", "usual", "many"], p=[0.1, 0.15, 0.15, 0.5, 0.1])
    total = {"one": 1, "few": int(rng.integers(2, 4)), "dimension": dim, "usual": int(rng.integers(5, 17))}.get(kind)
    return int(10 ** rng.choice([2, 3, 4, 6])) if total is None else total


def draw_budget(rng, features, exists, limits: str, whole: bool):
    """Arguments of a budget and of annotators, and labels that obey both."""
    prompts = len(exists)
    pairs = pairs_of(features, exists)
    total = draw_total(rng, features.shape[2], limits)
    everything = limits == "everything"

    def has(*names):
        return limits in names or (everything and rng.random() < 0.5)

    count = 2 if limits == "annotators" else 1
    elements = np.repeat(np.column_stack([pairs, np.zeros(len(pairs), int)]), count, axis=0)
    elements[:, 3] = np.tile(np.arange(count), len(pairs))
    size = len(elements)
    if size == 0:  # no pair can be told apart: to be refused
        return {"total": float(total)}, None, np.zeros((0, 5))
    task = int(rng.choice([2, 3])) if limits == "tasks" else 1
    labels = np.zeros(size)
    budget = {}
    if has("cap", "both", "required") or (limits not in ("total", "quota") and rng.random() < 0.3):
        cap = rng.choice([1, 1, 2, 3], prompts) if rng.random() < 0.3 else np.full(prompts, rng.choice([1, 1, 2, 3]))
        cap = cap.astype(float) * task
        if rng.random() < 0.2:
            cap[rng.random(prompts) < 0.3] = np.inf
        budget["per_pair"] = float(cap[0]) if (cap == cap[0]).all() and rng.random() < 0.8 else cap
        room = cap[elements[:, 0]]
    else:
        room = np.full(size, np.inf)
    home = None
    if total > 3 * size:
        open_ = np.flatnonzero(np.isinf(room))
        if len(open_) and has("quota") and rng.random() < 0.6:  # nearly all labels in one prompt, quotas on the others
            home = elements[rng.choice(open_), 0]
            labels = np.where(elements[:, 0] == home, 0, task * rng.integers(0, 2, size)).astype(float)
            open_ = open_[elements[open_, 0] == home]
        if len(open_):
            labels[open_] = task * rng.multinomial(total // task, rng.dirichlet(np.full(len(open_), 0.5)))
        else:
            total = size
    if not labels.any():
        for _ in range(max(total // task, 1)):
            fits = np.flatnonzero(labels + task <= room)
            if not len(fits):
                break
            labels[rng.choice(fits)] += task
    if not labels.any():
        labels[0] = task
    if not whole and task == 1 and "per_pair" not in budget and rng.random() < 0.3:
        labels = labels * rng.uniform(0.4, 2.5)
    spent = np.bincount(elements[:, 0], labels, prompts)
    if has("required") and task == 1 and (labels > 0).sum() > 1 and labels.sum() < 200:
        chosen = rng.choice(np.flatnonzero(labels > 0), size=rng.integers(1, max(2, (labels > 0).sum() // 2)))
        chosen = np.unique(chosen)[: max(1, (labels > 0).sum() - 1)]
        labels[chosen] = np.maximum(np.floor(labels[chosen]), 1)
        budget["required"] = np.repeat(elements[chosen, :3], labels[chosen].astype(int), axis=0)
    if has("exclude") and (labels == 0).any():
        empty = np.flatnonzero(labels == 0)
        closed = rng.choice(empty, size=rng.integers(1, len(empty) + 1), replace=False)
        if count == 1:
            budget["exclude"] = elements[closed][:, [0, 2, 1]]  # (p, j, i) is the same pair
    spent = np.bincount(elements[:, 0], labels, prompts)
    if has("quota", "both"):
        quota = np.maximum(spent + rng.choice([0, 0, 1, 3], prompts), 1.0)
        if home is not None:
            quota[home] = np.inf
        if rng.random() < 0.3:
            quota[rng.random(prompts) < 0.4] = np.inf
        budget["per_prompt"] = float(quota.max()) if rng.random() < 0.4 else quota
    if has("minima"):
        budget["per_prompt_min"] = np.maximum(spent - rng.choice([0, 1, 2], prompts), 0.0)
    if has("groups"):
        budget["quotas"] = []
        for name in ("domain", "language")[: rng.integers(1, 3)]:
            of = rng.integers(0, min(3, prompts), prompts)
            names = np.unique(of)
            held = np.array([spent[of == group].sum() for group in names])
            low = np.where(rng.random(len(names)) < 0.6, np.maximum(held - rng.choice([0, 0, 1, 2], len(names)), 0), 0)
            high = np.where(rng.random(len(names)) < 0.6, held + rng.choice([0, 0, 1, 2], len(names)), np.inf)
            at_least, at_most = (dict(zip(names.tolist(), map(float, v), strict=True)) for v in (low, high))
            budget["quotas"].append({"of": of, "at_least": at_least, "at_most": at_most, "name": name})
    annotators = None
    if count == 2:
        held = np.bincount(elements[:, 3], labels, count)
        annotators = {"flip": np.round(rng.uniform(0, 0.4, count), 3) * (rng.random(count) < 0.8)}
        if rng.random() < 0.5:
            annotators["at_most"] = held + rng.choice([0.0, 1.0, 3.0], count)
        if rng.random() < 0.3:
            annotators["at_least"] = np.maximum(held - rng.choice([0.0, 1.0], count), 0)
        if rng.random() < 0.5:
            annotators["cost"] = rng.choice([0.0, 0.5, 1.0, 4.0], count)
    if has("constraints"):
        budget["constraints"] = [
            draw_constraint(rng, elements, labels, exists, count, name)
            for name in ("reading", "seen")[: rng.integers(1, 3)]
        ]
    if has("costs") or (annotators is not None and "cost" in annotators):
        cost = rng.choice([0.0, 1.0, 5.0], exists.shape) if rng.random() < 0.6 else rng.gamma(3, 1, exists.shape)
        budget["cost"] = np.where(exists, cost, np.nan)
        budget["cost_per_label"] = float(rng.choice([0.0, 0.5]))
        p, i, j, a = elements.T
        own = 0.0 if annotators is None or "cost" not in annotators else annotators["cost"][a]
        paid = float(labels @ (cost[p, i] + cost[p, j] + budget["cost_per_label"] + own))
        budget["cost_total"] = paid * rng.choice([1.0, rng.uniform(1, 1.3)]) if paid > 0 else 1.0
    if task > 1:
        budget["labels_per_task"] = task
    budget["total"] = float(labels.sum())
    used = labels > 0
    return budget, annotators, np.column_stack([elements[used], labels[used]])


def draw_constraint(rng, elements, labels, exists, count: int, name: str) -> dict:
    """A constraint of any kind that the labels obey, often just so."""
    prompts = len(exists)
    kind = rng.choice(["number", "prompts", "completions"])
    charges = {"number": 1.0, "prompts": rng.choice([0.0, 1.0, 2.5], prompts),
               "completions": rng.choice([0.0, 1.0, 3.0], exists.shape)}[kind]  # fmt: skip
    per = [None, "prompt", "completion", "groups", "names"][rng.integers(0, 5 if kind == "completions" else 4)]
    if per == "groups":
        per = rng.integers(0, 3, prompts)
    elif per == "names":
        per = rng.integers(0, 4, exists.shape)
    found = {"charges": charges, "per": per, "name": name}
    if count > 1 and rng.random() < 0.5:
        found["annotators"] = (str(rng.integers(0, count)),)
    used = [float(of @ labels) for of in rows_of_constraint(found, elements).values()]
    found["high"] = max(used, default=0.0) + rng.choice([0.0, 0.0, 1.0, 2.0])
    if rng.random() < 0.3 and not isinstance(per, str):  # rows that no pair of the pool touches use nothing
        found["low"] = max(min(used, default=0.0) - rng.choice([0.0, 1.0]), 0.0) if per is None else 0.0
    return found
