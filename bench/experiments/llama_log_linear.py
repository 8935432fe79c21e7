"""Log-linear policies on the features of a real small language model: J on held-back prompts, arm by arm.

    python -m bench.experiments.llama_log_linear --tuning tuning.npz --pool reported.npz --lines lines.jsonl --json FILE

Hypotheses, from a pilot on other prompts and stated before these were seen: against random pairs of different texts,
trace and BAIT gain J on word length with raw rows, and on sentiment and first person with clipped rows. Bounded word
length was added afterwards, when nine completions of one endless word were found to outweigh all others.

Pools are made by `bench.experiments.llama_pool`. Every split holds 23% of the prompts back; the policy is pi prop. to
exp(phi . w) over the K completions of a prompt, the reference uniform, beta 1, and J = E r - KL, exact. Labels are
Bradley-Terry draws of r / T, T such that a label names the better of two different rewards 77 times in a hundred; a
pair has the same label in all arms of a split. Features are 64 principal components of the training prompts, of mean
variance 1: `raw`, or `clipped` (`clip_rows`); `by_slope` is the one of the two that `length_slopes` of the first
quarter of the labels, random pairs, asks for. H is that of the held-back prompts.

What is tuned: the ridge of the fit, which is the prior of the design, for random pairs of different texts, and the
multiple of the fitted parameter, for every arm alike; at each number of labels, on the prompts and seeds of the tuning
pool. `ceiling` is the policy of very many pairs with their true probabilities. Proxies are the same reward of the first
half of a text: in the fit (`proxy_belief`), or, in the side row `best_worst_proxy`, in the choice alone. Lines are
appended per split, so that a run goes on where it was; gains are kept prompt by prompt, and intervals are over new
prompts (`by_prompt`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

import jaxdesign as jd
from bench.experiments import arms
from bench.experiments.equals import first_of_equals
from bench.experiments.files import append_lines, read_lines, settings, write_json
from bench.experiments.gain_plots import plot_differences
from bench.experiments.llama_summary import panels_of, summary
from bench.experiments.programs import let_go_of_many
from bench.experiments.rewards import PROXIES
from bench.measure import machine
from jaxdesign import preference as pref
from jaxdesign.preference.features.clipping import clip_rows
from jaxdesign.preference.labels.labels import FIRST, SECOND

REWARDS = ("word_length", "bounded_word_length", "sentiment", "first_person")
VARIANTS = ("raw", "clipped")
BY_SLOPE = "by_slope"


class Way(NamedTuple):
    """How an arm chooses and fits: one of `arms.ONE_ROUND`, or "rounds"; a residual cap; the proxy in the fit."""

    rule: str
    capped: bool = False
    proxy: bool = False


WAYS = {
    "random_distinct": Way("random"),
    "trace": Way("trace"),
    "logdet": Way("logdet"),
    "bait": Way("bait"),
    "largest_distance": Way("largest_distance"),
    "trace_capped": Way("trace", capped=True),
    "rounds": Way("rounds"),
    "rounds_capped": Way("rounds", capped=True),
    "random_proxy": Way("random", proxy=True),
    "trace_proxy": Way("trace", proxy=True),
    "best_worst_proxy": Way("largest_score_gap"),
}
AT_ALL_K = ("random_distinct", "trace", "bait")  # the others with all completions only
COMPONENTS = 64
TRAINING = 0.77  # share of the prompts
AGREEMENT = 0.77  # of a label with the better of two different rewards
RIDGES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
MULTIPLES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
TUNING_SEED = 1000  # the first; those of reports begin at 0


class Reward(NamedTuple):
    """Its name, (P, K) values over their temperature, and those of the first half of every text, where there are."""

    name: str
    values: Float[np.ndarray, "p k"]
    proxy: Float[np.ndarray, "p k"] | None


class Pool(NamedTuple):
    """What a pool file has: features (P, K, d), rewards, the first of equal texts."""

    features: Float[np.ndarray, "p k d"]
    rewards: dict[str, Reward]
    first: Bool[np.ndarray, "p k"]


class Case(NamedTuple):
    """One split in one variant with K completions."""

    pool: jd.CompletionPool
    deployment: jd.CompletionPool
    training: Int[np.ndarray, " t"]
    held_back: Int[np.ndarray, " h"]
    luck: Float[np.ndarray, "t k k"]  # uniform numbers, one for every pair


def load(path: str, temperatures: dict[str, float]) -> Pool:
    """A pool as it was written, its rewards divided by their temperatures."""
    stored = np.load(path)
    rewards = {}
    for name in REWARDS:
        proxy = stored[f"half_{name}"] if name in PROXIES else None
        rewards[name] = Reward(name, stored[name].astype(np.float64) / temperatures[name], proxy)
    return Pool(stored["mean"].astype(np.float32), rewards, first_of_equals(stored["texts"]))


def temperatures_of(path: str) -> dict[str, float]:
    """The temperature of every reward of a pool."""
    stored = np.load(path)
    return {name: temperature(stored[name].astype(np.float64)) for name in REWARDS}


def temperature(rewards: Float[np.ndarray, "p k"]) -> float:
    """T at which labels name the better of two different rewards AGREEMENT of the time."""
    i, j = np.triu_indices(rewards.shape[1], 1)
    margin = np.abs(rewards[:, i] - rewards[:, j])
    margin = margin[margin > 0]
    low, high = np.log(margin.max() * 1e-3), np.log(margin.max() * 1e3)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-margin / np.exp(middle)))) > AGREEMENT else (low, middle)
    return float(np.exp(low))


def make_case(pool: Pool, variant: str, completions: int, seed: int, components: int = COMPONENTS) -> Case:
    """Split the prompts; the same seed splits alike for every variant and K."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool.features))
    training, held_back = (np.sort(part) for part in np.split(order, [round(TRAINING * len(order))]))
    luck = rng.random((len(training), *[pool.features.shape[1]] * 2), np.float32)[:, :completions, :completions]
    some = pool.features[:, :completions].astype(np.float64)
    some = some - some.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.einsum("pkd,pke->de", some[training], some[training], optimize=True))
    basis = vectors[:, ::-1][:, :components]
    unit = np.sqrt(values[::-1][:components].mean() / (len(training) * completions))
    seen, unseen = ((some[part] @ basis / unit).astype(np.float32) for part in (training, held_back))
    seen = jd.CompletionPool(seen, mask=pool.first[training, :completions])  # choices and labels
    unseen = jd.CompletionPool(unseen)  # a sample of the policy, repeats included
    if variant == "clipped":
        clipped = clip_rows(seen)
        seen, unseen = clipped.pool, clip_rows(unseen, length=clipped.length).pool
    return Case(seen, unseen, training, held_back, luck)


