"""Quota: labels that groups of prompts must or may get together, for instance by domain or by language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class Quota:
    """Least and largest number of labels of each group in one grouping of the prompts.

    Args:
        of: (P,) the group of every prompt, names of one kind (strings or integers).
        at_least: labels that a group must get: a number for all groups, or a mapping from names to numbers (0 for
            groups that it does not name). None: no minimum.
        at_most: labels that a group may get, likewise (no limit for groups that it does not name). None: no limit.
        name: what messages call the grouping.

    A budget may have several quotas, whose groups may cross (domain and language).

    Raises:
        TypeError: limits that are neither numbers nor mappings to numbers.
        ValueError: `of` with more than one axis or of names that are neither strings nor integers, a group that no
            prompt is in, a negative or NaN limit, at_least above at_most, neither of the two given.
    """

    of: Any
    at_least: float | Mapping[Any, float] | None = None
    at_most: float | Mapping[Any, float] | None = None
    name: str = "quota"

    def __post_init__(self):
        try:
            of = np.asarray(self.of)
        except ValueError as error:  # lists in a list
            raise ValueError(f"{self.name}.of: expected one name per prompt, (P,), found {self.of!r}") from error
        if of.ndim != 1 or of.dtype.kind not in "USiub":  # no floats: NaN is the name of no group
            raise ValueError(
                f"{self.name}.of: shape {of.shape} and dtype {of.dtype} found; expected one name per prompt, (P,), all "
                "strings or all integers"
            )
        object.__setattr__(self, "of", of)
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"{self.name}: neither at_least nor at_most is given, so it limits nothing; leave it out")
        self.groups()

    def groups(self) -> Groups:
        """The quota as arrays, groups in the order of their names."""
        names, owner = np.unique(self.of, return_inverse=True)
        low, high = self._limits(names.tolist(), "at_least", 0.0), self._limits(names.tolist(), "at_most", np.inf)
        if (low > high).any():
            k = int(np.argmax(low > high))
            raise ValueError(f"{self.name}: group {names[k]!s} has at_least={low[k]:g} above at_most={high[k]:g}")
        return Groups(tuple(f"{self.name} {name}" for name in names.tolist()), owner.astype(np.int32), low, high)

    def _limits(self, names, field, otherwise):
        value = getattr(self, field)
        given = dict(value) if isinstance(value, Mapping) else {}
        unknown = [name for name in given if name not in names]
        if unknown:
            shown = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
            raise ValueError(f"{self.name}.{field}: no prompt is in group {unknown[0]!r}; groups are {shown}")
        every = otherwise if value is None or isinstance(value, Mapping) else value
        try:
            limits = np.array([float(given.get(name, every)) for name in names])
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{self.name}.{field}: expected a number or a mapping to numbers, found {value!r}"
            ) from error
        if not (limits >= 0).all():
            k = int(np.argmin(limits >= 0))
            raise ValueError(f"{self.name}.{field}: {limits[k]:g} for group {names[k]!r}; must be at least 0")
        return limits


def whole_quota(quota: Quota) -> Quota:
    """The quota with least numbers rounded up and largest ones down."""
    groups, names = quota.groups(), np.unique(quota.of).tolist()
    low, high = np.ceil(groups.low), np.floor(groups.high)
    if (low > high).any():
        k = int(np.argmax(low > high))
        raise ValueError(
            f"{quota.name}: no whole number of labels is between at_least={groups.low[k]:g} and "
            f"at_most={groups.high[k]:g} of group {names[k]!r}; widen the quota"
        )
    at_least, at_most = (dict(zip(names, limits.tolist(), strict=True)) for limits in (low, high))
    return replace(quota, at_least=at_least, at_most=at_most)


class Groups(NamedTuple):
    """The groups of one or several quotas."""

    names: tuple[str, ...]
    owner: Int[np.ndarray, "*q p"]  # group of every prompt (in each quota)
    low: Float[np.ndarray, " g"]
    high: Float[np.ndarray, " g"]


def joined(quotas: tuple[Quota, ...]) -> Groups:
    """The groups of all quotas numbered one after the other; owner is (Q, P)."""
    every = [quota.groups() for quota in quotas]
    starts = np.cumsum([0, *[len(groups.names) for groups in every]])
    return Groups(
        sum((groups.names for groups in every), ()),
        np.stack([groups.owner + start for groups, start in zip(every, starts, strict=False)]),
        np.concatenate([groups.low for groups in every]),
        np.concatenate([groups.high for groups in every]),
    )
