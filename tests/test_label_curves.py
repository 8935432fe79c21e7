"""The value-of-labels curve: predictions are those of the labels chosen, comparisons those of power laws."""

import jax
import numpy as np
import pytest

from jaxdesign import Budget, CompletionPool, LogDet, Trace, baselines, policy_target, select_pairs
from jaxdesign.label_curves import LabelCurve, label_curve
from jaxdesign.pricing import sharded_source, streamed_source
from tests.support.problems import DIM, information_of, random_pool, random_spd, written_out
from tests.support.stored import ragged

slow = pytest.mark.slow
POOL, RIDGE = random_pool(0, copies=False), 0.1


@pytest.mark.slow
def test_predictions_are_those_of_the_labels_chosen():
    budget, seen = Budget(1, per_pair=2), []
    curve = label_curve(
        POOL, LogDet(), budget, [6, 12], prior=RIDGE, rules=("random", "largest_distance"), seeds=(0, 1), beta=0.5,
        callback=lambda *told: seen.append(told),
    )  # fmt: skip
    H = np.asarray(policy_target(POOL), np.float64)
    pairs, z, c = written_out(POOL)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    for row, total in enumerate((6, 12)):
        for column, seed in enumerate((0, 1)):
            for rule, choose in (("design", select_pairs), ("random", baselines.random)):
                design = choose(
                    POOL, LogDet(), Budget(total, per_pair=2), prior=RIDGE, seed=0 if rule == "design" else seed
                )
                labels = np.zeros(len(pairs))
                labels[[index[tuple(pair)] for pair in design.pairs.tolist()]] = design.labels
                A = information_of(z, c, labels, RIDGE * np.eye(DIM))[0]
                assert curve.values[rule][row, column] == pytest.approx(-np.linalg.slogdet(A)[1], rel=1e-9)
                assert curve.gaps[rule][row, column] == pytest.approx(
                    np.trace(np.linalg.solve(A, H)) / (2 * 0.5), rel=1e-6
                )
        assert curve.lower_bounds[row] <= min(values[row].min() for values in curve.values.values())
    assert [(rule, total) for rule, total, _ in seen[:2]] == [("design", 6), ("random", 6)]
    assert len(seen) == 2 * (1 + 2 + 2)  # the design once, the others for each seed


@pytest.mark.slow
def test_a_trace_criterion_brings_its_own_target():
    H = random_spd(1)
    curve = label_curve(POOL, Trace(H), Budget(1, per_pair=1), [8], prior=RIDGE, beta=2.0)
    np.testing.assert_allclose(curve.gaps["design"], curve.values["design"] / 4, rtol=1e-9)


def test_labels_that_leave_information_singular_are_worth_nothing():
    curve = label_curve(POOL, LogDet(), Budget(1, per_pair=1), [DIM], rules=("first_two",))
    assert np.isfinite(curve.gaps["design"]).all()
    assert (curve.gaps["first_two"] == np.inf).all() or np.isfinite(curve.gaps["first_two"]).all()


@pytest.mark.parametrize("totals", [pytest.param([6], marks=pytest.mark.thorough), pytest.param([8, 16], marks=slow)])
def test_of_a_file_and_of_a_divided_pool_it_is_that_of_the_pool_in_memory(totals):
    given, several = ragged(prompts=120), len(totals) > 1
    pool = CompletionPool(**given)
    sources = [streamed_source(chunk=50, **given)]
    if several:
        mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
        sources += [streamed_source(chunk=64, **given), sharded_source(pool, mesh, "data")]
    for crit in (LogDet(), Trace(np.diag(np.arange(1.0, 7))))[: len(totals)]:
        budget, options = Budget(1, per_pair=1), {"prior": RIDGE, "seeds": (0, 1)}
        expected, *found = (label_curve(one, crit, budget, totals, **options) for one in (pool, *sources))
        for curve in found:
            for name in ("values", "gaps"):
                rtol = 1e-10 if name == "values" else 1e-5  # the target of a pool in memory is computed in float32
                for rule in ("design", "random_distinct", "random"):
                    np.testing.assert_allclose(getattr(curve, name)[rule], getattr(expected, name)[rule], rtol=rtol)
            np.testing.assert_allclose(curve.lower_bounds, expected.lower_bounds, rtol=1e-10)


def power_laws():
    totals = np.array([10.0, 20, 40, 80])
    gaps = {
        "design": (3 / totals)[:, None],
        "random": (12 / totals)[:, None] * [0.9, 1.1],
        "late": np.full((4, 1), np.inf),
    }
    gaps["late"][2:] = 0.1
    return LabelCurve(totals, gaps, gaps, np.zeros(4), 2.5 / totals)


def test_between_the_numbers_tried_the_gap_is_a_power_of_the_number():
    curve = power_laws()
    for total in (10, 13.7, 40, 79):
        assert curve.labels_needed("design", 3 / total) == pytest.approx(total)
    assert curve.labels_saved(40) == pytest.approx(4.0)
    assert curve.labels_saved(80, rule="random", against="random") == pytest.approx(1.0)
    assert np.isnan(curve.labels_saved(20))  # the design has that gap with fewer labels than were tried
    assert curve.labels_needed("late", 0.5) == 40
    assert np.isnan(curve.labels_needed("late", 0.05))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"totals": []}, r"totals=\[\]: expected a list of rising"),
        ({"totals": [5, 5]}, r"totals=\[5.0, 5.0\]: expected a list of rising"),
        ({"rules": ("best",)}, "rules: 'best' is unknown; choose of random"),
        ({"beta": 0.0}, "beta=0: must be positive"),
        ({"totals": [6.5]}, "budget.total=6.5: whole labels"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"totals": [6], "prior": RIDGE, **change}
    with pytest.raises(ValueError, match=message):
        label_curve(POOL, LogDet(), Budget(1), **arguments)


def test_rules_and_totals_that_were_not_tried_are_named():
    with pytest.raises(ValueError, match="rule='best': not on the curve, which has design, random, late"):
        power_laws().labels_needed("best", 1.0)
    with pytest.raises(ValueError, match="total=11: was not tried; choose one of 10, 20, 40, 80"):
        power_laws().labels_saved(11)


def test_the_summary_is_against_the_first_rule_and_says_which():
    curve = power_laws()
    assert "pairs by 'random'" in curve.summary() and curve.summary() == curve.summary(against="random")
    assert "pairs by 'late'" in curve.summary(against="late")
    alone = LabelCurve(curve.totals, {}, {"design": curve.gaps["design"]}, curve.lower_bounds, curve.least)
    with pytest.raises(ValueError, match="against=None: the curve has the design alone"):
        alone.summary()


def test_random_pairs_of_different_completions_are_what_a_design_is_compared_with_unless_asked():
    """Copies take labels of "random" and none of "random_distinct", which is the fair comparison."""
    features = np.random.default_rng(0).standard_normal((8, 6, 3)).astype(np.float32)
    features[:, 2:] = features[:, :1]  # of 15 pairs of a prompt 6 differ in nothing, none of them is a candidate
    curve = label_curve(CompletionPool(features), LogDet(), Budget(1, per_pair=1), [10], prior=RIDGE, seeds=range(8))
    assert list(curve.gaps) == ["design", "random_distinct", "random"]
    assert curve.gaps["design"].mean() < curve.gaps["random_distinct"].mean() < curve.gaps["random"].mean()
    assert "pairs by 'random_distinct'" in curve.summary()
