"""Whether a budget can be met at all, decided prompt by prompt; errors name what conflicts and how far it can go.

With y_p labels on the pairs of prompt p, least_p <= y_p <= room_p, groups within their limits: a linear program with
one variable per prompt. The spend limit needs pairs and is checked by `solvers.atoms.allowed_start`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign.budget.constraints import Coupling, group_totals

SLACK = 1e-9  # relative


class Range(NamedTuple):
    """Smallest and largest total that the constraints allow."""

    low: float
    high: float


def check_feasible(
    total: float, coupling: Coupling, room: Float[np.ndarray, " p"], pair_counts: Float[np.ndarray, " p"]
) -> None:
    """ValueError, naming the constraints in conflict and the largest feasible value, where no allocation exists.

    Args:
        total: labels to spend.
        coupling: the constraints.
        room: labels each prompt can take under per_pair and per_prompt.
        pair_counts: candidate pairs of each prompt.
    """
    least, groups, room = coupling.least, coupling.groups, np.minimum(room, total)
    if (least > room * (1 + SLACK)).any():
        p = int(np.argmax(least > room * (1 + SLACK)))
        raise ValueError(
            f"budget.per_prompt_min: prompt {p} must get {least[p]:g} labels, but its {pair_counts[p]:.0f} candidate "
            f"pairs can take at most {room[p]:g} under per_pair and per_prompt; lower it there to {room[p]:g}"
        )
    holds, asks = group_totals(coupling, room), group_totals(coupling, least)
    for found, limit, text in (
        (
            groups.low > holds * (1 + SLACK),
            holds,
            "at_least={0:g}, but its prompts can take at most {1:g} labels; lower at_least to that",
        ),
        (
            groups.high < asks * (1 - SLACK),
            asks,
            "at_most={2:g}, but per_prompt_min asks for {1:g} labels; raise at_most to that",
        ),
    ):
        if found.any():
            g = int(np.argmax(found))
            said = text.format(groups.low[g], limit[g], groups.high[g])
            raise ValueError(f"budget.quotas: {groups.names[g]} has {said}")
    possible = total_range(coupling, room)
    if possible is None:
        raise ValueError(f"budget.quotas: no labels obey {_conflict(coupling, room)} together; relax one of them")
    if not possible.low * (1 - SLACK) <= total <= possible.high * (1 + SLACK):
        names = _binding(coupling, room, total)
        raise ValueError(
            f"budget.total={total:g}: {names} with per_pair and per_prompt allow totals from {possible.low:g} to "
            f"{possible.high:g}; change the total, or relax one of them"
        )


def total_range(coupling: Coupling, room: Float[np.ndarray, " p"]) -> Range | None:
    """Totals that can be met, cost aside; None where there are none."""
    low, high = _extreme(coupling, room, 1.0), _extreme(coupling, room, -1.0)
    return None if low is None else Range(low, high)


def _extreme(coupling, room, sign):
    from scipy import sparse
    from scipy.optimize import linprog

    groups, prompts = coupling.groups, len(room)
    of, column = groups.owner, np.broadcast_to(np.arange(prompts), groups.owner.shape)
    rows = sparse.csr_matrix((np.ones(of.size), (of.ravel(), column.ravel())), (len(groups.names), prompts))
    bounded = np.isfinite(groups.high)
    found = linprog(
        np.full(prompts, sign),
        A_ub=sparse.vstack([rows[bounded], -rows]),
        b_ub=np.concatenate([groups.high[bounded], -groups.low]),
        bounds=np.stack([np.minimum(coupling.least, room), room], axis=1),
        method="highs",
    )
    return None if found.status != 0 else float(sign * found.fun)


def _without(coupling, kind):
    """The coupling with one kind of constraint lifted: a quota's index, or -1 for the minimum per prompt."""
    if kind < 0:
        return coupling._replace(least=np.zeros_like(coupling.least))
    lifted = np.zeros(len(coupling.groups.names), bool)
    lifted[np.unique(coupling.groups.owner[kind])] = True
    low, high = np.where(lifted, 0.0, coupling.groups.low), np.where(lifted, np.inf, coupling.groups.high)
    return coupling._replace(groups=coupling.groups._replace(low=low, high=high))


def _kinds(coupling):
    quotas = {k: coupling.groups.names[owner[0]].rsplit(" ", 1)[0] for k, owner in enumerate(coupling.groups.owner)}
    return quotas | ({-1: "per_prompt_min"} if coupling.least.any() else {})


def _conflict(coupling, room):
    """Names of the constraints without any one of which the rest could be met."""
    kinds = _kinds(coupling)
    names = [name for kind, name in kinds.items() if total_range(_without(coupling, kind), room) is not None]
    return " and ".join(names or kinds.values())


def _binding(coupling, room, total):
    """Names of the constraints without any one of which the total could be met."""
    names = []
    kinds = _kinds(coupling)
    for kind, name in kinds.items():
        possible = total_range(_without(coupling, kind), room)
        if possible is not None and possible.low <= total <= possible.high:
            names.append(name)
    return " and ".join(names or kinds.values())
