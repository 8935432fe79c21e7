"""Laws of the criteria: values, gradients, averaging over draws, bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign._linalg import inverse
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.of_function import Criterion
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.criteria.trace import Trace
from tests.support.problems import DIM, DRAWS, criterion_of, gradients_of, random_spd

seeds = st.integers(0, 2**32 - 1)
TARGET = random_spd(0)


def user_log_det(A):
    return -jnp.linalg.slogdet(A)[1]


def user_trace(A):
    return jnp.trace(jnp.linalg.solve(A, jnp.asarray(TARGET, A.dtype)))


# each criterion with the H of the NumPy formula; None is log det
CRITERIA = {
    "LogDet": (LogDet(), None),
    "Trace": (Trace(TARGET), TARGET),
    "Trace of a low-rank H": (Trace(random_spd(1, rank=1)), random_spd(1, rank=1)),
    "Criterion like LogDet": (Criterion(user_log_det), None),
    "Criterion like Trace": (Criterion(user_trace), TARGET),
}
every_criterion = pytest.mark.parametrize(
    ("criterion", "H"),
    [
        pytest.param(*case, id=name, marks=pytest.mark.slow if name == "Criterion like Trace" else [])
        for name, case in CRITERIA.items()
    ],
)


def matrices(seed, lead=()):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((*lead, DIM, 2 * DIM))
    return root @ root.swapaxes(-1, -2) + 0.1 * np.eye(DIM)


@every_criterion
@given(seed=seeds)
def test_values_and_gradients_are_those_of_the_formula(criterion, H, seed):
    with jax.enable_x64(True):
        stack = matrices(seed, (DRAWS,))
        assert float(criterion.value(stack[0])) == pytest.approx(criterion_of(stack[:1], H), rel=1e-10, abs=1e-12)
        assert float(criterion.value(stack)) == pytest.approx(criterion_of(stack, H), rel=1e-10, abs=1e-12)
        G = np.asarray(criterion.gradient(stack))
        np.testing.assert_allclose(G, gradients_of(stack, H), rtol=1e-9, atol=1e-11 * np.abs(G).max())
        np.testing.assert_allclose(criterion.gradient(stack[0]), G[0], rtol=1e-12)
        np.testing.assert_allclose(G, G.swapaxes(-1, -2), rtol=0, atol=1e-13 * np.abs(G).max())


@every_criterion
@given(seed=seeds)
def test_values_and_factors_together_are_those_apart(criterion, H, seed):
    with jax.enable_x64(True):
        stack = matrices(seed, (DRAWS,))
        basis, unit = random_spd(3), 2.5
        for one in (criterion, criterion.in_basis(jnp.asarray(basis), unit), criterion.in_units(np.arange(DIM))):
            value, factors = one.value_and_factors(jnp.asarray(stack))
            assert float(value) == pytest.approx(float(one.value(stack)), rel=1e-12, abs=1e-14)
            G = np.asarray(one.gradient(jnp.asarray(stack)))
            found = np.asarray(factors) @ np.swapaxes(factors, -1, -2)
            np.testing.assert_allclose(found, G, rtol=1e-8, atol=1e-10 * np.abs(G).max())


@pytest.mark.parametrize("criterion", [LogDet(), Trace(TARGET)], ids=["LogDet", "Trace"])
def test_one_factorisation_gives_value_and_factors(criterion):
    program = str(jax.make_jaxpr(criterion.value_and_factors)(np.eye(DIM, dtype=np.float32)))
    assert program.count("name=cholesky_and_inverse") == 1


@every_criterion
@given(seed=seeds)
def test_gradient_and_curvature_are_the_derivatives(criterion, H, seed):
    with jax.enable_x64(True):
        A, change = matrices(seed), matrices(seed + 1) - matrices(seed + 2)
        slope = jax.jvp(lambda a: criterion.value(a), (jnp.asarray(A),), (jnp.asarray(change),))[1]
        assert -float(np.vdot(criterion.gradient(A), change)) == pytest.approx(float(slope), rel=1e-8, abs=1e-10)
        turn = jax.jvp(criterion.gradient, (jnp.asarray(A),), (jnp.asarray(change),))[1]
        found = np.asarray(criterion.curvature(jnp.asarray(A))(jnp.asarray(change)))
        np.testing.assert_allclose(found, -turn, rtol=1e-8, atol=1e-10 * np.abs(turn).max())


@every_criterion
@given(seed=seeds)
def test_criteria_are_convex_and_decreasing(criterion, H, seed):
    with jax.enable_x64(True):
        A, B = matrices(seed), matrices(seed + 1)
        middle = float(criterion.value((A + B) / 2))
        assert middle <= (float(criterion.value(A)) + float(criterion.value(B))) / 2 + 1e-9 * abs(middle)
        assert float(criterion.value(A + B)) <= float(criterion.value(A)) + 1e-12
        # hence every tangent lies below: the certificate's argument
        tangent = float(criterion.value(A)) - float(np.vdot(criterion.gradient(A), B - A))
        assert tangent <= float(criterion.value(B)) + 1e-9 * abs(tangent)


@every_criterion
@given(seed=seeds)
def test_the_bound_is_the_best_value_of_every_matrix_with_that_linear_value(criterion, H, seed):
    """lower_bound(linear = tr(G B)) <= criterion(B) for every B; with B = A it is the value itself."""
    with jax.enable_x64(True):
        A, B = matrices(seed), matrices(seed + 1)
        value, other = float(criterion.value(A)), float(criterion.value(B))
        G = np.asarray(criterion.gradient(A))
        current, linear = float(np.vdot(G, A)), float(np.vdot(G, B))
        if linear >= current:  # as for the oracle's maximiser
            assert criterion.lower_bound(value, linear, current, DIM) <= other + 1e-9 * abs(other)
        assert criterion.lower_bound(value, current, current, DIM) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_efficiency_is_one_at_the_bound_and_the_documented_ratio_below():
    assert LogDet().efficiency(-1.0, -1.0, 4) == 1
    assert LogDet().efficiency(-1.0, -1.4, 4) == pytest.approx(np.exp(-0.1))
    assert LogDet().lower_bound(-1.0, 4.4, 4.0, 4) == pytest.approx(-1 - 4 * np.log(1.1))
    assert Trace(TARGET).efficiency(2.0, 1.5, 4) == 0.75
    assert Trace(TARGET).lower_bound(2.0, 2.5, 2.0, 4) == pytest.approx(1.6)
    assert np.isnan(Criterion(user_trace).efficiency(2.0, 1.5, 4))
    assert Criterion(user_trace).lower_bound(2.0, 5.0, 4.5, 4) == 1.5


def test_nothing_to_gain_is_fully_efficient():
    nothing = Trace(np.zeros((2, 2)))
    assert nothing.lower_bound(0.0, 0.0, 0.0, 2) == 0
    assert nothing.efficiency(0.0, 0.0, 2) == 1


@given(seeds)
def test_log_det_is_affine_invariant_up_to_a_constant(seed):
    with jax.enable_x64(True):
        A, change = matrices(seed), np.random.default_rng(seed).standard_normal((DIM, DIM)) + 2 * np.eye(DIM)
        shift = -2 * np.linalg.slogdet(change)[1]
        found = float(LogDet().value(change @ A @ change.T))
        assert found == pytest.approx(float(LogDet().value(A)) + shift, abs=1e-8)


def test_the_inverse_is_symmetric_to_the_last_bit():
    inv = np.asarray(inverse(jnp.asarray(matrices(0, (5,)), jnp.float32)))
    assert (inv == inv.swapaxes(-1, -2)).all()
    np.testing.assert_allclose(inv, np.linalg.inv(matrices(0, (5,))), rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("A", [np.zeros((3, 3)), np.diag([1.0, 1, -1])], ids=["zero", "indefinite"])
@pytest.mark.parametrize("criterion", [LogDet(), Trace(TARGET)], ids=["LogDet", "Trace"])
def test_values_where_A_is_not_positive_definite_are_not_finite(criterion, A):
    assert not np.isfinite(criterion.value(A))
    assert not np.isfinite(criterion.gradient(A)).all()


# ---- kinds and dtypes


@every_criterion
def test_every_criterion_follows_the_protocol_and_is_a_pytree(criterion, H):
    assert isinstance(criterion, CriterionLike)
    again = jax.tree.map(lambda x: x, criterion)
    assert float(again.value(matrices(3))) == float(criterion.value(matrices(3)))
    jitted = jax.jit(lambda c, a: c.value(a))
    assert float(jitted(criterion, matrices(3))) == pytest.approx(float(criterion.value(matrices(3))), rel=1e-5)


def test_float64_H_stays_float64_whatever_the_x64_flag():
    H = TARGET + 1e-12 * np.eye(DIM)
    for criterion in (Trace(H), jax.tree.unflatten(jax.tree.structure(Trace(H)), jax.tree.leaves(Trace(H)))):
        assert isinstance(criterion.H, np.ndarray)
        assert criterion.H.dtype == np.float64
        assert (criterion.H == (H + H.T) / 2).all()
        with jax.enable_x64(True):
            value = jax.jit(lambda c, a: c.value(a))(criterion, matrices(4))
            assert value.dtype == jnp.float64
            assert float(value) == pytest.approx(criterion_of(matrices(4)[None], H), rel=1e-13)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_H_of_any_float_dtype_is_taken(dtype):
    H = jnp.asarray(TARGET, dtype)
    assert Trace(H).H.dtype == np.float64
    np.testing.assert_allclose(Trace(H).H, np.asarray(H).astype(np.float64), rtol=1e-7)


def test_values_keep_the_dtype_they_are_given():
    A = jnp.asarray(matrices(5), jnp.float32)
    for criterion in (LogDet(), Trace(TARGET)):
        assert criterion.value(A).dtype == criterion.gradient(A).dtype == jnp.float32


def test_rounding_in_H_is_averaged_away_and_more_is_refused():
    almost = TARGET.copy()
    almost[0, 1] += 5e-6 * TARGET.max()
    assert (Trace(almost).H == Trace(almost).H.T).all()
    slightly_negative = np.diag([1.0, 0.5, -9e-7])
    assert (Trace(slightly_negative).H == slightly_negative).all()


def test_a_criterion_is_vmapped_over_targets():
    targets = np.stack([random_spd(k) for k in range(4)]).astype(np.float32)
    A = jnp.asarray(matrices(6), jnp.float32)
    found = jax.vmap(lambda h: Trace(h).value(A))(targets)
    np.testing.assert_allclose(found, [float(Trace(h).value(A)) for h in targets], rtol=1e-5)
