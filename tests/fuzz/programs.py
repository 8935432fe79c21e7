"""What problems are compiled for: shape, criterion, function, solver and dtype; and the lists that runs draw from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LIMITS = ("total", "cap", "quota", "both", "groups", "minima", "costs", "required", "exclude", "tasks", "annotators",
          "everything", "constraints")  # fmt: skip
TRACEABLE = ("greedy", "frank_wolfe", "multiplicative")
PLAIN = ("total", "cap", "quota", "both")


@dataclass(frozen=True)
class Program:
    """What is compiled for; what is left are values. Criteria of one kind (LogDet, Trace, ...) share programs."""

    shape: tuple[int, int, int]
    criteria: tuple[str, ...]
    function: str
    solver: str | None = None
    wide: bool = False
    scored: bool = False
    draws: int | None = None  # of scores, which then have an axis of their own
    limits: tuple[str, ...] = tuple(name for name in LIMITS if name != "annotators")
    weight: float = 1.0


SQUARE, DEEP, SINGLE, MEDIUM, BROAD = (5, 4, 4), (1, 48, 2), (1, 4, 1), (4, 6, 3), (10, 2, 4)
LOGDET, TRACE, WORST, OWN = ("logdet",), ("trace", "low_rank", "ill"), ("worst",), ("own",)
FEW = (  # compiled in every run of the tests
    Program(SQUARE, LOGDET, "optimize", weight=4),
    Program(SQUARE, LOGDET, "optimize", "interior_point", limits=PLAIN),
    Program(SQUARE, LOGDET, "evaluate", weight=3),
    Program(SQUARE, LOGDET, "select_pairs", weight=2),
    Program(SQUARE, TRACE, "optimize", weight=3),
    Program(SQUARE, TRACE, "evaluate", weight=3),
    Program(SINGLE, LOGDET, "optimize", scored=True, limits=PLAIN),
    Program(SQUARE, LOGDET, "optimize", wide=True, limits=PLAIN),
    Program(SQUARE, LOGDET, "frank_wolfe"),
    Program(DEEP, LOGDET, "evaluate", limits=PLAIN),
    Program(SQUARE, WORST, "evaluate"),
    Program(BROAD, LOGDET, "evaluate", scored=True),
)
MANY = (
    *FEW,
    Program(SQUARE, LOGDET, "optimize", limits=("annotators",)),
    Program(SQUARE, LOGDET, "evaluate", limits=("annotators",)),
    Program(SQUARE, TRACE, "evaluate", limits=("annotators",)),
    Program(SQUARE, LOGDET, "select_pairs", limits=("annotators",), weight=0.5),
    *(Program(SQUARE, LOGDET, "optimize", name, limits=PLAIN)
      for name in ("matrix_atoms", "frank_wolfe", "multiplicative")),
    *(Program(SQUARE, TRACE, "optimize", name, limits=PLAIN)
      for name in ("interior_point", "matrix_atoms", "frank_wolfe", "multiplicative")),
    Program(SQUARE, TRACE, "select_pairs", weight=2),
    Program(SQUARE, LOGDET, "multiplicative"),
    Program(SQUARE, TRACE, "multiplicative"),
    Program(SQUARE, TRACE, "frank_wolfe"),
    Program(SQUARE, LOGDET, "greedy", weight=0.5),
    Program(SQUARE, TRACE, "greedy", weight=0.5),
    Program(SQUARE, LOGDET, "evaluate", wide=True, weight=2),
    Program(SQUARE, LOGDET, "optimize", "interior_point", wide=True, limits=PLAIN),
    Program(SQUARE, LOGDET, "select_pairs", wide=True),
    Program(SQUARE, WORST, "optimize", weight=2),
    Program(SQUARE, WORST, "select_pairs"),
    Program(SQUARE, OWN, "optimize"),
    Program(SQUARE, OWN, "evaluate"),
    Program(SINGLE, LOGDET, "evaluate", scored=True, limits=PLAIN),
    Program(MEDIUM, LOGDET, "optimize", scored=True, weight=2),
    Program(MEDIUM, TRACE, "optimize", scored=True, wide=True, weight=2),
    Program(MEDIUM, TRACE, "evaluate", scored=True, wide=True, weight=2),
    Program(MEDIUM, TRACE, "select_pairs", scored=True),
    Program(BROAD, LOGDET, "optimize", weight=3),
    Program(BROAD, LOGDET, "select_pairs"),
    Program(BROAD, TRACE, "optimize", wide=True),
    Program(DEEP, LOGDET, "optimize"),
    Program(DEEP, TRACE, "optimize", scored=True),
    Program(DEEP, TRACE, "evaluate", scored=True),
    Program(MEDIUM, LOGDET, "optimize", scored=True, draws=3),
    Program(MEDIUM, LOGDET, "evaluate", scored=True, draws=3),
    Program(MEDIUM, LOGDET, "select_pairs", scored=True, draws=3),
    Program(MEDIUM, TRACE, "optimize", scored=True, draws=3),
    Program(MEDIUM, TRACE, "evaluate", scored=True, draws=3),
    Program(MEDIUM, WORST, "evaluate", scored=True, draws=3),
)  # fmt: skip
LISTS = {"few": FEW, "many": MANY}


def draw_program(seed: int, programs: tuple[Program, ...] = MANY) -> tuple[int, np.random.Generator]:
    """Which of the programs a seed runs on, and the generator of everything else about its problem."""
    rng = np.random.default_rng([20260619, seed])
    weights = np.array([program.weight for program in programs])
    return int(rng.choice(len(programs), p=weights / weights.sum())), rng
