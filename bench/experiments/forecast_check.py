"""Forecasts against what was measured: gains of trace over random pairs on the features of a real language model.

    python -m bench.experiments.forecast_check --result llama_log_linear.json --pool reported.npz --json FILE

For every cell of a result of `llama_log_linear` (variant, K, reward, number of labels) the pairs of both arms are
chosen again on some of its splits. What they gain is forecast as criterion (*) of `jaxdesign.expected_gap` is derived,
for the fit that the experiment makes: labels of margins u that are partly residual have the slope 1 / (4 k) in z . w,
k^2 = 1 + pi v / 8, and variance 1/4; the fit w' with ridge R is pulled to 0, and the multiple a w' is the best one for
its arm. With M = sum z z^T / 4, B = (R + M)^-1, w ~ N(0, S), and H that of the held-back prompts at the reference,

    E gain = max_a E [a w' H w - a^2 w' H w' / 2] = tr(H B M S)^2 / (2 tr(H B (M S M + k^2 M) B)),

to second order, beta 1. v is the variance of what a linear reward leaves of margins, learned from rewards of training
prompts alone: ridge regression, judged across prompts. S is said in several ways:

    ridge      what the ridge that was tuned says: variance k^2 / ridge of every component
    spread     the variance, alike for all components, that makes rewards as large as those that regression explains
    bands      the same for 1, 3, 12 and the other principal components each, as learned from training rewards
    by length  as spread, but with v l_e in place of v: `residual_of`, by which long pairs have smaller slopes

`spread` was chosen beforehand as the one to be judged by, on the tuning prompts, where v did not grow with the length
of pairs; the others are printed whatever they show. A forecast is right where it has the sign of the measured gain and
is within a factor of two of it, and is asked for where the measured interval excludes zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

import jaxdesign as jd
from bench.experiments import llama_cases
from bench.experiments import llama_log_linear as log_linear
from bench.experiments.files import read_json, settings, write_json
from bench.measure import machine

JUDGED = "spread"
PENALTIES = np.logspace(0, 5, 11)  # of the regression, on rows of about unit size
BANDS = (0, 1, 4, 16)  # first principal component of each
LEAST = 1e-6  # variance of a component that was not seen to matter
FOLDS = 5


class Learned(NamedTuple):
    """What rewards of the training prompts say.

    Args:
        variance: v of margins of pairs, less what is explained.
        explained: variance of rewards within prompts that is.
        covariances: way of saying it -> (d, d) of the reward parameter.
    """

    variance: float
    explained: float
    covariances: dict[str, Float[np.ndarray, "d d"]]


def learned(features: Float[np.ndarray, "t k d"], rewards: Float[np.ndarray, "t k"]) -> Learned:
    """From centred features and rewards of training prompts; what is explained is judged on prompts left out."""
    dim = features.shape[-1]
    left = np.array([_left(features, rewards, penalty) for penalty in PENALTIES]).min()
    total = float(np.mean(rewards**2))
    explained = max(total - left, LEAST)
    rows = features.reshape(-1, dim)
    spectrum, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    spectrum, vectors = spectrum[::-1], vectors[:, ::-1]
    own = (rows @ vectors).T @ rewards.ravel() / (len(rows) * spectrum)  # least squares, component by component
    noise = left / (len(rows) * spectrum)
    variances = np.empty(dim)
    for low, high in zip(BANDS, (*BANDS[1:], dim), strict=True):
        variances[low:high] = max(np.mean(own[low:high] ** 2 - noise[low:high]), LEAST)
    variances *= explained / np.sum(variances * spectrum)
    alike = explained / np.sum(spectrum) * np.eye(dim)
    return Learned(2 * left, explained, {"spread": alike, "bands": (vectors * variances) @ vectors.T})


def _left(features, rewards, penalty) -> float:
    """Mean square of what ridge regression does not explain on prompts that it did not see."""
    dim, fold = features.shape[-1], np.arange(len(features)) % FOLDS
    missed = 0.0
    for out in range(FOLDS):
        x, y = features[fold != out].reshape(-1, dim), rewards[fold != out].ravel()
        found = np.linalg.solve(x.T @ x + penalty * np.eye(dim), x.T @ y)
        missed += np.sum((rewards[fold == out] - features[fold == out] @ found) ** 2)
    return float(missed / rewards.size)


def centred(case: llama_cases.Case, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and rewards of the training prompts less their means within prompts."""
    features = np.asarray(case.pool.features, np.float64)
    own = values[case.training, : case.pool.completions]
    return tuple(a - a.mean(axis=1, keepdims=True) for a in (features, own))  # pyright: ignore[reportReturnType]


def forecasts(case: llama_cases.Case, told: Learned, ridge: float, pairs: np.ndarray) -> dict[str, float]:
    """The expected gain over the reference of labels of these pairs, in every way of saying what is believed."""
    H = np.asarray(jd.policy_target(case.deployment), np.float64)
    z = np.asarray(jd.pair_differences(case.pool, pairs), np.float64)
    size = 1 + np.pi / 8 * told.variance
    residual = jd.residual_of(case.pool, told.variance)
    longer = jd.CompletionPool(case.pool.features, mask=case.pool.mask, residual=residual)
    lengths = np.asarray(jd.label_information(longer, pairs), np.float64)  # 1 / (4 k_e^2)
    ways = {"ridge": size / ridge * np.eye(len(H)), **told.covariances}
    alike = np.full(len(z), 1 / (4 * np.sqrt(size)))
    gains = {way: expected_gain(H, covariance, ridge, z, alike) for way, covariance in ways.items()}
    return gains | {"by length": expected_gain(H, ways["spread"], ridge, z, np.sqrt(lengths) / 2)}


