"""Gradient features: whole and projected, of all or some parameters, on any microbatch and any number of devices."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.preference.features.gradients import _jitted_rows, gradient_rows, parameter_paths, projected_gradients
from jaxdesign.preference.features.nnx_policy import split_model
from jaxdesign.preference.features.projection import project
from tests.support import CHECKOUT
from tests.support.tiny_policy import examples, log_probability, parameters

pytestmark = pytest.mark.slow

slow = pytest.mark.slow
PARAMS, KEY, D = parameters(), jax.random.key(7), 16
SIZE = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))


def close(found, expected, rtol=2e-6):
    np.testing.assert_allclose(found, expected, atol=rtol * np.abs(np.asarray(expected)).max())


def features(pool, **settings):
    return projected_gradients(log_probability, PARAMS, pool, dimension=D, key=KEY, **settings)


def test_rows_are_gradients_of_one_example_each():
    pool = examples(3)
    found = gradient_rows(log_probability, PARAMS, pool)
    for n in range(3):
        one = jax.grad(log_probability)(PARAMS, jax.tree.map(lambda a: a[n], pool))  # noqa: B023
        close(found[n], np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(one)]))
        close(features(pool)[n], project(one, D, KEY))


# 7 examples: with and without a short last microbatch
@pytest.mark.slow
@pytest.mark.parametrize("microbatch", [3, *[pytest.param(size, marks=slow) for size in (1, 5, 6)]])
def test_results_do_not_depend_on_the_microbatch(microbatch):
    pool = examples(7)
    close(features(pool, microbatch=microbatch), features(pool))


AUTO, EXPLICIT = jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "kind"), [pytest.param(6, AUTO, marks=slow), (6, EXPLICIT), pytest.param(7, EXPLICIT, marks=slow)]
)
def test_two_devices_give_what_one_gives(count, kind):
    pool = examples(count)
    mesh = jax.make_mesh((2,), ("examples",), axis_types=(kind,))
    expected = features(pool)
    close(features(pool, mesh=mesh, microbatch=2), expected)
    if kind is EXPLICIT and count % 2 == 0:
        spread = jax.device_put(pool, jax.NamedSharding(mesh, jax.P("examples")))
        found = features(spread, microbatch=2)
        close(found, expected)
        assert len(found.sharding.device_set) == 2


@slow
def test_four_devices_give_what_one_gives():
    script = """
