"""Checkpoints of what is trained of a Llama, with its optimiser; the model itself stays in the file it came from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optax
from flax import nnx

from jaxdesign.preference.llama.pair_training import trained_of
from jaxdesign.preference.llama.policies import HeadEdit, Tail
from jaxdesign.preference.small_model.array_folders import facts_of, read_folder, write_folder


class PolicyCheckpoint(NamedTuple):
    """A policy with what is needed to train it on.

    Args:
        policy: as it was saved.
        optimiser_state: of its optimiser; None where none was asked for.
        step: number of steps taken.
    """

    policy: HeadEdit | Tail
    optimiser_state: Any
    step: int


def save_policy(
    path: str | os.PathLike[str],
    policy: HeadEdit | Tail,
    optimiser_state: Any = None,
    step: int = 0,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a folder with all arrays of a policy but the head, complete or not at all, as `save_checkpoint` does.

    Args:
        path: the folder to make; its parents are made too.
        policy: a HeadEdit, or a Tail with or without adapters.
        optimiser_state: as `train_on_cache` returns it.
        step: number of steps taken so far.
        overwrite: replace a checkpoint that is there.

    Returns:
        The path, absolute.

    Raises:
        FileExistsError: something of that name is there and overwrite is False.
        TypeError: no such policy, a step that is no integer.
        ImportError: orbax is not installed (pip install 'jaxdesign[preference]').

    Source: derived; checked by tests/preference/llama/test_llama_checkpoints.py.
    """
    if not isinstance(policy, HeadEdit | Tail):
        raise TypeError(f"policy: expected a HeadEdit or a Tail, found {type(policy).__name__}")
    own, facts = _own(policy)[1], {"kind": type(policy).__name__}
    return write_folder(path, own, optimiser_state, step, facts, overwrite=overwrite, what="save_policy")


def restore_policy(
    path: str | os.PathLike[str],
    policy: HeadEdit | Tail,
    optimiser: optax.GradientTransformation | None = None,
    *,
    trainable: Sequence[str] | None = None,
) -> PolicyCheckpoint:
    """Read a checkpoint into a policy made as the saved one was: the same arrays to the last bit.

    Args:
        path: the folder.
        policy: made from the same model, with the same law, ranks and layers; it stays as it is.
        optimiser: the one whose state was saved; None to leave its state where it is.
        trainable: the parameters it was training, as in `train_on_cache`.

    Returns:
        PolicyCheckpoint.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: a checkpoint of another kind of policy, or of other shapes; an optimiser's state that was not saved
            or has other arrays.
        ImportError: orbax is not installed (pip install 'jaxdesign[preference]').

    Source: derived; checked by tests/preference/llama/test_llama_checkpoints.py.
    """
    path = Path(path).absolute()
    facts, kind = facts_of(path, "restore_policy"), type(policy).__name__
    if facts.get("kind") != kind:
        raise ValueError(f"path: {path} is a checkpoint of a {facts.get('kind', 'LanguageModel')}, not of a {kind}")
    definition, own, head = _own(policy)
    filled, state = read_folder(path, facts, own, trained_of(policy, trainable), optimiser)
    return PolicyCheckpoint(nnx.merge(definition, filled, head), state, int(facts["step"]))


def _own(policy):
    """Definition, arrays and head of a policy."""
    definition, head, own = nnx.split(policy, lambda path, value: path[0] == "rows", ...)
    return definition, own, head
