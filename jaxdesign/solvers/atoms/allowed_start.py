"""An allowed allocation under coupling constraints to begin with, and the check of the spend limit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdesign.budget.constraints import linear_program, pair_costs, prompt_prices
from jaxdesign.pricing.memory import MemorySource, map_chunks, open_pairs
from jaxdesign.problem import Problem


def allowed_start(problem: Problem) -> tuple[Int[np.ndarray, "s 3"], Float[np.ndarray, " s"]]:
    """Pairs and labels that obey the budget: the cheapest ones where labels have a cost.

    The least cost is a linear program over the cheapest few pairs of every prompt, four times as many until no other
    pair can make it cheaper.

    Raises:
        ValueError: the cheapest labels cost more than the spend limit; the message names both and the largest total
            that the limit allows.
    """
    limits = problem.limits
    free = limits._replace(coupling=limits.coupling._replace(spend=np.inf))
    pairs, following = _cheapest(problem, 1)
    most = int(problem.pair_counts.max())
    number = 1
    while True:
        costs = pair_costs(limits.coupling, pairs)
        found = linear_program(free, pairs, -costs)
        if found is not None and (number >= most or _complete(problem, found, following)):
            break
        if number >= most:
            raise ValueError(
                f"budget.total={limits.total:g}: the linear programming solver found no allocation that obeys quotas "
                "and minima; relax one of them"
            )
        number = min(4 * number, most)
        pairs, following = _cheapest(problem, number)
    used = found.labels > 0
    least, spend = float(costs @ found.labels), limits.coupling.spend
    if least > spend * (1 + 1e-9):
        raise ValueError(
            f"budget.cost_total={spend:g}: the cheapest {limits.total:g} labels that obey the rest of the budget cost "
            f"{least:g}; raise it to at least that, or lower total (without quotas and minima at most "
            f"{_affordable(limits, pairs, costs):g} labels can be paid)"
        )
    return pairs[used], found.labels[used]


def _cheapest(problem: Problem, number: int):
    """The `number` cheapest candidate pairs of every prompt, and the cost of the next one (inf where there is none)."""
    charges = problem.limits.coupling.charges
    completions = problem.pool.completions
    upper = np.triu_indices(completions, 1)
    pairs, following = [], np.full(len(charges), np.inf)
    is_open = np.unpackbits(np.asarray(_open_bits(problem.source)), axis=-1, count=completions)
    is_open = is_open.reshape(-1, completions, completions)[: len(charges)]
    for start in range(0, len(charges), 256):  # so that costs of all pairs never lie in memory at once
        part = slice(start, start + 256)
        cost = charges[part][:, upper[0]] + charges[part][:, upper[1]]
        cost = np.where(is_open[part][:, upper[0], upper[1]] > 0, cost, np.inf)
        order = np.argsort(cost, axis=1, kind="stable")
        ranked = np.take_along_axis(cost, order, axis=1)
        p, rank = np.nonzero(np.isfinite(ranked[:, :number]))
        slot = order[p, rank]
        pairs.append(np.stack([p + start, upper[0][slot], upper[1][slot]], axis=1))
        if number < ranked.shape[1]:
            following[part] = ranked[:, number]
    return np.concatenate(pairs).astype(np.int32), following


def _complete(problem: Problem, found, following) -> bool:
    """Whether no pair left out can lower the cost: the next one of every prompt costs more than a label is worth."""
    coupling = problem.limits.coupling
    worth = found.prices.label + prompt_prices(coupling, found.prices)
    held = coupling.least > 0  # a minimum that binds is worth more than that
    return bool((following + worth >= -1e-12)[~held].all()) and not np.isfinite(following[held]).any()


def _affordable(limits, pairs, costs) -> float:
    order = np.argsort(costs, kind="stable")
    cap = np.minimum(limits.per_pair[pairs[order, 0]], limits.total)
    ends = np.cumsum(cap * costs[order])
    within = int(np.searchsorted(ends, limits.coupling.spend, side="right"))
    more = 0.0
    if within < len(order) and costs[order[within]] > 0:
        before = ends[within - 1] if within else 0.0
        more = (limits.coupling.spend - before) / costs[order[within]]
    return min(float(cap[:within].sum() + more), limits.total)


@jax.jit
def _open_bits(source: MemorySource):
    return map_chunks(lambda chunk, _: jnp.packbits(open_pairs(chunk), axis=-1), source)
