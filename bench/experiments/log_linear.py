"""Policies that are solved exactly: predicted against simulated gap for every design, and labels saved against random.

`python -m bench.experiments.log_linear --json FILE --plot FILE`.

Problems: one softmax over d completions (tabular), and log-linear policies of many prompts whose features have a
Student-t scale for each completion, the truth near the reference policy (log_linear) or far from it (log_linear_far),
where the plug-in, which takes the label information of every pair for 1/4, can lose to random. A design fixes the
shares of its pairs, which are scaled to every number of labels n; the trained policy is unregularised maximum
likelihood.

Designs: trace knows the reference policy only; trace_averaged also how large rewards are, and averages over
draws of such rewards; trace_floor is the plug-in around a quarter of random labels; trace_two_rounds spends a fifth of
n on the plug-in, fits, and designs the rest at the posterior; trace_oracle knows the truth; the rest: log det and the
selectors of `jaxdesign.baselines`, without repeats, of which those that need scores (closest_call, largest_score_gap)
are given the true ones. random draws n pairs anew for every n, all different as far as the pool allows. Labels saved:
how many random needs for the same gap, over how many the design does.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxdesign as jd
from bench.experiments import paired
from bench.experiments import simulated_gap as sim
from bench.experiments.files import write_json
from bench.experiments.plots import plot_predictions
from bench.measure import machine
from jaxdesign._arrays import float64
from jaxdesign.preference import fit_bradley_terry, tabular_pool

NEED_SCORES = ("closest_call", "largest_score_gap")
SEEDED = ("first_two", "square_root", "t_pilaf")
FLOOR = 0.25  # share of the labels that trace_floor draws at random
PILOT = 0.2  # share of the labels spent before the second round
DRAWS = 8  # of the posterior, for the second round
RIDGE = 0.1  # precision of the prior of the pilot's fit; the final fit has none

Shape = tuple[np.ndarray, np.ndarray]  # pairs (S, 3), shares (S,)


def log_linear(prompts=200, completions=8, dim=16, beta=0.5, spread=1.5, seed=0) -> sim.Truth:
    """phi_pk = |t_pk| x_pk, t Student t(3), x normal, columns standardised; u has standard deviation `spread`."""
    rng = np.random.default_rng(seed)
    tails = np.abs(rng.standard_t(3, (prompts, completions, 1)))
    features = tails * rng.standard_normal((prompts, completions, dim))
    features /= features.std(axis=(0, 1))
    parameter = rng.standard_normal(dim)
    parameter *= spread / np.linalg.norm(parameter)
    with float64():
        return sim.Truth(jd.CompletionPool(features), rng.standard_normal((prompts, completions)), parameter, beta)


def tabular(completions=16, beta=0.5, spread=1.0, seed=0) -> sim.Truth:
    """One softmax over `completions`, pi_ref prop. to 1/rank, free rewards of standard deviation `spread`."""
    rng = np.random.default_rng(seed)
    with float64():
        pool, basis = jd.restrict_to_range(tabular_pool(1, completions))
        features = np.asarray(basis, np.float64)[None]  # of the basis vectors themselves, in float64
        reward = spread * rng.standard_normal(completions)
        pool = jd.CompletionPool(features)
    return sim.Truth(pool, -np.log(np.arange(1.0, completions + 1))[None], basis.T @ reward, beta)


def shapes(truth: sim.Truth, base: int, seeds: int) -> dict[str, list[Shape]]:
    """Shares of the pairs of every design of one round, one for each seed where chance is part of it."""
    budget = jd.Budget(base)
    H = truth.target(np.zeros_like(truth.parameter))
    with float64():
        informed = jd.CompletionPool(truth.pool.features, truth.scores())
        designs = {
            "trace": [jd.optimize(truth.pool, jd.Trace(H), budget)],
            "trace_oracle": [jd.optimize(informed, jd.Trace(truth.target()), budget)],
            "logdet": [jd.optimize(truth.pool, jd.LogDet(), budget)],
        }
        drawn = np.random.default_rng(0).standard_normal((DRAWS, truth.pool.dim))
        drawn *= np.linalg.norm(truth.parameter) / np.sqrt(truth.pool.dim)
        likely = jd.CompletionPool(truth.pool.features, truth.scores(drawn))
        averaged = jd.Trace(np.stack([truth.target(w) for w in drawn]))
        designs["trace_averaged"] = [jd.optimize(likely, averaged, budget)]
        floors = [jd.with_uniform_floor(truth.pool, budget, FLOOR, seed=seed) for seed in range(seeds)]
        designs["trace_floor"] = [jd.optimize(truth.pool, jd.Trace(H), floor) for floor in floors]
        once = jd.Budget(base, per_pair=1)
        for name in [name for name in jd.baselines.SELECTORS if name != "random"]:
            pool = informed if name in NEED_SCORES else truth.pool
            extra = {"log_weights": truth.log_reference} if name in ("square_root", "t_pilaf") else {}
            runs = seeds if name in SEEDED else 1
            select = jd.baselines.SELECTORS[name]
            designs[name] = [select(pool, jd.Trace(H), once, seed=seed, **extra) for seed in range(runs)]
    return {name: [(d.pairs, d.labels / d.labels.sum()) for d in made] for name, made in designs.items()}


def scaled(shape: Shape, labels: int) -> sim.Collected:
    """Whole labels in these shares, rounded by largest remainders."""
    pairs, shares = shape
    real = shares * labels
    whole = np.floor(real + 1e-9)
    short = labels - int(whole.sum())
    whole[np.argsort(whole - real, kind="stable")[:short]] += 1
    return sim.collect(pairs, whole)


def random_labels(truth: sim.Truth, labels: int, seed: int) -> sim.Collected:
    """`labels` random pairs, none of them more than once oftener than another."""
    completions = np.asarray(truth.pool.mask).sum(axis=1)
    pairs = int((completions * (completions - 1) // 2).sum())
    budget = jd.Budget(labels, per_pair=-(-labels // pairs))
    with float64():
        design = jd.baselines.random(truth.pool, jd.LogDet(), budget, seed=1000 * labels + seed)
    return sim.collect(design.pairs, design.labels)


def two_rounds(truth: sim.Truth, pilot_shape: Shape, labels: int, seed: int) -> sim.Collected:
    """A pilot whose labels stay, and the design of the rest: Trace averaged over draws of the pilot's posterior."""
    rng = np.random.default_rng([seed, labels])
    pilot = scaled(pilot_shape, round(PILOT * labels))
    wins = rng.binomial(pilot.counts.astype(int), sim.win_probabilities(truth, pilot.pairs)).astype(float)
    with float64():
        rows = np.asarray(jd.pair_differences(truth.pool, pilot.pairs))
        fit = fit_bradley_terry(rows, wins, pilot.counts, prior=RIDGE)
        root = np.linalg.cholesky(np.linalg.inv(np.asarray(fit.information)))
        draws = np.asarray(fit.parameter) + rng.standard_normal((DRAWS, len(root))) @ root.T
        pool = jd.CompletionPool(truth.pool.features, truth.scores(draws))
        held = jd.held_information(pool, pilot.pairs, pilot.counts)
        targets = np.stack([truth.target(w) for w in draws])
        left = labels - int(pilot.counts.sum())
        rest = jd.optimize(pool, jd.Trace(targets), jd.Budget(left), prior=held)
    second = scaled((rest.pairs, rest.labels / rest.labels.sum()), left)
    return sim.Collected(*map(np.concatenate, zip(pilot._replace(wins=wins), second, strict=True)))


