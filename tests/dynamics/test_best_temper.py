"""`best_temper` by hand, where it must go to either end, and its two parts of the regret by simulation."""

import jax
import numpy as np
import pytest

from jaxdesign import CompletionPool
from jaxdesign.dynamics import best_temper, sampler_shift
from tests.support.bent_rewards import all_pairs, bent, directly, labels_of
from tests.support.refusals import check_refusal

TARGET = np.diag([1.0, 2.0, 3.0])
BENT = bent(0.5, labels=600)
HELD = BENT.drawn(np.random.default_rng(1))
TABULAR = CompletionPool(np.eye(4, 3)[None])
TREE = all_pairs(1, 4)[[0, 3, 5]]


def given(**changes):
    return {"beta": 0.5, "target": TARGET} | changes


def test_both_parts_are_those_of_the_shift():
    """At t = 0 the bias is the gap of `sampler_shift`, at t = 1 there is none; order of tempers as given."""
    found = best_temper(BENT.pool, HELD, BENT.policy, **given(tempers=[1.0, 0.0, 0.25]))
    shift = sampler_shift(BENT.pool, HELD, BENT.policy, **given())
    assert (found.tempers == [1, 0, 0.25]).all()
    assert found.bias[:2] == pytest.approx([0, max(shift.gap, 0)], abs=1e-14)
    assert found.certain[:2] == pytest.approx([0, shift.gap_interval[0]], abs=1e-14)
    assert found.temper == found.tempers[np.argmin(found.certain + found.variance)]
    rows, worth = BENT.rows, np.zeros(len(BENT.rows))
    place = {tuple(pair): row for row, pair in enumerate(BENT.pairs.tolist())}
    np.add.at(worth, [place[tuple(pair)] for pair in HELD.pairs.tolist()], 1 - HELD.choices)
    for temper, said in zip(found.tempers, found.variance, strict=True):
        weights = (BENT.mass() * BENT.counts.sum() / BENT.counts) ** temper
        fit = directly(rows, worth / BENT.counts, BENT.counts * weights)
        chances = 1 / (1 + np.exp(-rows @ fit))
        inverse = np.linalg.inv((rows * (BENT.counts * weights * chances * (1 - chances))[:, None]).T @ rows)
        seen = weights**2 * (worth * (1 - chances) ** 2 + (BENT.counts - worth) * chances**2)
        covariance = inverse @ (rows * seen[:, None]).T @ rows @ inverse
        assert said == pytest.approx(np.trace(TARGET @ covariance), rel=1e-7)


def test_eleven_tempers_are_tried():
    found = best_temper(BENT.pool, HELD, BENT.policy, **given())
    np.testing.assert_allclose(found.tempers, np.arange(11) / 10, atol=1e-15)
    assert found.temper in found.tempers and (np.diff(found.variance) > 0).all()


def test_equal_weights_leave_nothing_to_choose():
    labels = labels_of(all_pairs(1, 4), [3, 4, 2, 5, 3, 1], [4, 3, 5, 2, 4, 6])
    found = best_temper(TABULAR, labels, np.zeros((1, 4)), beta=1.0)
    assert found.temper == 0 and np.ptp(found.variance) < 1e-12 * found.variance[0] and (found.bias < 1e-14).all()


def test_strong_misfits_and_many_labels_ask_for_full_weights():
    problem = bent(1.0, labels=200_000)
    found = best_temper(problem.pool, problem.drawn(np.random.default_rng(2)), problem.policy, **given())
    assert found.temper == 1 and found.bias[0] > 10 * found.variance[-1]


@pytest.mark.parametrize("many", [3, 1000])
def test_separated_labels_choose_nothing(many):
    labels = labels_of(TREE, [many, 3, many], [many, 0, many])
    found = best_temper(TABULAR, labels, np.zeros((1, 4)), beta=1.0)
    assert np.isnan(found.temper) and np.isnan(found.variance).all()


def test_directions_that_full_weights_do_not_reach_are_no_risk():
    """The law asks for answers 0 and 1: scores of the others vary only where plain labels speak of them."""
    labels = labels_of(all_pairs(1, 4), [6, 7, 8, 3, 9, 5], [5, 3, 2, 4, 1, 6])
    law = np.array([[0.0, 0.0, -np.inf, -np.inf]])
    found = best_temper(TABULAR, labels, law, beta=1.0, tempers=[0, 0.5, 1])
    assert found.variance[1] == pytest.approx(found.variance[2], rel=1e-9) and found.variance[0] < found.variance[1]


def test_the_law_of_drawn_pairs_is_passed_on():
    law = np.zeros((4, 5))
    one = best_temper(BENT.pool, HELD, BENT.policy, **given(drawn_law=BENT.policy))
    two = best_temper(BENT.pool, HELD, law, **given(drawn_law=law))
    for found in (one, two):
        assert found.temper == 0 and np.ptp(found.variance) < 1e-10 * found.variance[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tempers": [0.5, 1.5]}, ["tempers:", "1.5", "[0, 1]"]),
        ({"tempers": []}, ["tempers:", "one or more"]),
        ({"tempers": [np.nan]}, ["tempers:", "nan"]),
        ({"beta": -1.0}, ["beta", "price of KL"]),
        ({"target": np.eye(2)}, ["target: shape (2, 2)"]),
        ({"drawn_law": np.zeros((2, 2))}, ["drawn_law: shape (2, 2)", "(4, 5)"]),
    ],
)
def test_refusals_name_the_argument(change, words):
    check_refusal(lambda: best_temper(BENT.pool, HELD, BENT.policy, **given(**change)), ValueError, words)


def test_traced_arguments_are_refused():
    def call(law):
        return best_temper(BENT.pool, HELD, law, **given()).temper

    check_refusal(lambda: jax.jit(call)(BENT.policy), TypeError, ["best_temper", "outside of jit"])


# ---- by simulation


@pytest.mark.slow
@pytest.mark.parametrize("bend", [0.0, 0.5])
def test_the_estimated_regret_is_that_of_the_fits(bend):
    """Mean of |w_t - w of infinitely many labels of the target law|^2 over fits, beside bias + variance."""
    problem, rng, tempers = bent(bend), np.random.default_rng(3), np.array([0.0, 0.3, 0.6, 1.0])
    truth = directly(problem.rows, problem.chances, problem.mass())
    regrets, said, chosen = [], [], []
    for _ in range(200):
        labels = problem.drawn(rng)
        found = best_temper(problem.pool, labels, problem.policy, **given(tempers=tempers))
        fits = [sampler_shift(problem.pool, labels, problem.policy, temper=t, **given()).weighted for t in tempers]
        regrets.append([(w - truth) @ TARGET @ (w - truth) for w in fits])
        said.append(found.bias + found.variance)
        chosen.append(found.temper)
    actual, estimated = np.mean(regrets, axis=0), np.mean(said, axis=0)
    error = np.std(regrets, axis=0) / np.sqrt(len(regrets))
    assert actual[-1] > 1.4 * actual[0] if bend == 0 else actual[0] > 10 * actual[-1]
    # the bias is cut at 0, by which noise alone looks like some
    assert (np.abs(estimated - actual) < 4 * error + 0.25 * actual[-1]).all()
    assert abs(estimated[-1] - actual[-1]) < 0.25 * actual[-1]
    assert np.mean(np.array(chosen) <= 0.3) > 0.9 if bend == 0 else np.mean(chosen) > 0.9
