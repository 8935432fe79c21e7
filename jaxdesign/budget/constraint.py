"""Constraint: a linear limit on labels, or a family of such limits, that a user adds to a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxdesign import _checks
from jaxdesign.budget.family import Family, Rows, family_of
from jaxdesign.budget.quota import limits_of_groups


@dataclass(frozen=True, eq=False)
class Constraint:
    """low_g <= sum_e a_ge n_e <= high_g for every row g: what labels use of something that is scarce or required.

    A label of pair e = (p, i, j) uses a_ge of row g. With one charge c_pk for each completion, it uses c_pi of the row
    that completion i is in and c_pj of the row of j; with one charge c_p for each prompt, or one for all, it uses that
    much of every row that the pair touches. Which rows there are says `per`:

        None          one row: what all labels use together
        "prompt"      a row for each prompt
        "completion"  a row for each completion: what the labels of all pairs that it is in use of it
        names         a row for each name: (P,) of the prompts, or (P, K) of the completions

    Reading lengths are (P, K) charges with one row; at most r labels on pairs that touch a completion, whichever, are
    `Constraint(1, high=r, per="completion")`; groups of prompts are what `Quota` says shorter.

    Args:
        charges: a number, (P,) or (P, K), finite and at least 0 wherever there is a completion.
        low: least use of a row: a number for all, or an array like the rows, (P,) or (P, K); for names, a number or a
            mapping (0 for names that are not in it). None: 0. In the units of the charges.
        high: largest use of a row, likewise (no limit for names that are not in it). None: no limit.
        name: what messages call the constraint.
        per: what the rows are.
        annotators: names of the `Annotators` whose labels count, one or several; None: all labels count.

    A budget may have several constraints, which may cross in any way. What it cannot obey is refused in words.

    Raises:
        TypeError: charges or limits that are no numbers, annotators that are no names.
        ValueError: charges or limits that are negative or NaN, low above high, neither of the two given, a shape that
            does not fit `per`, names of another kind than strings or integers.

    Source: linear constraints keep the set of allowed allocations convex, so that Lagrange duality certifies
    (`budget.linear_program`).
    """

    charges: Any
    low: Any = None
    high: Any = None
    name: str = "constraint"
    per: Any = None
    annotators: Any = None

    def __post_init__(self):
        charges = _numbers(self.charges, f"{self.name}.charges")
        if charges.ndim > 2:
            raise ValueError(
                f"{self.name}.charges: shape {charges.shape} found; expected a number, (P,) per prompt or (P, K) per "
                "completion"
            )
        if (charges < 0).any():
            raise ValueError(f"{self.name}.charges: {charges.min():g} found; must be at least 0")
        if self.low is None and self.high is None:
            raise ValueError(f"{self.name}: neither low nor high is given, so it limits nothing; leave it out")
        if isinstance(self.per, str):
            if self.per not in ("prompt", "completion"):
                raise ValueError(
                    f"{self.name}.per={self.per!r}: expected None, 'prompt', 'completion', or names of the rows, (P,) "
                    "or (P, K)"
                )
            per = self.per
        else:
            per = None if self.per is None else _names(self.per, f"{self.name}.per")
        if isinstance(per, np.ndarray) and per.ndim == 2 and charges.ndim < 2:
            raise ValueError(
                f"{self.name}.charges: shape {charges.shape} found; rows named by completion need charges (P, K)"
            )
        for field in ("low", "high"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, Mapping):
                value = _numbers(value, f"{self.name}.{field}")
                if not (value >= 0).all():
                    raise ValueError(f"{self.name}.{field}: {np.min(value):g} found; must be at least 0 and not NaN")
                object.__setattr__(self, field, value)
        who = self.annotators
        if who is not None:
            who = (who,) if isinstance(who, str) or not isinstance(who, Iterable) else tuple(who)
            who = tuple(map(str, who))
            if not who:
                raise ValueError(f"{self.name}.annotators: none is named, so no label counts; None means all")
        for field, value in (("charges", charges), ("per", per), ("annotators", who)):
            object.__setattr__(self, field, value)

    def family(self, mask: np.ndarray) -> Family:
        """The constraint as arrays, for a pool with this mask.

        Raises:
            ValueError: charges, limits or names of a shape that does not fit the pool, charges that are not finite.
        """
        prompts, completions = mask.shape
        charges = self._charges(mask)
        per = self.per
        if per is None:
            owner, rows, shape = np.zeros((prompts, 1), np.int32), Rows(self.name, ()), ()
        elif isinstance(per, np.ndarray):
            expected = (prompts,) if per.ndim == 1 else mask.shape
            _checks.same_shape(per.shape, expected, f"{self.name}.per", "one name per prompt, or per completion")
            names, owner = np.unique(per, return_inverse=True)
            owner = owner.reshape(prompts, -1).astype(np.int32)
            rows, shape = Rows(self.name, (len(names),), tuple(map(str, names.tolist()))), names
        elif per == "prompt":
            owner = np.arange(prompts, dtype=np.int32)[:, None]
            rows, shape = Rows(self.name, (prompts,), None, "prompt"), (prompts,)
        else:
            owner = np.arange(prompts * completions, dtype=np.int32).reshape(prompts, completions)
            rows, shape = Rows(self.name, mask.shape, None, "completion"), mask.shape
        if charges.shape[1] == 1:  # what a label uses of a row: half of it for each of two completions in one row
            charges = charges / 2 if owner.shape[1] == 1 else np.where(mask, charges, 0.0)
        low, high = (self._limit(field, shape) for field in ("low", "high"))
        if (low > high).any():
            g = int(np.argmax(low > high))
            raise ValueError(f"{self.name}: {rows.name(g)} has low={low[g]:g} above high={high[g]:g}")
        return family_of(charges, owner, low, high, rows, "constraint")

    def _charges(self, mask) -> np.ndarray:
        charges = np.asarray(self.charges)
        if charges.ndim == 2:
            expected = "(prompts, completions), one number per completion"
            _checks.same_shape(charges.shape, mask.shape, f"{self.name}.charges", expected)
            charges = np.where(mask, charges, 0.0)
        else:
            if charges.ndim == 1:
                _checks.same_shape(charges.shape, mask.shape[:1], f"{self.name}.charges", "one number per prompt, (P,)")
            charges = np.broadcast_to(charges, len(mask))[:, None]
        if not np.isfinite(charges).all():
            p, k = np.argwhere(~np.isfinite(charges))[0]
            raise ValueError(f"{self.name}.charges: {charges[p, k]} at prompt {p}; charges must be finite")
        return charges

    def _limit(self, field, shape) -> np.ndarray:
        value, otherwise = getattr(self, field), 0.0 if field == "low" else np.inf
        if isinstance(shape, np.ndarray):  # names
            return limits_of_groups(self.name, field, shape.tolist(), value, otherwise)
        if isinstance(value, Mapping):
            raise ValueError(f"{self.name}.{field}: a mapping found, but per={self.per!r} has no names")
        value = np.asarray(otherwise if value is None else value)
        if value.shape not in ((), shape):
            raise ValueError(
                f"{self.name}.{field}: shape {value.shape} found; expected a number"
                + (f" or {shape}, one for each {self.per}" if shape else "; per=None has one row")
            )
        return np.broadcast_to(value, shape).reshape(-1)


def whole_constraint(constraint: Constraint) -> Constraint:
    """The constraint with limits rounded inwards where every label uses a whole number: least ones up, others down."""
    charges = constraint.charges[np.isfinite(constraint.charges)]
    if (charges != np.rint(charges)).any():
        return constraint
    return replace(constraint, low=_each(constraint.low, np.ceil), high=_each(constraint.high, np.floor))


def of_share(constraint: Constraint, share: float) -> Constraint | None:
    """The upper limits of a constraint for a share of the labels, up to the next whole one; None if there are none."""
    if constraint.high is None:
        return None
    return replace(constraint, low=None, high=_each(constraint.high, lambda limit: np.ceil(share * limit)))


def _each(limit: Any, function: Callable) -> Any:
    """The function of a limit, or of every one of a mapping; None for None."""
    if isinstance(limit, Mapping):
        return {name: float(function(number)) for name, number in limit.items()}
    return None if limit is None else function(limit)


def repeated(constraint: Constraint, names: Sequence[str], mask: np.ndarray) -> Constraint:
    """The constraint for the pool once per annotator: rows are those of the pool, charged by the labels that count.

    Raises:
        ValueError: an annotator that is not among `names`.
    """
    who = names if constraint.annotators is None else constraint.annotators
    for name in who:
        if name not in names:
            raise ValueError(
                f"{constraint.name}.annotators: {name!r} found; annotators are {', '.join(map(repr, names[:8]))}"
            )
    prompts = len(mask)
    charges, per = np.broadcast_to(constraint.charges, constraint.charges.shape or (prompts,)), constraint.per
    if per == "completion" and charges.ndim == 1:
        charges = np.broadcast_to(charges[:, None], mask.shape)
    limits = {"low": constraint.low, "high": constraint.high}
    if isinstance(per, str):  # the same rows for every annotator: named by their places
        shape = (prompts,) if per == "prompt" else mask.shape
        for field, limit in limits.items():
            if np.ndim(limit) > 0:
                limits[field] = dict(enumerate(np.asarray(limit).ravel().tolist()))
        per = np.arange(np.prod(shape)).reshape(shape)
    if per is not None:
        per = np.concatenate([per] * len(names))
    charges = np.concatenate([charges if name in who else np.zeros_like(charges) for name in names])
    return replace(constraint, charges=charges, per=per, annotators=None, **limits)


def _numbers(value: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers, found {type(value).__name__}") from error


def _names(value: Any, name: str) -> np.ndarray:
    try:
        names = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{name}: expected names (P,) or (P, K), found {value!r}") from error
    if names.ndim not in (1, 2) or names.dtype.kind not in "USiub":
        raise ValueError(
            f"{name}: shape {names.shape} and dtype {names.dtype} found; expected None, 'prompt', 'completion', or "
            "names (P,) or (P, K), all strings or all integers"
        )
    return names
