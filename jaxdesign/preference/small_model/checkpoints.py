"""Checkpoints of a policy with its optimiser, written by orbax: complete or not there at all, never over another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import optax
from flax import nnx

from jaxdesign.preference.small_model.array_folders import facts_of, read_folder, write_folder
from jaxdesign.preference.small_model.language_model import LanguageModel, LanguageModelConfig
from jaxdesign.preference.small_model.training import filter_of


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
    facts = {"config": asdict(model.config)}
    parameters = nnx.split(model)[1]
    return write_folder(path, parameters, optimiser_state, step, facts, overwrite=overwrite, what="save_checkpoint")


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
    path = Path(path).absolute()
    facts = facts_of(path, "restore_checkpoint")
    config = LanguageModelConfig(**facts["config"])
    bare = nnx.eval_shape(lambda: LanguageModel(config, rngs=nnx.Rngs(0)))
    definition, parameters = nnx.split(bare)
    trained = nnx.split(bare, filter_of(trainable), ...)[1]
    filled, state = read_folder(path, facts, parameters, trained, optimiser)
    return Checkpoint(nnx.merge(definition, filled), state, int(facts["step"]))
