"""Labels out as texts: rows of prompt, chosen and rejected, as trainers of preference losses read them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxdesign.preference.labels.labels import FIRST, SECOND, Labels, check_labels
from jaxdesign.preference.labels.row_files import write_rows

COLUMNS = ("prompt", "chosen", "rejected")


def write_preferences(
    path: str | os.PathLike[str],
    labels: Labels,
    prompts: Sequence[str],
    completions: Sequence[Sequence[str]],
    *,
    overwrite: bool = False,
) -> int:
    """Write one row per label that prefers a completion, in the order of the labels.

    Ties and skips are left out: prompt, chosen and rejected cannot say them (`preferred_pairs` keeps ties, as two
    halves). Several labels of a pair are several rows, also where they contradict each other.

    Args:
        path: .jsonl or .csv, UTF-8; written whole or not at all.
        labels: of the pool these texts belong to (`LabelStore.labels`).
        prompts: (P,) texts.
        completions: texts of each prompt's completions.
        overwrite: replace a file that holds something else. Writing the same again does nothing.

    Returns:
        Number of rows.

    Raises:
        TypeError, ValueError: invalid labels (`check_labels`), or of completions without a text; another suffix.
        FileExistsError: the file exists with something else in it.
        FileNotFoundError: its folder does not.

    Source: derived; checked by tests/preference/labels/test_files_on_disk.py.
    """
    check_labels(labels)
    rows = []
    for (p, i, j), choice in zip(np.asarray(labels.pairs).tolist(), np.asarray(labels.choices).tolist(), strict=True):
        if p >= len(prompts) or j >= len(completions[p]):
            raise ValueError(f"labels.pairs: there is no text for prompt {p}, completions {i} and {j}")
        if choice in (FIRST, SECOND):
            chosen, rejected = (i, j) if choice == FIRST else (j, i)
            rows.append({"prompt": prompts[p], "chosen": completions[p][chosen], "rejected": completions[p][rejected]})
    write_rows(Path(path), rows, COLUMNS, overwrite)
    return len(rows)
