"""Plans: a pytree that is checked where a user makes it, and brought to one form for K answers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.dynamics import LoopPlan, fixed_point, iterate
from jaxdesign.dynamics.plan import in_dtype
from tests.support.tournaments import M4, REFERENCE, law_of

SINGLE = jnp.asarray(M4, jnp.float32)
LAW = law_of((1, 1, 4, 2, 1, 1), 4)


def test_a_plan_comes_back_from_its_leaves():
    plan = LoopPlan(0.5, 2.0, 0.25, loss="dpo", base=LAW, reference=REFERENCE, mix="pairs", temper=0.5)
    leaves, tree = jax.tree.flatten(plan)
    assert len(leaves) == 6
    again = jax.tree.unflatten(tree, leaves)
    for name in ("alpha", "strength", "share", "loss", "base", "reference", "mix", "temper"):
        assert getattr(again, name) is getattr(plan, name)
    named = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(plan)[0]}
    assert named == {".alpha", ".strength", ".share", ".temper", ".base", ".reference"}


def test_loss_and_mix_are_part_of_the_structure():
    trees = {
        jax.tree.structure(LoopPlan(0.5, 2.0, loss=loss, mix=mix))
        for loss in ("ipo", "dpo")
        for mix in ("answers", "pairs")
    }
    assert len(trees) == 4


@pytest.mark.slow
def test_what_is_no_plan_may_have_a_plan_s_form():
    """Axes to map over, gradients: numbers out of a plan's ranges that JAX puts in its place."""
    plan = LoopPlan(0.5, 2.0, 0.9)
    assert jax.tree.map(lambda leaf: -leaf, plan).strength == -2.0
    plans = LoopPlan(jnp.array([0.5, 0.6]), jnp.array([1.0, 2.0]), 0.9)
    axes = jax.tree.unflatten(jax.tree.structure(plan), (0, 0, None, None))
    entropies = jax.vmap(lambda one: fixed_point(SINGLE, one).entropy, in_axes=(axes,))(plans)
    for alpha, strength, entropy in zip((0.5, 0.6), (1.0, 2.0), entropies, strict=True):
        np.testing.assert_allclose(entropy, fixed_point(M4, LoopPlan(alpha, strength, 0.9)).entropy, rtol=1e-5)


