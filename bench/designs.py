"""Solvers on synthetic and real pools, against peers on materialised pairs."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

import jaxdesign as jd
from bench import peers, pools
from bench.measure import in_child, timed


def solve(pool: jd.CompletionPool, criterion, budget: jd.Budget, tol: float, prior=None, repeats: int = 3, **options):
    """Seconds, passes and certificate of `optimize`, and the time its first call spent on compilation."""
    kept = {}

    def once():
        kept["design"] = jd.optimize(pool, criterion, budget, prior=prior, tol=tol, **options)

    seconds = timed(once, repeats)
    design = kept["design"]
    return {
        "tol": tol,
        "seconds": seconds,
        "compile": seconds["first"] - seconds["median"],
        "passes": design.passes,
        "status": design.status.name,
        "efficiency": design.certificate.efficiency,
        "relative_gap": design.certificate.relative_gap(),
        "pairs": len(design.pairs),
    }


def synthetic(limit: float = 120.0) -> dict[str, Any]:
    """1,015,808 pairs, heavy-tailed, LogDet with repeats, against peers at their best settings."""
    features = pools.heavy_tailed(2048, 32, 64, seed=0)
    pool, budget = jd.CompletionPool(features), jd.Budget(5000)
    rows = {f"jaxdesign to 1 - {tol:g}": solve(pool, jd.LogDet(), budget, tol, repeats=7) for tol in (1e-3, 1e-6)}
    Z = pools.materialise_pairs(features)
    variants = {
        "Frank-Wolfe away steps": lambda: peers.frank_wolfe_away(Z, 1e-3, time_limit=limit, discard_from=1),
        "Frank-Wolfe away steps, discarding": lambda: peers.frank_wolfe_away(Z, 1e-3, time_limit=limit),
        "multiplicative": lambda: peers.multiplicative(Z, 1e-3, time_limit=limit, discard_from=1),
        "multiplicative, power 1.8, discarding": lambda: peers.multiplicative(Z, 1e-3, power=1.8, time_limit=limit),
    }
    ours = rows["jaxdesign to 1 - 0.001"]["seconds"]["median"]
    for name, run in variants.items():
        rows[name] = _peer(run) | {"note": "materialised pairs, NumPy"}
        rows[name]["times_jaxdesign"] = rows[name]["seconds"]["median"] / ours
    return {"problem": "P=2048 K=32 d=64, 1,015,808 pairs, LogDet, repeats", "rows": rows}


def _peer(run, repeats: int = 3) -> dict[str, Any]:
    results = [run()]
    if results[0].seconds < 30:
        results += [run() for _ in range(repeats - 1)]
    seconds = sorted(r.seconds for r in results)
    median = seconds[len(seconds) // 2]
    return {
        "seconds": {"median": median, "min": seconds[0], "max": seconds[-1]},
        "steps": results[0].steps,
        "efficiency": results[0].efficiency,
    }


def real(limit: float = 60.0) -> dict[str, Any]:
    """The `alpacaeval` pool, 799,260 pairs, rank 381: the problems of bench/README.md."""
    features, mask, reason = pools.real_pool("alpacaeval")
    if features is None:
        return {"skipped": reason}
    pool, _ = jd.restrict_to_range(jd.CompletionPool(features, mask=mask))
    C, labels = jd.second_moment(pool), 5000
    prior = 1e-3 * labels / 4 * C
    one, many = jd.Budget(labels, per_pair=1), jd.Budget(labels)
    rows = {
        "LogDet, one a pair, 0.999": solve(pool, jd.LogDet(), one, 1e-3, prior),
        "LogDet, one a pair, 1 - 1e-6": solve(pool, jd.LogDet(), one, 1e-6, prior),
        "Trace, one a pair, 0.999": solve(pool, jd.Trace(C), one, 1e-3, prior),
        "Trace, one a pair, 1 - 1e-6": solve(pool, jd.Trace(C), one, 1e-6, prior),
        "LogDet, repeats, 0.999": solve(pool, jd.LogDet(), many, 1e-3),
        "LogDet, repeats, 1 - 1e-6": solve(pool, jd.LogDet(), many, 1e-6),
    }
    Z = pools.materialise_pairs(np.asarray(pool.features), mask)
    for name, run in {
        "multiplicative, power 1.8 (LogDet, repeats)": lambda: peers.multiplicative(
            Z, 1e-3, power=1.8, time_limit=limit
        ),
        "Frank-Wolfe away steps (LogDet, repeats)": lambda: peers.frank_wolfe_away(Z, 1e-3, time_limit=limit),
    }.items():
        rows[name] = _peer(run) | {"note": f"stopped after {limit:g} s if 0.999 was not reached"}
    return {
        "problem": "alpacaeval, 519 x 56, rank 381, 5,000 labels, prior 1e-3 (m/4) C where one a pair",
        "rows": rows,
    }


TEN_MILLION = """
import json, resource, threading, time
import numpy as np
rng = np.random.default_rng(0)
scale = np.abs(rng.standard_t(3, (84000, 1, 1))).astype(np.float32)
features = rng.standard_normal((84000, 16, 64), dtype=np.float32) * scale
import jax
jax.block_until_ready(jax.numpy.ones(3))
now = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
base, peak, done = now(), 0, False
def watch():
    global peak
    while not done:
        peak = max(peak, now())
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
import jaxdesign as jd
pool = jd.CompletionPool(features)
seconds = []
for _ in range(4):
    began = time.perf_counter()
    design = jd.optimize(pool, jd.LogDet(), jd.Budget(5000), tol=1e-3)
    seconds.append(time.perf_counter() - began)
