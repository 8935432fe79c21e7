"""Rounds: nothing lost or repeated by a kill, held labels counted, and the limits of a budget over all rounds."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.preference.fit.bradley_terry import fit_bradley_terry
from jaxdesign.preference.fit.posterior import (
    Posterior,
    fit_posterior,
    posterior_draws,
    posterior_targets,
    predicted_gap,
    scored_pool,
)
from jaxdesign.preference.labels.labels import as_labels
from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.task_files import read_answers, write_tasks
from jaxdesign.preference.labels.tasks import answered
from jaxdesign.preference.rounds import RoundPlan, next_batch, run_rounds
from jaxdesign.preference.simulation.annotators import simulate_labels

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


@pytest.mark.thorough
def test_all_labels_of_all_rounds_are_there_once_and_fit(whole):
    result, store = whole
    pairs = [record.pair for record in store.records()]
    assert len(pairs) == sum(PLAN.totals) == len(set(pairs))  # per_pair=1 over both rounds
    assert len(result.gaps) == 2 and result.gaps[1] < result.gaps[0]
    again = fit_posterior(POOL, store.labels(), PLAN.prior)
    np.testing.assert_allclose(result.posterior.parameter, again.parameter)
    assert result.posterior.converged and not result.stopped


@pytest.mark.thorough
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
    assert result.gaps == whole[0].gaps
    np.testing.assert_array_equal(result.posterior.parameter, whole[0].posterior.parameter)


def test_position_order_is_drawn_and_labels_are_about_the_pair_all_the_same(whole, tmp_path):
    """Out to people who look at the texts alone, and back: the same labels as from those who see i first always."""
    _, store = whole
    swapped = np.array([task.swapped for round in (0, 1) for task in store.batch(round)])
    assert 0.2 < swapped.mean() < 0.8  # 27 fair coins: outside with probability 0.001
    prompts = [f"prompt {p}" for p in range(12)]
    texts = [[f"{p} {k}" for k in range(4)] for p in range(12)]
    full, _ = labeller()

    def people(tasks):
        write_tasks(tmp_path / "out.jsonl", tasks, prompts, texts, overwrite=True)
        better = {record.pair: record.pair[1 + record.choice] for record in full(tasks)}
        pair_of, rows = {task.task_id: task.pair for task in tasks}, []
        for line in (tmp_path / "out.jsonl").read_text().splitlines():
            row = json.loads(line)
            wanted = f"{pair_of[row['task_id']][0]} {better[pair_of[row['task_id']]]}"
            choice = {row["response_a"]: "a", row["response_b"]: "b"}[wanted]
            rows.append(json.dumps({"task_id": row["task_id"], "choice": choice}))
        (tmp_path / "back.jsonl").write_text("\n".join(rows))
        return read_answers(tmp_path / "back.jsonl", tasks)

    other = LabelStore(tmp_path / "store")
    run_rounds(POOL, people, PLAN, other, seed=3)
    assert other.records() == store.records()


def test_another_seed_shows_another_order(whole, tmp_path):
    store = LabelStore(tmp_path)
    run_rounds(POOL, lambda tasks: [], PLAN, store, seed=4)
    order = {task.pair: task.swapped for task in whole[1].batch(0)}
    both = [(task.swapped, order[task.pair]) for task in store.batch(0) if task.pair in order]
    assert len(both) >= 5 and any(one != other for one, other in both)


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


@pytest.mark.slow
def test_without_labels_a_batch_is_the_trace_design_of_the_reference_policy():
    budget, prior = jd.Budget(6, per_pair=1), 0.5 * np.eye(3)
    target = posterior_targets(POOL, np.zeros(3), 2.0)
    expected = jd.select_pairs(POOL, jd.Trace(target), budget, prior=prior, seed=4)
    found = next_batch(POOL, budget, as_labels(np.zeros((0, 3), int), np.zeros(0, int)), 0.5, 2.0, seed=4)
    np.testing.assert_array_equal(found.pairs, expected.pairs)


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
    centred = REWARDS - REWARDS.mean(1, keepdims=True)
    np.testing.assert_allclose(scored_pool(POOL, TRUTH).scores, centred, rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize(("floor", "number"), [(0.25, 4), pytest.param(0.4, 6, marks=pytest.mark.slow)])
def test_every_round_holds_its_share_of_random_pairs(whole, tmp_path, floor, number):
    _, store = whole
    if floor != PLAN.floor:
        store = LabelStore(tmp_path)
        run_rounds(POOL, labeller()[0], replace(PLAN, floor=floor), store, seed=3)
    first, second = ([task.pair for task in store.batch(round)] for round in (0, 1))
    seeds = [int(np.random.SeedSequence([3, round]).generate_state(2)[0]) for round in (0, 1)]
    drawn = jd.with_uniform_floor(POOL, jd.Budget(15, per_pair=1), floor, seed=seeds[0]).required
    assert len(drawn) == number and {tuple(pair) for pair in drawn} <= set(first)
    rest = jd.Budget(12, per_pair=1, exclude=np.unique(first, axis=0))
    drawn = jd.with_uniform_floor(POOL, rest, floor, seed=seeds[1]).required
    assert {tuple(pair) for pair in drawn} <= set(second)


def test_gaps_of_a_finished_store_are_those_of_its_rounds(whole):
    """Called again, nothing is asked and round 0's gap is still that of its own labels."""
    result, store = whole
    label, asked = labeller()
    again = run_rounds(POOL, label, PLAN, store, seed=3)
    assert again.gaps == result.gaps and not asked


