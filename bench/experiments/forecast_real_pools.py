"""`jd.forecast` against what was measured on real completions with a linear reward: what a user is told beforehand.

    python -m bench.experiments.forecast_real_pools --result bench/results/real-pools.json --json FILE

For every number of labels of a result of `real_pools`, with the ridge that the experiment gave to random pairs as the
only knowledge (of N(0, I / ridge), or of a smooth belief), on some of its splits: what random pairs are expected to
leave, what the design is expected to gain over them, and what it gained. A forecast is right where it is within a
factor of two.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

import jaxdesign as jd
from bench.experiments import arms
from bench.experiments.files import read_json, settings, write_json
from bench.experiments.pool_truth import Truth, load, make_split, make_truth
from bench.measure import machine

CASE = "well_specified"
PAIRS = {"random_distinct": "trace", "random_distinct_smooth": "trace_smooth"}  # random pairs, and the design


def forecast_of(truth: Truth, random: str, number: int, ridge: float) -> tuple[float, float]:
    """What random pairs leave, and what a design gains over them."""
    pool, target = truth.problem.pool, truth.problem.target()
    prior = arms.smooth_with(pool, ridge) if random.endswith("_smooth") else ridge
    found = jd.forecast(pool, jd.Budget(number, per_pair=1), [number], prior=prior, target=target)
    return float(found.random[0]), float(found.random[0] - found.design[0])


def rows_of(case: dict[str, Any], truths: Sequence[Truth]) -> list[dict[str, Any]]:
    """A row for every belief and number of labels."""
    rows = []
    for random, design in PAIRS.items():
        gaps = [case["given"][arm]["gap"] for arm in (random, design)]
        for number, ridge in case["ridges"][random].items():
            left, gained = np.mean([forecast_of(truth, random, int(number), ridge) for truth in truths], axis=0)
            came = gaps[0][number] - gaps[1][number]
            rows.append({
                "belief": random, "labels": int(number), "ridge": ridge, "random leaves": left, "forecast": gained,
                "random left": gaps[0][number], "measured": came, "right": bool(0.5 <= gained / came <= 2),
            })  # fmt: skip
    return rows


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.forecast_real_pools", description=__doc__)
    parser.add_argument("--result", required=True, help="what real_pools wrote")
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument("--json", metavar="FILE", help="write the rows here")
    given = parser.parse_args(arguments)
    case, data = read_json(given.result)["cases"][CASE], load(CASE)
    splits = [(seed, make_split(data.features, given.components, seed)) for seed in case["seeds"][: given.splits]]
    truths = [make_truth(CASE, data, split, 1.0, seed) for seed, split in splits]
    results = {"machine": machine(), "settings": settings(given), "rows": rows_of(case, truths)}
    write_json(results, given.json)
    return results


if __name__ == "__main__":
    main()
