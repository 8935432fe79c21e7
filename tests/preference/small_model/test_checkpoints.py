"""Checkpoints: what is written comes back to the last bit, nothing is overwritten or left half done."""

from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from jaxdesign.preference.small_model.checkpoints import restore_checkpoint, save_checkpoint
from jaxdesign.preference.small_model.training import filter_of
from tests.support.small_policy import tiny_model

pytestmark = pytest.mark.slow

MODEL, _ = tiny_model("abc", seed=5)
OPTIMISER = optax.adam(1e-3)

PROMOTION = "standard"  # optax raises floats to whole powers


def state_of(trainable=nnx.Param):
    """An optimiser's state with numbers in it."""
    parameters = nnx.split(MODEL, trainable, ...)[1]
    return OPTIMISER.update(parameters, OPTIMISER.init(parameters), parameters)[1]


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_everything_comes_back(tmp_path):
    state = state_of()
    save_checkpoint(tmp_path / "deep" / "one", MODEL, state, 7)
    found = restore_checkpoint(tmp_path / "deep" / "one", OPTIMISER)
    assert found.step == 7 and found.model.config == MODEL.config
    same(nnx.state(found.model), nnx.state(MODEL))
    same(found.optimiser_state, state)
    assert restore_checkpoint(tmp_path / "deep" / "one").optimiser_state is None


def test_a_model_alone_and_part_of_the_parameters(tmp_path):
    save_checkpoint(tmp_path / "model", MODEL)
    same(nnx.state(restore_checkpoint(tmp_path / "model").model), nnx.state(MODEL))
    with pytest.raises(ValueError, match="saved without an optimiser's state"):
        restore_checkpoint(tmp_path / "model", OPTIMISER)
    state = state_of(lambda path, value: path[0] == "head")
    save_checkpoint(tmp_path / "part", MODEL, state)
    same(restore_checkpoint(tmp_path / "part", OPTIMISER, trainable=["head/*"]).optimiser_state, state)
    with pytest.raises(ValueError, match="pass the optimiser and trainable it was saved with"):
        restore_checkpoint(tmp_path / "part", OPTIMISER)
    save_checkpoint(tmp_path / "empty", MODEL, optax.sgd(0.1).init(nnx.state(MODEL)))  # a state without arrays
    restore_checkpoint(tmp_path / "empty", optax.sgd(0.1))


def test_nothing_is_overwritten_silently(tmp_path):
    other, _ = tiny_model("abc", seed=6)
    save_checkpoint(tmp_path / "one", MODEL)
    with pytest.raises(FileExistsError, match="exists already; choose another name or pass overwrite=True"):
        save_checkpoint(tmp_path / "one", other)
    same(nnx.state(restore_checkpoint(tmp_path / "one").model), nnx.state(MODEL))
    save_checkpoint(tmp_path / "one", other, overwrite=True)
    same(nnx.state(restore_checkpoint(tmp_path / "one").model), nnx.state(other))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]  # nothing left beside it


def test_a_failure_while_writing_leaves_the_old_one(tmp_path, monkeypatch):
    import orbax.checkpoint

    save_checkpoint(tmp_path / "one", MODEL, step=1)

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(orbax.checkpoint.StandardCheckpointer, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path / "one", MODEL, step=2, overwrite=True)
    assert restore_checkpoint(tmp_path / "one").step == 1
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path / "two", MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_bad_input_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        restore_checkpoint(tmp_path)
    with pytest.raises(TypeError, match="model: expected a LanguageModel, found int"):
        save_checkpoint(tmp_path / "x", 3)
    with pytest.raises(TypeError, match="step: expected an integer, found float"):
        save_checkpoint(tmp_path / "x", MODEL, step=1.5)


def test_a_state_of_other_parameters_of_the_same_shapes_is_refused(tmp_path):
    """The two attention blocks have the same shapes: only names tell them apart."""
    save_checkpoint(tmp_path / "one", MODEL, state_of(filter_of(["blocks/0/attention/*"])))
    assert restore_checkpoint(tmp_path / "one", OPTIMISER, trainable=["blocks/0/attention/*"]).optimiser_state
    with pytest.raises(ValueError, match="other names or shapes"):
        restore_checkpoint(tmp_path / "one", OPTIMISER, trainable=["blocks/1/attention/*"])


def test_where_the_new_one_cannot_take_the_name_the_old_one_keeps_it(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "one", MODEL, step=1)
    rename = Path.rename

    def failing(self, target):
        if self.name.endswith(".new"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        save_checkpoint(path, MODEL, step=2, overwrite=True)
    assert restore_checkpoint(path).step == 1
