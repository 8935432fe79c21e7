"""The worst case over targets as a criterion: values, derivatives, bounds, what it is as a pytree, refused targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign import Budget, WorstCase, optimize
from jaxdesign.criteria.power_mean import PowerMean
from jaxdesign.criteria.protocol import CriterionLike
from tests.support.problems import COMPLETIONS, DIM, PROMPTS, criterion_of, random_pool, random_spd
from tests.support.several_targets import THREE

seeds = st.integers(0, 2**32 - 1)


def test_values_are_traces_over_scales_averaged_over_draws():
    A = np.stack([random_spd(r) + np.eye(DIM) for r in range(3)])
    criterion = WorstCase(THREE, scales={"chat": 4, "maths": 2, "code": 1})
    expected = [criterion_of(A, H) / s for H, s in zip(THREE.values(), (2, 1, 4), strict=True)]
    with jax.enable_x64(True):
        np.testing.assert_allclose(criterion.values(A), expected, rtol=1e-9)
        assert float(criterion.value(A)) == pytest.approx(max(expected), rel=1e-9)
    assert isinstance(criterion, CriterionLike) and isinstance(criterion.smooth(), CriterionLike)


def test_a_worst_case_is_a_pytree():
    criterion = WorstCase(THREE, mixture=[1, 2, 1])
    leaves, tree = jax.tree.flatten(criterion)
    back = jax.tree.unflatten(tree, leaves)
    assert back.names == ("maths", "code", "chat") and back.mixture.tolist() == [0.25, 0.5, 0.25]
    assert float(jax.jit(lambda c: c.value(jnp.eye(DIM)))(criterion)) == pytest.approx(
        max(np.trace(H) for H in THREE.values()), rel=1e-5
    )


def test_whole_labels_go_by_a_trace():
    trace = WorstCase(THREE, mixture=[1, 1, 2]).for_whole_labels()
    np.testing.assert_allclose(trace.H, (THREE["maths"] + THREE["code"] + 2 * THREE["chat"]) / 4, rtol=1e-12)
    assert trace.for_whole_labels() is trace


def test_shapes_used_here_are_those_of_the_other_files():
    assert random_pool(0).features.shape == (PROMPTS, COMPLETIONS, DIM)
    assert isinstance(WorstCase(THREE).smooth(), PowerMean)


# ---- the power mean and bounds


@pytest.mark.slow
@given(seeds, st.sampled_from([1.5, 8.0, 64.0]))
def test_the_smooth_criterion_has_the_derivatives_it_says(seed, power):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        mean = WorstCase(THREE).smooth(rng.random(3) + 0.1, power)
        A = jnp.asarray(np.stack([random_spd([seed, r]) + np.eye(DIM) for r in range(2)]))
        step = rng.standard_normal((2, DIM, DIM))
        step = jnp.asarray(step + step.swapaxes(1, 2))
        slope = jax.grad(mean.value)(A)
        G = mean.gradient(A)
        np.testing.assert_allclose(-2 * np.asarray(slope + slope.swapaxes(1, 2)) / 2, G, rtol=1e-8, atol=1e-10)
        bent = jax.jvp(mean.gradient, (A,), (step,))[1]
        scale = np.abs(bent).max()
        np.testing.assert_allclose(-np.asarray(bent) / scale, mean.curvature(A)(step) / scale, atol=1e-9)
        F = mean.factors(A)
        np.testing.assert_allclose(F @ F.swapaxes(1, 2), G, rtol=1e-9, atol=1e-11)


@given(seeds, st.sampled_from([2.0, 64.0]))
def test_the_power_mean_is_below_the_worst_and_its_bound_below_both(seed, power):
    """1 / M is concave: M(A') >= M(A)^2 / tr(G A') for any other A', which is what the bound rests on."""
    with jax.enable_x64(True):
        criterion = WorstCase(THREE)
        mean = criterion.smooth([0.2, 0.5, 0.3], power)
        A, other = (jnp.asarray(random_spd([seed, k]) + 0.1 * np.eye(DIM)) for k in range(2))
        value, linear = float(mean.value(A)), float(jnp.vdot(mean.gradient(A), other))
        assert value <= float(criterion.value(A)) * (1 + 1e-12)
        assert float(jnp.vdot(mean.gradient(A), A)) == pytest.approx(value, rel=1e-9)
        assert value**2 / linear <= float(mean.value(other)) * (1 + 1e-9)
        for mixture in (None, [0.2, 0.5, 0.3], [1, 0, 0]):
            fixed = WorstCase(THREE, mixture=mixture)
            G = fixed.gradient(A)
            current, linear = float(jnp.vdot(G, A)), float(jnp.vdot(G, other))
            bound = fixed.lower_bound(float(fixed.value(A)), linear, current, DIM)
            assert bound <= float(criterion.value(other)) * (1 + 1e-9)


