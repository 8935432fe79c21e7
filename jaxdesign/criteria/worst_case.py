"""Worst case over a few named targets: the criterion max_t tr(H_t A^-1) / scale_t, and a smooth one below it.

Bound. For any mixture w (w_t >= 0, sum w = 1) of the targets, max_t f_t >= f_w = sum_t w_t f_t = tr(H_w A^-1), which is
a Trace criterion: so f_w^2 / (t + S), with t and S taken at G_w = A^-1 H_w A^-1, is below the best worst case, whatever
w. Its anchor and factors are those of Trace (see `criteria.anchors`).

The smooth criterion below it is the weighted power mean of the targets (`power_mean`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign import _checks
from jaxdesign._arrays import AnyArray
from jaxdesign._linalg import cholesky_and_inverse, gradient_factors, inverse, inverse_from, sandwich
from jaxdesign.criteria.power_mean import BELOW, POWER, PowerMean, congruent, mixed, traces
from jaxdesign.criteria.protocol import ConvexCriterion, library_of
from jaxdesign.criteria.trace import Trace, trace_anchor, trace_value_and_factors

BINDING = 1e-3  # weight in the mixture above which a target is said to bind


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, init=False, eq=False)
class WorstCase(ConvexCriterion):
    """Minimise the largest of tr(H_t A^-1) / scale_t over a few named targets: good for all of them, best for none.

    Each of them is averaged over draws before the largest is taken. The efficiency is lower bound / value, as for
    `Trace`.

    Args:
        targets: a mapping name -> H_t, or a sequence (named "0", "1", ...); (d, d) symmetric positive semidefinite, at
            least one of them, checked as by `Trace`.
        scales: positive, one per target: a mapping with the same names, or a sequence in their order; None: all 1. The
            best possible tr(H_t A^-1) of each target alone as its scale gives the smallest regret ratio.
        mixture: weights of the targets, at least 0, for the lower bound: a mapping or a sequence. Every mixture gives a
            valid bound. None: `optimize` finds the best one and gives it in `design.report["mixture"]`, `evaluate`
            looks for a good one.

    Raises:
        TypeError: targets of another kind, a target that is no floating array.
        ValueError: no target, targets of different sizes, not symmetric, indefinite, not finite; scales or a mixture
            of other names or number, or not positive.

    Source: bound and smoothing are derived in `jaxdesign.criteria.worst_case`; checked by
    tests/criteria/test_worst_case.py.
    """

    degree: ClassVar = -1
    infinite_where_singular: ClassVar = True
    decreasing: ClassVar = True
    family: ClassVar = True

    H: Float[AnyArray, "t d d"]  # each divided by its scale, float64
    mixture: Float[AnyArray, " t"] | None  # sums to 1
    names: tuple[str, ...]

    def __init__(self, targets: Any, scales: Any = None, mixture: Any = None):
        if isinstance(targets, Mapping):
            names, matrices = tuple(str(name) for name in targets), list(targets.values())
        elif isinstance(targets, list | tuple | np.ndarray | jax.Array):
            names, matrices = tuple(str(k) for k in range(len(targets))), list(targets)
        else:
            raise TypeError(f"targets: expected a mapping name -> H or a sequence, found {type(targets).__name__}")
        if not matrices:
            raise ValueError("targets: none found; give at least one matrix (d, d)")
        if len(set(names)) < len(names):
            raise ValueError(f"targets: two have the name {next(n for n in names if names.count(n) > 1)!r}")
        scales = np.ones(len(names)) if scales is None else _by_name(scales, names, "scales")
        if not (scales > 0).all():
            worst = int(np.argmin(scales))
            raise ValueError(f"scales: {scales[worst]:g} for target {names[worst]!r}; must be positive")
        if mixture is not None:
            mixture = _by_name(mixture, names, "mixture")
            if not (mixture >= 0).all() or mixture.sum() <= 0:
                raise ValueError(f"mixture={mixture.tolist()}: weights must be at least 0, one of them positive")
            mixture = mixture / mixture.sum()
        matrices = [_target(matrix, name) / scale for matrix, name, scale in zip(matrices, names, scales, strict=True)]
        for name, matrix in zip(names, matrices, strict=True):
            if matrix.shape != matrices[0].shape:
                raise ValueError(
                    f"targets: {name!r} has shape {matrix.shape}, {names[0]!r} {matrices[0].shape}; all must have the "
                    "dimension of the features"
                )
        for field, value in (("H", np.stack(matrices)), ("mixture", mixture), ("names", names)):
            object.__setattr__(self, field, value)

    @property
    def multiplicative_power(self):
        """None: steps jump from target to target."""
        return None

    def tree_flatten(self):
        return (self.H, self.mixture), self.names

    @classmethod
    def tree_unflatten(cls, names, leaves):
        criterion = object.__new__(cls)  # never validates: transformations unflatten with placeholders
        for field, value in (("H", leaves[0]), ("mixture", leaves[1]), ("names", names)):
            object.__setattr__(criterion, field, value)
        return criterion

    def check(self, dim, draws):
        if np.shape(self.H)[1:] != (dim, dim):
            raise ValueError(f"targets: shape {np.shape(self.H)[1:]} found; expected {(dim, dim)}")

    def for_whole_labels(self):
        """The Trace criterion of the mixture."""
        weights = np.full(len(self.names), 1.0) if self.mixture is None else np.asarray(self.mixture)
        return Trace(np.tensordot(weights / weights.sum(), np.asarray(self.H), 1))

    def values(self, information: Float[AnyArray, "*r d d"]) -> Float[Array, " t"]:
        """f_t: tr(H_t A^-1) / scale_t of each target, averaged over draws."""
        return traces(self.H, inverse(jnp.asarray(information)))

    def mixed(self, mixture: Any) -> WorstCase:
        """The same criterion with another mixture for its lower bound."""
        mixture = np.asarray(mixture, np.float64)
        return WorstCase.tree_unflatten(self.names, (self.H, mixture / mixture.sum()))

    def smooth(self, weights: Any = None, power: float = POWER) -> PowerMean:
        """The weighted power mean of the targets, below the worst case; equal weights where none are given."""
        count = len(self.names)
        weights = np.full(count, 1 / count) if weights is None else np.asarray(weights, np.float64)
        return PowerMean(self.H, weights / weights.sum(), np.float64(power))

    def value(self, information):
        return jnp.max(self.values(information))

    def gradient(self, information):
        inv = inverse(jnp.asarray(information))
        return sandwich(inv, mixed(self.H, self._weights(inv), inv.dtype), inv)

    def _weights(self, inv):
        """Of the targets in the bound; they sum to at most 1."""
        if self.mixture is not None:
            return self.mixture
        f = traces(self.H, inv)
        weights = (f / jnp.maximum(jnp.max(f), jnp.finfo(f.dtype).tiny)) ** (POWER - 1)
        return weights / jnp.maximum(jnp.sum(weights), 1)

    def _root(self, inv):
        return gradient_factors(mixed(self.H, self._weights(inv), inv.dtype) * BELOW)

    def factors(self, information):
        return self.value_and_factors(information)[1]

    def value_and_factors(self, information):
        _, inverse_factor = cholesky_and_inverse(jnp.asarray(information))
        inv = inverse_from(inverse_factor)
        _, factors = trace_value_and_factors(inverse_factor, self._root(inv))
        return jnp.max(traces(self.H, inv)), factors

    def anchor(self, information, factors):
        """That of the mixture's Trace criterion."""
        return trace_anchor(information, factors, self._root(inverse(jnp.asarray(information))))

    def in_basis(self, basis, unit=1.0):
        """Every H_t becomes B^T H_t B / unit."""
        return WorstCase.tree_unflatten(self.names, (congruent(basis, self.H, unit), self.mixture))

    def curvature(self, information):
        return self.smooth().curvature(information)

    def lower_bound(self, value, linear, current, dim):
        """That of the mixture, whose value is tr(G A) or the anchor, whichever is given."""
        return super().lower_bound(library_of(value, current).minimum(value, current), linear, current, dim)


