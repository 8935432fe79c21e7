"""Human votes as they are: which pairs of pandalm are worth a vote, judged by the votes on held-back prompts.

    python -m bench.experiments.human_votes --seeds 20 --json FILE --plot FILE

Nothing is simulated. 607 pairs of completions of 104 prompts have three human votes each; a chosen pair gets one of
them, and in the pilot of `two_rounds_pilot` two. Every seed splits the prompts anew, 3 to 1; features are principal
components of the training prompts'. The posterior mode of the labels is judged by the log loss of all votes on
held-back prompts (a tie is half a vote for each) and by the share of its decided majorities that are told right. log 2
= 0.693 and one half are what no labels give; `every_vote` is what all votes on the training prompts give.

Tuned on seeds from 1,000 on, at each number of labels: the ridge of fit and design, for random pairs, then the multiple
of the fitted parameter, for every arm in the same way. Losses are kept prompt by prompt; limits are over new prompts.
Pairs of equal features are closed to all arms.

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
from bench.experiments import arms
from bench.experiments.by_prompt import ratio_interval
from bench.experiments.files import plain, settings, write_json
from bench.experiments.plots import plot_votes
from bench.experiments.pool_arms import OTHERS, PLAIN, labels_of
from bench.measure import machine
from bench.pools import DATA_VARIABLE
from jaxdesign import preference as pref
from jaxdesign.preference.labels.labels import FIRST, SECOND, TIE

ARMS = tuple(
    arm
    for arm in (*PLAIN, *OTHERS)
    if arm not in ("random", "two_rounds_known", *arms.NEED_SCORES)  # no pair of equal features here, no true margin
)
AGAINST, EVERY = "random_distinct", "every_vote"
TRAINING = 0.75  # share of the prompts
TUNING_SEED = 1000  # the first
RIDGES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
MULTIPLES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
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


def closed_pairs(votes: Votes) -> Int[np.ndarray, "n 3"]:
    """Pairs of completions that nobody voted on, or that have the same features: they cannot be chosen."""
    p, k = np.nonzero(votes.mask)
    same = p[:, None] == p[None, :]
    a, b = np.nonzero(np.triu(same, 1))
    every = np.stack([p[a], k[a], k[b]], axis=1)
    differ = (votes.features[p[a], k[a]] != votes.features[p[b], k[b]]).any(axis=1)
    return every[~(np.isin(_code(votes, every), _code(votes, votes.pairs)) & differ)]


def _code(votes, pairs):
    """A number for each pair."""
    return pairs @ np.array([votes.mask.size * 64, 64, 1])


class Poll(NamedTuple):
    """One split: what `pool_arms.labels_of` needs, and the votes it is judged by."""

    problem: arms.Problem
    whole: jd.CompletionPool
    closed: Int[np.ndarray, "c 3"]
    votes: Votes
    turn: Int[np.ndarray, " m"]  # whose vote a pair gets first
    held_back: Int[np.ndarray, " q"]
    judges: Votes
    designs: dict[Any, Int[np.ndarray, "n 3"]]
    residual: float = 0.0
    parameter: Float[np.ndarray, " d"] = np.zeros(0)

    def ask(self, pairs: Int[np.ndarray, "n 3"], time: int = 0) -> Int[np.ndarray, " n"]:
        """One vote on each pair; the second is somebody else's."""
        codes = _code(self.votes, self.votes.pairs)
        order = np.argsort(codes)
        row = order[np.searchsorted(codes[order], _code(self.votes, np.asarray(pairs)))]
        return self.votes.choices[row, (self.turn[row] + time) % 3]


def make_poll(votes: Votes, components: int, seed: int) -> Poll:
    """Split the prompts and reduce the features."""
    rng = np.random.default_rng(seed)
    parts = np.split(rng.permutation(len(votes.mask)), [round(TRAINING * len(votes.mask))])
    training, held_back = (np.sort(part) for part in parts)
    seen, unseen = of_prompts(votes, training), of_prompts(votes, held_back)
    closed = closed_pairs(seen)
    weights = seen.mask / np.maximum(seen.mask.sum(axis=1, keepdims=True), 1)
    centred = (seen.features - np.einsum("pk,pkd->pd", weights, seen.features)[:, None]) * seen.mask[..., None]
    _, vectors = np.linalg.eigh(np.einsum("pkd,pke->de", centred, centred))
    basis = vectors[:, ::-1][:, :components]
    seen, unseen = (part._replace(features=part.features @ basis) for part in (seen, unseen))
    pool, deployment = (jd.CompletionPool(v.features.astype(np.float32), mask=v.mask) for v in (seen, unseen))
    turn = rng.integers(3, size=len(seen.pairs))
    return Poll(arms.Problem(pool, deployment, 0.0, 1.0), pool, closed, seen, turn, held_back, unseen, {})


class Judged(NamedTuple):
    """Sums over the votes, and over the decided pairs, of each prompt held back; of every multiple of a parameter."""

    losses: Float[np.ndarray, "m q"]
    votes: Float[np.ndarray, " q"]
    right: Float[np.ndarray, "m q"]
    decided: Float[np.ndarray, " q"]


