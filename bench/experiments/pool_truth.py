"""One split of a real pool: what may be known when pairs are chosen, and what decides labels and gaps.

Features are principal components of the within-prompt features of the training prompts, 77% of all. Pairs are chosen
among different completions (rows of features that differ; the first of equal ones stays), the policy is judged on all
completions of the prompts held back: they are a sample of the reference policy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

import jaxdesign as jd
from bench.experiments import arms
from bench.pools import DATA_VARIABLE
from jaxdesign import preference as pref
from jaxdesign.preference.features.equals import first_of_equals
from jaxdesign.preference.labels.labels import FIRST, SECOND, TIE

CASES = ("well_specified", "judge_4", "judge_1", "human")
TEMPERATURE = {"judge_4": 4.0, "judge_1": 1.0, "human": 1.0}
TRAINING = 0.77  # share of the prompts
LIMIT_PAIRS = 50_000


class Data(NamedTuple):
    """What a file of a case has: features (P, K, d), and rewards (P, K) or the parameter (d,) that gives them."""

    features: Float[np.ndarray, "p k d"]
    rewards: Float[np.ndarray, "p k"] | None
    parameter: Float[np.ndarray, " d"] | None


class Split(NamedTuple):
    """One seed of a pool, which cases that share its features share.

    Args:
        pool, whole: of the training prompts, with different completions only and with all.
        deployment: of those held back.
        basis: (d, components).
        training, held_back: which prompts of the data.
        luck: uniform numbers: [p, i, j] of a pair's first label, [p, j, i] of its second.
        unit: a residual of v = 1 in the pool.
        designs: of first rounds that were made, by what they depend on.
    """

    pool: jd.CompletionPool
    whole: jd.CompletionPool
    deployment: jd.CompletionPool
    basis: Float[np.ndarray, "d r"]
    training: Int[np.ndarray, " t"]
    held_back: Int[np.ndarray, " q"]
    luck: Float[np.ndarray, "t k k"]
    unit: jd.Residual
    designs: dict[Any, Int[np.ndarray, "n 3"]]


class Truth(NamedTuple):
    """One seed of one case.

    Args:
        problem: as arms see it: different completions only, H of the prompts held back.
        split: its prompts and features.
        rewards, unseen: of the training prompts and of those held back.
        verdict: labels are the better reward, instead of Bradley-Terry draws.
        parameter: of the reward, or what the true probabilities of all pairs lead to.
        residual: v of what the linear fit to all margins leaves of them, 0 where nothing is left.
        closed: every pair may be asked about.
    """

    problem: arms.Problem
    split: Split
    rewards: Float[np.ndarray, "p k"]
    unseen: Float[np.ndarray, "q k"]
    verdict: bool
    parameter: Float[np.ndarray, " d"]
    residual: float
    closed: None = None

    @property
    def whole(self) -> jd.CompletionPool:
        """The pool with equal completions too."""
        return self.split.whole

    @property
    def designs(self) -> dict[Any, Int[np.ndarray, "n 3"]]:
        """Of first rounds."""
        return self.split.designs

    def ask(self, pairs: Int[np.ndarray, "n 3"], time: int = 0) -> Int[np.ndarray, " n"]:
        """The first label of each pair, or the second."""
        p, i, j = np.asarray(pairs).T
        margin = self.rewards[p, i] - self.rewards[p, j]
        if self.verdict:
            return np.where(margin == 0, TIE, np.where(margin > 0, FIRST, SECOND))
        luck = (self.split.luck[p, i, j], self.split.luck[p, j, i])[time]
        return np.where(luck < 1 / (1 + np.exp(-margin)), FIRST, SECOND)

    def gaps(self, parameter: Float[np.ndarray, " d"], multiples) -> Float[np.ndarray, "m q"]:
        """J(pi*) - J(pi) = beta KL(pi || pi*) of every prompt held back, pi of multiples of a reward parameter."""
        beta = self.problem.beta
        scores = np.asarray(self.problem.deployment.features, np.float64) @ parameter
        best = _log_softmax(self.unseen / beta)
        found = _log_softmax(np.multiply.outer(np.asarray(multiples, np.float64), scores) / beta)
        return beta * np.sum(np.exp(found) * (found - best), axis=-1)


def _log_softmax(scores):
    scores = scores - scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def load(case: str) -> Data:
    """From the folder of real pools."""
    root = os.environ.get(DATA_VARIABLE)
    folder = Path(root or "") / ("wmt21_ted_zhen" if case == "human" else "alpacaeval")
    if not root or not (folder / "features.npy").is_file():
        raise SystemExit(f"{DATA_VARIABLE} must name the folder that holds {folder.name}/features.npy")
    features = np.load(folder / "features.npy").astype(np.float64)
    if case == "well_specified":
        return Data(features, None, np.load(folder / "theta_bt.npy").astype(np.float64))
    return Data(features, np.load(folder / "reward.npy").astype(np.float64) / TEMPERATURE[case], None)


def make_split(features: Float[np.ndarray, "p k d"], components: int, seed: int) -> Split:
    """Split the prompts and reduce the features to principal components of the training side."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(features))
    training, held_back = (np.sort(part) for part in np.split(order, [round(TRAINING * len(order))]))
    centred = features[training] - features[training].mean(axis=1, keepdims=True)
    rows = centred.reshape(-1, features.shape[2])
    _, vectors = np.linalg.eigh(rows.T @ rows)
    basis = vectors[:, ::-1][:, :components]
    seen, unseen = ((features[part] @ basis).astype(np.float32) for part in (training, held_back))
    _, kinds = np.unique(features[training].reshape(rows.shape), axis=0, return_inverse=True)
    pool = jd.CompletionPool(seen, mask=first_of_equals(kinds.reshape(seen.shape[:2])))
    luck = rng.random((len(training), *[features.shape[1]] * 2), np.float32)
    whole, deployment, unit = jd.CompletionPool(seen), jd.CompletionPool(unseen), jd.residual_of(pool, 1.0)
    return Split(pool, whole, deployment, basis, training, held_back, luck, unit, {})


