"""`python -m tests.fuzz --seeds 0:10000 --processes 2 --out fuzz.jsonl`: many problems, resumable, a report at the end.

Outcomes are appended to the file as they come; seeds that are already in it are not run again. A problem that takes
longer than --limit seconds is given up and recorded as "no end". `--show SEED` prints a problem as Python.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .workers import Worker, outcome_of, problem_of, shares


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seeds", default="0:10000", help="first:last, the last not included")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("fuzz.jsonl"))
    parser.add_argument("--programs", choices=("few", "many"), default="many", help="few: those of the daily tests")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one problem, compilation included")
    parser.add_argument("--show", type=int, help="print the problem of a seed and its outcome, and do nothing else")
    options = parser.parse_args(arguments)
    from . import outcomes, report
    from .as_python import as_python

    if options.show is not None:
        print(as_python(problem_of(options.show, options.programs)))
        print(*outcome_of(options.show, options.programs).faults, sep="\n")
        return 0
    first, last = map(int, options.seeds.split(":"))
    known = {}
    if options.out.exists():
        known = {o.seed: o for o in map(report.read, options.out.read_text().splitlines())}
    left = [seed for seed in range(first, last) if seed not in known]
    workers = [Worker(share, options.programs) for share in shares(left, options.programs, options.processes)]
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
                        problem = problem_of(worker.current, options.programs)
                        fault = outcomes.Fault(
                            "no end", f"no end: {problem.function} {problem.limits}", f"{options.limit:g} s"
                        )
                        keep(outcomes.Outcome(worker.current, problem.family, problem.function, "no end", 0, [fault]))
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
