"""Constraints that couple prompts: groups of prompts, a spend limit, a least number of labels per prompt.

They are not laminar together (a domain crosses a language, a cost crosses everything), so filling pairs greedily no
longer solves the linear problem max sum b n, and would give a false certificate. Here a linear program over listed
pairs gives an allowed allocation and prices, and for any prices Lagrange duality bounds the problem over all pairs:

    sum_e b_e n_e <= l m + sum_g max(v_g high_g, v_g low_g) + w spend + sum_p max_n sum_{e in p} net_e n_e,
    net_e = b_e - l - v_g(p) - w cost_e,

l the price of a label, v_g of a label in group g, w >= 0 of a unit of cost; the inner maximum over the pairs of one
prompt is laminar and is taken greedily. At the prices of the linear program both sides agree.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign.budget.quota import Groups

MISSED = 1e-9  # infeasibility that the linear programs may leave, in labels


class Coupling(NamedTuple):
    """What a budget asks for besides caps per pair and largest numbers of labels per prompt."""

    least: Float[np.ndarray, " p"]  # labels that the pairs of each prompt must get
    groups: Groups  # owner (Q, P)
    charges: Float[np.ndarray, "p k"]  # of completions: a label of pair (p, i, j) costs charges_pi + charges_pj
    spend: float  # what all labels may cost, inf without limit


class Prices(NamedTuple):
    """Multipliers of the coupling constraints."""

    label: float
    groups: Float[np.ndarray, " g"]  # positive where a largest number binds, negative where a least one does
    spend: float


class Program(NamedTuple):
    """Solution of the linear problem over a list of pairs."""

    labels: Float[np.ndarray, " s"]
    value: float
    prices: Prices


def pair_costs(coupling: Coupling, pairs: Int[np.ndarray, "s 3"]) -> Float[np.ndarray, " s"]:
    """What a label of each pair costs."""
    p, i, j = pairs.T
    return coupling.charges[p, i] + coupling.charges[p, j]


def prompt_prices(coupling: Coupling, prices: Prices) -> Float[np.ndarray, " p"]:
    """Price of a label in each prompt: the sum of the prices of its groups."""
    return prices.groups[coupling.groups.owner].sum(axis=0)


def completion_charges(coupling: Coupling, prices: Prices) -> Float[np.ndarray, "p k"]:
    """(P, K) charges whose sum over the two completions of a pair is b_e - l - net_e."""
    return prices.spend * coupling.charges + prompt_prices(coupling, prices)[:, None] / 2


def net(coupling: Coupling, prices: Prices, pairs, sensitivities) -> Float[np.ndarray, " s"]:
    """b_e less the prices of a label of the pair."""
    charged = prompt_prices(coupling, prices)[pairs[:, 0]] + prices.spend * pair_costs(coupling, pairs)
    return sensitivities - prices.label - charged


def group_totals(coupling: Coupling, prompt_labels: Float[np.ndarray, " p"]) -> Float[np.ndarray, " g"]:
    """Labels of every group from those of every prompt."""
    size, owner = len(coupling.groups.names), coupling.groups.owner
    weights = np.broadcast_to(prompt_labels, owner.shape)
    return np.bincount(owner.ravel(), weights=weights.ravel(), minlength=size)


def constraint_rows(limits, pairs: Int[np.ndarray, "s 3"]):
    """Rows, lower and upper limits of everything but the total and the caps, for labels of the listed pairs.

    Prompts with limits come first, then groups, then the spend limit where there is one; -inf and inf where a limit
    cannot bind.
    """
    from scipy import sparse

    coupling, column, owner = limits.coupling, np.arange(len(pairs)), pairs[:, 0]
    prompts, row = np.unique(owner, return_inverse=True)
    bound = (coupling.least[prompts] > 0) | (limits.per_prompt[prompts] < limits.total)
    of_prompts = sparse.csr_matrix((np.ones(len(pairs)), (row, column)), (len(prompts), len(pairs)))[bound]
    groups = coupling.groups
    of = groups.owner[:, owner]
    entries = np.ones(of.size), (of.ravel(), np.broadcast_to(column, of.shape).ravel())
    rows = [of_prompts, sparse.csr_matrix(entries, (len(groups.names), len(pairs)))]
    low = np.concatenate([coupling.least[prompts][bound], groups.low])
    high = np.concatenate([limits.per_prompt[prompts][bound], groups.high])
    low, high = np.where(low > 0, low, -np.inf), np.where(high < limits.total, high, np.inf)
    if np.isfinite(coupling.spend):
        rows.append(sparse.csr_matrix(pair_costs(coupling, pairs)[None]))
        low, high = np.append(low, -np.inf), np.append(high, coupling.spend)
    return sparse.vstack(rows).tocsr(), low, high


def linear_program(limits, pairs: Int[np.ndarray, "s 3"], gains: Float[np.ndarray, " s"]) -> Program | None:
    """max sum_e gains_e n_e over allowed allocations of the listed pairs; None where there is none.

    Solved by the HiGHS solvers of SciPy, gains and rows scaled to entries of about 1. `limits` with a coupling.
    """
    from scipy import sparse
    from scipy.optimize import linprog

    if len(pairs) == 0:
        return None
    coupling = limits.coupling
    rows, low, high = constraint_rows(limits, pairs)
    unit, largest = max(float(np.abs(gains).max()), 1e-300), abs(rows).max(axis=1).toarray().ravel()
    scale = 1 / np.where(largest > 0, largest, 1)
    rows, below, above = sparse.diags(scale) @ rows, np.isfinite(high), np.isfinite(low)
    cap = np.minimum(limits.per_pair[pairs[:, 0]], limits.total)
    found = linprog(
        -gains / unit,
        A_ub=sparse.vstack([rows[below], -rows[above]]),
        b_ub=np.concatenate([(scale * high)[below], -(scale * low)[above]]),
        A_eq=np.ones((1, len(pairs))),
        b_eq=[limits.total],
        bounds=np.stack([np.zeros(len(pairs)), cap], axis=1),
        method="highs",
        options={"primal_feasibility_tolerance": MISSED, "dual_feasibility_tolerance": MISSED},
    )
    if found.status != 0:
        return None
    multipliers, split = np.zeros(len(low)), int(below.sum())
    multipliers[below] -= found.ineqlin.marginals[:split]
    multipliers[above] += found.ineqlin.marginals[split:]
    multipliers *= scale * unit
    priced = int(np.isfinite(coupling.spend))
    groups = multipliers[len(low) - priced - len(coupling.groups.names) : len(low) - priced]
    spend = max(float(multipliers[-1]), 0.0) if priced else 0.0
    labels = np.clip(found.x, 0, cap)
    return Program(labels, float(gains @ labels), Prices(-float(found.eqlin.marginals[0]) * unit, groups, spend))


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
        limits: with a coupling.
        pair_counts: candidate pairs of every prompt.
        prices: any.
        pairs: listed pairs with their `nets` at these prices.
        floor: no pair of a prompt that is not listed has a larger net.
    """
    coupling = limits.coupling
    groups, price = coupling.groups, prices.groups
    high = np.minimum(groups.high, limits.total)
    value = limits.total * prices.label + np.maximum(price * high, price * groups.low).sum()
    value += prices.spend * coupling.spend if prices.spend > 0 else 0.0
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
    allowed = np.where(gain > 0, most, coupling.least[owner])
    return float(value + gain @ np.clip(allowed - before, 0, room))


