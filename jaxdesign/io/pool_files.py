"""Pools read from files: arrays of features (.npy, .npz), or prompts and completions as text (.jsonl)."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdesign._checks import check_different

PROMPT_KEYS = ("prompt", "instruction")
COMPLETIONS_KEYS = ("completions", "generations", "responses", "answers")
ARRAY_KEYS = ("features", "scores", "mask", "ids")


class PoolFile(NamedTuple):
    """What a file says about a pool of P prompts; None where it says nothing.

    Args:
        features: (P, K, d), floating point.
        scores: (P, K) or (R, P, K), floating point.
        mask: (P, K) bool, True where the completion exists.
        ids: P strings or integers.
        prompts: P texts.
        completions: P lists of texts, completions[p] those of prompt p.
    """

    features: np.ndarray | None = None
    scores: np.ndarray | None = None
    mask: np.ndarray | None = None
    ids: list[str] | list[int] | None = None
    prompts: list[str] | None = None
    completions: list[list[str]] | None = None


def demo_pool_path() -> Path:
    """Path of the small pool inside the package: 24 prompts with 6 to 8 short completions each, to try things on.

    Written for this project and under its licence (Apache-2.0). Many completions are wrong, rude or idle on purpose, a
    few would be bad advice: a pool of nothing but good ones would leave nothing to compare. One prompt has two that are
    equal, as real pools do.

    Returns:
        Path of a .jsonl file, as `read_completions` takes.

    Raises: nothing.

    Source: derived; checked by tests/io/test_featurise.py.
    """
    return Path(str(importlib.resources.files("jaxdesign") / "data" / "demo_pool.jsonl"))


def read_features(path: str | Path) -> PoolFile:
    """Reads the arrays of a pool from .npy (features alone) or .npz (features; scores, mask, ids if present).

    Args:
        path: a file written by np.save or np.savez; ids are strings or integers. Pickled objects are never loaded.

    Returns:
        A PoolFile with the arrays in the dtype stored, in native byte order. Values are not looked at here: NaN and
        infinity are for CompletionPool to judge, which knows what the mask leaves out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unknown suffix, not a NumPy file, unknown or missing array, wrong rank or shape.
        TypeError: wrong dtype.

    Source: derived; checked by tests/io/test_feature_pools.py.
    """
    path = _existing_file(path, (".npy", ".npz"), "features")
    loaded = load_arrays(path)
    arrays = {"features": loaded} if isinstance(loaded, np.ndarray) else loaded
    unknown = sorted(set(arrays) - set(ARRAY_KEYS))
    if unknown:
        raise ValueError(f"{path}: holds {unknown}, which no pool has; allowed are {list(ARRAY_KEYS)}")
    if "features" not in arrays:
        raise ValueError(f"{path}: holds {sorted(arrays)} but no features; save them as features=(P, K, d)")
    arrays = {key: array.astype(array.dtype.newbyteorder("="), copy=False) for key, array in arrays.items()}
    _check_arrays(path, **arrays)
    ids = arrays.pop("ids", None)
    return PoolFile(**arrays, ids=None if ids is None else ids.tolist())


def read_completions(path: str | Path) -> PoolFile:
    """Reads prompts and completions from .jsonl: one JSON object a line and prompt; other keys are ignored.

        {"prompt_id": "rice", "prompt": "How do I cook rice?", "completions": ["Rinse it first.", "Boil it."]}

    `instruction` may stand for prompt, `generations`, `responses` or `answers` for completions. prompt_id (string or
    integer, kept as a string) must not repeat; without one it is the SHA-256 of the prompt in hexadecimal, and where
    the same prompt comes again, that of this name and a number from 1: ids always differ.

    Args:
        path: the file, UTF-8; empty lines are skipped.

    Returns:
        A PoolFile with prompts, completions and ids; `featurise` makes features of its completions.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unknown suffix, not UTF-8, no row, or a bad line, whose number the message gives: not JSON, a key
            missing or given twice under two names, a prompt_id repeated.
        TypeError: a value of the wrong kind, with its line number.

    Source: derived; checked by tests/io/test_text_pools.py.
    """
    path = _existing_file(path, (".jsonl",), "prompts and completions")
    ids, prompts, completions = [], [], []
    line_of: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = _json_object(where, line)
        prompts.append(_text(where, "prompt", _only(where, row, PROMPT_KEYS)))
        completions.append(_texts(where, _only(where, row, COMPLETIONS_KEYS)))
        ids.append(_prompt_id(where, row["prompt_id"]) if "prompt_id" in row else _free_id(prompts[-1], line_of))
        first = line_of.setdefault(ids[-1], number)
        if first != number:
            raise ValueError(f"{where}: prompt_id {ids[-1]!r} was used on line {first}; give every row its own")
    if not prompts:
        raise ValueError(f"{path}: is empty; write one JSON object a line, with prompt and completions")
    return PoolFile(ids=ids, prompts=prompts, completions=completions)


def _existing_file(path: str | Path, suffixes: tuple[str, ...], content: str) -> Path:
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(
            f"{path}: suffix {path.suffix!r} is not known; {content} are read from {' or '.join(suffixes)}"
        )
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path}: {found}; check the path")
    return path


def load_arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of a .npy file, or those of a .npz by name; pickled objects are never loaded.

    Args:
        path: an existing file.

    Returns:
        One array, or several by name, as stored.

    Raises:
        OSError: a file that may not be read. ValueError: not a NumPy file, or a damaged one.

    Source: derived; checked by tests/io/test_feature_pools.py.
    """
    try:
        with path.open("rb") as file:  # np.load leaves a file it opened itself open where the archive is damaged
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return dict(loaded)
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes NumPy, zipfile and zlib raise eight kinds
        raise ValueError(
            f"{path}: is no NumPy file that loads without pickled objects ({error}); write it with np.save or np.savez"
        ) from error


