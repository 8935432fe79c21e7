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

What is tuned, on seeds from 1,000 on that are not reported, at each number of labels: the ridge of fit and design, for
random pairs of different texts at their best multiple of the fitted parameter, and then the multiple (what tuning of
beta or of the stopping time does), for every arm in the same way. Arms with a shaped belief share a ridge of their own.
`ceiling` are the true probabilities of all pairs. Lines are appended per seed, number and case, so that a run goes on
where it was, and more arms or seeds can be asked for later. Gaps are kept prompt by prompt: limits are of ratios of
means, over new prompts (`by_prompt`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.experiments import paired
from bench.experiments.files import append_lines, read_lines, settings, write_json
from bench.experiments.plots import plot_gaps
from bench.experiments.pool_arms import ARMS, PLAIN, PROXIES, SHAPED, Tuned, belief_of, labels_of
from bench.experiments.pool_truth import CASES, Split, Truth, load, make_split, make_truth
from bench.measure import machine
from jaxdesign import preference as pref

RIDGES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
MULTIPLES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 22.0, 32.0, 45.0, 64.0, 90.0, 128.0, 180.0)
RIDGE_SEEDS = 5  # on which ridges are tuned, which takes fits only
TUNING_SEED = 1000  # the first
RANDOM = ("random_distinct", "random_distinct_shaped")  # without and with a shaped belief
AGAINST = RANDOM[0]
ENDS = ("reference", "ceiling")
DIGITS = 4  # of the gap of a prompt


def fits(case: str, arm: str) -> bool:
    """Proxies are of linear rewards, which have no residual; an oracle of v is of use where there is one."""
    if case == "well_specified":
        return arm != "two_rounds_known"
    return arm not in PROXIES


def of_arm(arm: str, truth: Truth, tuned: Tuned, number: int, seed: int) -> np.ndarray:
    """Gaps (M, Q) of an arm: of all multiples, prompt by prompt."""
    labels = labels_of(arm, truth, tuned, number, seed)
    found = pref.fit_posterior(truth.whole, labels, belief_of(ARMS[arm], truth, tuned, seed))
    return truth.gaps(found.parameter, MULTIPLES)


def tuned_for_random(case: str, data, given, counts: Sequence[int]) -> dict[str, dict[str, Tuned]]:
    """For every number of labels the ridge and the multiple with which random pairs do best, with either belief."""
    total = {(arm, number): np.zeros((len(RIDGES), len(MULTIPLES))) for arm in RANDOM for number in counts}
    for seed in range(TUNING_SEED, TUNING_SEED + RIDGE_SEEDS):
        truth = make_truth(case, data, make_split(data.features, given.components, seed), given.beta, seed)
        for arm, number in total:
            labels = labels_of(arm, truth, Tuned(1.0), number, seed)  # random pairs do not depend on the ridge
            for k, ridge in enumerate(RIDGES):
                found = pref.fit_posterior(truth.whole, labels, belief_of(ARMS[arm], truth, Tuned(ridge), seed))
                total[arm, number][k] += truth.gaps(found.parameter, MULTIPLES).mean(axis=1)
    found = {arm: {} for arm in RANDOM}
    for (arm, number), values in total.items():
        ridge, multiple = np.unravel_index(np.argmin(values), values.shape)
        found[arm][str(number)] = Tuned(RIDGES[ridge], MULTIPLES[multiple])
    return found


def tuned_of(arm: str, known: dict[str, dict[str, Any]], number: int) -> Tuned:
    """What suits random pairs with the belief of this arm."""
    return Tuned(*known[RANDOM[ARMS[arm].shaped]][str(number)])


def lines_of(truth: Truth, case: str, seed: int, number: int, known, names: Sequence[str], tuning: bool):
    """A line for every arm: mean gaps of all multiples, and where it is reported gaps prompt by prompt of each."""
    lines = []
    for arm in names:
        found = of_arm(arm, truth, tuned_of(arm, known, number), number, seed)
        lines.append({"seed": seed, "case": case, "labels": number, "arm": arm} | _kept(truth, found, tuning))
    return lines


def ends_of(truth: Truth, case: str, seed: int, tuning: bool):
    """The same for no label and for those of all pairs."""
    ends = dict(zip(ENDS, (np.zeros_like(truth.parameter), truth.parameter), strict=True))
    return [
        {"seed": seed, "case": case, "labels": 0, "arm": name, "variance": truth.residual}
        | _kept(truth, truth.gaps(parameter, MULTIPLES), tuning)
        for name, parameter in ends.items()
    ]


def _kept(truth, found, tuning):
    kept = {"by_multiple": np.round(found.mean(axis=1), 6).tolist()}
    if not tuning:
        kept |= {"prompts": truth.split.held_back.tolist(), "gaps": np.round(found, DIGITS).tolist()}
    return kept


