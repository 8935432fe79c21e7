"""Real completions: the policy gap on held-back prompts, by how the labelled pairs were chosen.

    python -m bench.experiments.real_pools --seeds 20 --json FILE --plot FILE

Features: principal components of the within-prompt features of the training prompts (`--components`, 64). Every seed
splits the prompts anew, 77% to choose pairs from, the rest held back; all arms of a seed share it, and a pair that two
arms choose gets the same label. H is that of the held-back prompts, whose features (not rewards) all arms may see, as
those of a deployment pool would be.
Every arm's labels are fitted alike: posterior mode with one ridge (tuned for random pairs, `--tune`, on seeds from
1,000 on that are not reported). The policy is log-linear, the reference the uniform policy over the completions.

Cases, where r is the reward that labels are drawn from and the gap is measured with:
    well_specified  alpacaeval, r = phi . theta_bt in the components used
    judge_4         alpacaeval, r = reward of the judge / 4: not linear in the features (R2 about 0.35)
    judge_1         the same at temperature 1: labels nearly always follow the judge
    human           wmt21_ted_zhen, r = score of professional raters; the label is the better score, ties are ties

Arms: those of `arms.choose`; trace_two_rounds, a pilot of a quarter of the labels and then the design at its posterior;
and rounds, the same with a quarter of either part drawn at random, the default of `preference.RoundPlan`.

Where r is not linear no linear policy has gap zero: `limit` is the gap of labels of all pairs, 50,000 of them drawn.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

import jaxdesign as jd
from bench.experiments import arms, paired
from bench.experiments.files import settings, write_json
from bench.experiments.plots import plot_gaps
from bench.measure import machine
from bench.pools import DATA_VARIABLE
from jaxdesign import preference as pref
from jaxdesign._arrays import float64
from jaxdesign.preference.labels.labels import FIRST, SECOND, TIE

CASES = ("well_specified", "judge_4", "judge_1", "human")
RIDGE = {"well_specified": 0.1, "judge_4": 0.1, "judge_1": 0.02, "human": 0.5}
ROUNDS = {"trace_two_rounds": ("trace", 0.0), "rounds": ("trace_floor", arms.FLOOR)}  # pilot, and floor of the rest
ARMS = ("random", "trace", *ROUNDS, *(a for a in arms.ONE_ROUND if a not in ("random", "trace")))
LIMIT_PAIRS = 50_000
TRIED = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # ridges


class Truth(NamedTuple):
    """One seed of one case: what may be known, and what decides labels and gaps."""

    problem: arms.Problem
    rewards: Float[np.ndarray, "p k"]
    held_back: Float[np.ndarray, "q k"]
    luck: Float[np.ndarray, "p k k"]  # uniform numbers, one for every pair
    verdict: bool  # labels are the better reward, instead of Bradley-Terry draws
    parameter: Float[np.ndarray, " d"]  # of the reward, or what the labels of all pairs lead to

    def ask(self, pairs: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
        """The label of each pair."""
        p, i, j = np.asarray(pairs).T
        margin = self.rewards[p, i] - self.rewards[p, j]
        if self.verdict:
            return np.where(margin == 0, TIE, np.where(margin > 0, FIRST, SECOND))
        return np.where(self.luck[p, i, j] < 1 / (1 + np.exp(-margin)), FIRST, SECOND)

    def gap(self, parameter: Float[np.ndarray, " d"]) -> float:
        """J(pi*) - J(pi) on the held-back prompts, pi* best for their true rewards."""
        problem = self.problem
        with float64():
            mask = problem.deployment.mask
            best = pref.optimal_policy(jnp.asarray(self.held_back), problem.beta, mask)
            found = pref.log_policy(problem.deployment, jnp.asarray(parameter) / problem.beta)
            return float(pref.policy_gap(found, best, problem.beta))

    def accuracy(self, parameter: Float[np.ndarray, " d"]) -> float:
        """Share of the held-back pairs with different rewards whose order the fitted scores tell."""
        scores = np.asarray(self.problem.deployment.features, np.float64) @ parameter
        i, j = np.triu_indices(scores.shape[1], 1)
        truth, guess = self.held_back[:, i] - self.held_back[:, j], scores[:, i] - scores[:, j]
        decided = truth != 0
        return paired.share_right(truth[decided], guess[decided])


def load(case: str) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Features (P, K, d), theta_bt or None, rewards (P, K) or None."""
    root = os.environ.get(DATA_VARIABLE)
    folder = Path(root or "") / ("wmt21_ted_zhen" if case == "human" else "alpacaeval")
    if not root or not (folder / "features.npy").is_file():
        raise SystemExit(f"{DATA_VARIABLE} must name the folder that holds {folder.name}/features.npy")
    features = np.load(folder / "features.npy").astype(np.float64)
    if case == "well_specified":
        return features, np.load(folder / "theta_bt.npy").astype(np.float64), None
    temperature = {"judge_4": 4.0, "judge_1": 1.0, "human": 1.0}[case]
    return features, None, np.load(folder / "reward.npy").astype(np.float64) / temperature


