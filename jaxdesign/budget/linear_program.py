"""The linear problem max sum_e b_e n_e under a budget whose constraints couple prompts, and bounds by its prices.

Such constraints are not laminar together (a domain crosses a language, a cost crosses everything), so filling pairs
greedily no longer solves the linear problem, and would give a false certificate. Here a linear program over listed
pairs gives an allowed allocation and prices, and for any prices Lagrange duality bounds the problem over all pairs:

    sum_e b_e n_e <= l m + sum_g max(v_g high_g, v_g low_g) + sum_p max_n sum_{e in p} net_e n_e,
    net_e = b_e - l - sum_g v_g a_ge,

l the price of a label, v_g of what rows of families are short of (`budget.family`); the inner maximum over the pairs of
one prompt is laminar and is taken greedily. At the prices of the linear program both sides agree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdesign._pairs import Allocation
from jaxdesign.budget.family import Family, charged, of_both, usage, usage_matrix

MISSED = 1e-9  # infeasibility that the linear programs may leave, in labels


class Prices(NamedTuple):
    """Multipliers of the constraints."""

    label: float
    families: tuple[Float[np.ndarray, " g"], ...]  # positive where `high` binds, negative where `low` does


class Program(NamedTuple):
    """Solution of the linear problem over a list of pairs."""

    labels: Float[np.ndarray, " s"]
    value: float
    prices: Prices


def completion_charges(limits, prices: Prices) -> Float[np.ndarray, "p c"]:
    """Charges whose sum over the two completions of a pair is b_e - l - net_e; one column where completions of a
    prompt are charged alike."""
    charges = np.zeros((len(limits.per_pair), 1))
    for family, price in zip(limits.families, prices.families, strict=True):
        charges = charges + charged(family, price)
    return charges


def net(limits, prices: Prices, pairs, sensitivities) -> Float[np.ndarray, " s"]:
    """b_e less the prices of a label of the pair."""
    first, second = of_both(completion_charges(limits, prices), pairs)
    return sensitivities - prices.label - (first + second)


def constraint_rows(limits, pairs: Int[np.ndarray, "s 3"]):
    """Rows, lower and upper limits of everything but the total and the caps, for labels of the listed pairs.

    Prompts with limits come first, then the rows of each family; -inf and inf where a limit cannot bind.
    """
    from scipy import sparse

    column, owner = np.arange(len(pairs)), pairs[:, 0]
    prompts, row = np.unique(owner, return_inverse=True)
    bound = (limits.minima[prompts] > 0) | (limits.per_prompt[prompts] < limits.total)
    of_prompts = sparse.csr_matrix((np.ones(len(pairs)), (row, column)), (len(prompts), len(pairs)))[bound]
    rows, low = [of_prompts], [limits.minima[prompts][bound]]
    high = [np.where(limits.per_prompt[prompts] < limits.total, limits.per_prompt[prompts], np.inf)[bound]]
    for family in limits.families:
        binds = _binding(limits, family)
        rows.append(usage_matrix(family, pairs)[binds])
        low.append(family.low[binds])
        high.append(np.where(family.high < limits.total * family.most, family.high, np.inf)[binds])
    low = np.concatenate(low)
    return sparse.vstack(rows).tocsr(), np.where(low > 0, low, -np.inf), np.concatenate(high)


class _Rows(NamedTuple):
    """Rows of a program as the solver takes them, scaled to entries of about 1."""

    upper: Any  # sparse, rows @ n <= limit
    limit: Float[np.ndarray, " u"]
    width: Float[np.ndarray, " u"]  # what rows of families that tell completions apart may be eased by; 0 of others
    below: Bool[np.ndarray, " g"]  # rows that are among the first of `upper`, by their upper limits
    above: Bool[np.ndarray, " g"]  # and among the last, by their lower ones
    scale: Float[np.ndarray, " g"]

    def multipliers(self, marginals: Float[np.ndarray, " u"]) -> Float[np.ndarray, " g"]:
        """Of the rows of `constraint_rows`, positive where an upper limit binds."""
        found, split = np.zeros(len(self.scale)), int(self.below.sum())
        found[self.below] -= marginals[:split]
        found[self.above] += marginals[split:]
        return found * self.scale


def _scaled_rows(limits, pairs) -> _Rows:
    from scipy import sparse

    rows, low, high = constraint_rows(limits, pairs)
    largest = abs(rows).max(axis=1).toarray().ravel()
    scale = 1 / np.where(largest > 0, largest, 1)
    width = [np.full(_binding(limits, family).sum(), float(not family.by_prompt)) for family in limits.families]
    width = np.concatenate([np.zeros(len(low) - sum(map(len, width))), *width])
    rows, below, above = sparse.diags(scale) @ rows, np.isfinite(high), np.isfinite(low)
    limit = np.concatenate([(scale * high)[below], -(scale * low)[above]])
    width = np.concatenate([width[below], width[above]]) * np.where(limit != 0, np.abs(limit), 1)
    return _Rows(sparse.vstack([rows[below], -rows[above]]), limit, width, below, above, scale)


OPTIONS = {"primal_feasibility_tolerance": MISSED, "dual_feasibility_tolerance": MISSED}


def linear_program(limits, pairs: Int[np.ndarray, "s 3"], gains: Float[np.ndarray, " s"]) -> Program | None:
    """max sum_e gains_e n_e over allowed allocations of the listed pairs; None where there is none.

    Solved by the HiGHS solvers of SciPy, gains and rows scaled to entries of about 1.
    """
    if len(pairs) == 0:
        return None
    rows, unit = _scaled_rows(limits, pairs), max(float(np.abs(gains).max()), 1e-300)
    cap = _caps(limits, pairs)
    found = _solved(-gains / unit, rows.upper, rows.limit, np.ones(len(pairs)), limits.total, cap)
    if found is None:
        return None
    labels = np.clip(found.x, 0, cap)
    return Program(labels, float(gains @ labels), _prices(limits, rows, found, unit))


def least_broken(limits, pairs: Int[np.ndarray, "s 3"]) -> tuple[float, Prices] | None:
    """The smallest t such that labels of the listed pairs obey all limits, those of families that tell completions
    apart eased to the share 1 + t (1 - t where low); with its prices. None where nothing obeys the others."""
    from scipy import sparse

    if len(pairs) == 0:
        return None
    rows, t = _scaled_rows(limits, pairs), np.append(np.zeros(len(pairs)), 1.0)
    upper = sparse.hstack([rows.upper, -rows.width[:, None]])
    found = _solved(t, upper, rows.limit, 1 - t, limits.total, np.append(_caps(limits, pairs), np.inf))
    return None if found is None else (float(found.x[-1]), _prices(limits, rows, found, 1.0))


def _solved(cost, upper, limit, counted, total: float, most) -> Any:
    """min cost.x over 0 <= x <= most with upper x <= limit and counted.x = total; None where there is none."""
    from scipy.optimize import linprog

    found = linprog(
        cost,
        A_ub=upper,
        b_ub=limit,
        A_eq=counted[None],
        b_eq=[total],
        bounds=np.stack([np.zeros(len(most)), most], axis=1),
        method="highs",
        options=OPTIONS,
    )
    return found if found.status == 0 else None


def _prices(limits, rows: _Rows, found, unit: float) -> Prices:
    """Multipliers of a solution, whose objective was divided by `unit`."""
    multipliers = _of_families(limits, unit * rows.multipliers(found.ineqlin.marginals))
    return Prices(-float(found.eqlin.marginals[0]) * unit, multipliers)


def _caps(limits, pairs):
    return np.minimum(limits.per_pair[pairs[:, 0]], limits.total)


def _binding(limits, family: Family) -> Bool[np.ndarray, " g"]:
    """Rows of a family that can bind at all."""
    return (family.low > 0) | (family.high < limits.total * family.most)


def _of_families(limits, multipliers) -> tuple[Float[np.ndarray, " g"], ...]:
    """A multiplier for every row, from those of `constraint_rows`, whose last rows are the families'."""
    prices, end = [], len(multipliers)
    for family in reversed(limits.families):
        binds, price = _binding(limits, family), np.zeros(len(family.low))
        price[binds] = multipliers[end - int(binds.sum()) : end]
        prices.append(np.where(family.low > 0, price, np.maximum(price, 0.0)))
        end -= int(binds.sum())
    return tuple(reversed(prices))


