"""What a criterion is: a convex, decreasing function of the information matrix that a design minimises.

`ConvexCriterion` is the base of every criterion here, and of a user's own: a class with a `value`, registered as a
pytree. All else follows from that by differentiation and by the criterion's degree; what is known in closed form
overrides it.

Bounds by degree. Let f be the criterion, G = -grad f at A, and tr(G A(n')) <= linear for every allowed n'.

    degree 0    exp(-f / s) is concave and of degree 1 in A, s = `size(d)`: -log det A with s = d, for instance
                f(A') >= f(A) - s log(linear / s)
    degree -1   f is positive and 1 / f concave and of degree 1: tr(H A^-1), Kiefer's phi_p
                f(A') >= f(A)^2 / linear
    None        f is convex, nothing more
                f(A') >= f(A) - (linear - tr(G A))

The first two are concavity of h = exp(-f / s) or 1 / f at A, h(A') <= tr(grad h A'), as h = tr(grad h A) by Euler's
formula, written for f. Derived; checked by tests/extensions/test_new_criteria.py against cvxpy.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign._arrays import HIGHEST, float64
from jaxdesign._linalg import gradient_factors, sandwich


class Gains(Enum):
    """By which formula one more label, or a label moved from pair to pair, changes the criterion.

    Source: derived; checked by tests/exact/test_greedy_picks.py and tests/exact/test_exchange.py.
    """

    LOG_DET = "log(1 + c z^T A^-1 z), the determinant lemma"
    TRACE = "c z^T A^-1 H A^-1 z / (1 + c z^T A^-1 z), Sherman-Morrison; needs a target H"
    FIRST_ORDER = "the sensitivity b, which convexity makes the largest that a label can gain"


@runtime_checkable
class CriterionLike(Protocol):
    """The six methods that every criterion has; see `ConvexCriterion`, whose defaults give all but the first.

    Source: derived; checked by tests/criteria/test_criteria.py.
    """

    def value(self, information: Float[Array, "*r d d"]) -> Float[Array, ""]:
        """Criterion of A, averaged over draws; NaN or inf where A is not positive definite."""
        ...

    def gradient(self, information: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
        """G = -grad criterion at each draw (not divided by the number of draws)."""
        ...

    def factors(self, information: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
        """F with F F^T = G, so that b = c |z F|^2 cannot cancel; `gradient_factors(G)` gives them from any G."""
        ...

    def curvature(self, information: Float[Array, "*r d d"]) -> Callable:
        """Linear map from a change of A to -dG at each draw: the Hessian in the labels is z^T curvature z."""
        ...

    def lower_bound(self, value: Any, linear: Any, current: Any, dim: int) -> Any:
        """Bound below the best value; traceable.

        Args:
            value: criterion of A.
            linear: t + S, t = tr(G prior) and S the largest sum_e b_e n'_e over allowed n'.
            current: tr(G A) = t + sum_e b_e n_e.
            dim: d.

        Returns:
            A number of the kind of the arguments, at most `value`.
        """
        ...

    def efficiency(self, value: Any, lower_bound: Any, dim: int) -> Any:
        """Certified efficiency in (0, 1], traceable; NaN where the criterion has no such formula.

        Args:
            value: criterion of A.
            lower_bound: on the best value.
            dim: d.

        Returns:
            A number of the kind of the arguments.
        """
        ...


class ConvexCriterion:
    """Base of criteria: write `value`, say the degree, register the class as a pytree.

        @jax.tree_util.register_dataclass
        @dataclass(frozen=True)
        class PhiTwo(ConvexCriterion):  # Kiefer's phi_2, (tr A^-2 / d)^(1/2)
            degree: ClassVar = -1

            def value(self, information):
                inverse = jnp.linalg.inv(information)
                squares = jnp.sum(inverse * inverse, axis=(-2, -1)) / information.shape[-1]
                return jnp.mean(jnp.sqrt(squares))

    `value` takes one matrix (d, d), or a stack (R, d, d) of parameter draws, over which it averages. It is traceable,
    keeps the dtype it is given, and must be convex and decreasing in A; solvers call it in float64. Whether it
    decreases is checked at the even allocation, convexity cannot be.

    Attributes:
        degree: 0, -1 or None: which bound holds, see the module's text.
        gains: how labels and swaps change it; FIRST_ORDER unless the criterion is one of the two with a closed form.
        infinite_where_singular: True where a singular A has no finite value.
        decreasing: True where that needs no check.
        multiplicative_power: of multiplicative steps that are monotone; None where these make no sense.
        target: H, where the criterion is tr(H A^-1).
        family: True for the largest of several criteria, of which every mixture gives a bound (`WorstCase`).

    Source: bounds are derived in the module's text; checked by tests/extensions/test_new_criteria.py against cvxpy.
    """

    degree: ClassVar[int | None] = None
    gains: ClassVar[Gains] = Gains.FIRST_ORDER
    infinite_where_singular: ClassVar[bool] = False
    decreasing: ClassVar[bool] = False
    target: Any = None
    family: ClassVar[bool] = False

    @property
    def multiplicative_power(self) -> float | None:
        """1 for degree 0, 1/2 for others, whose sensitivities are of second order in A^-1."""
        return 1.0 if self.degree == 0 else 0.5

    def size(self, dim: int) -> float:
        """s of the module's text, for degree 0: f(t A) = f(A) - s log t."""
        return float(dim)

    def value(self, information: Float[Array, "*r d d"]) -> Float[Array, ""]:
        """Criterion of A, averaged over draws; NaN or inf where A is not positive definite."""
        raise NotImplementedError(f"{type(self).__name__}.value: a criterion needs one")

    def gradient(self, information: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
        """G = -grad criterion at each draw (not divided by the number of draws), by `jax.grad`."""
        information = jnp.asarray(information)
        draws = information.shape[0] if information.ndim == 3 else 1
        slope = draws * jax.grad(self.value)(information)
        return -(slope + jnp.swapaxes(slope, -1, -2)) / 2

    def factors(self, information: Float[Array, "*r d d"]) -> Float[Array, "*r d d"]:
        """F with F F^T = G, so that b = c |z F|^2 cannot cancel."""
        return gradient_factors(self.gradient(information))

    def value_and_factors(self, information: Float[Array, "*r d d"]) -> tuple[Float[Array, ""], Float[Array, "*r d q"]]:
        """`value` and `factors` at the same A, as most evaluations need them; override to factorise A once for both."""
        return self.value(information), self.factors(information)

    def curvature(self, information: Float[Array, "*r d d"]) -> Callable:
        """Linear map from a change of A to -dG at each draw: the Hessian in the labels is z^T curvature z."""
        slope = jax.linearize(self.gradient, information)[1]
        return lambda change: -slope(change)

    def anchor(self, information: Float[Array, "*r d d"], factors: Float[Array, "*r d q"]) -> Float[Array, ""] | None:
        """What the lower bound may start from so that it holds for F as computed (`anchors`).

        Args:
            information: A, (d, d) or (R, d, d).
            factors: F as computed, with F F^T close to G.

        Returns:
            A number, or None: the bound starts from the value, and takes G as exact.
        """
        return None

    def lower_bound(self, value: Any, linear: Any, current: Any, dim: int) -> Any:
        """The bound of the degree, as in the module's text; see `CriterionLike.lower_bound`."""
        xp = library_of(value, linear, current)
        if self.degree == 0:
            size = self.size(dim)
            return value - size * xp.log(xp.maximum(linear, size) / size)
        if self.degree == -1:
            most = xp.maximum(linear, value)
            return xp.where(value > 0, value * (value / xp.where(most > 0, most, 1.0)), 0.0)
        return value - xp.maximum(linear - current, 0.0)

    def efficiency(self, value: Any, lower_bound: Any, dim: int) -> Any:
        """exp((bound - value) / s) for degree 0, bound / value for -1, else NaN; see `CriterionLike.efficiency`."""
        xp = library_of(value, lower_bound)
        if self.degree == 0:
            return xp.exp((lower_bound - value) / self.size(dim))
        if self.degree == -1:
            return xp.where(value > 0, lower_bound / xp.where(value > 0, value, 1.0), 1.0)
        return xp.full_like(value, np.nan)

    def check(self, dim: int, draws: int | None) -> None:
        """ValueError where the criterion is not made for features of dimension `dim` and this number of `draws`."""

    def in_basis(self, basis: Float[Array, "d d"], unit: Any = 1.0) -> Any:
        """The criterion, over `unit` and up to a constant, of features phi B, B the `basis`: A' = B^T A B."""
        return InBasis(self, jnp.linalg.inv(basis).T, jnp.asarray(unit, basis.dtype))

    def in_units(self, exponents: Any) -> Any:
        """The criterion, with the same values, of features times 2^e."""
        if not np.any(exponents):
            return self
        with float64():
            return jax.tree.map(np.asarray, self.in_basis(jnp.diag(jnp.asarray(np.ldexp(1.0, exponents)))))

    def smooth(self) -> Any:
        """A criterion below this one that has a gradient everywhere, by which solvers step."""
        return self

    def for_whole_labels(self) -> Any:
        """The criterion that choices of whole labels go by: of a family, one member."""
        return self

    def of_draw(self, draw: int) -> Any:
        """The criterion of one parameter draw."""
        return self

    def expression(self, cvxpy: Any, information: Any) -> Any:
        """The criterion of one draw for `jaxdesign.reference`, as cvxpy expressions; None where there is none.

        Args:
            cvxpy: the module.
            information: (d, d) symmetric affine expression A.

        Returns:
            A convex expression, and a list of constraints on variables of its own, over which it is minimised too.
        """
        return None


def library_of(*numbers: Any) -> Any:
    """NumPy for numbers of the host, which are float64 whatever JAX's flag, or else `jax.numpy`."""
    return jnp if any(isinstance(number, jax.Array) for number in numbers) else np


@jax.tree_util.register_pytree_node_class
class InBasis(ConvexCriterion):
    """Any criterion in another basis and divided by `unit`: at A' = B^T A B it is that of A, G' = B^-1 G B^-T.

    Args:
        criterion: any.
        back: B^-T, so that A = B^-T A' B^-1.
        unit: what it is divided by.
    """

    def __init__(self, criterion: Any, back: Float[Array, "d d"], unit: Float[Array, ""]):
        self.criterion, self.back, self.unit = criterion, back, unit

    def tree_flatten(self):
        return (self.criterion, self.back, self.unit), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)

    def _given(self, information):
        return sandwich(self.back, information, self.back.T)

    def of_draw(self, draw):
        return InBasis(self.criterion.of_draw(draw), self.back, self.unit)

    # class variables elsewhere, so that a criterion states them in a line; a wrapper can only pass them on
    @property
    def degree(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.criterion.degree

    @property
    def infinite_where_singular(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.criterion.infinite_where_singular

    @property
    def decreasing(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.criterion.decreasing

    @property
    def multiplicative_power(self):
        return self.criterion.multiplicative_power

    def size(self, dim):
        return self.criterion.size(dim)

    def value(self, information):
        return self.criterion.value(self._given(information)) / self.unit

    def gradient(self, information):
        return sandwich(self.back.T, self.criterion.gradient(self._given(information)), self.back) / self.unit

    def factors(self, information):
        factors = self.criterion.factors(self._given(information))
        return jnp.matmul(self.back.T, factors, precision=HIGHEST) / self.unit**0.5

    def value_and_factors(self, information):
        value, factors = self.criterion.value_and_factors(self._given(information))
        return value / self.unit, jnp.matmul(self.back.T, factors, precision=HIGHEST) / self.unit**0.5

    def curvature(self, information):
        given = self.criterion.curvature(self._given(information))
        return lambda change: sandwich(self.back.T, given(self._given(change)), self.back) / self.unit

    def lower_bound(self, value, linear, current, dim):
        given = value * self.unit, linear * self.unit, current * self.unit
        return self.criterion.lower_bound(*given, dim) / self.unit

    def efficiency(self, value, lower_bound, dim):
        return self.criterion.efficiency(value * self.unit, lower_bound * self.unit, dim)

    def expression(self, cvxpy, information):
        back = np.asarray(self.back)
        found = self.criterion.expression(cvxpy, back @ information @ back.T)
        return None if found is None else (found[0] / float(self.unit), found[1])
