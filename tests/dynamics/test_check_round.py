"""The report of a round: each part is the function it stands for, advice follows from it, nothing is changed."""

import copy
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.dynamics import (
    LoopPlan,
    best_temper,
    boundary_score,
    check_round,
    fastest_plan,
    importance_weights,
    sampler_shift,
    stability,
    stage_value,
)
from jaxdesign.preference import LabelStore, RoundPlan, answered, as_labels, run_rounds, simulate_labels
from tests.support.tournaments import CHAIN, M4, REFERENCE, TRAP, TRAP_REFERENCE, cycle

RNG = np.random.default_rng(0)
PROMPTS, COMPLETIONS = 60, 4
POOL = jd.CompletionPool(RNG.normal(size=(PROMPTS, COMPLETIONS, 2)))
FEATURES = np.asarray(POOL.features)
STRAIGHT = FEATURES @ [1.0, -0.5]
CROOKED = 1.5 * np.tanh(3 * FEATURES[..., 0]) + 0.3 * FEATURES[..., 1]  # long pairs see less slope than short ones
SAFE = LoopPlan(0.5, 0.5)
i, j = np.triu_indices(COMPLETIONS, 1)
ALL_PAIRS = np.stack([np.repeat(np.arange(PROMPTS), len(i)), np.tile(i, PROMPTS), np.tile(j, PROMPTS)], 1)


class Batch:
    pairs = ALL_PAIRS[::7]
    labels = np.ones(len(ALL_PAIRS[::7]))


def long_pairs(number):
    """Pairs with the largest differences: what a design asks for."""
    size = np.abs(FEATURES[ALL_PAIRS[:, 0], ALL_PAIRS[:, 1], 0] - FEATURES[ALL_PAIRS[:, 0], ALL_PAIRS[:, 2], 0])
    return ALL_PAIRS[np.argsort(-size)[:number]]


def labelled(rewards, pairs, repeats, seed=0):
    rows = np.repeat(pairs, repeats, axis=0)
    times = np.tile(np.arange(repeats), len(pairs))
    return simulate_labels(jax.random.key(seed), rewards, rows, repeats=times)


def advice(found, about):
    (entry,) = [entry for entry in found.advice if entry.about == about]
    return entry


def test_without_labels_or_preferences_it_says_what_it_can():
    found = check_round(POOL, Batch, SAFE, beta=1.0)
    assert found.shift is found.tempering is found.stability is found.score is found.value is None
    law = np.zeros((PROMPTS, COMPLETIONS))
    weights = importance_weights(Batch.pairs, Batch.labels, law)
    np.testing.assert_allclose(weights, weights[0])  # every pair has one label and one mass
    assert found.weights.effective == pytest.approx(1) and found.weights.largest == pytest.approx(1)
    assert found.weights.uncovered == pytest.approx(1 - len(Batch.pairs) / len(ALL_PAIRS))
    assert "no label is held" in advice(found, "weights").because
    assert found.safe_for_all and advice(found, "loop").do == "go on"
    assert [entry.about for entry in found.advice] == ["weights", "loop"]


@pytest.mark.slow
def test_weights_count_the_labels_held_too():
    held = as_labels(ALL_PAIRS[:40], np.zeros(40, int))
    found = check_round(POOL, Batch, SAFE, beta=1.0, labels=held)
    both = np.unique(np.concatenate([Batch.pairs, ALL_PAIRS[:40]]), axis=0, return_counts=True)
    weights = importance_weights(*both, np.zeros((PROMPTS, COMPLETIONS)))
    total = both[1].sum()
    assert found.weights.effective == pytest.approx((both[1] @ weights) ** 2 / total / (both[1] @ weights**2))
    assert found.weights.uncovered == pytest.approx(1 - len(both[0]) / len(ALL_PAIRS))


@pytest.mark.slow
def test_a_shift_beyond_noise_is_reported_and_weights_are_advised_as_far_as_they_pay():
    held = labelled(CROOKED, ALL_PAIRS, 5)
    far = labelled(CROOKED, long_pairs(60), 40, seed=1)
    held = as_labels(np.concatenate([held.pairs, far.pairs]), np.concatenate([held.choices, far.choices]))
    law = np.zeros((PROMPTS, COMPLETIONS))
    found = check_round(POOL, Batch, SAFE, beta=1.0, labels=held)
    alone = sampler_shift(POOL, held, law, beta=1.0)
    assert found.shift.p_value == alone.p_value < 1e-2 and found.shift.gap > 0
    assert found.tempering.temper == best_temper(POOL, held, law, beta=1.0).temper > 0
    assert f"temper {found.tempering.temper:g}" in advice(found, "weights").do


