"""Checkpoints of policies on cached streams: what is written comes back to the last bit, into a policy like it only."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from jaxdesign.preference.llama import HeadEdit, Tail, TokenLaw, restore_policy, save_policy, with_adapters
from jaxdesign.preference.llama.pair_training import trained_of
from tests.support.tiny_llama import tiny_llama

PROMOTION = "standard"  # optax raises floats to whole powers
MODEL, LAW, ADAM = tiny_llama(0), TokenLaw(outputs=40), optax.adam(1e-3)

pytestmark = pytest.mark.thorough


def edit(seed, rank=2):
    policy = HeadEdit(MODEL, LAW, rank=rank, rngs=nnx.Rngs(seed))
    policy.write[...] = policy.write[...] + seed
    return policy


def adapted(seed):
    return with_adapters(Tail(MODEL, LAW, blocks=1), rank=2, rngs=nnx.Rngs(seed))


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("make", "trainable"), [(edit, ["write"]), (adapted, ["*/adapter_out"]), (edit, None)])
def test_everything_comes_back(tmp_path, make, trainable):
    policy, parameters = make(1), trained_of(make(1), trainable)
    state = ADAM.update(parameters, ADAM.init(parameters), parameters)[1]
    save_policy(tmp_path / "deep" / "one", policy, state, 7)
    found = restore_policy(tmp_path / "deep" / "one", make(2), ADAM, trainable=trainable)
    assert found.step == 7
    same(nnx.state(found.policy), nnx.state(policy))
    same(found.optimiser_state, state)
    assert restore_policy(tmp_path / "deep" / "one", make(2)).optimiser_state is None


def test_the_head_is_left_in_the_models_file(tmp_path):
    save_policy(tmp_path / "one", edit(1))
    assert '"rows"' not in (tmp_path / "one" / "checkpoint.json").read_text()
    other = HeadEdit(tiny_llama(1), LAW, rank=2, rngs=nnx.Rngs(2))
    found = restore_policy(tmp_path / "one", other).policy
    np.testing.assert_array_equal(found.rows[...], other.rows[...])
    np.testing.assert_array_equal(found.write[...], edit(1).write[...])


def test_policies_of_other_kinds_and_shapes_are_refused(tmp_path):
    path = save_policy(tmp_path / "one", edit(1))
    with pytest.raises(ValueError, match="is a checkpoint of a HeadEdit, not of a Tail"):
        restore_policy(path, adapted(0))
    with pytest.raises(ValueError, match="holds 3 arrays of other names or shapes"):
        restore_policy(path, edit(1, rank=3))
    with pytest.raises(ValueError, match="saved without an optimiser's state"):
        restore_policy(path, edit(1), ADAM)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_policy(path, edit(2))
    save_policy(path, edit(2), overwrite=True)
    same(nnx.state(restore_policy(path, edit(1)).policy), nnx.state(edit(2)))
    with pytest.raises(TypeError, match="expected a HeadEdit or a Tail, found Llama"):
        save_policy(tmp_path / "two", MODEL)
