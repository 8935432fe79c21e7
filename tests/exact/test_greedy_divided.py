"""Greedy on pools divided over devices: the picks of one device, in the caller's jit too; features are not gathered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxdesign as jd
from bench.exchanged import collectives
from tests.support.divided import DIM, divided, pool_of

EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto
SHUT = np.array([[61, 0, 1], [5, 2, 4], [5, 4, 1]])
CASES = {
    "LogDet": (jd.LogDet(), {}, {"per_pair": 2, "per_prompt": 3, "prior": 0.1}),
    "LogDet, draws": (jd.LogDet(), {"scored": True, "draws": 2}, {"exclude": SHUT, "prior": np.eye(DIM)}),
    "LogDet, few prompts": (jd.LogDet(), {"prompts": 16}, {"exclude": [[15, 0, 1]]}),
    "Trace": (jd.Trace(np.diag(np.arange(1.0, DIM + 1))), {"scored": True}, {"exclude": SHUT, "per_prompt": 2}),
    "Criterion": (jd.Criterion(lambda A: jnp.trace(jnp.linalg.inv(A) @ jnp.linalg.inv(A))), {}, {"prior": 0.1}),
}


def case(name):
    crit, kind, options = CASES[name]
    pool = pool_of(**{"prompts": 64, **kind})
    return pool, lambda p: jd.greedy(p, crit, size=30, **options)


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("name", CASES)
def test_the_picks_of_one_device(name):
    pool, choose = case(name)
    expected = choose(pool)
    spread = divided(pool, "one axis", EXPLICIT)
    same(choose(spread), expected)
    same(jax.jit(choose)(spread), expected)
    same(choose(divided(pool, "two axes", AUTO)), expected)


@pytest.mark.slow
def test_features_in_extreme_units_over_both_axes_of_a_mesh():
    pool, choose = case("LogDet")
    pool = jd.CompletionPool(pool.features * 1e12, mask=pool.mask)
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    spread = jax.device_put(pool.features, NamedSharding(mesh, PartitionSpec("data")))
    mask = jax.device_put(pool.mask, NamedSharding(mesh, PartitionSpec(None, None)))
    choose = lambda p: jd.greedy(p, jd.LogDet(), size=10)  # noqa: E731
    same(jax.jit(choose)(jd.CompletionPool(spread, mask=mask)), choose(pool))


@pytest.mark.slow
@pytest.mark.parametrize("crit", [jd.LogDet(), jd.Trace(np.eye(16))])
def test_inside_a_training_step_no_features_are_gathered(crit):
    """Features come from parameters that lie on the same mesh, and never leave the device that they were made on."""
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    put = lambda a, *spec: jax.device_put(a, NamedSharding(mesh, PartitionSpec(*spec)))  # noqa: E731
    rng = np.random.default_rng(0)
    embedded = rng.standard_normal((1024, 4, 8)).astype(np.float32)
    weights, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 16), (1, 1, 16)))

    rows = NamedSharding(mesh, PartitionSpec("data"))

    def step(embedded, weights, bias):
        # columns come together on each device: every axis but that of the prompts is local in what is chosen from
        features = jnp.einsum("pkd,de->pke", embedded, weights, out_sharding=rows)
        pairs, labels = jd.greedy(jd.CompletionPool(jnp.tanh(features + bias)), crit, size=8, prior=0.1)
        return pairs, labels, weights - 0.1 * jnp.sum(labels)

    arguments = put(embedded, "data"), put(weights, None, "model"), put(bias)
    compiled = jax.jit(step).lower(*arguments).compile()
    matrix = 16 * 16 * 8  # bytes; the features have a hundred times as many
    assert max(size for _, size, _ in collectives(compiled.as_text())) <= 2 * matrix
    pairs, labels, updated = compiled(*arguments)
    assert updated.sharding.spec == arguments[1].sharding.spec
    expected = jd.greedy(jd.CompletionPool(np.tanh(embedded @ weights + bias)), crit, size=8, prior=0.1)
    same((pairs, labels), expected)
