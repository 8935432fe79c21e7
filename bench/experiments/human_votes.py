"""Human votes as they are: which pairs of pandalm are worth a vote, judged by the votes on held-back prompts.

    python -m bench.experiments.human_votes --seeds 20 --json FILE --plot FILE

Nothing is simulated. 607 pairs of completions of 104 prompts have three human votes each; a chosen pair gets one of
them. Every seed splits the prompts anew, 3 to 1; features are principal components of the training prompts'. The
posterior mode of the labels (one ridge for all arms, tuned on `--first-seed 1000`) is judged by the log loss of all
votes on held-back prompts (a tie is half a vote for each) and by the share of its decided majorities that are told
right. log 2 = 0.693 and one half are what no labels give; `every_vote` is what all votes on the training prompts give.

No true reward is known here, so there is no policy gap, and arms that need scores are left out.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

import jaxdesign as jd
from bench.experiments import arms, paired
from bench.experiments.files import settings, write_json
from bench.experiments.paired import share_right
from bench.experiments.plots import plot_votes
from bench.measure import machine
from bench.pools import DATA_VARIABLE
from jaxdesign import preference as pref
from jaxdesign.preference.labels.labels import FIRST, SECOND, TIE

ARMS = tuple(arm for arm in arms.ONE_ROUND if arm not in (*arms.NEED_SCORES, "trace_oracle"))
CHOICES = np.array([TIE, FIRST, SECOND], np.int8)  # of the votes 0, 1, 2


class Votes(NamedTuple):
    """features (P, K, d) padded, mask (P, K), pairs (M, 3) rows (prompt, i, j), i < j, choices (M, 3) of 3 people."""

    features: Float[np.ndarray, "p k d"]
    mask: Bool[np.ndarray, "p k"]
    pairs: Int[np.ndarray, "m 3"]
    choices: Int[np.ndarray, "m 3"]


def load() -> Votes:
    """pandalm from the folder of real pools."""
    root = os.environ.get(DATA_VARIABLE)
    folder = Path(root or "") / "pandalm"
    if not root or not (folder / "features.npy").is_file():
        raise SystemExit(f"{DATA_VARIABLE} must name the folder that holds pandalm/features.npy")
    flat = np.load(folder / "features.npy").astype(np.float64)
    _, prompt = np.unique(np.load(folder / "prompt_index.npy"), return_inverse=True)
    slot = np.array([np.sum(prompt[:row] == prompt[row]) for row in range(len(prompt))])
    features = np.zeros((prompt.max() + 1, slot.max() + 1, flat.shape[1]))
    mask = np.zeros(features.shape[:2], bool)
    features[prompt, slot], mask[prompt, slot] = flat, True
    first, second = np.load(folder / "pairs.npy").T
    choices = CHOICES[np.load(folder / "votes.npy")]
    turned = slot[first] > slot[second]
    choices[turned] = np.choose(choices[turned], [SECOND, FIRST, TIE])
    low, high = np.minimum(slot[first], slot[second]), np.maximum(slot[first], slot[second])
    return Votes(features, mask, np.stack([prompt[first], low, high], axis=1), choices)


def of_prompts(votes: Votes, prompts: Int[np.ndarray, " q"]) -> Votes:
    """The part of these prompts, renumbered."""
    place = np.full(len(votes.mask), -1)
    place[prompts] = np.arange(len(prompts))
    keep = place[votes.pairs[:, 0]] >= 0
    pairs = votes.pairs[keep].copy()
    pairs[:, 0] = place[pairs[:, 0]]
    return Votes(votes.features[prompts], votes.mask[prompts], pairs, votes.choices[keep])


def without_votes(votes: Votes) -> Int[np.ndarray, "n 3"]:
    """Pairs of completions that nobody voted on: they cannot be chosen."""
    p, k = np.nonzero(votes.mask)
    same = p[:, None] == p[None, :]
    a, b = np.nonzero(np.triu(same, 1))
    every = np.stack([p[a], k[a], k[b]], axis=1)
    code = np.array([votes.mask.size * 64, 64, 1])
    return every[~np.isin(every @ code, votes.pairs @ code)]


def judged(parameter: Float[np.ndarray, " d"], votes: Votes) -> tuple[float, float]:
    """(log loss of all votes, share of decided majorities told right) by scores phi . w."""
    scores = votes.features @ parameter
    p, i, j = votes.pairs.T
    margin = scores[p, i] - scores[p, j]
    share = np.select([votes.choices == FIRST, votes.choices == SECOND], [1.0, 0.0], 0.5)
    loss = np.mean(share * np.logaddexp(0, -margin)[:, None] + (1 - share) * np.logaddexp(0, margin)[:, None])
    majority = share.mean(axis=1) - 0.5
    decided = majority != 0
    return float(loss), share_right(majority[decided], margin[decided])


def one_seed(votes: Votes, counts: Sequence[int], components: int, ridges: Sequence[float], chosen, seed: int):
    """[{"labels", "arm", "ridge", "loss", "accuracy"}] of one split."""
    rng = np.random.default_rng(seed)
    seen, unseen = np.split(rng.permutation(len(votes.mask)), [round(0.75 * len(votes.mask))])
    seen, unseen = of_prompts(votes, seen), of_prompts(votes, unseen)
    weights = seen.mask / np.maximum(seen.mask.sum(axis=1, keepdims=True), 1)
    centred = (seen.features - np.einsum("pk,pkd->pd", weights, seen.features)[:, None]) * seen.mask[..., None]
    _, vectors = np.linalg.eigh(np.einsum("pkd,pke->de", centred, centred))
    basis = vectors[:, ::-1][:, :components]
    seen, unseen = (part._replace(features=part.features @ basis) for part in (seen, unseen))
    pool, deployment = (jd.CompletionPool(v.features.astype(np.float32), mask=v.mask) for v in (seen, unseen))
    turn = rng.integers(3, size=len(seen.pairs))  # whose vote a pair gets
    code = np.array([seen.mask.size * 64, 64, 1])
    order = np.argsort(seen.pairs @ code)
    closed = without_votes(seen)
    rows = []
    for ridge in ridges:
        problem = arms.Problem(pool, deployment, ridge, 1.0)
        every = pref.as_labels(np.repeat(seen.pairs, 3, axis=0), seen.choices.ravel())
        sets = {("every_vote", every.choices.size): every}
        for number in counts:
            for arm in chosen:
                pairs = arms.choose(arm, problem, jd.Budget(number, per_pair=1, exclude=closed), seed)
                row = order[np.searchsorted((seen.pairs @ code)[order], pairs @ code)]
                sets[arm, number] = pref.as_labels(pairs, seen.choices[row, turn[row]])
        for (arm, number), labels in sets.items():
            loss, accuracy = judged(pref.fit_posterior(pool, labels, ridge).parameter, unseen)
            rows.append({"labels": number, "arm": arm, "ridge": ridge, "loss": loss, "accuracy": accuracy})
    return rows


def summary(seeds: Sequence[list[dict]]) -> list[dict[str, Any]]:
    """Mean loss and accuracy of each arm, and the paired difference of losses to random with 95% limits."""
    found: dict[tuple, list[dict]] = {}
    for rows in seeds:
        for row in rows:
            name = row["arm"]
            found.setdefault((row["ridge"], 0 if name == "every_vote" else row["labels"], name), []).append(row)
    table = []
    for (ridge, number, arm), rows in found.items():
        line = {"ridge": ridge, "labels": number or "all", "arm": arm}
        line |= {key: float(np.mean([row[key] for row in rows])) for key in ("loss", "accuracy")}
        if (ridge, number, "random") in found:
            other = [row["loss"] for row in found[ridge, number, "random"]]
            line["difference"] = paired.mean_interval(np.subtract([row["loss"] for row in rows], other))
            line["ratio"] = paired.mean_interval(np.divide([row["loss"] for row in rows], other))
        table.append(line)
    return table


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.human_votes", description=__doc__)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--components", type=int, default=32)
    parser.add_argument("--ridge", type=float, nargs="+", default=[2.0], help="of fits and designs, one or several")
    parser.add_argument("--json", metavar="FILE", help="write the results here")
    parser.add_argument("--plot", metavar="FILE", help="draw the losses here")
    given = parser.parse_args(arguments)
    votes = load()
    seeds = [
        one_seed(votes, given.labels, given.components, given.ridge, given.arms, seed)
        for seed in range(given.first_seed, given.first_seed + given.seeds)
    ]
    results = {"machine": machine(), "settings": settings(given), "table": summary(seeds), "seeds": seeds}
    for line in results["table"]:
        print(json.dumps(line))
    write_json(results, given.json)
    if given.plot:
        plot_votes(results, given.plot)
    return results


if __name__ == "__main__":
    main()
