"""Real completions: the policy gap on held-back prompts, by how the labelled pairs were chosen.

    python -m bench.experiments.real_pools --lines lines.jsonl --json FILE --plot FILE

Every seed splits the prompts anew (`pool_truth`); all arms (`pool_arms`) of a seed share the split, and a pair that two
arms choose gets the same label. H is that of the held-back prompts, whose features (not rewards) all arms may see, as
those of a deployment pool would be. The policy is log-linear, the reference uniform over the completions.

Cases, where r is the reward that labels are drawn from and the gap is measured with:
    well_specified  alpacaeval, r = phi . theta_bt in the components used; here arms with a proxy too
    judge_4         alpacaeval, r = reward of the judge / 4: not linear in the features (R2 about 0.35)
    judge_1         the same at temperature 1: labels nearly always follow the judge
    human           wmt21_ted_zhen, r = score of professional raters; the label is the better score, ties are ties

Tuned on seeds from 1,000 on, which are not reported, at each number of labels: first the ridge of a fit to random pairs
of different texts, which is the prior of all designs (one more for arms with a smooth belief); then, twice,

    given  the multiple of the fitted parameter, which is what tuning of beta or of the stopping time does, for every
           arm alike; its fit has the ridge of random pairs
    free   ridge of the fit and multiple together, for every arm alike: how labels are chosen matters less where the
           fit may become anything from a maximum of likelihood to a mean direction

`ceiling` are the true probabilities of all pairs. Lines are appended per seed and case, so that a run goes on
where it was, and more arms or seeds can be asked for later. Gaps are kept prompt by prompt: limits are of ratios of
means, over new prompts (`by_prompt`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.experiments import by_prompt, paired
from bench.experiments.files import append_lines, read_lines, settings, write_json
from bench.experiments.plots import plot_gaps
from bench.experiments.pool_arms import ARMS, PLAIN, PROXIES, SMOOTH, belief_of, labels_of
from bench.experiments.pool_truth import CASES, Data, Split, Truth, load, make_split, make_truth
from bench.measure import machine
from bench.rules import TUNED
from jaxdesign import preference as pref

RIDGES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
MULTIPLES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 16.0, 32.0, 64.0, 128.0)
RIDGE_SEEDS = 8  # on which the ridge of random pairs is tuned, which takes fits only
TUNING_SEED = 1000  # the first
RANDOM = ("random_distinct", "random_distinct_smooth")  # without and with a smooth belief
AGAINST = RANDOM[0]
ENDS = ("reference", "ceiling")
DIGITS = 4  # of the gap of a prompt

Place = tuple[str, int, str]  # case, number of labels (0 of an end), arm


class Setting(NamedTuple):
    """A fit's ridge, and what its parameter is multiplied by."""

    ridge: float
    multiple: float


def fits(case: str, arm: str) -> bool:
    """Proxies are of linear rewards, which have no residual; an oracle of v is of use where there is one."""
    if case == "well_specified":
        return arm != "two_rounds_known"
    return arm not in PROXIES


def gaps_of(arm: str, truth: Truth, labels: pref.Labels, ridge: float, multiples: Sequence[float], seed: int):
    """Gaps (M, Q) of what an arm's labels teach: of all multiples, prompt by prompt."""
    found = pref.fit_posterior(truth.whole, labels, belief_of(ARMS[arm], truth, ridge, seed))
    return truth.gaps(found.parameter, multiples)


def ridges_of_random(case: str, data: Data, given, counts: Sequence[int]) -> dict[str, dict[str, float]]:
    """For every number of labels the ridge with which a fit to random pairs does best, with either belief."""
    total = {(arm, number): np.zeros(len(RIDGES)) for arm in RANDOM for number in counts}
    for seed in range(TUNING_SEED, TUNING_SEED + RIDGE_SEEDS):
        truth = make_truth(case, data, make_split(data.features, given.components, seed), given.beta, seed)
        for arm, number in total:
            labels = labels_of(arm, truth, 1.0, number, seed)  # random pairs do not depend on the ridge
            for k, ridge in enumerate(RIDGES):
                total[arm, number][k] += gaps_of(arm, truth, labels, ridge, (1.0,), seed).mean()
    found: dict[str, dict[str, float]] = {arm: {} for arm in RANDOM}
    for (arm, number), values in total.items():
        found[arm][str(number)] = RIDGES[int(np.argmin(values))]
    return found


def ridge_of(arm: str, known: dict[str, dict[str, float]], number: int) -> float:
    """What suits random pairs with the belief of this arm."""
    return known[RANDOM[ARMS[arm].smooth]][str(number)]