def judged(parameter: Float[np.ndarray, " d"], votes: Votes, multiples: Sequence[float] = (1.0,)) -> Judged:
    """Log losses of all votes, and decided majorities told right, by scores phi . w."""
    scores = votes.features @ parameter
    p, i, j = votes.pairs.T
    margin = np.multiply.outer(np.asarray(multiples, np.float64), scores[p, i] - scores[p, j])
    share = np.select([votes.choices == FIRST, votes.choices == SECOND], [1.0, 0.0], 0.5).mean(axis=1)
    loss = votes.choices.shape[1] * (share * np.logaddexp(0, -margin) + (1 - share) * np.logaddexp(0, margin))
    told = (share != 0.5) * (1 + np.sign(share - 0.5) * np.sign(margin)) / 2
    by_prompt = np.eye(len(votes.mask))[p]
    counts = np.full(len(p), float(votes.choices.shape[1]))
    return Judged(loss @ by_prompt, counts @ by_prompt, told @ by_prompt, (share != 0.5) @ by_prompt)


def of_seed(poll: Poll, names: Sequence[str], number: int, ridge: float, seed: int) -> dict[str, Judged]:
    """These arms, and every vote, judged at all multiples."""
    every = pref.as_labels(np.repeat(poll.votes.pairs, 3, axis=0), poll.votes.choices.ravel())
    made = {arm: labels_of(arm, poll, ridge, number, seed) for arm in names} | {EVERY: every}
    fits = {arm: pref.fit_posterior(poll.whole, labels, ridge).parameter for arm, labels in made.items()}
    return {arm: judged(parameter, poll.judges, MULTIPLES) for arm, parameter in fits.items()}


def tuned(polls: dict[int, Poll], names: Sequence[str], number: int) -> tuple[float, dict[str, int]]:
    """The ridge of the best fit to random pairs, and with it the best multiple of every arm."""
    losses = [
        sum(of_seed(poll, [AGAINST], number, ridge, seed)[AGAINST].losses.sum(axis=1) for seed, poll in polls.items())
        for ridge in RIDGES
    ]
    ridge = RIDGES[int(np.argmin([values[MULTIPLES.index(1.0)] for values in losses]))]
    found = [of_seed(poll, names, number, ridge, seed) for seed, poll in polls.items()]
    return ridge, {arm: int(np.argmin(sum(one[arm].losses.sum(axis=1) for one in found))) for arm in (*names, EVERY)}


def row_of(polls: dict[int, Poll], found: Sequence[dict[str, Judged]], arm: str, best: dict[str, int]):
    """Loss and accuracy of an arm at its multiple, and the difference of losses to random pairs over new prompts."""
    width = 1 + max(int(poll.held_back.max()) for poll in polls.values())
    tables = np.full((3, len(polls), width), np.nan)
    for k, (poll, one) in enumerate(zip(polls.values(), found, strict=True)):
        own, other = one[arm].losses[best[arm]], one[AGAINST].losses[best[AGAINST]]
        tables[:, k, poll.held_back] = own, own - other, one[arm].votes
    right = sum(one[arm].right[best[arm]].sum() for one in found)
    return {
        "arm": arm,
        "multiple": MULTIPLES[best[arm]],
        "loss": float(np.nansum(tables[0]) / np.nansum(tables[2])),
        "accuracy": float(right / sum(one[arm].decided.sum() for one in found)),
        "difference": ratio_interval(tables[1], tables[2]),
    }


def measured(votes: Votes, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of all arms at all numbers of labels."""
    table = []
    splits = {
        first: {seed: make_poll(votes, given.components, seed) for seed in range(first, first + number)}
        for first, number in ((TUNING_SEED, given.tuning_seeds), (given.first_seed, given.seeds))
    }
    for number in given.labels:
        ridge, best = tuned(splits[TUNING_SEED], given.arms, number)
        polls = splits[given.first_seed]
        found = [of_seed(poll, given.arms, number, ridge, seed) for seed, poll in polls.items()]
        for arm in (*given.arms, EVERY):
            table.append({"labels": number, "ridge": ridge} | row_of(polls, found, arm, best))
            print(json.dumps(plain(table[-1])), flush=True)
    return table


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.human_votes", description=__doc__)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--tuning-seeds", type=int, default=10, help=f"how many, from {TUNING_SEED:,}")
    parser.add_argument("--components", type=int, default=32)
    parser.add_argument("--json", metavar="FILE", help="write the results here")
    parser.add_argument("--plot", metavar="FILE", help="draw the losses here")
    given = parser.parse_args(arguments)
    if AGAINST not in given.arms:
        parser.error(f"--arms: {AGAINST} must be among them; the others are compared with it")
    results = {"machine": machine(), "settings": settings(given), "table": measured(load(), given)}
    write_json(results, given.json)
    if given.plot:
        plot_votes(results, given.plot)
    return results


if __name__ == "__main__":
    main()