def test_a_stop_between_the_gaps_stops_a_resumed_run_where_it_stopped_the_first(whole, tmp_path):
    """With labels of a later round in the store, the gap of an earlier one must not look smaller than it was."""
    first, second = whole[0].gaps
    with pytest.raises(Killed):
        run_rounds(POOL, labeller(die_after=26)[0], PLAN, LabelStore(tmp_path), seed=3)
    plan = RoundPlan(PLAN.totals, PLAN.prior, draws=2, floor=0.25, stop_gap=(first + second) / 2)
    result = run_rounds(POOL, labeller()[0], plan, LabelStore(tmp_path), seed=3)
    assert result.gaps == whole[0].gaps and len(LabelStore(tmp_path).records()) == sum(PLAN.totals)


@pytest.mark.parametrize(
    "change",
    [
        {"features": np.asarray(POOL.features)[:, ::-1]},
        {"features": np.asarray(POOL.features) * 2},
        {"flip": 0.1},
        {"mask": np.arange(4) < np.array([[3]] + [[4]] * 11)},
    ],
    ids=["order", "scale", "flip", "mask"],
)
def test_a_store_of_another_pool_is_refused(whole, change):
    other = jd.CompletionPool(**{"features": POOL.features} | change)
    with pytest.raises(ValueError, match="another pool"):
        run_rounds(other, labeller()[0], PLAN, whole[1], seed=3)


def test_a_store_of_other_totals_is_refused_and_more_rounds_are_not(whole, tmp_path):
    with pytest.raises(ValueError, match="begun with"):
        run_rounds(POOL, labeller()[0], RoundPlan((15, 14), prior=0.5, draws=2), whole[1], seed=3)
    store = LabelStore(tmp_path)
    run_rounds(POOL, labeller()[0], RoundPlan((15,), prior=0.5), store)
    assert len(run_rounds(POOL, labeller()[0], RoundPlan((15, 12), prior=0.5, draws=2), store).gaps) == 2


@pytest.mark.parametrize(
    "wrong, error",
    [
        (lambda tasks: answered(tasks[0], 0), TypeError),
        (lambda tasks: None, TypeError),
        (lambda tasks: [tuple(answered(tasks[0], 0))], TypeError),
        (lambda tasks: [answered(tasks[0], 0)._replace(task_id="x", pair=(99, 0, 1))], ValueError),
        (lambda tasks: [answered(tasks[0], 0)._replace(pair=(0, 2, 1))], ValueError),
        (lambda tasks: [answered(tasks[0], 0)._replace(choice=7)], ValueError),
        (lambda tasks: (answered(task, 0)._replace(choice=-1) for task in tasks), ValueError),
    ],
)
def test_what_is_no_label_of_a_task_is_never_stored(tmp_path, wrong, error):
    store = LabelStore(tmp_path)
    with pytest.raises(error, match=r"label|record"):
        run_rounds(POOL, wrong, PLAN, store, seed=3)
    assert not store.records()
    assert len(run_rounds(POOL, labeller()[0], PLAN, store, seed=3).gaps) == 2  # and nothing stands in the way


def test_more_labels_than_pairs_are_refused_before_the_first(tmp_path):
    label, asked = labeller()
    with pytest.raises(ValueError, match=r"totals=\(40, 40\): 80 labels, but only 71"):
        budget = jd.Budget(1, per_pair=1, exclude=[(0, 0, 1)])
        run_rounds(POOL, label, RoundPlan((40, 40), prior=0.5, budget=budget), LabelStore(tmp_path))
    assert not asked