def tuning_line(place: Place, truth: Truth, known: dict[str, dict[str, float]], seed: int) -> dict[str, Any]:
    """Mean gaps (R, M) of an arm with all ridges and multiples; of an end with all multiples."""
    _, number, arm = place
    if arm in ENDS:
        found = [truth.gaps(_end(arm, truth), MULTIPLES).mean(axis=1)]
    else:
        labels = labels_of(arm, truth, ridge_of(arm, known, number), number, seed)
        found = [gaps_of(arm, truth, labels, ridge, MULTIPLES, seed).mean(axis=1) for ridge in RIDGES]
    return _head(place, seed) | {"mean_gaps": np.round(found, 6).tolist()}


def reported_line(place: Place, truth: Truth, known, settled: dict[str, Setting], seed: int) -> dict[str, Any]:
    """Gaps of an arm prompt by prompt, at both of its settings."""
    _, number, arm = place
    line = _head(place, seed) | {"prompts": truth.split.held_back.tolist()}
    labels = None if arm in ENDS else labels_of(arm, truth, ridge_of(arm, known, number), number, seed)
    for tuning, (ridge, multiple) in settled.items():
        if labels is None:
            found = truth.gaps(_end(arm, truth), (multiple,))
        else:
            found = gaps_of(arm, truth, labels, ridge, (multiple,), seed)
        line[tuning] = {"ridge": ridge, "multiple": multiple, "gaps": np.round(found[0], DIGITS).tolist()}
    return line | ({"variance": truth.residual} if arm == "ceiling" else {})


def _head(place: Place, seed: int) -> dict[str, Any]:
    case, number, arm = place
    return {"seed": seed, "case": case, "labels": number, "arm": arm}


def _end(arm: str, truth: Truth):
    return truth.parameter if arm == "ceiling" else np.zeros_like(truth.parameter)


def settled_of(lines: Iterable[dict[str, Any]], place: Place, known) -> dict[str, Setting]:
    """The settings with the smallest mean gap of the tuning seeds, by way of tuning."""
    _, number, arm = place
    total = np.mean([line["mean_gaps"] for line in lines if _place(line) == place], axis=0)
    if arm in ENDS:
        return dict.fromkeys(TUNED, Setting(0.0, MULTIPLES[int(np.argmin(total[0]))]))
    given = ridge_of(arm, known, number)
    row, column = np.unravel_index(np.argmin(total), total.shape)
    return {
        "given": Setting(given, MULTIPLES[int(np.argmin(total[RIDGES.index(given)]))]),
        "free": Setting(RIDGES[int(row)], MULTIPLES[int(column)]),
    }


def _place(line: dict[str, Any]) -> Place:
    return line["case"], line["labels"], line["arm"]


def measured(given, data: dict[str, Data], path: Path) -> Iterator[list[dict[str, Any]]]:
    """What a file lacks, case by case: ridges, the tuning seeds, then the reported seeds, which need both."""
    known = {line["case"]: line["random"] for line in read_lines(path) if "random" in line}
    for case in given.cases:
        held = known.get(case, {arm: {} for arm in RANDOM})
        missing = [number for number in given.labels if str(number) not in held[AGAINST]]
        if missing:
            made = ridges_of_random(case, data[case], given, missing)
            known[case] = {arm: held[arm] | made[arm] for arm in RANDOM}
            yield [{"case": case, "random": known[case]}]
            print(case, known[case], flush=True)
    tuning = range(TUNING_SEED, TUNING_SEED + given.tuning_seeds)
    reported = range(given.first_seed, given.first_seed + given.seeds)
    for seed, places, truth in _missing(given, data, path, tuning):
        yield [tuning_line(place, truth, known[place[0]], seed) for place in places]
    tried = [line for line in read_lines(path) if line.get("seed") in tuning]
    settled: dict[Place, dict[str, Setting]] = {}
    for seed, places, truth in _missing(given, data, path, reported):
        for place in places:
            if place not in settled:
                settled[place] = settled_of(tried, place, known[place[0]])
        yield [reported_line(place, truth, known[place[0]], settled[place], seed) for place in places]


def _missing(
    given, data: dict[str, Data], path: Path, seeds: Iterable[int]
) -> Iterator[tuple[int, list[Place], Truth]]:
    """What the file does not have of these seeds, with the truth of each."""
    done = {(line["seed"], *_place(line)) for line in read_lines(path) if "seed" in line}
    for seed in seeds:
        splits: dict[bool, Split] = {}  # of one seed: all cases but one have the same features
        for case in given.cases:
            places: list[Place] = [(case, 0, end) for end in ENDS]
            places += [(case, number, arm) for number in given.labels for arm in given.arms if fits(case, arm)]
            places = [place for place in places if (seed, *place) not in done]
            if not places:
                continue
            own = case == "human"
            splits[own] = splits.get(own) or make_split(data[case].features, given.components, seed)
            truth = make_truth(case, data[case], splits[own], given.beta, seed)
            yield seed, places, truth
            print(f"seed {seed}, {case}", flush=True)


