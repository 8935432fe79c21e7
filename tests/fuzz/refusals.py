"""Arguments that must be refused, in words: NaN and inf anywhere in arrays small and large, and numbers out of range.

Each case makes a call that has to raise ValueError or TypeError whose message begins with the name of an argument.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxdesign as jd

from .outcomes import ARGUMENTS, Fault, Outcome

SMALL, LARGE = (5, 4, 4), (200, 8, 16)  # 80 and 25,600 values
DTYPES = ("float16", "bfloat16", "float32", "float64")


def poisoned(rng, array):
    """One value NaN or infinite, anywhere."""
    array = np.array(array)
    array.flat[rng.integers(array.size)] = rng.choice([np.nan, np.inf, -np.inf], p=[0.6, 0.2, 0.2])
    return array


def _pool(rng, shape=SMALL):
    return jd.CompletionPool(rng.standard_normal(shape).astype(np.float32))


def features(rng, shape):
    values = poisoned(rng, rng.standard_normal(shape).astype(jnp.dtype(str(rng.choice(DTYPES)))))
    mask = None
    if rng.random() < 0.5:
        mask = np.isfinite(values.astype(np.float32)).any(axis=2)  # the poisoned completion exists
    return lambda: jd.CompletionPool(values, mask=mask)


def scores(rng, shape):
    values = rng.standard_normal(shape).astype(np.float32)
    u = poisoned(rng, rng.standard_normal(shape[:2]).astype(np.float32))
    return lambda: jd.CompletionPool(values, u)


def many_scores(rng):
    u = poisoned(rng, rng.standard_normal((40, 5, 4 * 8)).astype(np.float32))
    return lambda: jd.CompletionPool(rng.standard_normal((5, 32, 2)).astype(np.float32), u)


def flips(rng):
    values = rng.standard_normal((100, 8, 2)).astype(np.float32)
    flip = poisoned(rng, rng.uniform(0, 0.4, 100))
    return lambda: jd.CompletionPool(values, flip=flip)


def prior(rng):
    pool, held = _pool(rng), poisoned(rng, np.eye(4))
    return lambda: jd.optimize(pool, jd.LogDet(), jd.Budget(8.0), prior=held)


def target(rng):
    H = poisoned(rng, np.eye(80))
    return lambda: jd.Trace(H)


def costs(rng):
    pool, cost = _pool(rng), poisoned(rng, np.ones((5, 4)))
    return lambda: jd.optimize(pool, jd.LogDet(), jd.Budget(8.0, cost=cost, cost_total=16.0))


def labels(rng):
    pool = _pool(rng)
    pairs = [(p, 0, k) for p in range(5) for k in (1, 2)]
    counts = poisoned(rng, np.ones(10))
    return lambda: jd.evaluate(pool, jd.LogDet(), jd.Budget(10.0), pairs, counts)


def max_passes(rng):
    pool, value = _pool(rng), [np.nan, np.inf, 0, 1.5, "3", [1]][rng.integers(6)]
    return lambda: jd.optimize(pool, jd.LogDet(), jd.Budget(8.0), max_passes=value)


def tol(rng):
    pool, value = _pool(rng), [np.nan, -0.1, 1.0, "0.1", None, np.float32(2)][rng.integers(6)]
    return lambda: jd.optimize(pool, jd.LogDet(), jd.Budget(8.0), tol=value)


def quotas(rng):
    value = [5, 2.5, "domain", [3], {"a": 1}][rng.integers(5)]
    return lambda: jd.Budget(8.0, quotas=value)


def required(rng):
    pool = _pool(rng)
    pairs = [[(0, 0, 1), (0, 1)], [(0, 0)], [("a", 0, 1)], [(0, 0, np.nan)], 7, [(0, 0, 9)]][rng.integers(6)]
    name = str(rng.choice(["required", "exclude"]))
    return lambda: jd.optimize(pool, jd.LogDet(), jd.Budget(8.0, **{name: pairs}))


def groups(rng):
    of = [[0.0, np.nan], [1.0, 2.0], [None, "a"], [[0, 1]], [0, "a", [1]], 3][rng.integers(6)]
    return lambda: jd.Quota(of=of, at_least=1.0)


def limits(rng):
    name = str(rng.choice(["per_pair", "per_prompt", "per_prompt_min", "cost_total", "cost_per_label", "total"]))
    value = [np.nan, -1.0, "two", [[1.0]], [1.0, [2.0]]][rng.integers(5)]
    known = {"total": 8.0} if name != "total" else {}
    return lambda: jd.optimize(_pool(rng), jd.LogDet(), jd.Budget(**known, **{name: value}))


def increasing(rng):
    pool, power = _pool(rng), int(rng.integers(1, 4))
    crit = jd.Criterion(lambda A: jnp.trace(A) ** power)  # grows with information
    return lambda: jd.optimize(pool, crit, jd.Budget(8.0, per_pair=2))


CASES: dict[str, Callable] = {
    "features, small": lambda rng: features(rng, SMALL),
    "features, large": lambda rng: features(rng, LARGE),
    "scores, small": lambda rng: scores(rng, SMALL),
    "scores, large": lambda rng: scores(rng, (600, 8, 2)),
    "scores of draws": many_scores,
    "flip": flips, "prior": prior, "H": target, "cost": costs, "labels": labels, "max_passes": max_passes, "tol": tol,
    "quotas": quotas, "required": required, "groups": groups, "limits": limits,
    "criterion": increasing,
}  # fmt: skip


def refuse(seed: int) -> Outcome:
    """The outcome of the case of a seed."""
    rng = np.random.default_rng([3, seed])
    name = list(CASES)[seed % len(CASES)]
    faults = []

    def note(kind, detail):
        faults.append(Fault(kind, f"{kind}: bad {name}", detail))

    with jax.enable_x64(bool(rng.random() < 0.5)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call = CASES[name](rng)
        said = "accepted"
        try:
            call()
            note("accepted", "no exception")
        except (ValueError, TypeError) as error:
            said = f"refused {str(error)[:20]}"
            if not ARGUMENTS.match(str(error)):
                note("exception", f"{type(error).__name__}: {error}"[:300])
        except Exception as error:
            said = type(error).__name__
            note("exception", f"{said}: {error}"[:300])
    return Outcome(seed, f"bad {name}", "refuse", said, 0, faults)