def test_the_bound_inside_of_jit_is_that_of_the_mixture():
    mixture, current = jnp.float32(0.8), jnp.float32(0.8)
    bound = WorstCase(THREE).lower_bound(mixture, jnp.float32(0.9), current, DIM)
    assert float(bound) == pytest.approx(0.64 / 0.9)
    assert float(WorstCase(THREE).efficiency(jnp.float32(1.0), bound, DIM)) == pytest.approx(0.64 / 0.9)
    assert float(WorstCase(THREE).lower_bound(mixture, jnp.float32(0.7), current, DIM)) == pytest.approx(0.8)


# ---- bad input

EYE = np.eye(DIM)
CASES = {
    "no targets": (lambda: WorstCase([]), ValueError, ["targets", "none found"]),
    "a number": (lambda: WorstCase(3.0), TypeError, ["targets", "mapping", "float"]),
    "integers": (lambda: WorstCase([np.eye(3, dtype=int)]), TypeError, ["targets['0']", "int64"]),
    "one matrix": (lambda: WorstCase(EYE), ValueError, ["targets['0']", "(3,)", "square"]),
    "indefinite": (lambda: WorstCase({"a": EYE, "b": -EYE}), ValueError, ["targets['b']", "indefinite"]),
    "not symmetric": (lambda: WorstCase({"b": np.triu(np.ones((3, 3)))}), ValueError, ["targets['b']", "symmetric"]),
    "two sizes": (lambda: WorstCase({"a": EYE, "b": np.eye(2)}), ValueError, ["'b'", "(2, 2)", "'a'", "(3, 3)"]),
    "one name twice": (lambda: WorstCase({1: EYE, "1": EYE}), ValueError, ["two have the name '1'"]),
    "scale of zero": (lambda: WorstCase([EYE, EYE], scales=[1, 0]), ValueError, ["scales", "0 for target '1'"]),
    "too few scales": (lambda: WorstCase([EYE, EYE], scales=[1]), ValueError, ["scales", "2 finite numbers"]),
    "scales of others": (lambda: WorstCase({"a": EYE}, scales={"b": 1}), ValueError, ["scales", "['b']", "['a']"]),
    "words": (lambda: WorstCase([EYE], scales=["x"]), TypeError, ["scales", "one number per target"]),
    "negative mixture": (lambda: WorstCase([EYE, EYE], mixture=[2, -1]), ValueError, ["mixture", "at least 0"]),
    "empty mixture": (lambda: WorstCase([EYE, EYE], mixture=[0, 0]), ValueError, ["mixture", "positive"]),
    "another dimension": (
        lambda: optimize(random_pool(0), WorstCase([np.eye(4)]), Budget(9.0)),
        ValueError,
        ["targets", "(4, 4)", "(3, 3)"],
    ),
}


@pytest.mark.parametrize(("call", "kind", "words"), CASES.values(), ids=CASES.keys())
def test_bad_targets_are_named(call, kind, words):
    with pytest.raises(kind) as raised:
        call()
    assert all(word in str(raised.value) for word in words), raised.value