def measured(given, data, path: Path) -> None:
    """Append what is missing: ridges, lines of the tuning seeds, then those of the seeds that are reported."""
    known = {line["case"]: line["random"] for line in read_lines(path) if "random" in line}
    for case in given.cases:
        held = known.get(case, {arm: {} for arm in RANDOM})
        missing = [number for number in given.labels if str(number) not in held[AGAINST]]
        if missing:
            made = tuned_for_random(case, data[case], given, missing)
            known[case] = {arm: held[arm] | made[arm] for arm in RANDOM}
            append_lines(path, [{"case": case, "random": known[case]}])
            print(case, known[case], flush=True)
    done = {(line["seed"], line["case"], line["labels"], line["arm"]) for line in read_lines(path) if "seed" in line}
    tuning = range(TUNING_SEED, TUNING_SEED + given.tuning_seeds)
    for seed in (*tuning, *range(given.first_seed, given.first_seed + given.seeds)):
        splits: dict[bool, Split] = {}  # of one seed: all cases but one have the same features
        for case in given.cases:
            wanted = {
                number: [a for a in given.arms if fits(case, a) and (seed, case, number, a) not in done]
                for number in given.labels
            }
            if not any(wanted.values()):
                continue
            own = case == "human"
            splits[own] = splits.get(own) or make_split(data[case].features, given.components, seed)
            truth = make_truth(case, data[case], splits[own], given.beta, seed)
            if (seed, case, 0, "ceiling") not in done:
                append_lines(path, ends_of(truth, case, seed, seed in tuning))
            for number, names in wanted.items():
                append_lines(path, lines_of(truth, case, seed, number, known[case], names, seed in tuning))
            print(f"seed {seed}, {case}", flush=True)


def summary(lines: Sequence[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """{case: {"arms": `paired.compared` at the tuned multiples, and what they are}} of the seeds that all arms have."""
    found = {}
    for case in given.cases:
        own = [line for line in lines if line["case"] == case and _asked_for(line, given)]
        known = [line["random"] for line in lines if line["case"] == case and "random" in line][-1]
        multiples = _multiples([line for line in own if line["seed"] >= TUNING_SEED])
        reported = [line for line in own if line["seed"] < TUNING_SEED]
        seeds = sorted(_common(reported))
        if not seeds:
            continue
        variances = [line["variance"] for line in reported if line["arm"] == "ceiling" and line["seed"] in seeds]
        found[case] = {
            "seeds": seeds,
            "tuning_seeds": sorted(_common([line for line in own if line["seed"] >= TUNING_SEED])),
            "arms": paired.compared(_tables(reported, seeds, multiples), AGAINST),
            "variance": float(np.mean(variances)),
            "ridges": {arm: {n: ridge for n, (ridge, _) in tuned.items()} for arm, tuned in known.items()},
            "multiples": {f"{arm}/{number}": MULTIPLES[k] for (number, arm), k in multiples.items()},
        }
    return found


def _asked_for(line, given) -> bool:
    return line.get("arm") in ENDS or (line.get("arm") in given.arms and line["labels"] in given.labels)


def _multiples(lines) -> dict[tuple[int, str], int]:
    """Which multiple of the tuning seeds has the smallest mean gap, by number of labels and arm."""
    total: dict[tuple[int, str], Any] = {}
    for line in lines:
        place = (line["labels"], line["arm"])
        total[place] = total.get(place, 0) + np.asarray(line["by_multiple"])
    return {place: int(np.argmin(values)) for place, values in total.items()}


def _common(lines) -> set[int]:
    """Seeds that every arm has at every number of labels where any has it."""
    by_place: dict[tuple, set[int]] = {}
    for line in lines:
        by_place.setdefault((line["labels"], line["arm"]), set()).add(line["seed"])
    return set.intersection(*by_place.values()) if by_place else set()


def _tables(lines, seeds, multiples):
    """{labels: {arm: (seeds, prompts), NaN where a prompt was trained on}}; the ends at every number of labels."""
    counts = sorted({line["labels"] for line in lines} - {0})
    row = {seed: number for number, seed in enumerate(seeds)}
    width = 1 + max(max(line["prompts"]) for line in lines)
    found: dict[int, dict[str, np.ndarray]] = {number: {} for number in counts}
    for line in lines:
        if line["seed"] not in row:
            continue
        values = line["gaps"][multiples[line["labels"], line["arm"]]]
        for number in [line["labels"]] if line["labels"] else counts:
            table = found[number].setdefault(line["arm"], np.full((len(seeds), width), np.nan))
            table[row[line["seed"]], line["prompts"]] = values
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.real_pools", description=__doc__)
    parser.add_argument("--lines", required=True, help="JSON lines, appended seed by seed")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=[*PLAIN, *SHAPED, *PROXIES])
    parser.add_argument("--labels", type=int, nargs="+", default=[32, 64, 160, 400, 1280])
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--tuning-seeds", type=int, default=4, help=f"how many, from {TUNING_SEED:,}")
    parser.add_argument("--components", type=int, default=64, help="principal components that are kept")
    parser.add_argument("--beta", type=float, default=1.0, help="strength of the KL term")
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
    measured(given, {case: load(case) for case in given.cases}, path)
    cases = summary(read_lines(path), given)
    given_for = {name: value for name, value in settings(given).items() if "seed" not in name}  # cases say which
    results = {"machine": machine(), "settings": given_for, "cases": cases}
    for case, found in cases.items():
        print(case, f"{len(found['seeds'])} seeds, v = {found['variance']:.3g}", flush=True)
        for arm, row in found["arms"].items():
            ratios = " ".join(f"{n}: {r[0]:.3f} [{r[1]:.3f}, {r[2]:.3f}]" for n, r in row["ratio"].items())
            print(f"  {arm:28s}", ratios, flush=True)
    write_json(results, given.json)
    if given.plot:
        plot_gaps(results["cases"], given.plot)
    return results


if __name__ == "__main__":
    main()
