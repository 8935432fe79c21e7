"""Folders of arrays written by orbax with facts in JSON beside them: complete or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxdesign.preference._extras import needed_for

FACTS = "checkpoint.json"
ARRAYS = "arrays"
MODEL, OPTIMISER = "model", "optimiser"


def write_folder(
    path: str | os.PathLike[str],
    model: Any,
    optimiser_state: Any,
    step: int,
    facts: Mapping[str, Any],
    *,
    overwrite: bool,
    what: str,
) -> Path:
    """Write a folder with facts (JSON) and all arrays (orbax).

    Everything is written to a folder beside it, which then takes the name: a reader finds the old checkpoint, the new
    one, or (for the instant between two renames) none, but never half of one.

    Args:
        path: the folder to make; its parents are made too.
        model: pytree of arrays.
        optimiser_state: the same; None for none.
        step: number of steps taken so far.
        facts: what else a reader needs, for JSON.
        overwrite: replace a checkpoint that is there.
        what: who asks, where orbax is missing.

    Returns:
        The path, absolute.

    Raises:
        FileExistsError: something of that name is there and overwrite is False. TypeError: a step that is no integer.
    """
    if isinstance(step, bool) or not isinstance(step, int | np.integer):
        raise TypeError(f"step: expected an integer, found {type(step).__name__}")
    with needed_for(what):
        import orbax.checkpoint

    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise FileExistsError(f"path: {path} exists already; choose another name or pass overwrite=True")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        arrays = {MODEL: model} if optimiser_state is None else {MODEL: model, OPTIMISER: optimiser_state}
        kinds = {name: _kinds(part) for name, part in arrays.items()}
        text = json.dumps({**facts, "step": int(step), "arrays": kinds}, indent=1)
        (fresh / FACTS).write_text(text + "\n", encoding="utf-8")
        with orbax.checkpoint.StandardCheckpointer() as writer:
            writer.save(fresh / ARRAYS, _numbered(arrays))
        _take_name(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return path


def facts_of(path: Path, what: str) -> dict[str, Any]:
    """What a folder says of itself, to `what`. FileNotFoundError where no checkpoint is, ImportError without orbax."""
    with needed_for(what):  # before anything is said of the folder, which cannot be read without it
        import orbax.checkpoint  # noqa: F401
    if not (path / FACTS).is_file():
        raise FileNotFoundError(f"path: {path} holds no checkpoint ({FACTS} is missing)")
    return json.loads((path / FACTS).read_text(encoding="utf-8"))


def read_folder(
    path: Path,
    facts: Mapping[str, Any],
    model: Any,
    parameters: Any,
    optimiser: optax.GradientTransformation | None,
) -> tuple[Any, Any]:
    """The model's arrays and the optimiser's state of a folder, to the last bit.

    Args:
        path: the folder.
        facts: of it, by `facts_of`.
        model: pytree of the arrays' shapes and dtypes.
        parameters: the part of it that the optimiser was training.
        optimiser: the one whose state was saved; None to leave its state where it is.

    Returns:
        Both as pytrees; None for the state without an optimiser.

    Raises:
        ValueError: no optimiser's state was saved, or arrays of other names or shapes.
    """
    import orbax.checkpoint

    kinds_found = facts["arrays"]
    wanted = {MODEL: model}
    if optimiser is not None:
        wanted[OPTIMISER] = jax.eval_shape(optimiser.init, parameters)
        if OPTIMISER not in kinds_found:
            raise ValueError(f"optimiser: {path} was saved without an optimiser's state; pass optimiser=None")
    for name, part in wanted.items():
        if _kinds(part) != kinds_found[name]:
            raise ValueError(
                f"{name}: {path} holds {len(kinds_found[name])} arrays of other names or shapes than the "
                f"{len(_kinds(part))} expected; pass the optimiser and trainable it was saved with"
            )
    # all that is there is named, because orbax wants to be told the whole of what it reads
    held = {name: {str(k): _empty(kind) for k, kind in enumerate(kinds)} for name, kinds in kinds_found.items()}
    with orbax.checkpoint.StandardCheckpointer() as reader:
        found = reader.restore(path / ARRAYS, {name: part for name, part in held.items() if part})
    filled = {
        name: jax.tree.unflatten(jax.tree.structure(part), [found[name][str(k)] for k in range(len(_kinds(part)))])
        for name, part in wanted.items()
    }
    return filled[MODEL], filled.get(OPTIMISER)


def _numbered(arrays: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Leaves of each part by number, in the order of `jax.tree.leaves`; a part without leaves is left out."""
    parts = {name: jax.tree.leaves(part) for name, part in arrays.items()}
    return {name: {str(k): leaf for k, leaf in enumerate(leaves)} for name, leaves in parts.items() if leaves}


def _kinds(part: Any) -> list[list]:
    """Path, shape and dtype of every leaf, as JSON has them."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(part)
    return [[jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves]


def _empty(kind: list) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(kind[1]), kind[2])


def _take_name(fresh: Path, path: Path) -> None:
    """Rename `fresh` to `path`, what is there aside first: a folder that is not empty cannot be renamed over."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if path.exists():
        path.rename(aside)
    try:
        fresh.rename(path)
    except BaseException:
        if aside.exists():
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)