def measured(truth: sim.Truth, made: list[sim.Collected], repeats: int) -> dict[str, Any] | None:
    """Mean predicted and simulated gap over the allocations of one design; None where one of them is singular.

    The standard error is that of simulated - predicted: between allocations where part of the labels is kept
    (two rounds: a pilot's luck is common to its repeats), within allocations otherwise.
    """
    predicted = np.array([sim.predicted_gap(truth, labels) for labels in made])
    if not np.isfinite(predicted).all():
        return None
    gaps = np.stack([sim.simulated_gaps(truth, labels, repeats, seed) for seed, labels in enumerate(made)])
    fitted = np.isfinite(gaps).sum(axis=1)
    row = {"predicted": predicted.mean(), "fitted": float(fitted.sum() / gaps.size)}
    if (fitted < 2).any():
        return row | {"simulated": None, "standard_error": None, "ratio": None}
    simulated = np.nanmean(gaps, axis=1)
    kept = any(np.isfinite(labels.wins).any() for labels in made)
    within = np.sqrt((np.nanvar(gaps, axis=1, ddof=1) / fitted).sum()) / len(made)
    error = np.std(simulated - predicted, ddof=1) / np.sqrt(len(made)) if kept else within
    return row | {
        "simulated": simulated.mean(),
        "standard_error": error,
        "ratio": predicted.mean() / simulated.mean(),
        "agrees": bool(
            abs(predicted.mean() - simulated.mean()) <= max(0.1 * simulated.mean(), 3 * error)
            and fitted.sum() == gaps.size
        ),
    }


