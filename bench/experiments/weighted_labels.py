"""A design that moves the optimum, weights that undo it, and what they cost.

`python -m bench.experiments.weighted_labels --json FILE --plot FILE`.

Log-linear policies as in `log_linear`, all exactly solved. Labels follow Bradley and Terry's model of a reward

    r = bound tanh(phi . w / bound),

which is nearly linear in the features where the bound is far. A trace design asks for long pairs, whose differences
saturate most: infinitely many labels of the design teach another policy than infinitely many of two random completions
of a prompt, the reference policy's own pairs. The labels of the design are drawn one by one from q, three quarters the
design and one quarter random pairs: no pair is out of reach of the weights (m / q)^t.

Rules: random pairs; the design's labels as they are, t = 0; with full weights, t = 1; with the t of `best_temper`, from
the same labels; and, what no project can do, with the t that is best on average over seeds. The excess gap is J(best w)
- J(trained w), the part of the policy gap that labels decide. The floor, J(best of all policies) - J(best w), is what
the form of the policy costs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

import jaxdesign as jd
from bench.experiments.files import write_json
from bench.experiments.plots import NORMAL, plot_excess
from bench.measure import machine
from jaxdesign._arrays import float64
from jaxdesign.dynamics import best_temper, sampler_shift
from jaxdesign.preference import fit_bradley_terry
from jaxdesign.preference.labels.labels import FIRST, SECOND, Labels

FLOOR = 0.25  # share of random pairs in the design's law
TEMPERS = np.linspace(0, 1, 6)
BOUNDS = {"bent": 8.0, "saturated": 2.0}
LEVEL = 0.05  # of the test for a shift


class World(NamedTuple):
    """A pool, its reward r (P, K), all pairs (N, 3) with their differences (N, d) and chances (N,); beta."""

    pool: jd.CompletionPool
    reward: np.ndarray
    pairs: np.ndarray
    rows: np.ndarray
    chances: np.ndarray
    beta: float

    def gap(self, parameter: np.ndarray) -> float:
        """J(best of all policies) - J(pi_w) = beta KL(pi_w || best), mean over prompts."""
        trained = special.log_softmax(np.asarray(self.pool.features) @ parameter / self.beta, axis=1)
        best = special.log_softmax(self.reward / self.beta, axis=1)
        return float(self.beta * np.mean(np.sum(np.exp(trained) * (trained - best), axis=1)))

    def limit(self, law: np.ndarray) -> np.ndarray:
        """w that infinitely many labels of a law over all pairs teach."""
        with float64():
            masses = law / law.max()
            return np.asarray(fit_bradley_terry(self.rows, masses * self.chances, masses, tol=1e-10).parameter)

    def drawn(self, law: np.ndarray, labels: int, rng: np.random.Generator) -> Labels:
        """Labels of pairs drawn from a law, one by one."""
        where = rng.choice(len(law), labels, p=law)
        choices = np.where(rng.random(labels) < self.chances[where], FIRST, SECOND)
        return Labels(self.pairs[where], choices.astype(np.int8), np.zeros(labels, np.int32))

    def masses(self, law: np.ndarray) -> np.ndarray:
        """A law over all pairs as (P, K, K)."""
        p, i, j = self.pairs.T
        found = np.zeros((*self.reward.shape, self.reward.shape[1]))
        found[p, i, j] = found[p, j, i] = law
        return found


def world(bound: float, prompts=200, completions=8, dim=8, beta=0.5, spread=0.6, seed=0) -> World:
    """phi_pk = |t_pk| x_pk, t Student t(3), x normal, columns standardised; |w| = spread."""
    rng = np.random.default_rng(seed)
    features = np.abs(rng.standard_t(3, (prompts, completions, 1))) * rng.standard_normal((prompts, completions, dim))
    features /= features.std(axis=(0, 1))
    parameter = rng.standard_normal(dim)
    reward = features @ (parameter * spread / np.linalg.norm(parameter))
    reward = bound * np.tanh(reward / bound)
    i, j = np.triu_indices(completions, 1)
    pairs = np.column_stack([np.repeat(np.arange(prompts), len(i)), np.tile(i, prompts), np.tile(j, prompts)])
    p, i, j = pairs.T
    with float64():
        pool = jd.CompletionPool(features)
    chances = special.expit(reward[p, i] - reward[p, j])
    return World(pool, reward, pairs.astype(np.int32), features[p, i] - features[p, j], chances, beta)


def laws(of: World) -> tuple[np.ndarray, np.ndarray]:
    """Of the reference policy's pairs, all alike; and of the trace design with its share of random pairs."""
    target = np.full(len(of.pairs), 1 / len(of.pairs))
    with float64():
        design = jd.optimize(of.pool, jd.Trace(jd.policy_target(of.pool)), jd.Budget(len(of.pairs)))
    place = {tuple(pair): row for row, pair in enumerate(of.pairs.tolist())}
    shape = np.zeros(len(of.pairs))
    shape[[place[tuple(pair)] for pair in np.asarray(design.pairs).tolist()]] = design.labels / design.labels.sum()
    return target, (1 - FLOOR) * shape + FLOOR * target