def check_coupling(
    coupling: Coupling, pairs: Int[np.ndarray, "s 3"], labels: Float[np.ndarray, " s"], spent: Float[np.ndarray, " p"]
) -> None:
    """ValueError unless an allocation obeys minima, quotas of groups and the spend limit, to 1e-6.

    `spent`: its labels on every prompt.
    """
    if (spent < coupling.least * (1 - 1e-6)).any():
        p = int(np.argmax(spent < coupling.least * (1 - 1e-6)))
        raise ValueError(
            f"labels: prompt {p} has {spent[p]:g} labels, below budget.per_prompt_min={coupling.least[p]:g}"
        )
    groups, found = coupling.groups, group_totals(coupling, spent)
    for wrong, limits, text in (
        (found < groups.low * (1 - 1e-6) - 1e-9, groups.low, "below its at_least"),
        (found > groups.high * (1 + 1e-6) + 1e-9, groups.high, "above its at_most"),
    ):
        if wrong.any():
            g = int(np.argmax(wrong))
            raise ValueError(f"labels: {groups.names[g]} has {found[g]:g} labels, {text}={limits[g]:g}")
    cost = float(pair_costs(coupling, pairs) @ labels)
    if cost > coupling.spend * (1 + 1e-6):
        raise ValueError(f"labels: they cost {cost:g}, above budget.cost_total={coupling.spend:g}")
