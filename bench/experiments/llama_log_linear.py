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
half of a text: in the fit (`proxy_belief`), or, in the side row `best_worst_proxy`, in the choice alone. Arms with a
smooth belief hold rewards to vary most where completions do (`smooth_belief`), with a ridge of their own, tuned for
random pairs as well; they were added when another pool of features had shown them to gain most. Lines are appended per
split, so that a run goes on where it was, with rewards and arms that it did not have; gains are kept prompt by prompt,
and intervals are over new prompts (`by_prompt`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby, product
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

import jaxdesign as jd
from bench.experiments import arms
from bench.experiments.files import append_lines, read_lines, settings, write_json
from bench.experiments.llama_cases import (
    MULTIPLES,
    REWARDS,
    RIDGES,
    TUNING_SEED,
    VARIANTS,
    Case,
    Pool,
    Reward,
    ask,
    ceiling,
    fitted,
    gains,
    load,
    make_case,
    temperatures_of,
)
from bench.experiments.llama_summary import BY_SLOPE, plot_gains, summary
from bench.experiments.programs import let_go_of_many
from bench.measure import machine
from jaxdesign import preference as pref


class Way(NamedTuple):
    """How an arm chooses and fits: one of `arms.ONE_ROUND`, or "rounds"; a residual cap; the proxy in the fit; a smooth
    belief in place of a ridge."""

    rule: str
    capped: bool = False
    proxy: bool = False
    smooth: bool = False

    @property
    def ridge(self) -> str:
        """What the ridge of its belief is called among what was tuned."""
        return "smooth_ridge" if self.smooth else "ridge"


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
    "random_distinct_smooth": Way("random", smooth=True),
    "trace_smooth": Way("trace", smooth=True),
}
AT_SLOPE = ("random_distinct", "trace")  # arms of BY_SLOPE


def belief_of(case: Case, reward: Reward, way: Way, ridge: float) -> Any:
    """The prior of an arm's design and fit."""
    if way.smooth:
        return arms.smooth_with(case.pool, ridge)
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


def arms_for(reward: Reward, given: argparse.Namespace) -> list[str]:
    """Those that a reward has: without a proxy, none that needs one."""
    needs_proxy = lambda way: way.proxy or way.rule in arms.NEED_SCORES  # noqa: E731
    return [name for name in given.arms if reward.proxy is not None or not needs_proxy(WAYS[name])]