def make_truth(case: str, data, components: int, beta: float, ridge: float, seed: int) -> Truth:
    """Split the prompts, reduce the features to principal components of the training side, set up the case."""
    features, theta, rewards = data
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(features))
    training, held_back = np.split(order, [round(0.77 * len(order))])
    centred = features[training] - features[training].mean(axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(np.einsum("pkd,pke->de", centred, centred, optimize=True))
    basis = vectors[:, ::-1][:, :components]
    pool, deployment = ((features[part] @ basis).astype(np.float32) for part in (training, held_back))
    if theta is None:
        seen, unseen = rewards[training], rewards[held_back]
    else:
        seen, unseen = (part.astype(np.float64) @ (basis.T @ theta) for part in (pool, deployment))
    problem = arms.Problem(jd.CompletionPool(pool), jd.CompletionPool(deployment), ridge, beta, seen)
    luck = rng.random((len(training), features.shape[1], features.shape[1]), np.float32)
    truth = Truth(problem, seen, unseen, luck, case == "human", np.zeros(components))
    parameter = limit(truth, seed) if theta is None else basis.T @ theta
    return truth._replace(
        problem=problem._replace(true_target=problem.target(parameter)),
        parameter=parameter,
    )


def limit(truth: Truth, seed: int) -> Float[np.ndarray, " d"]:
    """The parameter that the probabilities of very many random pairs lead to: the best linear one, all but exactly."""
    rng = np.random.default_rng([seed, 1])
    prompts, width = truth.rewards.shape
    p, i, j = rng.integers(prompts, size=LIMIT_PAIRS), *rng.integers(width, size=(2, LIMIT_PAIRS))
    features = np.asarray(truth.problem.pool.features, np.float64)
    margin = truth.rewards[p, i] - truth.rewards[p, j]
    chance = (1 + np.sign(margin)) / 2 if truth.verdict else 1 / (1 + np.exp(-margin))
    found = pref.fit_bradley_terry(features[p, i] - features[p, j], chance, np.ones(LIMIT_PAIRS), prior=1e-2)
    return np.asarray(found.parameter)


def fitted(truth: Truth, labels: pref.Labels, ridge: float) -> Float[np.ndarray, " d"]:
    return pref.fit_posterior(truth.problem.pool, labels, ridge).parameter


def labels_of(arm: str, truth: Truth, number: int, seed: int, pilots: dict) -> pref.Labels:
    """What one arm has after `number` labels. pilots: keeps designs that several cases share."""
    budget = jd.Budget(number, per_pair=1)
    problem = truth.problem
    if arm in ROUNDS:
        first, floor = ROUNDS[arm]
        pilot = jd.Budget(round(arms.PILOT * number), per_pair=1)
        chosen = _once(pilots, (first, pilot.total), lambda: arms.choose(first, problem, pilot, seed))
        return arms.two_rounds(problem, chosen, truth.ask, budget, seed, floor)
    if arm in (*arms.NEED_SCORES, "trace_oracle"):
        pairs = arms.choose(arm, problem, budget, seed)
    else:
        pairs = _once(pilots, (arm, number), lambda: arms.choose(arm, problem, budget, seed))
    return pref.as_labels(pairs, truth.ask(pairs))


def _once(store: dict, key, make):
    if key not in store:
        store[key] = make()
    return store[key]


def one_seed(case: str, data, given, ridge: float, seed: int, designs: dict) -> dict[str, Any]:
    """{"rows": [{"labels", "arm", "gap", "accuracy"}], "reference": gap of the reference policy, "limit": ...}."""
    truth = make_truth(case, data, given.components, given.beta, ridge, seed)
    rows = []
    for number in given.labels:
        for arm in given.arms:
            if arm == "trace_oracle" and case != "well_specified":
                continue  # nothing linear is the truth
            found = fitted(truth, labels_of(arm, truth, number, seed, designs), ridge)
            rows.append({"labels": number, "arm": arm, "gap": truth.gap(found), "accuracy": truth.accuracy(found)})
    best = truth.parameter
    ends = {"reference": truth.gap(np.zeros_like(best)), "limit": truth.gap(best), "accuracy": truth.accuracy(best)}
    return {"seed": seed, "rows": rows, **ends}


def summary(seeds: Sequence[dict]) -> dict[str, Any]:
    """`paired.compared` of the gaps, mean accuracy, and what bounds them."""
    gaps: dict[int, dict[str, list]] = {}
    right: dict[str, dict[int, list]] = {}
    for one in seeds:
        for row in one["rows"]:
            gaps.setdefault(row["labels"], {}).setdefault(row["arm"], []).append(row["gap"])
            right.setdefault(row["arm"], {}).setdefault(row["labels"], []).append(row["accuracy"])
    found = paired.compared(gaps)
    for arm, by_count in right.items():
        found[arm]["accuracy"] = {n: float(np.mean(values)) for n, values in by_count.items()}
    ends = {name: float(np.mean([one[name] for one in seeds])) for name in ("reference", "limit", "accuracy")}
    return {"arms": found, "ends": ends, "seeds": len(seeds), "by_seed": list(seeds)}


def tune(case: str, data, given) -> list[dict[str, float]]:
    """Mean gap of random pairs for every ridge and number of labels."""
    gaps: dict[tuple[float, int], list[float]] = {}
    for seed in range(1000, 1000 + given.seeds):
        truth = make_truth(case, data, given.components, given.beta, 1.0, seed)
        for number in given.labels:
            labels = labels_of("random", truth, number, seed, {})  # random pairs do not depend on the ridge
            for ridge in TRIED:
                gaps.setdefault((ridge, number), []).append(truth.gap(fitted(truth, labels, ridge)))
    rows = [{"ridge": ridge, "labels": n, "gap": float(np.mean(values))} for (ridge, n), values in gaps.items()]
    for row in sorted(rows, key=lambda row: (row["ridge"], row["labels"])):
        print(case, row, flush=True)
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.real_pools", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--labels", type=int, nargs="+", default=[64, 160, 400, 1280])
    parser.add_argument("--seeds", type=int, default=20, help="how many, from 0 (--tune: from 1,000)")
    parser.add_argument("--components", type=int, default=64, help="principal components that are kept")
    parser.add_argument("--beta", type=float, default=1.0, help="strength of the KL term")
    parser.add_argument("--ridge", type=float, help="of the fit, instead of those tuned for 64 components")
    parser.add_argument("--tune", action="store_true", help="gaps of random pairs by ridge instead")
    parser.add_argument("--json", metavar="FILE", help="write the results here")
    parser.add_argument("--plot", metavar="FILE", help="draw the gaps here")
    given = parser.parse_args(arguments)
    if "random" not in given.arms and not given.tune:
        parser.error("--arms: random must be among them; the others are compared with it")
    if given.seeds < 1:
        parser.error(f"--seeds {given.seeds}: at least 1")
    return given


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    given = parse(arguments)
    results: dict[str, Any] = {"machine": machine(), "settings": settings(given) | {"ridges": RIDGE}, "cases": {}}
    data = {case: load(case) for case in given.cases}
    if given.tune:
        results["cases"] = {case: tune(case, data[case], given) for case in given.cases}
        write_json(results, given.json)
        return results
    seeds: dict[str, list] = {case: [] for case in given.cases}
    for seed in range(given.seeds):
        began = time.perf_counter()
        designs: dict[tuple, dict] = {}
        for case in given.cases:
            ridge = RIDGE[case] if given.ridge is None else given.ridge
            shared = designs.setdefault((case == "human", ridge), {})
            seeds[case].append(one_seed(case, data[case], given, ridge, seed, shared))
            results["cases"][case] = summary(seeds[case])
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
        write_json(results, given.json)
    for case, found in results["cases"].items():
        print(case, found["ends"], flush=True)
        for arm, row in found["arms"].items():
            ratios = " ".join(f"{n}: {r[0]:.3f} [{r[1]:.3f}, {r[2]:.3f}]" for n, r in row["ratio"].items())
            print(f"  {arm:18s}", ratios, " saved", [round(x, 2) for x in row["labels_saved"].values()])
    if given.plot:
        plot_gaps(results["cases"], given.plot)
    return results


if __name__ == "__main__":
    main()
