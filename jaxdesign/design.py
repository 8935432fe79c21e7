"""Design, its Certificate, and the Status that says why a solver stopped: what every solver returns; save and load."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Array, Float, Int

N = TypeVar("N", float, Array)


class Status(Enum):
    """Reason a design was returned; `str(status)` is the sentence.

    Source: derived; checked by tests/solvers/test_protocol.py.
    """

    CERTIFIED = "Certified: the relative gap is at most tol."
    EVALUATED = "Evaluated: the certificate of the given allocation; nothing was optimised."
    NOT_CERTIFIED = "Stopped at max_passes with relative gap above tol; raise max_passes or loosen tol."
    PRECISION_LIMIT = (
        "Stopped because passes no longer reduce the gap: tol is below what this dtype can reach; "
        "loosen tol, or use float64 features with x64 enabled."
    )
    ILL_CONDITIONED = (
        "Rounding limits this certificate, not the budget: the information is so ill-conditioned that float64 tells "
        "the criterion no better; pass a larger prior (a ridge), or use jaxdesign.restrict_to_range with a larger rtol."
    )
    STOPPED_BY_CALLBACK = "Stopped because the callback returned True; the certificate is that of the last pass."
    INACCURATE = "The reference solver stopped short of relative gap 1e-6; the certificate says how near it came."
    EXACT = (
        "Whole labels chosen; efficiency is against a certified bound on all allowed choices, as report['bound'] says."
    )

    def __str__(self) -> str:
        return self.value


class Certificate(NamedTuple, Generic[N]):
    """How close an allocation is to the best one, as Python floats; from the traceable solvers, as scalar arrays.

    Bounds hold for the problem as it was given: features, scores and label information of the pool. Where the pool has
    a `Residual` they hold for the information that it leaves, a surrogate as good as its variance is.

    Args:
        value: the criterion at the allocation.
        lower_bound: a number that no allowed allocation can go below (from `select_pairs`, which chooses whole labels:
            no allowed allocation of whole labels).
        gap: value - lower_bound.
        efficiency: in [0, 1]: exp(-gap / d) for LogDet, lower_bound / value for Trace, 0 where nothing is proven, NaN
            for a criterion without such a formula. Relative gap = 1 - efficiency.
    """

    value: N
    lower_bound: N
    gap: N
    efficiency: N

    def relative_gap(self: Certificate[float]) -> float:
        """1 - efficiency; gap / max(1, |value|) where there is no efficiency. Solvers compare it with tol."""
        if np.isnan(self.efficiency):
            return self.gap / max(1.0, abs(self.value))
        return 1.0 - self.efficiency


class TraceRow(NamedTuple):
    """State of a solver after one pricing pass.

    Args:
        passes: pricing passes made so far.
        value: the criterion.
        lower_bound: the best one known.
        gap: value - lower_bound.
        seconds: since the solver was called.
    """

    passes: int
    value: float
    lower_bound: float
    gap: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Design:
    """An allocation of labels to pairs with its certificate.

    Args:
        pairs: (S, 3) int32 rows (prompt, i, j), i < j, sorted; they index the arrays the pool was made from.
        labels: (S,) float64, summing to the budget's total; whole numbers from `select_pairs`.
        certificate: how close it is to the best allowed one.
        status: why the solver stopped.
        passes: pricing passes made.
        trace: one `TraceRow` for each of them.
        skipped_prompts: number of prompts with fewer than two completions, which no design can use.
        report: what `select_pairs` says about its candidates; empty otherwise.
        annotators: (S,) int32, who labels each pair, where the design was made for `Annotators`; else None. A pair that
            several of them label then has several rows.

    Source: derived; checked by tests/solvers/test_protocol.py.
    """

    pairs: Int[np.ndarray, "s 3"]
    labels: Float[np.ndarray, " s"]
    certificate: Certificate[float]
    status: Status
    passes: int = 0
    trace: tuple[TraceRow, ...] = ()
    skipped_prompts: int = 0
    report: dict = field(default_factory=dict)
    annotators: Int[np.ndarray, " s"] | None = None

    def save(self, path: str | Path) -> None:
        """Write to one .npz file under a temporary name, then rename, so that no half-written file is left.

        Raises:
            FileExistsError: the path exists.
        """
        path = Path(path)
        if path.exists():
            raise FileExistsError(f"path: {path} exists; choose another name or remove it first")
        about = {
            "certificate": list(self.certificate),
            "status": self.status.name,
            "passes": self.passes,
            "trace": [list(row) for row in self.trace],
            "skipped_prompts": self.skipped_prompts,
            "report": self.report,
        }
        arrays: dict[str, Any] = {"pairs": self.pairs, "labels": self.labels, "about": np.array(json.dumps(about))}
        if self.annotators is not None:
            arrays["annotators"] = self.annotators
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npz")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | Path) -> Design:
        """Read what `save` wrote; arrays and floats come back bit for bit."""
        with np.load(path, allow_pickle=False) as data:
            about = json.loads(str(data["about"]))
            return cls(
                pairs=data["pairs"],
                labels=data["labels"],
                certificate=Certificate(*about["certificate"]),
                status=Status[about["status"]],
                passes=about["passes"],
                trace=tuple(TraceRow(*row) for row in about["trace"]),
                skipped_prompts=about["skipped_prompts"],
                report=about["report"],
                annotators=data["annotators"] if "annotators" in data else None,
            )
