"""Checkpoints of a policy with its optimiser, written by orbax: complete or not there at all, never over another."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from jaxdesign.preference._extras import needed_for
from jaxdesign.preference.small_model.language_model import LanguageModel, LanguageModelConfig
from jaxdesign.preference.small_model.training import filter_of

FACTS = "checkpoint.json"
ARRAYS = "arrays"
PARAMETERS, OPTIMISER = "model", "optimiser"


class Checkpoint(NamedTuple):
    """A policy with what is needed to train it on.

    Args:
        model: the policy.
        optimiser_state: of its optimiser; None where none was asked for.
        step: number of steps taken.
    """

    model: LanguageModel
    optimiser_state: Any
    step: int


def save_checkpoint(
    path: str | os.PathLike[str],
    model: LanguageModel,
    optimiser_state: Any = None,
    step: int = 0,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a folder with the model's shape (JSON) and all arrays (orbax).

    Everything is written to a folder beside it, which then takes the name: a reader finds the old checkpoint, the new
    one, or (for the instant between two renames) none, but never half of one.

    Args:
        path: the folder to make; its parents are made too.
        model: the policy.
        optimiser_state: as `train` returns it.
        step: number of steps taken so far.
        overwrite: replace a checkpoint that is there.

    Returns:
        The path, absolute.

    Raises:
        FileExistsError: something of that name is there and overwrite is False.
        TypeError: no LanguageModel, a step that is no integer.
        ImportError: orbax is not installed (pip install 'jaxdesign[preference]').

    Source: derived; checked by tests/preference/small_model/test_checkpoints.py.
    """
    if not isinstance(model, LanguageModel):
        raise TypeError(f"model: expected a LanguageModel, found {type(model).__name__}")
    if isinstance(step, bool) or not isinstance(step, int | np.integer):
        raise TypeError(f"step: expected an integer, found {type(step).__name__}")
    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise FileExistsError(f"path: {path} exists already; choose another name or pass overwrite=True")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        _write(fresh, model, optimiser_state, int(step))
        _take_name(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return path


def _write(folder: Path, model: LanguageModel, optimiser_state: Any, step: int) -> None:
    with needed_for("save_checkpoint"):
        import orbax.checkpoint

    arrays = {PARAMETERS: nnx.split(model)[1]}
    if optimiser_state is not None:
        arrays[OPTIMISER] = optimiser_state
    kinds = {name: _kinds(part) for name, part in arrays.items()}
    facts = {"config": asdict(model.config), "step": step, "arrays": kinds}
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    with orbax.checkpoint.StandardCheckpointer() as writer:
        writer.save(folder / ARRAYS, _numbered(arrays))


def restore_checkpoint(
    path: str | os.PathLike[str],
    optimiser: optax.GradientTransformation | None = None,
    *,
    trainable: Sequence[str] | None = None,
) -> Checkpoint:
    """Read a checkpoint back: the same arrays to the last bit.

    Args:
        path: the folder.
        optimiser: the one whose state was saved; None to leave its state where it is.
        trainable: the parameters it was training, as in `train`.

    Returns:
        Checkpoint.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: no optimiser's state was saved, or one with other arrays (of other parameters, or of an optimiser
            that keeps others; two that keep the same, such as Adam at two rates, cannot be told apart).
        ImportError: orbax is not installed (pip install 'jaxdesign[preference]').

    Source: derived; checked by tests/preference/small_model/test_checkpoints.py.
    """
    with needed_for("restore_checkpoint"):
        import orbax.checkpoint

    path = Path(path).absolute()
    if not (path / FACTS).is_file():
        raise FileNotFoundError(f"path: {path} holds no checkpoint ({FACTS} is missing)")
    facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
    config = LanguageModelConfig(**facts["config"])
    bare = nnx.eval_shape(lambda: LanguageModel(config, rngs=nnx.Rngs(0)))
    definition, parameters = nnx.split(bare)
    wanted = {PARAMETERS: parameters}
    if optimiser is not None:
        wanted[OPTIMISER] = jax.eval_shape(optimiser.init, nnx.split(bare, filter_of(trainable), ...)[1])
        if OPTIMISER not in facts["arrays"]:
            raise ValueError(f"optimiser: {path} was saved without an optimiser's state; pass optimiser=None")
    for name, part in wanted.items():
        if _kinds(part) != facts["arrays"][name]:
            raise ValueError(
                f"{name}: {path} holds {len(facts['arrays'][name])} arrays of other names or shapes than the "
                f"{len(_kinds(part))} expected; pass the optimiser and trainable it was saved with"
            )
    # all that is there is named, because orbax wants to be told the whole of what it reads
    held = {name: {str(k): _empty(kind) for k, kind in enumerate(kinds)} for name, kinds in facts["arrays"].items()}
    with orbax.checkpoint.StandardCheckpointer() as reader:
        found = reader.restore(path / ARRAYS, {name: part for name, part in held.items() if part})
    filled = {
        name: jax.tree.unflatten(jax.tree.structure(part), [found[name][str(k)] for k in range(len(_kinds(part)))])
        for name, part in wanted.items()
    }
    return Checkpoint(nnx.merge(definition, filled[PARAMETERS]), filled.get(OPTIMISER), int(facts["step"]))


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
