"""A small transformer, end to end: which pairs are labelled decides how good the policy becomes.

    python -m bench.experiments.transformer --tune --lines tuning.jsonl --json settled.json
    python -m bench.experiments.transformer --settled settled.json --lines lines.jsonl --json FILE

For every seed: a new corpus, hidden reward and transformer (`transformer_world`); K completions of each prompt of a
pool, repeated texts dropped for every arm but `random`; features are principal components of projected gradients by the
parameters that will be trained. For every arm: n labels, drawn by Bradley-Terry (a pair chosen by two arms gets the
same one), training, and J = E r - beta KL(pi || pi_sft) of the policy from fresh samples, with common keys, on prompts
of which no pair was labelled. Arms differ in how they choose and in how they train:

    plain      DPO on the labels
    posterior  the posterior mode in the features, then DPO on its soft labels of pairs of all the pool

`ceiling` trains as `posterior` does, on the true probabilities. Learning rate and epochs of DPO are tuned for random
pairs at every number of labels, and so are the components, ridge, steps and rate of the posterior, on seeds from 1,000
on (`--tune`), which are not reported. The prior of a design is the ridge that policies trained on random pairs imply
there (`implied_prior`). Lines are appended seed by seed, so that a run goes on where it was. In the
published run two_rounds_posterior and two_rounds_proxy were decided on when 13 seeds of the others had been seen.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxdesign as jd
from bench.experiments import arms, paired
from bench.experiments.files import append_lines, read_json, read_lines, write_json
from bench.experiments.gain_plots import plot_differences
from bench.experiments.programs import let_go_of_many
from bench.experiments.transformer_head import HeadOnStates, log_probabilities, train_head
from bench.experiments.transformer_world import SHORT, Setting, World, make_world, value_of
from bench.measure import machine
from jaxdesign import preference as pref
from jaxdesign.preference.labels.labels import FIRST


class Way(NamedTuple):
    """How an arm chooses, and how it trains.

    rule: of `arms.choose`, or "rounds", a pilot and then the rest. residual: of the pool, in choosing.
    posterior: trained on soft labels of the fit.
    choose_by, fit_with: correlation of the proxy whose scores the rule sees, or that the belief has.
    """

    rule: str
    distinct: bool = True
    residual: float | str | None = None
    posterior: bool = False
    choose_by: float | None = None
    fit_with: float | None = None


WAYS = {
    "random": Way("random", distinct=False),
    "random_distinct": Way("random"),
    "first_two": Way("first_two"),
    "best_worst_proxy_5": Way("largest_score_gap", choose_by=0.5),
    "best_worst_proxy_8": Way("largest_score_gap", choose_by=0.8),
    "trace": Way("trace"),
    "trace_capped": Way("trace", residual="cap"),
    "two_rounds_unit": Way("rounds", residual=arms.UNIT),
    "random_posterior": Way("random", posterior=True),
    "trace_posterior": Way("trace", posterior=True),
    "random_proxy": Way("random", posterior=True, fit_with=0.8),
    "trace_proxy": Way("trace", posterior=True, fit_with=0.8),
    "two_rounds_posterior": Way("rounds", residual=arms.UNIT, posterior=True),
    "two_rounds_proxy": Way("rounds", residual=arms.UNIT, posterior=True, fit_with=0.8),
    "ceiling": Way("ceiling", posterior=True),
}


class Settled(NamedTuple):
    """What is tuned at a number of labels: DPO, the prior of designs, the fit behind soft labels and its training."""

    rate: float
    epochs: int
    ridge: float
    fit_ridge: float
    posterior_rate: float
    posterior_steps: int


RATES, EPOCHS = (5e-4, 1e-3, 2e-3), (8, 16, 32)
RIDGES, POSTERIOR_RATES, POSTERIOR_STEPS = (0.3, 1.0, 3.0), (1e-3, 3e-3), (200, 400)
TUNING_SEED = 1_000


@cache  # the same object, so that a step is compiled once
def optimiser_of(rate: float) -> optax.GradientTransformation:
    """Adam with clipped gradients."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


@cache
def posterior_optimiser(rate: float, steps: int) -> optax.GradientTransformation:
    """What `train_on_posterior` takes by default, at another rate."""
    return pref.fine_tuning_optimiser(rate, steps)