def make_truth(case: str, data: Data, split: Split, beta: float, seed: int) -> Truth:
    """Set up a case on a split; its problem has no prior yet."""
    if data.parameter is not None:
        parameter = split.basis.T @ data.parameter
        rewards, unseen = (
            np.asarray(part.features, np.float64) @ parameter for part in (split.whole, split.deployment)
        )
    elif data.rewards is not None:
        parameter = np.zeros(split.pool.dim)
        rewards, unseen = data.rewards[split.training], data.rewards[split.held_back]
    else:
        raise ValueError("data: neither rewards nor a parameter; a case has one of them")
    scores = np.where(np.asarray(split.pool.mask), rewards, 0)
    problem = arms.Problem(split.pool, split.deployment, 0.0, beta, scores)
    truth = Truth(problem, split, rewards, unseen, case == "human", parameter, 0.0)
    if data.parameter is not None:
        return truth
    rows, margin = _random_differences(truth, seed)
    return truth._replace(
        parameter=limit(rows, margin, truth.verdict), residual=residual_variance(rows, margin, split.unit)
    )


def _random_differences(truth: Truth, seed: int):
    """Differences of features and rewards of many random pairs."""
    rng = np.random.default_rng([seed, 1])
    prompts, width = truth.rewards.shape
    p, i, j = rng.integers(prompts, size=LIMIT_PAIRS), *rng.integers(width, size=(2, LIMIT_PAIRS))
    features = np.asarray(truth.whole.features, np.float64)
    return features[p, i] - features[p, j], truth.rewards[p, i] - truth.rewards[p, j]


def limit(rows: Float[np.ndarray, "n d"], margin: Float[np.ndarray, " n"], verdict: bool) -> Float[np.ndarray, " d"]:
    """The parameter that the probabilities of very many random pairs lead to: the best linear one, all but exactly."""
    chance = (1 + np.sign(margin)) / 2 if verdict else 1 / (1 + np.exp(-margin))
    return np.asarray(pref.fit_bradley_terry(rows, chance, np.ones(LIMIT_PAIRS), prior=1e-2).parameter)


def residual_variance(rows: Float[np.ndarray, "n d"], margin: Float[np.ndarray, " n"], unit: jd.Residual) -> float:
    """v of residuals v l_e of margins about their least-squares fit: their squares' sum over that of the lengths."""
    left = margin - rows @ np.linalg.lstsq(rows, margin, rcond=None)[0]
    return float(np.sum(left**2) / np.sum((rows @ np.asarray(unit.noise)) ** 2))
