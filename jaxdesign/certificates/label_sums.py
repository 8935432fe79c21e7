"""The largest sum of what whole labels are worth, pair by pair, that a budget allows.

The n-th label of a pair is worth no more than the one before it, so the sum is a concave function of the labels of each
pair, and filling labels in the order of their worth is exact under caps and quotas per prompt (laminar constraints).
What couples prompts is priced (`constraints.dual_bound`) or left out, whichever gives less: both bound the sum from
above.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign.budget.limits import Limits
from jaxdesign.budget.linear_program import completion_charges, dual_bound, linear_program, net
from jaxdesign.budget.oracle import OracleResult, linear_oracle

ROUNDING = 1e-12  # relative, of sums of at most millions of numbers


class Increments(NamedTuple):
    """Labels one by one: a row for every label of a pair that may be worth more than the floor."""

    of: Int[np.ndarray, " n"]  # index of the pair
    worth: Float[np.ndarray, " n"]
    slope: Float[np.ndarray, " n"]  # derivative of the worth in the leverage


def log_increments(caps: Float[np.ndarray, " s"], leverages: Float[np.ndarray, " s"], floor: float) -> Increments:
    """log(1 + n l) - log(1 + (n-1) l), n = 1, 2, ..., as far as the cap goes and it exceeds log(1 + floor).

    Args:
        caps: most labels of each pair, whole and finite.
        leverages: l of each pair, at least 0.
        floor: leverage whose first label is worth as much as the rows that are left out, at most.
    """
    leverages = np.maximum(leverages, 1e-300)
    most = 1 / floor if floor > 1e-300 else 1e300  # the n-th exceeds it where l / (1 + (n-1) l) > floor
    last = np.ceil(1 + most - 1 / leverages)
    count = np.where(caps >= 1, np.clip(last, 1, np.maximum(caps, 1)), 0).astype(np.int64)
    of = np.repeat(np.arange(len(count)), count)
    before = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
    own = leverages[of]
    base = 1 + before * own
    return Increments(of, np.log1p(own / base), 1 / (base * (base + own)))


def largest_sum(
    limits: Limits,
    pair_counts: Float[np.ndarray, " p"],
    pairs: Int[np.ndarray, "s 3"],
    worth: Float[np.ndarray, " s"],
    floor: float,
) -> OracleResult:
    """An upper bound on max sum_e worth_e n_e, with the labels and the level that lead to it.

    Args:
        limits: caps per pair hold for each row of `pairs`, also where a pair has several rows.
        pair_counts: rows that each prompt could have, listed or not.
        pairs, worth: the rows listed.
        floor: no row that is not listed is worth more.
    """
    found = linear_oracle(limits, pairs, worth, floor)
    value = found.value
    program = None if limits.laminar else linear_program(limits, pairs, worth)
    if program is not None:
        charges = completion_charges(limits, program.prices)
        cheapest = np.sort(charges, axis=1)[:, :2]  # masked slots may make it cheaper still
        others = floor - program.prices.label - cheapest.sum(axis=1) * (3 - cheapest.shape[1])
        nets = net(limits, program.prices, pairs, worth)
        value = min(value, dual_bound(limits, pair_counts, program.prices, pairs, nets, others))
        found = found._replace(labels=program.labels)
    size = abs(value) + limits.total * max(abs(floor), float(np.abs(worth).max(initial=0.0)))
    return found._replace(value=value + ROUNDING * size)