def problem_of(way: Way, world: World, setting: Setting, ridge: float) -> arms.Problem:
    """What an arm's choice knows."""
    features, mask = np.asarray(world.pool.features), np.asarray(world.pool.mask)
    deployment = jd.CompletionPool(features)  # a sample of the policy, repeats included
    pool = jd.CompletionPool(features, mask=mask if way.distinct else None)
    if way.residual is not None:
        pool = jd.CompletionPool(features, mask=mask, residual=jd.residual_of(pool, way.residual))
    belief = believed(way, world, ridge)
    scores = None if way.choose_by is None else world.proxies[way.choose_by]
    return arms.Problem(pool, deployment, belief, setting.beta, scores)


def believed(way: Way, world: World, ridge: float) -> Any:
    """The prior of an arm's design and fit."""
    if way.fit_with is None:
        return ridge
    return pref.proxy_belief(world.pool, world.proxies[way.fit_with], ridge).belief


def collected(way: Way, world: World, number: int, setting: Setting, ridge: float, seed: int) -> pref.Labels:
    """`number` labels of pairs chosen by one arm, once each."""
    key = jax.random.key(20_000 + seed)
    problem, budget = problem_of(way, world, setting, ridge), jd.Budget(number, per_pair=1)
    ask = lambda pairs: pref.simulate_labels(key, world.rewards, pairs).choices  # noqa: E731
    if way.rule == "rounds":
        pilot = arms.choose("trace", problem, jd.Budget(round(arms.PILOT * number), per_pair=1), seed)
        return arms.two_rounds(problem, pilot, ask, budget, seed)
    return pref.simulate_labels(key, world.rewards, arms.choose(way.rule, problem, budget, seed))


def trained(world: World, labels: pref.Labels, setting: Setting, settled: Settled, seed: int) -> HeadOnStates:
    """DPO on the labels."""
    chosen, rejected = rows_of(world, np.asarray(labels.pairs)).T
    won = np.asarray(labels.choices) == FIRST
    pairs = np.stack([np.where(won, chosen, rejected), np.where(won, rejected, chosen)], axis=1)
    steps = max(1, round(settled.epochs * len(pairs) / setting.batch_size))
    optimiser = optimiser_of(settled.rate)
    return train_head(world.head, pairs, np.ones(len(pairs)), setting.beta, optimiser, steps, setting.batch_size, seed)


def trained_on(world: World, belief: Any, pool: jd.CompletionPool, setting: Setting, settled: Settled, seed: int):
    """DPO on the soft labels of a belief, as `train_on_posterior` does it."""
    steps, size = settled.posterior_steps, setting.batch_size
    pairs, probabilities = pref.soft_labels(pool, belief, number=steps * size, seed=seed)
    optimiser = posterior_optimiser(settled.posterior_rate, steps)
    return train_head(world.head, rows_of(world, pairs), probabilities, setting.beta, optimiser, steps, size, seed)


def rows_of(world: World, pairs: np.ndarray) -> np.ndarray:
    """(n, 2) completions of pairs (n, 3), counted over all prompts."""
    return (pairs[:, :1] * world.completions.shape[1] + pairs[:, 1:]).astype(np.int32)


def truth_of(world: World) -> tuple[jd.CompletionPool, jd.Belief]:
    """The rewards themselves as a feature and its weight, so that soft labels are the true probabilities."""
    pool = jd.CompletionPool(world.rewards[..., None].astype(np.float32), mask=np.asarray(world.pool.mask))
    return pool, jd.Belief(np.ones(1), np.eye(1))


def policy_of(way: Way, world: World, number: int, setting: Setting, settled: Settled, seed: int):
    """The policy of an arm after `number` labels, and the labels; the ceiling has none."""
    if way.rule == "ceiling":
        pool, belief = truth_of(world)
        return trained_on(world, belief, pool, setting, settled, seed), None
    labels = collected(way, world, number, setting, settled.ridge, seed)
    if not way.posterior:
        return trained(world, labels, setting, settled, seed), labels
    found = pref.fit_posterior(world.pool, labels, believed(way, world, settled.fit_ridge))
    return trained_on(world, found, world.pool, setting, settled, seed), labels


