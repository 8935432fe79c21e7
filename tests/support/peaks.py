"""A program that prints, as JSON, how many bytes each function named needs at its peak beyond what it is given.

Linux counts the peak of a process's resident memory and lets it be set back; every function runs once before it is
measured, so that compilation is not counted.
"""

import ctypes
import gc
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxdesign as jd
from jaxdesign.solvers import frank_wolfe

PROMPTS, COMPLETIONS, DIM = 512, 32, 256
MANY = jd.Annotators(np.linspace(0, 0.3, 16))  # a copy of the features for each would take half of all differences
STATUS, SET_BACK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def kilobytes(name):
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(name))


def settled():
    """Resident kilobytes once nothing more is given back: XLA frees its scratch after the answer is there."""
    found = [np.inf, kilobytes("VmRSS")]
    while found[-1] < found[-2]:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        time.sleep(0.2)
        found.append(kilobytes("VmRSS"))
    return found[-1]


def peak(function):
    """Bytes above those resident before the call."""
    jax.block_until_ready(function())
    before = settled()
    SET_BACK.write_text("5")
    jax.block_until_ready(function())
    return 1024 * (kilobytes("VmHWM") - before)


@jax.jit
def materialised(features):
    """All differences z at once, as no function of the package may have them; the barrier has XLA store them."""
    z = jax.lax.optimization_barrier(features[:, :, None] - features[:, None])
    return jnp.einsum("pijd,pije->de", z, z)


def functions(pool):
    crit, budget = jd.Trace(np.eye(DIM)), jd.Budget(500, per_pair=1)
    return {
        "pair_information": lambda: jd.pair_information(pool, np.ones((PROMPTS, COMPLETIONS, COMPLETIONS))),
        "pair_sensitivities": lambda: jd.pair_sensitivities(pool, np.eye(DIM)),
        "policy_target": lambda: jd.policy_target(pool),
        "evaluate": lambda: jd.evaluate(pool, crit, jd.Budget(1), [[0, 0, 1]], [1.0], prior=0.1).labels,
        "optimize": lambda: jd.optimize(pool, crit, budget, prior=0.1, tol=0.1).labels,
        "annotators": lambda: (
            jd.evaluate(pool, crit, jd.Budget(1), [[0, 0, 1]], [1.0], prior=0.1, annotators=MANY, assigned=[3]).labels
        ),
        "greedy": lambda: jd.greedy(pool, crit, size=20, prior=0.1),
        "frank_wolfe": lambda: frank_wolfe(pool, crit, jd.Budget(500), prior=0.1, passes=3)[0],
        "materialised": lambda: materialised(pool.features),
    }


def main():
    features = np.random.default_rng(0).standard_normal((PROMPTS, COMPLETIONS, DIM), np.float32)
    made = functions(jd.CompletionPool(features))
    json.dump({name: peak(made[name]) for name in sys.argv[1:]}, sys.stdout)


if __name__ == "__main__":
    main()
