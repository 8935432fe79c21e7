"""Targets of pools divided over devices: those of the pool in memory, and no features leave their device."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bench.exchanged import collectives
from jaxdesign import CompletionPool, policy_target, second_moment, targets
from jaxdesign.pricing import sharded_source
from tests.support.divided import DIM, LAYOUTS, divided, pool_of

PROMPTS = 64
WEIGHTS = np.random.default_rng(0).standard_normal((PROMPTS, 6)).astype(np.float32)
EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto


def close(found, expected, tolerance=1e-6):
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(np.asarray(found) / scale, np.asarray(expected) / scale, atol=tolerance)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("layout, kind", [("one axis", EXPLICIT), ("two axes", AUTO), ("beside copies", EXPLICIT)])
def test_they_are_those_of_the_pool_in_memory(layout, kind):
    pool = pool_of(PROMPTS, scored=True)
    spread = divided(pool, layout, kind)
    moments = second_moment(pool), second_moment(spread)
    assert all(isinstance(moment, np.ndarray) and moment.dtype == np.float64 for moment in moments)
    close(*moments, 1e-14)
    close(policy_target(spread), policy_target(pool))
    sharding = NamedSharding(spread.features.sharding.mesh, PartitionSpec(LAYOUTS[layout][2]))
    for weights in (WEIGHTS, jax.device_put(WEIGHTS, sharding)):
        found = policy_target(spread, weights)
        assert found.dtype == np.float32 and found.is_fully_replicated
        close(found, policy_target(pool, WEIGHTS))


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS - 3])
def test_sources_of_divided_pools(prompts):
    pool = pool_of(prompts, scored=True)
    source = sharded_source(pool, jax.make_mesh((4,), ("data",)), "data")
    close(second_moment(source), second_moment(pool))  # rows of chunks are float32
    close(policy_target(source, WEIGHTS[:prompts]), policy_target(pool, WEIGHTS[:prompts]))


def test_inside_of_the_callers_program_and_its_derivatives():
    pool = pool_of(PROMPTS)
    spread = divided(pool, "one axis", EXPLICIT)

    @jax.jit
    def both(weights, pool):
        return second_moment(pool), policy_target(pool, weights)

    for found, expected in zip(both(WEIGHTS, spread), both(WEIGHTS, pool), strict=True):
        close(found, expected)
    text = both.lower(WEIGHTS, spread).compile().as_text()
    assert all(size <= 8 * (DIM + 1) ** 2 for _, size, _ in collectives(text))  # features, 4 x 64 x 6 x 5 bytes, stay
    slopes = jax.jit(jax.grad(lambda weights, pool: policy_target(pool, weights)[0, 1]))
    close(slopes(WEIGHTS, spread), slopes(WEIGHTS, pool))


@pytest.mark.parametrize("kind", [EXPLICIT, AUTO])
def test_devices_exchange_a_matrix_whatever_the_number_of_prompts(kind, monkeypatch):
    """Two collectives of d x d numbers, of which a device receives three quarters: 12 d^2 bytes, 6 in float32."""
    texts, run = [], targets._by_device

    def recorded(*given):
        texts.append(run.lower(*given).compile().as_text())
        return run(*given)

    monkeypatch.setattr(targets, "_by_device", recorded)
    for prompts in (PROMPTS, 4 * PROMPTS):
        spread = divided(pool_of(prompts), "one axis", kind)
        second_moment(spread)
        policy_target(spread)
    exchanged = [sum(0.75 * size for _, size, _ in collectives(text)) for text in texts]
    assert exchanged[:2] == exchanged[2:]
    assert 12 * DIM**2 <= exchanged[0] <= 12 * (DIM + 2) ** 2 and exchanged[1] <= 6 * (DIM + 2) ** 2
    assert all(once for text in texts for *_, once in collectives(text))


def test_one_unit_for_all_devices():
    """A device whose features are all far smaller than those of others adds next to nothing; and all of them large."""
    pool = pool_of(PROMPTS)
    for scale in (2.0 ** np.linspace(-60, 0, PROMPTS), np.full(PROMPTS, 2.0**61)):
        features = np.asarray(pool.features) * scale.astype(np.float32)[:, None, None]
        scaled = CompletionPool(features, mask=pool.mask)
        close(policy_target(divided(scaled, "one axis", EXPLICIT)), policy_target(scaled))


def test_log_weights_that_are_none():
    spread, bad = divided(pool_of(PROMPTS), "one axis", EXPLICIT), WEIGHTS.copy()
    bad[5, 2] = -np.inf
    assert np.isfinite(policy_target(spread, bad)).all()
    bad[7, 1] = np.nan
    sharding = NamedSharding(spread.features.sharding.mesh, PartitionSpec("data"))
    for weights in (bad, jax.device_put(bad, sharding)):
        with pytest.raises(ValueError, match="log_weights: nan at prompt 7, completion 1"):
            policy_target(spread, weights)
