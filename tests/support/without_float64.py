"""Runs as on a backend without float64: devices 0 and 1 play it, device 2 its host. Prints what was where.

`python -m tests.support.without_float64`: one JSON object with `float64`, the programs with float64 that were compiled
for the first two and the float64 arrays that lay there; `passes`, how many programs were compiled for them; `algebra`,
how many with float64 for the host; `designs`, for every case the largest relative difference of labels and certificates
from those of a backend that has it.
"""

import json
import re

import jax
import numpy as np

jax.config.update("jax_num_cpu_devices", 3)
jax.config.update("jax_numpy_dtype_promotion", "strict")

from jax._src import compiler  # noqa: E402

import jaxdesign as jd  # noqa: E402
from jaxdesign import _arrays  # noqa: E402
from jaxdesign.pricing import sharded_source, streamed_source  # noqa: E402
from jaxdesign.solvers.column_generation import hot_start  # noqa: E402
from tests.support.divided import pool_of  # noqa: E402

WIDE = re.compile(r"[<x]f64>")
hot_start.LARGE = 40 * 36  # so that the start takes some prompts and leaves others
POOL, PLAIN = jax.device_put(pool_of(200, scored=True), jax.devices()[0]), pool_of(200)  # one put there on purpose
CAPS, DIM = jd.Budget(60, per_pair=1), POOL.dim
TRACE = jd.Trace(np.diag(np.arange(1.0, DIM + 1)))
PEOPLE = jd.Annotators(flip=np.random.default_rng(0).uniform(0, 0.3, (2, 200)))
PAIRS = np.stack([np.arange(1, 199, 3), np.zeros(66, int), np.ones(66, int)], axis=1)


def streamed():
    return streamed_source(np.asarray(PLAIN.features), None, np.asarray(PLAIN.mask), chunk=48)


def divided():
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    return sharded_source(PLAIN, mesh, "data")


CASES = {
    "scores, caps": lambda: jd.optimize(POOL, jd.LogDet(), CAPS, prior=0.1, tol=1e-6, callback=look),
    "trace, repeats": lambda: jd.optimize(PLAIN, TRACE, jd.Budget(60), callback=look),
    "quotas": lambda: jd.optimize(PLAIN, jd.LogDet(), jd.Budget(60, per_prompt=2), callback=look),
    "streamed": lambda: jd.optimize(streamed(), jd.LogDet(), CAPS, callback=look),
    "divided": lambda: jd.optimize(divided(), jd.LogDet(), CAPS, callback=look),
    "annotators": lambda: jd.optimize(PLAIN, jd.LogDet(), CAPS, annotators=PEOPLE, callback=look),
    "spend": lambda: jd.optimize(
        PLAIN, jd.LogDet(), jd.Budget(60, cost=np.linspace(1, 2, 1200).reshape(200, 6), cost_total=170), callback=look
    ),
    "interior point": lambda: jd.optimize(PLAIN, TRACE, jd.Budget(60), solver="interior_point", callback=look),
    "evaluate": lambda: jd.evaluate(POOL, TRACE, jd.Budget(66), PAIRS, np.ones(66)),
    "whole labels": lambda: jd.select_pairs(PLAIN, TRACE, jd.Budget(20, per_pair=1), prior=0.1),
}
found: set[str] = set()
passes: list[str] = []
algebra: list[str] = []


def look(_=None):
    """Which float64 arrays lie on the first two devices at this moment."""
    there = set(jax.devices()[:2])
    found.update(f"array {a.shape}" for a in jax.live_arrays() if a.dtype == np.float64 and there & a.devices())


def recorded(_, module, devices, *args, compiled=compiler.compile_or_get_cached, **rest):
    name, wide = str(module.operation.attributes["sym_name"]), WIDE.search(str(module)) is not None
    if jax.devices()[2] not in devices.flat:
        passes.append(name)
        found.update([name] if wide else [])
    elif wide:
        algebra.append(name)
    return compiled(_, module, devices, *args, **rest)


def compared(one, other):
    """The largest relative difference of two designs; inf where their pairs differ."""
    if not np.array_equal(one.pairs, other.pairs):
        return float("inf")
    found, expected = (np.concatenate([design.labels, design.certificate]) for design in (one, other))
    return float(np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1e-3)))


def main():
    ordinary, compiled = _arrays.algebra_device, compiler.compile_or_get_cached
    _arrays.algebra_device, compiler.compile_or_get_cached = lambda: jax.devices()[2], recorded
    without = {}
    for name, case in CASES.items():
        without[name] = case()
        look()
    _arrays.algebra_device, compiler.compile_or_get_cached, special = ordinary, compiled, sorted(found)
    for pool in (POOL, PLAIN):
        pool.__dict__.pop("_kept", None)
    designs = {name: compared(without[name], case()) for name, case in CASES.items()}
    print(json.dumps({"float64": special, "passes": len(passes), "algebra": len(algebra), "designs": designs}))


if __name__ == "__main__":
    main()