def one_seed(
    seed: int, setting: Setting, settled: dict[int, Settled], wanted: dict[int, list[str]]
) -> list[dict[str, Any]]:
    """A line for every arm that is wanted at a number of labels, in the world of one seed."""
    world = make_world(seed, setting)
    before = value_of(world.head, world, setting, seed).value
    lines = []
    for number, names in wanted.items():
        let_go_of_many()
        own = settled[number]
        for name in names:
            start = time.perf_counter()
            policy, labels = policy_of(WAYS[name], world, number, setting, own, seed)
            after = value_of(policy, world, setting, seed)
            line = {"seed": seed, "labels": number, "arm": name, "gain": after.value - before, "kl": after.kl}
            if labels is not None:
                p, i, j = np.asarray(labels.pairs).T
                line["reward_gap"] = float(np.abs(world.rewards[p, i] - world.rewards[p, j]).mean())
            lines.append(line | {"seconds": time.perf_counter() - start})
    lines[0]["facts"] = world.facts
    return lines


def alike(arm: str) -> str:
    """The arm of random pairs of different texts that trains as an arm does."""
    way = WAYS[arm]
    if not way.posterior or way.rule == "ceiling":
        return "random_distinct"
    return "random_posterior" if way.fit_with is None else "random_proxy"


def summary(lines: Sequence[dict], against: str = "random_distinct") -> list[dict[str, Any]]:
    """For each number of labels and arm: mean gain in J, and the paired difference to `against`, 95% limits by t.

    to_alike is the same difference to random pairs that are trained alike: what choosing adds to a training.
    """
    gains: dict[tuple, dict[int, float]] = {}
    for line in lines:
        gains.setdefault((line["labels"], line["arm"]), {})[line["seed"]] = line["gain"]
    rows = []
    for (number, arm), by_seed in gains.items():
        values = list(by_seed.values())
        row = {"labels": number, "arm": arm, "gain": float(np.mean(values)), "seeds": len(values)}
        row["standard_error"] = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
        other = gains.get((number, against))
        if arm != against and other is not None and len(values) > 1:
            difference = np.array([by_seed[seed] - other[seed] for seed in by_seed])
            row["difference"], *row["interval"] = paired.mean_interval(difference)
            row["better_in"] = int((difference > 0).sum())
        other = gains.get((number, alike(arm)))
        if alike(arm) not in (arm, against) and other is not None and len(values) > 1:
            row["to_alike"] = list(paired.mean_interval(np.array([by_seed[seed] - other[seed] for seed in by_seed])))
        rows.append(row)
    return rows


