"""Limits: a budget resolved against a pool.

Allowed are allocations n >= 0 that sum to `total`, with at most `per_pair` labels on any pair and at most `per_prompt`
on the pairs of any prompt. What couples prompts beyond that (least numbers, quotas of groups, a spend limit) is the
business of `constraints`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdesign import _checks
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.constraints import Coupling, group_totals, pair_costs
from jaxdesign.budget.feasibility import check_feasible
from jaxdesign.budget.quota import Groups, joined


class Limits(NamedTuple):
    """A budget resolved against a pool: caps per prompt as float64 arrays, inf where there is none."""

    total: float
    per_pair: Float[np.ndarray, " p"]
    per_prompt: Float[np.ndarray, " p"]
    coupling: Coupling | None = None

    @property
    def has_caps(self) -> bool:
        """Whether the cap per pair can bind anywhere."""
        return bool((self.per_pair < self.total).any())

    @property
    def has_quotas(self) -> bool:
        """Whether the quota per prompt can bind anywhere."""
        return bool((self.per_prompt < self.total).any())


def resolve(
    budget: Budget,
    pair_counts: Float[np.ndarray, " p"],
    mask: Bool[np.ndarray, "p k"] | None = None,
    required: tuple[Int[np.ndarray, "s 3"], Float[np.ndarray, " s"]] | None = None,
) -> Limits:
    """Limits of the labels left to choose, for a pool with `pair_counts` candidate pairs per prompt.

    Args:
        budget: the budget.
        pair_counts: pairs that may be used.
        mask: the pool's, needed with a cost.
        required: pairs and labels already decided, which total, quotas and spend limit are less by.

    Raises:
        TypeError: not a Budget.
        ValueError: limits of the wrong length, no candidate pair, a budget that cannot be met (the message names what
            conflicts and gives the largest feasible value).
    """
    if not isinstance(budget, Budget):
        raise TypeError(f"budget: expected jaxdesign.Budget, found {type(budget).__name__}")
    prompts = len(pair_counts)
    caps = []
    for name, absent in (("per_pair", np.inf), ("per_prompt", np.inf), ("per_prompt_min", 0.0)):
        value = getattr(budget, name)
        value = np.asarray(absent if value is None else value, dtype=np.float64)
        if value.shape not in ((), (prompts,)):
            raise ValueError(f"budget.{name}: shape {value.shape} found; expected a scalar or ({prompts},)")
        caps.append(np.broadcast_to(value, (prompts,)))
    if not (pair_counts > 0).any():
        raise ValueError(
            "features: all completions of every prompt are identical, or all pairs are excluded, so no pair carries "
            "information (z = 0); use features that tell completions apart"
        )
    decided = np.zeros(prompts)
    if required is not None and len(required[0]):
        decided = np.bincount(required[0][:, 0], weights=required[1], minlength=prompts)
    total, per_prompt = budget.total - decided.sum(), caps[1] - decided
    per_pair = np.minimum(caps[0], per_prompt)  # a pair cannot take more than its prompt
    idle = per_prompt >= np.where(pair_counts > 0, per_pair, 0) * np.maximum(pair_counts, 1)
    limits = Limits(total, per_pair, np.where(idle & np.isfinite(per_pair), np.inf, per_prompt))
    feasible = capacity(limits, pair_counts)
    if total > feasible * (1 + 1e-12):
        raise ValueError(
            f"budget.total={budget.total:g}: the caps allow at most {feasible + decided.sum():g} labels on the "
            f"{pair_counts.sum():.0f} candidate pairs (pairs of identical completions are no capacity); lower total or "
            "raise per_pair or per_prompt"
        )
    coupling = _coupling(budget, mask, np.maximum(caps[2] - decided, 0), required, decided)
    if coupling is not None:
        check_feasible(total, coupling, prompt_room(limits, pair_counts), pair_counts)
    return limits._replace(coupling=coupling)


def _coupling(budget, mask, least, required, decided) -> Coupling | None:
    """What couples prompts, less what required pairs take of it."""
    if budget.cost_total is not None and budget.cost is None and not budget.cost_per_label:
        raise ValueError(
            f"budget.cost_total={budget.cost_total:g}: labels cost nothing; pass cost=(P, K), cost_per_label, or "
            "annotators with a cost"
        )
    if budget.cost_total is None and not budget.quotas and not least.any():
        return None
    prompts = len(least)
    groups = Groups((), np.zeros((0, prompts), np.int32), np.zeros(0), np.zeros(0))
    for quota in budget.quotas:
        if quota.of.shape != (prompts,):
            raise ValueError(
                f"{quota.name}.of: shape {quota.of.shape} found; expected one name per prompt, ({prompts},)"
            )
    if budget.quotas:
        groups = joined(budget.quotas)
    charges = np.zeros((prompts, 1) if mask is None else mask.shape)
    spend = np.inf if budget.cost_total is None else budget.cost_total
    if budget.cost is not None:
        charges = _checks.costs(budget.cost, mask)
    coupling = Coupling(least, groups, charges + budget.cost_per_label / 2, spend)
    if required is not None and len(required[0]):
        held = group_totals(coupling, decided)
        if (held > groups.high).any():
            g = int(np.argmax(held > groups.high))
            raise ValueError(
                f"budget.required: {held[g]:g} labels of {groups.names[g]}, above its at_most={groups.high[g]:g}"
            )
        spent = float(pair_costs(coupling, required[0]) @ required[1])
        if spent > spend:
            raise ValueError(f"budget.required: costs {spent:g}, above budget.cost_total={spend:g}")
        groups = groups._replace(low=np.maximum(groups.low - held, 0), high=groups.high - held)
        coupling = coupling._replace(groups=groups, spend=spend - spent)
    return coupling


def capacity(limits: Limits, pair_counts: Float[np.ndarray, " p"]) -> float:
    """Largest feasible total under caps and quotas per prompt: sum of `prompt_room`."""
    return float(prompt_room(limits, pair_counts).sum())


def prompt_room(limits: Limits, pair_counts: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """min(per_prompt, per_pair x candidate pairs) of every prompt."""
    with np.errstate(invalid="ignore"):
        room = np.where(pair_counts > 0, limits.per_pair * pair_counts, 0.0)
    return np.minimum(room, np.where(pair_counts > 0, limits.per_prompt, 0.0))
