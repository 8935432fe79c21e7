"""What a store remembers of the run that began it, and who refuses to go on with another one."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from jaxdesign.pool import CompletionPool
from jaxdesign.preference.labels.store import LabelStore


def notes_of(pool: CompletionPool, totals: tuple[int, ...], residual: float | str | None) -> dict[str, Any]:
    """What a run must have in common with the one that stored a round, in what JSON can hold."""
    return {"pool": fingerprint(pool), "totals": [int(total) for total in totals], "residual": residual}


def fingerprint(pool: CompletionPool) -> str:
    """Of what tasks and fits depend on."""
    digest = hashlib.sha256()
    for array in (pool.features, pool.mask, pool.flip, *jax.tree.leaves(pool.residual)):
        array = np.ascontiguousarray(0 if array is None else array)
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def check_notes(store: LabelStore, round: int, notes: dict[str, Any]) -> None:
    """Refuse a store that was begun with another pool or plan; one whose notes say nothing is taken as it is."""
    held = store.notes(round)
    if held.get("pool", notes["pool"]) != notes["pool"]:
        raise ValueError(
            f"store: round {round} in {store.path} was made for another pool (features, mask, flips or residual "
            "differ); pass that of the first call, or a new store"
        )
    if held.get("totals", notes["totals"])[: round + 1] != notes["totals"][: round + 1]:
        raise ValueError(
            f"plan.totals={tuple(notes['totals'])}: {store.path} was begun with {tuple(held['totals'])}; rounds that "
            "are stored keep their totals"
        )
    before = held.get("residual", None if "totals" in held else notes["residual"])  # there was none before it had one
    if before != notes["residual"]:
        raise ValueError(
            f"plan.residual={notes['residual']!r}: {store.path} was begun with {before!r}; labels of earlier rounds "
            "would count otherwise than they were chosen: pass that one, or a new store"
        )
