"""Units of features, labels and criteria change nothing: the same pairs, the same efficiencies."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign import (
    Annotators,
    Budget,
    CompletionPool,
    Criterion,
    LogDet,
    Quota,
    Status,
    Trace,
    WorstCase,
    evaluate,
    greedy,
    optimize,
    restrict_to_range,
    select_pairs,
)
from jaxdesign.pricing import memory_source
from jaxdesign.pricing.adapted import AdaptedSource
from tests.support.problems import all_pairs_of

slow = pytest.mark.slow
PROMPTS, COMPLETIONS, DIM = 5, 4, 4
PAIRS = all_pairs_of(PROMPTS, COMPLETIONS)
FIRST = PAIRS[(PAIRS[:, 1] == 0) & (PAIRS[:, 2] < 3)][:8]  # not a good choice
F = np.random.default_rng(0).standard_normal((PROMPTS, COMPLETIONS, DIM)).astype(np.float32)
PRIOR = np.diag([1.0, 2.0, 0.5, 1.0]) / 8
TARGET = np.diag([1.0, 0.3, 2.0, 0.1]) + 0.1
TARGETS = {"a": np.eye(DIM), "b": TARGET}
ONCE = Budget(8, per_pair=1)
GROUPS = Budget(8, per_pair=2, quotas=Quota(list("aabbb"), {"a": 3.0}, name="domain"))


def scaled(matrix, units):
    """The matrix of a criterion or a prior for features in other units."""
    return matrix * units[:, None] * units[None, :]


def criterion_in(name, units):
    return {
        "LogDet": LogDet(),
        "Trace": Trace(scaled(TARGET, units)),
        "WorstCase": WorstCase({key: scaled(H, units) for key, H in TARGETS.items()}),
    }[name]


def solved(name, units, budget=ONCE, prior=PRIOR, features=F, **more):
    pool = CompletionPool((features.astype(np.float64) * units).astype(features.dtype))
    return optimize(pool, criterion_in(name, units), budget, prior=scaled(prior, units), tol=1e-6, **more)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["LogDet", "Trace", pytest.param("WorstCase", marks=slow)])
@pytest.mark.parametrize("limits", ["caps", pytest.param("groups", marks=slow)])
def test_powers_of_two_on_all_features_change_no_digit(name, limits):
    budget = {"caps": ONCE, "groups": GROUPS}[limits]
    plain = solved(name, np.ones(DIM), budget)
    for exponent in (-60, -23, 9, 60):
        other = solved(name, np.full(DIM, 2.0**exponent), budget)
        np.testing.assert_array_equal(other.pairs, plain.pairs)
        np.testing.assert_allclose(other.labels, plain.labels, rtol=1e-9)
        assert other.certificate.efficiency == pytest.approx(plain.certificate.efficiency, abs=1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["LogDet", pytest.param("Trace", marks=slow)])
def test_float64_features_at_the_ends_of_what_float32_could_not_hold(name):
    with jax.enable_x64(True):
        features = F.astype(np.float64)
        plain = solved(name, np.ones(DIM), features=features)
        for exponent in (-100, 100):
            other = solved(name, np.full(DIM, 2.0**exponent), features=features)
            np.testing.assert_array_equal(other.pairs, plain.pairs)
            assert other.certificate.efficiency == pytest.approx(plain.certificate.efficiency, abs=1e-9)


@pytest.mark.parametrize("exponent", [-100, -65, 65, 100])
def test_an_evaluation_proves_as_much_in_any_units(exponent):
    """Features times 2^65 were certified at 1.0 and are at 0.231; 100 is near both ends of float32."""
    for criterion in (LogDet(), Trace(np.eye(DIM))):
        plain, other = (
            evaluate(CompletionPool(np.ldexp(F, e)), criterion, ONCE, FIRST, np.ones(8)).certificate
            for e in (0, exponent)
        )
        assert plain.efficiency < 0.25
        assert other.efficiency == pytest.approx(plain.efficiency, rel=1e-6)
        value = plain.value - (2 * DIM * exponent * np.log(2) if isinstance(criterion, LogDet) else 0)
        if isinstance(criterion, LogDet):
            assert other.value == pytest.approx(value, rel=1e-9)
        else:
            assert other.value == pytest.approx(np.ldexp(plain.value, -2 * exponent), rel=1e-9)


@settings(max_examples=8)
@given(st.lists(st.integers(-8, 8), min_size=DIM, max_size=DIM), st.sampled_from(["LogDet", "Trace"]))
def test_units_of_single_columns_change_no_efficiency(exponents, name):
    """Units from 1e-8 to 1e8, no powers of two, so that digits of the features change."""
    units = 10.0 ** np.array(exponents)
    plain = optimize(CompletionPool(F), criterion_in(name, np.ones(DIM)), ONCE, prior=PRIOR, tol=1e-8)
    other = optimize(
        CompletionPool((F * units).astype(np.float32)), criterion_in(name, units), ONCE, prior=scaled(PRIOR, units),
        tol=1e-8,
    )  # fmt: skip
    assert other.status is Status.CERTIFIED
    assert other.certificate.efficiency == pytest.approx(plain.certificate.efficiency, abs=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("solver", ["frank_wolfe", "interior_point", "matrix_atoms", "multiplicative"])
def test_every_solver_works_in_units_of_its_own(solver):
    plain, far = (solved("Trace", np.full(DIM, 2.0**e), solver=solver, max_passes=60) for e in (0, 50))
    assert far.certificate.efficiency == pytest.approx(plain.certificate.efficiency, abs=1e-9)
    assert far.certificate.efficiency > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [-60, 60])
@pytest.mark.parametrize("name", ["LogDet", pytest.param("Trace", marks=slow)])
def test_whole_labels_are_the_same_in_any_units(name, exponent):
    plain, other = (
        select_pairs(
            CompletionPool(np.ldexp(F, e)), criterion_in(name, np.full(DIM, 2.0**e)), ONCE,
            prior=scaled(PRIOR, np.full(DIM, 2.0**e)),
        )
        for e in (0, exponent)
    )  # fmt: skip
    np.testing.assert_array_equal(other.pairs, plain.pairs)
    assert other.certificate.efficiency == pytest.approx(plain.certificate.efficiency, abs=1e-9)


@pytest.mark.parametrize("criterion", [LogDet(), pytest.param(Trace(TARGET), marks=slow)], ids=["LogDet", "Trace"])
@pytest.mark.parametrize("exponent", [-67, 62])
def test_greedy_chooses_the_same_pairs_in_any_units(criterion, exponent):
    far = Trace(TARGET * 4.0**exponent) if isinstance(criterion, Trace) else criterion
    plain, other = (
        greedy(CompletionPool(np.ldexp(F, e)), crit, size=8, prior=PRIOR * 4.0**e)
        for e, crit in ((0, criterion), (exponent, far))
    )
    np.testing.assert_array_equal(*(np.asarray(found[0]) for found in (plain, other)))
    assert np.asarray(other[1]).tolist() == [1.0] * 8


@pytest.mark.slow
def test_a_prior_in_units_of_its_columns_has_the_rank_that_it_has():
    units = 2.0 ** np.array([-20, 0, 20, -30])
    prior = np.diag(units**2 * [1, 1, 1, 0])  # with one label, all four dimensions
    design = select_pairs(
        CompletionPool((F * units).astype(np.float32)), Trace(np.diag(units**2)), Budget(1), prior=prior
    )
    assert design.status is Status.EXACT


@slow
def test_a_criterion_of_the_users_own_sees_information_in_the_units_given():
    criterion = Criterion(lambda A: (A**-1).trace() if A.ndim == 0 else jax.numpy.trace(jax.numpy.linalg.inv(A)))
    pool, far = CompletionPool(F), CompletionPool(np.ldexp(F, 40))
    near, other = optimize(pool, criterion, ONCE, tol=1e-3), optimize(far, criterion, ONCE, tol=1e-27)
    assert other.certificate.value == pytest.approx(near.certificate.value * 2.0**-80, rel=1e-2)


@pytest.mark.parametrize("size", [2.0**-133, 2.0**133, 1e-40, 1e40])
def test_criteria_and_totals_of_any_size(size):
    plain, other = (optimize(CompletionPool(F), Trace(s * np.eye(DIM)), Budget(8.0)) for s in (1, size))
    # a power of two changes no digit; of other sizes, steps that stop at some accuracy stop elsewhere
    exact = np.frexp(size)[0] == 0.5
    near = {"abs": 1e-12 if exact else 1e-5}
    assert other.certificate.efficiency == pytest.approx(plain.certificate.efficiency, **near)
    assert other.certificate.value == pytest.approx(plain.certificate.value * size, rel=1e-12 if exact else 1e-5)
    many = optimize(CompletionPool(F), LogDet(), Budget(8.0 * max(size, 1 / size)))
    assert many.status is Status.CERTIFIED and many.labels.sum() == pytest.approx(8.0 * max(size, 1 / size))


def test_a_weak_column_is_no_lack_of_rank():
    features = F * np.array([1, 1, 1, 1e5], np.float32)
    restricted, basis = restrict_to_range(CompletionPool(features))
    assert restricted.dim == DIM and basis.shape == (DIM, DIM)
    design = optimize(restricted, LogDet(), ONCE)
    assert design.certificate.efficiency > 0.999


@slow
def test_annotators_and_far_units():
    people = Annotators(flip=[0.1, 0.3], names=["one", "two"])
    plain, far = (optimize(CompletionPool(np.ldexp(F, e)), LogDet(), Budget(8), annotators=people) for e in (0, 60))
    np.testing.assert_array_equal(far.pairs, plain.pairs)
    assert far.certificate.efficiency == pytest.approx(plain.certificate.efficiency, abs=1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize("exponent", [-40, pytest.param(40, marks=slow)])
def test_bounds_on_whole_labels_below_the_dimension_know_no_units(exponent):
    plain, far = (
        select_pairs(CompletionPool(np.ldexp(F, e)), LogDet(), Budget(2, per_pair=1), prior=np.ldexp(PRIOR, 2 * e))
        for e in (0, exponent)
    )
    assert plain.report["whole_bound"] < plain.certificate.value
    assert far.certificate.efficiency == pytest.approx(plain.certificate.efficiency, abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_of_two_are_exact_and_stay_in_range(dtype):
    from jaxdesign import _arrays

    exponents = np.array([-2000, -126, -24, 0, 1, 100, 127, 2000])
    least, most = (-126, 127) if dtype is np.float32 else (-1022, 1023)
    with jax.enable_x64(True):
        found = np.asarray(_arrays.exp2(jax.numpy.asarray(exponents), dtype))
    np.testing.assert_array_equal(found, np.ldexp(dtype(1), np.clip(exponents, least, most)))


def test_listed_pairs_of_a_source_are_in_its_units():
    source = memory_source(CompletionPool(F))
    for units in (np.ones(DIM), np.array([2.0, 1.0, 0.25, 1.0])):
        found, given = AdaptedSource(source, units).rows(PAIRS), source.rows(PAIRS)
        np.testing.assert_array_equal(found.differences, np.asarray(given.differences) * units)
        np.testing.assert_array_equal(found.label_info, given.label_info)
