"""Rounds of a loop written out in NumPy, and what tests of dynamics share."""

import jax
import numpy as np
from scipy import optimize as direct

from jaxdesign.dynamics.plan import in_dtype


def close(found, expected, digits=10):
    """To so many significant digits, or so many decimals of what is small."""
    np.testing.assert_allclose(found, expected, rtol=0.6 * 10.0 ** (1 - digits), atol=0.6 * 10.0**-digits)


def softmax(x):
    powers = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def centred(x):
    return x - np.mean(x, axis=-1, keepdims=True)


def used(plan, size):
    """The plan as the parts of the package take it, in float64."""
    with jax.enable_x64(True):
        return in_dtype(plan, size, np.float64)


def law_by_hand(x, plan):
    """q of a round, diagonal 0."""
    own = softmax(plan.temper * x)
    base = np.zeros(len(x)) if plan.base is None else np.asarray(plan.base)
    if plan.mix == "answers":
        mu = plan.share * own + (1 - plan.share) * softmax(base)
        law = np.outer(mu, mu)
    else:
        law = np.outer(softmax(base), softmax(base)) if base.ndim == 1 else base
        law = law - np.diag(np.diag(law))
        law = plan.share * np.outer(own, own) + (1 - plan.share) * law / law.sum()
    return law - np.diag(np.diag(law))


def scores_by_hand(preferences, law, loss):
    """u of a connected law, by a pseudoinverse or a solver of equations."""
    if loss == "ipo":
        return np.linalg.pinv(np.diag(law.sum(1)) - law) @ (law * (preferences - 0.5)).sum(1)

    def divergence(u):
        missing = (law * (preferences - 1 / (1 + np.exp(u[None, :] - u[:, None])))).sum(1)
        return missing / law.sum(1) + u.mean()

    return centred(direct.root(divergence, np.zeros(len(law)), tol=1e-13).x)


def round_by_hand(x, preferences, plan):
    """The next log policy, less its mean."""
    reference = np.zeros(len(x)) if plan.reference is None else np.asarray(plan.reference)
    taught = scores_by_hand(preferences, law_by_hand(x, plan), plan.loss)
    return centred(plan.alpha * x + (1 - plan.alpha) * reference + plan.strength * taught)


def divergence_from(best, policies):
    """KL(pi* || pi) of log policies."""
    return np.sum(np.exp(best) * (best - policies), axis=-1)
