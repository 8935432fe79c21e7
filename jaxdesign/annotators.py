"""Annotators who differ in noise and cost, and the joint choice of pairs and of who labels them.

A label of pair e by annotator a has its own information c_ea (flip noise) and its own cost. The joint design is a
design on A P prompts, prompt p as annotator a sees it being a P + p, solved, certified and rounded like any other;
features are there once (`pricing.annotated`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Bool, Float

from jaxdesign import _arrays, _checks
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.constraint import repeated
from jaxdesign.budget.quota import Quota
from jaxdesign.design import Design
from jaxdesign.pool import CompletionPool, as_flips
from jaxdesign.pricing.checked import checked
from jaxdesign.pricing.source import Source

OWN_NOISE = "pool.flip: annotators bring the noise; make the pool without flip"


@dataclass(frozen=True, eq=False)
class Annotators:
    """Who can label: persons, or kinds of them (experts, a crowd, a judge model).

    Args:
        flip: probability that a label is reversed, one per annotator (A,), or (A, P) where it differs by prompt (a
            language, a domain). 0 <= flip < 1/2.
        cost: of a label by each annotator (A,), in the units of `Budget.cost_total` and besides what the budget's own
            costs say. None: no difference in cost.
        at_most: labels that each annotator can give (A,), inf for no limit; None for no limits.
        at_least: labels that each annotator must be given (A,); None for none.
        names: of the annotators, for messages; None for numbers.

    In a budget, per_pair then counts the labels of a pair by any one annotator, so that per_pair=1 lets two annotators
    label the same pair where that is worth it; per_prompt, per_prompt_min and quotas count labels of all annotators.

    Passes, column generation, exchange and certificates keep the features once: a pass for 8 annotators takes about
    twice as long as for one. Greedy and the solvers that hold every pair (`solvers.dense`) copy those of the prompts
    that they look at.

    Raises:
        ValueError: lengths that differ, no annotator, costs or limits that are negative or NaN. The pool checks flips.

    Source: derived (every prompt once for each annotator); checked by tests/budget/test_decided.py.
    """

    flip: Any
    cost: Any = None
    at_most: Any = None
    at_least: Any = None
    names: Sequence[str] | None = None

    def __post_init__(self):
        flip = np.asarray(_checks.as_float_array(np.asarray(self.flip, dtype=np.float64), "annotators.flip"))
        if flip.ndim not in (1, 2) or len(flip) == 0:
            raise ValueError(f"annotators.flip: shape {flip.shape} found; expected (A,) or (A, P), one per annotator")
        object.__setattr__(self, "flip", flip)
        for name in ("cost", "at_most", "at_least"):
            value = getattr(self, name)
            if value is None:
                continue
            value = np.asarray(value, dtype=np.float64)
            _checks.same_shape(value.shape, flip.shape[:1], f"annotators.{name}", "(A,), one number per annotator")
            if not (value >= 0).all():
                a = int(np.argmin(value >= 0))
                raise ValueError(f"annotators.{name}: {value[a]:g} for annotator {a}; must be at least 0")
            object.__setattr__(self, name, value)
        names = tuple(str(a) for a in range(len(flip))) if self.names is None else tuple(map(str, self.names))
        if len(names) != len(flip) or len(set(names)) != len(names):
            raise ValueError(f"annotators.names: {names} found; expected {len(flip)} different names")
        object.__setattr__(self, "names", names)


class Asked(NamedTuple):
    """A pool and a budget as the solvers take them: the given ones, or the joint problem of pairs and annotators."""

    pool: CompletionPool | Source  # as it was given
    budget: Budget  # for the prompts of all annotators
    flip: Float[np.ndarray, "a p"] | None  # of every annotator
    annotators: Annotators | None
    prompts: int  # of the given pool

    def allocation(self, pairs: Any, assigned: Any) -> Any:
        """Pairs (p, i, j) of the given pool, labelled by the annotators `assigned`, as pairs of the problem."""
        return pairs if self.annotators is None else repeated_pairs(pairs, assigned, self.prompts, self.annotators)

    def answer(self, design: Design) -> Design:
        """A design of the problem in terms of the given pool: `.annotators` holds who labels each pair."""
        return design if self.annotators is None else with_annotators(design, self.prompts, self.annotators)


def asked(pool: CompletionPool | Source, budget: Budget, annotators: Annotators | None) -> Asked:
    """What a public function is asked for, as one problem.

    Raises:
        TypeError: what is neither a pool nor a source (`pricing.checked`).
        ValueError: a pool with flips of its own, flips of another length or outside of [0, 1/2).
    """
    pool = checked(pool)
    if annotators is None:
        return Asked(pool, budget, None, None, 0)
    if isinstance(pool, CompletionPool) and pool.flip is not None:
        raise ValueError(OWN_NOISE)
    exists = _arrays.on_host(pool.mask) if isinstance(pool, CompletionPool) else _surveyed(pool)
    flip = _flips(annotators, exists)
    return Asked(pool, repeated_budget(budget, exists, annotators), flip, annotators, len(exists))


def _surveyed(source: Source) -> Bool[np.ndarray, "p k"]:
    """Which completions there are; ValueError where labels are reversed."""
    largest, exists = source.fold(Partial(_flips_and_completions), jnp.zeros((), jnp.float32), merge=jnp.maximum)
    if largest > 0:
        raise ValueError(OWN_NOISE)
    return np.asarray(exists)


def _flips_and_completions(chunk, largest, _):
    flip = 0.0 if chunk.margins is None else chunk.margins.flip
    return jnp.maximum(largest, jnp.max(jnp.asarray(flip, largest.dtype))), chunk.copies >= 0


def _flips(annotators: Annotators, exists: Bool[np.ndarray, "p k"]) -> Float[np.ndarray, "a p"]:
    """Probabilities of reversal of every annotator and prompt, as a pool holds them."""
    flip, prompts = annotators.flip, len(exists)
    shape = (len(flip), prompts)
    if flip.ndim == 2:
        _checks.same_shape(flip.shape, shape, "annotators.flip", "(annotators, prompts)")
    flip = np.broadcast_to(flip if flip.ndim == 2 else flip[:, None], shape).reshape(-1)
    return np.asarray(as_flips(flip, jnp.asarray(np.tile(exists, (shape[0], 1))))).reshape(shape)


def repeated_budget(budget: Budget, exists: Bool[np.ndarray, "p k"], annotators: Annotators) -> Budget:
    """The budget for the prompts of all annotators: what counts labels of a prompt becomes a quota over its own."""
    prompts, count = len(exists), len(annotators.flip)
    if budget.required is not None:
        raise ValueError("budget.required: does not say which annotator labels the pairs; leave them out of the total")
    quotas = [replace(quota, of=np.tile(quota.of, count)) for quota in budget.quotas]
    owner = np.tile(np.arange(prompts), count)
    if budget.per_prompt is not None or budget.per_prompt_min is not None:
        every = {
            name: None if limit is None else dict(enumerate(np.broadcast_to(limit, (prompts,)).tolist()))
            for name, limit in (("at_least", budget.per_prompt_min), ("at_most", budget.per_prompt))
        }
        quotas.append(Quota(owner, name="prompt", **every))
    assert annotators.names is not None  # numbers at least, since it was made
    of = np.repeat(annotators.names, prompts)
    limits = {
        name: None if limit is None else dict(zip(annotators.names, limit.tolist(), strict=True))
        for name, limit in (("at_least", annotators.at_least), ("at_most", annotators.at_most))
    }
    if any(limit is not None for limit in limits.values()):
        quotas.append(Quota(of, name="annotator", **limits))
    cost = budget.cost
    if annotators.cost is not None:
        own = np.zeros(exists.shape) if cost is None else np.asarray(cost, dtype=np.float64)
        _checks.same_shape(own.shape, exists.shape, "budget.cost", "(prompts, completions)")
        cost = np.concatenate([own + price / 2 for price in annotators.cost])
    elif cost is not None:
        cost = np.tile(cost, (count, 1))
    exclude = budget.exclude
    if exclude is not None and len(exclude):
        exclude = np.concatenate([np.add(exclude, (a * prompts, 0, 0)) for a in range(count)])
    per_pair = budget.per_pair if np.ndim(budget.per_pair) == 0 else np.tile(budget.per_pair, count)
    return replace(
        budget,
        cost=cost,
        quotas=tuple(quotas),
        constraints=tuple(repeated(c, annotators.names, exists) for c in budget.constraints),
        per_prompt=None,
        per_prompt_min=None,
        exclude=exclude,
        per_pair=per_pair,
    )


def repeated_pairs(pairs: Any, assigned: Any, prompts: int, annotators: Annotators) -> np.ndarray:
    """Pairs (p, i, j) with their annotators as pairs of the prompts of all annotators."""
    pairs, assigned = np.asarray(pairs), np.asarray(assigned)
    if assigned.shape != pairs.shape[:1] or not np.issubdtype(assigned.dtype, np.integer):
        raise ValueError(
            f"assigned: shape {assigned.shape} and dtype {assigned.dtype} found; expected one integer per pair, "
            f"({len(pairs)},), the index of its annotator"
        )
    if ((assigned < 0) | (assigned >= len(annotators.flip))).any():
        raise ValueError(f"assigned: {assigned.max()} found; there are {len(annotators.flip)} annotators, from 0")
    return pairs + np.stack([assigned * prompts, 0 * assigned, 0 * assigned], axis=1)


def with_annotators(design: Design, prompts: int, annotators: Annotators) -> Design:
    """A design on the prompts of all annotators in terms of the given pool, of so many prompts."""
    who, prompt = np.divmod(design.pairs[:, 0], prompts)
    pairs = np.concatenate([prompt[:, None], design.pairs[:, 1:]], axis=1).astype(np.int32)
    order = np.lexsort((who, pairs[:, 2], pairs[:, 1], pairs[:, 0]))
    skipped = design.skipped_prompts // len(annotators.flip)
    return replace(
        design,
        pairs=pairs[order],
        labels=design.labels[order],
        annotators=who[order].astype(np.int32),
        skipped_prompts=skipped,
    )
