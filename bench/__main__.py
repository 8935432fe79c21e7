"""One entry command: `python -m bench [case ...] --json FILE`. Run it on an otherwise idle machine."""

from __future__ import annotations

import argparse
import json
import sys

from bench import batches, designs, features, kernels, loops, selection, sharded
from bench.measure import machine

CASES = {
    "kernels": kernels.kernels,
    "synthetic": designs.synthetic,
    "real": designs.real,
    "ten_million": designs.ten_million,
    "greedy": selection.greedy,
    "batches": batches.batches,
    "coupled": batches.coupled,
    "reference": designs.exact_reference,
    "features": features.features,
    "loops": loops.loops,
    "sharded": sharded.sharded,
    "import": designs.import_time,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; default all")
    parser.add_argument("--json", metavar="FILE", help="write the results here as well")
    chosen = parser.parse_args()
    unknown = set(chosen.cases) - set(CASES)
    if unknown:
        parser.error(f"unknown case(s) {', '.join(sorted(unknown))}; choose of {', '.join(CASES)}")
    results = {"machine": machine()}
    print(json.dumps(results, indent=1), flush=True)
    for name in chosen.cases or CASES:
        results[name] = CASES[name]()
        print(json.dumps({name: results[name]}, indent=1), flush=True)
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
