"""One of the processes that share a pool: the design of its divided pool against that of the pool in memory.

Arguments: its number, how many there are, the port of the first. Two devices each; prints what it found as JSON.
"""

import json
import sys

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import jaxdesign as jd
from jaxdesign.pricing import sharded_source
from tests.support.divided import pool_of

BUDGET = jd.Budget(40, per_pair=1)


def across(mesh, pool):
    """The pool with each prompt on the device of some process."""

    def put(leaf, before=0):
        whole = np.asarray(leaf)
        sharding = NamedSharding(mesh, PartitionSpec(*[None] * before, "data"))
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    flip = None if pool.flip is None else put(pool.flip)
    scores = None if pool.scores is None else put(pool.scores, pool.scores.ndim - 2)
    return jd.CompletionPool(put(pool.features), scores, put(pool.mask), flip=flip)


def answers(pool, annotated):
    people = jd.Annotators(flip=np.random.default_rng(0).uniform(0, 0.3, (2, annotated.mask.shape[0])))
    yield jd.optimize(pool, jd.LogDet(), BUDGET, prior=0.1)
    yield jd.evaluate(pool, jd.LogDet(), jd.Budget(2), [[1, 0, 1], [61, 1, 2]], [1, 1], prior=0.1)
    yield jd.optimize(annotated, jd.LogDet(), BUDGET, prior=0.1, annotators=people)


def compared(mesh):
    pool, annotated = pool_of(64, scored=True, draws=2), pool_of(64)
    expected = list(answers(pool, annotated))
    found = list(answers(across(mesh, pool), across(mesh, annotated)))
    uneven = pool_of(61, scored=True)
    expected.append(jd.optimize(uneven, jd.LogDet(), BUDGET, prior=0.1))
    found.append(jd.optimize(sharded_source(uneven, mesh, "data"), jd.LogDet(), BUDGET, prior=0.1))
    expected.append(jd.select_pairs(pool, jd.LogDet(), BUDGET, prior=0.1))
    found.append(jd.select_pairs(across(mesh, pool), jd.LogDet(), BUDGET, prior=0.1))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.pairs, other.pairs)
        np.testing.assert_allclose(one.labels, other.labels, rtol=1e-10)
        np.testing.assert_allclose(one.certificate, other.certificate, rtol=1e-10)
    return [[one.pairs.tolist(), one.labels.tolist(), list(one.certificate)] for one in found]


if __name__ == "__main__":
    number, processes, port = map(int, sys.argv[1:])
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, number)
    assert len(jax.devices()) == 2 * processes and len(jax.local_devices()) == 2
    print(json.dumps(compared(jax.make_mesh((2 * processes,), ("data",)))))
