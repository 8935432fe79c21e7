"""How much arms that a solver makes differ between processors: the same experiment, run with other instructions.

    XLA_FLAGS=--xla_cpu_max_isa=AVX2 OPENBLAS_CORETYPE=Haswell
        python -m bench.experiments.llama_log_linear --tuning tuning.npz --pool reported.npz --lines other.jsonl
    python -m bench.experiments.processors --lines lines.jsonl --other other.jsonl --json FILE

Sums are rounded otherwise, near ties of pairs are broken otherwise, and where rounds follow one another so are their
labels. Lines of both files that are of the same arm of the same case are compared: in how many the mean gain in J over
held-back prompts is not the same, by how much it differs in the mean (without its sign), and by how much the mean over
all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.experiments.files import read_lines, settings, write_json
from bench.experiments.llama_log_linear import place
from bench.measure import machine

SAME = 1e-6  # of mean gains


def compared(lines: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for every arm of cases that both have."""
    gains = [
        {place(line): float(np.mean(line["gains"])) for line in some if "gains" in line} for some in (lines, other)
    ]
    both = sorted(gains[0].keys() & gains[1].keys())
    rows = []
    for arm in dict.fromkeys(key[-1] for key in both):
        own = np.array([[some[key] for some in gains] for key in both if key[-1] == arm])
        apart = own[:, 1] - own[:, 0]
        rows.append({
            "arm": arm, "cases": len(own), "differ": float(np.mean(np.abs(apart) > SAME)), "gain": float(own.mean()),
            "of a case": float(np.abs(apart).mean()), "of the mean": float(apart.mean()),
        })  # fmt: skip
    return rows


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.processors", description=__doc__)
    parser.add_argument("--lines", required=True, help="of one run")
    parser.add_argument("--other", required=True, help="of the other")
    parser.add_argument("--json", metavar="FILE", help="write the rows here")
    given = parser.parse_args(arguments)
    rows = compared(read_lines(Path(given.lines)), read_lines(Path(given.other)))
    results = {"machine": machine(), "settings": settings(given), "rows": rows}
    write_json(results, given.json)
    return results


if __name__ == "__main__":
    main()