def _check_arrays(
    path: Path,
    features: np.ndarray,
    scores: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    ids: np.ndarray | None = None,
) -> None:
    if features.ndim != 3 or features.size == 0:
        raise ValueError(f"{path}: features of shape {features.shape}: must be (P, K, d) with every axis at least 1")
    prompts_completions = features.shape[:2]
    _check_floating(path, "features", features)
    if scores is not None:
        _check_floating(path, "scores", scores)
        if scores.ndim not in (2, 3) or scores.shape[-2:] != prompts_completions or scores.size == 0:
            raise ValueError(
                f"{path}: scores of shape {scores.shape}: must be {prompts_completions} as the features are, "
                "with an axis of draws in front if there are several"
            )
    if mask is not None:
        if mask.dtype != np.bool_:
            raise TypeError(f"{path}: mask of dtype {mask.dtype}: must be bool; save mask.astype(bool)")
        if mask.shape != prompts_completions:
            raise ValueError(f"{path}: mask of shape {mask.shape}: must be {prompts_completions} as the features are")
    if ids is not None:
        if ids.dtype.kind not in "iuU":
            raise TypeError(f"{path}: ids of dtype {ids.dtype}: must be strings (dtype <U...) or integers")
        if ids.shape != prompts_completions[:1]:
            raise ValueError(f"{path}: ids of shape {ids.shape}: must be {prompts_completions[:1]}, one a prompt")
        check_different(ids.tolist(), f"{path}: ids", "give every prompt its own")


def _check_floating(path: Path, name: str, array: np.ndarray) -> None:
    if array.dtype not in (np.float16, np.float32, np.float64):
        hint = " (bfloat16 is stored as raw bytes)" if array.dtype.kind == "V" else ""
        raise TypeError(
            f"{path}: {name} of dtype {array.dtype}{hint}: must be float16, float32 or float64; "
            f"save {name}.astype('float32')"
        )


def _lines(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error


def _json_object(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError also covers integers of too many digits
        raise ValueError(f"{where}: is not JSON ({error}); write one JSON object a line") from error
    if not isinstance(row, dict):
        raise TypeError(f"{where}: is a JSON {type(row).__name__}: must be an object with prompt and completions")
    return row


def _only(where: str, row: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The value under the one of `names` that the row has."""
    present = [name for name in names if name in row]
    if not present:
        raise ValueError(f"{where}: has no {names[0]}, only {sorted(row)}; allowed names are {', '.join(names)}")
    if len(present) > 1:
        raise ValueError(f"{where}: has {' and '.join(present)}, which mean the same; keep one")
    return row[present[0]]


def _text(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{where}: {name} is a {type(value).__name__}: must be a string; pass the text itself")
    return value


def _texts(where: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError(f"{where}: completions is a {type(value).__name__}: must be a list of strings")
    return [_text(where, f"completions[{index}]", text) for index, text in enumerate(value)]


def _free_id(prompt: str, taken: Mapping[str, int]) -> str:
    """An id made of the prompt that no earlier row has."""
    name = found = _digest(prompt)
    repetition = 0
    while found in taken:
        repetition += 1
        found = _digest(f"{name} {repetition}")
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _prompt_id(where: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"{where}: prompt_id is a {type(value).__name__}: must be a string or an integer")
    return str(value)
