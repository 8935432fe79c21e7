"""Limits: a budget resolved against a pool.

Allowed are allocations n >= 0 that sum to `total`, with at most `per_pair` labels on any pair and at most `per_prompt`
on the pairs of any prompt, at least `least` there, and what `families` ask for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxdesign import _checks
from jaxdesign._pairs import Allocation
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.family import FIELDS, Family, Rows, family_of, in_units_of, less, usage
from jaxdesign.budget.feasibility import check_feasible
from jaxdesign.budget.kinds import LAMINAR


class Limits(NamedTuple):
    """A budget resolved against a pool: limits per prompt as float64 arrays, inf where there is none.

    Args:
        total: labels to be chosen.
        per_pair: (P,) most labels on one pair of each prompt.
        per_prompt: (P,) most labels on the pairs of each prompt.
        least: (P,) labels that the pairs of each prompt must get, or one number for all.
        families: constraints that couple prompts.
    """

    total: float
    per_pair: Float[np.ndarray, " p"]
    per_prompt: Float[np.ndarray, " p"]
    least: Float[np.ndarray, " p"] | float = 0.0
    families: tuple[Family, ...] = ()

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of limits there are besides the total, by the fields of `Budget` that set them (`budget.kinds`)."""
        kinds = {
            "per_pair": self.has_caps,
            "per_prompt": self.has_quotas,
            "per_prompt_min": bool(np.any(self.least)),
        }
        return frozenset({FIELDS[family.kind] for family in self.families} | {kind for kind in kinds if kinds[kind]})

    @property
    def laminar(self) -> bool:
        """Whether caps and largest numbers per prompt are all there is: then the linear problem is solved greedily."""
        return self.kinds <= LAMINAR

    @property
    def minima(self) -> Float[np.ndarray, " p"]:
        """`least` of every prompt."""
        return np.broadcast_to(np.asarray(self.least, np.float64), np.shape(self.per_pair))

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
    required: Allocation | None = None,
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
    if required is not None and len(required.pairs):
        decided = np.bincount(required.pairs[:, 0], weights=required.labels, minlength=prompts)
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
    least = np.maximum(caps[2] - decided, 0)
    families = _families(budget, np.ones((prompts, 1), bool) if mask is None else mask)
    if required is not None and len(required.pairs):
        families = tuple(_after(family, required) for family in families)
    check_feasible(total, least, families, prompt_room(limits, pair_counts), pair_counts)
    return limits._replace(least=least, families=families)


def limits_in_tasks(limits: Limits, size: int) -> Limits:
    """The limits in units of tasks of `size` labels each, rounded inwards to whole tasks."""
    return Limits(
        limits.total / size,
        np.floor(limits.per_pair / size),
        np.floor(limits.per_prompt / size),
        np.ceil(limits.minima / size),
        tuple(in_units_of(family, size) for family in limits.families),
    )


def _families(budget: Budget, mask: Bool[np.ndarray, "p k"]) -> tuple[Family, ...]:
    """What couples prompts: quotas, the spend limit, constraints."""
    if budget.cost_total is not None and budget.cost is None and not budget.cost_per_label:
        raise ValueError(
            f"budget.cost_total={budget.cost_total:g}: labels cost nothing; pass cost=(P, K), cost_per_label, or "
            "annotators with a cost"
        )
    for quota in budget.quotas:
        if quota.of.shape != mask.shape[:1]:
            raise ValueError(
                f"{quota.name}.of: shape {quota.of.shape} found; expected one name per prompt, ({len(mask)},)"
            )
    families = [quota.family() for quota in budget.quotas]
    if budget.cost_total is not None:
        charges = np.zeros((len(mask), 1)) if budget.cost is None else _checks.costs(budget.cost, mask)
        owner = np.zeros((len(mask), 1), np.int32)
        limit = np.zeros(1), np.array([budget.cost_total])
        families.append(family_of(charges + budget.cost_per_label / 2, owner, *limit, Rows("cost", ()), "cost"))
    for constraint in budget.constraints:
        if constraint.annotators is not None:
            raise ValueError(
                f"{constraint.name}.annotators: {', '.join(constraint.annotators)} named, but no annotators are passed"
            )
        families.append(constraint.family(mask))
    return tuple(families)


def _after(family: Family, allocation: Allocation) -> Family:
    """The family for what required labels leave; ValueError where they use too much."""
    used = usage(family, allocation)
    wrong = used > family.high * (1 + 1e-12)
    if wrong.any():
        g = int(np.argmax(wrong))
        text = {
            "quota": "{1:g} labels of {0}, above its at_most={2:g}",
            "cost": "costs {1:g}, above budget.cost_total={2:g}",
            "constraint": "uses {1:g} of {0}, above its high={2:g}",
        }[family.kind]
        raise ValueError("budget.required: " + text.format(family.rows.name(g), used[g], family.high[g]))
    return less(family, used)


def capacity(limits: Limits, pair_counts: Float[np.ndarray, " p"]) -> float:
    """Largest feasible total under caps and quotas per prompt: sum of `prompt_room`."""
    return float(prompt_room(limits, pair_counts).sum())


def prompt_room(limits: Limits, pair_counts: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """min(per_prompt, per_pair x candidate pairs) of every prompt."""
    with np.errstate(invalid="ignore"):
        room = np.where(pair_counts > 0, limits.per_pair * pair_counts, 0.0)
    return np.minimum(room, np.where(pair_counts > 0, limits.per_prompt, 0.0))
