"""Criterion: any differentiable function of the information matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from jaxdesign.criteria.protocol import ConvexCriterion


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Criterion(ConvexCriterion):
    """Any differentiable function of one information matrix; G comes from `jax.grad`.

    Args:
        function: traceable (d, d) -> scalar. It must be convex and decreasing in A (in the Loewner order) for the
            bound to hold; this cannot be checked here. Averaged over draws.

    The gap is S - sum_e b_e n_e (Frank-Wolfe), the efficiency NaN, and solvers stop on gap <= tol max(1, |value|).

    Source: Frank and Wolfe 1956, doi:10.1002/nav.3800030109, for the gap; checked by tests/criteria/test_criteria.py.
    """

    function: Callable = field(metadata={"static": True})

    def value(self, information):
        return jnp.mean(_over_draws(self.function, information))

    def gradient(self, information):
        grad = _over_draws(jax.grad(self.function), information)
        return -(grad + jnp.swapaxes(grad, -1, -2)) / 2


def _over_draws(function, information):
    information = jnp.asarray(information)
    return jax.vmap(function)(information) if information.ndim == 3 else function(information)
