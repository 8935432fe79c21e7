"""Measurements one after the other inside a time budget: each tells its row at once, none takes another with it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One measurement, which makes its own arrays and lets go of them."""

    section: str
    name: str  # within the section
    needs: float  # seconds that must be left for it to begin, compilation included
    measure: Callable[[], dict[str, Any]]


def run(
    cases: Iterable[Case], seconds: float, tell: Callable[[dict[str, Any]], None], clock: Callable = time.perf_counter
) -> None:
    """Measure what fits; `tell` gets a row per case in their order, also of those skipped or failed.

    A case begins if at least `needs` seconds are left of `seconds`, so that a short one may still fit after a long one
    was skipped; one that takes longer than it needs is not stopped.

    Rows: section, name, status ("measured", "skipped" or "failed"), began (seconds into the run), and with it
    took and what was measured; needed and left; or took and error.
    """
    start = clock()
    for case in cases:
        began = clock() - start
        row = {"section": case.section, "name": case.name, "began": began}
        if seconds - began < case.needs:
            tell(row | {"status": "skipped", "needed": case.needs, "left": seconds - began})
            continue
        try:
            found = {"status": "measured", **case.measure()}
        except Exception as error:  # out of memory, say: the cases after it may still tell something
            traceback.print_exc()
            found = {"status": "failed", "error": f"{type(error).__name__}: {str(error)[:500]}"}
        tell(row | {"took": clock() - start - began} | found)
