"""How much of a reward features of a real small language model explain, on prompts that the fit has not seen.

    python -m bench.experiments.llama_features --pool reported.npz --json FILE

R2 within prompts of a ridge fit on 64 principal components of the mean hidden state of a completion, or of that of its
last token, for every reward of `rewards`; ridges are chosen on a part of the training prompts. Limits are over new
prompts and splits (`by_prompt`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bench.experiments.by_prompt import ratio_interval
from bench.experiments.files import settings, write_json
from bench.experiments.rewards import REWARDS
from bench.measure import machine

KINDS = {"mean": "mean hidden state", "last": "last token's hidden state"}
COMPONENTS, TRAINING = 64, 0.77
RIDGES = tuple(np.geomspace(1e-3, 1e3, 13))  # relative to the mean variance of a component


def explained(
    features: Float[np.ndarray, "p k d"], rewards: Float[np.ndarray, "p k"], splits: int, seed: int = 0
) -> dict[str, float]:
    """{"mean", "low", "high"} of 1 - residual over total sum of squares within held-back prompts."""
    features, rewards = (array - array.mean(axis=1, keepdims=True) for array in (features, rewards))
    left, total = np.full((2, splits, len(features)), np.nan)
    for split in range(splits):
        order = np.random.default_rng([seed, split]).permutation(len(features))
        training, held_back = np.split(order, [round(TRAINING * len(order))])
        guess = fitted(features, rewards, training, held_back)
        left[split, held_back] = ((rewards[held_back] - guess) ** 2).sum(axis=1)
        total[split, held_back] = (rewards[held_back] ** 2).sum(axis=1)
    found = ratio_interval(left, total)
    return {"mean": 1 - found.mean, "low": 1 - found.high, "high": 1 - found.low}


def fitted(features, rewards, training, held_back) -> Float[np.ndarray, "h k"]:
    """Predictions for prompts held back, with the ridge that serves the last quarter of the training prompts best."""
    inner, outer = np.split(training, [round(0.75 * len(training))])
    errors = [((rewards[outer] - guess) ** 2).sum() for guess in _guesses(features, rewards, inner, outer, RIDGES)]
    return _guesses(features, rewards, training, held_back, [RIDGES[int(np.argmin(errors))]])[0]


def _guesses(features, rewards, training, held_back, ridges: Sequence[float]) -> list[np.ndarray]:
    values, vectors = np.linalg.eigh(np.einsum("pkd,pke->de", features[training], features[training], optimize=True))
    basis, sizes = vectors[:, ::-1][:, :COMPONENTS], values[::-1][:COMPONENTS]
    crossed = np.einsum("pkd,pk->d", features[training] @ basis, rewards[training])
    seen = features[held_back] @ basis
    return [seen @ (crossed / (sizes + ridge * sizes.mean())) for ridge in ridges]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.llama_features", description=__doc__)
    parser.add_argument("--pool", required=True, help="a file of bench.experiments.llama_pool")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--json", metavar="FILE", help="write the results here")
    given = parser.parse_args(arguments)
    stored = np.load(given.pool)
    rows = [
        {"features": kind, "reward": reward, "r2": explained(
            stored[kind].astype(np.float64), stored[reward].astype(np.float64), given.splits)}
        for reward in REWARDS
        for kind in KINDS
    ]  # fmt: skip
    for row in rows:
        print(row["reward"], row["features"], *(f"{value:.2f}" for value in row["r2"].values()), flush=True)
    results = {"machine": machine(), "settings": settings(given) | {"pool": "reported"}, "rows": rows}
    write_json(results, given.json)
    return results


if __name__ == "__main__":
    main()