def ask(case: Case, rewards: Float[np.ndarray, "p k"], pairs: Int[np.ndarray, "n 3"]) -> pref.Labels:
    """The label of each pair."""
    p, i, j = np.asarray(pairs).T
    return pref.as_labels(pairs, np.where(case.luck[p, i, j] < chances(case, rewards, pairs), FIRST, SECOND))


def chances(case: Case, rewards: Float[np.ndarray, "p k"], pairs: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """How likely the first of each pair of the training prompts is preferred, by Bradley-Terry."""
    p, i, j = np.asarray(pairs).T
    own = rewards[case.training]
    return 1 / (1 + np.exp(own[p, j] - own[p, i]))


def fitted(case: Case, labels: pref.Labels, belief: Any) -> Float[np.ndarray, " d"]:
    return pref.fit_posterior(case.pool, labels, belief).parameter


def gains(
    case: Case, rewards: Float[np.ndarray, "p k"], parameter: Float[np.ndarray, " d"], multiples: Sequence[float]
) -> Float[np.ndarray, "m h"]:
    """J - J(reference) of every held-back prompt, for multiples of a fitted parameter."""
    own = rewards[case.held_back][:, : case.deployment.completions]
    scores = np.asarray(case.deployment.features, np.float64) @ parameter
    logs = np.multiply.outer(np.asarray(multiples), scores)
    logs -= logs.max(axis=-1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=-1, keepdims=True))
    law = np.exp(logs)
    value = (law * own).sum(axis=-1) - (law * (logs + np.log(own.shape[1]))).sum(axis=-1)
    return value - own.mean(axis=-1)


def ceiling(case: Case, rewards: Float[np.ndarray, "p k"], seed: int, number: int = 50_000) -> np.ndarray:
    """The parameter that the true probabilities of very many pairs lead to."""
    rng = np.random.default_rng([seed, 1])
    own, features = rewards[case.training], np.asarray(case.pool.features, np.float64)
    p, i, j = rng.integers(len(own), size=number), *rng.integers(features.shape[1], size=(2, number))
    chance = 1 / (1 + np.exp(own[p, j] - own[p, i]))
    found = pref.fit_bradley_terry(features[p, i] - features[p, j], chance, np.ones(number), prior=30.0)
    return np.asarray(found.parameter)


def belief_of(case: Case, reward: Reward, way: Way, ridge: float) -> Any:
    """The prior of an arm's design and fit."""
    return pref.proxy_belief(case.pool, seen_of(case, reward.proxy), ridge).belief if way.proxy else ridge


