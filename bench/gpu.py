"""What limits this library on a GPU, in nine minutes: `python -m bench.gpu --output bench/results/gpu-<name>.json`.

Every measurement is a JSON line on standard output as soon as it is taken, and the file is written anew after each
(to a temporary name, then renamed), so that a run cut short loses nothing. Measurements come in the order of what
decides most; one that no longer fits the time left is skipped and says so. Times are of warm, synchronised calls,
medians with the smallest and largest; the compiler's seconds stand apart. `--small` runs all of it on tiny sizes, on
any backend, to see that it works.

What may be slow on an accelerator, and the section and row that tells:

    short chunks, sized for a CPU's cache          pass: price by chunk length; optimize: long chunks
    full float32 products                          matmul: highest, high, default; precision: seconds and error
    even information in float64 over the pool      pass: even information, in float64 and from float32 products
    a factorisation in float64 per objective       restricted: objective, value and factors; factorise
    fifty bisections per projection                project; restricted: project beside Hessian products
    results of a pass taken to the host            host
    eigenvalues on the host                        factorise: eigenvalues, device and host; optimize: rank
    small problems, all latency                    optimize: the first, by phase
    whole labels                                   select_pairs, by candidate
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace

from bench.accelerator import algebra, host, passes, rates, whole
from bench.accelerator.cases import Case, run
from bench.accelerator.hardware import hardware
from bench.experiments.files import plain, write_json

SECTIONS = (
    rates.cases, passes.cases, passes.precision_cases, host.cases, whole.cases, algebra.cases, whole.batch_cases,
)  # fmt: skip
SMALL_NEEDS = 1.0  # seconds that a measurement on tiny sizes needs


def cases(small: bool) -> list[Case]:
    """All measurements in order."""
    found = [case for section in SECTIONS for case in section(small)]
    return [replace(case, needs=SMALL_NEEDS) for case in found] if small else found


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 if a measurement failed, 0 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=540, help="time in all; default 540")
    parser.add_argument("--output", metavar="FILE", help="write the results here as well")
    sections = list(dict.fromkeys(case.section for case in cases(small=True)))
    parser.add_argument(
        "--only", nargs="+", choices=sections, default=sections, metavar="SECTION", help=f"of {sections}"
    )
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it works")
    chosen = parser.parse_args(arguments)
    if not 0 <= chosen.seconds < math.inf:
        parser.error(f"--seconds {chosen.seconds}: must be at least 0 and finite")
    results = {
        "machine": hardware(),
        "settings": {"seconds": chosen.seconds, "small": chosen.small, "only": chosen.only},
    }
    print(json.dumps(plain(results)), flush=True)
    results["rows"] = rows = []
    write_json(results, chosen.output)  # a file that cannot be written is best found out now

    def tell(row):
        rows.append(row)
        print(json.dumps(plain(row), allow_nan=False), flush=True)
        write_json(results, chosen.output)

    run([case for case in cases(chosen.small) if case.section in chosen.only], chosen.seconds, tell)
    for status in ("skipped", "failed"):
        names = [f"{row['section']}: {row['name']}" for row in rows if row["status"] == status]
        if names:
            print(f"{status}: {'; '.join(names)}", file=sys.stderr)
    return int(any(row["status"] == "failed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
