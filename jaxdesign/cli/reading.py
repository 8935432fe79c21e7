"""Pools from the files that commands are given: features, or texts by the built-in featuriser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

import jaxdesign
from jaxdesign.io.featurise import featurise
from jaxdesign.io.joined_texts import with_texts
from jaxdesign.io.pool_files import PoolFile, demo_pool_path, load_arrays, read_completions, read_features

TEXT_DIM = 32  # surface n-grams carry little: more dimensions would only ask for more labels
ARRAYS = (".npy", ".npz")
PACKAGED = "the pool inside the package"  # what a path of None is called


def read_pool(path: str | None, texts: str | None = None) -> PoolFile:
    """Features from arrays, with texts if a file has them, or of texts by the built-in featuriser.

    A path of None is the demonstration pool.
    """
    path = str(demo_pool_path()) if path is None else path
    if Path(path).suffix.lower() in ARRAYS:
        file = read_features(path)
        return file if texts is None else _joined(file, texts)
    if texts is not None:
        raise ValueError(f"--texts: goes beside features ({' or '.join(ARRAYS)}); {path} has its own texts")
    found = read_completions(path)
    assert found.completions is not None  # they are what was read
    features, mask = featurise(found.completions, dim=TEXT_DIM)
    return found._replace(features=features, mask=mask)


def _joined(file: PoolFile, texts: str) -> PoolFile:
    read = read_completions(texts)
    try:
        return with_texts(file, read)
    except ValueError as error:
        raise ValueError(f"{texts}: {str(error).removeprefix('texts: ')}") from error


def spanned(file: PoolFile, path: str | None) -> tuple[jaxdesign.CompletionPool, int]:
    """The pool on the dimensions that its features span, and how many it had."""
    try:
        whole = jaxdesign.CompletionPool(file.features, file.scores, file.mask, file.ids)
        pool, _ = jaxdesign.restrict_to_range(whole)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path or demo_pool_path()}: {error}") from error
    return pool, whole.dim


def read_proxy(path: str) -> Float[np.ndarray, "p k"]:
    """Scores (prompts, completions) of a .npy file; ValueError that names the file for anything else."""
    if not Path(path).is_file():
        raise ValueError(f"--proxy: {path} does not exist")
    try:
        found = load_arrays(Path(path))
    except ValueError as error:
        raise ValueError(f"--proxy: {path} is no NumPy file (.npy) of numbers") from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind not in "fiu":
        told = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "an archive"
        raise ValueError(f"--proxy: {path} holds {told}; expected one array of numbers, (prompts, completions)")
    return found
