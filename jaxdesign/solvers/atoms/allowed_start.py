"""An allowed allocation under constraints that couple prompts, to begin with; or words for why there is none.

Linear programs over a few pairs of every prompt, more as their prices ask for: first, where families besides the cost
tell completions apart, one that breaks these by as little as can be; then one that costs the least.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int, UInt8

from jaxdesign._pairs import Allocation, not_among
from jaxdesign.budget.family import of_both
from jaxdesign.budget.limits import Limits
from jaxdesign.budget.linear_program import Prices, completion_charges, least_broken, linear_program
from jaxdesign.pricing.source import open_pairs
from jaxdesign.problem import Problem

VIOLATION = 1e-7  # share of a limit that the first program may leave it broken by
LISTED = 5e5  # pairs that a program may have
NEGLIGIBLE = 1e-9  # reduced cost, below 0, at which a pair improves no program whose entries are about 1


class Listed(NamedTuple):
    """The cheapest candidate pairs of every prompt."""

    pairs: Int[np.ndarray, "s 3"]
    charges: Float[np.ndarray, " s"]
    following: Float[np.ndarray, " p"]  # what the next one is charged, inf where there is none


def allowed_start(problem: Problem) -> Allocation:
    """Pairs and labels that obey the budget: the cheapest ones where labels have a cost.

    Raises:
        ValueError: constraints that no labels obey together, with how far they are broken at least; or the cheapest
            labels cost more than the spend limit (the message names both and the largest total that the limit allows).
    """
    limits = problem.limits
    cost = next((family for family in limits.families if family.kind == "cost"), None)
    free = limits._replace(families=tuple(family for family in limits.families if family.kind != "cost"))
    shape = problem.exists.shape
    feasible, bits = np.zeros((0, 3), np.int32), _open_bits(problem)
    if not all(family.by_prompt for family in free.families):
        feasible = _feasible_pairs(problem, free, bits)
    charges = np.zeros(shape) if cost is None else np.broadcast_to(cost.charges, shape)
    pairs, labels, costs = _least_cost(problem, free, bits, charges, feasible)
    least, spend = float(costs @ labels), np.inf if cost is None else float(cost.high[0])
    if least > spend * (1 + 1e-9):
        raise ValueError(
            f"budget.cost_total={spend:g}: the cheapest {limits.total:g} labels that obey the rest of the budget cost "
            f"{least:g}; raise it to at least that, or lower total (without quotas and minima at most "
            f"{_affordable(limits, pairs, costs, spend):g} labels can be paid)"
        )
    used = labels > 0
    return Allocation(pairs[used], labels[used])


def _least_cost(problem: Problem, free: Limits, bits, charges: Float[np.ndarray, "p k"], pairs):
    """Pairs, labels and what a label of each costs, the sum as small as can be: a linear program over the cheapest few
    pairs of every prompt, four times as many until no other pair can make it cheaper. `pairs` are listed in any case.
    """
    number, most, charged = 1, int(problem.pair_counts.max()), charges
    while True:
        listed = _cheapest(bits, charged, number)
        pairs = _joined(listed.pairs, pairs, problem)
        costs = of_both(charges, pairs).sum(axis=0)
        program = linear_program(free, pairs, -costs)
        if program is not None:
            charged = charges + completion_charges(free, program.prices)
            if number >= most or _complete(problem, free, program.prices, _cheapest(bits, charged, number), pairs):
                return pairs, program.labels, costs
        if number >= most:
            raise ValueError(
                f"budget.total={free.total:g}: the linear programming solver found no allocation that obeys quotas, "
                "minima and constraints; relax one of them"
            )
        number = min(4 * number, most)


def _feasible_pairs(problem: Problem, free: Limits, bits) -> Int[np.ndarray, "s 3"]:
    """Pairs some labels of which obey all limits but the spend limit."""
    number, most, charged = 1, int(problem.pair_counts.max()), np.zeros(problem.exists.shape)
    pairs = np.zeros((0, 3), np.int32)
    while True:
        pairs = _joined(pairs, _cheapest(bits, charged, number).pairs, problem)
        eased = least_broken(free, pairs)
        if eased is not None and eased[0] <= VIOLATION:
            return pairs
        if eased is not None:
            charged = np.broadcast_to(completion_charges(free, eased[1]), charged.shape)
            if _complete(problem, free, eased[1], _cheapest(bits, charged, number), pairs, NEGLIGIBLE):
                raise ValueError(_in_conflict(free, *eased))
        if len(pairs) > LISTED or (eased is None and number >= most):
            raise ValueError(
                f"budget.constraints: no {free.total:g} labels that obey them were found; relax one of them"
            )
        number = min(2 * number, most)


def _in_conflict(free: Limits, share: float, prices: Prices) -> str:
    """What to say of constraints that no labels obey, those named that have a price."""
    priced = [f.rows.family for f, price in zip(free.families, prices.families, strict=True) if price.any()]
    names = " and ".join(priced or [family.rows.family for family in free.families])
    return (
        f"budget.constraints: no {free.total:g} labels obey {names} with the rest of the budget; on some row they are "
        f"off by {share:.3g} of the limit at least; widen it by that share, or lower total"
    )


def _complete(problem: Problem, free: Limits, prices: Prices, cheapest: Listed, pairs, slack: float = 1e-12) -> bool:
    """Whether no pair left out can improve a program: those are charged more than a label is worth."""
    # in a prompt whose minimum binds a label is worth more than its price: there all pairs must be listed
    least = np.where(free.minima > 0, np.inf, -slack)
    if (cheapest.following + prices.label < least).any():
        return False
    cheap = cheapest.pairs[cheapest.charges + prices.label < -slack]
    return not not_among(cheap, pairs, problem.completions).any()


def _cheapest(bits: UInt8[np.ndarray, "p k b"], charges: Float[np.ndarray, "p k"], number: int) -> Listed:
    """The `number` pairs of every prompt, of those whose bit is set, whose completions are charged least."""
    completions = charges.shape[1]
    upper = np.triu_indices(completions, 1)
    pairs, lowest, following = [], [], np.full(len(charges), np.inf)
    for start in range(0, len(charges), 256):  # so that charges of all pairs never lie in memory at once
        part = slice(start, start + 256)
        is_open = np.unpackbits(bits[part], axis=-1, count=completions)
        charge = charges[part][:, upper[0]] + charges[part][:, upper[1]]
        charge = np.where(is_open[:, upper[0], upper[1]] > 0, charge, np.inf)
        order = np.argsort(charge, axis=1, kind="stable")
        ranked = np.take_along_axis(charge, order, axis=1)
        p, rank = np.nonzero(np.isfinite(ranked[:, :number]))
        slot = order[p, rank]
        pairs.append(np.stack([p + start, upper[0][slot], upper[1][slot]], axis=1))
        lowest.append(ranked[p, rank])
        if number < ranked.shape[1]:
            following[part] = ranked[:, number]
    return Listed(np.concatenate(pairs).astype(np.int32), np.concatenate(lowest), following)


def _joined(pairs, others, problem: Problem) -> Int[np.ndarray, "s 3"]:
    """The pairs, then those of the others that are not among them."""
    return np.concatenate([pairs, others[not_among(others, pairs, problem.completions)]])


def _affordable(limits: Limits, pairs, costs, spend: float) -> float:
    order = np.argsort(costs, kind="stable")
    cap = np.minimum(limits.per_pair[pairs[order, 0]], limits.total)
    ends = np.cumsum(cap * costs[order])
    within = int(np.searchsorted(ends, spend, side="right"))
    part = 0.0  # of the first pair that is too dear to be filled
    if within < len(order) and costs[order[within]] > 0:
        part = (spend - (ends[within - 1] if within else 0.0)) / costs[order[within]]
    return min(float(cap[:within].sum() + part), limits.total)


def _open_bits(problem: Problem) -> UInt8[np.ndarray, "p k b"]:
    """Bit j of row i: pair (i, j), i < j, may be used; one pass."""
    return np.asarray(problem.source.fold(Partial(_packed), None)[1])


def _packed(chunk, carry, _):
    return carry, jnp.packbits(open_pairs(chunk), axis=-1)
