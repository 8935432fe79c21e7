"""The linear oracle: max sum b n over allowed allocations, and labels that sum to the total exactly.

Caps per pair, quotas per prompt and the total are laminar (pair inside prompt inside total), so filling the pairs
greedily by sensitivity solves the linear problem exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign._pairs import Allocation
from jaxdesign.budget.limits import Limits


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


def exact_total(limits: Limits, allocation: Allocation) -> Float[np.ndarray, " s"]:
    """Labels that sum to the total with every cap and quota obeyed, from ones that do so up to a solver's rounding.

    n_e <- min(cap, min(t, t_p) n_e): t_p is the factor at which prompt p reaches its quota, t the one at which the sum
    reaches the total. Each label moves by about as much as the budget was missed by, also where quotas alone hold the
    whole total. Where the listed pairs cannot hold the total, they are filled.
    """
    pairs, labels = allocation
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


def allowed_total(limits: Limits, allocation: Allocation) -> Float[np.ndarray, " s"]:
    """`exact_total`; the labels as they are where prompts are coupled, since to move them might break a family."""
    labels = allocation.labels
    return exact_total(limits, allocation) if limits.laminar else labels


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
