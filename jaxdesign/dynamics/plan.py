"""What a loop of rounds does: how the next policy is made of the last one, the reference and new labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdesign import _arrays
from jaxdesign.dynamics.graphs import off_diagonal
from jaxdesign.dynamics.links import LINKS
from jaxdesign.dynamics.preferences import as_log_policy, as_pair_law, refuse_apart

MIXES = ("answers", "pairs")
NUMBERS = ("alpha", "strength", "share", "temper")
LEAVES = (*NUMBERS, "base", "reference")
STATIC = ("loss", "mix")


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, eq=False)
class LoopPlan:
    """One round: x+ = alpha x + (1 - alpha) x_ref + strength u, x = log pi, u the scores that the round's labels teach.

    The answers that are compared come from mu = share softmax(temper x) + (1 - share) pi_0, pi_0 the base policy. A
    pytree of numbers and arrays, which may be traced and batched by vmap; loss and mix are static.

    Args:
        alpha: in [0, 1], how much of the last policy the next reference keeps: 0 returns to `reference` every round, 1
            only ever moves on.
        strength: above 0, what one unit of score adds to a log-probability: 1 / tau of IPO, 1 / beta of DPO.
        share: lambda in [0, 1], how many of the answers are the policy's own; 0: all are the base policy's.
        loss: "ipo" or "dpo".
        base: pi_0, (K,) log-probabilities up to a constant; None: uniform. With mix="pairs" it may be a symmetric pair
            law (K, K) of any scale, such as the labels of a design; with share 0 it must join all answers.
        reference: pi_ref, (K,) log-probabilities up to a constant; None: uniform.
        mix: "answers": both answers of a pair are drawn from mu. "pairs": a pair is drawn from pi pi^T with probability
            `share`, and from pairs of different answers of the base policy otherwise, as in a batch that is part one,
            part the other.
        temper: s above 0; the policy's own answers are drawn from softmax(s x). 1: as it is.

    Raises:
        ValueError: values out of range (looked at where they are concrete), a loss or mix that does not exist.

    Source: arXiv 2602.12180 (the loop, answers mixed); mixed pairs and tempered samplers derived; checked by
    tests/dynamics/test_plan.py.
    """

    alpha: Any
    strength: Any
    share: Any = 1.0
    loss: str = "ipo"
    base: Any = None
    reference: Any = None
    mix: str = "answers"
    temper: Any = 1.0

    def __post_init__(self):
        for name, value, known in (("loss", self.loss, tuple(LINKS)), ("mix", self.mix, MIXES)):
            if value not in known:
                raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, known))}")
        for name, allowed, holds in (
            ("alpha", "in [0, 1]", lambda v: (v >= 0) & (v <= 1)),
            ("strength", "above 0 and finite", lambda v: (v > 0) & np.isfinite(v)),
            ("share", "in [0, 1]", lambda v: (v >= 0) & (v <= 1)),
            ("temper", "above 0 and finite", lambda v: (v > 0) & np.isfinite(v)),
        ):
            _refuse(getattr(self, name), name, allowed, holds)

    def tree_flatten_with_keys(self):
        leaves = tuple((jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in LEAVES)
        return leaves, tuple(getattr(self, name) for name in STATIC)

    @classmethod
    def tree_unflatten(cls, static, leaves):
        plan = object.__new__(cls)  # never validates: a plan's gradient, or axes to map over, are out of its ranges
        for name, value in zip((*LEAVES, *STATIC), (*leaves, *static), strict=True):
            object.__setattr__(plan, name, value)
        return plan


def _refuse(value, name, allowed, holds):
    """ValueError naming the first entry out of range; tracers pass."""
    if not isinstance(value, int | float | np.number | np.ndarray | jax.Array) or _arrays.is_traced(value):
        return
    values = np.asarray(value, np.float64)
    bad = ~holds(values)
    if bad.any():
        raise ValueError(f"{name}={values[bad].flat[0]:g}: must be {allowed}")


def refuse_several(plan: LoopPlan) -> None:
    """ValueError for numbers that are arrays: a function of one plan is mapped over several by vmap."""
    for name in NUMBERS:
        if np.ndim(getattr(plan, name)):
            shape = np.shape(getattr(plan, name))
            raise ValueError(f"{name}: shape {shape} found; expected a number; map over plans with jax.vmap")


def in_dtype(plan: LoopPlan, size: int, dtype: Any) -> LoopPlan:
    """The plan for K answers with every leaf an array of one dtype: numbers, log pi_ref with sum 1, and the base law.

    The base becomes what a round needs of it: pi_0 (K,) for mixed answers, q_0 (K, K) with sum 1 for mixed pairs.

    Raises:
        ValueError: numbers that are arrays (use vmap), shapes of policies that do not fit K, a pair law that alone says
            who is compared (share 0) and leaves answers apart.
    """
    refuse_several(plan)
    numbers = {name: jnp.asarray(getattr(plan, name), dtype) for name in NUMBERS}
    reference = jnp.asarray(as_log_policy(plan.reference, size, "reference"), dtype)
    if reference.ndim > 1:
        raise ValueError(f"reference: shape {reference.shape} found; expected ({size},); map over plans with jax.vmap")
    return replace(plan, **numbers, reference=jax.nn.log_softmax(reference), base=_base(plan, size, dtype))


def _base(plan, size, dtype):
    if np.ndim(plan.base) == 2:
        if plan.mix == "answers":
            raise ValueError(f"base: a pair law {np.shape(plan.base)} found with mix='answers'; pass mix='pairs'")
        law = as_pair_law(plan.base, size, "base")
        if not _arrays.is_traced(law, plan.share) and plan.share == 0:  # else the policy's own pairs join all answers
            refuse_apart(law, "base")
        law = jnp.asarray(law, dtype)
        return law / jnp.sum(law)
    base = jnp.asarray(as_log_policy(plan.base, size, "base"), dtype)
    if base.ndim > 1:
        raise ValueError(f"base: shape {base.shape} found; expected ({size},) or, with mix='pairs', a pair law")
    base = jax.nn.softmax(base)
    if plan.mix == "answers":
        return base
    law = off_diagonal(base[:, None] * base[None, :])
    return law / jnp.sum(law)