def tuned(pool: Pool, settled: dict[str, dict[str, Any]], given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What is not settled yet, by "variant/reward/number": ridges and {arm: multiple}, with all completions."""
    seeds = range(TUNING_SEED, TUNING_SEED + given.tuning_splits)
    found: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        whole = partial(make_case, pool, variant, max(given.completions))
        cases: list = []
        for name in given.rewards:
            for number in given.labels:
                key, reward = f"{variant}/{name}/{number}", pool.rewards[name]
                own, wanted = settled.get(key, {"multiples": {}}), arms_for(reward, given)
                missing = [arm for arm in wanted if arm not in own["multiples"]]
                if missing:
                    cases = cases or [(whole(seed), seed, {}) for seed in seeds]
                    found[key] = _tuned(cases, reward, number, missing, own)
                    print(key, found[key], flush=True)
    return found


def _tuned(cases, reward: Reward, number: int, missing: Sequence[str], own: dict[str, Any]) -> dict[str, Any]:
    """The ridges that arms need, for random pairs, unless one has them; then the multiple of every arm."""
    found: dict[str, Any] = {"multiples": {}}
    for random in (WAYS["random_distinct"], WAYS["random_distinct_smooth"]):
        needed = any(WAYS[arm].ridge == random.ridge for arm in missing)
        if needed and random.ridge not in own:
            by_ridge = [mean_gains(cases, reward, random, ridge, number).max(axis=1).sum() for ridge in RIDGES]
            found[random.ridge] = RIDGES[int(np.argmax(by_ridge))]
    for arm in missing:
        ridge = (own | found)[WAYS[arm].ridge]
        by_multiple = mean_gains(cases, reward, WAYS[arm], ridge, number).sum(axis=0)
        found["multiples"][arm] = MULTIPLES[int(np.argmax(by_multiple))]
    return found


def mean_gains(cases, reward: Reward, way: Way, ridge: float, number: int) -> Float[np.ndarray, "c m"]:
    """Of an arm in every case, by multiple."""
    found = []
    for case, seed, known in cases:
        parameter = parameter_of(case, reward, way, ridge, number, seed, known)
        found.append(gains(case, reward.values, parameter, MULTIPLES).mean(axis=1))
    return np.array(found)


def parameter_of(case: Case, reward: Reward, way: Way, ridge: float, number: int, seed: int, known: dict):
    """What an arm's labels are fitted by."""
    labels = labels_of(case, reward, way, ridge, number, seed, known)
    return fitted(case, labels, belief_of(case, reward, way, ridge))


def heads_of(pool: Pool, given: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """The names of every line of a split."""
    for completions, name in product(given.completions, given.rewards):
        head = {"seed": seed, "K": completions, "reward": name}
        for variant in VARIANTS:
            yield head | {"variant": variant, "labels": 0, "arm": "ceiling"}
            for number, arm in product(given.labels, arms_for(pool.rewards[name], given)):
                yield head | {"variant": variant, "labels": number, "arm": arm}
        if set(AT_SLOPE) <= set(given.arms):
            for number, arm in product(given.labels, AT_SLOPE):
                yield head | {"variant": BY_SLOPE, "labels": number, "arm": arm}


def lines_of(pool: Pool, settled: dict, heads: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One line for every head; those of one split and K stand together."""
    for (seed, completions), own in groupby(heads, itemgetter("seed", "K")):
        cases = {variant: make_case(pool, variant, completions, seed) for variant in VARIANTS}
        known: dict[str, dict] = {variant: {} for variant in VARIANTS}
        for (name, variant), some in groupby(own, itemgetter("reward", "variant")):
            let_go_of_many()
            reward = pool.rewards[name]
            for head in some:
                if variant == BY_SLOPE:
                    yield head | by_slope(cases, reward, settled, head, known)
                else:
                    yield head | in_variant(cases[variant], reward, settled, head, known[variant])


def place(line: dict[str, Any]) -> tuple:
    """Which arm of which case a line is of."""
    return tuple(line[name] for name in ("seed", "variant", "K", "reward", "labels", "arm"))


def in_variant(case: Case, reward: Reward, settled: dict, head: dict[str, Any], known: dict) -> dict[str, Any]:
    """Gains of an arm, or of the ceiling, in the rows that its head names."""
    if head["arm"] == "ceiling":
        return _kept(case, gains(case, reward.values, ceiling(case, reward.values, head["seed"]), (1.0,)))
    own, way = settled[f"{head['variant']}/{reward.name}/{head['labels']}"], WAYS[head["arm"]]
    parameter = parameter_of(case, reward, way, own[way.ridge], head["labels"], head["seed"], known)
    return _kept(case, gains(case, reward.values, parameter, (own["multiples"][head["arm"]], 1.0)))


def by_slope(cases: dict[str, Case], reward: Reward, settled: dict, head: dict[str, Any], known: dict):
    """Gains of trace in the rows that a pilot of random pairs asks for, or of random pairs in these rows: AT_SLOPE."""
    seed, number = head["seed"], head["labels"]
    size, random = round(arms.PILOT * number), WAYS["random_distinct"]
    raw = settled[f"raw/{reward.name}/{number}"]["ridge"]
    pilot = labels_of(cases["raw"], reward, random, raw, size, seed, known["raw"])
    asked = BY_SLOPE, reward.name, number  # both arms ask
    if asked not in known["raw"]:
        known["raw"][asked] = pref.length_slopes(cases["raw"].pool, pilot, raw, groups=1)
    slopes = known["raw"][asked]
    variant = "clipped" if slopes.clip else "raw"
    case, own = cases[variant], settled[f"{variant}/{reward.name}/{number}"]
    if head["arm"] == "trace":
        rest = jd.select_pairs(
            case.pool,
            jd.Trace(arms.Problem(case.pool, case.deployment, own["ridge"], 1.0).target()),
            jd.Budget(number - size, per_pair=1, exclude=pilot.pairs),
            prior=own["ridge"] * np.eye(case.pool.dim) + jd.held_information(case.pool, pilot.pairs),
        ).pairs
        pairs = np.concatenate([pilot.pairs, rest])
    else:
        pairs = labels_of(case, reward, random, own["ridge"], number, seed, known[variant]).pairs
    parameter = fitted(case, ask(case, reward.values, pairs), own["ridge"])
    found = gains(case, reward.values, parameter, (own["multiples"][head["arm"]], 1.0))
    return {"chosen": variant, "trend": slopes.trend} | _kept(case, found)


def clipped_by_slope(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """By "K/reward/number", the share of splits in which the pilot's slope asked for clipped rows."""
    chosen: dict[str, list[bool]] = {}
    for line in lines:
        if line["variant"] == BY_SLOPE and line["arm"] == "trace":
            key = f"{line['K']}/{line['reward']}/{line['labels']}"
            chosen.setdefault(key, []).append(line["chosen"] == "clipped")
    return {key: float(np.mean(own)) for key, own in chosen.items()}


def settled_of(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What tuning found, in all runs."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        for key, own in line.get("settled", {}).items():
            before = found.setdefault(key, {"multiples": {}})
            multiples = before["multiples"] | own["multiples"]
            before.update(own | {"multiples": multiples})
    return found


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
    done = {place(line) for line in lines if "settled" not in line}
    more = tuned(tuning, settled_of(lines), given)
    if more:
        append_lines(path, [{"settled": more}])
    settled = settled_of(read_lines(path))
    for seed in range(given.splits):
        missing = [head for head in heads_of(pool, given, seed) if place(head) not in done]
        append_lines(path, list(lines_of(pool, settled, missing)))
        print(f"split {seed}", flush=True)
    lines = [line for line in read_lines(path) if "settled" not in line]
    results = {
        "machine": machine(), "settings": settings(given), "temperatures": temperatures, "settled": settled,
        "rows": summary(lines), "as_fitted": summary(lines, "as_fitted"), "clipped_by_slope": clipped_by_slope(lines),
    }  # fmt: skip
    write_json(results, given.json)
    if given.plot:
        plot_gains(results["rows"], max(given.completions), given.plot)
    return results


if __name__ == "__main__":
    main()