def panels_of(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """For `plot_differences`, in one panel: arms that train alike have lines of their own."""
    rows = [row for row in results["summary"] if "interval" in row]
    shown = [{"arm": r["arm"], "labels": r["labels"], "difference": (r["difference"], *r["interval"])} for r in rows]
    return {"a small transformer, end to end": shown}


# ---- tuning, for random pairs of different texts alone


def tune(setting: Setting, counts: Sequence[int], seeds: Sequence[int], path: Path) -> dict[int, Settled]:
    """The best rate and epochs; the ridge their policies imply; then the best of the posterior, at every count."""
    done = {line["seed"] for line in read_lines(path)}
    for seed in seeds:
        if seed not in done:
            append_lines(path, _tried(seed, setting, counts))
            print(f"tuning seed {seed}", flush=True)
    return {number: _best([line for line in read_lines(path) if line["labels"] == number]) for number in counts}


def _tried(seed: int, setting: Setting, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Gains of random pairs for everything that is tried, and the ridges that trained policies imply."""
    world, random = make_world(seed, setting), WAYS["random_distinct"]
    before = value_of(world.head, world, setting, seed).value
    gain = lambda policy: value_of(policy, world, setting, seed).value - before  # noqa: E731
    lines = []
    for number in counts:
        labels = collected(random, world, number, setting, 1.0, seed)
        head, implied = {"seed": seed, "labels": number}, []
        for rate, epochs in product(RATES, EPOCHS):
            policy = trained(world, labels, setting, Settled(rate, epochs, 1.0, 1.0, rate, 1), seed)
            found = pref.implied_prior(_implicit(policy, world, setting), world.pool, labels)
            implied.append((gain(policy), found.ridge))
            lines.append(head | {"rate": rate, "epochs": epochs, "gain": implied[-1][0], "ridge": found.ridge})
        ridge = max(implied)[1]
        for share, rate, steps in product(RIDGES, POSTERIOR_RATES, POSTERIOR_STEPS):
            own = Settled(rate, 1, ridge, share * ridge, rate, steps)
            posterior = pref.fit_posterior(world.pool, labels, own.fit_ridge)
            policy = trained_on(world, posterior, world.pool, setting, own, seed)
            lines.append(head | {"share": share, "posterior_rate": rate, "steps": steps, "gain": gain(policy)})
    return lines


def _implicit(policy: HeadOnStates, world: World, setting: Setting) -> np.ndarray:
    """beta log(pi / pi_ref) of every completion of the pool, (P, K)."""
    own, reference = (np.asarray(log_probabilities(held), np.float64) for held in (policy, world.head))
    return setting.beta * (own - reference).reshape(world.completions.shape[:2])


def _best(lines: Sequence[dict[str, Any]]) -> Settled:
    """The settings with the largest mean gain over seeds, and the geometric mean of the ridges implied at the best."""
    plain = _largest(lines, ("rate", "epochs"))
    share, posterior_rate, steps = _largest(lines, ("share", "posterior_rate", "steps"))
    ridges = [line["ridge"] for line in lines if (line.get("rate"), line.get("epochs")) == plain]
    ridge = float(np.exp(np.mean(np.log(ridges))))
    return Settled(*plain, ridge, share * ridge, posterior_rate, steps)


def _largest(lines: Sequence[dict[str, Any]], names: Sequence[str]) -> tuple:
    gains: dict[tuple, list[float]] = {}
    for line in lines:
        if names[0] in line:
            gains.setdefault(tuple(line[name] for name in names), []).append(line["gain"])
    return max(gains, key=lambda place: float(np.mean(gains[place])))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.transformer", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=[200, 224], help="first, and the one after the last")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--arms", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--short", action="store_true", help="a small setting that only shows that everything runs")
    parser.add_argument("--tune", type=int, metavar="SEEDS", help="tune on so many seeds from 1,000 on instead")
    parser.add_argument("--settled", metavar="FILE", help="what --tune wrote")
    parser.add_argument("--lines", required=True, metavar="FILE", help="JSON lines, appended seed by seed")
    parser.add_argument("--json", metavar="FILE", help="write the results here")
    parser.add_argument("--plot", metavar="FILE", help="draw the gains here")
    chosen = parser.parse_args(arguments)
    setting = SHORT if chosen.short else Setting()
    results: dict[str, Any] = {"machine": machine(), "setting": asdict(setting), "arms": chosen.arms}
    if chosen.tune:
        found = tune(setting, chosen.labels, range(TUNING_SEED, TUNING_SEED + chosen.tune), Path(chosen.lines))
        results["settled"] = {str(number): own._asdict() for number, own in found.items()}
        results["tried"] = read_lines(Path(chosen.lines))
        write_json(results, chosen.json)
        return results
    if not chosen.settled:
        parser.error("--settled: the file that --tune wrote is needed")
    results["settled"] = read_json(chosen.settled)["settled"]
    settled = {number: Settled(**results["settled"][str(number)]) for number in chosen.labels}
    path = Path(chosen.lines)
    done = {(line["seed"], line["labels"], line["arm"]) for line in read_lines(path)}
    for seed in range(*chosen.seeds):
        wanted = {n: [arm for arm in chosen.arms if (seed, n, arm) not in done] for n in settled}
        if any(wanted.values()):
            append_lines(path, one_seed(seed, setting, settled, wanted))
        lines = read_lines(path)
        results["summary"] = summary(lines)
        results["facts"] = list({line["seed"]: line["facts"] for line in lines if "facts" in line}.values())
        write_json(results, chosen.json)
        print(f"seed {seed}", flush=True)
    for row in results["summary"]:
        print(json.dumps(row))
    if chosen.plot:
        plot_differences(panels_of(results), chosen.plot)
    return results


if __name__ == "__main__":
    main()