@pytest.mark.slow
def test_where_the_model_holds_labels_are_left_as_they_are():
    most, far = labelled(STRAIGHT, ALL_PAIRS[::2], 1), labelled(STRAIGHT, long_pairs(30), 5, seed=1)
    held = as_labels(np.concatenate([most.pairs, far.pairs]), np.concatenate([most.choices, far.choices]))
    found = check_round(POOL, Batch, SAFE, beta=1.0, labels=held)
    assert found.shift.p_value > 0.05 and found.tempering is None
    entry = advice(found, "weights")
    assert entry.do == "leave the labels as they are" and "no more than noise" in entry.because


def test_labels_that_can_be_separated_give_no_number():
    p, first, second = ALL_PAIRS[:30].T
    wins = np.where(STRAIGHT[p, first] > STRAIGHT[p, second], 0, 1)
    found = check_round(POOL, Batch, SAFE, beta=1.0, labels=as_labels(ALL_PAIRS[:30], wins))
    assert not found.shift.converged and found.tempering is None and "separated" in advice(found, "weights").because
    assert found.summary()["shift"]["p_value"] is None


@pytest.mark.slow
def test_few_labels_of_the_law_call_for_random_pairs():
    held = labelled(CROOKED, long_pairs(40), 120)
    more = labelled(CROOKED, ALL_PAIRS[::3], 8, seed=1)
    held = as_labels(np.concatenate([held.pairs, more.pairs]), np.concatenate([held.choices, more.choices]))
    found = check_round(POOL, Batch, SAFE, beta=1.0, labels=held)
    assert found.weights.effective < 0.5 and found.tempering.temper > 0
    assert advice(found, "weights").do.endswith("and label pairs at random too")


loop = partial(check_round, POOL, Batch, beta=1.0)


def test_the_loop_by_preferences():
    safe = loop(LoopPlan(0.9, 0.3), preferences=M4)
    assert advice(safe, "loop").do == "go on" and safe.stability.proven == 1
    circling = loop(LoopPlan(0.5, 3.8), preferences=cycle(0.4))
    entry = advice(circling, "loop")
    other = fastest_plan(LoopPlan(0.5, 3.8), circling.stability.omega)
    assert circling.stability.rho > 1 and entry.do.startswith("lower the share")
    assert f"alpha {other.plan.alpha:.3g}" in entry.do and "repels" in entry.because
    assert circling.stability.rho == stability(cycle(0.4), LoopPlan(0.5, 3.8)).rho


@pytest.mark.slow
def test_draws_without_a_fixed_point_hide_none_of_the_others():
    never = np.full((3, 3), 0.5)
    never[0, 1:], never[1:, 0] = 1, 0  # DPO teaches an answer that never loses no finite score
    plan = LoopPlan(0.5, 60.0, loss="dpo")
    some = loop(plan, preferences=np.stack([never, np.asarray(cycle(0.4))]))
    rho = some.stability.rho
    assert np.isnan(rho[0]) and rho[1] > 1 and some.summary()["stability"]["largest_rho"] == rho[1]
    entry = advice(some, "loop")
    assert entry.do.startswith("lower the share") and f"at most {rho[1]:.3g}, unknown in 50%" in entry.because
    entry = advice(loop(plan, preferences=never), "loop")
    assert entry.do == "look at the preferences" and "no fixed point was found" in entry.because


@pytest.mark.slow
def test_the_loop_is_never_called_safe_by_its_local_rate():
    trap = LoopPlan(0.0, 20.0, reference=TRAP_REFERENCE)
    for start in (None, TRAP_REFERENCE):
        found = loop(trap, preferences=TRAP, start=start)
        assert found.stability.rho < 1 and advice(found, "loop").do == "simulate from the policy at hand"
        assert "proves nothing" in advice(found, "loop").because
    there = loop(trap, preferences=TRAP, start=np.zeros(5))
    assert advice(there, "loop").do == "go on" and "from this start (SIMULATED)" in advice(there, "loop").because


