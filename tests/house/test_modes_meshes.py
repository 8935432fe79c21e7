"""Pools spread over devices: every public function takes arrays sharded over Explicit and Auto mesh axes.

`jax.make_mesh` makes Explicit axes by default, on which JAX refuses contractions, gathers and slices whose result it
could lay out in several ways. The answer must be that of one device, eager and inside the caller's jit. Four virtual
CPU devices (see conftest).
"""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxdesign
from jaxdesign import CompletionPool, LogDet, Trace, _arrays
from tests.support.every_function import (
    DIM,
    HOST,
    PROMPTS,
    SIBLINGS,
    THOROUGH,
    TRACEABLE,
    agree,
    arrays,
    daily,
    pool_of,
)

pytestmark = pytest.mark.thorough

DEVICES = 4


def mesh_of(kind):
    types = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}
    return jax.make_mesh((DEVICES,), ("data",), axis_types=(types[kind],))


def laid_out(pool, mesh, axis="data"):
    """The pool with every leaf sharded over prompts."""

    def put(name, leaf):
        before = 1 if name == "scores" and pool.num_draws is not None else 0
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*[None] * before, axis)))

    names = ("features", "scores", "mask", "flip")
    leaves = [None if getattr(pool, name) is None else put(name, getattr(pool, name)) for name in names]
    return CompletionPool.tree_unflatten(pool.ids, leaves)


@pytest.fixture(scope="module")
def pool():
    return pool_of(*arrays())


@pytest.fixture(scope="module")
def expected(pool):
    """Answers on one device, each computed once."""
    known = {}

    def answer(name):
        if name not in known:
            known[name] = jax.tree.map(np.asarray, {**TRACEABLE, **HOST}[name](pool))
        return known[name]

    return answer


@pytest.mark.thorough(cases=3)
@pytest.mark.parametrize("name", daily(TRACEABLE, SIBLINGS))
def test_traceable_functions_answer_as_on_one_device(name, pool, expected):
    function = TRACEABLE[name]
    spread = laid_out(pool, mesh_of("explicit"))
    agree(function(spread), expected(name))
    agree(jax.jit(function)(spread), expected(name))
    agree(jax.jit(function)(laid_out(pool, mesh_of("auto"))), expected(name))


@pytest.mark.thorough(cases=3)
@pytest.mark.parametrize("name", daily(HOST, THOROUGH))
def test_functions_of_the_host_answer_as_on_one_device(name, pool, expected):
    agree(HOST[name](laid_out(pool, mesh_of("explicit"))), expected(name))


KERNELS = ["pair_information", "pair_sensitivities", "label_information"]


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("name", daily([*KERNELS, "greedy, LogDet"], ["greedy, LogDet"]))
def test_draws_and_both_axes_of_a_mesh(name):
    """Scores with draws, prompts over one axis and features over another, Explicit and Auto mixed."""
    features, scores, mask, _ = arrays(1, draws=3)
    plain = CompletionPool(features, scores, mask)
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit, AxisType.Auto))
    put = lambda array, *spec: jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))  # noqa: E731
    spread = CompletionPool(
        put(plain.features, "data", "model"), put(plain.scores, None, "data"), put(plain.mask, "data")
    )
    agree(TRACEABLE[name](spread), TRACEABLE[name](plain))
    agree(jax.jit(TRACEABLE[name])(spread), TRACEABLE[name](plain))


@pytest.mark.parametrize(
    "spec",
    [pytest.param((), marks=pytest.mark.slow, id="replicated"), pytest.param((None, "data"), id="over completions")],
)
@pytest.mark.slow
def test_a_number_of_prompts_that_the_mesh_does_not_divide(spec):
    """JAX itself refuses to shard 7 prompts over 4 devices: such a pool lies there whole, or split by completion."""
    features, scores, mask, _ = arrays(2)
    plain = CompletionPool(features[:7], scores[:7], mask[:7])
    sharding = NamedSharding(mesh_of("explicit"), PartitionSpec(*spec))
    spread = jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), plain)
    choose = lambda pool: jaxdesign.greedy(pool, LogDet(), size=5)  # noqa: E731
    agree(jax.jit(choose)(spread), choose(plain))
    weights = np.ones((7, 4, 4), np.float32)
    agree(jaxdesign.pair_information(spread, weights), jaxdesign.pair_information(plain, weights))
    agree(jaxdesign.second_moment(spread), jaxdesign.second_moment(plain))


