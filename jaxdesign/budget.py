"""Budget: which allocations are allowed, and the linear oracle over them.

Allowed are allocations n >= 0 that sum to `total`, with at most `per_pair` labels on any pair and at most `per_prompt`
on the pairs of any prompt. These constraints are laminar (pair inside prompt inside total), so filling the pairs
greedily by sensitivity solves the linear problem exactly. What couples prompts beyond that (least numbers, quotas of
groups, a spend limit) is the business of `coupling`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdesign import _checks
from jaxdesign.coupling import Coupling, group_totals, pair_costs
from jaxdesign.feasibility import check_feasible
from jaxdesign.quotas import Groups, Quota, joined, whole_quota


@dataclass(frozen=True)
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
        exclude: (S, 3) pairs (p, i, j) that must not be used. Completions are excluded by the pool's mask.
        required: (S, 3) pairs that must be used: each row is one label of the total, and pairs named here get no other.
        labels_per_task: whole labels come in tasks of so many labels of one pair each (`select_pairs`; real-valued
            designs count labels).

    Raises:
        TypeError: something that is not a number, a quota of another kind, pairs that are no integers.
        ValueError: total not positive and finite, a cap below 1 or NaN, a limit with more than one axis, a cost that is
            negative, without a spend limit or of another shape, rows of pairs that differ in length, a total or a cap
            that is not a multiple of labels_per_task.
    """

    total: float
    per_pair: Any = None
    per_prompt: Any = None
    cost: Any = None
    cost_total: float | None = None
    cost_per_label: float = field(default=0.0, kw_only=True)
    per_prompt_min: Any = field(default=None, kw_only=True)
    quotas: Any = field(default=(), kw_only=True)
    exclude: Any = field(default=None, kw_only=True)
    required: Any = field(default=None, kw_only=True)
    labels_per_task: int = field(default=1, kw_only=True)

    def __post_init__(self):
        total = _checks.positive_finite(self.total, "budget.total", "the number of labels to spend")
        quotas = tuple(self.quotas) if isinstance(self.quotas, Iterable) else (self.quotas,)
        for quota in quotas:
            if not isinstance(quota, Quota):
                raise TypeError(f"budget.quotas: expected jaxdesign.Quota, found {type(quota).__name__}")
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
        found = {"total": total, "quotas": quotas, "per_prompt_min": least, "cost_total": spend} | caps
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
    return replace(budget, **found, quotas=tuple(whole_quota(quota) for quota in budget.quotas))


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


class OracleResult(NamedTuple):
    """Solution of the linear problem over a list of pairs."""

    labels: Float[np.ndarray, " s"]
    value: float  # sum of b n over the list, plus `floor` for each label that did not fit on it
    level: float  # sensitivity of the last pair that received labels


def linear_oracle(
    limits: Limits,
    pairs: Int[np.ndarray, "s 3"],
    sensitivities: Float[np.ndarray, " s"],
    floor: float = 0.0,
) -> OracleResult:
    """max sum_e b_e n_e over allowed allocations of the listed pairs, exactly, in O(S log S).

    Ties are broken by (prompt, i, j). Pairs not on the list are known only to have b <= floor: the value counts
    max(b, floor) for each label and `floor` for each label that does not fit, which bounds the oracle over all pairs
    (it is the dual function at the level `floor`, and exact when the list holds all labels at b >= floor).
    """
    labels = np.zeros(len(pairs))
    if len(pairs) == 0:
        return OracleResult(labels, limits.total * floor, floor)
    order = np.lexsort((pairs[:, 2], pairs[:, 1], pairs[:, 0], -sensitivities))
    room = _room(limits, pairs[order, 0])
    before = np.concatenate([[0.0], np.cumsum(room)[:-1]])
    given = np.clip(limits.total - before, 0.0, room)
    labels[order] = given
    value = float(np.maximum(sensitivities, floor) @ labels + max(limits.total - given.sum(), 0.0) * floor)
    used = sensitivities[labels > 0]
    return OracleResult(labels, value, float(used.min()) if len(used) else floor)


def _room(limits: Limits, prompts: Int[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
    """Labels each pair can take when the pairs of its prompt listed before it are full."""
    by_prompt = np.argsort(prompts, kind="stable")
    sorted_prompts = prompts[by_prompt]
    first = np.searchsorted(sorted_prompts, sorted_prompts, side="left")
    rank = np.empty(len(prompts))
    rank[by_prompt] = np.arange(len(prompts)) - first
    cap, quota = limits.per_pair[prompts], limits.per_prompt[prompts]
    cap, quota = np.minimum(cap, limits.total), np.minimum(quota, limits.total)
    return np.clip(quota - cap * rank, 0.0, cap)


def exact_total(
    limits: Limits, pairs: Int[np.ndarray, "s 3"], labels: Float[np.ndarray, " s"]
) -> Float[np.ndarray, " s"]:
    """Labels that sum to the total with every cap and quota obeyed, from ones that do so up to a solver's rounding.

    n_e <- min(cap, min(t, t_p) n_e): t_p is the factor at which prompt p reaches its quota, t the one at which the sum
    reaches the total. Each label moves by about as much as the budget was missed by, also where quotas alone hold the
    whole total. Where the listed pairs cannot hold the total, they are filled.
    """
    prompts, owner = np.unique(pairs[:, 0], return_inverse=True)
    cap = np.minimum(limits.per_pair[pairs[:, 0]], limits.total)
    quota = np.minimum(limits.per_prompt[prompts], limits.total)
    labels = np.maximum(labels, 0.0)

    def spent(factor):
        return np.bincount(owner, weights=np.minimum(cap, factor[owner] * labels), minlength=len(prompts))

    ceiling = _factor(lambda t: spent(t) <= quota, np.ones(len(prompts)))
    goal = limits.total * (1 - 1e-14)  # never to chase the last bit of a total that quotas alone hold
    common = _factor(lambda t: spent(np.minimum(t, ceiling)).sum() < goal, np.ones(1))
    n = np.minimum(cap, np.minimum(common, ceiling)[owner] * labels)
    return n * min(1.0, limits.total / max(n.sum(), 1e-300))


def _factor(below, start: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """Where a monotone condition on each positive number turns from True to False, by bisection; at most about 1e15."""
    low, high = np.zeros_like(start), start
    while (grow := below(high) & (high < 1e15)).any():
        low, high = np.where(grow, high, low), np.where(grow, 4 * high, high)
    for _ in range(80):
        middle = (low + high) / 2
        holds = below(middle)
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return low
