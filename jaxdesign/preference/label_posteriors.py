"""Which labels of a policy's training set are right: the E-step of RE-PO, for any loss.

`jaxdesign.preference.estimate_reliability` does all of it where the reward is linear in features, to convergence. Here
are the parts for a policy that is trained by batches. The label of pair i, by annotator k, is right with probability
eta_k. A loss L says how probable a right label is (arXiv 2509.24159):

    p_i = sigma(m_i),   m_i = L(as the label would be reversed) - L(as it is)        `label_log_odds`
    w_i = p_i eta_k / (p_i eta_k + (1 - p_i)(1 - eta_k)) = sigma(m_i + logit eta_k)  `label_posterior`
    eta_k <- (1 - a) eta_k + a mean w_i over the labels of k                         `updated_reliability`

m is u for DPO, 2 h / tau for IPO. The M-step for the policy is w l(m) + (1 - w) l(-m): `soft_label_dpo_loss` for DPO,
the same with beta = 2 / tau for IPO (a loss that is no likelihood is replaced by one that is).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.preference._loss_inputs import Loss, N, allowed_values, computed, parameter


def label_log_odds(
    loss: Callable[..., Loss], chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, **options: Any
) -> Loss:
    """m = L(rejected over chosen) - L(chosen over rejected): log odds that a right label is as given.

    Args:
        loss: one of `LOSSES`, or any function that is called like them.
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats, or as the loss
            wants them.
        options: parameters of the loss: beta=0.1, tau=0.1, ...
    Returns: (n,), nats; as digits go, a difference of two losses.
    Raises: as the loss.
    Source: arXiv 2509.24159, which gives any loss a probability in this way.
    """
    return loss(rejected, chosen, ref_rejected, ref_chosen, **options) - loss(
        chosen, rejected, ref_chosen, ref_rejected, **options
    )


def label_posterior(log_odds: N, reliability: Any) -> Loss:
    """w = sigma(m + logit eta): the probability that a label is right, given the policy and who gave it.

    eta = 1/2 leaves sigma(m), the policy's own opinion; m = 0 leaves eta. At eta = 1 every label is right whatever the
    policy thinks, at 0 every one wrong; neither is ever moved by labels.

    Args:
        log_odds: m, (n,), of `label_log_odds`; for DPO the margin u.
        reliability: eta, in [0, 1], one number or (n,): that of each label's annotator, `eta[annotator]`.
    Returns: (n,), in [0, 1]. A constant of the M-step: no derivative goes through it.
    Raises: TypeError for integers as log_odds; ValueError for shapes that differ, reliability out of range.
    Source: the E-step of RE-PO, arXiv 2509.24159.
    """
    (log_odds,) = computed("label", log_odds=log_odds)
    eta = parameter(reliability, "reliability", "in [0, 1]", log_odds, "label")
    if not _arrays.is_traced(reliability):  # 1 - eta before it is rounded
        eta = np.asarray(reliability, np.float64)
        with np.errstate(divide="ignore"):
            logit = jnp.asarray((np.log(eta) - np.log1p(-eta)).astype(log_odds.dtype))
    else:
        logit = jnp.log(eta) - jnp.log1p(-eta)
    return jax.lax.stop_gradient(jax.nn.sigmoid(log_odds + logit))


def updated_reliability(
    reliability: Float[AnyArray, " a"],
    posteriors: Float[AnyArray, " n"],
    annotators: Int[AnyArray, " n"],
    *,
    rate: Any = 0.1,
) -> Float[Array, " a"]:
    """eta_k <- (1 - a) eta_k + a mean of w over the labels of annotator k in this batch; others keep theirs.

    Args:
        reliability: eta, (A,), in [0, 1]; the paper starts at 0.9.
        posteriors: w, (n,), of `label_posterior`.
        annotators: (n,) who gave each label, from 0 to A - 1.
        rate: a, in (0, 1]; 1 is plain EM where the batch is the whole set.
    Returns: (A,), in the wider dtype of reliability and posteriors.
    Raises: TypeError for the wrong kind of dtype; ValueError for shapes that differ, annotators that do not exist, or
        rate out of range.
    Source: arXiv 2509.24159; checked by tests/preference/test_label_posteriors.py.
    """
    reliability, posteriors = (
        jnp.asarray(_checks.as_float_array(value, name))
        for value, name in ((reliability, "reliability"), (posteriors, "posteriors"))
    )
    _checks.same_shape(np.shape(annotators), posteriors.shape, "annotators", "(n,), one per label")
    if not _arrays.is_traced(annotators):
        _known(np.asarray(annotators), len(reliability))
    if not _arrays.is_traced(reliability, posteriors):
        allowed_values(reliability, "reliability", "in [0, 1]")
        allowed_values(posteriors, "posteriors", "in [0, 1]")
    dtype = np.result_type(*(_arrays.compute_dtype(array.dtype) for array in (reliability, posteriors)))
    reliability, posteriors = reliability.astype(dtype), posteriors.astype(dtype)
    rate = parameter(rate, "rate", "in (0, 1]", reliability, "annotator")
    count = jnp.zeros_like(reliability).at[annotators].add(1)
    mean = jnp.zeros_like(reliability).at[annotators].add(posteriors) / jnp.maximum(count, 1)
    return jnp.where(count > 0, (1 - rate) * reliability + rate * mean, reliability)


def _known(annotators, count):
    if not np.issubdtype(annotators.dtype, np.integer):
        raise TypeError(f"annotators: dtype {annotators.dtype} found; expected integers, who gave each label")
    bad = (annotators < 0) | (annotators >= count)
    if bad.any():
        raise ValueError(
            f"annotators: {annotators[bad][0]} found; must be from 0 to {count - 1}, one of the {count} of reliability"
        )