def test_the_loop_without_preferences_feedback_or_a_pull_back():
    assert advice(loop(LoopPlan(0.9, 5.0)), "loop").do == "find out"
    assert "no feedback" in advice(loop(LoopPlan(0.9, 5.0, share=0.0, loss="dpo")), "loop").because
    assert "below 1" in advice(loop(LoopPlan(1.0, 5.0, share=0.0, loss="dpo")), "loop").do  # it collapses all the same
    for preferences in (None, CHAIN):
        assert advice(loop(LoopPlan(1.0, 0.1), preferences=preferences), "loop").do == "take alpha below 1"


@pytest.mark.slow
def test_the_stage():
    wins, votes = np.full(400, 5.0), np.full(400, 8.0)
    score = loop(SAFE, votes=(wins, votes))
    assert score.score == boundary_score(wins, votes) and advice(score, "stage").do == "compare on-policy pairs"
    longer = jd.CompletionPool(2 * FEATURES)
    H = jd.policy_target(POOL)
    both = loop(SAFE, votes=(8 - wins, votes), on_pool=longer, crit=jd.Trace(H), prior=np.eye(2))
    assert both.value == stage_value(longer, POOL, jd.Trace(H), np.eye(2)) and both.value.ratio == pytest.approx(4)
    entry = advice(both, "stage")
    assert entry.do == "compare on-policy pairs" and "worth 4" in entry.because and "win 38%" in entry.because


@pytest.mark.slow
def test_it_changes_nothing_and_its_summary_is_json():
    held = labelled(STRAIGHT, ALL_PAIRS, 1)
    before = copy.deepcopy((POOL.features, Batch.pairs, Batch.labels, held))
    plan = LoopPlan(0.6, 3.0, 0.7, reference=REFERENCE)
    found = loop(plan, labels=held, preferences=np.stack([M4, CHAIN]), votes=([3, 4], [5, 5]))
    for old, new in zip(
        jax.tree.leaves(before), jax.tree.leaves((POOL.features, Batch.pairs, Batch.labels, held)), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    told = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert told["stability"]["largest_rho"] == pytest.approx(float(found.stability.rho.max()))
    assert told["shift"]["p_value"] == found.shift.p_value and len(told["advice"]) == 3


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"batch": ALL_PAIRS}, TypeError, "batch: ndarray"),
        ({"beta": 0.0}, ValueError, "beta=0"),
        ({"target_law": np.zeros((3, 4))}, ValueError, "target_law"),
        ({"on_pool": POOL}, ValueError, "on_pool: needs crit"),
        ({"preferences": M4 + 1}, ValueError, "preferences"),
    ],
)
def test_refusals(change, kind, message):
    given = {"batch": Batch, "beta": 1.0} | change
    with pytest.raises(kind, match=message):
        check_round(POOL, given.pop("batch"), SAFE, **given)


@pytest.mark.slow
def test_rounds_store_the_report_and_are_the_same_with_and_without(tmp_path):
    plan = RoundPlan((12, 10), prior=0.5, draws=2)
    seen = []

    def label(tasks):
        found = simulate_labels(jax.random.key(1), STRAIGHT, [task.pair for task in tasks])
        return [answered(task, choice) for task, choice in zip(tasks, found.choices, strict=True)]

    def check(pool, batch, held):
        seen.append((batch.labels.sum(), len(held.choices)))
        return check_round(pool, batch, SAFE, beta=1.0, labels=held).summary()

    plain = run_rounds(POOL, label, plan, LabelStore(tmp_path / "plain"))
    store = LabelStore(tmp_path / "checked")
    checked = run_rounds(POOL, label, plan, store, check=check)
    assert seen == [(12, 0), (10, 12)]  # before any label of the batch
    assert plain.checks == (None, None) and len(checked.checks) == 2
    assert store.notes(1)["check"] == checked.checks[1] and "p_value" in checked.checks[1]["shift"]
    np.testing.assert_array_equal(plain.posterior.parameter, checked.posterior.parameter)
    assert [t.pair for t in store.batch(1)] == [t.pair for t in LabelStore(tmp_path / "plain").batch(1)]
    again = run_rounds(POOL, label, plan, store, check=check)
    assert len(seen) == 2 and again.checks == checked.checks


def test_traced_arguments_are_refused():
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda law: check_round(POOL, Batch, SAFE, beta=1.0, target_law=law).safe_for_all)(
            jnp.zeros((PROMPTS, COMPLETIONS))
        )
