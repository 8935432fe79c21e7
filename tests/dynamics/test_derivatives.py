"""Derivatives of what is searched for, forward and reverse, are those of the equation it solves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.dynamics import LoopPlan, fixed_point, iterate, round_optimum

SIZE = 4
TURN = np.zeros((SIZE, SIZE))
TURN[0, 1], TURN[1, 0] = 1, -1  # answer 0 beats answer 1 more often
RNG = np.random.default_rng(0)
SKEW = RNG.uniform(-0.3, 0.3, (SIZE, SIZE))
MATRIX = 0.5 + (SKEW - SKEW.T) / 2
LAW = RNG.uniform(0.1, 1, (SIZE, SIZE))
LAW = (LAW + LAW.T) / np.sum(LAW + LAW.T)
ANSWERS = RNG.normal(size=(SIZE, 3))
DIFFERENCES = ANSWERS[:, None] - ANSWERS[None, :]
ROUND = {"strength": 2.0}


def agree(function, at=0.0, step=1e-5):
    """Central differences, a forward and a reverse derivative of a scalar function."""
    with jax.enable_x64(True):
        at = jnp.asarray(at, jnp.float64)
        expected = (function(at + step) - function(at - step)) / (2 * step)
        np.testing.assert_allclose(jax.jvp(function, (at,), (jnp.ones_like(at),))[1], expected, rtol=1e-6)
        np.testing.assert_allclose(jax.grad(function)(at), expected, rtol=1e-6)


def first(size):
    """log pi* of an answer that beats another by this much; at 0 the search starts where it ends."""
    return fixed_point(0.5 + size * TURN, LoopPlan(0.5, 2.0)).log_policy[0]


@pytest.mark.parametrize("at", [0.0, 0.1])
def test_of_the_fixed_point_of_a_closed_round(at):
    agree(first, at)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("loss", ["ipo", "dpo"])
def test_of_a_round_s_optimum_along_preferences_law_and_strength(loss):
    agree(lambda t: round_optimum(MATRIX + t * TURN, LAW, None, loss=loss, **ROUND).log_policy[0])
    agree(lambda t: round_optimum(MATRIX, LAW + t * np.abs(TURN), None, loss=loss, **ROUND).log_policy[2])
    agree(lambda t: round_optimum(MATRIX + t * TURN, LAW, None, loss=loss, **ROUND).residual[1, 0])
    agree(lambda t: round_optimum(jnp.asarray(MATRIX), LAW, None, loss=loss, strength=2 + t).log_policy[0])


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ipo", "dpo"])
def test_of_an_optimum_with_features(loss):
    def along(t, features):
        return round_optimum(MATRIX + t * TURN, LAW, None, loss=loss, differences=features, **ROUND)

    agree(lambda t: along(t, DIFFERENCES).parameter[1])
    agree(lambda t: along(0 * t, DIFFERENCES + t * (DIFFERENCES**3)).log_policy[0])
    twice = np.concatenate([DIFFERENCES, DIFFERENCES], axis=-1)  # a direction that no pair differs in
    agree(lambda t: along(t, twice).log_policy[0])


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ipo", "dpo"])
@pytest.mark.parametrize("mix", ["answers", "pairs"])
def test_of_fixed_points_and_of_rounds_simulated(loss, mix):
    base = LAW - np.diag(np.diag(LAW)) if mix == "pairs" else LAW.sum(1)

    def plan(t):
        return LoopPlan(0.5 + t / 10, 2 + t, loss=loss, mix=mix, share=0.7 - t, base=base / base.sum())

    agree(lambda t: fixed_point(MATRIX + t * TURN, plan(t)).log_policy[0])
    agree(lambda t: iterate(MATRIX + t * TURN, plan(t), None, steps=9).log_policy[0])
