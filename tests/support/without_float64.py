"""Runs as on a backend without float64: four devices play it, a fifth its host. Prints what was where.

`python -m tests.support.without_float64 pools`, or `sources`: one JSON object with `float64`, the programs with float64
that were compiled for the first four and the float64 arrays that lay there; `passes`, how many programs were compiled
for them; `algebra`, how many with float64 for the host; `designs`, for every case the largest relative difference of
labels, certificates and other numbers from those of a backend that has it, of sources from those of a pool in memory.
"""

import json
import re
import sys
from functools import partial

import jax
import numpy as np

jax.config.update("jax_num_cpu_devices", 5)
jax.config.update("jax_numpy_dtype_promotion", "strict")

from jax._src import compiler  # noqa: E402
from jax.sharding import AxisType, NamedSharding, PartitionSpec  # noqa: E402

import jaxdesign as jd  # noqa: E402
from jaxdesign import _arrays  # noqa: E402
from jaxdesign.exact import candidates  # noqa: E402
from jaxdesign.exact.exchange import listing  # noqa: E402
from jaxdesign.pool import prompts_of  # noqa: E402
from jaxdesign.pricing import as_chunk, folded, memory_source, pair_rows, sharded_source, streamed_source  # noqa: E402
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
    return sharded_source(PLAIN, jax.make_mesh((4,), ("data",), devices=jax.devices()[:4]), "data")


def divided_pool():
    mesh = jax.make_mesh((4,), ("data",), (AxisType.Explicit,), devices=jax.devices()[:4])
    place = NamedSharding(mesh, PartitionSpec("data"))
    return jd.CompletionPool(jax.device_put(PLAIN.features, place), mask=jax.device_put(PLAIN.mask, place))


class Own:
    """A source with no more than a source must have, which puts things on its device on purpose."""

    prompts, completions, dim, draws, dtype = 200, PLAIN.completions, DIM, 1, np.dtype(np.float32)

    def pool(self, prompts):
        return jax.device_put(prompts_of(PLAIN, prompts), jax.devices()[0])

    def fold(self, kernel, carry, per_prompt=None, merge=None):
        every = np.split(np.arange(200), range(30, 200, 30))
        return folded((as_chunk(self.pool(some)) for some in every), kernel, carry, per_prompt)

    def rows(self, pairs):
        some, place = np.unique(pairs[:, 0], return_inverse=True)
        return pair_rows(self.pool(some), np.column_stack([place, pairs[:, 1:]]).astype(np.int32))

    def subset(self, prompts):
        return memory_source(self.pool(prompts))


POOLS = {
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
    "range": lambda: [jd.restrict_to_range(POOL)[0].features],
    "range, divided": lambda: [jd.restrict_to_range(divided_pool())[0].features],
    "moment": lambda: [jd.second_moment(POOL)],
    "moment, divided": lambda: [jd.second_moment(divided_pool())],
    "whole labels, divided": lambda: jd.select_pairs(
        divided_pool(), jd.LogDet(), jd.Budget(20, per_pair=1), prior=0.1, progress=look
    ),
    "whole labels": lambda: jd.select_pairs(PLAIN, TRACE, jd.Budget(20, per_pair=1), prior=0.1),
}
SOURCES = {"streamed": streamed, "divided": divided, "own": Own}
SHARES = np.random.default_rng(1).standard_normal((200, PLAIN.completions))


def curve(pool):
    found = jd.label_curve(pool, jd.LogDet(), CAPS, [20, 40], prior=0.1, rules=["random"])
    return [*found.values.values(), *found.gaps.values(), found.lower_bounds]


JOBS = {
    "optimize": lambda pool: jd.optimize(pool, TRACE, CAPS, prior=0.1, tol=1e-6, callback=look),
    "evaluate": lambda pool: jd.evaluate(pool, jd.LogDet(), jd.Budget(66), PAIRS, np.ones(66)),
    "select": lambda pool: jd.select_pairs(pool, TRACE, jd.Budget(20, per_pair=1), prior=0.1, progress=look),
    "select, annotators": lambda pool: jd.select_pairs(
        pool, jd.LogDet(), jd.Budget(20, exclude=[[2, 0, 1]]), prior=0.1, annotators=PEOPLE, progress=look
    ),
    "curve": curve,
    "range": lambda pool: [jd.restrict_to_range(pool)[1]],
    "select, range": lambda pool: jd.select_pairs(
        jd.restrict_to_range(pool)[0], jd.LogDet(), jd.Budget(20, per_pair=1), prior=0.1, progress=look
    ),
    "target": lambda pool: [jd.policy_target(pool, SHARES)],
    "moment": lambda pool: [jd.second_moment(pool)],
}
found: set[str] = set()
passes: list[str] = []
algebra: list[str] = []


def look(*_):
    """Which float64 arrays lie on the first four devices at this moment."""
    there = set(jax.devices()[:4])
    found.update(f"array {a.shape}" for a in jax.live_arrays() if a.dtype == np.float64 and there & a.devices())


def recorded(_, module, devices, *args, compiled=compiler.compile_or_get_cached, **rest):
    look()
    name, wide = str(module.operation.attributes["sym_name"]), WIDE.search(str(module)) is not None
    if jax.devices()[4] not in devices.flat:
        passes.append(name)
        found.update([name] if wide else [])
    elif wide:
        algebra.append(name)
    return compiled(_, module, devices, *args, **rest)


def compared(one, other):
    """The largest relative difference of two designs, or of lists of numbers; inf where their pairs differ."""
    if isinstance(one, jd.Design):
        if not np.array_equal(one.pairs, other.pairs):
            return float("inf")
        one, other = ([design.labels, np.array(design.certificate)] for design in (one, other))
    found, expected = (np.concatenate([np.asarray(part).reshape(-1) for part in every]) for every in (one, other))
    return float(np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1e-3)))


def cases(kind):
    """Name -> what to run as on such a backend, and what to run on an ordinary one."""
    if kind == "pools":
        return {name: (case, case) for name, case in POOLS.items()}
    _arrays.CHUNK_ENTRIES["cpu"] = 2**11  # several subsets
    listing.LARGE, candidates.GREEDY_MEMORY = 0, 150 * 66  # which are looked at closely, or by greedy, in part
    ordinary = {name: partial(job, memory_source(PLAIN)) for name, job in JOBS.items()}
    return {
        f"{name}, {kind}": (lambda job=job, make=make: job(make()), ordinary[name])
        for name, job in JOBS.items()
        for kind, make in SOURCES.items()
    }


def main(kind):
    ordinary, compiled = _arrays.algebra_device, compiler.compile_or_get_cached
    _arrays.algebra_device, compiler.compile_or_get_cached = lambda: jax.devices()[4], recorded
    without = {}
    for name, (case, _) in cases(kind).items():
        without[name] = case()
        look()
    _arrays.algebra_device, compiler.compile_or_get_cached, special = ordinary, compiled, sorted(found)
    for pool in (POOL, PLAIN):
        pool.__dict__.pop("_kept", None)
    designs, others = {}, {}
    for name, (_, case) in cases(kind).items():
        if case not in others:
            others[case] = case()
        designs[name] = compared(without[name], others[case])
    print(json.dumps({"float64": special, "passes": len(passes), "algebra": len(algebra), "designs": designs}))


if __name__ == "__main__":
    main(sys.argv[1])
