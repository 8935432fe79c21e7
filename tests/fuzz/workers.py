"""Problems run in processes of their own, so that one that never ends, or ends its process, costs no other."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path


def problem_of(seed: int, programs: str):
    from .problems import draw
    from .programs import LISTS

    return draw(seed, LISTS[programs])


def shares(seeds: Sequence[int], programs: str, count: int) -> list[list[int]]:
    """Seeds dealt to processes so that each compiled program is needed by one process, for a while."""
    from .programs import LISTS, draw_program

    def kind(seed):
        return -1 if bad_arguments(seed) else draw_program(seed, LISTS[programs])[0]

    ordered = sorted(seeds, key=lambda seed: (kind(seed), seed))
    ends = [round(k * len(ordered) / count) for k in range(count + 1)]
    return [ordered[a:b] for a, b in pairwise(ends) if a < b]


def bad_arguments(seed: int) -> bool:
    """Every twentieth seed is a case of arguments that must be refused."""
    return seed % 20 == 19


def outcome_of(seed: int, programs: str):
    from . import harness, refusals

    return refusals.refuse(seed // 20) if bad_arguments(seed) else harness.run(problem_of(seed, programs))


def work(seeds, programs, outcome_of, pipe):
    """Runs seeds one after the other; says which one before and what came of it after."""
    import jax

    from . import report

    for seed in seeds:
        pipe.send(("begin", seed, None))
        try:
            found = outcome_of(seed, programs)._replace(seed=seed)
            pipe.send(("end", seed, report.line(found)))
        except Exception as error:  # of the harness itself
            pipe.send(("broken", seed, f"{type(error).__name__}: {error}"))
        maps = Path("/proc/self/maps")
        if maps.is_file() and maps.read_text().count("\n") > 25_000:  # compiled programs each hold memory maps
            jax.clear_caches()
    pipe.send(("done", -1, None))


class Worker:
    """One process with its seeds; started again after the seed that it did not end."""

    def __init__(self, seeds, programs):
        self.programs = programs
        self.seeds, self.current, self.since, self.ended = list(seeds), None, time.monotonic(), False
        self.start()

    def start(self):
        context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(self.seeds, self.programs, outcome_of, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.current, self.since = None, time.monotonic()

    def give_up(self):
        self.process.kill()
        self.process.join()
        self.seeds = self.seeds[self.seeds.index(self.current) + 1 :] if self.current is not None else []
        self.start()