def test_other_arguments_may_be_sharded_too(pool):
    mesh = mesh_of("explicit")
    over_prompts, over_rows = (NamedSharding(mesh, PartitionSpec("data")) for _ in range(2))
    spread, weights = laid_out(pool, mesh), np.random.default_rng(0).random((PROMPTS, 4, 4)).astype(np.float32)
    weights = weights + weights.swapaxes(1, 2)
    expected = jaxdesign.pair_information(pool, weights)
    agree(jaxdesign.pair_information(spread, jax.device_put(weights, over_prompts)), expected)
    agree(jax.jit(jaxdesign.pair_information)(spread, jax.device_put(weights, over_prompts)), expected)
    logs = weights[:, 0]
    found = jaxdesign.policy_target(spread, jax.device_put(logs, over_prompts))
    agree(found, jaxdesign.policy_target(pool, logs))
    four = jax.device_put(np.eye(4), over_rows)
    wide = np.random.default_rng(1).standard_normal((PROMPTS, 4, 4)).astype(np.float32)
    agree(
        jaxdesign.greedy(CompletionPool(wide), Trace(np.eye(4)), size=5, prior=four),
        jaxdesign.greedy(CompletionPool(wide), Trace(np.eye(4)), size=5, prior=np.eye(4)),
    )


def test_pools_are_made_and_checked_from_sharded_arrays(pool):
    mesh = mesh_of("explicit")
    spread = laid_out(pool, mesh)
    for make in (CompletionPool, jax.jit(CompletionPool)):
        made = make(spread.features, spread.scores, spread.mask, None, spread.flip)
        agree(made, pool)
        agree(jaxdesign.policy_target(made), jaxdesign.policy_target(pool))
    bad = np.asarray(pool.features).copy()
    bad[5, 0, 1] = np.nan
    bad = jax.device_put(bad, NamedSharding(mesh, PartitionSpec("data")))
    with pytest.raises(ValueError, match="features: nan at prompt 5, completion 0, dimension 1"):
        CompletionPool(bad)


LONG = ["greedy, LogDet", "multiplicative", "optimize, caps, LogDet"]


@pytest.mark.parametrize("name", daily(["pair_information", "policy_target", *LONG], LONG))
def test_a_mesh_set_by_the_caller(name, pool, expected):
    with jax.set_mesh(mesh_of("explicit")):
        spread = jax.tree.map(lambda leaf: jax.device_put(leaf, PartitionSpec("data")), pool)
        assert len(spread.features.sharding.device_set) == DEVICES
        if name in TRACEABLE:
            agree(jax.jit(TRACEABLE[name])(spread), expected(name))
        agree({**TRACEABLE, **HOST}[name](spread), expected(name))


def test_gradients_pass_the_door(pool):
    """With respect to sharded scores, inside of jit (JAX has no eager gradient of Explicit arrays without a mesh)."""

    def value(scores, like):
        inner = CompletionPool.tree_unflatten(None, (like.features, scores, like.mask, like.flip))
        return LogDet().value(jaxdesign.pair_information(inner, np.ones((PROMPTS, 4, 4))) + 0.1 * np.eye(DIM))

    spread = laid_out(pool, mesh_of("explicit"))
    gradient = jax.jit(jax.grad(value))(spread.scores, spread)
    assert gradient.sharding.spec[0] == "data"
    agree(gradient, jax.grad(value)(pool.scores, pool))


def test_only_arrays_on_explicit_axes_are_moved(pool):
    leaves = {"numpy": np.ones(4), "number": 2.0, "none": None, "key": jax.random.key(0), "array": pool.features}
    moved = _arrays.replicated(leaves)
    assert all(moved[name] is leaf for name, leaf in leaves.items())
    auto = laid_out(pool, mesh_of("auto")).features
    assert _arrays.replicated(auto) is auto
    whole = _arrays.replicated(laid_out(pool, mesh_of("explicit")).features)
    assert whole.is_fully_replicated and len(whole.sharding.device_set) == DEVICES