def summary(lines: Sequence[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """{case: {"given", "free": `paired.compared`, and the settings}} of the seeds that all arms have."""
    found = {}
    for case in given.cases:
        own = [line for line in lines if line["case"] == case and "gaps" in line.get("given", {})]
        own = [line for line in own if _asked_for(line, given)]
        seeds = sorted(_common(own))
        own = [line for line in own if line["seed"] in seeds]
        if not own:
            continue
        found[case] = {
            "seeds": seeds,
            "variance": float(np.mean([line["variance"] for line in own if line["arm"] == "ceiling"])),
            "ridges": [line["random"] for line in lines if line["case"] == case and "random" in line][-1],
        }
        for tuning in TUNED:
            found[case][tuning] = paired.compared(_tables(own, tuning), AGAINST)
            for (_, number, arm), setting in _settings(own, tuning).items():
                counts = [number] if number else list(found[case][tuning][arm]["gap"])
                for count in counts:
                    found[case][tuning][arm].setdefault("settings", {})[count] = setting
    return found


def _settings(lines, tuning: str) -> dict[Place, Setting]:
    """Of every place; they must not have changed between seeds."""
    found: dict[Place, Setting] = {}
    for line in lines:
        own = Setting(line[tuning]["ridge"], line[tuning]["multiple"])
        if found.setdefault(_place(line), own) != own:
            raise SystemExit(
                f"--lines: {_place(line)} has lines with {own} and with {found[_place(line)]}: the seeds that are "
                "tuned on have changed; start a new file, or ask for as many as before"
            )
    return found


def _asked_for(line, given) -> bool:
    return line["arm"] in ENDS or (line["arm"] in given.arms and line["labels"] in given.labels)


def _common(lines) -> set[int]:
    """Seeds that every arm has at every number of labels where any has it."""
    by_place: dict[Place, set[int]] = {}
    for line in lines:
        by_place.setdefault(_place(line), set()).add(line["seed"])
    return set.intersection(*by_place.values()) if by_place else set()


def _tables(lines, tuning: str):
    """{labels: {arm: (seeds, prompts)}}, the ends at every number of labels."""
    counts = sorted({line["labels"] for line in lines} - {0})
    tables = by_prompt.laid_out(lines, itemgetter("labels", "arm"), lambda line: line[tuning]["gaps"])
    return {number: {arm: table for (own, arm), table in tables.items() if own in (0, number)} for number in counts}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.real_pools", description=__doc__)
    parser.add_argument("--lines", required=True, help="JSON lines, appended seed by seed")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=[*PLAIN, *SMOOTH, *PROXIES])
    parser.add_argument("--labels", type=int, nargs="+", default=[32, 64, 160, 400, 1280])
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--tuning-seeds", type=int, default=4, help=f"how many, from {TUNING_SEED:,}")
    parser.add_argument("--components", type=int, default=64, help="principal components that are kept")
    parser.add_argument("--beta", type=float, default=1.0, help="strength of the KL term")
    parser.add_argument("--report", action="store_true", help="measure nothing, summarise the lines that there are")
    parser.add_argument("--json", metavar="FILE", help="write the summary of all lines here")
    parser.add_argument("--plot", metavar="FILE", help="draw the gaps here")
    given = parser.parse_args(arguments)
    if AGAINST not in given.arms:
        parser.error(f"--arms: {AGAINST} must be among them; the others are compared with it")
    if given.first_seed + given.seeds > TUNING_SEED:
        parser.error(
            f"--first-seed, --seeds: reported seeds end below {TUNING_SEED}, where those that are tuned on begin"
        )
    return given


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    given = parse(arguments)
    path = Path(given.lines)
    if not given.report:
        for made in measured(given, {case: load(case) for case in given.cases}, path):
            append_lines(path, made)
    cases = summary(read_lines(path), given)
    results = {"machine": machine(), "settings": settings(given), "cases": cases}
    for case, found in cases.items():
        for tuning in TUNED:
            print(case, tuning, f"{len(found['seeds'])} seeds, v = {found['variance']:.3g}", flush=True)
            for arm, row in found[tuning].items():
                ratios = " ".join(f"{n}: {r[0]:.3f} [{r[1]:.3f}, {r[2]:.3f}]" for n, r in row["ratio"].items())
                print(f"  {arm:28s}", ratios, flush=True)
    write_json(results, given.json)
    if given.plot:
        plot_gaps(results["cases"], given.plot)
    return results


if __name__ == "__main__":
    main()