def free_prices(limits, label: float) -> Prices:
    """Prices at which only a label costs something."""
    return Prices(label, tuple(np.zeros(len(family.low)) for family in limits.families))


def dual_bound(
    limits,
    pair_counts: Float[np.ndarray, " p"],
    prices: Prices,
    pairs: Int[np.ndarray, "s 3"],
    nets: Float[np.ndarray, " s"],
    floor: Float[np.ndarray, " p"],
) -> float:
    """The bound of this module's docstring.

    Args:
        limits: a budget's.
        pair_counts: candidate pairs of every prompt.
        prices: any.
        pairs: listed pairs with their `nets` at these prices.
        floor: no pair of a prompt that is not listed has a larger net.
    """
    value = limits.total * prices.label
    for family, price in zip(limits.families, prices.families, strict=True):
        high = np.minimum(family.high, limits.total * family.most)
        value += np.maximum(price * high, price * family.low).sum()
    some = np.flatnonzero(pair_counts > 0)  # one more pair for what is not listed, with all the room there is
    owner = np.concatenate([pairs[:, 0], some])
    gain = np.concatenate([nets, floor[some]])
    cap = np.minimum(limits.per_pair, limits.total)
    room = np.concatenate([cap[pairs[:, 0]], np.minimum(cap * pair_counts, limits.total)[some]])
    order = np.lexsort((-gain, owner))
    owner, gain, room = owner[order], gain[order], room[order]
    ends = np.cumsum(room)
    first = np.searchsorted(owner, owner, side="left")
    before = ends - room - (ends - room)[first]
    most = np.minimum(limits.per_prompt, limits.total)[owner]
    allowed = np.where(gain > 0, most, limits.minima[owner])
    return float(value + gain @ np.clip(allowed - before, 0, room))