def seen_of(case: Case, values: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "t k"]:
    return values[case.training, : case.pool.completions]


def pairs_of(case: Case, reward: Reward, way: Way, belief: Any, number: int, seed: int) -> Int[np.ndarray, "n 3"]:
    """The pairs of an arm that asks in one round, which knows of the reward no more than its proxy."""
    scores = seen_of(case, reward.proxy) if way.rule in arms.NEED_SCORES else None
    problem = arms.Problem(capped(case.pool) if way.capped else case.pool, case.deployment, belief, 1.0, scores)
    return arms.choose(way.rule, problem, jd.Budget(number, per_pair=1), seed)


def capped(pool: jd.CompletionPool) -> jd.CompletionPool:
    """The pool with `residual_of(pool, "cap")`."""
    return jd.CompletionPool(pool.features, mask=pool.mask, residual=jd.residual_of(pool, "cap"))


def labels_of(case: Case, reward: Reward, way: Way, ridge: float, number: int, seed: int, known: dict) -> pref.Labels:
    """What an arm has after `number` labels. known: keeps choices that do not depend on the reward."""
    if way.rule != "rounds":
        key = (way, ridge, number, reward.name if way.proxy or way.rule in arms.NEED_SCORES else None)
        if key not in known:
            known[key] = pairs_of(case, reward, way, belief_of(case, reward, way, ridge), number, seed)
        return ask(case, reward.values, known[key])
    problem = arms.Problem(capped(case.pool) if way.capped else case.pool, case.deployment, ridge, 1.0)
    first, floor = ("trace", 0.0) if way.capped else ("trace_floor", arms.FLOOR)
    size = round(arms.PILOT * number)
    key = (first, way, ridge, size)
    if key not in known:
        known[key] = arms.choose(first, problem, jd.Budget(size, per_pair=1), seed)
    choice = lambda pairs: np.asarray(ask(case, reward.values, pairs).choices)  # noqa: E731
    return arms.two_rounds(problem, known[key], choice, jd.Budget(number, per_pair=1), seed, floor)


def arms_for(reward: Reward, completions: int, given: argparse.Namespace) -> list[str]:
    """Those that a reward has, and a number of completions."""
    needs_proxy = lambda way: way.proxy or way.rule in arms.NEED_SCORES  # noqa: E731
    found = [name for name in given.arms if reward.proxy is not None or not needs_proxy(WAYS[name])]
    return found if completions == max(given.completions) else [name for name in found if name in AT_ALL_K]


