"""Where a call of the package spends its time, by phase, without a profiler."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import Any
from unittest import mock

import jax

from jaxdesign import analysis, door
from jaxdesign.pricing import passes
from jaxdesign.solvers.column_generation import hot_start
from jaxdesign.solvers.column_generation import solver as column_generation

FUNCTIONS = {
    "source": (door, "pool_source"),
    "even information": (passes, "all_information"),
    "rank": (analysis, "check_rank"),
    "hot start": (hot_start, "hot_start"),
    "gradients": (column_generation, "by_gradients"),
    "newton": (column_generation, "by_newton"),
    "price": (passes, "price"),
    "analyse": (analysis, "analyse"),
    "exact sensitivities": (analysis, "exact_sensitivities"),
    "information": (analysis, "information"),
    "reaching pairs": (passes, "reaching_pairs"),
    "best pairs": (passes, "best_pairs"),
}


class Phases:
    """Synchronised own seconds and calls of FUNCTIONS inside the `with` block; what one calls of the others is theirs.

    Each function is replaced wherever a module of the package holds it, and put back at the end. Waiting for every
    result makes the whole a little slower than a plain call.
    """

    def __enter__(self) -> Phases:
        self.seconds, self.calls = dict.fromkeys(FUNCTIONS, 0.0), dict.fromkeys(FUNCTIONS, 0)
        self._inner = [0.0]  # seconds inside phases, for each phase that is open
        self._began = time.perf_counter()
        with ExitStack() as stack:
            for name, (module, attribute) in FUNCTIONS.items():
                original = getattr(module, attribute)
                for holder in [m for n, m in sys.modules.items() if n.split(".")[0] == "jaxdesign"]:
                    if vars(holder).get(attribute) is original:
                        stack.enter_context(mock.patch.object(holder, attribute, self._timed(name, original)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        self.total = time.perf_counter() - self._began

    def _timed(self, name, function):
        def call(*arguments, **named):
            began = time.perf_counter()
            self._inner.append(0.0)
            try:
                return jax.block_until_ready(function(*arguments, **named))
            finally:
                took = time.perf_counter() - began
                self.seconds[name] += took - self._inner.pop()
                self._inner[-1] += took
                self.calls[name] += 1

        return call

    def row(self) -> dict[str, Any]:
        """As a part of a measurement's row: phases that were called, and what is left of the total."""
        called = {name: {"seconds": self.seconds[name], "calls": n} for name, n in self.calls.items() if n}
        return {"phases": called, "total": self.total, "everything_else": self.total - self._inner[0]}
