"""A program that prints, as JSON, the peak of anonymous memory while pools in files of two sizes are optimised.

Anonymous memory is what is no page of a file: pages of a mapped file are in memory because the system has room for
them. Kernels are compiled, and what an allocator keeps is there, before anything is measured.
"""

import json
import sys
from pathlib import Path

import numpy as np

import jaxdesign as jd
from bench.measure import anonymous_peak
from bench.streamed import write_pool
from jaxdesign.pricing import streamed_source

SMALL, LARGE = 4_096, 65_536  # prompts
BUDGETS = {"repeats": jd.Budget(5000), "caps": jd.Budget(5000, per_pair=1)}


def optimised(path, budget):
    return jd.optimize(streamed_source(path), jd.LogDet(), budget, tol=0.01, prior=1e-3)


def held(path):
    """For comparison: the same with the features in memory."""
    return jd.optimize(streamed_source(np.array(np.load(path))), jd.LogDet(), BUDGETS["repeats"], tol=0.01, prior=1e-3)


def main(folder):
    sizes = {"small": SMALL, "large": LARGE}
    paths = {name: Path(folder) / f"{name}.npy" for name in sizes}
    for name, prompts in sizes.items():
        write_pool(paths[name], prompts)
    found = {"chunk": streamed_source(paths["large"]).length, "file": paths["large"].stat().st_size}
    for name, budget in BUDGETS.items():
        for path in paths.values():
            optimised(path, budget)
        peaks = {size: anonymous_peak(lambda p=path, b=budget: optimised(p, b)) for size, path in paths.items()}
        assert peaks["large"][0].status is jd.Status.CERTIFIED
        found[name] = {size: peak for size, (_, peak) in peaks.items()}
    found["held"] = anonymous_peak(lambda: held(paths["large"]))[1]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
