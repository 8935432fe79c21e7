"""Losses of preference training, each a pure function of log-probabilities, so that any stack can call them.

Every loss takes log pi(y_chosen | x), log pi(y_rejected | x) and the same two under the reference policy, each (n,) and
summed over tokens, and returns one loss per pair, (n,), which `weighted_mean` turns into one number. In the formulas

    h = (log pi(y_c) - log pi_ref(y_c)) - (log pi(y_r) - log pi_ref(y_r))       the log-ratio gap
    u = beta h                                                                  the margin: a difference of scores
    l(u) = -log sigma(u)                                                        the logistic loss

Common to all: the arrays have one shape (any; () under vmap), which is that of the result; float16 and bfloat16 are
computed in float32, as h is a small difference of large sums. Parameters are numbers, or have the shape of the arrays
where they differ by pair (a flip rate per annotator, an offset per rating gap). They are rounded to the dtype of the
loss and must be allowed before and after: in float32, robust DPO has no flip of 1/2 - 1e-9. With finite
log-probabilities every loss and every derivative is finite, at margins of any size (IPO, which squares them, up to 1e19
in float32). Integers are TypeErrors; ill-shaped arrays and parameters out of range are ValueErrors (values are not
looked at where they are traced, shapes always are).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign import _arrays, _checks
from jaxdesign.preference._loss_inputs import Loss, N, allowed_values, computed, four, parameter


def implicit_reward(log_prob: N, ref_log_prob: N, *, beta: Any) -> Loss:
    """Score of a completion, u = beta (log pi(y|x) - log pi_ref(y|x)): its reward up to a constant per prompt.

    Args:
        log_prob, ref_log_prob: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
    Returns: (n,), in the unit of the reward.
    Raises: TypeError for integers; ValueError for shapes that differ, beta not positive.
    Source: arXiv 2305.18290, equation 5.
    """
    log_prob, ref_log_prob = computed(log_prob=log_prob, ref_log_prob=ref_log_prob)
    return (log_prob - ref_log_prob) * parameter(beta, "beta", "above 0", log_prob)


def log_ratio_gap(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N) -> Loss:
    """h, the log-ratio gap at the head of this file: a margin in units of 1 / beta.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
    Returns: (n,).
    Raises: TypeError for integers; ValueError for shapes that differ.
    Source: arXiv 2305.18290, equation 7.
    """
    chosen, rejected, ref_chosen, ref_rejected = four(chosen, rejected, ref_chosen, ref_rejected)
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def per_token(log_prob: N, tokens: Any) -> Loss:
    """log pi(y|x) / |y|, the mean log-probability of a token: what some losses take in place of the sum.

    With all four arrays divided, `ipo_loss` is the form of TRL. Margins are then nats per token and no longer those of
    the policy as a law of completions: a beta or tau of the one form is none for the other.

    Args:
        log_prob: (n,) log-probabilities summed over tokens, nats.
        tokens: |y|, how many tokens were summed, at least 1: a number, or (n,) of any dtype.
    Returns: (n,), nats per token.
    Raises: TypeError for integers as log_prob; ValueError for shapes that differ, fewer tokens than 1.
    Source: SimPO, arXiv 2405.14734, where the mean is the reward; checked by tests/preference/test_losses_values.py.
    """
    (log_prob,) = computed("completion", log_prob=log_prob)
    return log_prob / parameter(tokens, "tokens", "at least 1", log_prob, "completion")


def dpo_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any) -> Loss:
    """DPO: l(u), with derivative -beta/2 in h at u = 0.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, beta not positive.
    Source: arXiv 2305.18290, equation 7.
    """
    return _logistic(_margin(chosen, rejected, ref_chosen, ref_rejected, beta))


def conservative_dpo_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any, flip: Any) -> Loss:
    """Conservative DPO (label smoothing): (1 - eps) l(u) + eps l(-u), least at sigma(u) = 1 - eps.

    eps = 0 is DPO, and eps = 1/2 the loss of a tie (half a label each way).

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
        flip: eps, in [0, 1/2], the probability that a label is reversed.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, parameters out of range.
    Source: Mitchell 2023, A note on DPO with noisy preferences & relationship to IPO, ericmitchell.ai/cdpo.pdf,
    equation 3; analysed as cDPO in arXiv 2403.00409.
    """
    margin = _margin(chosen, rejected, ref_chosen, ref_rejected, beta)
    flip = parameter(flip, "flip", "in [0, 1/2]", margin)
    return (1 - flip) * _logistic(margin) + flip * _logistic(-margin)


def soft_label_dpo_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any, label: Any) -> Loss:
    """DPO with labels in [0, 1]: w l(u) + (1 - w) l(-u), least at sigma(u) = w.

    Its derivative in u is sigma(u) - w. w = 1 is DPO, w = 1/2 a tie, w = 0 DPO of the pair turned round; w = 1 - eps is
    the conservative loss, which stops at eps = 1/2: labels more likely wrong than right are for this one. With w from
    `label_posterior` it is the M-step of RE-PO; with w the share of votes for chosen, their likelihood per vote.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
        label: w, in [0, 1], the probability that chosen is the better of the two.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, parameters out of range.
    Source: the M-step of RE-PO, arXiv 2509.24159.
    """
    margin = _margin(chosen, rejected, ref_chosen, ref_rejected, beta)
    label = parameter(label, "label", "in [0, 1]", margin)
    return label * _logistic(margin) + (1 - label) * _logistic(-margin)


def robust_dpo_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any, flip: Any) -> Loss:
    """Robust DPO: [(1 - eps) l(u) - eps l(-u)] / (1 - 2 eps), whose mean over flips is the loss of the clean label.

    Unlike the conservative loss it is unbiased, at the price of variance and, for eps > 0, of having no lower bound
    (slope -eps / (1 - 2 eps) at large u). eps = 0 is DPO.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
        flip: eps, in [0, 1/2), the probability that a label is reversed.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, parameters out of range.
    Source: arXiv 2403.00409.
    """
    margin = _margin(chosen, rejected, ref_chosen, ref_rejected, beta)
    flip = parameter(flip, "flip", "in [0, 1/2)", margin)
    return ((1 - flip) * _logistic(margin) - flip * _logistic(-margin)) / (1 - 2 * flip)


def ipo_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, tau: Any) -> Loss:
    """IPO: (h - 1 / (2 tau))^2, least at the log-ratio gap 1 / (2 tau).

    The paper writes log pi(y|x), a sum over tokens. TRL divides each by its length first, and says that the authors
    confirmed that form as the one behind the paper's results (huggingface.co/blog/pref-tuning): give `per_token` of all
    four for it. h and 1 / (2 tau) are then nats per token, so that a tau of one form is none for the other.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        tau: above 0, the price of KL; TRL's beta where log-probabilities are per token, as there.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, tau not positive.
    Source: arXiv 2310.12036, equation 17.
    """
    gap = log_ratio_gap(chosen, rejected, ref_chosen, ref_rejected)
    return jnp.square(gap - 1 / (2 * parameter(tau, "tau", "above 0", gap)))


def slic_hf_loss(
    chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, delta: Any = 1.0, regularisation: Any = 0.0
) -> Loss:
    """SLiC-HF: max(0, delta - log pi(y_c) + log pi(y_r)) - lambda log pi(y_c).

    The reference does not enter (its arguments are checked and not used); the second term, the paper's regulariser with
    the chosen completion as its target, takes its place. `hinge_loss` is the form with a reference.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        delta: above 0, the wanted gap in nats.
        regularisation: lambda, at least 0.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, parameters out of range.
    Source: arXiv 2305.10425.
    """
    chosen, rejected, _, _ = four(chosen, rejected, ref_chosen, ref_rejected)
    delta = parameter(delta, "delta", "above 0", chosen)
    weight = parameter(regularisation, "regularisation", "at least 0", chosen)
    return jax.nn.relu(delta - (chosen - rejected)) - weight * chosen


def hinge_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any) -> Loss:
    """SLiC's hinge on the margin: max(0, 1 - u), below its kink the same as `unhinged_loss`.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the inverse of the log-ratio gap at which the loss ends.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, beta not positive.
    Source: arXiv 2309.06657, "hinge-norm".
    """
    return jax.nn.relu(1 - _margin(chosen, rejected, ref_chosen, ref_rejected, beta))


def exo_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any, smoothing: Any = 1e-3) -> Loss:
    """EXO on pairs: KL((sigma(u), sigma(-u)) || (1 - eps, eps)), the reverse of the divergence that cDPO minimises.

    = sigma(u) log[sigma(u) / (1 - eps)] + sigma(-u) log[sigma(-u) / eps]; 0 at sigma(u) = 1 - eps, derivative
    sigma'(u) (u - log[(1 - eps) / eps]). Unlike cDPO's it saturates on both sides. The authors' code has log eps = -10
    and 0 in place of log(1 - eps), which is this with eps = e^-10 less at most 4.6e-5. `listwise_exo_loss` takes more
    completions than two.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
        smoothing: eps, in (0, 1/2], of the one-hot preference.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, parameters out of range.
    Source: arXiv 2402.00856, equation 16.
    """
    margin = _margin(chosen, rejected, ref_chosen, ref_rejected, beta)
    eps = parameter(smoothing, "smoothing", "in (0, 1/2]", margin)
    return jax.nn.sigmoid(margin) * (-_logistic(margin) - jnp.log1p(-eps)) + jax.nn.sigmoid(-margin) * (
        -_logistic(-margin) - jnp.log(eps)
    )


def rpo_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any, eta: Any) -> Loss:
    """RPO, DPO with a supervised term: l(u) - eta beta log pi(y_c).

    The sum over tokens is the term of the paper, with eta 0.005 in its code. For reasoning its authors find the mean
    over tokens better (appendix F): for it, give eta / tokens, with tokens (n,) those of the chosen completions.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
        eta: at least 0, weight of the supervised term (0 is DPO).
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, parameters out of range.
    Source: arXiv 2405.16436.
    """
    loss = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta)
    weight = parameter(eta, "eta", "at least 0", loss) * parameter(beta, "beta", "above 0", loss)
    return loss - weight * computed(chosen=chosen)[0]


def margin_dpo_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any, offset: Any) -> Loss:
    """Margin DPO: l(u - gamma): the chosen completion must lead by gamma, which grows with the strength of preference.

    gamma = 0 is DPO. ODPO's gamma grows with the difference of scores. RecPO's is a ratio, 2 phi_c / phi_r with phi =
    rating / sqrt(time), which is 2 and not 0 for equals; its loss has several rejected completions, this one has one.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
        offset: gamma, in the unit of the reward.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, parameters out of range.
    Source: ODPO, arXiv 2402.10571; with one rejected completion RecPO, arXiv 2506.02261.
    """
    margin = _margin(chosen, rejected, ref_chosen, ref_rejected, beta)
    return _logistic(margin - parameter(offset, "offset", "a number", margin))


def importance_weighted_dpo_loss(
    chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any, weights: Any
) -> Loss:
    """Importance-weighted DPO: (mu / q) l(u), mu the wanted law of pairs and q that of the design.

    Its plain mean (`weighted_mean` without weights) has the expectation of DPO's under mu, so a design cannot move the
    limit of a misspecified model; `weighted_mean(dpo_loss(...), mu / q)` is the self-normalised form (less variance,
    bias of order 1/n).

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
        weights: mu / q, (n,), at least 0, not normalised.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, parameters out of range.
    Source: derived from arXiv 2602.12180, where the law of sampling is part of the objective; checked by
    tests/preference/test_weighted_mean.py.
    """
    loss = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta)
    return loss * parameter(weights, "weights", "at least 0", loss)


def sigmoid_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any) -> Loss:
    """Symmetric loss sigma(-u): l(u) + l(-u) = 1, so a flip rate common to all labels leaves its minimiser alone.

    Bounded, not convex.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, beta not positive.
    Source: SymPO, arXiv 2505.24709.
    """
    return jax.nn.sigmoid(-_margin(chosen, rejected, ref_chosen, ref_rejected, beta))


def ropo_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any, alpha: Any = 14.0) -> Loss:
    """ROPO: 4 a / (1 + a)^2 [l(u) + a sigma(-u)], a mixture of the logistic loss and the symmetric one.

    The slope in u is -4 a / (1 + a)^2 sigma(-u) (1 + a sigma(u)). For a > 1 it is steepest, -1, at sigma(u) =
    (a - 1) / (2 a), and -4 a / (1 + a)^2, not 0, where the policy is sure that the label is wrong. Divided by 4 a it is
    DPO as a goes to 0; as a goes to infinity it is 4 `sigmoid_loss`.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
        alpha: a, above 0: the weight of the symmetric loss over that of DPO.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, parameters out of range.
    Source: ROPO, arXiv 2404.04102; checked by tests/preference/test_losses_values.py.
    """
    margin = _margin(chosen, rejected, ref_chosen, ref_rejected, beta)
    alpha = parameter(alpha, "alpha", "above 0", margin)
    share = alpha / (1 + alpha)  # the square of 1 + a would overflow
    return 4 * share * (_logistic(margin) / (1 + alpha) + share * jax.nn.sigmoid(-margin))


def ramp_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any) -> Loss:
    """Symmetric loss clip((1 - u) / 2, 0, 1): l(u) + l(-u) = 1.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, beta not positive.
    Source: SymPO, arXiv 2505.24709.
    """
    return jnp.clip((1 - _margin(chosen, rejected, ref_chosen, ref_rejected, beta)) / 2, 0, 1)


def unhinged_loss(chosen: N, rejected: N, ref_chosen: N, ref_rejected: N, *, beta: Any) -> Loss:
    """Symmetric loss 1 - u: l(u) + l(-u) = 2. Convex, without lower bound.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: (n,) log-probabilities summed over tokens, nats.
        beta: above 0, the price of KL.
    Returns: (n,), one loss per pair.
    Raises: TypeError for integers; ValueError for shapes that differ, beta not positive.
    Source: SymPO, arXiv 2505.24709.
    """
    return 1 - _margin(chosen, rejected, ref_chosen, ref_rejected, beta)


_ALL = (dpo_loss, conservative_dpo_loss, soft_label_dpo_loss, robust_dpo_loss, ipo_loss, slic_hf_loss, hinge_loss)
_ALL += (exo_loss, rpo_loss, margin_dpo_loss, importance_weighted_dpo_loss, sigmoid_loss, ropo_loss, ramp_loss)
_ALL += (unhinged_loss,)
LOSSES = {loss.__name__.removesuffix("_loss"): loss for loss in _ALL}  # by name: "dpo", "ipo", ...


def weighted_mean(losses: N, weights: N | None = None) -> Float[Array, ""]:
    """sum_n w_n l_n / sum_n w_n: weights are normalised by their sum, so that their scale does not matter.

    They are divided by the largest in their own precision before they are cast to that of the losses: NumPy float64
    weights of e^-700 or e^700 are as good as any. Traced weights have the range of their dtype. Padding has weight 0; a
    loss of NaN there does not change the value, but it does change gradients, so give padding finite log-probabilities
    (0 will do). Total weight 0 is an error outside of jit; inside it gives 0 with gradient 0, so that an empty batch
    changes nothing.

    Args:
        losses: (n,).
        weights: (n,) of at least 0, None for all 1.
    Returns: scalar, accumulated in float32 (float64 for float64 losses).
    Raises: ValueError for shapes that differ, negative or non-finite weights, and total weight 0.
    Source: derived; checked by tests/preference/test_weighted_mean.py.
    """
    (losses,) = computed(losses=losses)
    weights = jnp.ones_like(losses) if weights is None else weights
    _checks.same_shape(jnp.shape(weights), losses.shape, "weights", "(n,), one per loss")
    weights = _relative(weights, losses.dtype)
    total = jnp.sum(weights)
    shares = weights / jnp.where(total == 0, 1, total)  # NaN stays NaN
    return jnp.sum(shares * jnp.where(weights == 0, 0, losses))


def _relative(weights, dtype):
    """Weights over the largest of them, in the dtype of the losses; all 0 stays so where it is traced."""
    if _arrays.is_traced(weights):
        weights = jnp.asarray(weights)
        weights = weights.astype(np.promote_types(weights.dtype, dtype))
        largest = jax.lax.stop_gradient(jnp.max(weights, initial=0))
        half = jax.lax.rsqrt(jnp.where(largest == 0, 1, largest))  # 1 / largest itself may be flushed to 0
        return (weights * half * half).astype(dtype)
    weights = allowed_values(weights, "weights", "at least 0")
    if not weights.any():
        raise ValueError(f"weights: all {weights.size} are 0; at least one pair needs a positive weight")
    return jnp.asarray((weights / weights.max()).astype(dtype))


def _logistic(margin):
    return -jax.nn.log_sigmoid(margin)


def _margin(chosen, rejected, ref_chosen, ref_rejected, beta):
    gap = log_ratio_gap(chosen, rejected, ref_chosen, ref_rejected)
    return gap * parameter(beta, "beta", "above 0", gap)
