"""A smooth belief: rewards are held to vary most along the features along which completions vary most.

A ridge holds every feature to matter alike, however much of what completions differ in it carries. Rewards can be
smoother than that: they follow the large principal components more than the small ones, as a function of the kernel
phi^T H phi' does. Then it matters in two places. A fit learns from few labels what a ridge would need more for; and a
design asks less for what hardly varies. In this project's measurements it was worth as much as the choice of pairs on
one pool of completions, and nothing on another (`bench/README.md`): compare both on labels of prompts that neither fit
saw.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.belief import Belief
from jaxdesign.pool import CompletionPool
from jaxdesign.targets import policy_target

LEAST = 1e-6  # of the mean variance of a parameter, is allowed along what no two completions differ in


def smooth_belief(
    pool: CompletionPool, tau: float = 1.0, *, log_weights: Float[AnyArray, "p k"] | None = None
) -> Belief:
    """N(0, S) with S proportional to H, the second moment of completions, and rewards of variance tau^2 in prompts.

    S = tau^2 H / tr(H^2), so that E w^T H w = tr(H S) = tau^2. A belief free of the units of all features together: of
    phi times 10 the parameters are a tenth as large, and rewards the same. It is not free of the units of single ones,
    as no ridge is: scale them first, or take principal components. Where training stops early, take tau from it:
    `implied_prior(policy, pool, labels, prior=smooth_belief(pool))`.

    Args:
        pool: the features; its scores are not used.
        tau: standard deviation within prompts of rewards that are held likely, above 0; in the unit of the reward, in
            which a label at margin 0 has variance 4.
        log_weights: (P, K), as in `policy_target`: the policy on which completions count.

    Returns:
        Belief about d parameters, float64.

    Raises:
        ValueError: tau not positive; completions that do not differ within any prompt.

    Complexity: P K d^2.
    Source: a source condition of order one, as in kernel ridge regression (Caponnetto and De Vito 2007,
    doi:10.1007/s10208-006-0196-8); the scale is derived; checked by tests/preference/fit/test_smooth.py.
    """
    tau = _checks.positive_finite(tau, "tau", "the spread of rewards that are held likely")
    H = np.asarray(policy_target(pool, log_weights), np.float64)
    size = np.trace(H) / pool.dim
    if not size > 0:
        raise ValueError("pool: completions do not differ within any prompt, so no reward can; check the features")
    shape = H / size + LEAST * np.eye(pool.dim)
    return Belief.from_covariance(tau**2 * shape / np.vdot(H, shape))
