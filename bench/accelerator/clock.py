"""Run time, time in the compiler, and memory of one measurement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from bench.measure import timed

COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX's name of the event; reading its cache counts as well


class Compilations:
    """Programs compiled inside the `with` block, and the seconds the compiler took for them."""

    def __enter__(self) -> Compilations:
        self.programs, self.seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._add)
        return self

    def __exit__(self, *_: Any) -> None:
        jax.monitoring.unregister_event_duration_listener(self._add)

    def _add(self, event: str, seconds: float, **_: Any) -> None:
        if event == COMPILED:
            self.programs += 1
            self.seconds += seconds

    def row(self) -> dict[str, float]:
        """As a part of a measurement's row."""
        return {"programs": self.programs, "compiler_seconds": self.seconds}


def timed_all(functions: dict[str, Callable[[], Any]], repeats: int = 5) -> dict[str, Any]:
    """`timed` of each function by name, and what was compiled for all of them."""
    with Compilations() as compiled:
        seconds = {name: timed(function, repeats) for name, function in functions.items()}
    return {"seconds": seconds, **compiled.row()}


def memory() -> dict[str, float]:
    """GiB in use on the device now, and at most since the process began; empty where the backend does not say."""
    found = jax.devices()[0].memory_stats() or {}
    return {name: found[name] / 2**30 for name in ("bytes_in_use", "peak_bytes_in_use") if name in found}
