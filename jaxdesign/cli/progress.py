"""What the command is doing, on stderr: a line a phase that is rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator

TICK = 0.5  # seconds between two looks at the clock
LONG = 1.0  # seconds of compilation in a phase from which on it is told


class Meter:
    """Takes what the phases report; a thread of its own keeps the time.

    Progress never stops the work: where stderr cannot be written any more, it is silent.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._phase, self._detail, self._began, self._width = "", "", 0.0, 0
        self._compiling, self._compiled, self._compiling_told = None, 0.0, False
        self._clock = threading.Thread(target=self._keep_time, name="progress", daemon=True)

    def __enter__(self) -> Meter:
        self._clock.start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._ended.set()
        with self._lock:
            self._end_line()

    def phase(self, name: str, detail: str = "") -> None:
        """A phase begins, or the one under way has got further."""
        with self._lock:
            if name != self._phase:
                self._end_line()
                self._phase, self._began = name, time.perf_counter()
                self._compiled, self._compiling_told = 0.0, False
            self._detail = detail
            self._show() if self._terminal else self._line(": ".join(filter(None, (name, detail))))

    def solver_pass(self, row) -> None:
        """Callback of the solver."""
        self.phase(self._phase, f"pass {row.passes}, criterion {row.value:.6g}, gap {row.gap:.2e}, {row.seconds:.1f} s")

    @contextlib.contextmanager
    def compilations(self) -> Iterator[None]:
        """Within this context, JAX tells when it compiles."""
        from jax import monitoring

        def begins(event: str, value: float, **more: object):
            if event == "/jax/core/compile/backend_compile_duration":
                self._compiling = time.perf_counter()

        def ends(event: str, duration_secs: float, **more: object):
            if event == "/jax/core/compile/backend_compile_duration":
                self._compiling, self._compiled = None, self._compiled + duration_secs

        monitoring.register_scalar_listener(begins)
        monitoring.register_event_duration_secs_listener(ends)
        try:
            yield
        finally:
            monitoring.unregister_scalar_listener(begins)
            monitoring.unregister_event_duration_listener(ends)

    def _keep_time(self) -> None:
        while not self._ended.wait(TICK):
            with self._lock:
                if self._terminal:
                    self._show()
                elif self._compiles() and not self._compiling_told:
                    self._compiling_told = True
                    self._line(f"{self._phase}: compiling")

    def _compiles(self) -> bool:
        """Whether a program is being compiled, in a phase that has compiled for long."""
        since = self._compiling
        return since is not None and self._compiled + time.perf_counter() - since > LONG

    def _show(self) -> None:
        """The line of the phase, written over itself."""
        if not self._phase:
            return
        detail = "compiling" if self._compiles() else self._detail
        text = ": ".join(filter(None, (self._phase, detail)))
        text = f"{text}  [{time.perf_counter() - self._began:.0f} s]"[: shutil.get_terminal_size().columns - 1]
        self._write("\r" + text.ljust(self._width))
        self._width = len(text)

    def _end_line(self) -> None:
        if self._terminal and self._phase:
            self._show()
            self._write("\n")
        self._phase, self._width = "", 0

    def _line(self, text: str) -> None:
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()
