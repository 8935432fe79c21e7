"""`python -m tests.fuzz --seeds 0:10000 --processes 2 --out fuzz.jsonl`: many problems, resumable, a report at the end.

Outcomes are appended to the file as they come; seeds that are already in it are not run again. A problem that takes
longer than --limit seconds is given up and recorded as "no end". `--show SEED` prints a problem as Python.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path


def outcome_of(seed: int):
    """Every twentieth seed is a case of bad arguments."""
    from . import harness, problems, refusals

    return refusals.refuse(seed // 20) if seed % 20 == 19 else harness.run(problems.draw(seed))


def work(seeds, pipe):
    """Runs seeds one after the other; says which one before and what came of it after."""
    import jax

    from . import report

    for seed in seeds:
        pipe.send(("begin", seed, None))
        try:
            found = outcome_of(seed)._replace(seed=seed)
            pipe.send(("end", seed, report.line(found)))
        except Exception as error:  # of the harness itself
            pipe.send(("broken", seed, f"{type(error).__name__}: {error}"))
        maps = Path("/proc/self/maps")
        if maps.is_file() and maps.read_text().count("\n") > 25_000:  # compiled programs each hold memory maps
            jax.clear_caches()
    pipe.send(("done", -1, None))


class Worker:
    """One process with its seeds; started again after the seed that it did not end."""

    def __init__(self, seeds):
        self.seeds, self.current, self.since, self.ended = list(seeds), None, time.monotonic(), False
        self.start()

    def start(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(self.seeds, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.current, self.since = None, time.monotonic()

    def give_up(self):
        self.process.kill()
        self.process.join()
        self.seeds = self.seeds[self.seeds.index(self.current) + 1 :] if self.current is not None else []
        self.start()


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seeds", default="0:10000", help="first:last, the last not included")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("fuzz.jsonl"))
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one problem, compilation included")
    parser.add_argument("--show", type=int, help="print the problem of a seed and its outcome, and do nothing else")
    options = parser.parse_args(arguments)
    from . import harness, problems, report

    if options.show is not None:
        print(problems.as_python(problems.draw(options.show)))
        print(*outcome_of(options.show).faults, sep="\n")
        return 0
    first, last = map(int, options.seeds.split(":"))
    known = {}
    if options.out.exists():
        known = {o.seed: o for o in map(report.read, options.out.read_text().splitlines())}
    left = [seed for seed in range(first, last) if seed not in known]
    workers = [Worker(left[k :: options.processes]) for k in range(options.processes) if left[k :: options.processes]]
    done, broken = 0, []
    with options.out.open("a") as file:

        def keep(outcome):
            known[outcome.seed] = outcome
            file.write(report.line(outcome) + "\n")
            file.flush()

        while any(not worker.ended for worker in workers):
            for worker in workers:
                if worker.ended:
                    continue
                try:
                    heard = worker.pipe.poll(0.05) and worker.pipe.recv()
                except EOFError:  # the process died: the seed under way killed it
                    heard = ("lost", worker.current, None)
                if not heard:
                    if worker.current is not None and time.monotonic() - worker.since > options.limit:
                        problem = problems.draw(worker.current)
                        fault = harness.Fault("no end", f"no end: {problem.function} {problem.limits}", f"{options.limit:g} s")
                        keep(harness.Outcome(worker.current, problem.family, problem.function, "no end", 0, [fault]))
                        worker.give_up()
                    continue
                word, seed, text = heard
                worker.current, worker.since = (seed if word == "begin" else None), time.monotonic()
                if word == "end":
                    keep(report.read(text))
                    done += 1
                    if done % 100 == 0:
                        found = len({seed for seed, _ in report.serious(known.values())})
                        print(f"{done} of {len(left)}, {found} with faults", file=sys.stderr, flush=True)
                elif word == "broken":
                    broken.append((seed, text))
                    print(f"harness, seed {seed}: {text}", file=sys.stderr, flush=True)
                elif word == "lost":
                    broken.append((seed, "the process died"))
                    worker.current = seed
                    worker.give_up() if seed is not None else setattr(worker, "ended", True)
                elif word == "done":
                    worker.ended = True
    chosen = [outcome for seed, outcome in known.items() if first <= seed < last]
    print(report.table(chosen))
    return 1 if broken or report.serious(chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
