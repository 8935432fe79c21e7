"""Quota: labels that groups of prompts must or may get together, for instance by domain or by language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxdesign.budget.family import Family, Rows, family_of


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

    Source: derived; checked by tests/budget/test_coupling.py.
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
        self.family()

    def family(self) -> Family:
        """The quota as arrays, groups in the order of their names."""
        names, owner = np.unique(self.of, return_inverse=True)
        low = limits_of_groups(self.name, "at_least", names.tolist(), self.at_least, 0.0)
        high = limits_of_groups(self.name, "at_most", names.tolist(), self.at_most, np.inf)
        if (low > high).any():
            k = int(np.argmax(low > high))
            raise ValueError(f"{self.name}: group {names[k]!s} has at_least={low[k]:g} above at_most={high[k]:g}")
        rows = Rows(self.name, (len(names),), tuple(map(str, names.tolist())))
        each = np.full((len(owner), 1), 0.5)  # of the two completions of a pair
        return family_of(each, owner.astype(np.int32)[:, None], low, high, rows, "quota")


def limits_of_groups(name: str, field: str, groups: list, value: Any, otherwise: float) -> np.ndarray:
    """A limit for every group, from a number for all or a mapping from their names; in messages `name.field`."""
    given = dict(value) if isinstance(value, Mapping) else {}
    unknown = [group for group in given if group not in groups]
    if unknown:
        shown = ", ".join(map(repr, groups[:8])) + (", ..." if len(groups) > 8 else "")
        raise ValueError(f"{name}.{field}: no prompt is in group {unknown[0]!r}; groups are {shown}")
    every = otherwise if value is None or isinstance(value, Mapping) else value
    try:
        limits = np.array([float(given.get(group, every)) for group in groups])
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}.{field}: expected a number or a mapping to numbers, found {value!r}") from error
    if not (limits >= 0).all():
        k = int(np.argmin(limits >= 0))
        raise ValueError(f"{name}.{field}: {limits[k]:g} for group {groups[k]!r}; must be at least 0")
    return limits


def whole_quota(quota: Quota) -> Quota:
    """The quota with least numbers rounded up and largest ones down."""
    family, names = quota.family(), np.unique(quota.of).tolist()
    low, high = np.ceil(family.low), np.floor(family.high)
    if (low > high).any():
        k = int(np.argmax(low > high))
        raise ValueError(
            f"{quota.name}: no whole number of labels is between at_least={family.low[k]:g} and "
            f"at_most={family.high[k]:g} of group {names[k]!r}; widen the quota"
        )
    at_least, at_most = (dict(zip(names, limits.tolist(), strict=True)) for limits in (low, high))
    return replace(quota, at_least=at_least, at_most=at_most)
