"""Budget: what a user says about labels that may be spent, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jaxdesign import _checks
from jaxdesign.budget.constraint import Constraint, whole_constraint
from jaxdesign.budget.quota import Quota, whole_quota


@dataclass(frozen=True, eq=False)
class Budget:
    """Labels that may be spent, and where.

    Args:
        total: number of labels m, positive; any real number for a real-valued design, whole for `select_pairs`.
        per_pair: at most r labels on one pair, a scalar or one value per prompt (P,). None: no limit (repeats).
        per_prompt: at most q labels on the pairs of one prompt, a scalar or (P,). None: no limit.
        cost: (P, K) cost of having a completion read, for instance its length; a label of a pair costs the sum of its
            two completions plus `cost_per_label`. None: completions cost nothing.
        cost_total: what all labels together may cost, in the same units; needed with a cost.
        cost_per_label: cost of a label besides its completions.
        per_prompt_min: at least so many labels on the pairs of a prompt, a scalar or (P,). None: no minimum.
        quotas: one `Quota` or several, for groups of prompts that may cross.
        constraints: one `Constraint` or several: any other linear limits, a cap on what touches a completion, say.
        exclude: (S, 3) pairs (p, i, j) that must not be used. Completions are excluded by the pool's mask.
        required: (S, 3) pairs that must be used: each row is one label of the total, and pairs named here get no other.
        labels_per_task: whole labels come in tasks of so many labels of one pair each (`select_pairs`; real-valued
            designs count labels).

    Raises:
        TypeError: something that is not a number, a quota of another kind, pairs that are no integers.
        ValueError: total not positive and finite, a cap below 1 or NaN, a limit with more than one axis, a cost that is
            negative, without a spend limit or of another shape, rows of pairs that differ in length, a total or a cap
            that is not a multiple of labels_per_task.

    Source: derived; checked by tests/budget/test_budget.py, test_quotas.py and test_coupling.py beside it.
    """

    total: float
    per_pair: Any = None
    per_prompt: Any = None
    cost: Any = None
    cost_total: float | None = None
    cost_per_label: float = field(default=0.0, kw_only=True)
    per_prompt_min: Any = field(default=None, kw_only=True)
    quotas: Any = field(default=(), kw_only=True)
    constraints: Any = field(default=(), kw_only=True)
    exclude: Any = field(default=None, kw_only=True)
    required: Any = field(default=None, kw_only=True)
    labels_per_task: int = field(default=1, kw_only=True)

    def __post_init__(self):
        total = _checks.positive_finite(self.total, "budget.total", "the number of labels to spend")
        quotas = _several(self.quotas, Quota, "budget.quotas")
        constraints = _several(self.constraints, Constraint, "budget.constraints")
        for name in ("exclude", "required"):
            if getattr(self, name) is not None:
                _checks.rows_of_three(getattr(self, name), f"budget.{name}")
        use_mask = "use the pool's mask to exclude completions"
        caps = {
            name: _checks.at_least_one(getattr(self, name), f"budget.{name}", use_mask)
            for name in ("per_pair", "per_prompt")
        }
        least = _checks.one_per_prompt(self.per_prompt_min, "budget.per_prompt_min")
        spend = self._checked_costs()
        size = self.labels_per_task
        if isinstance(size, bool) or not isinstance(size, int | np.integer):
            raise TypeError(f"budget.labels_per_task: expected an integer, found {type(size).__name__}")
        if size < 1 or (size > 1 and total % size):
            raise ValueError(
                f"budget.labels_per_task={size}: must be at least 1 and divide total={total:g}; tasks are whole"
            )
        found = {
            "total": total,
            "quotas": quotas,
            "constraints": constraints,
            "per_prompt_min": least,
            "cost_total": spend,
        } | caps
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def _checked_costs(self) -> float | None:
        constant = _checks.number(self.cost_per_label, "budget.cost_per_label")
        if not np.isfinite(constant) or constant < 0:
            raise ValueError(f"budget.cost_per_label={constant:g}: must be finite and at least 0")
        if self.cost_total is None:
            if self.cost is not None or constant > 0:
                raise ValueError("budget.cost_total: missing; it is what all labels together may cost")
            return None
        return _checks.positive_finite(self.cost_total, "budget.cost_total", "what all labels together may cost")


def _several(value: Any, kind: type, name: str) -> tuple:
    found = tuple(value) if isinstance(value, Iterable) else (value,)
    for one in found:
        if not isinstance(one, kind):
            raise TypeError(f"{name}: expected jaxdesign.{kind.__name__}, found {type(one).__name__}")
    return found


def whole_budget(budget: Budget) -> Budget:
    """The budget with largest numbers rounded down and least ones up; ValueError unless the total is whole."""
    if not isinstance(budget, Budget):
        raise TypeError(f"budget: expected jaxdesign.Budget, found {type(budget).__name__}")
    if budget.total != np.rint(budget.total):
        below = max(int(budget.total), 1)
        raise ValueError(
            f"budget.total={budget.total:g}: whole labels are chosen here, so it must be a whole number such as "
            f"{below}; jaxdesign.optimize takes any real total"
        )
    if budget.total > 2**53:
        raise ValueError(
            f"budget.total={budget.total:g}: whole labels are counted in float64, so at most 2^53 = 9.007e15"
        )
    caps = {name: getattr(budget, name) for name in ("per_pair", "per_prompt")}
    found = {name: None if cap is None else np.floor(cap) for name, cap in caps.items()}
    found["per_prompt_min"] = None if budget.per_prompt_min is None else np.ceil(budget.per_prompt_min)
    found["quotas"] = tuple(map(whole_quota, budget.quotas))
    found["constraints"] = tuple(map(whole_constraint, budget.constraints))
    return replace(budget, **found)