def family_of(criterion: ConvexCriterion) -> WorstCase:
    """A criterion that says it is a family, as what has targets, their mixture and a smooth criterion below them."""
    return cast(WorstCase, criterion)


def target_report(criterion: WorstCase, information: Float[AnyArray, "*r d d"]) -> dict:
    """Value of each target, weight of each in the bound, and the binding ones: those with weight. By name."""
    values = np.asarray(criterion.values(information), np.float64).tolist()
    mixture = np.asarray(criterion.mixture, np.float64).tolist()
    return {
        "targets": dict(zip(criterion.names, values, strict=True)),
        "mixture": dict(zip(criterion.names, mixture, strict=True)),
        "binding": [name for name, weight in zip(criterion.names, mixture, strict=True) if weight > BINDING],
    }


def _by_name(values: Any, names: tuple[str, ...], argument: str) -> Float[np.ndarray, " t"]:
    """Numbers in the order of the targets; from a mapping, by their names."""
    if isinstance(values, Mapping):
        given = {str(name): value for name, value in values.items()}
        if set(given) != set(names):
            raise ValueError(f"{argument}: names {sorted(given)} found; expected those of the targets, {sorted(names)}")
        values = [given[name] for name in names]
    try:
        values = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{argument}: expected one number per target, found {values!r}") from error
    if values.shape != (len(names),) or not np.isfinite(values).all():
        raise ValueError(f"{argument}: {values.tolist()} found; expected {len(names)} finite numbers, one per target")
    return values


def _target(matrix: Any, name: str) -> np.ndarray:
    label = f"targets[{name!r}]"
    matrix = _checks.as_float_array(matrix, label)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{label}: shape {matrix.shape} found; expected a square matrix (d, d)")
    return _checks.symmetric_psd(matrix, matrix.shape[0], label)