import jax, numpy as np
from tests.support.tiny_policy import examples, log_probability, parameters
from jaxdesign.preference import projected_gradients
assert jax.device_count() == 4
mesh = jax.make_mesh((2, 2), ("rows", "columns"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
pool = examples(13)
for name, placed in (("mesh", mesh), ("one", None)):
    rows = projected_gradients(
        log_probability, parameters(), pool, dimension=16, key=jax.random.key(7), microbatch=2, mesh=placed)
    print(name, *np.asarray(rows).ravel().tolist())
"""
    places = {"JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | places, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: np.array(line.split()[1:], float) for line in done.stdout.splitlines()}
    close(rows["mesh"], rows["one"])
    close(rows["mesh"].reshape(13, 16), features(examples(13)))


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(["block/*"], id="pattern", marks=slow),
        pytest.param(["embedding", "*/bias"], id="two patterns"),
        pytest.param(lambda path: path.endswith("kernel"), id="predicate"),
        pytest.param(["out"], id="one", marks=slow),
    ],
)
def test_a_named_subset_is_the_whole_with_the_others_at_zero(chosen):
    pool = examples(4)
    paths = parameter_paths(PARAMS)
    assert paths[0] == "block/down" and "block/up/kernel" in paths and "block/value" in paths
    wanted = {
        "block/*": lambda path: path.startswith("block"),
        "embedding": lambda path: path in ("embedding", "block/up/bias"),
        "out": lambda path: path == "out",
    }
    keep = chosen if callable(chosen) else wanted[chosen[0]]
    whole = gradient_rows(log_probability, PARAMS, pool)
    kept = np.concatenate(
        [np.full(leaf.size, keep(path)) for path, leaf in zip(paths, jax.tree.leaves(PARAMS), strict=True)]
    )
    assert 0 < kept.sum() < SIZE
    close(gradient_rows(log_probability, PARAMS, pool, parameters=chosen), whole[:, kept])

    def as_tree(row):
        leaves, start = [], 0
        for leaf in jax.tree.leaves(PARAMS):
            leaves.append(row[start : start + leaf.size].reshape(leaf.shape))
            start += leaf.size
        return jax.tree.unflatten(jax.tree.structure(PARAMS), leaves)

    expected = jax.vmap(lambda row: project(as_tree(row), D, KEY))(jnp.where(kept, whole, 0))
    close(features(pool, parameters=chosen), expected)


def test_log_linear_policies_get_their_features_back_up_to_a_constant_of_the_prompt():
    rng = np.random.default_rng(0)
    prompts, answers, dim = 4, 6, 5
    phi = rng.standard_normal((prompts, answers, dim)).astype(np.float32)
    theta = rng.standard_normal(dim).astype(np.float32)

    def log_linear(theta, example):
        return jax.nn.log_softmax(example["answers"] @ theta)[example["choice"]]

    pool = {"answers": np.repeat(phi, answers, axis=0), "choice": np.tile(np.arange(answers), prompts)}
    rows = gradient_rows(log_linear, theta, pool, microbatch=7).reshape(phi.shape)
    probabilities = np.exp(phi @ theta) / np.exp(phi @ theta).sum(axis=1, keepdims=True)
    close(rows, phi - np.einsum("pk,pkd->pd", probabilities, phi)[:, None], 3e-6)
    close(rows - rows.mean(axis=1, keepdims=True), phi - phi.mean(axis=1, keepdims=True), 3e-6)


def test_whole_gradients_are_held_for_one_microbatch_only():
    def scratch(count, microbatch):
        arrays = jax.tree.map(jnp.asarray, examples(count))
        static = (log_probability, tuple(range(len(jax.tree.leaves(PARAMS)))), D, microbatch, None)
        compiled = _jitted_rows.lower((PARAMS, KEY), arrays, *static).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    gradients = 4 * SIZE
    little = scratch(2048, 4)
    assert little < 256 * gradients  # all of them would be 2,048
    assert scratch(512, 256) > little + 200 * gradients  # it is gradients that this measures


def test_new_parameters_compile_nothing_anew():
    traces = []

    def counted(params, example):
        traces.append(1)
        return log_probability(params, example)

    for seed in range(3):
        projected_gradients(counted, parameters(seed), examples(4, seed), dimension=D, key=jax.random.key(seed))
    assert len(traces) == 1


# ---- models of Flax NNX


def test_nnx_models_give_the_same_features():
    nnx = pytest.importorskip("flax.nnx")

    class Policy(nnx.Module):
        def __init__(self, params):
            self.embedding = nnx.Param(params["embedding"])
            up = nnx.Dict(jax.tree.map(nnx.Param, params["block"]["up"]))
            others = {name: nnx.Param(leaf) for name, leaf in params["block"].items() if name != "up"}
            self.block = nnx.Dict(up=up, **others)
            self.out = nnx.Param(params["out"])

    def value(model, example):
        block = jax.tree.map(jnp.asarray, nnx.to_pure_dict(nnx.state(model.block)))
        return log_probability({"embedding": model.embedding[...], "block": block, "out": model.out[...]}, example)

    pool = examples(5)
    function, params = split_model(Policy(PARAMS), value)
    assert parameter_paths(params) == parameter_paths(PARAMS)
    close(projected_gradients(function, params, pool, dimension=D, key=KEY), features(pool))
    some = projected_gradients(function, params, pool, dimension=D, key=KEY, parameters=["block/up/*"])
    close(some, features(pool, parameters=["block/up/*"]))

    again, _ = split_model(Policy(parameters(1)), value)
    assert again == function and hash(again) == hash(function)  # so that another model of this kind compiles nothing

    model = Policy(PARAMS)
    model.steps = nnx.Variable(jnp.zeros(()))
    function, params = split_model(model, value)
    assert parameter_paths(params) == parameter_paths(PARAMS)  # no variable that is not a parameter
    close(projected_gradients(function, params, pool, dimension=D, key=KEY), features(pool))
    with pytest.raises(TypeError, match=r"model: expected a flax.nnx.Module, found dict"):
        split_model({}, value)


# ---- bad input


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"dimension": 0}, ValueError, "dimension=0: must be at least 1"),
        ({"dimension": 1.5}, TypeError, "dimension=1.5: must be an integer"),
        ({"microbatch": 0}, ValueError, "microbatch=0: must be at least 1"),
        ({"microbatch": None}, TypeError, "microbatch=None: must be an integer"),
        ({"parameters": "block"}, TypeError, "list of patterns"),
        ({"parameters": ["block/*", "lora"]}, ValueError, "'lora' matches none of the paths block/down"),
        ({"parameters": lambda path: False}, ValueError, "no parameter of floating dtype is chosen"),
        ({"examples": {}}, ValueError, "no array found"),
        ({"examples": {"tokens": np.zeros((0, 3), int)}}, ValueError, r"length \[0\]"),
        ({"examples": {"a": np.zeros(3), "b": np.zeros(2)}}, ValueError, r"length \[2, 3\]"),
        ({"examples": {"a": 1.0}}, ValueError, "a scalar found"),
        ({"log_probability": lambda params, example: params["out"]}, TypeError, "scalar"),
    ],
)
def test_bad_input(change, error, words):
    arguments = {"log_probability": log_probability, "params": PARAMS, "examples": examples(2)}
    arguments |= {"dimension": D, "key": KEY} | change
    with pytest.raises(error, match=words):
        projected_gradients(**arguments)
