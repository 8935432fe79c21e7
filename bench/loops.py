"""Rounds over time: many matrices of preferences simulated, and what spares the simulation."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from bench.measure import timed
from jaxdesign.dynamics import LoopPlan, fixed_point, iterate, stability

IPO = LoopPlan(0.5, 3.0)
DPO = LoopPlan(0.5, 0.5, loss="dpo")
PAIRS = LoopPlan(0.5, 3.0, share=0.5, mix="pairs")


def loops(small: bool = False) -> dict[str, Any]:
    """Seconds by case: rounds x matrices x answers, float32; fixed points and stability in float64 as a user calls it.

    The figures to reach: 3,000 rounds x 5,000 matrices x 4 answers in 1 s, x 64 answers in 40 s.
    """
    few, many, rounds = (20, 40, 60) if small else (500, 5000, 3000)
    cases = {
        f"iterate, IPO, {rounds} x {many} x 4": _rounds(4, many, rounds, IPO),
        f"iterate, IPO, {rounds} x {many} x 64": _rounds(64, many, rounds, IPO),
        f"iterate, IPO, mixed pairs, {rounds} x {few} x 4": _rounds(4, few, rounds, PAIRS),
        f"iterate, DPO, {rounds} x {few} x 4": _rounds(4, few, rounds, DPO),
        f"fixed point, IPO, {many} x 4": partial(fixed_point, _preferences(4, many, np.float64), IPO),
        f"fixed point, DPO, {many} x 4": partial(fixed_point, _preferences(4, many, np.float64), DPO),
        f"stability, IPO, {many} x 4": partial(stability, _preferences(4, many, np.float64), IPO),
        f"stability, IPO, {few} x 64": partial(stability, _preferences(64, few, np.float64), IPO),
    }
    return {name: timed(case, 1 if "x 64" in name and "iterate" in name else 5) for name, case in cases.items()}


def _rounds(size, number, rounds, plan):
    """A case: preferences are made once, not in the time that is measured."""
    return partial(iterate, _preferences(size, number, np.float32), plan, None, steps=rounds)


def _preferences(size: int, number: int, dtype: Any) -> np.ndarray:
    upper = np.triu(np.random.default_rng(size).uniform(-0.5, 0.5, (number, size, size)), 1)
    return (0.5 + upper - upper.swapaxes(1, 2)).astype(dtype)
