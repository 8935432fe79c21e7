"""Criterion of few labels: the expected policy gap where training is a fit pulled towards a start, bias and all."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.belief import as_belief, at_unit_diagonal


def expected_gap(
    belief: Any, training: Any, information: Float[AnyArray, "d d"], target: Float[AnyArray, "d d"], beta: float = 1.0
) -> float:
    """Expected policy gap over a belief N(m, S) of a fit that is pulled towards N(m_t, L_t^-1), to second order.

        tr{H B [L_t (S + (m - m_t)(m - m_t)^T) L_t + M] B} / (2 beta),   B = (L_t + M)^-1

    M is what the labels tell. The first term is the bias of a fit that is pulled, the second the noise of labels. Exact
    in the linear model with normal noise: what labels tell of w is M w + e, e ~ N(0, M), and the fit B (L_t m_t + M w +
    e). Three cases are worth knowing:

    1. L_t = S^-1, m_t = m: tr(H (S^-1 + M)^-1) / (2 beta), so `Trace(H)` with the belief as prior is the Bayes design.
    2. m_t = 0 although m is known, as for DPO from the reference policy: the best L_t is (S + m m^T)^-1
       (`Belief.around_zero`), and the value again that of case 1 with it.
    3. S = 0: bias along m - m_t alone, which vanishes as 1 / n^2 with n labels and leaves tr(H M^-1) / (2 beta).

    Args:
        belief: where w is, a `Belief` or anything that `prior` may be; its precision must be regular.
        training: towards what and how hard training pulls, the same: m_t and L_t, which may be 0 where M is regular.
            DPO that stops early is such a fit, with L_t as `implied_prior` finds it and m_t = 0.
        information: M, (d, d), without any prior: sum_e n_e c_e z_e z_e^T.
        target: H, (d, d).
        beta: strength of the policy's KL term, above 0.

    Returns:
        A float, in the unit of the reward; inf where L_t + M is singular at unit diagonal (condition above 1e12).

    Raises:
        ValueError: shapes that do not fit, matrices that are not positive semidefinite, a belief with a singular
            precision, beta not positive.

    Source: derived; the labels' part is arXiv 2606.19607; checked by tests/test_expected_gaps.py, by simulation too.
    """
    beta = _checks.positive_finite(beta, "beta", "the strength of the policy's KL term")
    target = _checks.symmetric_psd(np.asarray(target, np.float64), np.shape(target)[-1], "target")
    dim = len(target)
    information = _checks.symmetric_psd(np.asarray(information, np.float64), dim, "information")
    belief, training = as_belief(belief, dim), as_belief(training, dim)
    spread = belief.covariance
    found = at_unit_diagonal(training.precision + information)
    if found is None:
        return float("inf")
    size, correlation = found
    off = belief.mean - training.mean
    pulled = training.precision @ (spread + np.outer(off, off)) @ training.precision + information
    left = np.linalg.solve(correlation, (target / size[:, None]) / size)
    right = np.linalg.solve(correlation, (pulled / size[:, None]) / size)
    return float(np.sum(left * right.T) / (2 * beta))
