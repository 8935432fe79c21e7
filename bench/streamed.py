"""A pool in a file, larger than the memory that is used: `python -m bench.streamed --prompts P --json FILE`.

Makes P x 32 x 64 float16 with heavy tails, chunk by chunk, and optimises log det to a certified relative gap of 0.01:
seconds, sweeps of the file, the peak of memory that is no page of the file. P = 2,100,000 has 1.04 x 10^9 pairs and
needs 8.6 GB of disk. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import jaxdesign as jd
from bench.measure import anonymous_bytes, anonymous_peak, machine
from bench.pools import heavy_tailed
from jaxdesign.pricing import StreamedSource, streamed_source
from jaxdesign.pricing.stored.protocol import Mapped

COMPLETIONS, DIM, AT_A_TIME = 32, 64, 8192


class Counted(Mapped):
    """Counts the numbers that passes read, and those that are looked up."""

    swept = looked_up = 0

    def between(self, start, stop):
        found = super().between(start, stop)
        Counted.swept += found.size
        return found

    def take(self, *index):
        found = super().take(*index)
        Counted.looked_up += found.size
        return found


def write_pool(path: Path, prompts: int) -> None:
    """A .npy file of (prompts, COMPLETIONS, DIM) float16, the same for the same number."""
    shape = prompts, COMPLETIONS, DIM
    file = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    for seed, start in enumerate(range(0, prompts, AT_A_TIME)):
        size = min(AT_A_TIME, prompts - start)
        file[start : start + size] = heavy_tailed(size, COMPLETIONS, DIM, seed)
    file.flush()


def streamed(path: Path, tol: float, chunk: int | None) -> dict[str, Any]:
    """Optimises the pool of a file."""
    given = streamed_source(path, chunk=chunk)
    source = StreamedSource(Counted(given.features.array), None, None, None, given.length, given.wide)
    before, began = anonymous_bytes(), time.perf_counter()
    design, peak = anonymous_peak(lambda: jd.optimize(source, jd.LogDet(), jd.Budget(5000), tol=tol))
    size = given.features.array.size
    return {
        "prompts": source.prompts,
        "pairs": source.prompts * COMPLETIONS * (COMPLETIONS - 1) // 2,
        "file_bytes": path.stat().st_size,
        "chunk": source.length,
        "tol": tol,
        "seconds": time.perf_counter() - began,
        "sweeps": Counted.swept / size,
        "looked_up": Counted.looked_up / size,
        "passes": design.passes,
        "status": design.status.name,
        "efficiency": design.certificate.efficiency,
        "support": len(design.pairs),
        "anonymous_peak_bytes": peak,
        "anonymous_bytes_before": before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.streamed", description=__doc__)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--tol", type=float, default=0.01)
    parser.add_argument("--chunk", type=int, help="prompts read at a time; default by backend")
    parser.add_argument("--file", type=Path, help="where the pool is kept, and found again; default a temporary one")
    parser.add_argument("--json", metavar="FILE", help="write the results here as well")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.file or Path(folder) / "pool.npy"
        if not path.exists():
            write_pool(path, chosen.prompts)
        results = {"machine": machine(), "streamed": streamed(path, chosen.tol, chosen.chunk)}
    print(json.dumps(results, indent=1))
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