def labels_saved(rows: dict[str, Any], key: str) -> dict[str, dict[int, float]]:
    """`paired.labels_saved` of every design against random, from the counts where every repeat had a maximum."""
    curves = {
        name: {int(n): row[key] for n, row in found.items() if row and row["simulated"] and row["fitted"] == 1}
        for name, found in rows.items()
    }
    random = curves.pop("random")
    return {name: paired.labels_saved(own, random) for name, own in curves.items() if own and random}


def experiment(truth: sim.Truth, base: int, sizes: list[int], repeats: int, seeds: int, tell: Callable = print) -> dict:
    """Every design at every n: {"rows": {design: {n: row}}, "labels_saved_simulated": {design: {n: ...}}, ...}."""
    rows: dict[str, dict[int, Any]] = {}
    made = shapes(truth, base, seeds)
    for name in ["random", "trace_two_rounds", *made]:
        rows[name] = {}
        for size in sizes:
            if name == "trace_two_rounds":
                allocations = [two_rounds(truth, made["trace"][0], size, seed) for seed in range(2 * seeds)]
            elif name == "random":
                allocations = [random_labels(truth, size, seed) for seed in range(2 * seeds)]
            else:
                allocations = [scaled(shape, size) for shape in made[name]]
            rows[name][size] = measured(truth, allocations, repeats)
        last = rows[name][sizes[-1]]
        tell(
            f"{name:20s}", "singular" if last is None else {k: v for k, v in last.items() if v is not None}, flush=True
        )
    skipped = [name for name in rows if rows[name][sizes[-1]] is None]
    return {
        "base_labels": base,
        "repeats": repeats,
        "rows": rows,
        "skipped_singular": skipped,
        "disagree_at_largest_n": [n for n in rows if n not in skipped and not rows[n][sizes[-1]].get("agrees")],
        "labels_saved_simulated": labels_saved(rows, "simulated"),
        "labels_saved_predicted": labels_saved(rows, "predicted"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.log_linear", description=__doc__)
    parser.add_argument("problems", nargs="*", help="tabular, log_linear, log_linear_far; default all")
    parser.add_argument("--json", metavar="FILE", help="write the results here as well")
    parser.add_argument("--plot", metavar="FILE", help="draw predicted against simulated gaps and labels saved here")
    parser.add_argument("--quick", action="store_true", help="smaller problems, fewer label counts and repeats")
    parser.add_argument("--seed", type=int, default=0, help="of the problems' features and parameters")
    given = parser.parse_args()
    repeats, seeds = (100, 2) if given.quick else (200, 4)
    sizes = [1000, 4000, 16000] if given.quick else [500, 1000, 4000, 8000, 16000]
    small = {"prompts": 60, "completions": 6, "dim": 8} if given.quick else {}
    problems = {
        "tabular": (tabular(seed=given.seed), 40),
        "log_linear": (log_linear(seed=given.seed, spread=0.6, **small), 250 if given.quick else 500),
        "log_linear_far": (log_linear(seed=given.seed, spread=1.5, **small), 250 if given.quick else 500),
    }
    results: dict[str, Any] = {"machine": machine(), "seed": given.seed, "problems": {}}
    for name in given.problems or problems:
        if name not in problems:
            parser.error(f"unknown problem {name}; choose of {', '.join(problems)}")
        print(name, flush=True)
        began = time.perf_counter()
        found = experiment(*problems[name], sizes, repeats, seeds)
        results["problems"][name] = found | {"seconds": time.perf_counter() - began}
        print(json.dumps({k: v for k, v in found.items() if k != "rows"}, indent=1), flush=True)
        write_json(results, given.json)
    if given.plot:
        plot_predictions(results["problems"], given.plot)


if __name__ == "__main__":
    main()
