"""How much annotators prefer whichever completion they are shown first, estimated together with the reward.

With s = 1 where completion i was shown first and s = -1 where j was (a task that is `swapped`), annotator k prefers i
to j with probability sigma(z . w + s b_k), or its reverse with the label's flip probability. The bias b_k is in units
of margins: between completions that are equally good the first one wins with probability sigma(b_k). For the fit s is
one more feature per annotator, so this is `fit_bradley_terry` in d + A dimensions. An order drawn by chance
(`swap_seed` of `make_tasks`) makes s nearly orthogonal to the differences z; where all labels are shown in one order, b
is told apart from w only as far as the z differ among themselves. Derived; checked by
tests/preference/fit/test_position_bias.py. An order effect of this form: Davidson and Beaver 1977, doi:10.2307/2529467.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign.belief import Belief, as_belief
from jaxdesign.information import pair_differences
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.fit.bradley_terry import fit_bradley_terry
from jaxdesign.preference.labels.labels import FIRST, SKIP, TIE, Labels, check_labels


class PositionBias(NamedTuple):
    """What `estimate_position_bias` found; float64 on the host.

    Args:
        bias: (A,) b, above 0 for a preference for the completion shown first; 0 where neither labels nor prior tell.
        standard_error: (A,) of b, with w as uncertain as it is (Laplace's approximation); NaN without convergence.
        parameter: w (d,), free of the bias.
        information: (d, d) about w with b as uncertain as it is: prior + sum over labels of c z z^T, less what b took.
        annotators: (A,) the numbers that bias and standard_error belong to, in ascending order.
        converged: as of `fit_bradley_terry`.
    """

    bias: Float[np.ndarray, " a"]
    standard_error: Float[np.ndarray, " a"]
    parameter: Float[np.ndarray, " d"]
    information: Float[np.ndarray, "d d"]
    annotators: Int[np.ndarray, " a"]
    converged: bool


def estimate_position_bias(
    pool: CompletionPool, labels: Labels, swapped: Any, *, prior: Any, bias_prior: float = 1.0, flip: Any = 0.0
) -> PositionBias:
    """The mode of w and b given labels of annotators who may prefer what they see first, and the errors of b.

    Args:
        pool: the pool whose features say what a reward can be; its scores and flips are not used.
        labels: at least one judgement; a tie is half a win each way, skips say nothing.
        swapped: (n,) booleans, True where the label's pair (p, i, j) was shown with j first, as `Task.swapped`.
        prior: of w, as in `fit_bradley_terry`.
        bias_prior: precision of a normal prior around b = 0, the same for every annotator; at least 0.
        flip: probability that a label is reversed, known: a number, or (n,), `flip_of(eta)` of who gave each label.

    Returns:
        PositionBias.

    Raises:
        TypeError: swapped that are no booleans.
        ValueError: labels of pairs outside of this pool, no judgement at all, other shapes, values out of range.

    Complexity: one `fit_bradley_terry` of n rows in d + A dimensions.

    Source: Davidson and Beaver 1977, doi:10.2307/2529467 (order effects); the errors are derived; checked by
    tests/preference/fit/test_position_bias.py.
    """
    check_labels(labels, pool)
    pairs, choices, who = (np.asarray(a) for a in labels)
    swapped = np.asarray(swapped)
    if swapped.dtype != bool:
        raise TypeError(f"swapped: dtype {swapped.dtype} found; expected booleans, True where j was shown first")
    _checks.same_shape(swapped.shape, choices.shape, "swapped", "(n,), one per label")
    bias_prior = _checks.number(bias_prior, "bias_prior")
    if not (np.isfinite(bias_prior) and bias_prior >= 0):
        raise ValueError(f"bias_prior={bias_prior:g}: must be finite and at least 0")
    flip = np.asarray(flip, np.float64)
    if flip.ndim:
        _checks.same_shape(flip.shape, choices.shape, "flip", "a number, or (n,) with one per label")
    judged = choices != SKIP
    if not judged.any():
        raise ValueError("labels: no judgement found (all are skips, or there is no label); a bias needs some")
    prior = as_belief(prior, pool.dim)
    found, column = np.unique(who[judged], return_inverse=True)
    wins = np.where(choices == TIE, 0.5, choices == FIRST)[judged]
    with _arrays.float64():
        z = np.asarray(pair_differences(pool, pairs[judged].astype(np.int32)), np.float64)
    order = np.where(swapped[judged], -1.0, 1.0)[:, None] * (column[:, None] == np.arange(len(found)))
    d, a = pool.dim, len(found)
    both = np.block([[prior.precision, np.zeros((d, a))], [np.zeros((a, d)), bias_prior * np.eye(a)]])
    padding = _arrays.power_of_two(len(z)) - len(z)  # few shapes are ever compiled
    fit = fit_bradley_terry(
        np.pad(np.concatenate([z, order], axis=1), ((0, padding), (0, 0))),
        np.pad(wins, (0, padding)),
        np.pad(np.ones(len(z)), (0, padding)),
        prior=Belief(np.append(prior.mean, np.zeros(a)), both),
        flip=np.pad(flip[judged], (0, padding)) if flip.ndim else flip,
    )
    parameter, information, converged = np.asarray(fit.parameter), np.asarray(fit.information), bool(fit.converged)
    own, shared = information[d:, d:], information[:d, d:]
    size = np.sqrt(np.diagonal(information))
    error = np.full(a, np.nan)
    if converged:  # regular, then, at unit diagonal
        error = np.sqrt(np.diagonal(np.linalg.inv(information / size[:, None] / size))[d:]) / size[d:]
    left = information[:d, :d] - shared @ np.linalg.pinv(own, hermitian=True) @ shared.T
    return PositionBias(parameter[d:], error, parameter[:d], (left + left.T) / 2, found, converged)
