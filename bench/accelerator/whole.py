"""Whole calls: `optimize` by phase from 10^6 to 10^8 pairs, `select_pairs` by candidate."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import jax

import jaxdesign as jd
from bench.accelerator.arrays import heavy_tailed
from bench.accelerator.cases import Case
from bench.accelerator.clock import Compilations, memory
from bench.accelerator.phases import Phases
from bench.designs import solve
from bench.measure import timed
from jaxdesign import _arrays


def cases(small: bool) -> list[Case]:
    """10^6, 10^7 and 10^8 pairs: a GPU should be slower than, faster and far faster than two CPU cores."""
    if small:
        shape = (32, 8, 16)
        return [_case(shape, 1e-6, 0), _case(shape, 1e-3, 0, entries=2**9), _case(shape, 1e-3, 0, once=100)]
    return [
        _case((2048, 32, 64), 1e-6, 40),
        _case((20160, 32, 256), 1e-3, 50),
        _case((20160, 32, 256), 1e-3, 50, entries=_arrays.CHUNK_ENTRIES["cpu"]),
        _case((201600, 32, 256), 1e-3, 120),
        _case((2048, 32, 1024), 1e-3, 120, once=20_000),
    ]


def _case(shape, tol, needs, **settings) -> Case:
    name = " x ".join(map(str, shape[:2])) + f", d = {shape[2]}, to 1 - {tol:g}"
    name += f", chunks of {settings['entries']} entries" if "entries" in settings else ""
    name += ", one a pair" if "once" in settings else ""
    return Case("optimize", name, needs, partial(design, shape, tol, **settings))


def batch_cases(small: bool) -> list[Case]:
    """Whole labels, one a pair."""
    shape, labels = ((32, 8, 16), 40) if small else ((2048, 32, 256), 1000)
    return [
        Case("select_pairs", f"{name}, {labels} labels", 90, partial(batch, shape, labels, criterion))
        for name, criterion in (("LogDet", _log_det), ("Trace", _trace))
    ]


def design(shape, tol: float, once: int | None = None, entries: int | None = None) -> dict[str, Any]:
    """A design for 5,000 labels with repeats, or for `once` labels, one a pair, with a prior of 1e-3 (m/4) C."""
    with mock.patch.dict(_arrays.CHUNK_ENTRIES, {jax.default_backend(): entries} if entries else {}):
        pool, prior, budget = heavy_tailed(*shape), None, jd.Budget(5000)
        if once:
            prior, budget = 1e-3 * once / 4 * jd.second_moment(pool), jd.Budget(once, per_pair=1)
        with Compilations() as compiled:
            found = solve(pool, jd.LogDet(), budget, tol, prior, repeats=2)
        with Phases() as phases:
            jd.optimize(pool, jd.LogDet(), budget, tol=tol, prior=prior)
    found |= {"ended": found.pop("status"), **compiled.row(), **phases.row(), "memory_gib": memory()}
    del found["compile"]  # the compiler's own seconds are exact
    return found


def batch(shape, labels: int, criterion) -> dict[str, Any]:
    """A batch with a prior of 1e-3 (m/4) C: first call and a warm one, and the warm one's seconds by candidate."""
    pool, kept = heavy_tailed(*shape), {}
    C = jd.second_moment(pool)

    def once():
        kept["batch"] = jd.select_pairs(pool, criterion(C), jd.Budget(labels, per_pair=1), prior=1e-3 * labels / 4 * C)

    with Compilations() as compiled:
        seconds = timed(once, 1)
    found = kept["batch"]
    return {
        "labels": labels,
        "seconds": seconds,
        **compiled.row(),
        "efficiency": found.certificate.efficiency,
        "method": found.report["method"],
        "candidates": {name: row["seconds"] for name, row in found.report["candidates"].items()},
    }


def _log_det(C):
    return jd.LogDet()


def _trace(C):
    return jd.Trace(C)
