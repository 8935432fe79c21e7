"""What a budget allows, written out element by element: the checker of budgets, and a linear program over it.

Made from the plain arguments of a budget, not from the library's `Budget`, by rules read in its documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp


class Row(NamedTuple):
    """low <= of . labels <= high."""

    name: str
    of: np.ndarray  # (E,)
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Allowed:
    """Allocations over E elements: `fixed` labels, at most `cap` more, rows; whole ones in steps of `task`."""

    total: float
    fixed: np.ndarray  # (E,)
    cap: np.ndarray  # (E,) of what is not fixed, 0 for what is closed
    rows: tuple[Row, ...]
    whole: bool
    task: int
    prompts: np.ndarray  # (E,)
    quota: np.ndarray | None  # (P,) labels a prompt may get besides the fixed ones, where nothing else couples prompts

    @property
    def laminar(self) -> bool:
        """Whether only caps and largest numbers per prompt limit the labels."""
        return self.quota is not None


def written_rules(rows_of_elements, count_prompts: int, budget: dict, annotators: dict | None, whole: bool) -> Allowed:
    """The rules of `Budget(**budget)` and `Annotators(**annotators)` over elements (E, 4)."""
    p, i, j, a = rows_of_elements.T
    size = len(p)

    def per_prompt(name, absent):
        found = budget.get(name)
        return np.broadcast_to(np.asarray(absent if found is None else found, float), (count_prompts,))

    cap, most, least = per_prompt("per_pair", np.inf), per_prompt("per_prompt", np.inf), per_prompt("per_prompt_min", 0)
    if whole:
        cap, most, least = np.floor(cap), np.floor(most), np.ceil(least)
    total = float(budget["total"])
    fixed, closed = np.zeros(size), np.zeros(size, bool)
    for pairs, required in ((budget.get("exclude"), False), (budget.get("required"), True)):
        for q, k, l in np.asarray(pairs if pairs is not None else np.zeros((0, 3), int), int):
            hit = (p == q) & (i == min(k, l)) & (j == max(k, l))
            closed |= hit
            fixed += hit * float(required)
    rows = []
    for q in range(count_prompts):
        if np.isfinite(most[q]) or least[q] > 0:
            rows.append(Row(f"prompt {q}", (p == q).astype(float), least[q], most[q]))
    couples = bool((least > 0).any())
    for quota in budget.get("quotas", ()):
        of = np.asarray(quota["of"])
        for name in np.unique(of).tolist():
            low, high = (_limit(quota.get(field), name, absent) for field, absent in
                         (("at_least", 0.0), ("at_most", np.inf)))  # fmt: skip
            if whole:
                low, high = np.ceil(low), np.floor(high)
            rows.append(Row(f"{quota['name']} {name}", (of[p] == name).astype(float), low, high))
            couples = True
    for k in range(0 if annotators is None else len(annotators["flip"])):
        low, high = (absent if annotators.get(field) is None else float(annotators[field][k])
                     for field, absent in (("at_least", 0.0), ("at_most", np.inf)))  # fmt: skip
        if whole:
            low, high = np.ceil(low), np.floor(high)
        rows.append(Row(f"annotator {k}", (a == k).astype(float), low, high))
        couples = True
    if budget.get("cost_total") is not None:
        charge = np.full(size, float(budget.get("cost_per_label", 0.0)))
        if budget.get("cost") is not None:
            cost = np.asarray(budget["cost"], float)
            charge = charge + cost[p, i] + cost[p, j]
        if annotators is not None and annotators.get("cost") is not None:
            charge = charge + np.asarray(annotators["cost"], float)[a]
        rows.append(Row("cost", charge, -np.inf, float(budget["cost_total"])))
        couples = True
    for constraint in budget.get("constraints", ()):
        for name, of in rows_of_constraint(constraint, rows_of_elements).items():
            low, high = (absent if constraint.get(field) is None else float(np.broadcast_to(constraint[field], ())) for
                         field, absent in (("low", 0.0), ("high", np.inf)))  # fmt: skip
            charges = np.asarray(constraint["charges"], float)
            if whole and (charges == np.rint(charges)).all():
                low, high = np.ceil(low), np.floor(high)
            rows.append(Row(f"{constraint['name']} {name}", of, low, high))
        couples = True
    held = np.bincount(p, weights=fixed, minlength=count_prompts) if size else np.zeros(count_prompts)
    return Allowed(
        total,
        fixed,
        np.where(closed, 0.0, cap[p]),
        tuple(rows),
        whole,
        int(budget.get("labels_per_task", 1)),
        p,
        None if couples else most - held,
    )


def rows_of_constraint(constraint: dict, rows_of_elements) -> dict[Any, np.ndarray]:
    """What a label of each element (p, i, j, annotator) uses of each row of `Constraint(**constraint)`."""
    charges, per, who = np.asarray(constraint["charges"], float), constraint.get("per"), constraint.get("annotators")
    found = {}
    for e, (p, i, j, a) in enumerate(np.asarray(rows_of_elements, int)):
        if who is not None and str(a) not in who:
            continue
        rows = []
        for k in (i, j):
            if per is None:
                rows.append("all")
            elif isinstance(per, str):
                rows.append((p,) if per == "prompt" else (p, k))
            else:
                rows.append(np.asarray(per)[p, k].item() if np.ndim(per) == 2 else np.asarray(per)[p].item())
        if charges.ndim == 2:
            uses = [(row, charges[p, k]) for row, k in zip(rows, (i, j), strict=True)]
        else:
            uses = [(row, float(charges if charges.ndim == 0 else charges[p])) for row in dict.fromkeys(rows)]
        for row, use in uses:
            found.setdefault(row, np.zeros(len(rows_of_elements)))[e] += use
    return found


def _limit(limit: Any, name, absent: float) -> float:
    if limit is None:
        return absent
    return float(limit.get(name, absent) if isinstance(limit, dict) else limit)


def broken(allowed: Allowed, labels) -> list[tuple[str, float]]:
    """Every rule that labels (E,) break, with the share by which they do."""
    found = []

    def note(name, excess, scale):
        if excess > 0:
            found.append((name, float(excess / max(scale, 1e-300))))

    labels = np.asarray(labels, float)
    note("negative", -labels.min(initial=0), allowed.total)
    note("total", abs(labels.sum() - allowed.total), allowed.total)
    above = labels - (allowed.fixed + allowed.cap)
    with np.errstate(invalid="ignore"):
        worst = np.nanmax(np.where(np.isfinite(above), above, -1.0), initial=-1.0)
    if worst > 0:
        e = int(np.nanargmax(np.where(np.isfinite(above), above, -1.0)))
        note("cap" if allowed.cap[e] > 0 else "closed", worst, max(allowed.fixed[e] + allowed.cap[e], 1.0))
    note("required", (allowed.fixed - labels).max(initial=0), 1.0)
    for row in allowed.rows:
        held = float(row.of @ labels)
        if np.isfinite(row.high):
            note(f"{row.name} at most", held - row.high, max(abs(row.high), 1.0))
        if np.isfinite(row.low):
            note(f"{row.name} at least", row.low - held, max(abs(row.low), 1.0))
    if allowed.whole:
        note("whole", np.abs(labels / allowed.task - np.rint(labels / allowed.task)).max(initial=0), 1.0)
    return found


def violation(allowed: Allowed, labels) -> float:
    """The largest share by which a rule is broken; 0 for allowed labels."""
    return max((share for _, share in broken(allowed, labels)), default=0.0)


def best_vertex(allowed: Allowed, b) -> np.ndarray | None:
    """Allowed labels that maximise b . labels; None where there are none."""
    if allowed.laminar:
        return _filled(allowed, b)
    return _program(allowed, -np.asarray(b, float))


def spread(allowed: Allowed) -> np.ndarray | None:
    """Allowed labels on as many elements as possible; None where nothing is allowed."""
    size = len(allowed.cap)
    if allowed.laminar:
        n, open_ = allowed.fixed.copy(), allowed.cap > 0
        room = allowed.quota.copy()
        left = allowed.total - n.sum()
        for _ in range(200):  # water-filling: what does not fit in one prompt goes to the others
            free = open_ & (room[allowed.prompts] > 1e-15 * allowed.total) & (n - allowed.fixed < allowed.cap)
            if not free.any() or left <= 1e-15 * allowed.total:
                break
            step = np.where(free, left / free.sum(), 0.0)
            step = np.minimum(step, allowed.cap - (n - allowed.fixed))
            spent = np.bincount(allowed.prompts, step, len(room))
            with np.errstate(invalid="ignore"):
                share = np.where(spent > room, room / np.maximum(spent, 1e-300), 1.0)
            step = step * share[allowed.prompts]
            n, left = n + step, left - step.sum()
            room = room - np.bincount(allowed.prompts, step, len(room))
        return n if left <= 1e-9 * allowed.total else None
    bonus = np.full(size, allowed.total / max(size, 1))
    return _program(allowed, np.zeros(size), bonus)


def _filled(allowed, b):
    n, left = allowed.fixed.copy(), allowed.total - allowed.fixed.sum()
    room = allowed.quota.copy()
    for e in np.argsort(-np.asarray(b), kind="stable"):
        if left <= 0:
            break
        give = min(allowed.cap[e], room[allowed.prompts[e]], left)
        if give > 0:
            n[e] += give
            left -= give
            room[allowed.prompts[e]] -= give
    return n if left <= 1e-12 * allowed.total else None


def constraints(allowed: Allowed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows as (M, E), low, high, of the labels that are not fixed; the total first."""
    size = len(allowed.cap)
    of = np.array([np.ones(size), *[row.of for row in allowed.rows]])
    held = of @ allowed.fixed
    low = np.array([allowed.total, *[row.low for row in allowed.rows]]) - held
    high = np.array([allowed.total, *[row.high for row in allowed.rows]]) - held
    return of, low, high


