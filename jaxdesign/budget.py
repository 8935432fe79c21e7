"""Budget: which allocations are allowed, and the linear oracle over them.

Allowed are allocations n >= 0 that sum to `total`, with at most `per_pair` labels on any pair and at most `per_prompt`
on the pairs of any prompt. These constraints are laminar (pair inside prompt inside total), so filling the pairs
greedily by sensitivity solves the linear problem exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _checks


@dataclass(frozen=True)
class Budget:
    """Labels that may be spent, and where.

    Args:
        total: number of labels m, positive; any real number for a real-valued design, whole for `select_pairs`.
        per_pair: at most r labels on one pair, a scalar or one value per prompt (P,). None: no limit (repeats).
        per_prompt: at most q labels on the pairs of one prompt, a scalar or (P,). None: no limit.
        cost: reserved for spend limits; must be None in this version.

    Raises:
        TypeError: something that is not a number.
        ValueError: total not positive and finite, a cap below 1 or NaN, a cap with more than one axis.
    """

    total: float
    per_pair: Any = None
    per_prompt: Any = None
    cost: Any = None

    def __post_init__(self):
        total = _checks.positive_finite(self.total, "budget.total", "the number of labels to spend")
        object.__setattr__(self, "total", total)
        use_mask = "use the pool's mask to exclude completions"
        for name in ("per_pair", "per_prompt"):
            object.__setattr__(self, name, _checks.at_least_one(getattr(self, name), f"budget.{name}", use_mask))
        if self.cost is not None:
            raise ValueError(
                "budget.cost: spend limits are not supported in this version; pass cost=None and limit labels by total,"
                " per_pair and per_prompt"
            )


def whole_budget(budget: Budget) -> Budget:
    """The budget with caps and quotas rounded down; ValueError unless the total is whole."""
    if not isinstance(budget, Budget):
        raise TypeError(f"budget: expected jaxdesign.Budget, found {type(budget).__name__}")
    if budget.total != np.rint(budget.total):
        below = max(int(budget.total), 1)
        raise ValueError(
            f"budget.total={budget.total:g}: whole labels are chosen here, so it must be a whole number such as "
            f"{below}; jaxdesign.optimize takes any real total"
        )
    caps = [None if cap is None else np.floor(cap) for cap in (budget.per_pair, budget.per_prompt)]
    return Budget(budget.total, *caps)


class Limits(NamedTuple):
    """A budget resolved against a pool: caps per prompt as float64 arrays, inf where there is none."""

    total: float
    per_pair: Float[np.ndarray, " p"]
    per_prompt: Float[np.ndarray, " p"]

    @property
    def has_caps(self) -> bool:
        """Whether the cap per pair can bind anywhere."""
        return bool((self.per_pair < self.total).any())

    @property
    def has_quotas(self) -> bool:
        """Whether the quota per prompt can bind anywhere."""
        return bool((self.per_prompt < self.total).any())


def resolve(budget: Budget, pair_counts: Float[np.ndarray, " p"]) -> Limits:
    """Limits of a budget for a pool with `pair_counts` candidate pairs per prompt.

    Raises:
        TypeError: not a Budget.
        ValueError: caps of the wrong length, no candidate pair, a total above what the caps allow (the message gives
            the largest feasible total).
    """
    if not isinstance(budget, Budget):
        raise TypeError(f"budget: expected jaxdesign.Budget, found {type(budget).__name__}")
    prompts = len(pair_counts)
    caps = []
    for name in ("per_pair", "per_prompt"):
        value = getattr(budget, name)
        value = np.asarray(np.inf if value is None else value, dtype=np.float64)
        if value.shape not in ((), (prompts,)):
            raise ValueError(f"budget.{name}: shape {value.shape} found; expected a scalar or ({prompts},)")
        caps.append(np.broadcast_to(value, (prompts,)))
    if not (pair_counts > 0).any():
        raise ValueError(
            "features: all completions of every prompt are identical, so no pair carries information (z = 0); use "
            "features that tell completions apart"
        )
    per_pair, per_prompt = np.minimum(*caps), caps[1]  # a pair cannot take more than its prompt
    idle = per_prompt >= np.where(pair_counts > 0, per_pair, 0) * np.maximum(pair_counts, 1)
    limits = Limits(budget.total, per_pair, np.where(idle & np.isfinite(per_pair), np.inf, per_prompt))
    feasible = capacity(limits, pair_counts)
    if budget.total > feasible * (1 + 1e-12):
        raise ValueError(
            f"budget.total={budget.total:g}: the caps allow at most {feasible:g} labels on the {pair_counts.sum():.0f} "
            "candidate pairs (pairs of identical completions are no capacity); lower total or raise per_pair or "
            "per_prompt"
        )
    return limits


def capacity(limits: Limits, pair_counts: Float[np.ndarray, " p"]) -> float:
    """Largest feasible total: sum over prompts of min(per_prompt, per_pair x candidate pairs)."""
    with np.errstate(invalid="ignore"):
        room = np.where(pair_counts > 0, limits.per_pair * pair_counts, 0.0)
    return float(np.minimum(room, np.where(pair_counts > 0, limits.per_prompt, 0.0)).sum())


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
    return n * min(1.0, limits.total / n.sum())


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
