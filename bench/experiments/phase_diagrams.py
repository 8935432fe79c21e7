"""Where rounds of IPO end, by alpha, strength and share: simulation beside what is certified.

`python -m bench.experiments.phase_diagrams --json FILE --plot FILE`.

Three matrices of four answers: cyclic (a rotational cycle, no answer better than another), transitive
(Bradley-Terry) and mixed (half of each). Every cell of a grid is one plan: 3,000 rounds from a policy that prefers the
first answer a little, the regime that `jaxdesign.dynamics.iterate` reads off them, the entropy and the variance over
time of the policy; beside it the spectral radius at the fixed point and the three certificates. A certificate that
held where rounds do not end at the fixed point would be false: the experiment counts them.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.experiments.files import settings, write_json
from bench.experiments.phase_plots import plot_phases
from bench.measure import machine
from jaxdesign._arrays import float64
from jaxdesign.dynamics import LoopPlan, Regime, fixed_point, iterate
from jaxdesign.dynamics.certificates import certificates, evidence
from jaxdesign.dynamics.loop_gain import loop_gain
from jaxdesign.dynamics.plan import in_dtype

SHARES = (1.0, 0.5, 0.25)
STRENGTHS = (0.3, 60.0)  # smallest and largest, geometric
ANSWERS = 4
NEAR = 1e-6  # of a probability to the fixed point's


def preferences() -> dict[str, np.ndarray]:
    """P by name."""
    step = (np.arange(ANSWERS)[None, :] - np.arange(ANSWERS)[:, None]) % ANSWERS
    cyclic = np.select([step == 1, step == ANSWERS - 1], [0.4, -0.4], 0.0)
    scores = np.array([1.0, 0.6, 0.2, -0.3])
    transitive = 1 / (1 + np.exp(scores[None, :] - scores[:, None])) - 0.5
    return {"cyclic": 0.5 + cyclic, "transitive": 0.5 + transitive, "mixed": 0.5 + (cyclic + transitive) / 2}


def phases(matrix: np.ndarray, alphas: np.ndarray, strengths: np.ndarray, share: float, rounds: int) -> dict[str, Any]:
    """One panel: arrays (alphas, strengths) of what is simulated and what is known without."""

    def cell(alpha, strength):
        plan = LoopPlan(alpha, strength, share)
        end = fixed_point(matrix, plan)
        found = iterate(matrix, plan, start, steps=rounds)
        used = in_dtype(plan, ANSWERS, jnp.float64)
        proofs = certificates(jnp.asarray(matrix), used)
        turning = strength * share * loop_gain(jnp.asarray(matrix), end.log_policy)
        away = jnp.max(jnp.abs(jnp.exp(found.log_policy) - jnp.exp(end.log_policy)))
        return {
            "regime": found.regime,
            "entropy": found.entropy,
            "time_variance": found.time_variance,
            "period": found.period,
            "away": away,
            "rho": jnp.sqrt(jnp.square(alpha) + jnp.square(turning)),
            "c1": proofs.c1,
            "c1r": proofs.c1r,
            "c2": proofs.c2,
            "evidence": evidence(proofs),
        }

    with float64():
        start = jnp.asarray([0.3, 0.0, 0.0, 0.0])
        along = jax.vmap(jax.vmap(cell, (None, 0)), (0, None))
        return jax.tree.map(np.asarray, jax.jit(along)(jnp.asarray(alphas), jnp.asarray(strengths)))


def told(panel: dict[str, Any]) -> dict[str, Any]:
    """A panel as JSON holds it: a string for every row of the grid; counts of what agrees and what does not."""
    certified, arrived = panel["evidence"] > 0, panel["away"] <= NEAR
    local = panel["rho"] < 1
    fields = ("entropy", "time_variance", "rho", "c1", "c1r", "c2")
    return {
        "regime": ["".join(map(str, row)) for row in panel["regime"]],
        **{name: [" ".join(f"{value:.3g}" for value in row) for row in panel[name]] for name in fields},
        "cells": int(local.size),
        "certified": int(certified.sum()),
        "certified_by": {name: int((panel[name] < 1).sum()) for name in ("c1", "c1r", "c2")},
        "false_certificates": int((certified & ~arrived & (panel["regime"] != Regime.SETTLING)).sum()),
        "rho_below_1": int(local.sum()),
        "rho_below_1_elsewhere": int((local & np.isin(panel["regime"], [Regime.CIRCLING, Regime.SPIRALLING])).sum()),
        "rho_above_1_at_rest": int((~local & (panel["regime"] == Regime.RESTING)).sum()),
        "periods": [float(f"{value:.4g}") for value in panel["period"][panel["regime"] == Regime.CIRCLING]][:5],
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.phase_diagrams", description=__doc__)
    parser.add_argument("--alphas", type=int, default=32, help="rows of the grid")
    parser.add_argument("--strengths", type=int, default=40, help="columns of the grid")
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--json", metavar="FILE", help="write the results here")
    parser.add_argument("--plot", metavar="FILE", help="draw them here")
    given = parser.parse_args(arguments)
    alphas = np.linspace(0, 1, given.alphas, endpoint=False)
    strengths = np.geomspace(*STRENGTHS, given.strengths)
    results: dict[str, Any] = {"machine": machine(), "settings": settings(given), "alphas": alphas.tolist()}
    results |= {"strengths": strengths.tolist(), "shares": list(SHARES), "panels": {}}
    for name, matrix in preferences().items():
        results["panels"][name] = {}
        for share in SHARES:
            began = time.perf_counter()
            panel = told(phases(matrix, alphas, strengths, share, given.rounds))
            results["panels"][name][f"{share:g}"] = panel | {"seconds": time.perf_counter() - began}
            write_json(results, given.json)
            print(
                name, share, {key: panel[key] for key in ("certified", "false_certificates", "rho_below_1")}, flush=True
            )
    if given.plot:
        plot_phases(results, given.plot)
    return results


if __name__ == "__main__":
    main()
