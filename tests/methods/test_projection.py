"""The projection onto the allowed allocations: optimality conditions, closed forms, quotas, awkward points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import _arrays
from jaxdesign.methods.projection import STEPS, project
from jaxdesign.methods.room import Room

PROMPTS = 5


def projected(point, cap, total, quota=None, prompt=None):
    """The projection as float64 NumPy."""
    with _arrays.float64():
        room = Room(*(None if a is None else jnp.asarray(a) for a in (cap, np.float64(total), quota, prompt)))
        return np.asarray(jax.jit(lambda x: project(x, room))(jnp.asarray(point)))  # compiled anew: STEPS may differ


def obeys_optimality(point, cap, total, quota, prompt, found):
    """Levels exist that the conditions of Karush, Kuhn and Tucker ask for: one for all, higher ones at full quotas."""
    size = max(np.abs(point).max(), 1)
    np.testing.assert_allclose(found.sum(), total, rtol=1e-10, atol=1e-12 * size * len(point))
    assert (found >= 0).all()
    assert (found <= cap).all()
    spent = np.bincount(prompt, weights=found, minlength=len(quota))
    assert (spent <= quota * (1 + 1e-9) + 1e-12 * size * len(point)).all()
    slack, levels = 1e-9 * size, []
    for p in range(len(quota)):
        x, n, c = (a[prompt == p] for a in (point, found, cap))
        low = (x - n)[n < c].max(initial=-np.inf)  # what could take more has a multiplier of at least this
        high = (x - n)[n > 0].min(initial=np.inf)  # and what could give some at most that
        assert low <= high + slack
        levels.append((low, high, spent[p] < quota[p] * (1 - 1e-9)))
    shared = max(low for low, _, open_ in levels if open_) if any(o for *_, o in levels) else -np.inf
    assert all(high >= shared - slack for _, high, _ in levels)  # no prompt is below the common level


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    size = draw(st.integers(1, 60))
    point = rng.standard_normal(size) * 10.0 ** draw(st.integers(-3, 4))
    if draw(st.booleans()):
        point = np.round(point, 1)  # ties
    cap = rng.uniform(0, 1, size) if draw(st.booleans()) else np.ones(size)
    cap *= rng.uniform(size=size) < 0.8
    cap[0] = 1.0
    prompt = rng.integers(0, PROMPTS, size).astype(np.int32)
    held = np.bincount(prompt, weights=cap, minlength=PROMPTS)
    quota = np.where(rng.uniform(size=PROMPTS) < 0.5, held * rng.uniform(0.2, 1, PROMPTS), 10.0)
    most = np.minimum(held, quota).sum()
    return point, cap, draw(st.sampled_from([0.01, 0.4, 0.97, 1.0])) * most, quota, prompt


@settings(max_examples=10)
@given(problems())
def test_projections_satisfy_the_conditions_of_optimality(problem):
    point, cap, total, _, prompt = problem
    obeys_optimality(*problem, projected(*problem))
    free = np.full(PROMPTS, np.inf)
    obeys_optimality(point, cap, total, free, prompt, projected(point, cap, total))


def test_without_caps_it_is_the_projection_onto_a_simplex():
    # x - l where positive; of (3, 2, 0) onto sum 3: l = 1, onto sum 9: l = -4/3
    point, cap = np.array([3.0, 2.0, 0.0]), np.full(3, 100.0)
    np.testing.assert_allclose(projected(point, cap, 3.0), [2, 1, 0], atol=1e-15)
    np.testing.assert_allclose(projected(point, cap, 9.0), point + 4 / 3, rtol=1e-14)


def test_an_allowed_allocation_is_its_own_projection():
    rng = np.random.default_rng(0)
    labels = rng.uniform(0, 1, 1000) * (rng.uniform(size=1000) < 0.5)
    np.testing.assert_allclose(projected(labels, np.ones(1000), labels.sum()), labels, atol=1e-14)


def test_dense_allocations_project_like_lists():
    rng = np.random.default_rng(1)
    point, cap = rng.standard_normal((PROMPTS, 4, 4)), np.triu(np.ones((4, 4)), 1) * np.ones((PROMPTS, 1, 1))
    quota = np.array([0.5, 2.0, 9.0, 1.0, 9.0])
    prompt = np.repeat(np.arange(PROMPTS, dtype=np.int32), 16)
    listed = projected(point.ravel(), cap.ravel(), 8.0, quota, prompt)
    np.testing.assert_allclose(projected(point, cap, 8.0, quota).ravel(), listed, atol=1e-12)


@pytest.mark.parametrize("far", [-1e9, 1e9])
def test_a_point_far_from_the_others_costs_no_digits(far):
    point = np.array([far, 0.25, 0.5, 1.0])
    found = projected(point, np.array([0.75, 1.0, 1.0, 1.0]), 1.5)
    left = 1.5 - (0.75 if far > 0 else 0.0)  # level: (1.75 - 1.5) / 3, or (1.5 - 0.75) / 2
    level = (0.5 + 1.0 - left) / 2 if far > 0 else (1.75 - left) / 3
    np.testing.assert_allclose(found[1:], np.maximum(point[1:] - level, 0), atol=1e-14)
    assert found[0] == (0.75 if far > 0 else 0.0)


def test_few_sums_suffice(monkeypatch):
    from jaxdesign.methods import projection

    rng = np.random.default_rng(2)
    for scale in (1e-2, 1.0, 1e3):
        point, cap = rng.standard_t(2, 10_000) * scale, rng.uniform(0, 1, 10_000)
        exact = projected(point, cap, 100.0)
        monkeypatch.setattr(projection, "STEPS", 24)
        np.testing.assert_allclose(projected(point, cap, 100.0), exact, atol=1e-13 * scale)
        monkeypatch.setattr(projection, "STEPS", STEPS)


@pytest.mark.parametrize(
    ("point", "total"),
    [
        ([-0.1, -0.5, -0.4, -0.2, 0.7, -0.7], 4.8),
        ([0.6, -1.0, 1.0, -2.3, 0.8, 0.3], 2.1),
        ([6.9, 1.9, 7.8, 0.9, -2.3, -1.7], 1.0),
    ],
)
def test_levels_do_not_go_to_and_fro_between_two_pieces(point, total):
    """Here Newton's steps cycle between the ends of the bracket where they may land on them."""
    found = projected(np.array(point), np.ones(6), total)
    obeys_optimality(np.array(point), np.ones(6), total, np.array([np.inf]), np.zeros(6, np.int32), found)
