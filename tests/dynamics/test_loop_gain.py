"""How strongly a loop turns: known cycles, the closed form of eigenvalues, a bound that needs no preferences."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize as direct

from jaxdesign.dynamics import LoopPlan
from jaxdesign.dynamics.loop_gain import eigenvalues, loop_gain, turning_rates
from jaxdesign.dynamics.one_round import jacobian
from tests.support.rounds import close, softmax, used
from tests.support.tournaments import M4, antisymmetric, cycle, random_preferences, ring, rotational

pytestmark = pytest.mark.usefixtures("float64_scope")
rates, gain = jax.jit(turning_rates), jax.jit(loop_gain)


def test_known_gains():
    close(gain(cycle(0.4), np.zeros(3)), 0.2309401077)  # T6
    close(
        gain(0.5 + antisymmetric([0.1, -0.4, 0.2], 3), np.log([0.1993539417, 0.4952811174, 0.3053649409])),
        0.1215474707,
        9,
    )  # T7
    found = rates(M4, np.log([0.1889600502, 0.3046324122, 0.2975644543, 0.2088430833]))  # T11
    close(found[2:], [0.1316914686] * 2, 9)
    assert np.all(found[:2] < 1e-8)  # an upper bound: the square root of rounding


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        (ring, 3, 0.5773502692),
        (rotational, 3, 0.5773502692),
        (ring, 4, 0.5),
        (ring, 5, 0.3804226065),
        (rotational, 5, 0.6155367074),
        (ring, 6, 0.2886751346),
        (ring, 7, 0.2785508321),
        (rotational, 7, 0.6258980382),
        (ring, 8, 0.25),
    ],
)
def test_cycles_of_n(kind, size, expected):
    """T8, per unit of A: the table, and the formulas 2/n max_k |sin(2 pi k / n)| and cot(pi / 2n) / n."""
    found = gain(kind(size, 0.4), np.zeros(size)) / 0.4
    close(found, expected)
    if kind is ring:
        formula = 2 / size * np.abs(np.sin(2 * np.pi * np.arange(size) / size)).max()
    else:
        formula = 1 / np.tan(np.pi / (2 * size)) / size
    np.testing.assert_allclose(found, formula, rtol=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
def test_three_answers_in_closed_form(seed):
    rng = np.random.default_rng(seed)
    preferences, x = random_preferences(rng, 3), 2 * rng.normal(size=3)
    A = preferences - 0.5
    expected = abs(A[0, 1] + A[1, 2] + A[2, 0]) * np.sqrt(softmax(x).prod())
    np.testing.assert_allclose(gain(preferences, x), expected, rtol=1e-9, atol=1e-9)


@given(seed=st.integers(0, 2**32 - 1))
def test_rates_are_those_of_the_matrix_square_root(seed):
    rng = np.random.default_rng(seed)
    preferences, x = random_preferences(rng, 5), rng.normal(size=5)
    pi = softmax(x)
    values, vectors = np.linalg.eigh(np.diag(pi) - np.outer(pi, pi))
    root = vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T
    expected = np.sort(np.linalg.svd(root @ (preferences - 0.5) @ root, compute_uv=False))
    np.testing.assert_allclose(rates(preferences, x), expected, atol=1e-8)
    np.testing.assert_allclose(rates(preferences, x + 30), expected, atol=1e-8)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), temper=st.sampled_from([1.0, 0.5, 2.0]))
def test_ipo_s_eigenvalues_are_alpha_with_turns_of_the_rates(seed, temper):
    """alpha +- i strength share s omega_k, K - 1 of them; none is the alpha of the direction of ones."""
    rng = np.random.default_rng(seed)
    preferences, x = random_preferences(rng, 5), rng.normal(size=5)
    alpha, strength, share = rng.uniform(), rng.uniform(0.1, 5), rng.uniform()
    found = eigenvalues(np.asarray(jacobian(x, preferences, used(LoopPlan(alpha, strength, share, temper=temper), 5))))
    assert found.shape == (4,)
    np.testing.assert_allclose(found.real, alpha, atol=1e-10)
    turns = strength * share * temper * np.asarray(rates(preferences, temper * x))[1:]
    np.testing.assert_allclose(np.sort(np.abs(found.imag)), turns, atol=1e-7)


def test_eigenvalues_leave_out_the_direction_of_ones():
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(2, 3, 4, 4))
    matrices += (7 - matrices.sum(-1, keepdims=True)) / 4  # ones is an eigenvector, of 7
    found = eigenvalues(matrices)
    assert found.shape == (2, 3, 3)
    both = np.concatenate([found, np.full((2, 3, 1), 7)], -1)
    np.testing.assert_allclose(np.sort_complex(both), np.sort_complex(np.linalg.eigvals(matrices)), atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 6, 15])
def test_no_preferences_and_policy_turn_by_more_than_one_over_pi(size):
    """Random tournaments of +-1/2, and policies searched for the largest gain; rotational ones come near."""
    rng = np.random.default_rng(size)
    signs = 0.5 + 0.5 * np.sign(random_preferences(rng, size, 200) - 0.5)
    policies = rng.choice([0.3, 1, 4], (200, 1)) * rng.normal(size=(200, size))
    found = jax.vmap(loop_gain)(signs, policies)
    worst = np.argmax(found)
    better = direct.minimize(
        lambda x: -float(gain(signs[worst], x)), policies[worst], method="Powell", options={"maxfev": 300}
    )
    assert found[worst] <= -better.fun + 1e-12 <= 1 / np.pi
    if size == 15:
        assert gain(rotational(15, 0.5), np.zeros(15)) > 0.995 / np.pi
