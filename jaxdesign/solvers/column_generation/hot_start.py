"""Hot start: a few multiplicative steps with large powers over all pairs, to find where the support is.

n_e <- rescale(n_e (b_e / max b)^p): after six passes nearly all of an optimal design's mass lies on a few times its
support. A power that is too large leaves next to nothing on pairs that the support needs. Supports of many dimensions
have about 15 d pairs, so each power is the largest, up to (5, 4, 3.5, 3, 3, 2.5), that keeps the labels spread over
(25, 25, 25, 20, 15, 12) d pairs, and at least 1, with which the criterion falls at every step. All are halved for
criteria such as Trace, whose sensitivities are of second order in A^-1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import Analysis, analyse, exact_sensitivities
from jaxdesign.budget.limits import capacity
from jaxdesign.certificates.separable import factored
from jaxdesign.methods.room import rescale
from jaxdesign.pricing.ceilings import Ceilings, no_ceilings
from jaxdesign.pricing.listed import PromptsHeld
from jaxdesign.pricing.memory import MemorySource
from jaxdesign.pricing.source import Source
from jaxdesign.pricing.sweep import Bounded, Wanted, bounded, look
from jaxdesign.problem import Problem
from jaxdesign.solvers.dense.problem import DenseProblem, dense_part, even_allocation, information, sensitivities

POWERS = (5.0, 4.0, 3.5, 3.0, 3.0, 2.5)  # at most
SPREAD = (25.0, 25.0, 25.0, 20.0, 15.0, 12.0)  # times d: pairs that the labels stay spread over, at least
EVEN = 0.01  # share kept on the even allocation, so that no direction starves where there are few pairs;
FEW = 40  # less in proportion where there are more than FEW x d: there it would only blur the support
LEAST_WEIGHT = 1e-18  # smallest weight of a candidate pair
SMALL = 1e-6  # labels below this share of the largest are not looked at
FORESIGHT = (10.0, 5.0, 2.0, 0.0)  # by how much more the sensitivities of hot labels count than the labels
LOST = 0.005  # of all labels, that may be lost for it
MOST_COMPARED = 20_000  # pairs, to tell prompts apart that a pass cannot
LARGE = 2**21  # pair slots above which only leading prompts take part
START = 256  # times d: completions above which the same; supports have about 15 d pairs, of the best of them


class HotStart(NamedTuple):
    """Dense labels over some prompts with the sensitivities they were last scored at, in the units of the steps."""

    prompts: Int[np.ndarray, " q"]  # index in the pool; the last one again for empty slots
    labels: Float[np.ndarray, "q k k"]  # in units of `label_unit`
    sensitivities: Float[np.ndarray, "q k k"]
    passes: int
    label_unit: float
    unit: float  # of the criterion
    known: Ceilings | None  # what a pass said of every prompt
    source: Source | PromptsHeld  # the problem's, with these prompts at hand

    def criterion_slope(self) -> float:
        """sum_e b_e n_e, in the units of the criterion."""
        return self.unit * float(np.sum(self.labels * self.sensitivities, dtype=np.float64))


def hot_start(problem: Problem) -> HotStart:
    """Run the multiplicative steps on the device; the result comes to the host once.

    Pools of more than LARGE pair slots, or START d completions, are first cut to the prompts with the most sensitive
    pairs at the even allocation, found in one pass; the rest of the pool is left to pricing.
    """
    limits, source = problem.limits, problem.source
    prompts, known = np.arange(source.prompts), None
    length = _arrays.chunk_length(source.prompts, source.completions, source.dim)
    most = min(LARGE // source.completions**2, START * source.dim // source.completions)
    count = max(-(-most // length), 1) * length  # whole chunks
    if count < source.prompts:
        prompts, known = _leading_prompts(problem, count)
    if len(prompts) < source.prompts or not isinstance(source, MemorySource):
        held = _arrays.for_algebra(source.subset(prompts))
        source = PromptsHeld(source, prompts, held) if getattr(source, "as_stored", True) else source
    else:
        held = _arrays.for_algebra(source)
    prompts = np.pad(prompts, (0, held.slots - len(prompts)), mode="edge")
    dense = dense_part(problem, held, limits.per_pair[prompts], limits.per_prompt[prompts])
    with _arrays.float64():
        labels, sensitivities = _steps(dense)
    return HotStart(
        prompts, np.asarray(labels), np.asarray(sensitivities), len(POWERS) + 1 + (known is not None),
        float(dense.labels), float(dense.unit), known, source,
    )  # fmt: skip


def _leading_prompts(problem: Problem, count: int) -> tuple[Int[np.ndarray, " q"], Ceilings]:
    """The prompts with the largest sensitivity at the even allocation, in order; more if they cannot hold the total."""
    analysis = analyse(problem, problem.even)
    found = bounded(problem.source, factored(analysis), no_ceilings(problem.prompts))
    while True:
        kept, counts = np.sort(_largest(problem, analysis, found, count)), np.zeros(problem.prompts)
        counts[kept] = problem.pair_counts[kept]
        if count >= problem.prompts or capacity(problem.limits, counts) >= 4 * problem.limits.total:
            return kept, found.known
        count *= 2


def _largest(problem: Problem, analysis: Analysis, found: Bounded, count: int) -> Int[np.ndarray, " q"]:
    """The prompts with the largest sensitivities, so many; those next to the last one by their float64 values.

    Rounding of a pass depends on how the pool is cut into chunks; what is chosen must not.
    """
    count = min(count, problem.prompts)
    last = np.partition(found.upper, -count)[-count]
    band = 4 * float(np.max(found.error[np.isfinite(found.error)], initial=0.0))
    above, near = found.upper > last + band, np.abs(found.upper - last) <= band
    if near.sum() + above.sum() <= count:
        return np.flatnonzero(above | near)
    some = np.flatnonzero(near)
    wanted = Wanted(last - 2 * band, most_listed=MOST_COMPARED)
    listed = look(problem.source, factored(analysis), wanted, found, some)
    if not listed.complete:  # copies of one prompt, say: their order is all the same
        return np.argsort(-found.upper, kind="stable")[:count]
    highest = np.zeros(problem.prompts)
    np.maximum.at(highest, listed.pairs[:, 0], exact_sensitivities(problem, listed.pairs, analysis.factors))
    order = some[np.argsort(-highest[some], kind="stable")]
    return np.concatenate([np.flatnonzero(above), order[: count - above.sum()]])


@jax.jit
def _steps(dense: DenseProblem):
    candidates, even = dense.room.cap > 0, even_allocation(dense)
    tiny = jnp.finfo(even.dtype).tiny

    def step(carry, limits):
        labels, b = carry
        safe, most, least = limits
        start = jnp.where(candidates, jnp.maximum(labels / jnp.max(labels), LEAST_WEIGHT), 0)
        growth = jnp.log(jnp.maximum(b / jnp.maximum(jnp.max(b), tiny), LEAST_WEIGHT))
        weights = start * jnp.exp(largest_power(start, growth, (safe, most), least) * growth)
        # never to zero: where quotas spread the labels, weak prompts must be able to take theirs back
        moved = rescale(jnp.where(candidates, jnp.maximum(weights, LEAST_WEIGHT), 0), dense.room)
        labels = (1 - share) * moved + share * even
        return (labels, sensitivities(dense, information(dense, labels))), None

    dim, pairs = dense.prior.shape[-1], jnp.sum(candidates, dtype=even.dtype)
    share = EVEN * jnp.minimum(1, FEW * dim / pairs)
    half = 1.0 if dense.criterion.degree == 0 else 0.5
    most = half * jnp.asarray((0.0, *POWERS), even.dtype)  # the first step only scores the even allocation
    least = jnp.minimum(dim * jnp.asarray((0.0, *SPREAD), even.dtype), pairs / 2)
    limits = jnp.minimum(most, half), most, least
    labels, b = jax.lax.scan(step, (even, jnp.ones_like(even)), limits)[0]
    known = jnp.isfinite(labels).all() & jnp.isfinite(b).all()  # or label information is below what float32 holds
    return jnp.where(known, labels, even), jnp.where(known, b, 1)


def largest_power(
    weights: Float[Array, "q k k"],
    growth: Float[Array, "q k k"],
    bounds: tuple[Float[Array, ""], Float[Array, ""]],
    least: Float[Array, ""],
) -> Float[Array, ""]:
    """About the largest power p within bounds at which weights w e^(p growth) are spread over `least` pairs or more.

    Over so many as (sum w)^2 / sum w^2 says, which falls as p grows. The logarithm is interpolated between a power that
    will do and one that is too large (Illinois), up to 10% of the pairs. The lower bound where no power will do.
    """
    low, high = bounds
    ones = jnp.ones(weights.shape[-1], weights.dtype)

    def excess(power):
        w = weights * jnp.exp(power * growth)
        once, twice = jnp.sum(_arrays.contract("pij,j->pi", w, ones)), _arrays.contract("pij,pij->", w, w)
        return 2 * jnp.log(once) - jnp.log(twice) - jnp.log(least)  # products run five times as fast as two sums

    def unfinished(state):
        _, above, _, _, steps = state
        return (above > 0.1) & (steps < 8)

    def refine(state):
        low, above, high, below, steps = state
        power = low + (high - low) * jnp.clip(above / (above - below), 0.05, 0.95)
        found = excess(power)
        raised, lowered = (power, found, high, below / 2), (low, above / 2, power, found)
        return *(jnp.where(found >= 0, *sides) for sides in zip(raised, lowered, strict=True)), steps + 1

    def search(below):
        state = low, excess(low), high, below, jnp.zeros((), jnp.int32)
        return jax.lax.while_loop(unfinished, refine, state)[0]

    at_most = excess(high)
    return jax.lax.cond(at_most >= 0, lambda _: high, search, at_most)


def leading_pairs(start: HotStart, cap: Float[np.ndarray, " p"], level: float, limit: int) -> Allocation:
    """Pairs that are likely neither at zero nor at the cap for good, and then all that are at the cap.

    Scored by log(n / cap) + k log(b / level) below the cap and -k log(b / level) at it; the first `limit` pairs are the
    working set, the pairs after them are at the cap. k is the largest of FORESIGHT with which the pairs that are left
    out hold few more labels than they must: the steps have not moved the labels of many dimensions to where b says, and
    a restricted problem that begins without them is far from the optimum.
    """
    few = np.count_nonzero(start.labels) <= 4 * limit
    index, labels, b = positive_entries(start, 0.0 if few else SMALL * float(start.labels.max()))
    cap = np.broadcast_to(cap[:, None], (len(cap), start.labels[0].size)).ravel()[index]
    growth = np.log(np.maximum(b, 1e-30) / level)
    full = labels >= 0.999 * cap
    chosen = np.arange(len(labels))
    if limit < len(labels):
        free, share = np.where(full, 0, labels), np.log(labels / cap)

        def highest(k):
            return np.argpartition(np.where(full, k * growth, -share - k * growth), limit)[:limit]

        least = free[highest(FORESIGHT[-1])].sum() - LOST * labels.sum()
        chosen = next(some for some in map(highest, FORESIGHT) if free[some].sum() >= least)
    rest = np.setdiff1d(np.flatnonzero(full), chosen)
    order = np.concatenate([np.sort(chosen), rest])
    return Allocation(pairs_at(start, index[order]), labels[order])


def positive_entries(
    start: HotStart, above: float
) -> tuple[Int[np.ndarray, " s"], Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """Flat index, labels and sensitivities of the pairs with more than `above` units of labels; labels are counted."""
    index = np.flatnonzero(start.labels.ravel() > above)
    labels, b = (array.ravel()[index].astype(np.float64) for array in (start.labels, start.sensitivities))
    return index, labels * start.label_unit, b


def pairs_at(start: HotStart, index: Int[np.ndarray, " s"]) -> Int[np.ndarray, "s 3"]:
    """Pairs (p, i, j) of the pool at flat entries of the dense arrays."""
    place, i, j = np.unravel_index(index, start.labels.shape)
    return np.stack([start.prompts[place], i, j], axis=1).astype(np.int32)


def starting_level(start: HotStart, cap: Float[np.ndarray, " q"]) -> float:
    """Mean sensitivity of the pairs below their cap, weighted by the labels they could both lose and gain."""
    index, labels, b = positive_entries(start, SMALL * float(start.labels.max()))
    cap = np.broadcast_to(cap[:, None], (len(cap), start.labels[0].size)).ravel()[index]
    weight = labels * np.maximum(1 - labels / cap, 0)
    level = weight @ b / weight.sum() if weight.sum() > 1e-9 * labels.sum() else b.min()
    return max(float(level), 1e-30)  # 0 where no pair can help the criterion