@pytest.mark.slow
def test_required_pairs_are_asked_about_in_the_first_round_only(tmp_path):
    features = np.asarray(POOL.features)
    i, j = np.triu_indices(4, 1)
    lengths = np.linalg.norm(features[:, i] - features[:, j], axis=-1)
    p, number = np.unravel_index(np.argmin(lengths), lengths.shape)
    shortest = (int(p), int(i[number]), int(j[number]))  # which no design would choose
    budget = jd.Budget(1, per_pair=None, required=[shortest])
    store = LabelStore(tmp_path)
    plan = RoundPlan((4, 4), prior=0.5, draws=2, budget=budget, residual=None)
    run_rounds(POOL, labeller()[0], plan, store)
    assert shortest in [task.pair for task in store.batch(0)]
    assert shortest not in [task.pair for task in store.batch(1)]


@pytest.mark.parametrize(
    ("total", "limits", "floor"),
    [
        pytest.param(1, {}, 0.25, id="one label", marks=pytest.mark.slow),
        pytest.param(8, {"quotas": [jd.Quota(list("abcd") * 3, at_most=3)]}, 0.25, id="quotas", marks=pytest.mark.slow),
        pytest.param(4, {"required": [(0, 0, 1), (1, 0, 1), (2, 0, 1)]}, 0.9, id="required"),
    ],
)
@pytest.mark.slow
def test_a_floor_leaves_feasible_plans_feasible(tmp_path, total, limits, floor):
    store, budget = LabelStore(tmp_path), jd.Budget(1, per_pair=1, **limits)
    run_rounds(POOL, labeller()[0], RoundPlan((total,), prior=1.0, floor=floor, budget=budget), store)
    assert len(store.records()) == total


@pytest.mark.slow
def test_a_posterior_is_the_fit_of_its_labels_and_of_nothing_else():
    labels = as_labels([[0, 0, 1], [1, 0, 2], [2, 1, 3], [3, 0, 1], [3, 0, 1]], [0, 1, 2, 0, 3])
    rows = np.asarray(jd.pair_differences(POOL, np.array([[0, 0, 1], [1, 0, 2], [2, 1, 3], [3, 0, 1]])))
    expected = fit_bradley_terry(rows, [1.0, 0.0, 0.5, 1.0], np.ones(4), prior=0.5)
    found = fit_posterior(POOL, labels, 0.5)
    np.testing.assert_allclose(found.parameter, expected.parameter, atol=1e-6)
    np.testing.assert_allclose(found.information, expected.information, atol=1e-6)
    five = as_labels([[p, 0, 1] for p in range(5)], [0] * 5)  # five pairs are filled up to eight
    rows = np.asarray(jd.pair_differences(POOL, np.asarray(five.pairs)))
    expected = fit_bradley_terry(rows, np.ones(5), np.ones(5), prior=0.5)
    np.testing.assert_allclose(fit_posterior(POOL, five, 0.5).information, expected.information, atol=1e-6)


# ---- a belief before the first label


@pytest.mark.thorough
def test_a_belief_with_a_mean_is_the_first_rounds_pilot():
    """As if its labels were held: draws of it for margins and H; around 0 it is its precision."""
    none, budget = as_labels(np.zeros((0, 3), int), np.zeros(0, int)), jd.Budget(6, per_pair=1)
    belief = jd.Belief(TRUTH, 20 * np.eye(3))
    drawn = belief.draws(2, 7)
    found = next_batch(POOL, budget, none, belief, 0.8, draws=2, seed=7)
    expected = jd.select_pairs(
        scored_pool(POOL, drawn), jd.Trace(posterior_targets(POOL, drawn, 0.8)), budget, prior=20.0, seed=7
    )
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    np.testing.assert_array_equal(found.certificate, expected.certificate)
    around = next_batch(POOL, budget, none, jd.Belief(np.zeros(3), 0.5 * np.eye(3)), 0.8)
    np.testing.assert_array_equal(around.certificate, next_batch(POOL, budget, none, 0.5, 0.8).certificate)


@pytest.mark.thorough
def test_rounds_go_on_from_the_posterior_of_earlier_ones(tmp_path):
    first = run_rounds(POOL, labeller()[0], RoundPlan((10,), prior=0.5, draws=2), LabelStore(tmp_path / "1"), seed=1)
    plan = RoundPlan((10,), prior=first.posterior, draws=2)
    second = run_rounds(POOL, labeller()[0], plan, LabelStore(tmp_path / "2"), seed=2)
    again = fit_posterior(POOL, LabelStore(tmp_path / "2").labels(), first.posterior.belief)
    np.testing.assert_array_equal(second.posterior.parameter, again.parameter)
    assert second.gaps[0] < first.gaps[0]


def test_a_belief_that_is_not_definite_is_refused_by_plans():
    with pytest.raises(ValueError, match="must be positive definite"):
        RoundPlan((10,), prior=jd.Belief(np.zeros(2), np.diag([1.0, 0.0])))