def tuned(pool: Pool, given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """{"variant/reward/number": {"ridge", "multiples": {arm: multiple}}}, with all completions."""
    found: dict[str, dict[str, Any]] = {}
    seeds = range(TUNING_SEED, TUNING_SEED + given.tuning_splits)
    for variant in VARIANTS:
        cases = [(make_case(pool, variant, max(given.completions), seed), seed, {}) for seed in seeds]
        for name in given.rewards:
            for number in given.labels:
                found[f"{variant}/{name}/{number}"] = _tuned(cases, pool.rewards[name], number, given)
                print(variant, name, number, found[f"{variant}/{name}/{number}"], flush=True)
    return found


def _tuned(cases, reward: Reward, number: int, given: argparse.Namespace) -> dict[str, Any]:
    total = np.zeros(len(RIDGES))
    for case, seed, known in cases:
        labels = labels_of(case, reward, WAYS["random_distinct"], 1.0, number, seed, known)
        by_ridge = [gains(case, reward.values, fitted(case, labels, ridge), MULTIPLES) for ridge in RIDGES]
        total += [found.mean(axis=1).max() for found in by_ridge]
    ridge = RIDGES[int(np.argmax(total))]
    multiples = {}
    for arm in arms_for(reward, max(given.completions), given):
        by_multiple = np.zeros(len(MULTIPLES))
        for case, seed, known in cases:
            labels = labels_of(case, reward, WAYS[arm], ridge, number, seed, known)
            parameter = fitted(case, labels, belief_of(case, reward, WAYS[arm], ridge))
            by_multiple += gains(case, reward.values, parameter, MULTIPLES).mean(axis=1)
        multiples[arm] = MULTIPLES[int(np.argmax(by_multiple))]
    return {"ridge": ridge, "multiples": multiples}


def lines_of(pool: Pool, settled: dict, given: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """One line for every K, variant, reward, number and arm of a split."""
    for completions in given.completions:
        cases = {variant: make_case(pool, variant, completions, seed) for variant in VARIANTS}
        known: dict[str, dict] = {variant: {} for variant in VARIANTS}
        for name in given.rewards:
            reward = pool.rewards[name]
            for variant, case in cases.items():
                let_go_of_many()
                head = {"seed": seed, "variant": variant, "K": completions, "reward": name}
                found = gains(case, reward.values, ceiling(case, reward.values, seed), (1.0,))
                yield head | {"labels": 0, "arm": "ceiling"} | _kept(case, found)
                for number in given.labels:
                    own = settled[f"{variant}/{name}/{number}"]
                    for arm in arms_for(reward, completions, given):
                        labels = labels_of(case, reward, WAYS[arm], own["ridge"], number, seed, known[variant])
                        parameter = fitted(case, labels, belief_of(case, reward, WAYS[arm], own["ridge"]))
                        found = gains(case, reward.values, parameter, (own["multiples"][arm], 1.0))
                        yield head | {"labels": number, "arm": arm} | _kept(case, found)
            if completions == max(given.completions):
                for number in given.labels:
                    yield from by_slope(cases, reward, settled, number, seed, known)


def by_slope(cases: dict[str, Case], reward: Reward, settled: dict, number: int, seed: int, known: dict):
    """Trace in the variant that a pilot of random pairs asks for, and random pairs in the same variant."""
    head = {"seed": seed, "variant": BY_SLOPE, "K": cases["raw"].pool.completions, "reward": reward.name}
    size, random = round(arms.PILOT * number), WAYS["random_distinct"]
    raw = settled[f"raw/{reward.name}/{number}"]["ridge"]
    pilot = labels_of(cases["raw"], reward, random, raw, size, seed, known["raw"])
    slopes = pref.length_slopes(cases["raw"].pool, pilot, raw, groups=1)
    variant = "clipped" if slopes.clip else "raw"
    case, own = cases[variant], settled[f"{variant}/{reward.name}/{number}"]
    held = jd.held_information(case.pool, pilot.pairs)
    rest = jd.select_pairs(
        case.pool,
        jd.Trace(arms.Problem(case.pool, case.deployment, own["ridge"], 1.0).target()),
        jd.Budget(number - size, per_pair=1, exclude=pilot.pairs),
        prior=own["ridge"] * np.eye(case.pool.dim) + held,
    ).pairs
    both = {
        "trace": np.concatenate([pilot.pairs, rest]),
        "random_distinct": labels_of(case, reward, random, own["ridge"], number, seed, known[variant]).pairs,
    }
    for arm, pairs in both.items():
        parameter = fitted(case, ask(case, reward.values, pairs), own["ridge"])
        found = gains(case, reward.values, parameter, (own["multiples"][arm], 1.0))
        yield head | {"labels": number, "arm": arm, "chosen": variant, "trend": slopes.trend} | _kept(case, found)


def _kept(case, found):
    """Gains by prompt at the tuned multiple, and at 1."""
    rows = {"gains": found[0], "as_fitted": found[-1]}
    return {"prompts": case.held_back.tolist(), **{name: np.round(row, 6).tolist() for name, row in rows.items()}}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.llama_log_linear", description=__doc__)
    parser.add_argument("--tuning", required=True, help="pool of the tuning prompts")
    parser.add_argument("--pool", required=True, help="pool of the reported prompts")
    parser.add_argument("--lines", required=True, help="JSON lines, appended split by split")
    parser.add_argument("--rewards", nargs="+", choices=REWARDS, default=list(REWARDS))
    parser.add_argument("--arms", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 200, 400, 800])
    parser.add_argument("--completions", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--tuning-splits", type=int, default=6)
    parser.add_argument("--json", metavar="FILE", help="write the summary here")
    parser.add_argument("--plot", metavar="FILE", help="draw the differences to random pairs here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    given = parse(arguments)
    path, temperatures = Path(given.lines), temperatures_of(given.tuning)
    tuning, pool, lines = load(given.tuning, temperatures), load(given.pool, temperatures), read_lines(path)
    done = {line["seed"] for line in lines if "settled" not in line}
    settled = next((line["settled"] for line in lines if "settled" in line), None)
    if settled is None:
        settled = tuned(tuning, given)
        append_lines(path, [{"settled": settled}])
    for seed in range(given.splits):
        if seed not in done:
            append_lines(path, list(lines_of(pool, settled, given, seed)))
            print(f"split {seed}", flush=True)
    lines = [line for line in read_lines(path) if "settled" not in line]
    results = {
        "machine": machine(), "settings": settings(given), "temperatures": temperatures, "settled": settled,
        "rows": summary(lines), "as_fitted": summary(lines, "as_fitted"),
    }  # fmt: skip
    write_json(results, given.json)
    if given.plot:
        plot_differences(panels_of(results["rows"], max(given.completions)), given.plot)
    return results


if __name__ == "__main__":
    main()
