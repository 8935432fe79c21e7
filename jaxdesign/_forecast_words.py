"""How forecasts are said: a table of expected gaps, and one sentence on whether choosing pairs can matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxdesign import _checks

MATTERS = 0.01  # gain in J below which choosing is said not to matter, where nothing else is asked for
OUTSIDE = "Outside of these figures: what training on the posterior (soft labels of all pairs) gains, however chosen."


def worth_of(worth: Any) -> float:
    """A gain in J above 0; ValueError for another one."""
    return _checks.positive_finite(worth, "worth", "the gain in J that is worth choosing for")


def table(totals: Float[np.ndarray, " n"], columns: Mapping[str, Iterable[Any]], of: str = "labels") -> list[str]:
    """One line for every number of labels, or of what else, under a line of names."""
    cells = {of: [f"{total:g}" for total in totals]}
    cells |= {name: [c if isinstance(c, str) else f"{c:.4g}" for c in column] for name, column in columns.items()}
    widths = [max(map(len, (name, *column))) for name, column in cells.items()]
    rows = zip(cells, *zip(*cells.values(), strict=True), strict=True)
    return ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in zip(*rows, strict=True)]


def said(total: float, random: float, least: float, design: float, worth: float, pairs: str) -> str:
    """One sentence from the gaps that `pairs` drawn at random, the best choice at least, and the design leave, in J."""
    most, gained = max(random - least, 0.0), random - design
    if not np.isfinite(random):
        return f"With {total:g} labels {pairs} leave directions unknown and the prior says nothing of them: choose."
    if most < worth:
        return (
            f"With {total:g} labels choosing cannot matter: no choice gains more than {most:.2g} over {pairs}, which "
            f"is below {worth:g}."
        )
    if gained < worth:
        return (
            f"With {total:g} labels choosing is not expected to matter: the design gains {gained:.2g} over {pairs}, "
            f"which is below {worth:g}, and no choice can gain more than {most:.2g}."
        )
    return (
        f"With {total:g} labels choosing is expected to gain {gained:.2g} over {pairs}, and no choice can gain more "
        f"than {most:.2g}."
    )
