"""A run that is written down after every pass, and goes on from there when it is started again.

The file is a NumPy archive (.npz) of arrays and one JSON text, without pickled objects, written under another name,
forced to disk and renamed: after a kill at any moment the file of the last pass is there, whole. It says which problem
it is of; a run of another one is refused. What is written is an allocation before it is scored, so that a run goes on
with the same numbers, to the last bit, as if it had never stopped.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxdesign._files import write_whole
from jaxdesign.design import Certificate, Design, Status, TraceRow
from jaxdesign.pricing.ceilings import Ceilings
from jaxdesign.problem import Problem
from jaxdesign.solvers.fingerprint import fingerprint
from jaxdesign.solvers.states import Solver, SolverState

FORMAT = 1
Arrays = Mapping[str, np.ndarray]


class Progress(NamedTuple):
    """A run between two passes.

    Args:
        state: what is to be scored next.
        best: of all that were, the one with the best value, of which `known` is not kept; None before the first pass.
        bound: the best lower bound.
        trace: one row a pass.
        improved_at: the row at which the gap last became smaller.
    """

    state: SolverState
    best: SolverState | None = None
    bound: float = -np.inf
    trace: tuple[TraceRow, ...] = ()
    improved_at: int = 0


@runtime_checkable
class Remembering(Protocol):
    """A solver whose memory can be written down; see `Solver`."""

    def memory_arrays(self, memory: Any) -> dict[str, np.ndarray]: ...

    def memory_from(self, problem: Problem, arrays: Arrays) -> Any: ...


class Checkpoint:
    """The file of a run, and what it held when the run began.

    Args:
        path: the file; made where there is none.
        problem, solver, tol, start: of the run.

    Attributes:
        finished: designs of the stages of a worst case that are done.

    Raises:
        TypeError: no path. FileNotFoundError: no such folder.
        ValueError: the file is none of a run, is damaged, or is one of another problem; a solver whose memory cannot be
            written down.
    """

    def __init__(self, path: Any, problem: Problem, solver: Solver, tol: float, start: Design | None):
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"checkpoint: expected a path, found {type(path).__name__}")
        self.path, self.solver = Path(path), solver
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"checkpoint: the folder {self.path.parent} does not exist; create it first")
        self.of = fingerprint(problem, solver, tol, start)
        self._found = read(self.path, self.of) if self.path.exists() else {}
        stages = int(self._found.get("stages", 0))
        self.finished = tuple(_design(part(self._found, f"stage{k}.")) for k in range(stages))

    def progress(self, problem: Problem) -> Progress | None:
        """Where the run that was written down stood; None where it had not begun."""
        arrays = part(self._found, "progress.")
        self._found = {}
        if not arrays:
            return None
        best = part(arrays, "best.")
        return Progress(
            self._state(problem, part(arrays, "state."))._replace(known=_known(part(arrays, "known."))),
            self._state(problem, best) if best else None,
            float(arrays["bound"]),
            _trace(arrays),
            int(arrays["improved_at"]),
        )

    def keep(self, progress: Progress) -> None:
        """Write a run down."""
        arrays = {
            **named("state.", self._arrays(progress.state)),
            **named("known.", _known_arrays(progress.state.known)),
            "bound": np.array(progress.bound),
            "trace": np.array(progress.trace, np.float64).reshape(-1, len(TraceRow._fields)),
            "improved_at": np.array(progress.improved_at),
        }
        if progress.best is not None:
            arrays |= named("best.", self._arrays(progress.best))
        self._write(named("progress.", arrays))

    def finish(self, design: Design) -> None:
        """Write down that a stage of a worst case is done."""
        self.finished += (design,)
        self._write({})

    def _write(self, progress: Arrays) -> None:
        arrays: dict[str, Any] = {"stages": np.array(len(self.finished)), **progress}
        for number, design in enumerate(self.finished):
            arrays |= named(f"stage{number}.", _design_arrays(design))
        arrays["about"] = np.array(json.dumps({"format": FORMAT, "of": self.of}))
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        # one name, so that what a killed run leaves is written over
        write_whole(self.path, buffer.getvalue(), self.path.with_name(f".{self.path.name}.part"))

    def _arrays(self, state: SolverState) -> dict[str, np.ndarray]:
        arrays = {"pairs": state.pairs, "labels": state.labels, "passes": np.array(state.passes)}
        if state.memory is None:
            return arrays
        if not isinstance(self.solver, Remembering):
            raise ValueError(
                f"checkpoint: {type(self.solver).__name__} has a memory, and no memory_arrays and memory_from to write "
                "it down and read it; see jaxdesign.solvers.Solver, or pass checkpoint=None"
            )
        return arrays | named("memory.", self.solver.memory_arrays(state.memory))

    def _state(self, problem: Problem, arrays: Arrays) -> SolverState:
        memory = part(arrays, "memory.")
        restored = self.solver.memory_from(problem, memory) if isinstance(self.solver, Remembering) and memory else None
        return SolverState(arrays["pairs"], arrays["labels"], int(arrays["passes"]), restored)


def read(path: Path, of: dict[str, str]) -> dict[str, np.ndarray]:
    """The arrays of a file, if it is of this problem.

    Raises:
        ValueError: it is not, or it is damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("about")))
        version, found = about["format"], about["of"]
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes NumPy, zipfile and zlib raise eight kinds
        raise ValueError(
            f"checkpoint: {path} is no file of a run, or a damaged one ({error}); remove it to begin anew"
        ) from error
    if version != FORMAT:
        raise ValueError(f"checkpoint: {path} has format {version}, this version writes {FORMAT}; remove it")
    other = sorted(key for key in of.keys() | found.keys() if of.get(key) != found.get(key))
    if other:
        raise ValueError(
            f"checkpoint: {path} is of another problem: {', '.join(other)} differ; pass what it was begun with, or "
            "another path"
        )
    return arrays


def part(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """Those whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def named(prefix: str, arrays: Arrays) -> dict[str, np.ndarray]:
    """The same with names that begin so."""
    return {prefix + name: array for name, array in arrays.items()}


def _known_arrays(known: Ceilings | None) -> dict[str, np.ndarray]:
    if known is None:
        return {}
    factors = {f"factors{number}": factors for number, factors in enumerate(known.factors)}
    return {"upper": known.upper, "found": known.found, "mattered": np.array(known.mattered), **factors}


def _known(arrays: Arrays) -> Ceilings | None:
    if not arrays:
        return None
    factors = tuple(arrays[f"factors{number}"] for number in range(len(arrays) - 3))
    return Ceilings(arrays["upper"], arrays["found"], factors, int(arrays["mattered"]))


def _trace(arrays: Arrays) -> tuple[TraceRow, ...]:
    return tuple(TraceRow(int(row[0]), *map(float, row[1:])) for row in arrays["trace"])


def _design_arrays(design: Design) -> dict[str, np.ndarray]:
    return {
        "pairs": design.pairs,
        "labels": design.labels,
        "certificate": np.array(design.certificate),
        "status": np.array(design.status.name),
        "passes": np.array(design.passes),
        "trace": np.array(design.trace, np.float64).reshape(-1, len(TraceRow._fields)),
        "skipped_prompts": np.array(design.skipped_prompts),
    }


def _design(arrays: Arrays) -> Design:
    return Design(
        arrays["pairs"],
        arrays["labels"],
        Certificate(*map(float, arrays["certificate"])),
        Status[str(arrays["status"])],
        int(arrays["passes"]),
        _trace(arrays),
        int(arrays["skipped_prompts"]),
    )