def trained(of: World, target: np.ndarray, law: np.ndarray, labels: int, seed: int) -> dict[str, Any]:
    """Gaps of one seed: of random pairs, and of the design at every temper; which was chosen; is the shift seen?"""
    rng = np.random.default_rng([seed, labels])
    everywhere = np.zeros(of.reward.shape)
    random = sampler_shift(of.pool, of.drawn(target, labels, rng), everywhere, beta=of.beta, temper=0.0)
    designed = of.drawn(law, labels, rng)
    given = {"beta": of.beta, "drawn_law": of.masses(law)}
    shifts = [sampler_shift(of.pool, designed, everywhere, temper=t, **given) for t in TEMPERS]
    chosen = best_temper(of.pool, designed, everywhere, tempers=TEMPERS, **given).temper
    return {
        "random": of.gap(random.plain),
        "tempers": [of.gap(shift.weighted) for shift in shifts],
        "chosen": int(np.argmin(np.abs(TEMPERS - chosen))),
        "seen": bool(shifts[-1].p_value < LEVEL),
    }


def ratio_with_limits(own: np.ndarray, other: np.ndarray) -> list[float]:
    """Ratio of two means over the same seeds, with 95% limits."""
    ratio = own.mean() / other.mean()
    half = NORMAL * np.std(own - ratio * other, ddof=1) / np.sqrt(len(own)) / other.mean()
    return [float(ratio), float(ratio - half), float(ratio + half)]


def experiment(of: World, sizes: list[int], seeds: int, tell: Callable = print) -> dict[str, Any]:
    """Every rule at every number of labels: limits of infinitely many, rows {rule: {n: excess gap}}, tests."""
    target, law = laws(of)
    ends = {"random": of.limit(target), "trace_drawn": of.limit(law)}
    floor = float(optimize.minimize(of.gap, ends["random"], method="BFGS").fun)
    rules = ("random", "trace_drawn", "trace_weighted", "trace_tempered", "trace_best_temper")
    rows: dict[str, dict[int, Any]] = {rule: {} for rule in rules}
    seen, tempers = {}, {}
    for size in sizes:
        runs = [trained(of, target, law, size, seed) for seed in range(seeds)]
        by_temper = np.array([run["tempers"] for run in runs]) - floor
        chosen = np.array([run["chosen"] for run in runs])
        best = int(np.argmin(by_temper.mean(0)))
        excess = {
            "random": np.array([run["random"] for run in runs]) - floor,
            "trace_drawn": by_temper[:, 0],
            "trace_weighted": by_temper[:, -1],
            "trace_tempered": by_temper[np.arange(seeds), chosen],
            "trace_best_temper": by_temper[:, best],
        }
        seen[size] = float(np.mean([run["seen"] for run in runs]))
        tempers[size] = {"chosen": float(TEMPERS[chosen].mean()), "best": float(TEMPERS[best])}
        for rule, values in excess.items():
            rows[rule][size] = {
                "excess": float(values.mean()),
                "standard_error": float(values.std(ddof=1) / np.sqrt(seeds)),
                "ratio": ratio_with_limits(values, excess["random"]),
            }
        tell(size, {rule: f"{values.mean():.2g}" for rule, values in excess.items()}, tempers[size], flush=True)
    return {
        "floor": floor,
        "limits": {rule: of.gap(w) - floor for rule, w in ends.items()},
        "effective": float(1 / np.sum(target**2 / law)),
        "shift_seen": seen,
        "tempers": tempers,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.weighted_labels", description=__doc__)
    parser.add_argument("problems", nargs="*", help=f"{', '.join(BOUNDS)}; default all")
    parser.add_argument("--json", metavar="FILE", help="write the results here as well")
    parser.add_argument("--plot", metavar="FILE", help="draw excess gaps over those of random pairs here")
    parser.add_argument("--quick", action="store_true", help="a smaller problem, fewer labels and seeds")
    parser.add_argument("--seed", type=int, default=0, help="of the problems' features and parameters")
    given = parser.parse_args()
    sizes, seeds = ([200, 800], 4) if given.quick else ([500, 2000, 8000, 32000], 60)
    small = {"prompts": 30, "completions": 5, "dim": 3} if given.quick else {}
    results: dict[str, Any] = {"machine": machine(), "seed": given.seed, "seeds": seeds, "problems": {}}
    for name in given.problems or BOUNDS:
        if name not in BOUNDS:
            parser.error(f"unknown problem {name}; choose of {', '.join(BOUNDS)}")
        print(name, flush=True)
        began = time.perf_counter()
        found = experiment(world(BOUNDS[name], seed=given.seed, **small), sizes, seeds)
        results["problems"][name] = found | {"seconds": time.perf_counter() - began}
        write_json(results, given.json)
    if given.plot:
        plot_excess(results["problems"], given.plot)


if __name__ == "__main__":
    main()
