"""Does the reward keep what long differences of features promise? Slopes by length, from a pilot's labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign import _arrays
from jaxdesign.belief import inverse_of
from jaxdesign.information import pair_differences, pair_flips
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.fit.bradley_terry import fit_bradley_terry
from jaxdesign.preference.fit.posterior import fit_posterior
from jaxdesign.preference.labels.labels import Labels, check_labels, concatenated, counted


class LengthSlopes(NamedTuple):
    """What `length_slopes` found; unit slopes mean that margins are what was predicted.

    Args:
        lengths: (g,) median length |z| of the labelled pairs of each group, in the unit of the features, rising.
        slopes: (g,) of the margins on their predictions in each group; NaN where a group says nothing.
        errors: (g,) their standard errors.
        trend: change of the slope when the length grows by a factor e, relative to the slope at the median length.
        error: its standard error.
    """

    lengths: Float[np.ndarray, " g"]
    slopes: Float[np.ndarray, " g"]
    errors: Float[np.ndarray, " g"]
    trend: float
    error: float

    @property
    def clip(self) -> bool:
        """Whether the pilot speaks for `clip_rows`: the slope falls with the length, by its estimate."""
        return self.trend < 0

    @property
    def certain(self) -> bool:
        """Whether the trend is more than two standard errors from 0."""
        return abs(self.trend) > 2 * self.error

    def summary(self) -> dict[str, Any]:
        """Numbers and one sentence, as JSON holds them: what `run_rounds(check=)` stores with a round."""
        sure = "" if self.certain else " (within its error: more labels may say otherwise)"
        found = "falls" if self.clip else "does not fall"
        wanted = "clip_rows" if self.clip else "the rows as they are"
        return {
            "lengths": self.lengths.tolist(),
            "slopes": [None if np.isnan(slope) else float(slope) for slope in self.slopes],
            "errors": [None if np.isnan(error) else float(error) for error in self.errors],
            "trend": self.trend,
            "error": self.error,
            "in words": f"The slope of margins on their predictions {found} with length: {wanted}{sure}.",
        }


def length_slopes(
    pool: CompletionPool, labels: Labels, prior: Any, *, groups: int = 10, folds: int = 5, seed: int = 0
) -> LengthSlopes:
    """Slopes a_g of margins on margins that labels of other prompts predict, by groups of equal size in |z|.

        P(i preferred to j) = p(a_g u_e),   u_e = z_e . w_(-f),   w_(-f) the mode of the labels outside of e's fold

    and, over all pairs, the trend t of P = p(a (1 + t log(|z_e| / median)) u_e), both by maximum likelihood. p is
    the logistic function, with the flips of the pool. Prompts are dealt to folds, so that no prediction has seen a
    label of its prompt. Where features promise what the reward keeps, slopes are alike (a common slope other than 1
    means a prior that shrinks too much or too little); where long differences promise too much, slopes fall and
    designs should work on `clip_rows`.

    Args:
        pool: features and flips; its scores are not used.
        labels: of a pilot, best of random pairs; ties count half.
        prior: of the fit, as in `fit_posterior`.
        groups: of pairs by length, at least 1.
        folds: of prompts, at least 2.
        seed: of the folds.

    Returns:
        LengthSlopes. Errors are those of the likelihood's curvature: they leave out that predictions are estimated.

    Raises:
        ValueError: labels of fewer prompts than folds, groups below 1, folds below 2, fewer labelled pairs than groups,
            labels from which nothing can be predicted (every margin 0).

    Source: calibration slopes, Cox 1958, doi:10.1093/biomet/45.3-4.562, by length; derived; checked by
    tests/preference/fit/test_length_slopes.py.
    """
    check_labels(labels, pool)
    if groups < 1 or groups != int(groups):
        raise ValueError(f"groups={groups}: expected a whole number of at least 1")
    if folds < 2 or folds != int(folds):
        raise ValueError(f"folds={folds}: expected a whole number of at least 2")
    prompts = np.unique(np.asarray(labels.pairs)[:, 0])
    if len(prompts) < folds:
        raise ValueError(f"labels: of {len(prompts)} prompts, fewer than folds={folds}; label more prompts")
    pairs, wins, counts = counted(labels)
    if len(pairs) < groups:
        raise ValueError(f"labels: of {len(pairs)} pairs, fewer than groups={groups}; ask for fewer groups")
    fold = np.random.default_rng(seed).permutation(len(prompts)) % folds
    with _arrays.float64():
        differences = np.asarray(pair_differences(pool, pairs), np.float64)
        flip = pair_flips(pool, pairs)
    flip = np.zeros(len(pairs)) if flip is None else np.broadcast_to(np.asarray(flip, np.float64), len(pairs))
    predicted = np.zeros(len(pairs))
    of_label, of_pair = (fold[np.searchsorted(prompts, some[:, 0])] for some in (np.asarray(labels.pairs), pairs))
    for number in range(folds):
        others = concatenated(Labels(*(np.asarray(part)[of_label != number] for part in labels)))
        held_back = of_pair == number
        predicted[held_back] = differences[held_back] @ fit_posterior(pool, others, prior).parameter
    lengths = np.linalg.norm(differences, axis=1)
    if not (np.abs(predicted) > 0).any():
        raise ValueError("labels: nothing is predicted of held-back pairs (every margin is 0); label more pairs")
    parts = np.array_split(np.argsort(lengths, kind="stable"), groups)
    found = [_fitted(predicted[part, None], wins[part], counts[part], flip[part]) for part in parts]
    positive = lengths > 0
    relative = np.log(np.where(positive, lengths, 1) / np.median(lengths[positive]))
    both = np.column_stack([predicted, np.where(positive, relative, 0) * predicted])
    (slope, change), covariance = _fitted(both, wins, counts, flip)
    trend, gradient = change / slope, np.array([-change / slope**2, 1 / slope])
    return LengthSlopes(
        np.array([np.median(lengths[part]) for part in parts]),
        np.array([parameter[0] for parameter, _ in found]),
        np.sqrt([matrix[0, 0] for _, matrix in found]),
        float(trend),
        float(np.sqrt(gradient @ covariance @ gradient)),
    )


def _fitted(columns, wins, counts, flip):
    """Coefficients that maximise the likelihood of wins, and their covariance; NaN where there is no maximum."""
    padding = _arrays.power_of_two(len(wins)) - len(wins)  # rows without labels: few shapes are ever compiled
    columns, wins, counts, flip = (
        np.pad(a, ((0, padding), *[(0, 0)] * (a.ndim - 1))) for a in (columns, wins, counts, flip)
    )
    found = fit_bradley_terry(columns, wins, counts, flip=flip)
    covariance = inverse_of(np.asarray(found.information)) if found.converged else None
    if covariance is None:
        return np.full(columns.shape[1], np.nan), np.full([columns.shape[1]] * 2, np.nan)
    return np.asarray(found.parameter), covariance