WORDS = {  # of messages, by the kind of a family: row, found and limit
    "quota": ("{0} has {1:g} labels, below its at_least={2:g}", "{0} has {1:g} labels, above its at_most={2:g}"),
    "cost": ("", "they cost {1:g}, above budget.cost_total={2:g}"),
    "constraint": ("{0} uses {1:g}, below its low={2:g}", "{0} uses {1:g}, above its high={2:g}"),
}


def check_coupling(limits, allocation: Allocation, spent: Float[np.ndarray, " p"]) -> None:
    """ValueError unless an allocation obeys minima and families, to 1e-6.

    `spent`: its labels on every prompt.
    """
    short = spent < limits.minima * (1 - 1e-6)
    if short.any():
        p = int(np.argmax(short))
        raise ValueError(
            f"labels: prompt {p} has {spent[p]:g} labels, below budget.per_prompt_min={limits.minima[p]:g}"
        )
    for family in limits.families:
        found, unit = usage(family, allocation), 1e-9 * np.maximum(family.most, 1e-300)
        for text, limit, wrong in (
            (WORDS[family.kind][0], family.low, found < family.low * (1 - 1e-6) - unit),
            (WORDS[family.kind][1], family.high, found > family.high * (1 + 1e-6) + unit),
        ):
            if wrong.any():
                g = int(np.argmax(wrong))
                raise ValueError("labels: " + text.format(family.rows.name(g), found[g], limit[g]))
