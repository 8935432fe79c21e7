"""Families: linear constraints in the one form that everything which reads them works on.

low_g <= sum_e a_ge n_e <= high_g for every row g, where a label of pair e = (p, i, j) uses

    a_ge = charges_pi [owner_pi = g] + charges_pj [owner_pj = g].

So a multiplier per row is a charge per completion, sum_g v_g a_ge = v[owner_pi] charges_pi + v[owner_pj] charges_pj,
and a pass over all pairs net of any number of families costs what one net of a spend limit costs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdesign._pairs import Allocation

FIELDS = {"quota": "quotas", "cost": "cost_total", "constraint": "constraints"}  # of `Budget`, by the kind of a family


class Rows(NamedTuple):
    """What messages call a family and its rows."""

    family: str
    shape: tuple[int, ...]  # of the rows; () for a single one
    names: tuple[str, ...] | None = None  # None: rows are told by their place
    of: str = ""  # what there is a row for each of

    def name(self, row: int) -> str:
        """Of one row."""
        if not self.shape:
            return self.family
        if self.names is not None:
            return f"{self.family} {self.names[row]}"
        place = tuple(int(v) for v in np.unravel_index(row, self.shape))
        return f"{self.family} of {self.of} {place[0] if len(place) == 1 else place}"


class Family(NamedTuple):
    """Rows that constrain labels; c = K, or 1 where all completions of a prompt are alike."""

    charges: Float[np.ndarray, "p c"]
    owner: Int[np.ndarray, "p c"]  # the row of each completion
    low: Float[np.ndarray, " g"]
    high: Float[np.ndarray, " g"]
    most: Float[np.ndarray, " g"]  # no label uses more of the row
    whole: bool  # every label uses a whole number of every row
    rows: Rows
    kind: str  # "quota", "cost" or "constraint": the words of messages

    @property
    def by_prompt(self) -> bool:
        """Whether all pairs of a prompt use the same: then labels of prompts decide."""
        return self.charges.shape[1] == 1 and self.owner.shape[1] == 1


class Uses(NamedTuple):
    """What a label of each pair uses: of one row, or of two different ones (or nothing of the second)."""

    row: Int[np.ndarray, "m s"]
    amount: Float[np.ndarray, "m s"]


def family_of(charges, owner, low, high, rows: Rows, kind: str) -> Family:
    """A family, with what follows from its arrays."""
    top = np.sort(charges, axis=1)[:, -2:].sum(axis=1) if charges.shape[1] > 1 else 2 * charges[:, 0]
    most = np.zeros(len(low))
    if owner.shape[1] == 1:
        np.maximum.at(most, owner[:, 0], top)
    else:
        full = np.broadcast_to(charges, owner.shape)
        np.maximum.at(most, owner.ravel(), full.ravel())
        ranked = np.sort(owner, axis=1)
        if (ranked[:, 1:] == ranked[:, :-1]).any():  # both completions of a pair may be in one row
            most *= 2
    per_label = 2 * charges if charges.shape[1] == 1 and owner.shape[1] == 1 else charges
    whole = bool((per_label == np.rint(per_label)).all())
    return Family(charges, owner, low, high, most, whole, rows, kind)


def of_both(charges: Float[np.ndarray, "p c"], pairs: Int[np.ndarray, "s 3"]) -> Float[np.ndarray, "2 s"]:
    """The charges of both completions of each pair."""
    p, *sides = pairs.T
    return np.stack([charges[p, 0 if charges.shape[1] == 1 else side] for side in sides])


def uses(family: Family, pairs: Int[np.ndarray, "s 3"]) -> Uses:
    """What a label of each pair uses."""
    p, i, j = pairs.T
    owner, (first, second) = family.owner, of_both(family.charges, pairs)
    if owner.shape[1] == 1:
        return Uses(owner[p, 0][None], (first + second)[None])
    row = np.stack([owner[p, i], owner[p, j]])
    same = row[0] == row[1]
    return Uses(row, np.stack([np.where(same, first + second, first), np.where(same, 0.0, second)]))


def usage(family: Family, allocation: Allocation) -> Float[np.ndarray, " g"]:
    """What an allocation uses of every row."""
    pairs, labels = allocation
    used = uses(family, pairs)
    return np.bincount(used.row.ravel(), (used.amount * labels).ravel(), minlength=len(family.low))


def prompt_usage(family: Family, prompt_labels: Float[np.ndarray, " p"]) -> Float[np.ndarray, " g"]:
    """The same from the labels of every prompt, for a family `by_prompt`."""
    used = 2 * family.charges[:, 0] * prompt_labels
    return np.bincount(family.owner[:, 0], used, minlength=len(family.low))


def usage_matrix(family: Family, pairs: Int[np.ndarray, "s 3"]):
    """(G, S) sparse: what a label of each pair uses of every row."""
    from scipy import sparse

    used = uses(family, pairs)
    column = np.broadcast_to(np.arange(len(pairs)), used.row.shape)
    entries = used.amount.ravel(), (used.row.ravel(), column.ravel())
    return sparse.csr_matrix(entries, (len(family.low), len(pairs)))


def charged(family: Family, prices: Float[np.ndarray, " g"]) -> Float[np.ndarray, "p c"]:
    """What each completion is charged at these prices of the rows."""
    return prices[family.owner] * family.charges


def less(family: Family, used: Float[np.ndarray, " g"]) -> Family:
    """The family for what is left after some labels."""
    return family._replace(low=np.maximum(family.low - used, 0), high=family.high - used)


def in_units_of(family: Family, size: int) -> Family:
    """The family for tasks of `size` labels each, limits rounded inwards where labels use whole numbers."""
    low, high = family.low / size, family.high / size
    return (
        family._replace(low=np.ceil(low), high=np.floor(high)) if family.whole else family._replace(low=low, high=high)
    )
