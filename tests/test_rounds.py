"""Rounds: nothing lost or repeated by a kill, held labels counted, and the limits of a budget over all rounds."""

import jax
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.preference.label_store import LabelStore
from jaxdesign.preference.label_tasks import answered
from jaxdesign.preference.labels import as_labels
from jaxdesign.preference.posterior import (
    Posterior,
    fit_posterior,
    posterior_draws,
    posterior_targets,
    predicted_gap,
    scored_pool,
)
from jaxdesign.preference.rounds import RoundPlan, run_rounds
from jaxdesign.preference.simulated_annotators import simulate_labels

RNG = np.random.default_rng(0)
POOL = jd.CompletionPool(RNG.standard_normal((12, 4, 3)).astype(np.float32))
TRUTH = np.array([1.0, -0.5, 0.3])
REWARDS = np.asarray(POOL.features) @ TRUTH
PLAN = RoundPlan((15, 12), prior=0.5, draws=2, floor=0.25)


class Killed(Exception):
    pass


def labeller(die_after=None):
    """Labels that depend on the task alone; raises after some of them, as a kill would."""
    asked = []

    def label(tasks):
        for task in tasks:
            if die_after is not None and len(asked) >= die_after:
                raise Killed
            asked.append(task.task_id)
        found = simulate_labels(
            jax.random.key(1), REWARDS, [t.pair for t in tasks], repeats=np.array([t.repeat for t in tasks])
        )
        return [answered(task, choice) for task, choice in zip(tasks, found.choices, strict=True)]

    return label, asked


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = LabelStore(tmp_path_factory.mktemp("whole"))
    return run_rounds(POOL, labeller()[0], PLAN, store, seed=3), store


def test_all_labels_of_all_rounds_are_there_once_and_fit(whole):
    result, store = whole
    pairs = [record.pair for record in store.records()]
    assert len(pairs) == sum(PLAN.totals) == len(set(pairs))  # per_pair=1 over both rounds
    assert len(result.gaps) == 2 and result.gaps[1] < result.gaps[0]
    again = fit_posterior(POOL, store.labels(), PLAN.prior)
    np.testing.assert_allclose(result.posterior.parameter, again.parameter)
    assert result.posterior.converged and not result.stopped


@pytest.mark.parametrize("die_after", [0, 7, 15, 20])
def test_a_killed_run_goes_on_to_the_same_labels(whole, tmp_path, monkeypatch, die_after):
    monkeypatch.setattr("jaxdesign.preference.rounds.GROUP", 5)
    with pytest.raises(Killed):
        run_rounds(POOL, labeller(die_after)[0], PLAN, LabelStore(tmp_path), seed=3)
    kept = len(LabelStore(tmp_path).records())
    label, asked = labeller()
    result = run_rounds(POOL, label, PLAN, LabelStore(tmp_path), seed=3)
    assert len(asked) == sum(PLAN.totals) - kept
    assert LabelStore(tmp_path).records() == whole[1].records()
    np.testing.assert_array_equal(result.posterior.parameter, whole[0].posterior.parameter)


def test_what_a_generator_yielded_is_kept(tmp_path, whole):
    """Killed in the middle of a group, after three labels were handed over: these are stored and not asked again."""
    full, _ = labeller()

    def dying(tasks):
        yield from full(tasks)[:3]
        raise Killed

    with pytest.raises(Killed):
        run_rounds(POOL, dying, PLAN, LabelStore(tmp_path), seed=3)
    kept = [record.task_id for record in LabelStore(tmp_path).records()]
    label, asked = labeller()
    run_rounds(POOL, label, PLAN, LabelStore(tmp_path), seed=3)
    assert len(kept) == 3 and not set(kept) & set(asked)
    assert LabelStore(tmp_path).records() == whole[1].records()


def test_unanswered_tasks_end_the_run_before_the_next_round(tmp_path):
    store = LabelStore(tmp_path)
    full, _ = labeller()
    result = run_rounds(POOL, lambda tasks: full(tasks)[:4], PLAN, store)
    assert store.rounds() == [0] and len(store.records()) == 4 and result.gaps == ()


def test_a_small_predicted_gap_ends_the_rounds(tmp_path, whole):
    plan = RoundPlan((15, 12), prior=0.5, draws=2, floor=0.25, stop_gap=whole[0].gaps[0] * 1.01)
    store = LabelStore(tmp_path)
    result = run_rounds(POOL, labeller()[0], plan, store, seed=3)
    assert result.stopped and store.rounds() == [0]