def _program(allowed, objective, bonus=None):
    """Free labels by HiGHS, in units of the total."""
    of, low, high = constraints(allowed)
    size, unit = of.shape[1], allowed.total
    low, high = low / unit, high / unit
    caps = np.minimum(allowed.cap / unit, 1.0)
    equal = high - low <= 0
    upper, lower = np.isfinite(high) & ~equal, np.isfinite(low) & ~equal
    weight = np.maximum(np.abs(of).max(axis=1), 1e-300)[:, None]  # of each row, for the solver's absolute tolerances
    of, low, high = of / weight, low / weight[:, 0], high / weight[:, 0]
    A_ub, b_ub = np.concatenate([of[upper], -of[lower]]), np.concatenate([high[upper], -low[lower]])
    A_eq, b_eq = of[equal], low[equal]
    bounds = np.stack([np.zeros(size), caps], axis=1)
    scale = np.abs(objective).max(initial=0)
    cost = objective / scale if scale > 0 else objective
    if bonus is not None:  # s_e <= n_e, s_e <= bonus_e, sum of s maximal
        cost = np.concatenate([cost, -np.ones(size)])
        A_ub = np.block([[A_ub, np.zeros((len(A_ub), size))], [-np.eye(size), np.eye(size)]])
        b_ub = np.concatenate([b_ub, np.zeros(size)])
        A_eq = np.concatenate([A_eq, np.zeros((len(A_eq), size))], axis=1)
        bounds = np.concatenate([bounds, np.stack([np.zeros(size), bonus / unit], axis=1)])
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    found = linprog(cost, A_ub=A_ub, b_ub=b_ub, A_eq=A_eq, b_eq=b_eq, bounds=bounds, method="highs", options=tight)
    if found.status != 0:
        return None
    return allowed.fixed + np.clip(found.x[:size], 0, caps) * unit


def whole_vertex(allowed: Allowed, b) -> np.ndarray | None:
    """Allowed whole labels that maximise b . labels, by integer programming; None where there are none."""
    of, low, high = constraints(allowed)
    size, task = of.shape[1], allowed.task
    upper = np.floor(np.minimum(allowed.cap, allowed.total) / task)
    scale = np.abs(b).max(initial=0)
    found = milp(
        -np.asarray(b) / (scale if scale > 0 else 1.0),
        constraints=LinearConstraint(of * task, low, high),
        bounds=Bounds(np.zeros(size), upper),
        integrality=np.ones(size),
    )
    return None if found.x is None else allowed.fixed + np.rint(found.x) * task