@pytest.mark.slow
def test_the_gradient_of_a_simulation_is_a_plan():
    """Against differences, and negative where the number it belongs to may not be."""

    def entropy(plan, preferences=SINGLE):
        return iterate(preferences, plan, None, steps=6).entropy

    plan = LoopPlan(0.5, 2.0, 0.9)
    slope = jax.grad(entropy)(plan)
    assert slope.strength < 0
    for name in ("alpha", "strength", "share", "temper"):
        value = getattr(plan, name)
        ends = [entropy(replace(plan, **{name: value + h}), M4) for h in (-1e-5, 1e-5)]
        np.testing.assert_allclose(getattr(slope, name), (ends[1] - ends[0]) / 2e-5, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": -0.1}, r"alpha=-0\.1: must be in \[0, 1\]"),
        ({"alpha": 1.5}, r"alpha=1\.5: must be in \[0, 1\]"),
        ({"alpha": np.nan}, "alpha=nan"),
        ({"alpha": np.array([0.5, 2.0])}, "alpha=2: must be"),
        ({"strength": 0.0}, "strength=0: must be above 0 and finite"),
        ({"strength": np.inf}, "strength=inf"),
        ({"strength": jnp.asarray(-1.0)}, "strength=-1"),
        ({"share": 1.01}, r"share=1\.01: must be in \[0, 1\]"),
        ({"share": np.float32(-1)}, "share=-1"),
        ({"temper": 0.0}, "temper=0: must be above 0"),
        ({"loss": "kto"}, "loss='kto': expected one of 'ipo', 'dpo'"),
        ({"mix": "tokens"}, "mix='tokens': expected one of 'answers', 'pairs'"),
    ],
)
def test_values_out_of_range_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        LoopPlan(**({"alpha": 0.5, "strength": 2.0} | change))


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, np.float32(0.5), jnp.asarray(0.5)])
def test_ends_of_ranges_and_numbers_of_any_kind_are_taken(value):
    assert LoopPlan(value, 2, value).alpha is value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": np.array([0.5, 0.6])}, r"alpha: shape \(2,\) found; expected a number; .* jax.vmap"),
        ({"strength": [1.0, 2.0]}, r"strength: shape \(2,\)"),
        ({"reference": np.zeros(3)}, r"reference: shape \(3,\) found; expected 4"),
        ({"reference": np.zeros((2, 4))}, r"reference: shape \(2, 4\) found; expected \(4,\)"),
        ({"reference": [0, 0, 0, np.inf]}, r"reference: inf at \(3,\).* finite"),
        ({"base": np.zeros(5)}, r"base: shape \(5,\)"),
        ({"base": np.zeros((2, 2, 4))}, r"base: shape \(2, 2, 4\)"),
        ({"base": [0, 0, 0, np.nan]}, r"base: nan at \(3,\)"),
        ({"base": LAW}, r"base: a pair law \(4, 4\) found with mix='answers'; pass mix='pairs'"),
        ({"base": LAW[:3, :3], "mix": "pairs"}, r"base: shape \(3, 3\) found; expected \(4, 4\)"),
        ({"base": -LAW, "mix": "pairs"}, "base: .* at least 0"),
        ({"base": np.triu(LAW), "mix": "pairs"}, "base: .* mirror image"),
        ({"base": np.eye(4), "mix": "pairs"}, "base: no pair of different answers"),
        (
            {"base": law_of((0, 1, 0, 0, 1, 0), 4), "mix": "pairs", "share": 0},
            r"base: no chain .* the answers \(0, 2\) \| \(1, 3\); scores .* cannot be compared",
        ),
    ],
)
def test_what_does_not_fit_the_preferences_is_refused_by_name(change, message):
    plan = LoopPlan(**({"alpha": 0.5, "strength": 2.0} | change))
    for function in (lambda: fixed_point(M4, plan), lambda: iterate(M4, plan, None, steps=6)):
        with pytest.raises(ValueError, match=message):
            function()


def test_pairs_of_the_policy_join_what_the_base_law_leaves_apart():
    plan = LoopPlan(0.5, 2.0, share=0.1, base=law_of((0, 1, 0, 0, 1, 0), 4), mix="pairs")
    assert fixed_point(M4, plan).converged


def test_one_form_for_all_plans(float64_scope):
    plan = in_dtype(LoopPlan(0.5, 2, reference=REFERENCE + 7, base=REFERENCE - 3), 4, jnp.float64)
    assert {leaf.dtype for leaf in jax.tree.leaves(plan)} == {np.dtype(np.float64)}
    np.testing.assert_allclose(np.exp(plan.reference), [0.1, 0.2, 0.3, 0.4], rtol=1e-14)
    np.testing.assert_allclose(plan.base, [0.1, 0.2, 0.3, 0.4], rtol=1e-14)
    mixed = in_dtype(LoopPlan(0.5, 2, mix="pairs"), 4, jnp.float64).base
    np.testing.assert_allclose(mixed, (1 - np.eye(4)) / 12, rtol=1e-14)
    given = in_dtype(LoopPlan(0.5, 2, mix="pairs", base=LAW * 5 + np.eye(4)), 4, jnp.float64).base
    np.testing.assert_allclose(given, LAW / LAW.sum(), rtol=1e-14)
    own = in_dtype(LoopPlan(0.5, 2, mix="pairs", base=REFERENCE), 4, jnp.float64).base
    product = np.outer(np.exp(REFERENCE), np.exp(REFERENCE)) * (1 - np.eye(4))
    np.testing.assert_allclose(own, product / product.sum(), rtol=1e-14)
    uniform = in_dtype(LoopPlan(0.5, 2), 4, jnp.float32)
    assert uniform.base.dtype == np.float32
    np.testing.assert_allclose(uniform.base, 0.25)
