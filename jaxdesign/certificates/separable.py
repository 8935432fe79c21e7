"""Certificates that survive every rounding on the way to them.

A pass in the pool's working dtype finds which pairs can matter; those are priced again in float64 from the stored
features. Pairs that were not listed have, in exact arithmetic, a sensitivity below the level `floor` of the listing,
because the pass adds a bound on its own rounding error before it compares. The linear oracle over the listed pairs,
with `floor` for everything else, is then an upper bound S on the oracle over all pairs: never a certificate better than
the truth, whatever the listing missed.

What is counted, and how well it is known:

- that A^-1 and the factors F are inexact: not at all, bounds hold for F as computed (`criteria.anchors`). Proven.
- b of listed pairs in float64: `analysis.sensitivity_bounds`. Proven.
- t = tr(F F^T prior), sums of S and the anchor: units in the last place times sums of absolute values. Proven.
- b of unlisted pairs in float32: `pricing.passes.rounding_error`, under independent roundings, its constant measured.
  A prompt in which something is not finite is listed whole; where nothing can be listed, nothing is proven.
- the value of the given allocation, whose A is itself a rounded sum: `analysis.value_rounding`. Measured.
- for a user's own criterion the gradient is taken as exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays
from jaxdesign.analysis import Analysis, exact_sensitivities, sensitivity_bounds
from jaxdesign.budget.limits import Limits, capacity
from jaxdesign.budget.oracle import OracleResult, linear_oracle
from jaxdesign.design import Certificate
from jaxdesign.pricing.ceilings import Ceilings, ceilings_at, no_ceilings
from jaxdesign.pricing.passes import Charges
from jaxdesign.pricing.sweep import Factored, Swept, Wanted, bounded, sweep
from jaxdesign.problem import Problem


class Priced(NamedTuple):
    """A pass with its certificate."""

    certificate: Certificate[float]
    swept: Swept
    pairs: Int[np.ndarray, "s 3"]  # the listed pairs
    sensitivities: Float[np.ndarray, " s"]  # theirs, float64
    oracle: OracleResult
    floor: float  # no unlisted pair has a larger sensitivity
    passes: int = 1  # over the pool


class Pass(NamedTuple):
    """What is asked of a pass besides a certificate, and what is known before it.

    Args:
        entered: level above which the best pairs of completions are entered, net of nothing; inf: none.
        most_entered: so many of them.
        known: what earlier passes say of every prompt; None: nothing.
    """

    entered: float = np.inf
    most_entered: int = 0
    known: Ceilings | None = None


ALONE = Pass()


def certify(
    problem: Problem, matrix: Float[np.ndarray, "r d d"], analysis: Analysis, level: float, asked: Pass = ALONE
) -> Priced:
    """Price the pool at A and certify it.

    Args:
        matrix: A of an allowed allocation, (R, d, d) float64, with its `analysis`.
        level: pairs are listed down to this sensitivity. A guess is enough: too low lists more pairs, too high loosens
            the certificate, neither makes it false.
        asked: what else to look for.
    """
    wanted = Wanted(level, asked.entered, listing_limit(problem), asked.most_entered)
    swept = swept_at(problem, analysis, wanted, known=asked.known)
    ceiling = float(np.max(swept.upper))
    pairs, floor = swept.pairs, min(level, ceiling) if swept.complete else ceiling
    sensitivities, bounds = sensitivity_bounds(problem, pairs, analysis.factors)
    # what reached the level by rounding alone is left to the floor: which pairs those are depends on chunks and devices
    kept = sensitivities >= floor
    pairs, sensitivities, bounds = pairs[kept], sensitivities[kept], bounds[kept]
    oracle = linear_oracle(problem.limits, pairs, bounds, floor)
    return Priced(certificate(problem, matrix, analysis, oracle.value), swept, pairs, sensitivities, oracle, floor)


def factored(analysis: Analysis) -> Factored:
    """The factors of an analysis as passes take them."""
    return Factored(analysis.factors, analysis.scaled, analysis.unit)


def swept_at(
    problem: Problem, analysis: Analysis, wanted: Wanted, charges: Charges | None = None, known: Ceilings | None = None
) -> Swept:
    """A pass over the pool at `analysis`; levels and charges in units of sensitivities."""
    return sweep(problem.source, factored(analysis), wanted, useful_ranks(problem), charges, known)


def best_of_pool(
    problem: Problem, analysis: Analysis, above: float, number: int, known: Ceilings | None = None
) -> tuple[Int[np.ndarray, "m 3"], Float[np.ndarray, " m"]]:
    """At most so many pairs with sensitivity above a level, from the two best partners of every completion."""
    if known is None:
        known = bounded(problem.source, factored(analysis), no_ceilings(problem.prompts)).known
    upper = ceilings_at(known, analysis.factors)
    if number < len(upper):  # so many prompts have a pair that is nearly as good as their bound
        above = max(above, 0.99 * float(np.partition(upper, -number)[-number]))
    found = swept_at(problem, analysis, Wanted(np.inf, above, 0, number), known=known)
    return found.entered, found.values


def certificate(problem: Problem, matrix, analysis: Analysis, oracle_value: float) -> Certificate[float]:
    """Certificate of A from S, an upper bound on the linear oracle (see `criteria.anchors` for the formulas)."""
    eps = np.finfo(np.float64).eps
    constant = float(np.mean(np.sum(analysis.G * problem.prior, axis=(1, 2))))
    size = np.sqrt(np.maximum(np.diagonal(analysis.G, axis1=1, axis2=2), 0))
    terms = size[:, :, None] * size[:, None, :] * np.abs(problem.prior)
    constant += (problem.dim + 10) * eps * float(np.mean(np.sum(terms, axis=(1, 2))))
    linear = (constant + oracle_value) * (1 + 64 * eps)  # sums over pairs are pairwise, or of a few terms
    current = float(np.mean(np.sum(analysis.G * matrix, axis=(1, 2))))
    if not np.isfinite(linear):
        return from_bound(problem, analysis, -np.inf)
    with _arrays.float64():
        bound = float(problem.criterion.lower_bound(analysis.anchor, linear, current, problem.dim))
    return from_bound(problem, analysis, bound)


def from_bound(problem: Problem, analysis: Analysis, lower_bound: float) -> Certificate[float]:
    """Certificate of an allocation from the analysis of its A and any valid lower bound (bounds of other passes are).

    The rounding of its own value is taken off the bound: that of another allocation, where A is regular, may be less.
    Where nothing is proven the bound is -inf and the efficiency 0; NaN is for criteria that have no such formula.
    """
    declared = not np.isnan(_efficiency(problem, 1.0, 0.5))
    value = float(analysis.value)
    if not (np.isfinite(value) and np.isfinite(lower_bound) and np.isfinite(analysis.rounding)):
        bound = float(lower_bound) if np.isfinite(lower_bound) else -np.inf
        return Certificate(value, bound, float("inf"), 0.0 if declared else float("nan"))
    bound = float(min(lower_bound, value) - analysis.rounding)
    return Certificate(value, bound, value - bound, float(np.clip(_efficiency(problem, value, bound), 0, 1)))


def _efficiency(problem: Problem, value: float, bound: float) -> float:
    with _arrays.float64():
        return float(problem.criterion.efficiency(value, bound, problem.dim))


def blurred(problem: Problem, analysis: Analysis) -> float:
    """The relative gap that the rounding of the value alone leaves, however good an allocation is."""
    return from_bound(problem, analysis, analysis.value).relative_gap()


def pairs_needed(problem: Problem) -> float:
    """At most how many pairs the linear oracle gives labels to."""
    limits = problem.limits
    smallest = min(float(np.min(limits.per_pair, where=limits.per_pair > 0, initial=np.inf)), limits.total)
    by_quota = np.minimum(problem.pair_counts, pairs_holding(limits, limits.per_prompt))
    return min(np.ceil(limits.total / smallest), float(by_quota.sum()))


def pairs_holding(limits: Limits, labels: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """How many pairs of each prompt it takes to hold so many labels; 0 where required pairs left no room."""
    cap = np.minimum(limits.per_pair, limits.total)
    return np.where(cap > 0, np.ceil(labels / np.where(cap > 0, cap, 1)), 0.0)


def listing_limit(problem: Problem) -> float:
    """More listed pairs than this mean that the level was a poor guess."""
    return 4 * pairs_needed(problem) + 20_000


def cold_level(problem: Problem, analysis: Analysis) -> float:
    """A level at which the listing holds all the oracle's pairs and not many more, found without a guess."""
    limits, source = problem.limits, problem.source
    known = bounded(source, factored(analysis), no_ceilings(source.prompts)).known
    # twice as many as the oracle uses: what costs and quotas then leave out is still listed
    needed = 2 * int(pairs_needed(problem)) if limits.has_caps or limits.has_quotas else 1
    found = best_of_pool(problem, analysis, 0.0, needed, known)[0]
    b = np.sort(exact_sensitivities(problem, found, analysis.factors))
    if needed == 1:
        return float(b.max(initial=0.0))
    low, high = float(b[0]) if len(b) == needed else 0.0, float(b.max(initial=0.0))

    def listing(level):
        return swept_at(problem, analysis, Wanted(level, most_listed=-1), known=known)

    for _ in range(16):  # `low` lists enough, or is on its way down; `high` lists too few
        found = listing(low)
        if not _holds_total(problem, found):
            low, high = (low / 2 if low > 1e-9 * b[-1] else 0.0), low
            continue
        if found.counts.sum() <= 0.5 * listing_limit(problem):
            break
        middle = np.sqrt(max(low, 1e-9 * high)) * np.sqrt(high)
        found = listing(middle)
        low, high = (middle, high) if _holds_total(problem, found) else (low, middle)
    return low


def _holds_total(problem: Problem, found: Swept) -> bool:
    return bool(capacity(problem.limits, found.counts.astype(np.float64)) >= problem.limits.total)


def useful_ranks(problem: Problem) -> np.ndarray | None:
    """How many pairs of each prompt the oracle can use; None without quotas."""
    limits = problem.limits
    if not limits.has_quotas:
        return None
    return pairs_holding(limits, np.minimum(limits.per_prompt, limits.total)).astype(problem.source.dtype)