def test_posterior_is_the_prior_without_labels_and_draws_have_its_covariance():
    nothing = as_labels(np.zeros((0, 3), np.int32), np.zeros(0, np.int8))
    posterior = fit_posterior(POOL, nothing, 2.0)
    np.testing.assert_array_equal(posterior.information, 2 * np.eye(3))
    skew = posterior._replace(information=np.array([[2.0, 0.5, 0], [0.5, 1.0, 0], [0, 0, 4.0]]), parameter=TRUTH)
    draws = posterior_draws(skew, 40_000, 0)
    np.testing.assert_allclose(draws.mean(0), TRUTH, atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), np.linalg.inv(skew.information), atol=0.03)


def test_completions_the_reference_never_gives_do_not_count():
    pool = jd.CompletionPool(np.array([[[0.0], [1.0], [5.0]]], np.float32))
    reference = np.log(np.array([[0.5, 0.5, 1.0]])) + np.array([[0, 0, -np.inf]])
    assert posterior_targets(pool, np.zeros(1), 1.0, reference)[0, 0] == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(20))
def test_singular_information_predicts_no_gap_that_could_stop_the_rounds(seed):
    rows = np.random.default_rng(seed).standard_normal((2, 3))
    assert predicted_gap(Posterior(np.zeros(3), rows.T @ rows, True), np.eye(3), 1.0) == np.inf


def test_targets_and_gap_by_hand():
    weights = np.exp(np.asarray(POOL.features, np.float64) @ TRUTH / 0.7)
    weights /= weights.sum(1, keepdims=True)
    hand = np.mean(
        [np.cov(f.T, aweights=w, ddof=0) for f, w in zip(np.asarray(POOL.features), weights, strict=True)], 0
    )
    H = posterior_targets(POOL, TRUTH, 0.7)
    np.testing.assert_allclose(H, hand, rtol=1e-5)
    np.testing.assert_allclose(posterior_targets(POOL, np.stack([TRUTH, 0 * TRUTH]), 0.7)[0], H, rtol=1e-6)
    posterior = fit_posterior(POOL, as_labels([[0, 0, 1]], [0]), 0.5)
    gap = predicted_gap(posterior, H, 0.7)
    assert gap == pytest.approx(np.trace(H @ np.linalg.inv(posterior.information)) / 1.4)
    np.testing.assert_allclose(scored_pool(POOL, TRUTH).scores, REWARDS, rtol=1e-5)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"totals": ()}, "totals"),
        ({"totals": (2.5,)}, "totals"),
        ({"totals": (5,), "floor": 1.0}, "floor"),
        ({"totals": 5}, "totals"),
        ({"totals": (float("nan"),)}, "totals"),
        ({"totals": (5,), "draws": 0}, "draws"),
        ({"totals": (5,), "draws": 1.5}, "draws"),
        ({"totals": (5,), "stop_gap": -1.0}, "stop_gap"),
        ({"totals": (5,), "prior": 0.0}, "prior: 0 found"),
        ({"totals": (5,), "prior": np.diag([1.0, 0.0])}, "prior: smallest eigenvalue 0"),
        ({"totals": (5,), "beta": 0.0}, "beta"),
        ({"totals": (5,), "budget": jd.Budget(1, per_pair=2)}, "per_pair"),
    ],
)
def test_plans_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        RoundPlan(**{"prior": 1.0} | given)


def test_every_round_holds_its_share_of_random_pairs(tmp_path):
    plan = RoundPlan((15, 12), prior=0.5, draws=2, floor=0.4)
    store = LabelStore(tmp_path)
    run_rounds(POOL, labeller()[0], plan, store, seed=3)
    first, second = ([task.pair for task in store.batch(round)] for round in (0, 1))
    drawn = jd.with_uniform_floor(POOL, jd.Budget(15, per_pair=1), 0.4, seed=3).required
    assert len(drawn) == 6 and {tuple(pair) for pair in drawn} <= set(first)
    rest = jd.Budget(12, per_pair=1, exclude=np.unique(first, axis=0))
    drawn = jd.with_uniform_floor(POOL, rest, 0.4, seed=4).required
    assert {tuple(pair) for pair in drawn} <= set(second)