done = True
print(json.dumps({"seconds": seconds, "memory_over_features": (peak - base) / features.nbytes, "passes": design.passes,
                  "efficiency": design.certificate.efficiency, "status": design.status.name}))
"""


def ten_million() -> dict[str, Any]:
    """84,000 x 16, d = 64: 10.08 million pairs, time and memory in a process of its own."""
    out = json.loads(in_child(TEN_MILLION))
    warm = sorted(out["seconds"][1:])
    out["seconds"] = {"first": out["seconds"][0], "median": warm[1], "min": warm[0], "max": warm[-1]}
    return {"problem": "P=84,000 K=16 d=64, 10,080,000 pairs, LogDet, repeats, 0.999", **out}


def exact_reference() -> dict[str, Any]:
    """A pool small enough for cvxpy: the same problem by both, and how far the values are apart."""
    features = pools.heavy_tailed(20, 6, 8, seed=0)
    pool, budget = jd.CompletionPool(features), jd.Budget(200)
    rows = {}
    for name, criterion in {"LogDet": jd.LogDet(), "Trace": jd.Trace(np.eye(8))}.items():
        ours = solve(pool, criterion, budget, 1e-6)
        began = time.perf_counter()
        exact = jd.reference.optimize(pool, criterion, budget)
        seconds = time.perf_counter() - began
        design = jd.optimize(pool, criterion, budget, tol=1e-6)
        rows[name] = {
            "jaxdesign": ours,
            "cvxpy": {"seconds": seconds, "relative_gap": exact.certificate.relative_gap()},
            "value_difference": design.certificate.value - exact.certificate.value,
        }
    return {"problem": "P=20 K=6 d=8, 300 pairs", "rows": rows}


IMPORT = "import jax, time; t = time.perf_counter(); import jaxdesign; print(time.perf_counter() - t)"
USE = "import jax, time; t = time.perf_counter(); from jaxdesign import *; print(time.perf_counter() - t)"


def import_time() -> dict[str, Any]:
    """Seconds of `import jaxdesign` after `import jax`, and of loading every public name; best of 5."""
    return {
        "import jaxdesign": min(float(in_child(IMPORT)) for _ in range(5)),
        "every public name": min(float(in_child(USE)) for _ in range(3)),
    }
