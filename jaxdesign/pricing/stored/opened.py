"""From what a caller has to `Stored` features: by the kind of file, array or function."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxdesign import _checks
from jaxdesign.pricing.stored.files import mapped_npy, mapped_tensor
from jaxdesign.pricing.stored.protocol import Chunked, Mapped, Stored
from jaxdesign.pricing.stored.tables import TABLES, table_column

SUFFIXES = (".npy", ".safetensors", *TABLES)


def opened(
    features: Any,
    name: str | None,
    prompts: int | None,
    completions: int | None,
    length: Callable[[tuple[int, int, int]], int],
) -> Stored:
    """Features as `streamed_source` takes them; `length` says how long chunks of a shape are.

    Raises: as `streamed_source`.
    """
    if isinstance(features, str | os.PathLike):
        stored = _file(Path(features), name, completions, length)
    elif isinstance(features, np.ndarray):
        stored = Mapped(features)
    elif callable(features):
        stored = _made(features, prompts, length)
    else:
        raise TypeError(
            f"features: expected a path, a NumPy array or a function chunk(start, stop), found "
            f"{type(features).__name__}; arrays on a device are for CompletionPool"
        )
    if isinstance(stored, Mapped):
        _checks.as_float_array(stored.array, "features")
        _checks.rank(stored.array, (3,), "features", "(prompts P, completions K, dimension d)")
    if stored.shape[0] == 0 or stored.shape[1] < 2 or stored.shape[2] == 0:
        raise ValueError(
            f"features: shape {stored.shape} found; a pool needs at least one prompt, two completion slots per prompt "
            "and one feature dimension"
        )
    return stored


def _file(path, name, completions, length) -> Stored:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: suffix {path.suffix!r} is not known; features are read from {', '.join(SUFFIXES)}")
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path}: {found}; check the path")
    if path.suffix == ".npy":
        return Mapped(mapped_npy(path))
    if path.suffix == ".safetensors":
        return Mapped(mapped_tensor(path, name))
    column = table_column(path, name, completions)
    return Chunked(column.chunk, column.shape, column.dtype, length(column.shape))


def _made(chunk, prompts, length) -> Stored:
    if prompts is None:
        raise ValueError("prompts: None found; pass the number of prompts that the function makes features of")
    prompts = _checks.whole_number(prompts, "prompts", 1)
    first = _checks.as_float_array(chunk(0, 1), "chunk(0, 1)")
    _checks.rank(first, (3,), "chunk(0, 1)", "(prompts, completions K, dimension d)")
    shape = prompts, *first.shape[1:]
    return Chunked(chunk, shape, np.dtype(first.dtype), length(shape))
