"""Whether a budget can be met at all, decided prompt by prompt; errors name what conflicts and how far it can go.

With y_p labels on the pairs of prompt p, least_p <= y_p <= room_p, and the families that count alike in all pairs of a
prompt within their limits: a linear program with one variable per prompt. Families that tell completions apart need
pairs and are checked by `solvers.atoms.allowed_start`, the spend limit too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign.budget.family import FIELDS, Family, prompt_usage

SLACK = 1e-9  # relative
WORDS = {  # of messages, by the kind of a family: low, most that can be used, high, least that is asked for; and advice
    "quota": (
        "at_least={0:g}, but its prompts can take at most {1:g} labels; lower at_least to that",
        "at_most={2:g}, but per_prompt_min asks for {3:g} labels; raise at_most to that",
    ),
    "constraint": (
        "low={0:g}, but labels can use at most {1:g} of it; lower low to that",
        "high={2:g}, but per_prompt_min asks for {3:g} of it; raise high to that",
    ),
}


class Range(NamedTuple):
    """Smallest and largest total that the constraints allow."""

    low: float
    high: float


class Demands(NamedTuple):
    """What is asked of the labels of prompts."""

    least: Float[np.ndarray, " p"]
    families: tuple[Family, ...]  # `by_prompt`


def check_feasible(
    total: float,
    least: Float[np.ndarray, " p"],
    families: tuple[Family, ...],
    room: Float[np.ndarray, " p"],
    pair_counts: Float[np.ndarray, " p"],
) -> None:
    """ValueError, naming the constraints in conflict and the largest feasible value, where no allocation exists.

    Args:
        total: labels to spend.
        least: that every prompt must get.
        families: constraints; those that tell completions apart, and the cost, are passed over.
        room: labels each prompt can take under per_pair and per_prompt.
        pair_counts: candidate pairs of each prompt.
    """
    room = np.minimum(room, total)
    if (least > room * (1 + SLACK)).any():
        p = int(np.argmax(least > room * (1 + SLACK)))
        raise ValueError(
            f"budget.per_prompt_min: prompt {p} must get {least[p]:g} labels, but its {pair_counts[p]:.0f} candidate "
            f"pairs can take at most {room[p]:g} under per_pair and per_prompt; lower it there to {room[p]:g}"
        )
    demands = Demands(least, tuple(family for family in families if family.by_prompt and family.kind != "cost"))
    if not demands.families and not least.any():
        return
    for family in demands.families:
        holds, asks = prompt_usage(family, room), prompt_usage(family, least)
        for wrong, text in zip(
            (family.low > holds * (1 + SLACK), family.high < asks * (1 - SLACK)), WORDS[family.kind], strict=True
        ):
            if wrong.any():
                g = int(np.argmax(wrong))
                said = text.format(family.low[g], holds[g], family.high[g], asks[g])
                raise ValueError(f"budget.{FIELDS[family.kind]}: {family.rows.name(g)} has {said}")
    possible = total_range(demands, room)
    if possible is None:
        raise ValueError(f"budget.quotas: no labels obey {_conflict(demands, room)} together; relax one of them")
    if not possible.low * (1 - SLACK) <= total <= possible.high * (1 + SLACK):
        names = _binding(demands, room, total)
        raise ValueError(
            f"budget.total={total:g}: {names} with per_pair and per_prompt allow totals from {possible.low:g} to "
            f"{possible.high:g}; change the total, or relax one of them"
        )


def total_range(demands: Demands, room: Float[np.ndarray, " p"]) -> Range | None:
    """Totals that can be met; None where there are none."""
    low, high = _extreme(demands, room, 1.0), _extreme(demands, room, -1.0)
    return None if low is None or high is None else Range(low, high)


def _extreme(demands, room, sign) -> float | None:
    from scipy import sparse
    from scipy.optimize import linprog

    prompts, rows, limits = np.arange(len(room)), [], []
    for family in demands.families:
        entries = 2 * family.charges[:, 0], (family.owner[:, 0], prompts)
        matrix = sparse.csr_matrix(entries, (len(family.low), len(room)))
        bounded = np.isfinite(family.high)
        rows += [matrix[bounded], -matrix]
        limits += [family.high[bounded], -family.low]
    found = linprog(
        np.full(len(room), sign),
        A_ub=sparse.vstack(rows) if rows else None,
        b_ub=np.concatenate(limits) if rows else None,
        bounds=np.stack([np.minimum(demands.least, room), room], axis=1),
        method="highs",
    )
    return None if found.status != 0 else float(sign * found.fun)


def _lifted(demands: Demands) -> list[tuple[str, Demands]]:
    """The demands with one of them lifted, and its name."""
    found = []
    for k, family in enumerate(demands.families):
        free = family._replace(low=np.zeros_like(family.low), high=np.full_like(family.high, np.inf))
        rest = demands._replace(families=(*demands.families[:k], free, *demands.families[k + 1 :]))
        found.append((family.rows.family, rest))
    if demands.least.any():
        found.append(("per_prompt_min", demands._replace(least=np.zeros_like(demands.least))))
    return found


def _conflict(demands, room) -> str:
    """Names of the constraints without any one of which the rest could be met; of all where there is none."""
    without = _lifted(demands)
    names = [name for name, rest in without if total_range(rest, room) is not None]
    return " and ".join(names or [name for name, _ in without])


def _binding(demands, room, total) -> str:
    """Names of the constraints without any one of which the total could be met; of all where there is none."""
    without = [(name, total_range(rest, room)) for name, rest in _lifted(demands)]
    names = [name for name, found in without if found is not None and found.low <= total <= found.high]
    return " and ".join(names or [name for name, _ in without])
