"""A program that prints, as JSON, peaks of anonymous memory while designs of one kind are made of files of two sizes.

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

SIZES = {"small": 4_096, "large": 65_536}  # prompts


def relaxed(budget):
    """Of a pool the best real-valued design."""
    return lambda pool: jd.optimize(pool, jd.LogDet(), budget, tol=0.01, prior=1e-3)


def whole(*methods):
    """Of a pool whole labels, sought until no swap helps."""
    budget = jd.Budget(200, per_pair=1)
    return lambda pool: jd.select_pairs(pool, jd.LogDet(), budget, tol=1e-4, prior=1e-3, methods=methods)


CALLS = {
    "repeats": relaxed(jd.Budget(5000)),
    "caps": relaxed(jd.Budget(5000, per_pair=1)),
    "exchange": whole("best_set", "exchange"),
    "greedy": whole("greedy"),
}


def done(result):
    """Whether it took the way that is to be measured."""
    tried = (result.report or {}).get("candidates", {})
    return result.status in (jd.Status.CERTIFIED, jd.Status.EXACT) and tried.get("exchange", {}).get("optimal", True)


def main(folder, name):
    paths, call, found = {size: Path(folder) / f"{size}.npy" for size in SIZES}, CALLS[name], {}
    for size, path in paths.items():
        if not path.exists():
            write_pool(path, SIZES[size])
        call(streamed_source(path))
        result, found[size] = anonymous_peak(lambda path=path: call(streamed_source(path)))
        assert done(result), result
    features = np.array(np.load(paths["large"]))  # for comparison: the same with the features in memory
    held = lambda: anonymous_peak(lambda: call(streamed_source(features)))[1]  # noqa: E731
    found["held"] = max(held() for _ in range(3))  # on a busy machine the thread that looks may miss the highest
    json.dump(found | {"chunk": streamed_source(features).length, "file": features.nbytes}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