def expected_gain(
    H: Float[np.ndarray, "d d"],
    S: Float[np.ndarray, "d d"],
    ridge: float,
    z: Float[np.ndarray, "n d"],
    slopes: Float[np.ndarray, " n"],
) -> float:
    """Of the best multiple of a fit: labels less 1/2 are slope z . w in the mean, w ~ N(0, S), and of variance 1/4."""
    noise = z.T @ z / 4
    B = np.linalg.inv(ridge * np.eye(len(H)) + noise)
    signal = (z * slopes[:, None]).T @ z
    along = np.sum(H * (B @ signal @ S))
    return float(along**2 / (2 * np.trace(H @ B @ (signal @ S @ signal.T + noise) @ B)))


def checked(results: dict[str, Any], pool: llama_cases.Pool, splits: int) -> list[dict[str, Any]]:
    """A row for every measured difference of trace to random pairs of different texts."""
    measured = [
        row for row in results["rows"]
        if row["arm"] == "trace" and row["variant"] in llama_cases.VARIANTS and "difference" in row
    ]  # fmt: skip
    gains = {_place(row): row["gain"] for row in results["rows"] if row["arm"] == "random_distinct"}
    measured.sort(key=lambda row: (row["variant"], row["K"]))
    cases: dict[tuple, tuple] = {}
    rows = []
    for row in measured:
        place = row["variant"], row["K"]
        if place not in cases:
            some = [llama_cases.make_case(pool, *place, seed) for seed in range(splits)]
            cases = {place: (some, {}, [{} for _ in some])}
        some, facts, known = cases[place]
        reward = pool.rewards[row["reward"]]
        if reward.name not in facts:
            facts[reward.name] = [learned(*centred(case, reward.values)) for case in some]
        ridge = results["settled"][f"{row['variant']}/{row['reward']}/{row['labels']}"]["ridge"]
        found = [
            _both(case, told, reward, ridge, row["labels"], seed, own)
            for seed, (case, told, own) in enumerate(zip(some, facts[reward.name], known, strict=True))
        ]
        rows.append(_row(row, gains[_place(row)], facts[reward.name], found))
        print(said(rows[-1]), flush=True)
    return rows


def _place(row):
    return row["variant"], row["K"], row["reward"], row["labels"]


def _both(case, told, reward, ridge, number, seed, known) -> dict[str, tuple[float, float]]:
    """What random pairs gain over the reference, and the design over random pairs."""
    random, design = (
        forecasts(
            case, told, ridge, np.asarray(log_linear.labels_of(case, reward, way, ridge, number, seed, known).pairs)
        )
        for way in (log_linear.WAYS["random_distinct"], log_linear.WAYS["trace"])
    )
    return {way: (random[way], design[way] - random[way]) for way in random}


def _row(row, gain, facts, found) -> dict[str, Any]:
    difference = row["difference"]
    ways = {way: np.mean([one[way] for one in found], axis=0).tolist() for way in found[0]}
    return {
        **{name: row[name] for name in ("variant", "K", "reward", "labels")},
        "measured": {"random": gain, "difference": difference},
        "forecast": {way: {"random": random, "difference": gained} for way, (random, gained) in ways.items()},
        "variance": float(np.mean([one.variance for one in facts])),
        "explained": float(np.mean([one.explained for one in facts])),
        "asked": bool(difference["low"] > 0 or difference["high"] < 0),
        "right": {way: bool(0.5 <= gained / difference["mean"] <= 2) for way, (_, gained) in ways.items()},
    }


def shares(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the cells whose measured interval excludes zero: how many, and the share that each way forecasts right."""
    asked = [row for row in rows if row["asked"]]
    ways = rows[0]["right"] if rows else {}
    return {
        "cells": len(rows),
        "asked": len(asked),
        "right": {way: float(np.mean([row["right"][way] for row in asked])) if asked else None for way in ways},
        "inside the interval": {
            way: float(np.mean([_inside(row, way) for row in rows])) for way in ways
        },
    }  # fmt: skip


def _inside(row, way) -> bool:
    limits = row["measured"]["difference"]
    return limits["low"] <= row["forecast"][way]["difference"] <= limits["high"]


def said(row: dict[str, Any]) -> str:
    """One line: measured and forecast."""
    difference, random = row["measured"]["difference"], row["measured"]["random"]["mean"]
    own = "  ".join(f"{way} {f['random']:.3f} {f['difference']:+.3f}" for way, f in row["forecast"].items())
    mark = "*" if row["asked"] else " "
    return (
        f"{row['variant']:>8} {row['K']:>3} {row['reward']:>12} {row['labels']:>4} v {row['variance']:.2f}  "
        f"random {random:.3f}  trace {difference['mean']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
        f"{mark} {own}"
    )


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.forecast_check", description=__doc__)
    parser.add_argument("--result", required=True, help="what llama_log_linear wrote")
    parser.add_argument("--pool", required=True, help="the pool it reported on")
    parser.add_argument("--splits", type=int, default=2, help="of those of the result, to forecast on")
    parser.add_argument("--json", metavar="FILE", help="write rows and shares here")
    given = parser.parse_args(arguments)
    results = read_json(given.result)
    rows = checked(results, llama_cases.load(given.pool, results["temperatures"]), given.splits)
    found = {"machine": machine(), "settings": settings(given), "judged": JUDGED, **shares(rows), "rows": rows}
    print(f"{found['asked']} of {found['cells']} intervals exclude zero; right of these: {found['right']}")
    write_json(found, given.json)
    return found


if __name__ == "__main__":
    main()
